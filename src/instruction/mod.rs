//! Instruction text to a typed instruction: pure, no model.
//!
//! English imperatives as robots hear them. Closed-class words (verbs, determiners, prepositions, colors, ...) come from a
//! [`Vocabulary`] that users can extend; nouns are open: any word that is not of a closed class is taken as it is. What the
//! grammar cannot place is a [`ParseError`] that names the word and where it stands, never a guess.

mod grammar;
mod language;
mod lexicon;
mod text;
mod token;
mod types;
mod vocabulary;

#[cfg(test)]
mod tests;

pub use self::types::{
    Action, Attribute, AttributeKind, Destination, GENERIC_NOUN, Instruction, ObjectReference, Order,
    OrderBy, ParseError, Quantity, Relation, RelationKind, Rotation, Span,
};
pub use self::vocabulary::{Vocabulary, VocabularyError};

/// The instruction that `text` gives. Bounded in time for any text.
///
/// ```
/// use language_grounding::instruction::{Action, Vocabulary, parse};
///
/// let vocabulary = Vocabulary::default();
/// let instruction = parse("put the red mug on the plate", &vocabulary)?;
/// assert_eq!(instruction.action, Action::Put);
/// assert_eq!(instruction.to_string(), "put {red mug} -> on {plate}");
///
/// // What is no instruction names the words and says what was expected.
/// let error = parse("pick up the", &vocabulary).unwrap_err();
/// assert_eq!(error.message, "expected a thing, got the end of the text");
/// # Ok::<(), language_grounding::instruction::ParseError>(())
/// ```
///
/// # Errors
/// The text is no instruction; the error names the words.
pub fn parse(text: &str, vocabulary: &Vocabulary) -> Result<Instruction, ParseError> {
    parse_after(text, vocabulary, None)
}

/// [`parse`], where "it", "them" and "there" at the start of the text mean what `spoken_of` was about.
///
/// # Errors
/// The text is no instruction; the error names the words.
pub fn parse_after(
    text: &str,
    vocabulary: &Vocabulary,
    spoken_of: Option<&Instruction>,
) -> Result<Instruction, ParseError> {
    let tokens = token::tokenize(text, vocabulary)?;
    if let Some(word) = language::foreign_word(&tokens, vocabulary) {
        let message =
            format!("expected an instruction in English, got words of another language ({:?})", word.text);
        return Err(ParseError { message, span: word.span.clone() });
    }
    let plain: Vec<token::Token> = tokens.iter().filter(|it| !token::is_symbol(it)).cloned().collect();
    let parsed = parse_mended(plain.clone(), vocabulary, spoken_of)
        .or_else(|error| after_statement(&plain, vocabulary).ok_or(error));
    // A picture is left out, but where it stands for a thing the message is about it.
    parsed.map_err(|error| match parse_mended(tokens, vocabulary, spoken_of) {
        Err(with_symbols) if plain.len() < text.chars().count() => with_symbols,
        _ => error,
    })
}

/// "I spilled my coke, can you bring me another?", "the remote is missing, find it": the instruction behind a statement.
fn after_statement(tokens: &[token::Token], vocabulary: &Vocabulary) -> Option<Instruction> {
    const SUBJECTS: [&str; 15] = [
        "i", "i'm", "i've", "we", "we're", "we've", "it's", "there's", "there", "it", "my", "he", "she",
        "they", "the",
    ];
    let first = tokens.iter().find(|it| it.is_word)?;
    if !SUBJECTS.contains(&first.text.as_str()) {
        return None;
    }
    let mark = tokens.iter().position(|it| matches!(it.text.as_str(), "," | "."))?;
    let rest = &tokens[mark + 1..];
    let alone = parse_mended(rest.to_vec(), vocabulary, None).ok();
    let parsed = alone.or_else(|| {
        let subject = grammar::subject(&tokens[..mark], vocabulary)?;
        grammar::parse_tokens(rest, vocabulary, Some(&subject)).ok()
    })?;
    let begins_with_action =
        parsed.action != Action::Find || parsed.span.start != parsed.targets.first()?.span.start;
    begins_with_action.then_some(parsed)
}

