//! Rays of distorted cameras held to OpenCV (`tests/parity/opencv_rays.py` wrote the fixture).

use language_grounding::camera::{Calibration, CameraError, PinholeCamera};
use nalgebra::{Point2, Point3, Vector3};
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixture {
    cameras: Vec<Camera>,
}

#[derive(Deserialize)]
struct Camera {
    model: String,
    d: Vec<f64>,
    k: [f64; 9],
    rays: Vec<[f64; 3]>,
    pixels: Vec<[f64; 2]>,
}

#[test]
fn rays_are_those_of_opencv() {
    let fixture: Fixture = serde_json::from_str(include_str!("data/camera_rays.json")).unwrap();
    assert_eq!(fixture.cameras.len(), 11);
    for it in &fixture.cameras {
        let ideal = PinholeCamera::from_k(640, 480, &it.k).unwrap();
        let camera = ideal.with_distortion(&it.model, &it.d).unwrap();
        for (ray, pixel) in it.rays.iter().zip(&it.pixels) {
            let (ray, pixel) = (Vector3::from(*ray), Point2::from(*pixel));
            let got = camera.ray(pixel).unwrap();
            assert!((got - ray).amax() < 1e-6, "{} {:?}: {got} is not {ray}", it.model, it.d);
            let back = camera.project(Point3::from(2.5 * ray)).unwrap();
            assert!((back - pixel).amax() < 1e-6, "{} {:?}: {back} is not {pixel}", it.model, it.d);
            // The lens matters: without it the ray is another (but for the axis).
            assert!(ray.xy().norm() < 0.2 || (ideal.ray(pixel).unwrap() - ray).amax() > 1e-5);
        }
    }
}

#[test]
fn where_a_model_folds_over_nothing_is_seen() {
    let k = [300.0, 0.0, 320.0, 0.0, 300.0, 240.0, 0.0, 0.0, 1.0];
    let ideal = PinholeCamera::from_k(640, 480, &k).unwrap();
    // Barrel distortion that turns back at r = 0.82, where the image ends at 0.54.
    let barrel = ideal.with_distortion("plumb_bob", &[-0.5, 0.0, 0.0, 0.0, 0.0]).unwrap();
    assert_eq!(barrel.ray(Point2::new(639.0, 479.0)), None);
    assert!(barrel.ray(Point2::new(400.0, 240.0)).is_some());
    assert_eq!(barrel.project(Point3::new(1.5, 0.0, 1.0)), None);
    let fisheye = ideal.with_distortion("equidistant", &[0.01, 0.0, 0.0, 0.0]).unwrap();
    assert_eq!(fisheye.ray(Point2::new(320.0 + 300.0 * 1.56, 240.0)), None, "next to a right angle");
    assert_eq!(fisheye.ray(Point2::new(320.0, 240.0)), Some(Vector3::z()));
}

