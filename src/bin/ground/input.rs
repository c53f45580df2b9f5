//! Files to frames.

use std::path::Path;

use anyhow::{Context as _, anyhow, bail, ensure};
use language_grounding::camera::PinholeCamera;
use language_grounding::image::{DepthImage, RgbImage};
use language_grounding::yaml;
use serde::Deserialize;

/// A color image of any format the decoder knows (JPEG, PNG).
pub(crate) fn load_image(path: &Path) -> anyhow::Result<RgbImage> {
    let image = image::open(path).with_context(|| format!("cannot read the image {}", path.display()))?;
    Ok(image.into_rgb8())
}

/// A 16-bit gray PNG in millimeters, 0 = nothing measured.
pub(crate) fn load_depth(path: &Path) -> anyhow::Result<DepthImage> {
    let image =
        image::open(path).with_context(|| format!("cannot read the depth image {}", path.display()))?;
    let image::DynamicImage::ImageLuma16(depth) = image else {
        bail!(
            "{} is not a depth image: expected 16-bit gray in millimeters, got {:?}",
            path.display(),
            image.color()
        );
    };
    Ok(DepthImage::from_millimeters(depth.width(), depth.height(), depth.as_raw())?)
}

/// A camera calibration as `camera_info_manager` and `camera_calibration` write it. The image is taken for rectified: the
/// projection matrix is used where there is one, else the camera matrix of a camera without distortion.
pub(crate) fn load_camera(path: &Path) -> anyhow::Result<PinholeCamera> {
    #[derive(Deserialize)]
    struct Matrix {
        data: Vec<f64>,
    }
    #[derive(Deserialize)]
    struct Calibration {
        image_width: u32,
        image_height: u32,
        camera_matrix: Matrix,
        distortion_coefficients: Option<Matrix>,
        projection_matrix: Option<Matrix>,
    }
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the camera calibration {}", path.display()))?;
    let calibration: Calibration = yaml::read(&text).with_context(|| {
        format!(
            "{} is not a camera calibration: expected image_width, image_height, camera_matrix",
            path.display()
        )
    })?;
    let projection =
        calibration.projection_matrix.map(|it| it.data).filter(|it| it.len() == 12 && 0.0 < it[0]);
    let k = if let Some(p) = projection {
        [p[0], p[1], p[2], p[4], p[5], p[6], p[8], p[9], p[10]]
    } else {
        let is_distorted =
            calibration.distortion_coefficients.is_some_and(|it| it.data.iter().any(|d| d.abs() > 1e-9));
        ensure!(
            !is_distorted,
            "{} has distortion but no projection_matrix: rectify the image and give its projection_matrix",
            path.display()
        );
        <[f64; 9]>::try_from(calibration.camera_matrix.data).map_err(|data| {
            anyhow!("{}: expected 9 values in camera_matrix, got {}", path.display(), data.len())
        })?
    };
    Ok(PinholeCamera::from_k(calibration.image_width, calibration.image_height, &k)?)
}
