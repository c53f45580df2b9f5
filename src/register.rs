//! Depth of one camera as another one sees it: pixels that were measured elsewhere, brought to the color image.

use nalgebra::{Isometry3, Point2, Point3, Vector2, Vector3};

use crate::camera::PinholeCamera;
use crate::image::DepthImage;

/// Whether depth images come registered to the color image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registration {
    /// They are registered if they say so: by frame and size.
    Auto,
    /// They are registered, whatever they say.
    Done,
    /// They are not registered, whatever they say: the node does it.
    Wanted,
}

/// What an image says of itself.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// The optical frame it is labeled with.
    pub frame_id: &'a str,
    /// (width, height) in pixels.
    pub size: (u32, u32),
    /// The camera and the frame that its intrinsics are labeled with, if they came.
    pub camera: Option<(&'a str, &'a PinholeCamera)>,
}

/// Where a depth image was measured.
#[derive(Debug, Clone, PartialEq)]
pub enum Origin {
    /// At the color image: it is registered.
    Color,
    /// In an optical frame of its own.
    Elsewhere {
        /// Its name.
        frame_id: String,
        /// Intrinsics of the depth image.
        camera: PinholeCamera,
    },
}

/// Why depth cannot be used with a color image.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RegistrationError {
    /// It was measured elsewhere, and by which camera is not known.
    #[error(
        "expected depth registered to the color image ({color_width}x{color_height} in {color_frame:?}), got \
         {depth_width}x{depth_height} in {depth_frame:?} and no camera_info of the depth camera: publish registered depth, \
         remap depth_camera_info, or, if it is registered and only labeled otherwise, set depth_registration to registered"
    )]
    NoCamera {
        /// Of the color image.
        color_frame: String,
        /// Of the color image.
        color_width: u32,
        /// Of the color image.
        color_height: u32,
        /// Of the depth image.
        depth_frame: String,
        /// Of the depth image.
        depth_width: u32,
        /// Of the depth image.
        depth_height: u32,
    },
}

/// Where a depth image was measured, by what it and the color image say of themselves.
///
/// Frames without a name are taken for that of the color image. Aligned depth that still has the depth sensor's frame is known by
/// its intrinsics: those of the color image, labeled with its frame.
///
/// # Errors
/// It was measured elsewhere and the intrinsics of its camera are missing.
pub fn origin(
    registration: Registration,
    color: &Source<'_>,
    depth: &Source<'_>,
) -> Result<Origin, RegistrationError> {
    let bare = |frame: &str| frame.strip_prefix('/').unwrap_or(frame).to_owned();
    let (color_frame, depth_frame) = (bare(color.frame_id), bare(depth.frame_id));
    let is_same_frame = depth_frame.is_empty() || color_frame.is_empty() || depth_frame == color_frame;
    let is_same_size = color.size == depth.size;
    let has_color_camera = match (color.camera, depth.camera) {
        (Some((_, of_color)), Some((info_frame, of_depth))) => {
            bare(info_frame) == color_frame && of_color == of_depth
        }
        _ => false,
    };
    let is_registered = match registration {
        Registration::Done => true,
        Registration::Auto => is_same_size && (is_same_frame || has_color_camera),
        Registration::Wanted => false,
    };
    if is_registered {
        return Ok(Origin::Color);
    }
    let Some((info_frame, camera)) = depth.camera else {
        return Err(RegistrationError::NoCamera {
            color_frame,
            color_width: color.size.0,
            color_height: color.size.1,
            depth_frame,
            depth_width: depth.size.0,
            depth_height: depth.size.1,
        });
    };
    let frame_id = [depth_frame, bare(info_frame), color_frame].into_iter().find(|it| !it.is_empty());
    Ok(Origin::Elsewhere { frame_id: frame_id.unwrap_or_default(), camera: *camera })
}

/// A depth camera, with the rays of its pixels worked out once: taking a lens back costs more than all the rest.
#[derive(Debug, Clone)]
pub struct DepthCamera {
    camera: PinholeCamera,
    /// Row-major; `None` where the lens model sees nothing.
    rays: Vec<Option<Ray>>,
}

/// What a pixel sees, on the plane z = 1.
#[derive(Debug, Clone, Copy)]
struct Ray {
    middle: Vector3<f64>,
    /// Half of what it covers along x and y, and a fifth more: images may be turned against each other.
    half: Vector2<f64>,
}

