//! The models this project was written for, each pinned to one commit so that everybody runs the same weights.

/// A model on the hub.
#[derive(Debug, PartialEq, Eq)]
pub struct KnownModel {
    /// `owner/name`; its second half alone is enough to ask for it.
    pub repository: &'static str,
    /// What it is good for, in a few words.
    pub summary: &'static str,
    /// The commit that is fetched unless another revision is asked for; `None` = what `main` is at the first fetch.
    pub commit: Option<&'static str>,
    /// SHA-256 of that commit's model.safetensors, in hexadecimal: a second opinion beside the hub's own.
    pub weights_sha256: Option<&'static str>,
}

/// All of them.
pub const KNOWN_MODELS: &[KnownModel] = &[
    KnownModel {
        repository: "florence-community/Florence-2-base-ft",
        summary: "boxes, captions and regions; 0.23 B parameters, MIT",
        commit: Some("0b03b6f15a4a211370fb204aee4e7dd48887ea37"),
        weights_sha256: Some("ab06dea66b16d5e54513256d64854be2194443452fd0d84353b40a278bf87d42"),
    },
    KnownModel {
        repository: "florence-community/Florence-2-large-ft",
        summary: "the same, more exact and slower; 0.77 B parameters, MIT",
        commit: Some("26b734a54fdfbf9c398351eedfabb7f27fc470b7"),
        weights_sha256: None,
    },
    KnownModel {
        repository: "google/owlv2-base-patch16-ensemble",
        summary: "detector whose scores can say \"nothing here\"; 0.16 B parameters, Apache-2.0",
        commit: Some("cfd3195ba4ea9592eec887ded089f4c08eff231d"),
        weights_sha256: Some("e1e130b9e404cf91a75ad45644c1da9d7fa5284085eecc864266a6923efb99e7"),
    },
    KnownModel {
        repository: "google/owlv2-large-patch14-ensemble",
        summary: "the same, more exact and slower; 0.44 B parameters, Apache-2.0",
        commit: None,
        weights_sha256: None,
    },
    KnownModel {
        repository: "google/siglip-base-patch16-224",
        summary: "verifier: looks again whether a box shows the phrase; 0.2 B parameters, Apache-2.0",
        commit: None,
        weights_sha256: None,
    },
];

/// The SHA-256 that the weights of this commit are known to have.
pub fn pinned_weights(repository: &str, commit: &str) -> Option<&'static str> {
    known_model(repository).filter(|it| it.commit == Some(commit))?.weights_sha256
}

/// The known model of this name: `owner/name`, or `name` alone.
pub fn known_model(name: &str) -> Option<&'static KnownModel> {
    KNOWN_MODELS.iter().find(|it| it.repository == name || it.repository.rsplit('/').next() == Some(name))
}
