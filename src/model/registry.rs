//! Which models there are: a checkpoint's config.json, or the scheme of a name, picks the code.
//!
//! A new model is one line here. Where it computes (in candle, on a server, nowhere) is its own affair.

use std::path::Path;

use serde_json::Value;

use super::candle::{contrastive, florence2, owlv2, tabletop};
use super::hub::FetchProgress;
use super::locate::locate_model;
use super::{Model, ModelError, ModelOptions, Role, precomputed};

/// From where a model is.
type Load<P> = fn(&P, &ModelOptions) -> Result<Box<dyn Model>, ModelError>;

/// A kind of checkpoint: a directory in the hub's layout.
pub struct CheckpointKind {
    /// config.json's `model_type`.
    pub model_type: &'static str,
    /// A key that config.json must have as well: tells an architecture with something added from the plain one.
    pub with: Option<&'static str>,
    /// What it can be used for at all; what the loaded model does, it says itself.
    pub roles: &'static [Role],
    load: Load<Path>,
}

/// A kind of model that is no checkpoint, named `SCHEME:WHERE`.
pub struct Scheme {
    /// What stands before the colon.
    pub name: &'static str,
    load: Load<str>,
}

const GROUNDS: &[Role] = &[Role::Grounder];
const SPEAKS: &[Role] = &[Role::Grounder, Role::Captioner, Role::Answerer];
const VERIFIES: &[Role] = &[Role::Verifier];

/// All kinds of checkpoints; the first that fits is taken.
#[rustfmt::skip]
pub const CHECKPOINTS: &[CheckpointKind] = &[
    CheckpointKind { model_type: "florence2", with: Some("grounding_head"), roles: SPEAKS, load: tabletop::load },
    CheckpointKind { model_type: "florence2", with: None, roles: SPEAKS, load: florence2::load },
    CheckpointKind { model_type: "owlv2", with: None, roles: GROUNDS, load: owlv2::load },
    CheckpointKind { model_type: "clip", with: None, roles: VERIFIES, load: contrastive::load_clip },
    CheckpointKind { model_type: "siglip", with: None, roles: VERIFIES, load: contrastive::load_siglip },
    CheckpointKind { model_type: "siglip2", with: None, roles: VERIFIES, load: contrastive::load_siglip },
];

/// All other kinds.
pub const SCHEMES: &[Scheme] =
    &[Scheme { name: "given", load: |path, _| precomputed::load(Path::new(path)) }];

/// Loads a model by name: `SCHEME:WHERE`, or a checkpoint as [`locate_model`] finds it; `on_progress` is told how far a download is.
pub fn load_by_name(
    name: &str,
    options: &ModelOptions,
    on_progress: &mut dyn FnMut(FetchProgress<'_>),
) -> Result<Box<dyn Model>, ModelError> {
    if let Some((scheme, place)) = scheme_of(name) {
        return (scheme.load)(place, options);
    }
    load(&locate_model(name, on_progress)?, options)
}

/// Makes sure that a model's files are on this machine, so that loading it needs no network.
pub fn fetch(name: &str, on_progress: &mut dyn FnMut(FetchProgress<'_>)) -> Result<(), ModelError> {
    match scheme_of(name) {
        Some(_) => Ok(()),
        None => locate_model(name, on_progress).map(|_| ()),
    }
}

/// Loads the checkpoint in directory `dir`.
pub fn load(dir: &Path, options: &ModelOptions) -> Result<Box<dyn Model>, ModelError> {
    let config = read_config(dir)?;
    (kind_of(&config).ok_or_else(|| unknown(dir, &config))?.load)(dir, options)
}

/// Every `model_type` that can be loaded.
pub fn known_model_types() -> Vec<&'static str> {
    CHECKPOINTS.iter().filter(|it| it.with.is_none()).map(|it| it.model_type).collect()
}

/// Whether the checkpoint in directory `dir` can be loaded, as far as its config.json says.
pub fn is_known(dir: &Path) -> bool {
    read_config(dir).is_ok_and(|config| kind_of(&config).is_some())
}

/// Refuses a model that cannot fill a role.
pub fn require(name: &str, model: &mut dyn Model, role: Role) -> Result<(), ModelError> {
    if model.roles().contains(&role) {
        return Ok(());
    }
    let expected: Vec<&str> = model_types(role);
    let expected = expected.join(", ");
    Err(ModelError::Checkpoint {
        path: name.to_owned(),
        problem: format!(
            "model_type {:?} is not supported for a {}; expected {expected}",
            model.info().model_type,
            role.name()
        ),
    })
}

/// Every `model_type` for a role.
fn model_types(role: Role) -> Vec<&'static str> {
    let fitting = CHECKPOINTS.iter().filter(|it| it.with.is_none() && it.roles.contains(&role));
    fitting.map(|it| it.model_type).collect()
}

