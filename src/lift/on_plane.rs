//! Where an object is that no depth was measured on: it stands on a known plane, where the lower edge of its box meets it.

use std::f64::consts::PI;

use nalgebra::{
    Isometry3, Matrix3, Matrix4, Matrix6, Point2, Point3, Rotation3, SMatrix, SVector, Translation3, Unit,
    UnitQuaternion, Vector3, Vector4,
};

use super::{LiftedObject, ObjectMask, PoseSource, SupportPlane, UpSource};
use crate::camera::PinholeCamera;
use crate::detection::BoundingBox2d;

/// A box's edge may be off by this share of the box (a detector's error) and this many pixels.
const EDGE_SHARE: f64 = 0.03;
const EDGE_PIXELS: f64 = 1.0;
/// How far the depth of a body may be from its width, as a share of half of it, and its middle from the box's.
const DEPTH_SHARE: f64 = 0.55;
const SIDE_SHARE: f64 = 0.12;
/// How far heights are from widths: standard deviation of the logarithm.
const LOG_ASPECT: f64 = 0.7;
const N_STEPS: usize = 12;

/// An upright cylinder: place of its middle (away, side from the contact, meters), width and height by their logarithms.
type Cylinder = Vector4<f64>;

/// The object in `bbox` (pixels) standing on `plane` (optical frame): the upright cylinder whose image fills the box, with a
/// height like its width unless the box says otherwise. `None` when the box's lower edge does not see the plane. The covariance is
/// accordingly large; yaw is unknown.
pub fn lift_on_plane(
    camera: &PinholeCamera,
    bbox: &BoundingBox2d,
    plane: &SupportPlane,
) -> Option<LiftedObject> {
    let fit = CylinderFit::new(camera, bbox, plane)?;
    let (cylinder, spread) = fit.solved()?;
    let (base, width_m, height_m) = fit.body(&cylinder);
    let up = fit.up;
    let center = base + up.scale(0.5 * height_m);
    let x_axis = if fit.side.x < 0.0 { -fit.side } else { fit.side };
    let rotation = Rotation3::from_matrix_unchecked(Matrix3::from_columns(&[
        x_axis,
        up.cross(&x_axis),
        up.into_inner(),
    ]));
    let mut covariance = Matrix6::zeros();
    covariance
        .fixed_view_mut::<3, 3>(0, 0)
        .copy_from(&fit.position_covariance(&spread, width_m, height_m, plane));
    covariance.fixed_view_mut::<3, 3>(3, 3).copy_from(&fit.turn_covariance(plane));
    let (width, height) = camera.size();
    Some(LiftedObject {
        object_in_camera: Isometry3::from_parts(
            Translation3::from(center.coords),
            UnitQuaternion::from_rotation_matrix(&rotation),
        ),
        surface_centroid: center,
        body_center: center,
        size_m: Vector3::new(width_m, width_m, height_m),
        covariance,
        source: PoseSource::SupportPlane,
        up_source: UpSource::Plane,
        hollow_depth_m: 0.0,
        unseen_below_m: 0.0,
        is_top_closed: false,
        n_points: 0,
        valid_depth_ratio: 0.0,
        is_back_completed: true,
        plane_residual_m: Some(plane.residual_m),
        is_truncated: super::is_truncated(bbox, width, height),
        mask: ObjectMask { x0: 0, y0: 0, width: 0, height: 0, is_object: Vec::new() },
    })
}

/// A box, and the frame on the plane in which a cylinder is fitted to it: from the contact away from the camera, to the side, up.
struct CylinderFit<'a> {
    camera: &'a PinholeCamera,
    bbox: &'a BoundingBox2d,
    /// Where the lower edge of the box sees the plane; optical frame, meters.
    contact: Point3<f64>,
    away: Unit<Vector3<f64>>,
    side: Vector3<f64>,
    up: Unit<Vector3<f64>>,
    /// How far the contact slides when the plane is one meter higher.
    slide: Vector3<f64>,
    /// The box's width at the contact, meters.
    width_m: f64,
    /// Standard deviations of the box's edges, pixels: x, y.
    deviations: [f64; 2],
}

impl<'a> CylinderFit<'a> {
    /// `None` when the box's lower edge does not see the plane.
    fn new(camera: &'a PinholeCamera, bbox: &'a BoundingBox2d, plane: &SupportPlane) -> Option<Self> {
        let up = plane.normal;
        let (middle, _) = bbox.center();
        // Box edges are half a pixel from pixel centers.
        let ray = camera.ray(Point2::new(middle - 0.5, bbox.y1 - 0.5))?;
        let falling = -up.dot(&ray);
        // Flatter than 2 degrees the place is anyone's guess.
        if falling <= 0.035 * ray.norm() {
            return None;
        }
        let contact = Point3::from(ray * (plane.camera_height_m / falling));
        let away = Unit::try_new(contact.coords - up.scale(up.dot(&contact.coords)), 1e-6)
            .or_else(|| Unit::try_new(up.cross(&Vector3::x()), 1e-6))?;
        let (fx, _) = camera.focal_lengths();
        Some(Self {
            camera,
            bbox,
            contact,
            away,
            side: up.cross(&away),
            up,
            slide: ray / falling,
            width_m: (contact.z * bbox.width() / fx).max(0.002),
            deviations: [bbox.width(), bbox.height()].map(|it| EDGE_PIXELS.hypot(EDGE_SHARE * it)),
        })
    }

