//! A box and registered depth to a mask, a pose, a size and a covariance in the camera's optical frame.

mod below;
mod body;
mod context;
mod gate;
mod grasp;
mod on_plane;
mod opening;
mod place;
mod plane;
mod segment;
mod surface;

use nalgebra::{Isometry3, Matrix6, Point2, Point3, Translation3, Unit, Vector2, Vector3};

pub use self::context::FrameContext;
pub use self::gate::PoseFault;
pub use self::grasp::{ApproachAxis, Grasp, Gripper, why_no_grasp};
pub use self::on_plane::lift_on_plane;
pub use self::place::{Place, PlaceRelation, PlaceRequest};
pub use self::plane::SupportPlane;

use self::below::Below;
use self::body::{Body, Surroundings};
use self::plane::{Supports, UpHint};
use self::segment::{Tolerances, Window};
use crate::camera::PinholeCamera;
use crate::detection::BoundingBox2d;
use crate::image::{DepthImage, RgbdFrame};
use crate::viewpoint::ViewAxes;

/// A direction that is less likely to be up is not reckoned with.
const MIN_RIVAL: f64 = 0.1;
/// A good detector's box is off by so many pixels; the answers of boxes larger and smaller by as much are reckoned with so far.
const BOX_MARGIN_PX: f64 = 2.0;
const BOX_WEIGHT: f64 = 0.35;
/// Windows of more pixels are thinned out: about the size of a 150x200 box with its margins.
const MAX_WINDOW_POINTS: f64 = 30_000.0;

/// How boxes become poses.
#[derive(Debug, Clone, PartialEq)]
pub struct LiftOptions {
    /// Depth under this is missing, meters.
    pub min_depth_m: f64,
    /// Depth over this is missing, meters.
    pub max_depth_m: f64,
    /// Fewer points on an object give no pose.
    pub min_points: usize,
    /// Standard deviation of depth at 1 m, meters; grows with the square of the distance.
    pub depth_noise_m: f64,
}

impl Default for LiftOptions {
    fn default() -> Self {
        Self { min_depth_m: 0.05, max_depth_m: 10.0, min_points: 20, depth_noise_m: 0.0015 }
    }
}

/// What a pose rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoseSource {
    /// Depth pixels on the object.
    Depth,
    /// Only where the box meets a known support plane: no depth on the object.
    SupportPlane,
}

/// An object in space. Everything is in the camera's optical frame (x right, y down, z forward), meters and radians.
#[derive(Debug, Clone, PartialEq)]
pub struct LiftedObject {
    /// Pose of the object: at `body_center`, z up (away from its support), x along the longer side of its footprint.
    pub object_in_camera: Isometry3<f64>,
    /// Mean of the surface points the camera sees.
    pub surface_centroid: Point3<f64>,
    /// Middle of the oriented box around the whole body, its unseen back estimated.
    pub body_center: Point3<f64>,
    /// Extents of that box along the axes of `object_in_camera`.
    pub size_m: Vector3<f64>,
    /// Of `object_in_camera` over (x, y, z, rotation about x, y, z), axes of the optical frame, m^2 and rad^2.
    pub covariance: Matrix6<f64>,
    /// What the pose rests on.
    pub source: PoseSource,
    /// What its upright axis was told by; where that is unknown, the covariance allows for any.
    pub up_source: UpSource,
    /// How far the inside lies below the rim, meters; 0 for what is not hollow, as far as can be seen.
    pub hollow_depth_m: f64,
    /// How far the lowest point that is seen lies above the bottom of the box, meters: its foot may be hidden.
    pub unseen_below_m: f64,
    /// The top is seen to be closed, as of a box or a cabinet; false where it is open or hidden.
    pub is_top_closed: bool,
    /// Depth pixels the pose rests on.
    pub n_points: usize,
    /// Share of the pixels of the object's silhouette that have valid depth, in [0, 1].
    pub valid_depth_ratio: f64,
    /// The unseen back was completed: the body is taken for round about a vertical axis, as its near side is. Otherwise the
    /// farthest that is seen is taken for its back.
    pub is_back_completed: bool,
    /// Root mean square distance of the support plane's points from it, meters; `None` where no plane was found.
    pub plane_residual_m: Option<f64>,
    /// The box touches the image's border: part of the object may be out of view.
    pub is_truncated: bool,
    /// Which pixels of the image are the object.
    pub mask: ObjectMask,
}

