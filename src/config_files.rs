//! The files that a configuration names, read: the part of a configuration that is not pure.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::config::{Config, ConfigError, RawConfig};
use crate::instruction::Vocabulary;
use crate::score::ScoreWeights;

/// The parameters checked, with the contents of the files they name.
///
/// # Errors
/// A parameter is out of range, or a file is not what it should be.
pub fn open(raw: RawConfig) -> Result<Config, ConfigError> {
    let mut config = Config::try_from(raw)?;
    if let Some(path) = &config.vocabulary_file {
        config.vocabulary = Arc::new(read_vocabulary(path)?);
    }
    if let Some(path) = &config.score_weights_file {
        config.pipeline.score_weights = Some(Arc::new(read_score_weights(path)?));
    }
    Ok(config)
}

fn read_vocabulary(path: &Path) -> Result<Vocabulary, ConfigError> {
    let refused = |why: &dyn fmt::Display| ConfigError::Range {
        name: "vocabulary".to_owned(),
        expected: "a YAML file of words in the form of config/vocabulary.yaml".to_owned(),
        got: format!("{}: {why}", path.display()),
    };
    let text = std::fs::read_to_string(path).map_err(|error| refused(&error))?;
    Vocabulary::from_yaml(&text).map_err(|error| refused(&error))
}

fn read_score_weights(path: &Path) -> Result<ScoreWeights, ConfigError> {
    let refused = |why: &dyn fmt::Display| ConfigError::Range {
        name: "score_weights".to_owned(),
        expected: "a file as `ground calibrate` writes it".to_owned(),
        got: format!("{:?}: {why}", path.to_string_lossy()),
    };
    let text = std::fs::read_to_string(path).map_err(|error| refused(&error))?;
    serde_json::from_str(&text).map_err(|error| refused(&error))
}
