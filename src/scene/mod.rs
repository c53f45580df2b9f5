//! Ray-cast RGB-D tabletop scenes with exact answers.
//!
//! A scene is a function of its seed alone: the same objects, camera pose and light at every resolution, on every
//! machine. It serves as training data, as ground truth for tests and as a simulated RGB-D camera.
//!
//! World frame (REP 103): z up, the table top at z = 0, the camera looks roughly along +y. Seeds below
//! [`FIRST_HELD_OUT_SEED`] may be trained on; seeds from there on never are.

mod layout;
mod random;
mod render;
mod shape;
mod texture;
mod things;

use nalgebra::{Isometry3, Point3, Vector3};

pub use self::things::{Color, Kind};
use crate::camera::{CameraError, PinholeCamera};
use crate::detection::BoundingBox2d;
use crate::image::{DepthImage, RgbImage, RgbdFrame};

/// The lowest seed that no shipped model has been trained on.
pub const FIRST_HELD_OUT_SEED: u64 = 900_000_000;

/// How to look at a scene.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SceneConfig {
    /// Image columns.
    pub width: u32,
    /// Image rows.
    pub height: u32,
    /// Color rays per pixel along each axis (2 = four rays per pixel).
    pub samples: u32,
    /// Whose shape the field of view takes; the horizontal field of view is the scene's own either way.
    pub field_of_view: FieldOfView,
}

/// The vertical field of view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldOfView {
    /// Square pixels (fx = fy), as a real camera.
    SquarePixels,
    /// The scene's own aspect (1, 4:3 or 16:9) squeezed into the image, as a model's preprocessing would:
    /// pixels may be oblong.
    Squeezed,
}

impl SceneConfig {
    /// A camera with square pixels and four rays per pixel.
    pub fn camera(width: u32, height: u32) -> Self {
        Self { width, height, samples: 2, field_of_view: FieldOfView::SquarePixels }
    }

    /// A square training image: the scene's own view squeezed to `size` x `size`.
    pub fn training(size: u32) -> Self {
        Self { width: size, height: size, samples: 2, field_of_view: FieldOfView::Squeezed }
    }
}

/// Why a scene could not be made.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum SceneError {
    /// The image has no pixels, or no rays.
    #[error(
        "expected a scene image of at least 1x1 pixels and 1 sample, got {width}x{height} with {samples}"
    )]
    Empty {
        /// Columns asked for.
        width: u32,
        /// Rows asked for.
        height: u32,
        /// Samples asked for.
        samples: u32,
    },
    /// The image size gives no valid camera.
    #[error("the scene camera is not valid: {0}")]
    Camera(#[from] CameraError),
}

/// A tabletop scene and a camera that looks at it.
#[derive(Debug, Clone)]
pub struct Scene {
    seed: u64,
    samples: u32,
    camera: PinholeCamera,
    layout: layout::Layout,
}

/// An object of a rendered scene with everything known about it.
#[derive(Debug, Clone, PartialEq)]
pub struct SceneObject {
    /// What it is.
    pub kind: Kind,
    /// What color it has.
    pub color: Color,
    /// Its pose: it stands on z = 0 of its own frame (meters).
    pub world_from_object: Isometry3<f64>,
    /// Center of the box around its whole body, world frame, meters.
    pub center_in_world: Point3<f64>,
    /// Extents of that box along the object's own axes (z up), meters.
    pub size_m: Vector3<f64>,
    /// Box around its visible part, sub-pixel; `None` when nothing of it is seen.
    pub bbox: Option<BoundingBox2d>,
    /// Seen share of what the image would show of it if it were alone, in [0, 1].
    pub visible_fraction: f64,
    /// Pixels whose center shows it.
    pub visible_pixels: u32,
    /// Mean of its visible surface points (one per pixel), optical frame, meters.
    pub surface_centroid_in_camera: Option<Point3<f64>>,
}

impl SceneObject {
    /// Color and kind, as in "red cup".
    pub fn phrase(&self) -> String {
        format!("{} {}", self.color.name(), self.kind.name())
    }
}

