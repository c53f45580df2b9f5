//! One instruction about one frame, from words to poses: parse, ground, resolve, lift, caption.
//!
//! Synchronous and without a clock: an observer is told as each stage ends, so whoever holds a clock can time them.

use crate::config::Config;
use crate::detection::{BoundingBox2d, Detection2d};
use crate::image::RgbdFrame;
use crate::instruction::{self, ParseError, RelationKind, Vocabulary};
use crate::lift::{
    FrameGeometry, Grasp, LiftError, LiftedObject, Place, PlaceRelation, PoseSource, lift_on_plane,
};
use crate::model::{KeyedImage, ModelError, VisionLanguageModel};
use crate::resolve::{self, Candidate, Resolution};

/// What came of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// Every object the instruction names was found, and lifted if depth is in use.
    Found,
    /// No object in view matches the words.
    NotFound,
    /// Several objects match equally well; the message is a question to ask back.
    Ambiguous,
    /// Found in the image, but there is no usable depth on the object.
    NoDepth,
    /// Found and lifted, but not transformable to the target frame at the image's stamp.
    NoTransform,
    /// No image, or none recent enough.
    Stale,
    /// The instruction could not be understood.
    BadInstruction,
    /// Not processed: the node is inactive, shutting down, or the request was canceled.
    Blocked,
    /// Something broke; the message says what.
    Error,
}

/// The stages of a request, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Words to an instruction.
    Parse,
    /// Phrases and pixels to candidates: the model.
    Ground,
    /// Depth to the frame's support planes and the candidates' positions.
    Locate,
    /// Candidates to the ones the words mean.
    Resolve,
    /// Targets to poses.
    Lift,
    /// Descriptions of the targets: the model.
    Caption,
}

/// One object the words refer to, or a candidate for it.
#[derive(Debug, Clone, PartialEq)]
pub struct GroundedObject {
    /// Names the object within one result: a target has the id of its candidate.
    pub id: String,
    /// The phrase it was looked for by.
    pub phrase: String,
    /// What the model says it shows; empty when not asked.
    pub caption: String,
    /// How sure we are that the phrase is shown here, in [0, 1].
    pub score: f64,
    /// What the score was made of, by name.
    pub score_parts: Vec<(String, f64)>,
    /// Pixels of the source image.
    pub bbox: BoundingBox2d,
    /// Where in space, in the camera's optical frame; `None` without usable depth.
    pub lifted: Option<LiftedObject>,
    /// Ways to take it, best first; for targets only.
    pub grasps: Vec<Grasp>,
}

/// What came of one instruction on one frame.
#[derive(Debug, Clone, PartialEq)]
pub struct GroundingResult {
    /// Stamp of the color image, nanoseconds, unchanged.
    pub stamp_ns: i64,
    /// Optical frame of the color image, unchanged.
    pub frame_id: String,
    /// As received.
    pub instruction: String,
    /// What came of it.
    pub status: Status,
    /// One sentence a person can act on.
    pub message: String,
    /// What to do with the targets, in the vocabulary's canonical names; empty when the instruction was not understood.
    pub action: String,
    /// The objects meant, best first. Empty unless something matched; for [`Status::Ambiguous`] the ones not told apart are
    /// among the candidates only.
    pub targets: Vec<GroundedObject>,
    /// How the place relates to the destination.
    pub destination_relation: Option<RelationKind>,
    /// Where to put them.
    pub destination: Option<GroundedObject>,
    /// A free place on, in or beside the destination; `None` when none is seen.
    pub place: Option<Place>,
    /// Every object considered, targets and destination included.
    pub candidates: Vec<GroundedObject>,
    /// Name of the model that looked; empty when none did.
    pub model: String,
}

/// The steps from words to poses. Cheap to make; holds the vocabulary only.
#[derive(Debug, Clone, Default)]
pub struct Pipeline {
    vocabulary: Vocabulary,
}

impl Pipeline {
    /// With the words of `vocabulary`.
    pub fn new(vocabulary: Vocabulary) -> Self {
        Self { vocabulary }
    }

    /// What `text` refers to in `frame`. Always a result, whatever happens; `observer` is called as each stage ends
    /// (stages that are not reached are not reported).
    pub fn run(
        &self,
        model: &mut dyn VisionLanguageModel,
        frame: &RgbdFrame,
        text: &str,
        config: &Config,
        observer: &mut dyn FnMut(Stage),
    ) -> GroundingResult {
        let mut result = GroundingResult {
            stamp_ns: frame.stamp_ns,
            frame_id: frame.frame_id.clone(),
            instruction: text.to_owned(),
            status: Status::Error,
            message: String::new(),
            action: String::new(),
            targets: Vec::new(),
            destination_relation: None,
            destination: None,
            place: None,
            candidates: Vec::new(),
            model: model.info().label(),
        };
        match self.fill(&mut result, model, frame, config, observer) {
            Ok(message) => {
                result.status = Status::Found;
                result.message = message;
            }
            Err((status, message)) => {
                result.status = status;
                result.message = message;
            }
        }
        result
    }

