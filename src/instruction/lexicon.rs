//! Which words are English, and which of them are verbs: a list made from SCOWL and WordNet (`scripts/make_lexicon.py`).
//!
//! The closed classes of the grammar come from the [`Vocabulary`](super::Vocabulary); this list only tells an unknown word
//! from a slip, and a verb from a noun where the grammar has no entry for it.

use std::sync::LazyLock;

/// Sorted lines `word flag`; the flags are explained in the script that makes the file.
static LINES: LazyLock<Vec<&'static str>> =
    LazyLock::new(|| include_str!("../../config/english_words.txt").lines().collect());

/// What kind of word a word is most often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WordUse {
    /// More often a verb than anything else: "wipe".
    MostlyVerb,
    /// A verb as well: "slice".
    AlsoVerb,
    /// A noun or an adjective only.
    Name,
    /// English, but none of these: an adverb, a form of another word.
    Other,
}

/// How a word, or a verb and its particle, is used; none for what is no English word.
pub(super) fn word_use(word: &str) -> Option<WordUse> {
    Some(match flag_of(word)?.trim_end_matches('+') {
        "V" => WordUse::MostlyVerb,
        "v" => WordUse::AlsoVerb,
        "n" | "r" => WordUse::Name,
        _ => WordUse::Other,
    })
}

/// Whether a word is English; hyphenated ones are when their parts are.
pub(super) fn is_english(word: &str) -> bool {
    const CONTRACTIONS: [&str; 7] = ["m", "re", "ve", "ll", "d", "s", "t"];
    let known = |it: &str| flag_of(it).is_some() || it == "i" || it.chars().all(|c| c.is_ascii_digit());
    let part = |it: &str| known(it) || CONTRACTIONS.contains(&it);
    known(word) || word.contains(['-', '\'']) && word.split(['-', '\'']).filter(|it| !it.is_empty()).all(part)
}

/// The noun that a word is but for one slip, where it is no English word and only one fits: letters swapped, one left out, or one
/// too many.
pub(super) fn mended_noun(word: &str) -> Option<&'static str> {
    if word.len() < 5 || !word.chars().all(|it| it.is_ascii_lowercase()) || is_english(word) {
        return None;
    }
    let letters: Vec<char> = word.chars().collect();
    let without =
        |at: usize| letters.iter().enumerate().filter(|it| it.0 != at).map(|it| *it.1).collect::<String>();
    let swapped = (2..letters.len()).map(|at| {
        let mut swapped = letters.clone();
        swapped.swap(at - 1, at);
        swapped.into_iter().collect::<String>()
    });
    // The first letter is seldom wrong.
    let with_one_more = (1..=letters.len()).flat_map(|at| {
        let (before, after) = word.split_at(at);
        ('a'..='z').map(move |it| format!("{before}{it}{after}"))
    });
    let plural =
        |it: &str| it.strip_suffix('s').is_some_and(|it| word_use(it).is_some_and(WordUse::may_be_name));
    let is_frequent = |it: &str| flag_of(it).is_some_and(|flag| !flag.ends_with('+'));
    let is_noun =
        |it: &String| is_frequent(it) && (word_use(it).is_some_and(WordUse::may_be_name) || plural(it));
    let doubled = (0..letters.len()).map(|at| {
        let mut doubled = letters.clone();
        doubled.insert(at, letters[at]);
        doubled.into_iter().collect::<String>()
    });
    // A swap is the likeliest slip, then a letter that should be double: "chiar" is rather "chair" than "char", "hamer" rather "hammer"
    // than "hamper".
    let others = with_one_more.chain((1..letters.len()).map(without));
    for slips in [swapped.collect::<Vec<_>>(), doubled.collect(), others.collect()] {
        let mut fitting: Vec<String> = slips.into_iter().filter(is_noun).collect();
        fitting.sort();
        fitting.dedup();
        if let [only] = &fitting[..] {
            return entry_of(only).map(|it| it.0);
        }
        if !fitting.is_empty() {
            return None;
        }
    }
    None
}