/// A set of pixels within a rectangle of the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectMask {
    /// Left column of the rectangle.
    pub x0: u32,
    /// Top row.
    pub y0: u32,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Row-major, `width * height`: whether the pixel is on the object.
    pub is_object: Vec<bool>,
}

impl ObjectMask {
    /// Whether the pixel of the image at column `u`, row `v` is on the object.
    pub fn contains(&self, u: u32, v: u32) -> bool {
        let (Some(x), Some(y)) = (u.checked_sub(self.x0), v.checked_sub(self.y0)) else {
            return false;
        };
        x < self.width && y < self.height && self.is_object[(y * self.width + x) as usize]
    }

    /// How many pixels are on the object.
    pub fn count(&self) -> usize {
        self.is_object.iter().filter(|it| **it).count()
    }

    /// How many pixels are on both objects.
    pub fn count_shared(&self, other: &Self) -> usize {
        let (x0, y0) = (self.x0.max(other.x0), self.y0.max(other.y0));
        let x1 = (self.x0 + self.width).min(other.x0 + other.width);
        let y1 = (self.y0 + self.height).min(other.y0 + other.height);
        let is_shared = |u: u32, v: u32| self.contains(u, v) && other.contains(u, v);
        (y0..y1).map(|v| (x0..x1).filter(|&u| is_shared(u, v)).count()).sum()
    }

    /// As a mono8 image of the given size, row-major, 255 = object.
    pub fn to_mono8(&self, width: u32, height: u32) -> Vec<u8> {
        let mut pixels = vec![0; width as usize * height as usize];
        for y in 0..self.height {
            for x in 0..self.width {
                let (u, v) = (self.x0 + x, self.y0 + y);
                if u < width && v < height && self.is_object[(y * self.width + x) as usize] {
                    pixels[(v * width + u) as usize] = 255;
                }
            }
        }
        pixels
    }
}

/// Why a box could not be lifted. Each is a sentence for the result's message.
#[derive(Debug, Clone, thiserror::Error, PartialEq)]
#[expect(missing_docs, reason = "the fields are the words of the message")]
pub enum LiftError {
    #[error("depth is not in use")]
    NotInUse,
    #[error(
        "there is no depth image for this frame: is the depth topic publishing, with stamps of the color image?"
    )]
    NoDepthImage,
    #[error("the camera's intrinsics are unknown: is camera_info publishing?")]
    NoCamera,
    #[error(
        "depth is {depth_width}x{depth_height} but the image is {image_width}x{image_height}: publish depth registered to the color image"
    )]
    DepthSize { depth_width: u32, depth_height: u32, image_width: u32, image_height: u32 },
    #[error(
        "camera_info is for {camera_width}x{camera_height} but the image is {image_width}x{image_height}: they must be of the same camera and mode"
    )]
    CameraSize { camera_width: u32, camera_height: u32, image_width: u32, image_height: u32 },
    #[error(
        "only {n_points} of {n_pixels} pixels on {phrase:?} have depth between {min_depth_m} m and {max_depth_m} m, and {min_points} are needed"
    )]
    TooFewPoints {
        phrase: String,
        n_points: usize,
        n_pixels: usize,
        min_points: usize,
        min_depth_m: f64,
        max_depth_m: f64,
    },
}

/// The geometry of one frame: its depth, its camera and the planes things stand on. Made once, shared by all objects.
#[derive(Debug, Clone)]
pub struct FrameGeometry<'a> {
    depth: &'a DepthImage,
    camera: PinholeCamera,
    options: &'a LiftOptions,
    context: FrameContext,
    supports: Supports,
    /// TF takes the image's frame for one with x forward.
    is_forward_x: bool,
    /// Pixels of the surface that up is told by, thinned out.
    up_pixels: Vec<Point2<f64>>,
}

/// What up is told by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpSource {
    /// Gravity, from TF.
    Gravity,
    /// The surface that things seem to stand on.
    Plane,
    /// Nothing: it is taken for the image's own up, and every direction is as likely.
    Unknown,
}

