//! Which candidate the words mean: attributes, relations, order, counts; pure.
//!
//! Candidates carry what a detector said and, where there is depth, where they are. Relations are graded between 0 and 1 in
//! 3D where both sides have a position, else in the image, with the same meaning.

use nalgebra::{Point3, Unit, Vector3};

use crate::detection::Detection2d;
use crate::instruction::{Instruction, ObjectReference};

/// Something that may be meant. `detection.phrase` says which phrase of [`Instruction::queries`] it was found for.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Box, phrase and score.
    pub detection: Detection2d,
    /// Centre of what is seen of it, metres, camera's optical frame (x right, y down, z forward).
    pub position_in_camera: Option<Point3<f64>>,
    /// Extents along the optical frame's axes, metres.
    pub size_m: Option<Vector3<f64>>,
}

/// How words are held against candidates.
#[derive(Debug, Clone, PartialEq)]
pub struct ResolveOptions {
    /// Detections under this score are nothing, in [0, 1].
    pub threshold: f32,
    /// Two candidates whose fits (in [0, 1]) differ by less are not told apart.
    pub ambiguity_margin: f64,
    /// From where "left" and "behind" are seen.
    pub view: ViewAxes,
}

/// The directions of a viewpoint, as unit vectors in the camera's optical frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ViewAxes {
    /// To the right of the viewer.
    pub right: Unit<Vector3<f64>>,
    /// Away from the viewer.
    pub forward: Unit<Vector3<f64>>,
    /// Up.
    pub up: Unit<Vector3<f64>>,
}

/// What the words mean. Indices are into the candidates given.
#[derive(Debug, Clone, PartialEq)]
pub enum Resolution {
    /// These, best first.
    Found {
        /// As many as the words ask for.
        indices: Vec<usize>,
        /// Why these, for a person.
        reason: String,
    },
    /// One of these; the words do not say which.
    Ambiguous {
        /// The ones not told apart, best first.
        indices: Vec<usize>,
        /// What to ask back.
        question: String,
    },
    /// Nothing fits.
    NotFound {
        /// What is missing, and the nearest thing seen.
        reason: String,
    },
}

/// What an instruction's references mean together: nothing is its own destination.
#[derive(Debug, Clone, PartialEq)]
pub struct InstructionResolution {
    /// One per target of the instruction.
    pub targets: Vec<Resolution>,
    /// One per landmark of the destination; empty without one.
    pub destination: Vec<Resolution>,
}

/// Which of the candidates `reference` means.
pub fn resolve(
    reference: &ObjectReference,
    _candidates: &[Candidate],
    _options: &ResolveOptions,
) -> Resolution {
    Resolution::NotFound { reason: format!("{}: the resolver is not built yet", reference.query()) }
}

/// [`resolve`] for every target and destination of an instruction (not of what comes `then`).
pub fn resolve_instruction(
    instruction: &Instruction,
    candidates: &[Candidate],
    options: &ResolveOptions,
) -> InstructionResolution {
    let resolve_all = |references: &[ObjectReference]| -> Vec<Resolution> {
        references.iter().map(|it| resolve(it, candidates, options)).collect()
    };
    InstructionResolution {
        targets: resolve_all(&instruction.targets),
        destination: instruction.destination.iter().flat_map(|it| resolve_all(&it.landmarks)).collect(),
    }
}

impl Default for ResolveOptions {
    fn default() -> Self {
        Self { threshold: 0.5, ambiguity_margin: 0.2, view: ViewAxes::camera() }
    }
}

impl ViewAxes {
    /// The camera's own: right, forward and up of the image.
    pub fn camera() -> Self {
        Self { right: Vector3::x_axis(), forward: Vector3::z_axis(), up: -Vector3::y_axis() }
    }
}