impl DepthCamera {
    /// Works out the rays.
    pub fn new(camera: PinholeCamera) -> Self {
        let (width, height) = camera.size();
        let ray = |u: f64, v: f64| {
            let middle = camera.ray(Point2::new(u, v))?;
            let (right, below) = (camera.ray(Point2::new(u + 0.5, v))?, camera.ray(Point2::new(u, v + 0.5))?);
            let half = 1.2 * Vector2::new((right - middle).x.abs(), (below - middle).y.abs());
            Some(Ray { middle, half })
        };
        let pixels = (0..height).flat_map(|v| (0..width).map(move |u| (f64::from(u), f64::from(v))));
        let rays = pixels.map(|(u, v)| ray(u, v)).collect();
        Self { camera, rays }
    }

    /// What it was made of.
    pub fn camera(&self) -> &PinholeCamera {
        &self.camera
    }

    /// The depth image that the color camera would have measured, of the size of its image. `depth` must be of this camera's size
    /// (else nothing is seen); `color_from_depth` takes points of this camera's optical frame to the color camera's.
    ///
    /// Each pixel covers what its surface would cover, facing the camera, so that a coarse depth image leaves no gaps; where two
    /// cover the same color pixel the nearer one holds.
    pub fn register(
        &self,
        depth: &DepthImage,
        color: &PinholeCamera,
        color_from_depth: &Isometry3<f64>,
    ) -> DepthImage {
        let (width, height) = color.size();
        let mut registered = vec![f32::NAN; width as usize * height as usize];
        let (fx, fy) = color.focal_lengths();
        let is_ours = (depth.width(), depth.height()) == self.camera.size();
        for (measured, ray) in depth.as_slice().iter().zip(&self.rays).filter(|_| is_ours) {
            let Some(ray) = ray.filter(|_| measured.is_finite()) else { continue };
            let z = f64::from(*measured);
            let point = color_from_depth * Point3::from(ray.middle * z);
            let Some(pixel) = color.project(point) else { continue };
            // Half a pixel of the depth camera, at this distance, in pixels of the color camera.
            let (half_x, half_y) = (fx * ray.half.x * z / point.z, fy * ray.half.y * z / point.z);
            let columns = covered(pixel.x, half_x, width);
            for v in covered(pixel.y, half_y, height) {
                for u in columns.clone() {
                    let at = &mut registered[v as usize * width as usize + u as usize];
                    if at.is_nan() || (point.z as f32) < *at {
                        *at = point.z as f32;
                    }
                }
            }
        }
        DepthImage::from_meters(width, height, registered).expect("one depth per pixel of the color image")
    }
}

