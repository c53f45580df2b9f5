//! Several models as one: the first finds and speaks, the others only score what it finds.

use super::agreement::note_agreement;
use super::verification::verify;
use crate::detection::Detection2d;
use crate::model::hub::FetchProgress;
use crate::model::{
    Answerer, Captioner, Grounder, KeyedImage, Model, ModelError, ModelInfo, ModelOptions, Probe, Role,
    Verifier, registry,
};

/// A model with others that score what it finds.
pub struct Ensemble {
    model: Box<dyn Model>,
    second: Option<Box<dyn Model>>,
    verifier: Option<Box<dyn Model>>,
}

/// Loads a model by name, and those that the options put beside it; `on_progress` is told which of them is being downloaded, and how far
/// that is.
pub fn load(
    name: &str,
    options: &ModelOptions,
    on_progress: &mut dyn FnMut(&str, FetchProgress<'_>),
) -> Result<Box<dyn Model>, ModelError> {
    // All downloads come first: whoever watches them need not wait for a model to load in between.
    let all = [name, &options.second_model, &options.verifier];
    for name in all.into_iter().filter(|it| !it.is_empty()) {
        registry::fetch(name, &mut |progress| on_progress(name, progress))?;
    }
    let mut load = |name: &str| registry::load_by_name(name, options, &mut |it| on_progress(name, it));
    let model = load(name)?;
    if options.second_model.is_empty() && options.verifier.is_empty() {
        return Ok(model);
    }
    let mut load_as = |name: &str, role| -> Result<Option<Box<dyn Model>>, ModelError> {
        if name.is_empty() {
            return Ok(None);
        }
        let mut model = load(name)?;
        registry::require(name, model.as_mut(), role)?;
        Ok(Some(model))
    };
    let second = load_as(&options.second_model, Role::Grounder)?;
    let verifier = load_as(&options.verifier, Role::Verifier)?;
    Ok(Box::new(Ensemble { model, second, verifier }))
}

impl Model for Ensemble {
    fn info(&self) -> &ModelInfo {
        self.model.info()
    }

    fn known_nouns(&self) -> Option<&[String]> {
        self.model.known_nouns()
    }

    fn grounder(&mut self) -> Option<&mut dyn Grounder> {
        if self.model.grounder().is_some() { Some(self) } else { None }
    }

    fn captioner(&mut self) -> Option<&mut dyn Captioner> {
        self.model.captioner()
    }

    fn answerer(&mut self) -> Option<&mut dyn Answerer> {
        self.model.answerer()
    }

    fn verifier(&mut self) -> Option<&mut dyn Verifier> {
        self.model.verifier()
    }

    fn probe(&mut self) -> Option<&mut dyn Probe> {
        self.model.probe()
    }
}

impl Grounder for Ensemble {
    fn ground(
        &mut self,
        image: KeyedImage<'_>,
        phrases: &[&str],
    ) -> Result<Vec<Vec<Detection2d>>, ModelError> {
        let mut found = self.model.ground(image, phrases)?;
        if let Some(second) = &mut self.second {
            note_agreement(&mut found, &second.ground(image, phrases)?);
        }
        if let Some(verifier) = self.verifier.as_mut().and_then(|it| it.verifier()) {
            verify(verifier, image.image, phrases, &mut found)?;
        }
        Ok(found)
    }
}