fn scheme_of(name: &str) -> Option<(&'static Scheme, &str)> {
    let (scheme, place) = name.split_once(':')?;
    SCHEMES.iter().find(|it| it.name == scheme).map(|it| (it, place))
}

fn kind_of(config: &Value) -> Option<&'static CheckpointKind> {
    let has = |key: &str| !config[key].is_null();
    CHECKPOINTS.iter().find(|it| config["model_type"] == it.model_type && it.with.is_none_or(has))
}

fn read_config(dir: &Path) -> Result<Value, ModelError> {
    let refused =
        |path: &Path, problem: String| ModelError::Checkpoint { path: path.display().to_string(), problem };
    if !dir.is_dir() {
        return Err(refused(dir, "no such model directory".to_owned()));
    }
    let path = dir.join("config.json");
    let text = std::fs::read_to_string(&path)
        .map_err(|error| refused(&path, format!("{error}; a model directory must hold this file")))?;
    serde_json::from_str(&text).map_err(|error| refused(&path, error.to_string()))
}

fn unknown(dir: &Path, config: &Value) -> ModelError {
    ModelError::Checkpoint {
        path: dir.join("config.json").display().to_string(),
        problem: format!(
            "model_type {} is not supported; expected {} to find things, or {} to compare images with texts",
            config["model_type"],
            model_types(Role::Grounder).join(" or "),
            model_types(Role::Verifier).join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn config_json_picks_the_code() {
        let with = |config: Value| kind_of(&config).map(|it| (it.model_type, it.with));
        let plain = ("florence2", None);
        assert_eq!(with(json!({ "model_type": "florence2" })), Some(plain));
        assert_eq!(with(json!({ "model_type": "florence2", "grounding_head": null })), Some(plain));
        let dense = with(json!({ "model_type": "florence2", "grounding_head": {} }));
        assert_eq!(dense, Some(("florence2", Some("grounding_head"))));
        assert_eq!(with(json!({ "model_type": "bert" })), None);
        assert_eq!(with(json!({})), None);
    }

    #[test]
    fn a_kind_with_something_added_stands_before_the_plain_one() {
        for (i, kind) in CHECKPOINTS.iter().enumerate() {
            let before = &CHECKPOINTS[..i];
            let hidden = before.iter().any(|it| it.model_type == kind.model_type && it.with.is_none());
            assert!(!hidden, "{} at {i} is never reached", kind.model_type);
            assert!(!kind.roles.is_empty(), "{} is good for nothing", kind.model_type);
        }
    }

    #[test]
    fn a_scheme_needs_no_directory_and_says_what_is_wrong_with_its_place() {
        let options = ModelOptions::default();
        let load = |name: &str| load_by_name(name, &options, &mut |_| {});
        let error = load("given:/nowhere.json").err().unwrap().to_string();
        assert!(error.starts_with("/nowhere.json: "), "{error}");
        let file = std::env::temp_dir().join(format!("registry_{}.json", std::process::id()));
        std::fs::write(&file, r#"[{"phrase": "mug", "bbox": [0, 0, 4, 4], "score": 0.5}]"#).unwrap();
        let mut model = load(&format!("given:{}", file.display())).unwrap();
        std::fs::remove_file(file).unwrap();
        assert_eq!(model.roles(), [Role::Grounder]);
        let error = require("it", model.as_mut(), Role::Verifier).unwrap_err().to_string();
        assert_eq!(
            error,
            "it: model_type \"given\" is not supported for a verifier; expected clip, siglip, siglip2"
        );
    }
}