    /// Fills in what is found, stage by stage, up to the first that fails. Returns the message.
    fn fill(
        &self,
        result: &mut GroundingResult,
        model: &mut dyn VisionLanguageModel,
        frame: &RgbdFrame,
        config: &Config,
        observer: &mut dyn FnMut(Stage),
    ) -> Result<String, (Status, String)> {
        let instruction = instruction::parse(&result.instruction, &self.vocabulary)
            .map_err(|err| (Status::BadInstruction, bad_instruction(&err, &result.instruction)))?;
        observer(Stage::Parse);
        result.action = instruction.action.name().to_owned();
        result.destination_relation = instruction.destination.as_ref().map(|it| it.relation);
        let queries = instruction.queries();
        if queries.is_empty() {
            return Ok(format!("{:?} names no object: nothing to look for", result.action));
        }

        let image = KeyedImage { key: frame.key, image: &frame.image };
        if frame.image.width() == 0 || frame.image.height() == 0 {
            return Err((Status::Error, "the image is empty: expected at least one pixel".to_owned()));
        }
        let phrases: Vec<&str> = queries.iter().map(String::as_str).collect();
        let detections = model.ground(image, &phrases).map_err(|err| (Status::Error, err.to_string()))?;
        observer(Stage::Ground);

        let geometry =
            if config.use_depth { FrameGeometry::new(frame, &config.lift) } else { Err(LiftError::NotInUse) };
        let lift = |object: &Detection2d| lift(&geometry, frame, config, object);
        result.candidates = locate(detections, &lift, config);
        observer(Stage::Locate);

        let candidates: Vec<Candidate> = result.candidates.iter().map(candidate_of).collect();
        let mut options = config.resolve.clone();
        if let Ok(geometry) = &geometry {
            options.view = geometry.view();
        }
        let resolution = resolve::resolve_instruction(&instruction, &candidates, &options);
        observer(Stage::Resolve);
        let target_indices = found_indices(&resolution.targets, "")?;
        result.targets = target_indices.iter().map(|&idx| result.candidates[idx].clone()).collect();
        let destination_indices = found_indices(&resolution.destination, "for the destination, ")?;
        result.destination = destination_indices.first().map(|&idx| result.candidates[idx].clone());

        // Lifted among the candidates already, unless their score was under the threshold or depth failed them.
        let mut no_depth = None;
        if config.use_depth || config.lift.known_plane.is_some() {
            for object in result.targets.iter_mut().chain(&mut result.destination) {
                if object.lifted.is_some() {
                    continue;
                }
                match lift(&Detection2d::new(object.phrase.clone(), object.bbox, 1.0)) {
                    Ok(lifted) => object.lifted = Some(lifted),
                    Err(LiftError::NotInUse) => {}
                    Err(err) => no_depth = no_depth.or(Some(err)),
                }
            }
        }
        if let Ok(geometry) = &geometry {
            plan(result, geometry, config);
        }
        observer(Stage::Lift);

        if config.caption_targets {
            for object in result.targets.iter_mut().chain(&mut result.destination) {
                match model.caption(image, Some(object.bbox)) {
                    Ok(caption) => object.caption = caption,
                    // A model without captions is no fault of the request.
                    Err(ModelError::Unsupported { .. }) => break,
                    Err(err) => return Err((Status::Error, err.to_string())),
                }
            }
            observer(Stage::Caption);
        }

        if let Some(err) = no_depth {
            return Err((Status::NoDepth, err.to_string()));
        }
        let mut message = found_message(result);
        if let Some(then) = &instruction.then {
            message += &format!("; only the first step was looked at, ask again for: {then}");
        }
        Ok(message)
    }
}

impl Status {
    /// The contract's name: "FOUND", "NOT_FOUND", ...
    pub fn name(self) -> &'static str {
        match self {
            Self::Found => "FOUND",
            Self::NotFound => "NOT_FOUND",
            Self::Ambiguous => "AMBIGUOUS",
            Self::NoDepth => "NO_DEPTH",
            Self::NoTransform => "NO_TRANSFORM",
            Self::Stale => "STALE",
            Self::BadInstruction => "BAD_INSTRUCTION",
            Self::Blocked => "BLOCKED",
            Self::Error => "ERROR",
        }
    }
}

impl Stage {
    /// As a key of `latency_ms`: "parse", "ground", ...
    pub fn name(self) -> &'static str {
        match self {
            Self::Parse => "parse",
            Self::Ground => "ground",
            Self::Locate => "locate",
            Self::Resolve => "resolve",
            Self::Lift => "lift",
            Self::Caption => "caption",
        }
    }
}

