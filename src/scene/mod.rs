//! Ray-cast RGB-D tabletop scenes with exact answers.
//!
//! A scene is a function of its seed alone: the same objects, camera pose and light at every resolution, on every
//! machine. It serves as training data, as ground truth for tests and as a simulated RGB-D camera.
//!
//! World frame (REP 103): z up, the table top at z = 0, the camera looks roughly along +y. Seeds below
//! [`FIRST_HELD_OUT_SEED`] may be trained on; seeds from there on never are.

mod color;
mod furnish;
mod layout;
mod mesh;
mod more_things;
mod random;
mod render;
mod sensor;
mod shape;
mod texture;
mod things;

use nalgebra::{Isometry3, Point3, UnitQuaternion, Vector3};

pub use self::color::Color;
pub use self::mesh::{MeshError, MeshLibrary, ReadFile};
pub use self::sensor::DepthSensor;
pub use self::things::Kind;
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
    /// Color rays per pixel along each axis (2 = four rays per pixel); 0: depth and mask only, the image stays black.
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
    /// The image has no pixels.
    #[error("expected a scene image of at least 1x1 pixels, got {width}x{height}")]
    Empty {
        /// Columns asked for.
        width: u32,
        /// Rows asked for.
        height: u32,
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
    /// What color it has (for a model: see `model`).
    pub color: Color,
    /// For [`Kind::Modeled`], the model's name in the library and the color it was painted, if it was.
    pub model: Option<(String, Option<Color>)>,
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

    /// One object of a kind on a large table, `distance_m` from a camera like those on robots (62 degrees wide, looking
    /// 25 to 70 degrees down): for measuring poses. The seed decides the rest.
    pub fn lone(seed: u64, kind: Kind, distance_m: f32, config: &SceneConfig) -> Result<Self, SceneError> {
        Self::from_layout(seed, layout::draw_lone(seed, kind, distance_m), config)
    }

    /// The furnished scene of a seed: most objects are models of `library`.
    pub fn furnished(seed: u64, library: &MeshLibrary, config: &SceneConfig) -> Result<Self, SceneError> {
        Self::from_layout(seed, furnish::draw(seed, library), config)
    }

    /// The same scene by a camera turned about its optical axis: 90 degrees for a portrait, 180 for one that hangs upside down.
    #[must_use]
    pub fn rolled(mut self, roll_rad: f64) -> Self {
        let roll = UnitQuaternion::from_axis_angle(&Vector3::z_axis(), roll_rad as f32);
        self.layout.view.world_from_camera *= roll;
        self
    }

    /// Casts the rays. The same scene gives the same bytes each time.
    pub fn render(&self) -> RenderedScene {
        let raw = render::render(&self.layout, &self.camera, self.samples, self.seed);
        let objects = self.layout.objects.iter().zip(&raw.sightings);
        let (width, height) = self.camera.size();
        RenderedScene {
            seed: self.seed,
            image: raw.image,
            depth: DepthImage::from_meters(width, height, raw.depth_m).expect("one depth per pixel"),
            camera: self.camera,
            world_from_camera: self.layout.view.world_from_camera.cast(),
            mask: raw.mask,
            objects: objects.map(|(placed, sighting)| describe(placed, sighting)).collect(),
        }
    }

    fn from_layout(seed: u64, layout: layout::Layout, config: &SceneConfig) -> Result<Self, SceneError> {
        let SceneConfig { width, height, samples, field_of_view } = *config;
        if width == 0 || height == 0 {
            return Err(SceneError::Empty { width, height });
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
        model: placed
            .blueprint
            .modeled
            .as_ref()
            .map(|it| (it.name.to_string(), it.paint.map(|(color, _)| color))),
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

#[cfg(test)]
mod tests {
    use nalgebra::Translation3;

    use super::*;

    /// How far the point that a pixel sees lies outside of an object's own box, meters.
    pub(super) fn outside_m(seen: &RenderedScene, object: &SceneObject, u: u32, v: u32) -> f64 {
        let pixel = nalgebra::Point2::new(f64::from(u), f64::from(v));
        let point = seen.camera.unproject(pixel, f64::from(seen.depth.get(u, v).unwrap())).unwrap();
        let in_object = object.world_from_object.inverse() * (seen.world_from_camera * point);
        let center = object.world_from_object.inverse() * object.center_in_world;
        ((in_object - center).abs() - object.size_m * 0.5).max()
    }
    use crate::scene::layout::Placed;
    use crate::scene::random::SceneRng;
    use crate::scene::shape::Shape;
    use crate::scene::things::{Blueprint, Part, Print};

    /// The room, lights and camera of a seed, with one ball of `radius` meters around `center` instead of its objects.
    fn scene_with_ball(center_in_camera: Point3<f64>, radius: f32, config: &SceneConfig) -> Scene {
        let mut layout = layout::draw(1);
        layout.view.tan_half_width = 0.5;
        let center = layout.view.world_from_camera * center_in_camera.cast::<f32>();
        let shape = Shape::Ellipsoid { center: Vector3::zeros(), radii: Vector3::repeat(radius) };
        let albedo = Color::Red.shade(&mut SceneRng::new(0, 0));
        let part = Part { shape, albedo, specular: 0.0, print: Print::None };
        let blueprint = Blueprint {
            parts: vec![part],
            footprint: vec![[0.0, 0.0, radius]],
            bounds: shape.bounds(),
            modeled: None,
        };
        let world_from_object =
            Isometry3::from_parts(Translation3::from(center.coords), UnitQuaternion::identity());
        layout.objects = vec![Placed { kind: Kind::Ball, color: Color::Red, world_from_object, blueprint }];
        Scene::from_layout(1, layout, config).unwrap()
    }

    #[test]
    fn a_ball_on_the_axis_has_the_box_and_depth_of_geometry() {
        let (z, radius) = (0.3, 0.05);
        let config = SceneConfig { samples: 4, ..SceneConfig::camera(201, 151) };
        let seen = scene_with_ball(Point3::new(0.0, 0.0, z), radius as f32, &config).render();
        // The middle pixel's ray is the optical axis.
        assert!((f64::from(seen.depth.get(100, 75).unwrap()) - (z - radius)).abs() < 1e-4);
        // The outline is where rays touch the ball: tan(angle) = r / sqrt(z^2 - r^2).
        let fx = seen.camera.focal_lengths().0;
        let half = fx * radius / (z * z - radius * radius).sqrt();
        let ball = &seen.objects[0];
        let bbox = ball.bbox.unwrap();
        let expected = [100.5 - half, 75.5 - half, 100.5 + half, 75.5 + half];
        for (got, want) in <[f64; 4]>::from(bbox).into_iter().zip(expected) {
            assert!((got - want).abs() < 0.3, "{bbox:?} is not {expected:?}");
        }
        assert!((ball.visible_fraction - 1.0).abs() < 1e-9);
        assert!((ball.center_in_world - seen.world_from_camera * Point3::new(0.0, 0.0, z)).norm() < 1e-5);
        assert!((ball.size_m - Vector3::repeat(2.0 * radius)).norm() < 1e-5);
        // Seen from the front, the visible surface lies between the nearest point and the center.
        let centroid = ball.surface_centroid_in_camera.unwrap();
        assert!(
            centroid.z > z - radius && centroid.z < z && centroid.coords.xy().norm() < 1e-3,
            "{centroid}"
        );
    }

    #[test]
    fn a_ball_aside_is_seen_where_the_camera_projects_it() {
        let center = Point3::new(0.05, -0.03, 0.3);
        let seen = scene_with_ball(center, 0.01, &SceneConfig::camera(320, 240)).render();
        let pixel = seen.camera.project(center).unwrap();
        let (x, y) = seen.objects[0].bbox.unwrap().center();
        // Pixel centers are integers for the camera and halves for boxes.
        assert!((x - 0.5 - pixel.x).abs() < 0.5 && (y - 0.5 - pixel.y).abs() < 0.5, "{x} {y} {pixel}");
        let (u, v) = (pixel.x.round() as u32, pixel.y.round() as u32);
        assert_eq!(seen.mask[(v * 320 + u) as usize], 1);
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes_and_another_seed_does_not() {
        let render = |seed| Scene::generate(seed, &SceneConfig::training(48)).unwrap().render();
        let (a, b, c) = (render(7), render(7), render(8));
        assert_eq!(a.image, b.image);
        assert_eq!(a.objects, b.objects);
        assert_eq!(a.mask, b.mask);
        assert_ne!(a.image, c.image);
    }

    #[test]
    fn resolution_does_not_change_the_scene() {
        for seed in FIRST_HELD_OUT_SEED..FIRST_HELD_OUT_SEED + 10 {
            let render = |size| Scene::generate(seed, &SceneConfig::training(size)).unwrap().render();
            let (small, large) = (render(96), render(288));
            assert_eq!(small.objects.len(), large.objects.len());
            for (a, b) in small.objects.iter().zip(&large.objects) {
                assert_eq!((a.kind, a.color), (b.kind, b.color));
                assert_eq!(a.center_in_world, b.center_in_world);
                let (Some(a_box), Some(b_box)) = (a.bbox, b.bbox) else { continue };
                for (p, q) in <[f64; 4]>::from(a_box).into_iter().zip(<[f64; 4]>::from(b_box)) {
                    assert!((3.0 * p - q).abs() < 4.0, "seed {seed} {}: {a_box:?} {b_box:?}", a.phrase());
                }
            }
        }
    }

    #[test]
    fn boxes_hold_the_mask_and_depth_lies_on_the_object() {
        for seed in FIRST_HELD_OUT_SEED..FIRST_HELD_OUT_SEED + 10 {
            let seen = Scene::generate(seed, &SceneConfig::camera(160, 120)).unwrap().render();
            for (index, object) in seen.objects.iter().enumerate() {
                let pixels: Vec<(u32, u32)> = (0..160 * 120)
                    .filter(|&i| usize::from(seen.mask[i as usize]) == index + 1)
                    .map(|i| (i % 160, i / 160))
                    .collect();
                assert_eq!(pixels.len(), object.visible_pixels as usize);
                assert!((0.0..=1.0).contains(&object.visible_fraction));
                let Some(bbox) = object.bbox else {
                    assert!(pixels.len() <= 1, "seed {seed}: a seen object without a box");
                    continue;
                };
                for &(u, v) in &pixels {
                    let (x, y) = (f64::from(u) + 0.5, f64::from(v) + 0.5);
                    assert!(x > bbox.x0 - 0.5 && x < bbox.x1 + 0.5 && y > bbox.y0 - 0.5 && y < bbox.y1 + 0.5);
                    let outside = outside_m(&seen, object, u, v);
                    assert!(outside < 1e-4, "seed {seed} {}: {outside} m outside", object.phrase());
                }
            }
        }
    }

    #[test]
    fn objects_stand_apart_on_the_table() {
        for seed in 0..50 {
            let layout = layout::draw(seed);
            assert!(layout.objects.len() >= 2);
            let outlines: Vec<Vec<(Point3<f32>, f32)>> = layout
                .objects
                .iter()
                .map(|it| {
                    let circles = it.blueprint.footprint.iter();
                    circles.map(|&[x, y, r]| (it.world_from_object * Point3::new(x, y, 0.0), r)).collect()
                })
                .collect();
            for (i, it) in layout.objects.iter().enumerate() {
                // A marker's cap is thicker than its barrel and dips below the table by its 1 to 2 mm.
                let bottom = it.blueprint.bounds.0.z;
                assert!(bottom.abs() < 2.5e-3, "seed {seed}: {:?} starts at {bottom} m", it.kind);
                for (a, ra) in &outlines[i] {
                    for (b, rb) in outlines[..i].iter().flatten() {
                        assert!((a - b).norm() > ra + rb, "seed {seed}: {:?} overlaps another", it.kind);
                    }
                }
            }
        }
    }

    #[test]
    fn an_empty_image_is_refused() {
        let error = Scene::generate(0, &SceneConfig::camera(0, 10)).unwrap_err();
        assert!(error.to_string().contains("got 0x10"), "{error}");
    }
}
