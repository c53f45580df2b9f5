//! Analytic primitives: where a ray meets them, and the box around them. Everything in the object's frame, meters.

use nalgebra::Vector3;

type Vec3 = Vector3<f32>;

/// A primitive surface. Frusta and discs stand on the object's z axis and are seen from both sides.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    /// Axis-aligned, by center and radii.
    Ellipsoid { center: Vec3, radii: Vec3 },
    /// Axis-aligned, by center and half extents.
    Cuboid { center: Vec3, half: Vec3 },
    /// The open side of a cone section: radius `r0` at `z0` to `r1` at `z1`, z0 < z1.
    Frustum { z0: f32, r0: f32, z1: f32, r1: f32 },
    /// A flat ring (or disc, with `inner` 0) at height `z`.
    Ring { z: f32, inner: f32, outer: f32 },
    /// All points within `radius` of the segment.
    Capsule { a: Vec3, b: Vec3, radius: f32 },
}

/// Where a ray meets a surface.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hit {
    /// The ray's parameter: origin + t * direction.
    pub(super) t: f32,
    /// Unit normal, either side.
    pub(super) normal: Vec3,
}

impl Shape {
    /// The first meeting after `t_min`. `direction` has length 1.
    pub(super) fn hit(&self, origin: &Vec3, direction: &Vec3, t_min: f32) -> Option<Hit> {
        match *self {
            Self::Ellipsoid { center, radii } => hit_ellipsoid(&center, &radii, origin, direction, t_min),
            Self::Cuboid { center, half } => hit_cuboid(&center, &half, origin, direction, t_min),
            Self::Frustum { z0, r0, z1, r1 } => hit_frustum([z0, r0, z1, r1], origin, direction, t_min),
            Self::Ring { z, inner, outer } => {
                if direction.z.abs() < 1e-9 {
                    return None;
                }
                let t = (z - origin.z) / direction.z;
                let (x, y) = (origin.x + t * direction.x, origin.y + t * direction.y);
                let r2 = x * x + y * y;
                (t > t_min && r2 >= inner * inner && r2 <= outer * outer)
                    .then(|| Hit { t, normal: Vec3::z() })
            }
            Self::Capsule { a, b, radius } => hit_capsule(&a, &b, radius, origin, direction, t_min),
        }
    }

    /// The axis-aligned box around the surface: (lowest corner, highest corner).
    pub(super) fn bounds(&self) -> (Vec3, Vec3) {
        match *self {
            Self::Ellipsoid { center, radii } => (center - radii, center + radii),
            Self::Cuboid { center, half } => (center - half, center + half),
            Self::Frustum { z0, r0, z1, r1 } => {
                let r = r0.max(r1);
                (Vec3::new(-r, -r, z0), Vec3::new(r, r, z1))
            }
            Self::Ring { z, outer, .. } => (Vec3::new(-outer, -outer, z), Vec3::new(outer, outer, z)),
            Self::Capsule { a, b, radius } => (a.inf(&b).add_scalar(-radius), a.sup(&b).add_scalar(radius)),
        }
    }
}

fn hit_ellipsoid(center: &Vec3, radii: &Vec3, origin: &Vec3, direction: &Vec3, t_min: f32) -> Option<Hit> {
    let o = (origin - center).component_div(radii);
    let d = direction.component_div(radii);
    let (a, b, c) = (d.dot(&d), o.dot(&d), o.dot(&o) - 1.0);
    let discriminant = b * b - a * c;
    if discriminant < 0.0 {
        return None;
    }
    let root = discriminant.sqrt();
    let t = [(-b - root) / a, (-b + root) / a].into_iter().find(|&t| t > t_min)?;
    Some(Hit { t, normal: unit((o + d * t).component_div(radii)) })
}

fn hit_cuboid(center: &Vec3, half: &Vec3, origin: &Vec3, direction: &Vec3, t_min: f32) -> Option<Hit> {
    let (mut enter, mut leave) = (f32::NEG_INFINITY, f32::INFINITY);
    let mut normal = Vec3::zeros();
    for axis in 0..3 {
        let d = if direction[axis].abs() < 1e-9 { 1e-9 } else { direction[axis] };
        let near = (center[axis] - half[axis] * d.signum() - origin[axis]) / d;
        let far = (center[axis] + half[axis] * d.signum() - origin[axis]) / d;
        if near > enter {
            enter = near;
            normal = Vec3::zeros();
            normal[axis] = -d.signum();
        }
        leave = leave.min(far);
    }
    (enter <= leave && enter > t_min).then_some(Hit { t: enter, normal })
}

fn hit_frustum([z0, r0, z1, r1]: [f32; 4], origin: &Vec3, direction: &Vec3, t_min: f32) -> Option<Hit> {
    // x^2 + y^2 = r(z)^2 with r(z) linear in z, so quadratic in t.
    let slope = (r1 - r0) / (z1 - z0);
    let (radius, growth) = (r0 + slope * (origin.z - z0), slope * direction.z);
    let a = direction.x * direction.x + direction.y * direction.y - growth * growth;
    let b = origin.x * direction.x + origin.y * direction.y - radius * growth;
    let c = origin.x * origin.x + origin.y * origin.y - radius * radius;
    let discriminant = b * b - a * c;
    if a.abs() < 1e-9 || discriminant < 0.0 {
        return None;
    }
    let root = discriminant.sqrt();
    let (t0, t1) = ((-b - root) / a, (-b + root) / a);
    for t in [t0.min(t1), t0.max(t1)] {
        let z = origin.z + t * direction.z;
        if t > t_min && (z0..=z1).contains(&z) {
            let (x, y) = (origin.x + t * direction.x, origin.y + t * direction.y);
            let r = (x * x + y * y).sqrt().max(1e-9);
            return Some(Hit { t, normal: unit(Vec3::new(x / r, y / r, -slope)) });
        }
    }
    None
}

