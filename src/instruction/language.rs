//! Whether a text is English at all.

use super::lexicon::is_english;
use super::token::Token;
use super::vocabulary::Vocabulary;

/// Small words that are frequent in languages that robots are spoken to in, and are rare or absent in English instructions.
const FOREIGN: [&str; 66] = [
    "la", "el", "los", "las", "una", "un", "uno", "le", "les", "des", "du", "der", "das", "dem", "den",
    "ein", "eine", "einen", "und", "mit", "auf", "il", "lo", "gli", "della", "di", "e", "o", "os", "uma",
    "um", "da", "na", "no", "de", "het", "een", "op", "en", "et", "ett", "och", "den", "pa", "i", "w", "z",
    "ve", "bir", "sul", "sur", "dans", "por", "para", "con", "com", "zu", "das", "die", "im", "am", "al",
    "y", "van", "yang", "ke",
];

/// The first word of another language where the text is not English.
///
/// A text is foreign when most of its words are in no English word list and it does not begin with a verb of the vocabulary; with a
/// frequent small word of another language, fewer suffice. A single unknown word is a name.
pub(super) fn foreign_word<'a>(tokens: &'a [Token], vocabulary: &Vocabulary) -> Option<&'a Token> {
    if tokens.iter().any(|it| it.text == ",") && !tokens.iter().any(|it| FOREIGN.contains(&it.text.as_str()))
    {
        return None; // a list of names
    }
    let words: Vec<&Token> = tokens.iter().filter(|it| it.is_word && !is_number(&it.text)).collect();
    let first = words.first()?;
    if words.len() < 2 || vocabulary.mended_verb(&first.text).is_some() {
        return None;
    }
    // A verb may be borrowed, or written alike: "bring mir bitte den Stuhl".
    let is_verb = vocabulary.verbs.contains_word(&first.text);
    let is_small = |it: &str| FOREIGN.contains(&it) && !vocabulary.is_closed(it);
    let unknown: Vec<&&Token> =
        words.iter().filter(|it| !is_english(&it.text) && !vocabulary.is_closed(&it.text)).collect();
    let share = unknown.len() as f64 / words.len() as f64;
    let with_small = words.iter().any(|it| is_small(&it.text));
    let english = ["the", "a", "an", "this", "that", "please", "robot", "and", "in", "to"];
    let has_english = words.iter().any(|it| english.contains(&it.text.as_str()));
    let is_foreign = match (with_small, has_english) {
        _ if is_verb => with_small && !has_english && share >= 0.6,
        (true, false) => share >= 0.3,
        (true, true) => share >= 0.6,
        (false, false) => share >= 0.6 && words.len() >= 3,
        (false, true) => share >= 0.75,
    };
    if is_foreign { unknown.first().map(|it| **it).or(Some(first)) } else { None }
}

fn is_number(word: &str) -> bool {
    word.chars().all(|it| it.is_ascii_digit() || it == '.')
}
