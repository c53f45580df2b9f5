//! One instruction about one frame, from words to poses: parse, ground, resolve, lift, caption.
//!
//! Synchronous and without a clock: an observer is told as each stage ends, so whoever holds a clock can time them.

use crate::config::Config;
use crate::detection::{BoundingBox2d, Detection2d};
use crate::dialogue::Asked;
use crate::image::RgbdFrame;
use crate::instruction::{GENERIC_NOUN, Instruction, ObjectReference, ParseError, RelationKind, Vocabulary};
use crate::lift::{
    FrameGeometry, Grasp, LiftError, LiftedObject, Place, PlaceRelation, PoseSource, SupportPlane,
    lift_on_plane,
};
use crate::model::{KeyedImage, ModelError, VisionLanguageModel};
use crate::resolve::{self, Candidate, Missing, Resolution};

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

/// What keeps a result from FOUND, for [`Status::Ambiguous`] and [`Status::NotFound`].
#[derive(Debug, Clone, PartialEq)]
pub struct Doubt {
    /// Which reference of the instruction.
    pub part: Part,
    /// What is not there, with the phrase it was looked for by; `None` when there are several.
    pub missing: Option<(Missing, String)>,
    /// Indices into the result's candidates: those the question is about, best first; or the nearest thing seen, at most one.
    pub indices: Vec<usize>,
}

/// A reference of an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// By its place among the targets.
    Target(usize),
    /// By its place among the destination's landmarks.
    Destination(usize),
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
    /// What keeps the result from FOUND, where it is the words.
    pub doubt: Option<Doubt>,
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
    /// The horizontal planes in view, most points first; none without depth.
    pub planes: Vec<SupportPlane>,
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
        match Asked::alone(text, &self.vocabulary) {
            Ok(asked) => run_asked(model, frame, &asked, config, observer),
            Err(err) => GroundingResult {
                status: Status::BadInstruction,
                message: bad_instruction(&err, text),
                ..unanswered(model, frame, text)
            },
        }
    }
}