/// The outside of a capsule: the nearer root of its round wall, else of the end spheres.
fn hit_capsule(a: &Vec3, b: &Vec3, radius: f32, origin: &Vec3, direction: &Vec3, t_min: f32) -> Option<Hit> {
    let axis = b - a;
    let from_a = origin - a;
    let length2 = axis.dot(&axis);
    let (axis_d, axis_o) = (axis.dot(direction), axis.dot(&from_a));
    let qa = length2 - axis_d * axis_d;
    let qb = length2 * from_a.dot(direction) - axis_o * axis_d;
    let qc = length2 * from_a.dot(&from_a) - axis_o * axis_o - radius * radius * length2;
    let discriminant = qb * qb - qa * qc;
    if discriminant < 0.0 {
        return None;
    }
    if qa > 1e-12 {
        let t = (-qb - discriminant.sqrt()) / qa;
        let along = axis_o + t * axis_d;
        if along > 0.0 && along < length2 {
            let normal = (from_a + direction * t - axis * (along / length2)) / radius;
            return (t > t_min).then(|| Hit { t, normal: unit(normal) });
        }
    }
    let radii = Vec3::repeat(radius);
    let ends = [a, b].map(|center| hit_ellipsoid(center, &radii, origin, direction, t_min));
    ends.into_iter().flatten().min_by(|p, q| p.t.total_cmp(&q.t))
}

fn unit(v: Vec3) -> Vec3 {
    v.try_normalize(1e-12).unwrap_or_else(Vec3::z)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(shape: Shape, origin: [f32; 3], toward: [f32; 3], expected_point: Option<[f32; 3]>) {
        let (origin, toward) = (Vec3::from(origin), Vec3::from(toward));
        let direction = unit(toward - origin);
        let point = shape.hit(&origin, &direction, 1e-4).map(|hit| {
            assert!((hit.normal.norm() - 1.0).abs() < 1e-4, "{shape:?}: normal {}", hit.normal);
            origin + direction * hit.t
        });
        match (point, expected_point.map(Vec3::from)) {
            (Some(got), Some(want)) => assert!((got - want).norm() < 1e-4, "{shape:?}: {got} is not {want}"),
            (None, None) => {}
            (got, want) => panic!("{shape:?}: expected {want:?}, got {got:?}"),
        }
    }

    #[test]
    fn rays_meet_shapes_where_geometry_says() {
        let ball = Shape::Ellipsoid { center: Vec3::zeros(), radii: Vec3::new(1.0, 2.0, 3.0) };
        check(ball, [5.0, 0.0, 0.0], [0.0, 0.0, 0.0], Some([1.0, 0.0, 0.0]));
        check(ball, [0.0, 0.0, 9.0], [0.0, 0.0, 0.0], Some([0.0, 0.0, 3.0]));
        check(ball, [5.0, 0.0, 3.1], [0.0, 0.0, 3.1], None);
        let cube = Shape::Cuboid { center: Vec3::zeros(), half: Vec3::new(1.0, 2.0, 3.0) };
        check(cube, [0.5, 9.0, 0.5], [0.5, 0.0, 0.5], Some([0.5, 2.0, 0.5]));
        check(cube, [1.5, 9.0, 0.5], [1.5, 0.0, 0.5], None);
        let cone = Shape::Frustum { z0: 0.0, r0: 2.0, z1: 2.0, r1: 1.0 };
        check(cone, [9.0, 0.0, 1.0], [0.0, 0.0, 1.0], Some([1.5, 0.0, 1.0]));
        check(cone, [0.0, 0.0, 1.0], [-9.0, 0.0, 1.0], Some([-1.5, 0.0, 1.0]));
        check(cone, [9.0, 0.0, 2.1], [0.0, 0.0, 2.1], None);
        let ring = Shape::Ring { z: 1.0, inner: 1.0, outer: 2.0 };
        check(ring, [1.5, 0.0, 9.0], [1.5, 0.0, 0.0], Some([1.5, 0.0, 1.0]));
        check(ring, [0.5, 0.0, 9.0], [0.5, 0.0, 0.0], None);
        let pill = Shape::Capsule { a: Vec3::zeros(), b: Vec3::new(4.0, 0.0, 0.0), radius: 1.0 };
        check(pill, [2.0, 9.0, 0.0], [2.0, 0.0, 0.0], Some([2.0, 1.0, 0.0]));
        check(pill, [9.0, 0.0, 0.0], [2.0, 0.0, 0.0], Some([5.0, 0.0, 0.0]));
        check(pill, [-1.1, 9.0, 0.0], [-1.1, 0.0, 0.0], None);
    }

    #[test]
    fn bounds_hold_the_shape() {
        let pill = Shape::Capsule { a: Vec3::zeros(), b: Vec3::new(4.0, 1.0, 0.0), radius: 1.0 };
        assert_eq!(pill.bounds(), (Vec3::new(-1.0, -1.0, -1.0), Vec3::new(5.0, 2.0, 1.0)));
    }
}
