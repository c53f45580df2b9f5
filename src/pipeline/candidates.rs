//! What the model saw as candidates: scored, and lifted where that is worth it.

mod colors;
mod overlap;

pub(super) use self::colors::{check as check_colors, refuted};

use super::RELATION_FIT;
use crate::detection::Detection2d;
use crate::image::RgbdFrame;
use crate::instruction::Instruction;
use crate::lift::{FrameContext, FrameGeometry, LiftError, LiftedObject, SupportPlane, lift_on_plane};
use crate::options::PipelineOptions;
use crate::resolve::Resolution;
use crate::result::{GroundedObject, UnmetConstraint};
use crate::score::part;
use crate::viewpoint::ViewAxes;

/// Boxes of one frame to places in space.
pub(super) struct Lifter<'a> {
    frame: &'a RgbdFrame,
    context: &'a FrameContext,
    geometry: Result<FrameGeometry<'a>, LiftError>,
}

impl<'a> Lifter<'a> {
    pub(super) fn new(frame: &'a RgbdFrame, context: &'a FrameContext, options: &'a PipelineOptions) -> Self {
        let geometry = if options.use_depth {
            FrameGeometry::in_context(frame, &options.lift, context)
        } else {
            Err(LiftError::NotInUse)
        };
        Self { frame, context, geometry }
    }

    /// `None` where there is no usable depth.
    pub(super) fn geometry(&self) -> Option<&FrameGeometry<'a>> {
        self.geometry.as_ref().ok()
    }

    /// The horizontal planes in view, most points first; none without depth.
    pub(super) fn planes(&self) -> &[SupportPlane] {
        self.geometry().map_or(&[], FrameGeometry::planes)
    }

    /// From where sides are told.
    pub(super) fn view(&self) -> ViewAxes {
        match self.geometry() {
            Some(geometry) => geometry.view(),
            None => {
                let leveled = || self.context.up_in_camera.map_or_else(ViewAxes::camera, ViewAxes::leveled);
                self.context.view.unwrap_or_else(leveled)
            }
        }
    }

    /// Whether things without depth can be placed.
    pub(super) fn knows_plane(&self) -> bool {
        self.context.known_plane.is_some()
    }

    /// By depth where there is any; else, where a plane is known, by where the object stands on it.
    pub(super) fn lift(&self, object: &Detection2d) -> Result<LiftedObject, LiftError> {
        match &self.geometry {
            Ok(geometry) => geometry.lift(&object.phrase, &object.bbox),
            Err(error @ (LiftError::NoDepthImage | LiftError::NotInUse)) => {
                let plane = self.context.known_plane.as_ref().ok_or_else(|| error.clone())?;
                let camera = self.frame.camera.ok_or(LiftError::NoCamera)?;
                let (width, height) = self.frame.image.dimensions();
                let bbox = object.bbox.clipped(width, height);
                lift_on_plane(&camera, &bbox, plane).ok_or_else(|| error.clone())
            }
            Err(error) => Err(error.clone()),
        }
    }
}

/// The detections as candidates, best first within each phrase; those worth it (over the threshold) are lifted.
pub(super) fn from_detections(
    detections: Vec<Vec<Detection2d>>,
    lifter: &Lifter<'_>,
    options: &PipelineOptions,
) -> Vec<GroundedObject> {
    let mut objects = Vec::new();
    for of_phrase in detections {
        let mut of_phrase: Vec<Detection2d> =
            of_phrase.into_iter().take(options.max_candidates).map(|it| scored(it, options)).collect();
        of_phrase.sort_by(|a, b| b.score.total_cmp(&a.score));
        for (rank, detection) in of_phrase.into_iter().enumerate() {
            let is_worth_it = detection.score >= options.thresholds.threshold_of(&detection.phrase);
            let lifted = if is_worth_it { lifter.lift(&detection).ok() } else { None };
            objects.push(GroundedObject {
                id: format!("{}_{rank}", detection.phrase.replace(' ', "_")),
                phrase: detection.phrase,
                caption: String::new(),
                score: f64::from(detection.score),
                score_parts: detection.score_parts,
                bbox: detection.bbox,
                lifted,
                grasps: Vec::new(),
                no_grasps_reason: String::new(),
            });
        }
    }
    if let Some(geometry) = lifter.geometry() {
        overlap::part(&mut objects, geometry);
    }
    objects
}