/// [`Pipeline::run`] for words that are understood already, perhaps from what was said before.
pub fn run_asked(
    model: &mut dyn VisionLanguageModel,
    frame: &RgbdFrame,
    asked: &Asked,
    config: &Config,
    observer: &mut dyn FnMut(Stage),
) -> GroundingResult {
    observer(Stage::Parse);
    let mut result = unanswered(model, frame, &asked.text);
    match fill(&mut result, model, frame, asked, config, observer) {
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

fn unanswered(model: &dyn VisionLanguageModel, frame: &RgbdFrame, text: &str) -> GroundingResult {
    GroundingResult {
        stamp_ns: frame.stamp_ns,
        frame_id: frame.frame_id.clone(),
        model: model.info().label(),
        ..GroundingResult::refused(text, Status::Error, String::new())
    }
}

impl GroundingResult {
    /// Of words that no image was looked at for.
    pub fn refused(instruction: &str, status: Status, message: String) -> Self {
        Self {
            stamp_ns: 0,
            frame_id: String::new(),
            instruction: instruction.to_owned(),
            status,
            message,
            action: String::new(),
            doubt: None,
            targets: Vec::new(),
            destination_relation: None,
            destination: None,
            place: None,
            candidates: Vec::new(),
            planes: Vec::new(),
            model: String::new(),
        }
    }
}

/// Fills in what is found, stage by stage, up to the first that fails. Returns the message.
fn fill(
    result: &mut GroundingResult,
    model: &mut dyn VisionLanguageModel,
    frame: &RgbdFrame,
    asked: &Asked,
    config: &Config,
    observer: &mut dyn FnMut(Stage),
) -> Result<String, (Status, String)> {
    let instruction = &asked.instruction;
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
    if let Ok(geometry) = &geometry {
        result.planes = geometry.planes().to_vec();
    }
    let lift = |object: &Detection2d| lift(&geometry, frame, config, object);
    result.candidates = locate(detections, &lift, config);
    observer(Stage::Locate);

    let candidates: Vec<Candidate> = result.candidates.iter().map(candidate_of).collect();
    let mut options = config.resolve.clone();
    if let Ok(geometry) = &geometry {
        options.view = geometry.view();
    }
    options.previous.clone_from(&asked.previous);
    let resolution = resolve::resolve_instruction(instruction, &candidates, &options);
    observer(Stage::Resolve);
    let parts = (0..).map(Part::Target).zip(&resolution.targets);
    let parts = parts.chain((0..).map(Part::Destination).zip(&resolution.destination));
    let unclear = parts.into_iter().find(|(_, it)| !matches!(it, Resolution::Found { .. }));
    if !matches!(unclear, Some((Part::Target(_), _))) {
        result.targets =
            found_indices(&resolution.targets).map(|idx| result.candidates[idx].clone()).collect();
    }
    if let Some((part, resolution)) = unclear {
        let (status, message) = doubt(result, part, resolution);
        return Err((
            status,
            match nearest_kind(result, instruction, model, image, &lift, config)? {
                Some(nearest) => format!("{message}; {nearest}"),
                None => message,
            },
        ));
    }
    let destination = found_indices(&resolution.destination).next();
    result.destination = destination.map(|idx| result.candidates[idx].clone());

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

impl Doubt {
    /// Ids of the candidates it is about, in order.
    pub fn ids(&self, candidates: &[GroundedObject]) -> Vec<String> {
        self.indices.iter().filter_map(|&idx| candidates.get(idx)).map(|it| it.id.clone()).collect()
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
        let mut of_phrase: Vec<Detection2d> =
            of_phrase.into_iter().take(config.max_candidates).map(|it| scored(it, config)).collect();
        of_phrase.sort_by(|a, b| b.score.total_cmp(&a.score));
        for (rank, detection) in of_phrase.into_iter().enumerate() {
            let is_worth_it = detection.score >= config.resolve.threshold;
            let lifted = if is_worth_it { lift(&detection).ok() } else { None };
            objects.push(GroundedObject {
                id: format!("{}_{rank}", detection.phrase.replace(' ', "_")),
                phrase: detection.phrase,
                caption: String::new(),
                score: f64::from(detection.score),
                score_parts: detection.score_parts,
                bbox: detection.bbox,
                lifted,
                grasps: Vec::new(),
            });
        }
    }
    objects
}

/// With the model's score among its parts, and the score that the weights make of them.
fn scored(detection: Detection2d, config: &Config) -> Detection2d {
    let mut score_parts = vec![("model".to_owned(), f64::from(detection.score))];
    score_parts.extend(detection.score_parts);
    let weights = config.score_weights.as_ref();
    let score = weights
        .map_or(detection.score, |it| it.score(score_parts.iter().map(|it| (it.0.as_str(), it.1))) as f32);
    Detection2d { score, score_parts, ..detection }
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

/// As the resolver sees it.
pub(crate) fn candidate_of(object: &GroundedObject) -> Candidate {
    Candidate {
        detection: Detection2d::new(object.phrase.clone(), object.bbox, object.score as f32),
        position_in_camera: object.lifted.as_ref().map(|it| it.surface_centroid),
        size_m: object.lifted.as_ref().map(LiftedObject::extent_in_camera),
    }
}

/// The indices of all that is found.
fn found_indices(resolutions: &[Resolution]) -> impl Iterator<Item = usize> {
    resolutions
        .iter()
        .flat_map(|it| match it {
            Resolution::Found { indices, .. } => indices.as_slice(),
            Resolution::Ambiguous { .. } | Resolution::NotFound { .. } => &[],
        })
        .copied()
}

/// Keeps what is in doubt, and says it.
fn doubt(result: &mut GroundingResult, part: Part, resolution: &Resolution) -> (Status, String) {
    let what = if matches!(part, Part::Destination(_)) { "for the destination, " } else { "" };
    let (status, words) = match resolution {
        Resolution::Found { reason, .. } => (Status::Found, reason),
        Resolution::Ambiguous { indices, question } => {
            result.doubt = Some(Doubt { part, missing: None, indices: indices.clone() });
            (Status::Ambiguous, question)
        }
        Resolution::NotFound { missing, phrase, nearest, reason } => {
            let missing = Some((*missing, phrase.clone()));
            result.doubt = Some(Doubt { part, missing, indices: nearest.iter().copied().collect() });
            (Status::NotFound, reason)
        }
    };
    (status, format!("{what}{words}"))
}

/// For a missing "red mug": whether any mug is seen. Then what is missing is the attribute, and the mug is the nearest thing.
/// The model is asked once more, about the same image.
fn nearest_kind(
    result: &mut GroundingResult,
    instruction: &Instruction,
    model: &mut dyn VisionLanguageModel,
    image: KeyedImage<'_>,
    lift: &dyn Fn(&Detection2d) -> Result<LiftedObject, LiftError>,
    config: &Config,
) -> Result<Option<String>, (Status, String)> {
    let Some(Doubt { missing: Some((Missing::Object, phrase)), indices, .. }) = &result.doubt else {
        return Ok(None);
    };
    let reference = instruction.references().into_iter().find(|it| it.query() == *phrase);
    let is_plain = |it: &&ObjectReference| it.noun == GENERIC_NOUN || it.noun == it.query();
    let Some(reference) = reference.filter(|it| indices.is_empty() && !is_plain(it)) else { return Ok(None) };
    let noun = reference.noun.as_str();
    if !result.candidates.iter().any(|it| it.phrase == noun) {
        let detections = model.ground(image, &[noun]).map_err(|err| (Status::Error, err.to_string()))?;
        result.candidates.extend(locate(detections, lift, config));
    }
    let of_kind = result.candidates.iter().enumerate().filter(|(_, it)| it.phrase == noun);
    let best = of_kind.max_by(|a, b| a.1.score.total_cmp(&b.1.score));
    let Some((idx, object)) = best.filter(|(_, it)| it.score >= f64::from(config.resolve.threshold)) else {
        return Ok(None);
    };
    let side = 3.0 * object.bbox.center().0 / f64::from(image.image.width());
    let place = if side < 1.0 {
        "at the left"
    } else if side > 2.0 {
        "at the right"
    } else {
        "in the middle"
    };
    let words = format!("the nearest thing seen is a {noun} {place} (score {:.2})", object.score);
    result.doubt = result.doubt.take().map(|it| Doubt {
        missing: it.missing.map(|(_, phrase)| (Missing::Attribute, phrase)),
        indices: vec![idx],
        ..it
    });
    Ok(Some(words))
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
