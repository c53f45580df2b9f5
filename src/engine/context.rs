//! What TF knows of a frame at its stamp: up, the viewpoint, the plane that things stand on, and where poses are published.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use nalgebra::{Isometry3, Unit, Vector3};
use parking_lot::Mutex;

use super::outcome::TargetFrame;
use super::refusal::Refusal;
use super::transforms::Transforms;
use crate::config::Config;
use crate::image::RgbdFrame;
use crate::lift::{FrameContext, SupportPlane};
use crate::request::GroundingRequest;
use crate::result::{GroundingResult, Status};
use crate::transform::TransformError;
use crate::viewpoint::ViewAxes;

/// How sure a plane is that TF tells: the errors of a usual calibration of camera and robot.
const PLANE_FRAME_SIGMA_M: f64 = 0.005;
const PLANE_FRAME_SIGMA_RAD: f64 = 0.01;
/// A plane that was seen longer ago is not relied on.
const MAX_PLANE_AGE_NS: i64 = 60_000_000_000;

/// Frames whose z axis points up by convention (REP 105), in the order they are asked for.
const USUAL_LEVEL_FRAMES: [&str; 6] = ["base_link", "base_footprint", "map", "odom", "world", "base"];

/// Whether a frame's name is that of a camera: its z axis is where it looks, or where its own top is.
fn is_of_camera(frame: &str) -> bool {
    ["optical", "camera", "lens"].iter().any(|it| frame.contains(it))
}

/// Asks TF about frames, and remembers what things stand on.
pub struct ContextSource {
    transforms: Transforms,
    remembered_plane: Mutex<Option<RememberedPlane>>,
    /// Stamp of the last frame.
    last_ns: AtomicI64,
}

/// A support plane that depth has shown, in a frame where furniture stands still.
struct RememberedPlane {
    frame_id: String,
    plane: SupportPlane,
    stamp_ns: i64,
}

impl ContextSource {
    /// With nothing remembered yet.
    pub fn new(transforms: Transforms) -> Self {
        Self { transforms, remembered_plane: Mutex::default(), last_ns: AtomicI64::new(i64::MIN) }
    }

    /// What TF knows at the frame's stamp. Sides are not guessed: without the transform of the viewpoint an instruction that
    /// names one is refused.
    pub async fn of_frame(
        &self,
        frame: &RgbdFrame,
        request: &GroundingRequest,
        config: &Config,
    ) -> Result<FrameContext, Refusal> {
        if frame.stamp_ns < self.last_ns.swap(frame.stamp_ns, Ordering::Relaxed) {
            // Time stepped back: the surface was seen in another life.
            *self.remembered_plane.lock() = None;
        }
        let mut context = self.known_planes(frame, config).await;
        let workspace = config.pipeline.bounds.workspace.as_ref().and_then(|it| it.frame.as_ref());
        if let Some(workspace) = workspace.filter(|it| **it != frame.frame_id) {
            let found = self.look_up(workspace, &frame.frame_id, frame.stamp_ns, config).await;
            // Without it nothing is known to be in reach.
            context.workspace_from_camera =
                Some(found.map_err(|error| Refusal::Workspace {
                    frame: workspace.clone(),
                    error: Box::new(error),
                })?);
        }
        let Some(viewpoint) = config.viewpoint_frame.as_ref().filter(|it| **it != frame.frame_id) else {
            return Ok(context);
        };
        match self.look_up(&frame.frame_id, viewpoint, frame.stamp_ns, config).await {
            Ok(it) => context.view = Some(ViewAxes::of_frame(viewpoint, &it.rotation)),
            Err(error) if request.instruction.depends_on_viewpoint() => {
                return Err(Refusal::Viewpoint { viewpoint: viewpoint.clone(), error: Box::new(error) });
            }
            Err(_) => {}
        }
        Ok(context)
    }

    /// Keeps the plane that most is seen of, where it stands still.
    pub async fn remember_plane(&self, result: &GroundingResult, config: &Config) {
        let (Some(plane), Some(frame_id)) = (result.planes.first(), &config.plane_memory_frame) else {
            return;
        };
        match self.look_up(frame_id, &result.frame_id, result.stamp_ns, config).await {
            Ok(memory_from_camera) => {
                let plane = plane.seen_from(&memory_from_camera);
                let remembered =
                    RememberedPlane { frame_id: frame_id.clone(), plane, stamp_ns: result.stamp_ns };
                *self.remembered_plane.lock() = Some(remembered);
            }
            Err(error) => tracing::warn!("the support plane is not remembered: {error}"),
        }
    }

