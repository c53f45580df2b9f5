//! Text as people and programs send it to the plain words of an instruction, each character with its place in the text.

use unicode_normalization::UnicodeNormalization;

use super::types::Span;

/// A character of the plain text and where in the original it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Character {
    pub(super) letter: char,
    /// Byte offsets into the original text.
    pub(super) start: usize,
    pub(super) end: usize,
}

/// Keys under which programs send an instruction as JSON.
const JSON_KEYS: [&str; 10] = [
    "content",
    "instruction",
    "language_instruction",
    "natural_language_instruction",
    "task",
    "command",
    "text",
    "prompt",
    "query",
    "data",
];

/// The characters of the instruction in `text`: of a JSON object its instruction; wide and styled letters made plain; invisible
/// characters left out.
pub(super) fn plain(text: &str) -> Vec<Character> {
    let within = json_value(text).unwrap_or(0..text.len());
    let mut plain = Vec::with_capacity(within.len());
    let mut tag_end = 0; // where "<GROUNDING>" ends
    for (at, letter) in text[within.clone()].char_indices() {
        if letter == '<' {
            tag_end = tag_end.max(at + tag_length(&text[within.start + at..within.end]));
        }
        if at < tag_end {
            continue;
        }
        let (start, end) = (within.start + at, within.start + at + letter.len_utf8());
        if is_invisible(letter) {
            continue;
        }
        if is_styled(letter) {
            plain.extend(letter.nfkc().map(|letter| Character { letter, start, end }));
        } else {
            plain.push(Character { letter, start, end });
        }
    }
    plain
}

/// The length of a tag such as `<OPEN_VOCABULARY_DETECTION>` or `</s>` at the start of a text, 0 where there is none.
fn tag_length(text: &str) -> usize {
    let is_inside = |it: char| it.is_ascii_alphanumeric() || matches!(it, '_' | '/' | '|' | '-');
    match text[1..].find(|it| !is_inside(it)) {
        Some(length @ 1..=40) if text[1 + length..].starts_with('>') => length + 2,
        _ => 0,
    }
}

/// Where in a JSON object's text the instruction stands; none for any other text.
fn json_value(text: &str) -> Option<Span> {
    if !text.trim_start().starts_with(['{', '[']) {
        return None;
    }
    let object = match serde_json::from_str(text.trim()).ok()? {
        serde_json::Value::Object(object) => object,
        // Messages of a conversation: the last one counts.
        serde_json::Value::Array(mut messages) => match messages.pop()? {
            serde_json::Value::Object(object) => object,
            _ => return None,
        },
        _ => return None,
    };
    let named = JSON_KEYS.iter().find_map(|key| object.get(*key)?.as_str());
    let only = || object.values().next().and_then(serde_json::Value::as_str).filter(|_| object.len() == 1);
    let value = named.or_else(only)?;
    // A value with escapes does not stand in the text as it is.
    let start = text.find(value).filter(|_| !value.is_empty())?;
    Some(start..start + value.len())
}

/// Full-width letters and digits, and the bold or italic alphabets of mathematics.
fn is_styled(c: char) -> bool {
    matches!(c, '\u{ff01}'..='\u{ff5e}' | '\u{1d400}'..='\u{1d7ff}' | '\u{fb00}'..='\u{fb06}' | '\u{3000}' | '\u{24b6}'..='\u{24e9}')
}

/// Soft hyphens, joiners, marks of direction and byte order, variation selectors: they come with pasted text and pictures.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}' | '\u{fe00}'..='\u{fe0f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letters(text: &str) -> String {
        plain(text).iter().map(|it| it.letter).collect()
    }

    #[test]
    fn letters_are_made_plain_and_keep_their_place() {
        assert_eq!(letters("ｐｉｃｋ　ｕｐ"), "pick up");
        assert_eq!(letters("𝐩𝐢𝐜𝐤"), "pick");
        assert_eq!(letters("mu\u{200b}g"), "mug");
        let wide = plain("ａb");
        assert_eq!((wide[0].start, wide[0].end, wide[1].start), (0, 3, 3));
    }

    #[test]
    fn an_object_of_json_holds_its_instruction() {
        assert_eq!(letters("{\"instruction\": \"pick up the mug\"}"), "pick up the mug");
        assert_eq!(letters("{\"id\": \"7\", \"task\": \"open it\"}"), "open it");
        assert_eq!(letters("{\"anything\": \"open it\"}"), "open it");
        assert_eq!(letters("{pick up"), "{pick up");
        let placed = plain("{\"task\": \"go\"}");
        assert_eq!((placed[0].start, placed[1].end), (10, 12));
    }
}
