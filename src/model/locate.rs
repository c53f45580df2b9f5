//! Where a model's directory is.

use std::path::{Path, PathBuf};

use crate::model::ModelError;

/// The directory of a model: `name` itself where that is a directory, else the shipped model of that name.
///
/// Shipped models lie in `share/language_grounding/models` beside the `lib` folder of the running program (as installed), or in
/// `models` of a folder above it (a build in the repository), or in `models` of the repository it was built from.
pub fn locate_model(name: &str) -> Result<PathBuf, ModelError> {
    let given = Path::new(name);
    if given.is_dir() {
        return Ok(given.to_owned());
    }
    let mut looked_in = Vec::new();
    if given.components().count() == 1 {
        let program = std::env::current_exe().ok();
        for ancestor in program.iter().flat_map(|it| it.ancestors().skip(1).take(6)) {
            looked_in.push(ancestor.join("share/language_grounding/models"));
            looked_in.push(ancestor.join("models"));
        }
        looked_in.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("models"));
        if let Some(found) =
            looked_in.iter().map(|it| it.join(name)).find(|it| it.join("config.json").is_file())
        {
            return Ok(found);
        }
    }
    Err(ModelError::Checkpoint {
        path: name.to_owned(),
        problem:
            "no such directory, and no shipped model of that name; expected a directory with config.json and \
                  model.safetensors"
                .to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_itself_and_nonsense_is_refused() {
        let here = env!("CARGO_MANIFEST_DIR");
        assert_eq!(locate_model(here).unwrap(), Path::new(here));
        let error = locate_model("no_such_model").unwrap_err().to_string();
        assert!(error.starts_with("no_such_model: no such directory"), "{error}");
    }
}
