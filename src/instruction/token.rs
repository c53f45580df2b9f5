//! Text to words.

use super::text::{Character, plain};
use super::types::{ParseError, Span};
use super::vocabulary::Vocabulary;

/// A word or a punctuation mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    /// Lower case, typographic apostrophes made plain. Punctuation is one of `,` `.` (which stands for all ends), `/`, `(`, `)` or the
    /// mark itself.
    pub(super) text: String,
    pub(super) span: Span,
    pub(super) is_word: bool,
    /// Written with a capital where the text is not written so throughout: a name.
    pub(super) is_name: bool,
}

/// Longest instruction taken, bytes. A hundred words are about 600.
pub(super) const MAX_BYTES: usize = 2000;

/// The words of `text`. A word is a run of letters and digits, with hyphens, apostrophes and full stops inside it;
/// a possessive "'s" is a word of its own. Labels ("Task:"), numbers of a list ("1.") and quotes are left out; spellings such as
/// "pls" are written out.
pub(super) fn tokenize(text: &str, vocabulary: &Vocabulary) -> Result<Vec<Token>, ParseError> {
    if text.len() > MAX_BYTES {
        return Err(ParseError {
            message: format!("expected an instruction of at most {MAX_BYTES} bytes, got {}", text.len()),
            span: 0..text.len(),
        });
    }
    let tokens = without_frame(without_labels(raw_tokens(&plain(text))?, vocabulary));
    let tokens: Vec<Token> = tokens.into_iter().flat_map(|it| written_out(it, vocabulary)).collect();
    if !tokens.iter().any(|it| it.is_word) {
        let message = "expected an instruction such as \"pick up the red cup\", got no words".to_owned();
        return Err(ParseError { message, span: 0..text.len() });
    }
    Ok(tokens)
}

/// Whether a token is a picture or another mark that belongs to no sentence.
pub(super) fn is_symbol(token: &Token) -> bool {
    !token.is_word && !matches!(token.text.as_str(), "," | "." | "/" | "(" | ")")
}

/// Words and marks as they stand; a colon is still one.
fn raw_tokens(characters: &[Character]) -> Result<Vec<Token>, ParseError> {
    let mut tokens = Vec::new();
    let mut at = 0;
    let is_alphanumeric = |at: usize| characters.get(at).is_some_and(|it| it.letter.is_alphanumeric());
    while let Some(&first) = characters.get(at) {
        if !first.letter.is_alphanumeric() {
            push_mark(&mut tokens, characters, at);
            at += 1;
            continue;
        }
        let start = at;
        let is_digit = |at: usize| characters.get(at).is_some_and(|it| it.letter.is_ascii_digit());
        while let Some(&Character { letter, start: from, end }) = characters.get(at) {
            if letter.is_alphabetic() && !is_latin(letter) {
                return Err(ParseError {
                    message: format!("expected English words in Latin letters, got {letter:?}"),
                    span: from..end,
                });
            }
            let joins = match letter {
                '&' | '-' | '\'' | '’' | '\u{2010}' | '\u{2011}' => is_alphanumeric(at + 1),
                // "2.5", "e.g": not the end of one sentence and the start of the next.
                '.' | ',' => {
                    is_digit(at + 1) && at > start && is_digit(at - 1)
                        || letter == '.' && is_alphanumeric(at + 1)
                }
                _ => false,
            };
            let combining = ('\u{300}'..='\u{36f}').contains(&letter);
            if !(letter.is_alphanumeric() || joins || combining) {
                break;
            }
            at += 1;
        }
        push_word(&mut tokens, &characters[start..at]);
        let is_plural_owner = characters[at - 1].letter == 's'
            && matches!(characters.get(at), Some(Character { letter: '\'' | '’', .. }))
            && characters.get(at + 1).is_some_and(|it| it.letter == ' ')
            && !characters[..start].iter().any(|it| matches!(it.letter, '\'' | '‘' | '’'));
        if is_plural_owner {
            // "the kids' shoes".
            let Character { start, end, .. } = characters[at];
            tokens.push(Token { text: "'s".to_owned(), span: start..end, is_word: true, is_name: false });
        }
    }
    let n_words = tokens.iter().filter(|it| it.is_word).count();
    let is_title = 2 * tokens.iter().filter(|it| it.is_name).count() > n_words;
    for (token_idx, token) in tokens.iter_mut().enumerate() {
        token.is_name &= !is_title && token_idx > 0;
    }
    Ok(tokens)
}