impl UpSource {
    /// In lower case: "gravity", "plane" or "unknown".
    pub fn name(self) -> &'static str {
        match self {
            Self::Gravity => "gravity",
            Self::Plane => "plane",
            Self::Unknown => "unknown",
        }
    }
}

/// A direction that a body may stand in, and how likely it is.
type UpHypothesis = (Unit<Vector3<f64>>, f64);

impl<'a> FrameGeometry<'a> {
    /// [`Self::in_context`] of nothing but the pixels.
    pub fn new(frame: &'a RgbdFrame, options: &'a LiftOptions) -> Result<Self, LiftError> {
        Self::in_context(frame, options, &FrameContext::default())
    }

    /// Finds the support planes. Fails when the frame has no depth or camera, or they do not belong to the image.
    pub fn in_context(
        frame: &'a RgbdFrame,
        options: &'a LiftOptions,
        context: &FrameContext,
    ) -> Result<Self, LiftError> {
        let depth = frame.depth.as_ref().ok_or(LiftError::NoDepthImage)?;
        let camera = frame.camera.ok_or(LiftError::NoCamera)?;
        let (image_width, image_height) = frame.image.dimensions();
        if (depth.width(), depth.height()) != (image_width, image_height) {
            let (depth_width, depth_height) = (depth.width(), depth.height());
            return Err(LiftError::DepthSize { depth_width, depth_height, image_width, image_height });
        }
        if camera.size() != (image_width, image_height) {
            let (camera_width, camera_height) = camera.size();
            return Err(LiftError::CameraSize { camera_width, camera_height, image_width, image_height });
        }
        Ok(Self::without_planes(depth, camera, options, *context).with_planes(&[]))
    }

    /// Of the next frame of a stream: planes of the frame before (`known`, optical frame of this one) are taken up where they still
    /// hold, which is much cheaper than to search. `depth` and `camera` must be of one size.
    pub fn after(
        depth: &'a DepthImage,
        camera: PinholeCamera,
        options: &'a LiftOptions,
        known: &[SupportPlane],
    ) -> Self {
        Self::after_with_up(depth, camera, options, known, None)
    }

    /// [`Self::after`] where up is known too (optical frame of this frame): it stays so while no plane is in view.
    pub fn after_with_up(
        depth: &'a DepthImage,
        camera: PinholeCamera,
        options: &'a LiftOptions,
        known: &[SupportPlane],
        up: Option<Unit<Vector3<f64>>>,
    ) -> Self {
        let context = FrameContext { up_in_camera: up, ..FrameContext::default() };
        Self::without_planes(depth, camera, options, context).with_planes(known)
    }

    fn without_planes(
        depth: &'a DepthImage,
        camera: PinholeCamera,
        options: &'a LiftOptions,
        context: FrameContext,
    ) -> Self {
        Self {
            depth,
            camera,
            options,
            context,
            supports: Supports::default(),
            is_forward_x: false,
            up_pixels: Vec::new(),
        }
    }

    fn with_planes(mut self, known: &[SupportPlane]) -> Self {
        let (width, height) = self.camera.size();
        // About 4000 points on a grid are plenty for planes.
        let stride = (f64::from(width) * f64::from(height) / 4000.0).sqrt().ceil().max(1.0) as usize;
        let mut points = Vec::new();
        for v in (stride / 2..height as usize).step_by(stride) {
            for u in (stride / 2..width as usize).step_by(stride) {
                points.extend(self.point(u as u32, v as u32));
            }
        }
        let noise = self.options.depth_noise_m;
        let tolerance_m = |z: f64| 0.003 + 2.5 * noise * z * z;
        let hint = match self.context.up_in_camera {
            Some(up) if self.context.is_up_assumed => UpHint::Assumed(up),
            Some(up) => UpHint::Certain(up),
            None => UpHint::None,
        };
        self.supports = plane::support_planes(&points, hint, tolerance_m, known);
        self.is_forward_x = plane::is_forward_x(&points, hint, tolerance_m, &self.supports);
        if let Some(plane) = self.supports.planes.first() {
            let thin = points.iter().step_by(4);
            let on_plane = thin.filter(|it| plane.height_m(it).abs() <= tolerance_m(it.z));
            self.up_pixels = on_plane.filter_map(|it| self.camera.project(*it)).collect();
        }
        self
    }