/// The instruction of `tokens`, with slips in the words of the grammar mended.
fn parse_mended(
    mut tokens: Vec<token::Token>,
    vocabulary: &Vocabulary,
    spoken_of: Option<&Instruction>,
) -> Result<Instruction, ParseError> {
    grammar::mend_verbs(&mut tokens, vocabulary);
    grammar::mend_nouns(&mut tokens, vocabulary);
    let mut failure = match grammar::parse_tokens(&tokens, vocabulary, spoken_of) {
        Ok(instruction) => return Ok(instruction),
        Err(failure) => failure,
    };
    let first_error = failure.error.clone();
    for _ in 0..MAX_MENDED_WORDS {
        match mend(&tokens, &failure, vocabulary, spoken_of) {
            Some((mended, Ok(instruction))) => {
                drop(mended);
                return Ok(instruction);
            }
            Some((mended, Err(next))) => {
                tokens = mended;
                failure = next;
            }
            None => break,
        }
    }
    Err(first_error)
}

/// The parse of `text` as the JSON that `ground parse` prints: the instruction's keys and `error`, one of them null.
pub fn parse_to_json(text: &str, vocabulary: &Vocabulary) -> serde_json::Value {
    match parse(text, vocabulary) {
        Ok(instruction) => {
            let mut value = serde_json::json!(instruction);
            value["reading"] = instruction.to_string().into();
            value["error"] = serde_json::Value::Null;
            value
        }
        Err(error) => {
            serde_json::json!({ "action": null, "targets": [], "destination": null, "steps": [], "error": error })
        }
    }
}

/// Typos mended in one text.
const MAX_MENDED_WORDS: usize = 3;

type Mended = (Vec<token::Token>, Result<Instruction, grammar::Failure>);

/// Where reading failed, a word before ("onn the plate") or at the place may be a closed-class word with a typo. It is mended
/// only when all closed-class words within one edit that bring the reading further agree on the meaning.
fn mend(
    tokens: &[token::Token],
    failure: &grammar::Failure,
    vocabulary: &Vocabulary,
    spoken_of: Option<&Instruction>,
) -> Option<Mended> {
    // Two words before: "the plate adn put them" fails at "them".
    let before = |n: usize| failure.token_idx.checked_sub(n);
    let places = [before(1), Some(failure.token_idx), before(2)];
    for place in places.into_iter().flatten() {
        let Some(token) = tokens.get(place).filter(|it| it.is_word && it.text.chars().count() >= 3) else {
            continue;
        };
        let is_closed = vocabulary.structure_words.binary_search(&token.text).is_ok();
        if is_closed || vocabulary.reserved.contains(&token.text) || lexicon::is_english(&token.text) {
            continue;
        }
        let mut best: Vec<Mended> = Vec::new();
        let near = vocabulary.structure_words.iter().filter(|it| vocabulary::one_edit_apart(it, &token.text));
        for word in near {
            let mut mended = tokens.to_vec();
            mended[place].text.clone_from(word);
            let result = grammar::parse_tokens(&mended, vocabulary, spoken_of);
            match &result {
                Err(next) if next.token_idx <= failure.token_idx => {}
                _ => best.push((mended, result)),
            }
        }
        if best.iter().any(|(_, it)| it.is_ok()) {
            best.retain(|(_, it)| it.is_ok());
        }
        let agree = best.windows(2).all(|pair| match (&pair[0].1, &pair[1].1) {
            (Ok(a), Ok(b)) => a == b,
            _ => false,
        });
        if agree && !best.is_empty() {
            return best.pop();
        }
        if !best.is_empty() {
            return None;
        }
    }
    None
}