    /// Where to publish poses; makes the status `NO_TRANSFORM` when a found object cannot be told there.
    pub async fn target_frame(&self, result: &mut GroundingResult, config: &Config) -> Option<TargetFrame> {
        let is_lifted = result.candidates.iter().chain(&result.targets).any(|it| it.lifted.is_some());
        if !is_lifted {
            return None;
        }
        let camera = result.frame_id.clone();
        let Some(target) = config.target_frame.clone().filter(|it| *it != camera) else {
            return Some(TargetFrame { frame_id: camera, target_from_camera: Isometry3::identity() });
        };
        match self.look_up(&target, &camera, result.stamp_ns, config).await {
            Ok(target_from_camera) => Some(TargetFrame { frame_id: target, target_from_camera }),
            Err(error) => {
                if result.status == Status::Found {
                    result.status = Status::NoTransform;
                    for step in &mut result.steps {
                        step.status = Status::NoTransform;
                    }
                    result.message = error.to_string();
                }
                None
            }
        }
    }

    /// What TF knows of up and of the support plane at the frame's stamp.
    async fn known_planes(&self, frame: &RgbdFrame, config: &Config) -> FrameContext {
        let mut context = FrameContext::default();
        if config.plane_frame.is_none() {
            context.known_plane = self.recall_plane(frame, config).await;
        }
        if let Some(plane_from_camera) = self.known(config.plane_frame.as_ref(), frame, config).await {
            let plane = SupportPlane {
                normal: plane_from_camera.inverse() * Vector3::z_axis(),
                camera_height_m: plane_from_camera.translation.z,
                residual_m: 0.0,
                height_sigma_m: PLANE_FRAME_SIGMA_M,
                tilt_sigma: PLANE_FRAME_SIGMA_RAD,
            };
            context.known_plane = Some(plane).filter(|it| 0.0 < it.camera_height_m);
            context.up_in_camera = Some(plane.normal);
        }
        if let Some(gravity_from_camera) = self.known(config.gravity_frame.as_ref(), frame, config).await {
            context.up_in_camera = Some(gravity_from_camera.inverse() * Vector3::z_axis());
        }
        if context.up_in_camera.is_none() {
            context.up_in_camera = self.usual_up(frame, config).await;
            context.is_up_assumed = context.up_in_camera.is_some();
        }
        context
    }

    /// Up by a frame that nobody said points up, but usually does (REP 103 and 105): where poses are told, the robot's, the map's.
    async fn usual_up(&self, frame: &RgbdFrame, config: &Config) -> Option<Unit<Vector3<f64>>> {
        let up = |it: Isometry3<f64>| it.inverse() * Vector3::z_axis();
        let target = config.target_frame.as_ref().filter(|it| **it != frame.frame_id && !is_of_camera(it));
        if let Some(target) = target
            && let Ok(it) = self.look_up(target, &frame.frame_id, frame.stamp_ns, config).await
        {
            return Some(up(it));
        }
        let usual = std::iter::once(config.robot_frame.as_str()).chain(USUAL_LEVEL_FRAMES);
        for level in usual.filter(|it| !it.is_empty() && *it != frame.frame_id) {
            // Nobody asked for these: they are not waited for.
            let found =
                self.transforms.target_from_source(level, &frame.frame_id, frame.stamp_ns, Duration::ZERO);
            if let Ok(it) = found.await {
                return Some(up(it));
            }
        }
        None
    }

    /// The plane seen in the last minute, from where the camera is now; less sure than it was.
    async fn recall_plane(&self, frame: &RgbdFrame, config: &Config) -> Option<SupportPlane> {
        let memory_frame = config.plane_memory_frame.as_ref().filter(|_| frame.depth.is_none())?;
        let plane = {
            let remembered = self.remembered_plane.lock();
            let it = remembered.as_ref().filter(|it| it.frame_id == *memory_frame)?;
            (0..=MAX_PLANE_AGE_NS).contains(&(frame.stamp_ns - it.stamp_ns)).then_some(it.plane)?
        };
        let camera_from_memory = self
            .look_up(&frame.frame_id, memory_frame, frame.stamp_ns, config)
            .await
            .map_err(|error| tracing::warn!("the remembered support plane is not used: {error}"))
            .ok()?;
        let plane = plane.seen_from(&camera_from_memory);
        Some(SupportPlane {
            height_sigma_m: plane.height_sigma_m.hypot(PLANE_FRAME_SIGMA_M),
            tilt_sigma: plane.tilt_sigma.hypot(PLANE_FRAME_SIGMA_RAD),
            ..plane
        })
        .filter(|it| 0.0 < it.camera_height_m)
    }

    /// A frame of the parameters from the camera. Without it the image is looked at as if the parameter were empty, and that is
    /// logged.
    async fn known(
        &self,
        target: Option<&String>,
        frame: &RgbdFrame,
        config: &Config,
    ) -> Option<Isometry3<f64>> {
        let found = self.look_up(target?, &frame.frame_id, frame.stamp_ns, config).await;
        found.map_err(|error| tracing::warn!("{error}")).ok()
    }

    async fn look_up(
        &self,
        target: &str,
        source: &str,
        stamp_ns: i64,
        config: &Config,
    ) -> Result<Isometry3<f64>, TransformError> {
        self.transforms.target_from_source(target, source, stamp_ns, config.transform_timeout).await
    }
}