    /// Whose pixels these are.
    pub fn camera(&self) -> &PinholeCamera {
        &self.camera
    }

    /// The horizontal planes in view, most points first.
    pub fn planes(&self) -> &[SupportPlane] {
        &self.supports.planes
    }

    /// Up in the optical frame: the normal of the surface in view that lies across gravity, where gravity is known, or that things
    /// stand on; else gravity; else the image's up, which says nothing ([`Self::up_source`]).
    pub fn up(&self) -> Unit<Vector3<f64>> {
        let plane_up = self.planes().first().map(|it| it.normal);
        plane_up.or(self.gravity_up()).unwrap_or(-Vector3::y_axis())
    }

    /// What up is told by.
    pub fn up_source(&self) -> UpSource {
        match (self.gravity_up(), self.planes()) {
            (Some(_), _) => UpSource::Gravity,
            (None, [_, ..]) => UpSource::Plane,
            (None, []) => UpSource::Unknown,
        }
    }

    /// The z axis of the frame that was taken for up contradicts the surfaces in view.
    pub fn is_assumed_up_refused(&self) -> bool {
        self.supports.is_hint_refused
    }

    /// What TF says of up and the surfaces in view contradict each other as they do where the image's frame has x forward and z up,
    /// and is no optical one: what TF makes of poses in it is turned by 90 degrees.
    pub fn is_frame_forward_x(&self) -> bool {
        self.is_forward_x
    }

    /// Another direction that may be up, and its probability, where surfaces of two directions compete.
    pub fn rival_up(&self) -> Option<(Unit<Vector3<f64>>, f64)> {
        self.supports.rival.filter(|it| MIN_RIVAL <= it.1)
    }

    fn gravity_up(&self) -> Option<Unit<Vector3<f64>>> {
        self.context.up_in_camera.filter(|_| !self.supports.is_hint_refused)
    }

    /// What may be up for what is in a box, the likeliest first. A surface that is seen in the box alone is one of the thing itself.
    fn up_hypotheses(&self, bbox: &BoundingBox2d) -> (UpSource, Vec<UpHypothesis>) {
        let source = self.up_source();
        let is_beside = |it: &&Point2<f64>| {
            let (x, y) = (it.x + 0.5, it.y + 0.5);
            x < bbox.x0 - 2.0 || bbox.x1 + 2.0 < x || y < bbox.y0 - 2.0 || bbox.y1 + 2.0 < y
        };
        let is_own = self.up_pixels.iter().filter(is_beside).count() < 8;
        match self.gravity_up() {
            Some(up) if is_own => return (source, vec![(up, 1.0)]),
            None if is_own => {
                let guesses = [
                    (self.up(), 0.4),
                    (-Vector3::y_axis(), 0.2),
                    (-Vector3::z_axis(), 0.2),
                    (Vector3::x_axis(), 0.2),
                ];
                return (UpSource::Unknown, guesses.to_vec());
            }
            _ => {}
        }
        let mut all = vec![(self.up(), 1.0)];
        if let Some((rival, probability)) = self.rival_up() {
            all = vec![(self.up(), 1.0 - probability), (rival, probability)];
        }
        (source, all)
    }

    /// The viewer's right, forward and up: those given, else the camera's, leveled. For a camera that looks straight down, forward is up in the image.
    pub fn view(&self) -> ViewAxes {
        self.context.view.unwrap_or_else(|| ViewAxes::leveled(self.up()))
    }