/// The pixels whose middles lie within `half` of a place, and that which the place itself is in.
fn covered(middle: f64, half: f64, n: u32) -> std::ops::Range<u32> {
    let nearest = middle.round();
    let low = (middle - half).ceil().min(nearest).max(0.0);
    let high = (middle + half).floor().max(nearest) + 1.0;
    low as u32..(high.clamp(0.0, f64::from(n)) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn camera(width: u32, height: u32, focal: f64) -> PinholeCamera {
        let k = [
            focal,
            0.0,
            0.5 * f64::from(width) - 0.5,
            0.0,
            focal,
            0.5 * f64::from(height) - 0.5,
            0.0,
            0.0,
            1.0,
        ];
        PinholeCamera::from_k(width, height, &k).unwrap()
    }

    /// Depth of the plane `normal . point = 1` (optical frame of the first) as a camera at `first_from_camera` measures it.
    fn plane(
        camera: &PinholeCamera,
        first_from_camera: &Isometry3<f64>,
        normal: &Vector3<f64>,
    ) -> DepthImage {
        let (width, height) = camera.size();
        let origin = first_from_camera.translation.vector;
        let depths = (0..height).flat_map(|v| (0..width).map(move |u| (u, v))).map(|(u, v)| {
            let ray = first_from_camera * camera.ray(Point2::new(f64::from(u), f64::from(v))).unwrap();
            ((1.0 - normal.dot(&origin)) / normal.dot(&ray)) as f32
        });
        DepthImage::from_meters(width, height, depths.collect()).unwrap()
    }

    #[test]
    fn depth_is_registered_where_frame_and_size_or_the_intrinsics_say_so() {
        let (color_camera, depth_camera) = (camera(640, 480, 600.0), camera(320, 240, 200.0));
        let color = Source { frame_id: "color", size: (640, 480), camera: Some(("color", &color_camera)) };
        let check = |registration, frame_id, size, camera, expected: Option<&str>| {
            let found = origin(registration, &color, &Source { frame_id, size, camera });
            let found = found.map(|it| match it {
                Origin::Color => String::new(),
                Origin::Elsewhere { frame_id, .. } => frame_id,
            });
            assert_eq!(found.as_deref().ok(), expected, "{registration:?} {frame_id} {size:?} {camera:?}");
        };
        let (full, half) = ((640, 480), (320, 240));
        let own = Some(("depth", &depth_camera));
        check(Registration::Auto, "color", full, None, Some(""));
        check(Registration::Auto, "/color", full, own, Some(""));
        check(Registration::Auto, "", full, None, Some(""));
        check(Registration::Auto, "depth", full, None, None);
        check(Registration::Auto, "depth", full, own, Some("depth"));
        check(Registration::Auto, "color", half, None, None);
        check(Registration::Auto, "color", half, Some(("color", &depth_camera)), Some("color"));
        // Aligned, but still labeled with the sensor's frame.
        check(Registration::Auto, "depth", full, Some(("color", &color_camera)), Some(""));
        // The same optics elsewhere.
        check(Registration::Auto, "depth", full, Some(("depth", &color_camera)), Some("depth"));
        check(Registration::Done, "depth", full, own, Some(""));
        check(Registration::Wanted, "color", full, own, Some("color"));
        check(Registration::Wanted, "", half, own, Some("depth"));
        let depth = Source { frame_id: "depth", size: half, camera: None };
        let sentence = origin(Registration::Auto, &color, &depth).unwrap_err().to_string();
        for says in ["640x480 in \"color\"", "320x240 in \"depth\"", "depth_registration"] {
            assert!(sentence.contains(says), "{sentence:?} lacks {says:?}");
        }
    }

    #[test]
    fn a_plane_is_the_same_plane_from_the_color_camera() {
        let lens = |it: PinholeCamera, model: &str, d: &[f64]| it.with_distortion(model, d).unwrap();
        let color = lens(camera(640, 480, 600.0), "plumb_bob", &[0.1, -0.2, 0.001, -0.001, 0.05]);
        // Coarser, wider, beside the color camera and turned against it.
        let depth_camera = lens(camera(320, 240, 200.0), "equidistant", &[0.02, 0.0, 0.0, 0.0]);
        let color_from_depth =
            Isometry3::new(Vector3::new(0.05, -0.01, 0.02), Vector3::new(0.02, -0.03, 0.05));
        let normal = Vector3::new(0.2, -0.3, 1.0);
        let measured = plane(&depth_camera, &color_from_depth, &normal);
        let truth = plane(&color, &Isometry3::identity(), &normal);
        let registered = DepthCamera::new(depth_camera).register(&measured, &color, &color_from_depth);
        let (mut n, mut worst, mut sum) = (0, 0.0_f64, 0.0);
        for v in 20..460 {
            for u in 20..620 {
                let got = registered.get(u, v).expect("the wider camera sees all of it, without gaps");
                let error = f64::from(got - truth.get(u, v).unwrap());
                (n, worst, sum) = (n + 1, worst.max(error.abs()), sum + error);
            }
        }
        // Half a coarse pixel of 5 mm on a plane that is tilted by 20 degrees.
        assert!(
            worst < 0.004 && (sum / f64::from(n)).abs() < 0.001,
            "worst {worst}, mean {}",
            sum / f64::from(n)
        );
    }

    #[test]
    fn the_nearer_of_two_holds() {
        let (color, depth_camera) = (camera(64, 48, 60.0), camera(64, 48, 60.0));
        // The depth camera, 10 cm to the right, sees a post before a wall.
        let values = (0..48 * 64).map(|it| if (30..34).contains(&(it % 64)) { 0.5 } else { 2.0 });
        let depth = DepthImage::from_meters(64, 48, values.collect()).unwrap();
        let color_from_depth = Isometry3::translation(0.1, 0.0, 0.0);
        let registered = DepthCamera::new(depth_camera).register(&depth, &color, &color_from_depth);
        let row: Vec<f32> = (0..64).filter_map(|u| registered.get(u, 24)).collect();
        // 12 pixels of parallax at 0.5 m, 3 at 2 m.
        assert_eq!(
            (0..64).filter(|u| registered.get(*u, 24) == Some(0.5)).collect::<Vec<_>>(),
            [42, 43, 44, 45]
        );
        assert!(row.iter().all(|it| [0.5, 2.0].contains(it)));
        // What the post hides from the depth camera is not made up.
        assert_eq!(registered.get(34, 24), None);
        let other_size = DepthImage::from_meters(2, 2, vec![1.0; 4]).unwrap();
        let camera_of = DepthCamera::new(camera(64, 48, 60.0));
        assert!(
            camera_of
                .register(&other_size, &color, &color_from_depth)
                .as_slice()
                .iter()
                .all(|it| it.is_nan())
        );
    }
}
