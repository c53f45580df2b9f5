//! What comes of a request: what the pipeline, the dialogue, the report and the ROS rim speak of.

use nalgebra::{Unit, Vector3};

use crate::candidate::{Body, Candidate};
use crate::detection::{BoundingBox2d, Detection2d};
use crate::instruction::{RelationKind, Rotation};
use crate::lift::{Grasp, LiftedObject, Place, SupportPlane};

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
    /// Why `grasps` of a target is empty; empty where it is not, and for what is no target.
    pub no_grasps_reason: String,
}

/// What keeps a result from FOUND, for [`Status::Ambiguous`] and [`Status::NotFound`].
#[derive(Debug, Clone, PartialEq)]
pub struct Ambiguity {
    /// Which step of the instruction, 0 for the first.
    pub step_idx: usize,
    /// Which reference of that step.
    pub role: ReferenceRole,
    /// What is not there, with the phrase it was looked for by; `None` when there are several.
    pub unmet: Option<(UnmetConstraint, String)>,
    /// Indices into the result's candidates: those the question is about, best first; or the nearest thing seen, at most one.
    pub indices: Vec<usize>,
}

/// A reference of an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReferenceRole {
    /// By its place among the targets.
    Target(usize),
    /// By its place among the destination's landmarks.
    Destination(usize),
    /// What to do it with.
    Tool,
}

/// Which part of the words nothing fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnmetConstraint {
    /// No such thing is seen.
    Object,
    /// Such a thing is seen, but none that looks as said.
    Attribute,
    /// Such a thing is seen, but none stands where said.
    Relation,
    /// There are not so many.
    Count,
    /// What is meant is outside of the workspace.
    Reach,
    /// What is meant is smaller or larger than targets are.
    Size,
}

/// What came of one step of an instruction.
#[derive(Debug, Clone, PartialEq)]
pub struct StepResult {
    /// What to do with the targets.
    pub action: String,
    /// What came of this step alone.
    pub status: Status,
    /// One sentence about this step.
    pub message: String,
    /// What keeps the step from FOUND, where it is the words.
    pub ambiguity: Option<Ambiguity>,
    /// The objects meant, best first.
    pub targets: Vec<GroundedObject>,
    /// How the place relates to the destination.
    pub destination_relation: Option<RelationKind>,
    /// Where to put them.
    pub destination: Option<GroundedObject>,
    /// A free place on, in or beside the destination.
    pub place: Option<Place>,
    /// What to do it with.
    pub tool: Option<GroundedObject>,
    /// How, as said: "gently".
    pub manner: Vec<String>,
    /// By how much to turn.
    pub rotation: Option<Rotation>,
    /// How far from the destination, or from where the target is, meters.
    pub distance_m: Option<f64>,
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
    pub ambiguity: Option<Ambiguity>,
    /// The objects meant, best first. Empty unless something matched; for [`Status::Ambiguous`] the ones not told apart are
    /// among the candidates only.
    pub targets: Vec<GroundedObject>,
    /// How the place relates to the destination.
    pub destination_relation: Option<RelationKind>,
    /// Where to put them.
    pub destination: Option<GroundedObject>,
    /// A free place on, in or beside the destination; `None` when none is seen.
    pub place: Option<Place>,
    /// All steps of the instruction, the first included; what is above are the first step's targets and places, and the status is
    /// that of the worst step.
    pub steps: Vec<StepResult>,
    /// Every object considered, targets and destination included.
    pub candidates: Vec<GroundedObject>,
    /// The horizontal planes in view, most points first; none without depth.
    pub planes: Vec<SupportPlane>,
    /// Up in the camera's optical frame, where gravity or a surface tells it.
    pub up_in_camera: Option<Unit<Vector3<f64>>>,
    /// What makes the answer less sure than it looks, one sentence each.
    pub warnings: Vec<String>,
    /// Name of the model that looked; empty when none did.
    pub model: String,
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
            ambiguity: None,
            targets: Vec::new(),
            destination_relation: None,
            destination: None,
            place: None,
            steps: Vec::new(),
            candidates: Vec::new(),
            planes: Vec::new(),
            up_in_camera: None,
            warnings: Vec::new(),
            model: String::new(),
        }
    }
}

impl Status {
    /// How far from FOUND: of several steps, that of the farthest is the whole's.
    fn severity(self) -> u8 {
        match self {
            Self::Found => 0,
            Self::NoTransform => 1,
            Self::NoDepth => 2,
            Self::Ambiguous => 3,
            Self::NotFound => 4,
            Self::Stale | Self::Blocked => 5,
            Self::BadInstruction => 6,
            Self::Error => 7,
        }
    }
}

impl StepResult {
    /// The first of the worst of several steps, with its place.
    pub fn worst(steps: &[Self]) -> Option<(usize, &Self)> {
        let worst = steps.iter().map(|it| it.status.severity()).max()?;
        steps.iter().enumerate().find(|(_, it)| it.status.severity() == worst)
    }
}

impl GroundedObject {
    /// As the resolver sees it.
    pub fn candidate(&self) -> Candidate {
        Candidate {
            detection: Detection2d {
                score_parts: self.score_parts.clone(),
                ..Detection2d::new(self.phrase.clone(), self.bbox, self.score as f32)
            },
            position_in_camera: self.lifted.as_ref().map(|it| it.surface_centroid),
            size_m: self.lifted.as_ref().map(LiftedObject::extent_in_camera),
            body: self.lifted.as_ref().map(|it| Body {
                pose_in_camera: it.object_in_camera,
                size_m: it.size_m,
                unseen_below_m: it.unseen_below_m,
                is_top_closed: it.is_top_closed,
            }),
        }
    }
}

impl Ambiguity {
    /// Ids of the candidates it is about, in order.
    pub fn ids(&self, candidates: &[GroundedObject]) -> Vec<String> {
        self.indices.iter().filter_map(|&idx| candidates.get(idx)).map(|it| it.id.clone()).collect()
    }
}

impl UnmetConstraint {
    /// In lower case: "object", "attribute", "relation", "count", "reach" or "size".
    pub fn name(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Attribute => "attribute",
            Self::Relation => "relation",
            Self::Count => "count",
            Self::Reach => "reach",
            Self::Size => "size",
        }
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
