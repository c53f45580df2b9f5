//! Our own model: a small Florence-2 with two heads on its vision tower's map, taught on rendered scenes.
//!
//! [`dense_head`] scores every cell for every phrase in one pass, and `boxes` makes boxes of the cells; no text is generated for
//! that. [`naming_head`] says in the words of [`names`] what the cells show: captions, and answers that boxes can give. A checkpoint
//! without names speaks by Florence-2's decoder.

pub mod config;
pub mod dense_head;
pub mod names;
pub mod naming_head;

mod boxes;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use self::boxes::{agreement, distinct, scored_cells};
use self::config::DenseHeadConfig;
use self::dense_head::{DenseCells, DenseHead, DensePhrase, compare};
use self::names::{Names, Question, listed, number};
use self::naming_head::{CellNames, NamingHead};
use super::florence2::{Florence2, check_phrases, in_thread_pool, plain_question};
use super::frame_cache::FrameCache;
use super::tokenize::plain_words;
use crate::detection::{BoundingBox2d, Detection2d};
use crate::model::{
    Answerer, Captioner, Grounder, KeyedImage, Model, ModelError, ModelInfo, ModelOptions, Probe,
};

/// A thing is counted or said to be there from this score on.
const NAMED_SCORE: f64 = 0.5;
/// A cell shows something worth a name from this probability on.
const OBJECT_SCORE: f64 = 0.85;
/// A caption names a thing whose kind has this probability; of the rest it would more often be wrong than right.
const NAMED_PROBABILITY: f64 = 0.25;
/// Phrases that are remembered; then all are forgotten.
const MAX_PHRASES: usize = 512;

/// Loads a model directory as Florence-2's, whose config.json has `grounding_head`, with or without `names` in it.
pub fn load(dir: &Path, options: &ModelOptions) -> Result<Box<dyn Model>, ModelError> {
    let config = DenseHeadConfig::open(&dir.join("config.json"))?;
    let (florence2, checkpoint) = Florence2::open(dir, options)?;
    let root = checkpoint.root();
    let head = DenseHead::new(&root.at("grounding_head"), florence2.config(), config.embed_dim)?;
    let n_channels = florence2.config().map_channels();
    let names = config.names.clone();
    let grounder = DenseGrounder {
        florence2,
        head,
        config,
        cached_cells: FrameCache::new(),
        cached_phrases: HashMap::new(),
    };
    let model: Box<dyn Model> = match names {
        None => Box::new(grounder),
        Some(names) => {
            let (n_kinds, n_colors) = (names.kinds.len(), names.colors.len());
            let naming = NamingHead::new(&root.at("naming_head"), n_channels, n_kinds, n_colors)?;
            Box::new(Tabletop { grounder, naming, names, cached_names: FrameCache::new() })
        }
    };
    checkpoint.finish()?;
    Ok(model)
}

/// Florence-2 that finds things by the dense head. It speaks as Florence-2 does.
struct DenseGrounder {
    florence2: Florence2,
    head: DenseHead,
    config: DenseHeadConfig,
    cached_cells: FrameCache<DenseCells>,
    cached_phrases: HashMap<String, DensePhrase>,
}

/// [`DenseGrounder`] that has names for what it finds, and speaks in them.
struct Tabletop {
    grounder: DenseGrounder,
    naming: NamingHead,
    names: Names,
    cached_names: FrameCache<Arc<CellNames>>,
}

impl Model for DenseGrounder {
    fn info(&self) -> &ModelInfo {
        self.florence2.info()
    }

    fn grounder(&mut self) -> Option<&mut dyn Grounder> {
        Some(self)
    }

    fn captioner(&mut self) -> Option<&mut dyn Captioner> {
        self.florence2.captioner()
    }

    fn answerer(&mut self) -> Option<&mut dyn Answerer> {
        self.florence2.answerer()
    }

    fn probe(&mut self) -> Option<&mut dyn Probe> {
        self.florence2.probe()
    }
}

impl Model for Tabletop {
    fn info(&self) -> &ModelInfo {
        self.grounder.info()
    }

    fn known_nouns(&self) -> Option<&[String]> {
        Some(self.names.nouns.as_slice()).filter(|it| !it.is_empty())
    }

    fn grounder(&mut self) -> Option<&mut dyn Grounder> {
        Some(&mut self.grounder)
    }

    fn captioner(&mut self) -> Option<&mut dyn Captioner> {
        Some(self)
    }

    fn answerer(&mut self) -> Option<&mut dyn Answerer> {
        if self.grounder.florence2.answers_questions() { Some(self) } else { None }
    }

    fn probe(&mut self) -> Option<&mut dyn Probe> {
        self.grounder.probe()
    }
}

impl Grounder for DenseGrounder {
    fn ground(
        &mut self,
        image: KeyedImage<'_>,
        phrases: &[&str],
    ) -> Result<Vec<Vec<Detection2d>>, ModelError> {
        check_phrases(phrases)?;
        in_thread_pool(|| {
            let seen = self.look_for(image, phrases)?;
            Ok(seen.iter().map(|cells| distinct(cells, self.config.nms_iou)).collect())
        })
    }
}