impl WordUse {
    fn may_be_name(self) -> bool {
        matches!(self, Self::Name | Self::AlsoVerb | Self::MostlyVerb)
    }
}

/// Whether a word may stand for what is done to a thing. Rare verbs that never have an object ("gab"), names and rare words of no
/// known kind may not.
pub(super) fn may_be_verb(word: &str) -> bool {
    is_english(word) && !matches!(flag_of(word), Some("r" | "r+" | "m" | "m+" | "-+"))
}

/// Whether a word can only be the past of a verb: "went".
pub(super) fn is_past_verb(word: &str) -> bool {
    flag_of(word).is_some_and(|it| it.starts_with('='))
}

/// The plain form of an inflected verb: "moved", "moving", "moves" and "took" give "move" and "take".
pub(super) fn plain_verb(word: &str) -> Option<String> {
    if let Some(irregular) = flag_of(word).and_then(|it| it.trim_end_matches('+').strip_prefix('=')) {
        return Some(irregular.to_owned());
    }
    let is_verb = |it: &str| matches!(word_use(it), Some(WordUse::MostlyVerb | WordUse::AlsoVerb));
    for ending in ["ing", "ed", "es", "s"] {
        let Some(stem) = word.strip_suffix(ending).filter(|it| it.len() >= 2) else { continue };
        let undoubled =
            stem.chars().rev().nth(1).filter(|it| stem.ends_with(*it)).map(|_| &stem[..stem.len() - 1]);
        let candidates = [
            stem.strip_suffix('i').map(|it| format!("{it}y")).filter(|_| ending != "ing"),
            undoubled.map(str::to_owned).filter(|_| !is_verb(stem)),
            Some(format!("{stem}e")).filter(|_| ending == "ing" || ending == "ed"),
            Some(stem.to_owned()),
        ];
        if let Some(plain) = candidates.into_iter().flatten().find(|it| is_verb(it)) {
            return Some(plain);
        }
    }
    None
}

fn flag_of(word: &str) -> Option<&'static str> {
    entry_of(word).map(|it| it.1)
}

/// A listed word and its flag.
fn entry_of(word: &str) -> Option<(&'static str, &'static str)> {
    let parts = |line: &&'static str| line.rsplit_once(' ').unwrap_or((line, ""));
    // The lines are sorted with their flags, and a space comes before all letters.
    let at = LINES.binary_search_by_key(&word, |line| parts(line).0).ok()?;
    Some(parts(&LINES[at]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_found() {
        for line in LINES.iter() {
            let (word, flag) = line.rsplit_once(' ').unwrap();
            assert_eq!(flag_of(word), Some(flag), "{line}");
        }
        assert!(LINES.len() > 40_000);
    }

    #[test]
    fn slips_in_nouns() {
        for (slip, noun) in [
            ("basekt", "basket"),
            ("chiar", "chair"),
            ("scredriver", "screwdriver"),
            ("hamer", "hammer"),
            ("pltae", "plate"),
            ("zorble", ""),
            ("plate", ""),
            ("rxbar", ""),
        ] {
            assert_eq!(mended_noun(slip).unwrap_or_default(), noun, "{slip}");
        }
    }

    #[test]
    fn verbs_and_their_forms() {
        assert_eq!(word_use("wipe"), Some(WordUse::MostlyVerb));
        assert_eq!(word_use("plate"), Some(WordUse::AlsoVerb));
        assert_eq!(word_use("throw away"), Some(WordUse::MostlyVerb));
        assert_eq!(word_use("banana"), Some(WordUse::Name));
        assert_eq!(word_use("pikc"), None);
        for (form, plain) in [
            ("moved", "move"),
            ("placing", "place"),
            ("picks", "pick"),
            ("took", "take"),
            ("grabbed", "grab"),
            ("carries", "carry"),
            ("carried", "carry"),
            ("pressing", "press"),
            ("pushes", "push"),
            ("wiping", "wipe"),
            ("put", ""),
            ("red", ""),
            ("glass", ""),
        ] {
            assert_eq!(plain_verb(form).unwrap_or_default(), plain, "{form}");
        }
    }
}
