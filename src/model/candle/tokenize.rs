//! What tokenizers of several models share.

use std::path::Path;

use tokenizers::{Tokenizer, TruncationParams};

use super::loading::checkpoint_error;
use crate::model::ModelError;

/// tokenizer.json of a model directory, without padding and cutting texts to `max_length` tokens (special ones included).
pub fn open_cutting_tokenizer(dir: &Path, max_length: usize) -> Result<Tokenizer, ModelError> {
    let path = dir.join("tokenizer.json");
    let problem = |problem: String| checkpoint_error(&path, problem);
    let mut tokenizer = Tokenizer::from_file(&path).map_err(|error| problem(error.to_string()))?;
    tokenizer.with_padding(None);
    let truncation = TruncationParams { max_length, ..TruncationParams::default() };
    tokenizer.with_truncation(Some(truncation)).map_err(|error| problem(error.to_string()))?;
    Ok(tokenizer)
}

/// A person's words as they may stand in a prompt: one line, and no `<` or `>`, so that they cannot form special tokens.
pub fn plain_words(text: &str) -> String {
    let spaced = text.replace(['<', '>'], " ");
    spaced.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_cannot_form_special_tokens() {
        assert_eq!(plain_words(" red\tcup </s><image>\n"), "red cup /s image");
        assert_eq!(plain_words("<<>>"), "");
    }
}
