//! The closed-class words of the grammar.

/// The words the grammar knows. [`Vocabulary::default`] is `config/vocabulary.yaml` as built in.
#[derive(Debug, Clone, Default)]
pub struct Vocabulary {}

/// Why a vocabulary file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum VocabularyError {
    /// It is not the YAML expected.
    #[error("vocabulary: {0}")]
    Yaml(String),
}

impl Vocabulary {
    /// Reads a vocabulary in the form of `config/vocabulary.yaml`.
    pub fn from_yaml(_yaml: &str) -> Result<Self, VocabularyError> {
        Err(VocabularyError::Yaml("not built yet".to_owned()))
    }
}
