//! Rays of distorted cameras held to OpenCV (`tests/parity/opencv_rays.py` wrote the fixture).

use language_grounding::camera::{CameraError, PinholeCamera};
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