/// In names that the checkpoint was taught.
impl Captioner for Tabletop {
    fn caption(
        &mut self,
        image: KeyedImage<'_>,
        region: Option<BoundingBox2d>,
    ) -> Result<String, ModelError> {
        let (width, height) = image.image.dimensions();
        in_thread_pool(|| match region.map(|it| it.clipped(width, height)) {
            None => Ok(listed(&self.named_things(image)?)),
            Some(region) => self.name_of(image, &region),
        })
    }
}

/// From boxes where they can tell, else by the decoder.
impl Answerer for Tabletop {
    fn answer(&mut self, image: KeyedImage<'_>, question: &str) -> Result<String, ModelError> {
        match Question::parse(&plain_question(question)?) {
            Some(asked) => in_thread_pool(|| self.answer_from_boxes(image, &asked)),
            None => self.grounder.florence2.answer(image, question),
        }
    }
}

impl DenseGrounder {
    /// Every cell's box with its score for each phrase.
    fn look_for(
        &mut self,
        image: KeyedImage<'_>,
        phrases: &[&str],
    ) -> Result<Vec<Vec<Detection2d>>, ModelError> {
        if phrases.is_empty() {
            return Ok(Vec::new());
        }
        let features = self.florence2.features(image)?;
        let cells = self.cached_cells.get_or_try_insert(image, || self.head.cells(features.map()))?;
        let encoded = phrases.iter().map(|phrase| self.phrase(phrase)).collect::<Result<Vec<_>, _>>()?;
        scored_cells(&compare(&cells, &encoded)?, &self.config, phrases, image.image.dimensions())
    }

    /// What the dense head makes of a phrase, from the cache when it was asked for before.
    fn phrase(&mut self, phrase: &str) -> Result<DensePhrase, ModelError> {
        let words = plain_words(phrase);
        if let Some(known) = self.cached_phrases.get(&words) {
            return Ok(known.clone());
        }
        let encoded = self.head.phrase(&self.florence2.text_states(&words)?)?;
        if self.cached_phrases.len() == MAX_PHRASES {
            self.cached_phrases.clear();
        }
        self.cached_phrases.insert(words, encoded.clone());
        Ok(encoded)
    }
}

impl Tabletop {
    /// What the naming head says about each cell, with the cell's box, scored by how likely it shows an object.
    fn named_cells(
        &mut self,
        image: KeyedImage<'_>,
    ) -> Result<(Arc<CellNames>, Vec<Detection2d>), ModelError> {
        let features = self.grounder.florence2.features(image)?;
        let names = self
            .cached_names
            .get_or_try_insert(image, || Ok::<_, ModelError>(Arc::new(self.naming.names(features.map())?)))?;
        let mut cells = self.grounder.look_for(image, &["object"])?.swap_remove(0);
        for (cell, kinds) in cells.iter_mut().zip(&names.kinds) {
            cell.score = 1.0 - kinds.last().copied().unwrap_or(1.0);
        }
        Ok((names, cells))
    }

    /// The name of what `region` boxes.
    fn name_of(&mut self, image: KeyedImage<'_>, region: &BoundingBox2d) -> Result<String, ModelError> {
        let (cell_names, cells) = self.named_cells(image)?;
        let name = self.names.likeliest(&cell_names, &agreement(&cells, region));
        Ok(name.map_or_else(|| "nothing that this model has a name for".to_owned(), |(name, _)| name))
    }

    /// Every object whose name is likely enough, from left to right.
    fn named_things(&mut self, image: KeyedImage<'_>) -> Result<Vec<String>, ModelError> {
        let (cell_names, cells) = self.named_cells(image)?;
        let mut things = distinct(&cells, self.grounder.config.nms_iou);
        things.retain(|it| f64::from(it.score) >= OBJECT_SCORE);
        things.sort_by(|a, b| a.bbox.center().0.total_cmp(&b.bbox.center().0));
        Ok(things
            .iter()
            .filter_map(|it| self.names.likeliest(&cell_names, &agreement(&cells, &it.bbox)))
            .filter(|(_, probability)| *probability >= NAMED_PROBABILITY)
            .map(|(name, _)| name)
            .collect())
    }

    fn answer_from_boxes(
        &mut self,
        image: KeyedImage<'_>,
        question: &Question,
    ) -> Result<String, ModelError> {
        let (Question::Color(phrase) | Question::Count(phrase) | Question::Presence(phrase)) = question;
        let mut found = self.grounder.ground(image, &[phrase.as_str()])?.swap_remove(0);
        found.retain(|it| f64::from(it.score) >= NAMED_SCORE);
        Ok(match (question, found.first()) {
            (Question::Presence(_), first) => if first.is_some() { "yes" } else { "no" }.to_owned(),
            (Question::Count(_), _) => number(found.len()),
            (Question::Color(_), None) => format!("there is no {phrase}"),
            (Question::Color(_), Some(thing)) => {
                let (cell_names, cells) = self.named_cells(image)?;
                self.names.color(&cell_names, &agreement(&cells, &thing.bbox)).unwrap_or_default().to_owned()
            }
        })
    }
}
