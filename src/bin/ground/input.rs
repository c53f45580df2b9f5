//! Files to frames.

use std::path::Path;

use anyhow::{Context as _, anyhow, bail, ensure};
use language_grounding::camera::PinholeCamera;
use language_grounding::image::compressed::{self, Decoded};
use language_grounding::image::{DepthImage, DepthUnit, RgbImage};
use language_grounding::yaml;
use serde::Deserialize;

/// Which way up an image is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Upright {
    /// As the camera says it was held (EXIF).
    AsHeld,
    /// As stored: the pixels that depth and calibration are of.
    AsStored,
}

/// A color image of any format the decoder knows (JPEG, PNG), whatever its file is called.
pub(crate) fn load_image(path: &Path, upright: Upright) -> anyhow::Result<RgbImage> {
    let Decoded { mut pixels, orientation } = decode(path, "image")?;
    if upright == Upright::AsHeld {
        pixels.apply_orientation(orientation);
    }
    compressed::color(pixels).map_err(|problem| anyhow!("cannot use the image {}: {problem}", path.display()))
}

/// A 16-bit gray PNG in millimeters, unless `unit` says otherwise; 0 = nothing measured.
pub(crate) fn load_depth(path: &Path, unit: DepthUnit) -> anyhow::Result<DepthImage> {
    let pixels = decode(path, "depth image")?.pixels;
    let image::DynamicImage::ImageLuma16(depth) = pixels else {
        bail!(
            "{} is not a depth image: expected 16-bit gray in millimeters, got {:?}",
            path.display(),
            pixels.color()
        );
    };
    Ok(DepthImage::from_integers(depth.width(), depth.height(), depth.as_raw(), unit)?)
}

fn decode(path: &Path, what: &str) -> anyhow::Result<Decoded> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read the {what} {}", path.display()))?;
    compressed::decode(&bytes)
        .map_err(|problem| anyhow!("cannot read the {what} {}: {problem}", path.display()))
}

/// A matrix with its size around it, or its values alone.
#[derive(Deserialize)]
#[serde(untagged)]
enum Matrix {
    Wrapped { data: Vec<f64> },
    Flat(Vec<f64>),
}

impl Matrix {
    fn data(self) -> Vec<f64> {
        match self {
            Self::Wrapped { data } | Self::Flat(data) => data,
        }
    }
}

/// As `camera_info_manager` writes it, or as `ros2 topic echo` prints sensor_msgs/CameraInfo.
#[derive(Deserialize)]
struct Calibration {
    #[serde(alias = "width")]
    image_width: u32,
    #[serde(alias = "height")]
    image_height: u32,
    #[serde(alias = "k", alias = "K")]
    camera_matrix: Matrix,
    #[serde(default, alias = "distortion_model")]
    camera_model: Option<String>,
    #[serde(alias = "d", alias = "D")]
    distortion_coefficients: Option<Matrix>,
    #[serde(alias = "p", alias = "P")]
    projection_matrix: Option<Matrix>,
    #[serde(default)]
    binning_x: u32,
    #[serde(default)]
    binning_y: u32,
    #[serde(default)]
    roi: Roi,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Roi {
    width: u32,
    height: u32,
}

/// A camera calibration. Where it has a projection matrix the image is taken for rectified and that matrix is used, else the
/// camera matrix and the lens.
pub(crate) fn load_camera(path: &Path) -> anyhow::Result<PinholeCamera> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the camera calibration {}", path.display()))?;
    camera_from(&text).with_context(|| format!("the camera calibration {}", path.display()))
}

fn camera_from(text: &str) -> anyhow::Result<PinholeCamera> {
    let calibration: Calibration = yaml::read(first_document(text)).context(
        "expected image_width, image_height and camera_matrix, or a sensor_msgs/CameraInfo as `ros2 topic echo` prints it",
    )?;
    let Calibration { image_width: width, image_height: height, binning_x, binning_y, roi, .. } = calibration;
    let is_part = (roi.width, roi.height) != (0, 0) && (roi.width, roi.height) != (width, height);
    ensure!(
        binning_x <= 1 && binning_y <= 1 && !is_part,
        "expected the camera_info of the whole image, got one with binning or a region of interest"
    );
    let projection =
        calibration.projection_matrix.map(Matrix::data).filter(|it| it.len() == 12 && 0.0 < it[0]);
    if let Some(p) = projection {
        let k = [p[0], p[1], p[2], p[4], p[5], p[6], p[8], p[9], p[10]];
        return Ok(PinholeCamera::from_k(width, height, &k)?);
    }
    let k = <[f64; 9]>::try_from(calibration.camera_matrix.data())
        .map_err(|data| anyhow!("expected 9 values in camera_matrix, got {}", data.len()))?;
    let d = calibration.distortion_coefficients.map(Matrix::data).unwrap_or_default();
    let model = calibration.camera_model.unwrap_or_default();
    Ok(PinholeCamera::from_k(width, height, &k)?.with_distortion(&model, &d)?)
}

/// Without a byte order mark, and without the messages after the first.
fn first_document(text: &str) -> &str {
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let text = text.strip_prefix("---").unwrap_or(text);
    text.split_once("\n---").map_or(text, |(first, _)| first)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ECHO: &str = "header:\n  stamp:\n    sec: 1\n    nanosec: 2\n  frame_id: camera\nheight: 480\nwidth: 640\n\
        distortion_model: plumb_bob\nd:\n- 0.0\n- 0.0\nk:\n- 600.0\n- 0.0\n- 320.0\n- 0.0\n- 601.0\n- 240.0\n- 0.0\n- 0.0\n- 1.0\n\
        r:\n- 1.0\np:\n- 0.0\nbinning_x: 0\nbinning_y: 0\nroi:\n  x_offset: 0\n  y_offset: 0\n  height: 0\n  width: 0\n  do_rectify: false\n";

    #[test]
    fn a_camera_is_read_in_all_its_forms() {
        let expected = [600.0, 0.0, 320.0, 0.0, 601.0, 240.0, 0.0, 0.0, 1.0];
        let file = "image_width: 640\nimage_height: 480\ncamera_matrix:\n  rows: 3\n  cols: 3\n  data: [600, 0, 320, 0, 601, 240, 0, 0, 1]\n";
        let flat =
            "image_width: 640\nimage_height: 480\ncamera_matrix: [600, 0, 320, 0, 601, 240, 0, 0, 1]\n";
        let echoed = format!("{ECHO}---\n{ECHO}---\n");
        for text in [file, flat, ECHO, &echoed, &format!("\u{feff}{file}"), &format!("---\n{ECHO}")] {
            let camera = camera_from(text).unwrap();
            assert_eq!((camera.size(), camera.k()), ((640, 480), expected), "{text}");
        }
        let lens = ECHO.replace("d:\n- 0.0", "d:\n- 0.1");
        assert!(
            camera_from(&lens).unwrap().ray(nalgebra::Point2::new(0.0, 0.0)).unwrap().x.abs() < 320.0 / 600.0
        );
        let binned = ECHO.replace("binning_x: 0", "binning_x: 2");
        assert!(camera_from(&binned).unwrap_err().to_string().contains("whole image"));
        assert!(camera_from("a: 1").unwrap_err().to_string().contains("ros2 topic echo"));
    }
}
