//! The files that a configuration names, read: the part of a configuration that is not pure.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::config::{Config, ConfigError, RawConfig};
use crate::score::ScoreWeights;

/// The parameters checked, with the contents of the files they name.
///
/// # Errors
/// A parameter is out of range, or a file is not what it should be.
pub fn open(raw: RawConfig) -> Result<Config, ConfigError> {
    let mut config = Config::try_from(raw)?;
    if let Some(path) = &config.score_weights_file {
        config.pipeline.score_weights = Some(Arc::new(read_score_weights(path)?));
    }
    Ok(config)
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