#[test]
fn unknown_lenses_are_refused_and_zeros_are_none() {
    let k = [300.0, 0.0, 320.0, 0.0, 300.0, 240.0, 0.0, 0.0, 1.0];
    let ideal = PinholeCamera::from_k(640, 480, &k).unwrap();
    assert_eq!(ideal.with_distortion("", &[]).unwrap(), ideal);
    assert_eq!(ideal.with_distortion("whatever", &[0.0; 5]).unwrap(), ideal);
    let trailing = [0.1, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
    assert!(ideal.with_distortion("rational_polynomial", &trailing).is_ok());
    for (model, d) in
        [("whatever", vec![0.1]), ("plumb_bob", vec![0.1; 8]), ("equidistant", vec![f64::NAN; 4])]
    {
        let error = ideal.with_distortion(model, &d).unwrap_err();
        assert!(matches!(error, CameraError::Distortion { .. }));
        assert!(error.to_string().contains("plumb_bob with 4 or 5"), "{error}");
    }
}

fn calibration(size: (u32, u32), k: [f64; 4]) -> Calibration {
    let [fx, fy, cx, cy] = k;
    Calibration {
        size,
        k: [fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0],
        p: Some([fx, 0.0, cx, 0.0, 0.0, fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0]),
        lens: ("plumb_bob".to_owned(), vec![0.0; 5]),
        roi: None,
        binning: (1, 1),
    }
}

const VGA: (u32, u32) = (640, 480);
const OF_VGA: [f64; 4] = [600.0, 600.0, 320.0, 240.0];

#[test]
fn intrinsics_that_no_camera_has_are_refused_with_a_sentence() {
    let refused = |it: Calibration, words: &str| {
        for is_rectified in [true, false] {
            let error = it.camera(is_rectified).expect_err(words).to_string();
            assert!(error.contains(words), "{it:?}: {error}");
        }
    };
    refused(calibration(VGA, [0.9, 1.2, 0.5, 0.5]), "normalized");
    refused(calibration(VGA, [5e-324, 5e-324, 320.0, 240.0]), "degrees");
    refused(calibration(VGA, [1e300, 1e300, 320.0, 240.0]), "degrees");
    refused(calibration(VGA, [f64::NAN, 600.0, 320.0, 240.0]), "focal lengths");
    refused(calibration(VGA, [-600.0, 600.0, 320.0, 240.0]), "focal lengths");
    refused(calibration(VGA, [600.0, 600.0, 1e155, 240.0]), "principal point");
    refused(calibration(VGA, [600.0, 600.0, 320.0, f64::INFINITY]), "principal point");
    refused(calibration(VGA, [600.0, 200.0, 320.0, 240.0]), "factor");
    refused(calibration(VGA, [600.0, 600.0, 0.0, 0.0]), "principal point");
    // Of another resolution under this image's size.
    for (width, height) in
        [(320_u32, 240_u32), (1280, 720), (1280, 960), (1920, 1080), (160, 120), (960, 720)]
    {
        let scale = f64::from(width) / 640.0;
        let k = [600.0 * scale, 600.0 * scale, 0.5 * f64::from(width), 0.5 * f64::from(height)];
        refused(calibration(VGA, k), "principal point");
    }
    // K already binned, or already moved to the region of interest.
    let binned = Calibration { binning: (2, 2), ..calibration(VGA, [300.0, 300.0, 160.0, 120.0]) };
    refused(binned, "told twice");
    for (x, y) in [(160, 120), (200, 0), (0, 120)] {
        let k = [600.0, 600.0, 320.0 - f64::from(x), 240.0 - f64::from(y)];
        refused(Calibration { roi: Some((x, y, 320, 240)), ..calibration(VGA, k) }, "told twice");
    }
    let mut other_p = calibration(VGA, OF_VGA);
    other_p.p = Some([1200.0, 0.0, 640.0, 0.0, 0.0, 1200.0, 480.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
    refused(other_p, "belong together");
    refused(Calibration { k: [0.0; 9], p: None, ..calibration(VGA, OF_VGA) }, "calibrated");
}

#[test]
fn intrinsics_that_a_camera_has_are_taken() {
    let k_of = |it: Calibration| {
        let (raw, rectified) = (it.camera(false).unwrap().k(), it.camera(true).unwrap().k());
        assert_eq!(raw, rectified);
        [raw[0], raw[4], raw[2], raw[5]]
    };
    assert_eq!(k_of(calibration(VGA, OF_VGA)), OF_VGA);
    // K empty, P filled in.
    assert_eq!(k_of(Calibration { k: [0.0; 9], ..calibration(VGA, OF_VGA) }), OF_VGA);
    // Wide, long, decentered, in the corner of its sensor, binned, of every second row.
    for k in [[120.0, 120.0, 320.0, 240.0], [6000.0, 6000.0, 320.0, 240.0], [610.0, 608.0, 351.0, 221.0]] {
        assert_eq!(k_of(calibration(VGA, k)), k);
    }
    let cut = Calibration { roi: Some((320, 240, 320, 240)), ..calibration(VGA, OF_VGA) };
    assert_eq!(k_of(cut), [600.0, 600.0, 0.0, 0.0]);
    let binned = Calibration { binning: (2, 2), ..calibration(VGA, OF_VGA) };
    assert_eq!(k_of(binned), [300.0, 300.0, 160.0, 120.0]);
    let interlaced = Calibration { binning: (1, 2), ..calibration(VGA, OF_VGA) };
    assert_eq!(k_of(interlaced), [600.0, 300.0, 320.0, 120.0]);
    // Straightened, a lens that sees far aside keeps less of its focal length.
    let mut bent = calibration(VGA, OF_VGA);
    bent.lens.1[0] = -0.3;
    bent.p = Some([420.0, 0.0, 318.0, 0.0, 0.0, 430.0, 238.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
    assert_eq!(bent.camera(true).unwrap().focal_lengths(), (420.0, 430.0));
}
