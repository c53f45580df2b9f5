//! A support plane as a thing: the table that no detector has a box for.

use nalgebra::{Isometry3, Matrix3, Matrix6, Point3, Rotation3, UnitQuaternion, Vector3};

use super::{FrameGeometry, LiftedObject, ObjectMask, PoseSource, SupportPlane, quantile};
use crate::detection::BoundingBox2d;

/// Fewer pixels are no surface to put something on.
const MIN_PIXELS: usize = 500;

impl FrameGeometry<'_> {
    /// What is seen of `plane` as an object without height: its box in the image (pixels, edges), its middle and extents. The x axis
    /// points to the viewer's right. `None` where too little of it is seen.
    pub fn surface(&self, plane: &SupportPlane) -> Option<(BoundingBox2d, LiftedObject)> {
        let (width, height) = self.camera.size();
        let view = self.view();
        let up = plane.normal;
        let right = (view.right.into_inner() - up.scale(up.dot(&view.right))).try_normalize(1e-6)?;
        let forward = up.cross(&right);
        let mut is_object = vec![false; width as usize * height as usize];
        let (mut along, mut away, mut columns, mut rows) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut sum = Vector3::zeros();
        for v in 0..height {
            for u in 0..width {
                let Some(point) = self.point(u, v) else { continue };
                if plane.height_m(&point).abs() > 0.004 + 2.0 * self.noise_m(point.z) {
                    continue;
                }
                is_object[(v * width + u) as usize] = true;
                along.push(right.dot(&point.coords));
                away.push(forward.dot(&point.coords));
                columns.push(f64::from(u));
                rows.push(f64::from(v));
                sum += point.coords;
            }
        }
        let n_points = along.len();
        if n_points < MIN_PIXELS {
            return None;
        }
        // A few pixels of other things are at the plane's height.
        let range = |values: &mut Vec<f64>| (quantile(values, 0.02), quantile(values, 0.98));
        let ((left, right_end), (near, far)) = (range(&mut along), range(&mut away));
        let ((x0, x1), (y0, y1)) = (range(&mut columns), range(&mut rows));
        let middle = right.scale(0.5 * (left + right_end)) + forward.scale(0.5 * (near + far))
            - up.scale(plane.camera_height_m);
        let axes =
            Rotation3::from_matrix_unchecked(Matrix3::from_columns(&[right, forward, up.into_inner()]));
        let object_in_camera =
            Isometry3::from_parts(middle.into(), UnitQuaternion::from_rotation_matrix(&axes));
        // Where a surface ends is not seen where it leaves the image: its middle is only known within its extents.
        let size_m = Vector3::new(right_end - left, far - near, 0.0);
        let sigmas = [
            0.25 * size_m.x,
            0.25 * size_m.y,
            plane.height_sigma_m.max(1e-3),
            plane.tilt_sigma.max(1e-3),
            plane.tilt_sigma.max(1e-3),
            0.5,
        ];
        let in_object = Matrix6::from_diagonal(&sigmas.map(|it| it * it).into());
        let mut turn = Matrix6::zeros();
        turn.fixed_view_mut::<3, 3>(0, 0).copy_from(axes.matrix());
        turn.fixed_view_mut::<3, 3>(3, 3).copy_from(axes.matrix());
        let bbox = BoundingBox2d { x0, y0, x1: x1 + 1.0, y1: y1 + 1.0 };
        let lifted = LiftedObject {
            object_in_camera,
            surface_centroid: Point3::from(sum / n_points as f64),
            body_center: Point3::from(middle),
            size_m,
            covariance: turn * in_object * turn.transpose(),
            source: PoseSource::Depth,
            up_source: self.up_source(),
            hollow_depth_m: 0.0,
            unseen_below_m: 0.0,
            is_top_closed: true,
            n_points,
            valid_depth_ratio: 1.0,
            is_back_completed: false,
            plane_residual_m: Some(plane.residual_m),
            is_truncated: true,
            mask: ObjectMask { x0: 0, y0: 0, width, height, is_object },
        };
        Some((bbox, lifted))
    }
}