    /// The object in `bbox` (pixels, edges). `phrase` is for messages only.
    ///
    /// ```
    /// use language_grounding::camera::PinholeCamera;
    /// use language_grounding::detection::BoundingBox2d;
    /// use language_grounding::image::{DepthImage, RgbImage, RgbdFrame};
    /// use language_grounding::lift::{FrameGeometry, LiftOptions};
    ///
    /// // A camera that looks straight down at a table 1 m away, with a box of 0.2 m x 0.2 m x 0.05 m on it.
    /// let (width, height, focal) = (320_u32, 240_u32, 200.0);
    /// let bbox = BoundingBox2d { x0: 138.0, y0: 98.0, x1: 182.0, y1: 142.0 };
    /// let is_box = |u: u32, v: u32| (138..182).contains(&u) && (98..142).contains(&v);
    /// let depth_m = (0..width * height).map(|it| if is_box(it % width, it / width) { 0.95 } else { 1.0 });
    /// let frame = RgbdFrame {
    ///     key: 1,
    ///     image: RgbImage::new(width, height),
    ///     depth: Some(DepthImage::from_meters(width, height, depth_m.collect())?),
    ///     camera: Some(PinholeCamera::from_k(width, height, &[focal, 0.0, 159.5, 0.0, focal, 119.5, 0.0, 0.0, 1.0])?),
    ///     frame_id: "camera_optical_frame".to_owned(),
    ///     stamp_ns: 0,
    /// };
    /// let options = LiftOptions::default();
    /// let geometry = FrameGeometry::new(&frame, &options)?;
    /// let lifted = geometry.lift("box", &bbox)?;
    /// // Its middle lies half its height under the top that is seen.
    /// assert!((lifted.body_center.z - 0.975).abs() < 0.005, "{}", lifted.body_center);
    /// assert!((lifted.size_m.z - 0.05).abs() < 0.005, "{}", lifted.size_m);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn lift(&self, phrase: &str, bbox: &BoundingBox2d) -> Result<LiftedObject, LiftError> {
        self.lift_without(phrase, bbox, &[])
    }

    /// [`Self::lift`] of what is seen of a thing beside `others` on, in or before it, each with its box: their pixels are not its own, nor
    /// is what their boxes show above their feet.
    pub fn lift_without(
        &self,
        phrase: &str,
        bbox: &BoundingBox2d,
        others: &[(&LiftedObject, BoundingBox2d)],
    ) -> Result<LiftedObject, LiftError> {
        let (width, height) = self.camera.size();
        let bbox = bbox.clipped(width, height);
        let segmented = self.segmented(&bbox, others);
        let points = segmented.points();
        let Segmented { window, plane, pixels } = segmented;
        let n_points = window.n_pixels(points.len());
        if n_points < self.options.min_points.max(1) {
            // Glass, or too near: the plane it stands on tells where it is.
            let support = plane.as_ref().or(self.context.known_plane.as_ref());
            if let Some(lifted) =
                support.filter(|_| 0.0 < bbox.area()).and_then(|it| lift_on_plane(&self.camera, &bbox, it))
            {
                return Ok(lifted);
            }
            return Err(LiftError::TooFewPoints {
                phrase: phrase.to_owned(),
                n_points,
                n_pixels: bbox.area() as usize,
                min_points: self.options.min_points,
                min_depth_m: self.options.min_depth_m,
                max_depth_m: self.options.max_depth_m,
            });
        }
        let surface_centroid =
            Point3::from(points.iter().map(|it| it.coords).sum::<Vector3<f64>>() / points.len() as f64);
        let (up_source, ups) = self.up_hypotheses(&bbox);
        let surroundings = |up: Unit<Vector3<f64>>| {
            let plane = plane.filter(|it| 0.9 < it.normal.dot(&up));
            let down = self.down_in_image(&surface_centroid, &up);
            Surroundings {
                up,
                is_up_known: up_source != UpSource::Unknown,
                support_m: plane.map(|it| -it.camera_height_m),
                below: plane.map_or(Below::default(), |it| self.below(&window, &pixels, &it, down)),
                depth_noise_m: self.noise_m(surface_centroid.z),
                pixel_m: surface_centroid.z / self.focal(),
            }
        };
        let mut bodies: Vec<(Body, f64)> = ups
            .iter()
            .map(|(up, weight)| (body::estimate(&points, n_points, &surroundings(*up)), *weight))
            .collect();
        bodies.extend(self.bodies_of_other_boxes(&bbox, others, points.len(), &surroundings(ups[0].0)));
        let covariance = body::containing(&bodies);
        let body = bodies.swap_remove(0).0;
        let (mask, valid_depth_ratio) = self.mask_of(&window, &pixels);
        let mut lifted = LiftedObject {
            body_center: Point3::from(body.object_in_camera.translation.vector),
            object_in_camera: body.object_in_camera,
            surface_centroid,
            size_m: body.size_m,
            covariance,
            source: PoseSource::Depth,
            up_source,
            hollow_depth_m: body.hollow_depth_m,
            unseen_below_m: body.unseen_below_m,
            is_top_closed: body.is_top_closed,
            n_points: mask.count(),
            valid_depth_ratio,
            is_back_completed: body.is_back_completed,
            plane_residual_m: plane.map(|it| it.residual_m),
            is_truncated: is_truncated(&bbox, width, height),
            mask,
        };
        // Of a deep vessel seen at a slant the middle is hidden: its rim tells.
        if lifted.hollow_depth_m == 0.0 {
            lifted.hollow_depth_m = self.opening_depth(&lifted).unwrap_or(0.0);
        }
        Ok(lifted)
    }

    /// The bodies that slightly other boxes around the same thing would give, each with its weight beside the main one's. Which pixels are
    /// the object is decided anew, and may be decided otherwise, as by a detector that is off by a pixel.
    fn bodies_of_other_boxes(
        &self,
        bbox: &BoundingBox2d,
        others: &[(&LiftedObject, BoundingBox2d)],
        n_main: usize,
        surroundings: &Surroundings,
    ) -> Vec<(Body, f64)> {
        let (width, height) = self.camera.size();
        let at_margin = |margin: f64| {
            let it = BoundingBox2d {
                x0: bbox.x0 - margin,
                y0: bbox.y0 - margin,
                x1: bbox.x1 + margin,
                y1: bbox.y1 + margin,
            };
            let moved = it.clipped(width, height);
            if moved.width() < 4.0 || moved.height() < 4.0 {
                return None;
            }
            let segmented = self.segmented(&moved, others);
            let points = segmented.points();
            let is_same = points.len().abs_diff(n_main) * 50 <= n_main;
            let n_points = segmented.window.n_pixels(points.len());
            let is_enough = self.options.min_points.max(1) <= n_points;
            (is_enough && !is_same).then(|| (body::estimate(&points, n_points, surroundings), BOX_WEIGHT))
        };
        [-BOX_MARGIN_PX, BOX_MARGIN_PX].into_iter().filter_map(at_margin).collect()
    }

    /// The box around the pixels of the object in `bbox`, which may be too large for it; `None` where there is none with depth.
    pub fn outline(&self, bbox: &BoundingBox2d) -> Option<BoundingBox2d> {
        let (width, height) = self.camera.size();
        let Segmented { window, pixels, .. } = self.segmented(&bbox.clipped(width, height), &[]);
        let side = f64::from(window.stride);
        pixels.iter().map(|it| window.corner(*it)).fold(None, |all: Option<BoundingBox2d>, (u, v)| {
            let (u, v) = (f64::from(u), f64::from(v));
            let it = all.unwrap_or(BoundingBox2d { x0: u, y0: v, x1: u, y1: v });
            Some(BoundingBox2d {
                x0: it.x0.min(u),
                y0: it.y0.min(v),
                x1: it.x1.max(u + side),
                y1: it.y1.max(v + side),
            })
        })
    }

    fn segmented(&self, bbox: &BoundingBox2d, others: &[(&LiftedObject, BoundingBox2d)]) -> Segmented {
        let mut window = self.window(bbox);
        let plane = self.plane_under(&window, bbox);
        let up = self.up();
        for (other, its_box) in others {
            let foot_m = up.dot(&other.body_center.coords) - 0.5 * other.size_m.z + other.unseen_below_m;
            let is_within = |u: u32, v: u32| {
                let (x, y) = (f64::from(u) + 0.5, f64::from(v) + 0.5);
                its_box.x0 <= x && x <= its_box.x1 && its_box.y0 <= y && y <= its_box.y1
            };
            for idx in 0..window.points.len() {
                let Some(point) = window.points[idx] else { continue };
                let (u, v) = window.pixel(idx);
                let is_above = || foot_m + 0.01 < up.dot(&point.coords);
                if other.mask.contains(u, v) || is_within(u, v) && is_above() {
                    window.points[idx] = None;
                }
            }
        }
        let tolerances = Tolerances {
            step_m: &|z| self.step_m(&window, z),
            height_m: &|z| self.height_tolerance_m(z),
            side: Unit::try_new(up.cross(&Vector3::z()), 0.1).unwrap_or(Vector3::x_axis()),
        };
        let pixels = segment::object_pixels(&window, bbox, plane.as_ref(), &tolerances);
        Segmented { window, plane, pixels }
    }

    /// Where in the image a point moves that falls, as a direction of length 1.
    fn down_in_image(&self, from: &Point3<f64>, up: &Unit<Vector3<f64>>) -> Vector2<f64> {
        let lower = from - up.scale(0.02);
        let moved = self.camera.project(*from).zip(self.camera.project(lower)).map(|(a, b)| b - a);
        moved.and_then(|it| it.try_normalize(0.1)).unwrap_or(Vector2::y())
    }

    /// How far from a plane a point at a depth still counts as on it, meters.
    fn height_tolerance_m(&self, z: f64) -> f64 {
        0.003 + 1.5 * self.noise_m(z)
    }

    /// How far apart in depth neighboring points of one surface may be, meters.
    fn step_m(&self, window: &Window, z: f64) -> f64 {
        0.006 + 4.0 * f64::from(window.stride) * z / self.focal() + 3.0 * self.noise_m(z)
    }

    fn focal(&self) -> f64 {
        let (fx, fy) = self.camera.focal_lengths();
        fx.min(fy)
    }

    /// Stereo and structured light: the error of a disparity, so it grows with the square of the distance.
    pub(crate) fn noise_m(&self, z: f64) -> f64 {
        self.options.depth_noise_m * z * z
    }

    pub(crate) fn point(&self, u: u32, v: u32) -> Option<Point3<f64>> {
        let z = f64::from(self.depth.get(u, v)?);
        let is_in_range = self.options.min_depth_m <= z && z <= self.options.max_depth_m;
        if !is_in_range {
            return None;
        }
        self.camera.unproject(Point2::new(f64::from(u), f64::from(v)), z)
    }

    /// The box and a quarter more on each side.
    fn window(&self, bbox: &BoundingBox2d) -> Window {
        let (width, height) = self.camera.size();
        let (margin_x, margin_y) = ((0.25 * bbox.width()).max(4.0), (0.25 * bbox.height()).max(4.0));
        let x0 = (bbox.x0 - margin_x).floor().max(0.0) as u32;
        let y0 = (bbox.y0 - margin_y).floor().max(0.0) as u32;
        let n_columns = ((bbox.x1 + margin_x).ceil() as u32).min(width).saturating_sub(x0);
        let n_rows = ((bbox.y1 + margin_y).ceil() as u32).min(height).saturating_sub(y0);
        let n_pixels = f64::from(n_columns) * f64::from(n_rows);
        let stride = (n_pixels / MAX_WINDOW_POINTS).sqrt().ceil().max(1.0) as u32;
        let (width, height) = (n_columns / stride, n_rows / stride);
        let mut window = Window { x0, y0, width, height, stride, points: Vec::new() };
        window.points = (0..(width * height) as usize)
            .map(|it| {
                let (u, v) = window.pixel(it);
                self.point(u, v)
            })
            .collect();
        window
    }

    /// The plane that the surroundings of a box lie on: the one with most of the window's points, if that is a fair share.
    /// What is seen of it in the box alone is a face of the thing itself.
    fn plane_under(&self, window: &Window, bbox: &BoundingBox2d) -> Option<SupportPlane> {
        // A few thousand points tell.
        let sample: Vec<(usize, &Point3<f64>)> = (0..window.points.len())
            .step_by(window.points.len() / 4000 + 1)
            .filter_map(|it| Some((it, window.points[it].as_ref()?)))
            .collect();
        let is_on = |plane: &SupportPlane, it: &Point3<f64>| {
            plane.height_m(it).abs() <= 0.006 + 2.5 * self.noise_m(it.z)
        };
        let count = |plane: &SupportPlane| sample.iter().filter(|it| is_on(plane, it.1)).count();
        let (n_on, best) = self.planes().iter().map(|it| (count(it), it)).max_by_key(|(n, _)| *n)?;
        let (width, height) = self.camera.size();
        let is_whole_image = bbox.width() * bbox.height() > 0.8 * f64::from(width) * f64::from(height);
        let is_beside = |idx: usize| !window.is_inside(idx, bbox);
        let is_seen_beside =
            || 10 <= sample.iter().filter(|(idx, it)| is_beside(*idx) && is_on(best, it)).count();
        (sample.len() <= 33 * n_on && (is_whole_image || is_seen_beside())).then_some(*best)
    }

    /// The mask, and the share of the silhouette (each row from its first to its last pixel) that has depth.
    fn mask_of(&self, window: &Window, pixels: &[usize]) -> (ObjectMask, f64) {
        let (width, stride) = (window.width as usize, window.stride);
        let mut is_object = vec![false; window.points.len()];
        for &idx in pixels {
            is_object[idx] = true;
        }
        let mut n_missing = 0;
        for (row, points) in is_object.chunks(width.max(1)).zip(window.points.chunks(width.max(1))) {
            let (first, last) = (row.iter().position(|it| *it), row.iter().rposition(|it| *it));
            if let (Some(first), Some(last)) = (first, last) {
                n_missing += points[first..=last].iter().filter(|it| it.is_none()).count();
            }
        }
        let ratio = pixels.len() as f64 / (pixels.len() + n_missing).max(1) as f64;
        if stride > 1 {
            is_object = self.all_pixels(window, pixels);
        }
        let (width, height) = (window.width * stride, window.height * stride);
        (ObjectMask { x0: window.x0, y0: window.y0, width, height, is_object }, ratio)
    }

    /// Which pixels of a window's rectangle are on the object, row-major: those around its points at about their depth.
    fn all_pixels(&self, window: &Window, pixels: &[usize]) -> Vec<bool> {
        let (stride, width) = (window.stride, (window.width * window.stride) as usize);
        let mut is_object = vec![false; window.n_pixels(window.points.len())];
        for &idx in pixels {
            let Some(z) = window.points[idx].map(|it| it.z) else { continue };
            let step_m = self.step_m(window, z);
            let (u0, v0) = window.corner(idx);
            for (u, v) in (v0..v0 + stride).flat_map(|v| (u0..u0 + stride).map(move |u| (u, v))) {
                let is_near = self.depth.get(u, v).is_some_and(|it| (f64::from(it) - z).abs() <= step_m);
                is_object[(v - window.y0) as usize * width + (u - window.x0) as usize] = is_near;
            }
        }
        is_object
    }
}