fn push_mark(tokens: &mut Vec<Token>, characters: &[Character], at: usize) {
    let Character { letter, start, end } = characters[at];
    if letter == '/'
        && let Some(last) = tokens.last_mut().filter(|it| it.text == "w" && it.span.end == start)
    {
        "with".clone_into(&mut last.text); // "w/"
        return;
    }
    let is_new_line = letter == '\n' && characters.get(at + 1).is_some_and(|it| !it.letter.is_alphabetic());
    let text = match letter {
        '\n' if is_new_line => ".".to_owned(),
        it if it.is_whitespace() || it.is_control() => return,
        '.' | ';' | '!' | '?' | '…' => ".".to_owned(),
        '"' | '“' | '”' | '„' | '«' | '»' | '\'' | '’' | '‘' | '`' | '*' | '_' | '#' | '>' | '<' | '~' =>
        {
            return;
        }
        '-' if characters.get(at + 1).is_some_and(|it| it.letter == '>') => return,
        ',' | '-' | '–' | '—' | '•' | '·' | '|' => ",".to_owned(),
        '(' | '[' => "(".to_owned(),
        ')' | ']' => ")".to_owned(),
        '+' => "&".to_owned(),
        '°' => "degrees".to_owned(),
        other => other.to_string(),
    };
    let is_word = text == "&" || text == "degrees";
    tokens.push(Token { text, span: start..end, is_word, is_name: false });
}

fn push_word(tokens: &mut Vec<Token>, characters: &[Character]) {
    const WHOLE: [&str; 9] =
        ["that's", "it's", "where's", "let's", "what's", "there's", "here's", "who's", "he's"];
    let word: String = characters
        .iter()
        .flat_map(|it| match it.letter {
            '’' => '\''.to_lowercase(),
            '\u{2010}' | '\u{2011}' => '-'.to_lowercase(),
            other => other.to_lowercase(),
        })
        .collect();
    let span = characters[0].start..characters[characters.len() - 1].end;
    let is_name = characters[0].letter.is_uppercase();
    let word_of = |text: &str, span: Span| Token { text: text.to_owned(), span, is_word: true, is_name };
    if let Some(owner) = word.strip_suffix("'s")
        && !WHOLE.contains(&word.as_str())
    {
        let apostrophe = characters[characters.len() - 2].start;
        tokens.push(word_of(owner, span.start..apostrophe));
        tokens.push(Token { is_name: false, ..word_of("'s", apostrophe..span.end) });
        return;
    }
    // "10cm" is a number and its unit.
    let digits = characters.iter().take_while(|it| it.letter.is_ascii_digit() || it.letter == '.').count();
    let unit = &word[word.char_indices().nth(digits).map_or(word.len(), |it| it.0)..];
    if digits > 0 && matches!(unit, "mm" | "cm" | "m" | "in" | "inch" | "inches" | "ft" | "deg" | "degrees") {
        let middle = characters[digits].start;
        tokens.push(word_of(&word[..digits], span.start..middle));
        tokens.push(word_of(if unit == "in" { "inch" } else { unit }, middle..span.end));
        return;
    }
    tokens.push(word_of(&word, span));
}

