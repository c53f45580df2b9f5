//! The only place that knows which YAML reader is used.

use serde::de::DeserializeOwned;

/// Why a text is not the YAML that was expected.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct YamlError(#[from] serde_yaml::Error);

/// A value from YAML.
///
/// # Errors
/// The text is no YAML, or holds something else.
pub fn read<T: DeserializeOwned>(text: &str) -> Result<T, YamlError> {
    Ok(serde_yaml::from_str(text)?)
}