/// A scene as the camera saw it.
#[derive(Debug, Clone)]
pub struct RenderedScene {
    /// The scene's seed.
    pub seed: u64,
    /// Color.
    pub image: RgbImage,
    /// Meters along z, through the pixel centers.
    pub depth: DepthImage,
    /// Exact intrinsics.
    pub camera: PinholeCamera,
    /// Camera pose: the optical frame (x right, y down, z forward) in the world.
    pub world_from_camera: Isometry3<f64>,
    /// Row-major, one value per pixel: 0 for the room, else the object's index + 1.
    pub mask: Vec<u8>,
    /// Every object, seen or not; indices match `mask`.
    pub objects: Vec<SceneObject>,
}

impl RenderedScene {
    /// The scene as a camera frame, keyed by its seed.
    pub fn frame(&self, frame_id: &str, stamp_ns: i64) -> RgbdFrame {
        RgbdFrame {
            key: self.seed,
            image: self.image.clone(),
            depth: Some(self.depth.clone()),
            camera: Some(self.camera),
            frame_id: frame_id.to_owned(),
            stamp_ns,
        }
    }

    /// Objects of a kind and a color (`None` = any) of which at least a third is seen.
    pub fn find(&self, kind: Option<Kind>, color: Option<Color>) -> Vec<&SceneObject> {
        self.objects
            .iter()
            .filter(|it| {
                kind.is_none_or(|kind| it.kind == kind) && color.is_none_or(|color| it.color == color)
            })
            .filter(|it| it.bbox.is_some() && it.visible_fraction >= 1.0 / 3.0)
            .collect()
    }
}

impl Scene {
    /// The scene of a seed, to be seen as `config` says.
    pub fn generate(seed: u64, config: &SceneConfig) -> Result<Self, SceneError> {
        Self::from_layout(seed, layout::draw(seed), config)
    }

    /// Casts the rays. The same scene gives the same bytes each time.
    pub fn render(&self) -> RenderedScene {
        let raw = render::render(&self.layout, &self.camera, self.samples, self.seed);
        let objects = self.layout.objects.iter().zip(&raw.sightings);
        let (width, height) = self.camera.size();
        RenderedScene {
            seed: self.seed,
            image: raw.image,
            depth: DepthImage::from_metres(width, height, raw.depth_m).expect("one depth per pixel"),
            camera: self.camera,
            world_from_camera: self.layout.view.world_from_camera.cast(),
            mask: raw.mask,
            objects: objects.map(|(placed, sighting)| describe(placed, sighting)).collect(),
        }
    }

    fn from_layout(seed: u64, layout: layout::Layout, config: &SceneConfig) -> Result<Self, SceneError> {
        let SceneConfig { width, height, samples, field_of_view } = *config;
        if width == 0 || height == 0 || samples == 0 {
            return Err(SceneError::Empty { width, height, samples });
        }
        let (columns, rows) = (f64::from(width), f64::from(height));
        let fx = 0.5 * columns / f64::from(layout.view.tan_half_width);
        let fy = match field_of_view {
            FieldOfView::SquarePixels => fx,
            FieldOfView::Squeezed => fx * f64::from(layout.view.aspect) * rows / columns,
        };
        let (cx, cy) = (0.5 * columns - 0.5, 0.5 * rows - 0.5);
        let camera = PinholeCamera::from_k(width, height, &[fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0])?;
        Ok(Self { seed, samples, camera, layout })
    }
}

fn describe(placed: &layout::Placed, sighting: &render::Sighting) -> SceneObject {
    let (low, high) = placed.blueprint.bounds;
    let world_from_object: Isometry3<f64> = placed.world_from_object.cast();
    let points = f64::from(sighting.surface_points);
    SceneObject {
        kind: placed.kind,
        color: placed.color,
        world_from_object,
        center_in_world: world_from_object * Point3::from(((low + high) * 0.5).cast::<f64>()),
        size_m: (high - low).cast(),
        bbox: sighting.bbox,
        visible_fraction: f64::from(sighting.visible) / f64::from(sighting.alone.max(1)),
        visible_pixels: sighting.surface_points,
        surface_centroid_in_camera: (sighting.surface_points > 0)
            .then(|| Point3::from(sighting.surface_sum / points)),
    }
}