/// Without "Task:", "Step 1:" and such before, "Out:" behind, and the numbers of a list. Other colons end a sentence.
fn without_labels(tokens: Vec<Token>, vocabulary: &Vocabulary) -> Vec<Token> {
    let mut kept: Vec<Token> = Vec::with_capacity(tokens.len());
    let mut sentence = 0; // where the sentence began, in `kept`
    let n_tokens = tokens.len();
    let verbs: Vec<bool> =
        tokens.iter().map(|it| it.is_word && vocabulary.verbs.longest(&[&it.text]).is_some()).collect();
    let next_is_verb = |token_idx: usize| verbs.get(token_idx + 1).is_some_and(|it| *it);
    for (token_idx, mut token) in tokens.into_iter().enumerate() {
        let words: Vec<&str> = kept[sentence..].iter().map(|it| it.text.as_str()).collect();
        match token.text.as_str() {
            ":" => {
                let n_label = words.iter().rev().take_while(|it| is_label_word(it, vocabulary)).count();
                let is_last = token_idx + 1 == n_tokens;
                if words.len() <= 3 && n_label == words.len() || is_last && n_label > 0 {
                    kept.truncate(kept.len() - n_label);
                    continue;
                }
                ".".clone_into(&mut token.text);
            }
            // "1.", "2)", "(3)", "no. 5".
            // "1. open the oven 2. take out the casserole".
            "." if words.len() > 1
                && next_is_verb(token_idx)
                && words.last().is_some_and(|it| is_list_number(it)) =>
            {
                kept.pop();
            }
            "." | ")" if words.len() == 1 && words[0].parse::<u32>().is_ok() && token_idx + 1 < n_tokens => {
                kept.truncate(sentence);
                continue;
            }
            ")" if matches!(words[..], ["(", number] if number.parse::<u32>().is_ok())
                || !words.is_empty()
                    && words.len() <= 2
                    && words.iter().all(|it| is_label_word(it, vocabulary)) =>
            {
                kept.truncate(sentence);
                continue;
            }
            "." if matches!(words.last(), Some(&("no" | "nr"))) => {
                // "the no. 2 pencil".
                if let Some(last) = kept.last_mut() {
                    "number".clone_into(&mut last.text);
                }
                continue;
            }
            _ => {}
        }
        let ends = token.text == "." || token.text == "," && sentence == kept.len();
        kept.push(token);
        if ends {
            sentence = kept.len();
        }
    }
    kept
}

/// Without brackets around all of it.
fn without_frame(mut tokens: Vec<Token>) -> Vec<Token> {
    let is = |token: Option<&Token>, mark: &str| token.is_some_and(|it| it.text == mark);
    while is(tokens.first(), "(") && is(tokens.last(), ")") {
        tokens.pop();
        tokens.remove(0);
    }
    tokens
}

/// A number that may count the lines of a list.
fn is_list_number(word: &str) -> bool {
    word.len() <= 2 && word.parse::<u32>().is_ok()
}

fn is_label_word(word: &str, vocabulary: &Vocabulary) -> bool {
    vocabulary.labels.contains(word) || word.parse::<u32>().is_ok()
}

/// "pls" as "please"; "far-left" as "far left" where every part is a word of the grammar, but "left-most" stays one.
fn written_out(token: Token, vocabulary: &Vocabulary) -> Vec<Token> {
    let written: Vec<&str> = if !token.is_word {
        return vec![token];
    } else if let Some(written) = vocabulary.spellings.get(&token.text) {
        written.split(' ').collect()
    } else if token.text.contains('-') && !vocabulary.is_closed(&token.text) {
        let parts: Vec<&str> = token.text.split('-').collect();
        let is_sentence = vocabulary.verbs.contains_word(parts[0]) && parts.contains(&"the");
        if !is_sentence && !parts.iter().all(|it| vocabulary.may_be_hyphenated(it)) {
            return vec![token];
        }
        parts
    } else {
        return vec![token];
    };
    written.into_iter().map(|it| Token { text: it.to_owned(), ..token.clone() }).collect()
}

fn is_latin(c: char) -> bool {
    matches!(c, 'a'..='z' | 'A'..='Z' | '\u{aa}' | '\u{ba}' | '\u{c0}'..='\u{24f}' | '\u{1e00}'..='\u{1eff}')
}