/// The support planes that the words name and no detector has found: "the table" of "put the cup in the middle of the table". Only
/// as places, never as targets.
pub(super) fn surfaces(
    instruction: &Instruction,
    candidates: &[GroundedObject],
    lifter: &Lifter<'_>,
    options: &PipelineOptions,
) -> Vec<GroundedObject> {
    let Some(geometry) = lifter.geometry() else { return Vec::new() };
    let mut surfaces: Vec<GroundedObject> = Vec::new();
    for reference in instruction.steps().flat_map(Instruction::references) {
        let phrase = reference.query();
        let is_seen = |it: &GroundedObject| {
            it.phrase == phrase && it.score >= f64::from(options.thresholds.threshold_of(&phrase))
        };
        let is_target = instruction.steps().any(|it| it.targets.iter().any(|it| it.query() == phrase));
        let is_named = reference.is_surface && phrase == reference.noun && !is_target;
        if !is_named || candidates.iter().chain(&surfaces).any(is_seen) {
            continue;
        }
        let planes = geometry.planes();
        let plane = match reference.noun.as_str() {
            "floor" | "ground" => {
                planes.iter().max_by(|a, b| a.camera_height_m.total_cmp(&b.camera_height_m))
            }
            _ => planes.first(),
        };
        let Some((bbox, lifted)) = plane.and_then(|it| geometry.surface(it)) else { continue };
        surfaces.push(GroundedObject {
            id: format!("{}_plane", phrase.replace(' ', "_")),
            phrase,
            caption: String::new(),
            score: 1.0,
            score_parts: vec![("support_plane".to_owned(), 1.0)],
            bbox,
            lifted: Some(lifted),
            grasps: Vec::new(),
            no_grasps_reason: String::new(),
        });
    }
    surfaces
}

/// With the model's score among its parts, and the score that the weights make of them.
fn scored(detection: Detection2d, options: &PipelineOptions) -> Detection2d {
    let mut score_parts = vec![("model".to_owned(), f64::from(detection.score))];
    score_parts.extend(detection.score_parts);
    let score = weighed(f64::from(detection.score), &score_parts, options) as f32;
    Detection2d { score, score_parts, ..detection }
}

/// The score that the weights make of the parts; `score` without weights.
fn weighed(score: f64, parts: &[(String, f64)], options: &PipelineOptions) -> f64 {
    let weights = options.score_weights.as_ref();
    weights.map_or(score, |it| {
        it.score(parts.iter().map(|(name, value)| (name.as_str(), *value))) * colors::gate(parts)
    })
}

/// How well it stands where the words say is evidence too.
pub(super) fn weigh_place(object: &mut GroundedObject, relation_fit: f64, options: &PipelineOptions) {
    if part(&object.score_parts, RELATION_FIT).is_none() {
        object.score_parts.push((RELATION_FIT.to_owned(), relation_fit));
        object.score = weighed(object.score, &object.score_parts, options);
    }
}

/// What was sure enough before its place was weighed may not be with it.
pub(super) fn doubt_weak(
    resolution: &mut Resolution,
    candidates: &[GroundedObject],
    options: &PipelineOptions,
) {
    let Resolution::Found { indices, .. } = resolution else { return };
    let threshold = |it: &GroundedObject| f64::from(options.thresholds.threshold_of(&it.phrase));
    let is_weak =
        |it: &GroundedObject| it.score < threshold(it) && part(&it.score_parts, RELATION_FIT).is_some();
    let Some(&idx) = indices.iter().find(|it| is_weak(&candidates[**it])) else { return };
    let weak = &candidates[idx];
    *resolution = Resolution::NotFound {
        missing: UnmetConstraint::Relation,
        phrase: weak.phrase.clone(),
        nearest: Some(idx),
        reason: format!(
            "no {} is clearly where said: the best scores {:.2} with its place, under {:.2}",
            weak.phrase,
            weak.score,
            threshold(weak)
        ),
    };
}