    /// The cylinder that fills the box best (Levenberg-Marquardt) and the covariance of its parameters.
    fn solved(&self) -> Option<(Cylinder, Matrix4<f64>)> {
        let mut best = Cylinder::new(0.5 * self.width_m, 0.0, self.width_m.ln(), self.width_m.ln());
        let mut left = self.residuals(&best)?;
        let mut damping = 1e-2;
        for _ in 0..N_STEPS {
            let slopes = self.jacobian(&best, &left)?;
            let normal = slopes.transpose() * slopes;
            let damped = normal + Matrix4::from_diagonal(&(normal.diagonal() * damping));
            let step = damped.try_inverse()? * (slopes.transpose() * left);
            let next = best - step;
            match self.residuals(&next).filter(|it| it.norm() < left.norm()) {
                Some(better) => {
                    (best, left) = (next, better);
                    damping *= 0.2;
                }
                None => damping *= 10.0,
            }
        }
        let slopes = self.jacobian(&best, &left)?;
        let spread = (slopes.transpose() * slopes).try_inverse()?;
        Some((best, spread))
    }

    /// Middle of the base (optical frame), width and height, meters.
    fn body(&self, cylinder: &Cylinder) -> (Point3<f64>, f64, f64) {
        let base = self.contact + self.away.scale(cylinder.x) + self.side.scale(cylinder.y);
        (base, cylinder.z.exp(), cylinder.w.exp())
    }

    /// How far the cylinder's outline is from the box's edges and its height from its width, in standard deviations.
    fn residuals(&self, cylinder: &Cylinder) -> Option<SVector<f64, 5>> {
        let (base, width_m, height_m) = self.body(cylinder);
        let seen = outline(self.camera, &base, &self.away, &self.side, &self.up, width_m, height_m)?;
        let difference = |got: f64, want: f64, axis: usize| (got - want) / self.deviations[axis];
        Some(SVector::from([
            difference(seen.x0, self.bbox.x0, 0),
            difference(seen.y0, self.bbox.y0, 1),
            difference(seen.x1, self.bbox.x1, 0),
            difference(seen.y1, self.bbox.y1, 1),
            (cylinder.w - cylinder.z) / LOG_ASPECT,
        ]))
    }

    /// By differences; `left` are the residuals at `cylinder`.
    fn jacobian(&self, cylinder: &Cylinder, left: &SVector<f64, 5>) -> Option<SMatrix<f64, 5, 4>> {
        let mut slopes = SMatrix::<f64, 5, 4>::zeros();
        for axis in 0..4 {
            let step = if axis < 2 { 1e-4 } else { 1e-3 };
            let mut moved = *cylinder;
            moved[axis] += step;
            slopes.set_column(axis, &((self.residuals(&moved)? - left) / step));
        }
        Some(slopes)
    }

    /// Of the middle of the body, optical frame, square meters.
    fn position_covariance(
        &self,
        spread: &Matrix4<f64>,
        width_m: f64,
        height_m: f64,
        plane: &SupportPlane,
    ) -> Matrix3<f64> {
        // Over (away, side, up): half the height moves the middle too.
        let mut of_center = SMatrix::<f64, 3, 4>::zeros();
        of_center[(0, 0)] = 1.0;
        of_center[(1, 1)] = 1.0;
        of_center[(2, 3)] = 0.5 * height_m;
        let mut along = of_center * spread * of_center.transpose();
        along[(0, 0)] += (DEPTH_SHARE * 0.5 * width_m).powi(2);
        along[(1, 1)] += (SIDE_SHARE * 0.5 * width_m).powi(2);
        along[(2, 2)] += (0.25 * 0.5 * width_m).powi(2);
        let axes = Matrix3::from_columns(&self.axes());
        // Where the plane is a little higher or lower, the object is elsewhere along the ray to its foot.
        let reach = self.contact.coords - self.up.scale(self.up.dot(&self.contact.coords));
        let plane_variance = plane.height_sigma_m.powi(2) + (plane.tilt_sigma * reach.norm()).powi(2);
        axes * along * axes.transpose() + plane_variance * self.slide * self.slide.transpose()
    }

    /// Tilted as little as the plane is, turned any way about it; optical frame, square radians.
    fn turn_covariance(&self, plane: &SupportPlane) -> Matrix3<f64> {
        let axes = self.axes();
        let tilt = 2.0_f64.to_radians().hypot(plane.tilt_sigma);
        tilt * tilt * (axes[0] * axes[0].transpose() + axes[1] * axes[1].transpose())
            + PI.powi(2) / 12.0 * axes[2] * axes[2].transpose()
    }

    fn axes(&self) -> [Vector3<f64>; 3] {
        [self.away.into_inner(), self.side, self.up.into_inner()]
    }
}

/// The box around the image of an upright cylinder.
fn outline(
    camera: &PinholeCamera,
    base: &Point3<f64>,
    away: &Unit<Vector3<f64>>,
    side: &Vector3<f64>,
    up: &Unit<Vector3<f64>>,
    width_m: f64,
    height_m: f64,
) -> Option<BoundingBox2d> {
    let mut all = BoundingBox2d { x0: f64::MAX, y0: f64::MAX, x1: f64::MIN, y1: f64::MIN };
    for turn in 0..24 {
        let (sin, cos) = (2.0 * PI * f64::from(turn) / 24.0).sin_cos();
        let foot = base + away.scale(0.5 * width_m * cos) + side * (0.5 * width_m * sin);
        for point in [foot, foot + up.scale(height_m)] {
            let pixel = camera.project(point)?;
            let (x, y) = (pixel.x + 0.5, pixel.y + 0.5);
            all =
                BoundingBox2d { x0: all.x0.min(x), y0: all.y0.min(y), x1: all.x1.max(x), y1: all.y1.max(y) };
        }
    }
    Some(all)
}
