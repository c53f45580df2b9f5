//! Where a model's directory is.

use std::path::{Path, PathBuf};

use crate::model::ModelError;
use crate::model::hub::{FetchProgress, Hub, HubModel};

/// The directory of a model: `name` itself where that is a directory, else the shipped model of that name, else the model of
/// that name on the hub, from the cache or downloaded (`on_progress` is told how far that is).
///
/// Shipped models lie in `share/language_grounding/models` beside the `lib` folder of the running program (as installed), or in
/// `models` of a folder above it (a build in the repository), or in `models` of the repository it was built from.
pub fn locate_model(
    name: &str,
    on_progress: &mut dyn FnMut(FetchProgress<'_>),
) -> Result<PathBuf, ModelError> {
    if Path::new(name).is_dir() {
        return Ok(PathBuf::from(name));
    }
    if let Some((_, dir)) = shipped_models().into_iter().find(|it| it.0 == name) {
        return Ok(dir);
    }
    match name.parse::<HubModel>() {
        Ok(model) => Ok(Hub::from_env().find_or_fetch(&model, on_progress)?),
        Err(_) => Err(ModelError::Checkpoint {
            path: name.to_owned(),
            problem: "no such directory, and no model of that name is shipped or known; expected a directory with config.json \
                      and model.safetensors, a name that `ground models list` shows, or owner/name[@revision] on the hub"
                .to_owned(),
        }),
    }
}

/// Names and directories of the shipped models, each once.
pub fn shipped_models() -> Vec<(String, PathBuf)> {
    let program = std::env::current_exe().ok();
    let above = program.iter().flat_map(|it| it.ancestors().skip(1).take(6));
    let mut folders: Vec<PathBuf> =
        above.flat_map(|it| [it.join("share/language_grounding/models"), it.join("models")]).collect();
    folders.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("models"));
    let mut found: Vec<(String, PathBuf)> = Vec::new();
    for dir in folders.iter().filter_map(|it| std::fs::read_dir(it).ok()).flatten().flatten() {
        let name = dir.file_name().to_string_lossy().into_owned();
        if dir.path().join("config.json").is_file() && found.iter().all(|it| it.0 != name) {
            found.push((name, dir.path()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_itself_shipped_models_are_found_and_nonsense_is_refused() {
        let locate = |name: &str| locate_model(name, &mut |_| {});
        let here = env!("CARGO_MANIFEST_DIR");
        assert_eq!(locate(here).unwrap(), Path::new(here));
        assert!(locate("florence2_tiny_tabletop").unwrap().join("model.safetensors").is_file());
        let error = locate("no_such_model").unwrap_err().to_string();
        assert!(error.starts_with("no_such_model: no such directory"), "{error}");
    }
}
