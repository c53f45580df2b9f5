//! Text to words.

use super::types::{ParseError, Span};

/// A word or a punctuation mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    /// Lower case, typographic apostrophes made plain. Punctuation is one of `,` `.` (which stands for all ends) or the mark itself.
    pub(super) text: String,
    pub(super) span: Span,
    pub(super) is_word: bool,
}

/// Longest instruction taken, bytes. A hundred words are about 600.
pub(super) const MAX_BYTES: usize = 2000;

/// The words of `text`. A word is a run of letters and digits, with hyphens, apostrophes and full stops inside it;
/// a possessive "'s" is a word of its own.
pub(super) fn tokenize(text: &str) -> Result<Vec<Token>, ParseError> {
    if text.len() > MAX_BYTES {
        return Err(ParseError {
            message: format!("expected an instruction of at most {MAX_BYTES} bytes, got {}", text.len()),
            span: 0..text.len(),
        });
    }
    let mut tokens = Vec::new();
    let mut chars = text.char_indices().peekable();
    while let Some((start, first)) = chars.next() {
        if first.is_alphanumeric() {
            if first.is_alphabetic() && !is_latin(first) {
                return Err(ParseError {
                    message: format!("expected English words in Latin letters, got {first:?}"),
                    span: start..start + first.len_utf8(),
                });
            }
            let mut word: String = first.to_lowercase().collect();
            let mut end = start + first.len_utf8();
            while let Some(&(at, next)) = chars.peek() {
                let inside = matches!(next, '&' | '-' | '\'' | '’' | '.' | '\u{2010}' | '\u{2011}')
                    && text[at + next.len_utf8()..].starts_with(|c: char| c.is_alphanumeric());
                let combining = ('\u{300}'..='\u{36f}').contains(&next);
                if is_invisible(next) {
                    chars.next();
                    continue;
                }
                if !(next.is_alphanumeric() || inside || combining) {
                    break;
                }
                match next {
                    '’' => word.push('\''),
                    '\u{2010}' | '\u{2011}' => word.push('-'),
                    other => word.extend(other.to_lowercase()),
                }
                end = at + next.len_utf8();
                chars.next();
            }
            push_word(&mut tokens, word, start..end, text);
        } else if !first.is_whitespace() && !first.is_control() && !is_invisible(first) {
            let mark = match first {
                '.' | ';' | '!' | '?' | ':' | '…' => ".".to_owned(),
                '"' | '“' | '”' | '\'' | '’' | '‘' | '`' | '*' | '_' => continue,
                ',' | '-' | '–' | '—' => ",".to_owned(),
                other => other.to_string(),
            };
            tokens.push(Token { text: mark, span: start..start + first.len_utf8(), is_word: first == '&' });
        }
    }
    if !tokens.iter().any(|it| it.is_word) {
        let message = "expected an instruction such as \"pick up the red cup\", got no words".to_owned();
        return Err(ParseError { message, span: 0..text.len() });
    }
    Ok(tokens)
}

fn push_word(tokens: &mut Vec<Token>, word: String, span: Span, text: &str) {
    const WHOLE: [&str; 9] =
        ["that's", "it's", "where's", "let's", "what's", "there's", "here's", "who's", "he's"];
    if let Some(owner) = word.strip_suffix("'s")
        && !WHOLE.contains(&word.as_str())
    {
        let apostrophe = text[span.clone()].rfind(['\'', '’']).map_or(span.end, |it| span.start + it);
        tokens.push(Token { text: owner.to_owned(), span: span.start..apostrophe, is_word: true });
        tokens.push(Token { text: "'s".to_owned(), span: apostrophe..span.end, is_word: true });
    } else {
        tokens.push(Token { text: word, span, is_word: true });
    }
}

/// Soft hyphens, joiners, marks of direction and byte order: they come with pasted text.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}')
}

fn is_latin(c: char) -> bool {
    matches!(c, 'a'..='z' | 'A'..='Z' | '\u{aa}' | '\u{ba}' | '\u{c0}'..='\u{24f}' | '\u{1e00}'..='\u{1eff}')
}