/// The detections as candidates, best first within each phrase; those worth it (over the threshold) are lifted.
fn locate(
    detections: Vec<Vec<Detection2d>>,
    lift: &dyn Fn(&Detection2d) -> Result<LiftedObject, LiftError>,
    config: &Config,
) -> Vec<GroundedObject> {
    let mut objects = Vec::new();
    for of_phrase in detections {
        for (rank, detection) in of_phrase.into_iter().take(config.max_candidates).enumerate() {
            let is_worth_it = detection.score >= config.resolve.threshold;
            let lifted = if is_worth_it { lift(&detection).ok() } else { None };
            objects.push(GroundedObject {
                id: format!("{}_{rank}", detection.phrase.replace(' ', "_")),
                phrase: detection.phrase,
                caption: String::new(),
                score: f64::from(detection.score),
                score_parts: [("model".to_owned(), f64::from(detection.score))]
                    .into_iter()
                    .chain(detection.score_parts)
                    .collect(),
                bbox: detection.bbox,
                lifted,
                grasps: Vec::new(),
            });
        }
    }
    objects
}

/// By depth where there is any; else, where a plane is known, by where the object stands on it.
fn lift(
    geometry: &Result<FrameGeometry<'_>, LiftError>,
    frame: &RgbdFrame,
    config: &Config,
    object: &Detection2d,
) -> Result<LiftedObject, LiftError> {
    match geometry {
        Ok(geometry) => geometry.lift(&object.phrase, &object.bbox),
        Err(error @ (LiftError::NoDepthImage | LiftError::NotInUse)) => {
            let plane = config.lift.known_plane.as_ref().ok_or_else(|| error.clone())?;
            let camera = frame.camera.ok_or(LiftError::NoCamera)?;
            let (width, height) = frame.image.dimensions();
            lift_on_plane(&camera, &object.bbox.clipped(width, height), plane).ok_or_else(|| error.clone())
        }
        Err(error) => Err(error.clone()),
    }
}

/// Grasps for the targets and a place at the destination.
fn plan(result: &mut GroundingResult, geometry: &FrameGeometry<'_>, config: &Config) {
    for object in &mut result.targets {
        if let Some(lifted) = &object.lifted {
            object.grasps = geometry.grasps(lifted, &config.gripper);
        }
    }
    let destination = result.destination.as_ref().and_then(|it| it.lifted.as_ref());
    let relation = result.destination_relation.and_then(place_relation);
    if let (Some(destination), Some(relation)) = (destination, relation) {
        let target = result.targets.first().and_then(|it| it.lifted.as_ref());
        let radius_m = target.map_or(0.03, |it| 0.5 * it.size_m.x);
        result.place = geometry.place(destination, relation, radius_m);
    }
}

/// The place a relation to a destination speaks of, as far as it names one.
fn place_relation(relation: RelationKind) -> Option<PlaceRelation> {
    match relation {
        RelationKind::On | RelationKind::Above | RelationKind::To | RelationKind::AtCenterOf => {
            Some(PlaceRelation::On)
        }
        RelationKind::In => Some(PlaceRelation::In),
        RelationKind::LeftOf => Some(PlaceRelation::LeftOf),
        RelationKind::RightOf => Some(PlaceRelation::RightOf),
        RelationKind::InFrontOf => Some(PlaceRelation::InFrontOf),
        RelationKind::Behind => Some(PlaceRelation::Behind),
        RelationKind::NextTo | RelationKind::Near => Some(PlaceRelation::NextTo),
        _ => None,
    }
}

fn candidate_of(object: &GroundedObject) -> Candidate {
    Candidate {
        detection: Detection2d::new(object.phrase.clone(), object.bbox, object.score as f32),
        position_in_camera: object.lifted.as_ref().map(|it| it.surface_centroid),
        size_m: object.lifted.as_ref().map(LiftedObject::extent_in_camera),
    }
}

/// All indices found, or the first reason why not.
fn found_indices(resolutions: &[Resolution], what: &str) -> Result<Vec<usize>, (Status, String)> {
    let mut all = Vec::new();
    for resolution in resolutions {
        match resolution {
            Resolution::Found { indices, .. } => all.extend_from_slice(indices),
            Resolution::Ambiguous { question, .. } => {
                return Err((Status::Ambiguous, format!("{what}{question}")));
            }
            Resolution::NotFound { reason } => return Err((Status::NotFound, format!("{what}{reason}"))),
        }
    }
    Ok(all)
}

fn found_message(result: &GroundingResult) -> String {
    let mut objects: Vec<String> = result.targets.iter().map(describe).collect();
    if let Some(destination) = &result.destination {
        let relation = result.destination_relation.map_or("", RelationKind::words);
        objects.push(format!("destination: {relation} {}", describe(destination)));
    }
    format!("found {}", objects.join("; "))
}

fn describe(object: &GroundedObject) -> String {
    match &object.lifted {
        Some(LiftedObject { surface_centroid: at, source, .. }) => {
            let how = if *source == PoseSource::Depth { "" } else { " by where it stands, without depth" };
            format!("{} at ({:.3}, {:.3}, {:.3}) m{how}", object.phrase, at.x, at.y, at.z)
        }
        None => {
            let (x, y) = object.bbox.center();
            format!("{} at pixel ({x:.0}, {y:.0})", object.phrase)
        }
    }
}

fn bad_instruction(error: &ParseError, text: &str) -> String {
    match text.get(error.span.clone()) {
        Some(words) if !words.is_empty() && words.len() <= 60 => {
            format!("{} (at {}: {words:?})", error.message, error.span.start)
        }
        _ => error.message.clone(),
    }
}