/// What is around a box, and which of it is the object.
struct Segmented {
    window: Window,
    plane: Option<SupportPlane>,
    pixels: Vec<usize>,
}

impl Segmented {
    /// Of the object, optical frame.
    fn points(&self) -> Vec<Point3<f64>> {
        self.pixels.iter().filter_map(|it| self.window.points[*it]).collect()
    }
}

impl LiftedObject {
    /// A round patch of the plane it stands on, for drawing: its middle below the body, z up, in the optical frame, and its radius
    /// in meters. `None` where no plane is known.
    pub fn footing(&self) -> Option<(Isometry3<f64>, f64)> {
        let is_known = self.plane_residual_m.is_some() || self.source == PoseSource::SupportPlane;
        let down = Translation3::new(0.0, 0.0, -0.5 * self.size_m.z);
        is_known.then(|| (self.object_in_camera * down, 0.75 * self.size_m.x.max(self.size_m.y)))
    }

    /// Extents of the oriented box along the axes of the optical frame, meters.
    pub fn extent_in_camera(&self) -> Vector3<f64> {
        self.object_in_camera.rotation.to_rotation_matrix().matrix().abs() * self.size_m
    }
}

/// Whether the box touches the image's border.
fn is_truncated(bbox: &BoundingBox2d, width: u32, height: u32) -> bool {
    bbox.x0 < 1.0 || bbox.y0 < 1.0 || f64::from(width) - 1.0 < bbox.x1 || f64::from(height) - 1.0 < bbox.y1
}

/// The value below which a share of `values` lies. `values` must not be empty; it is reordered.
fn quantile(values: &mut [f64], share: f64) -> f64 {
    let idx = ((values.len() - 1) as f64 * share).round() as usize;
    *values.select_nth_unstable_by(idx, f64::total_cmp).1
}
