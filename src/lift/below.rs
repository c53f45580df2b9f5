//! What the image shows right below an object: what it stands on, something else, or what hides its foot.

use std::collections::BTreeMap;

use nalgebra::{Point3, Vector2};

use super::segment::Window;
use super::{FrameGeometry, SupportPlane};

/// What is seen below an object, by lines in the direction of falling things.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Below {
    /// Of the lines that show it, the share that shows the plane with nothing in between: then the plane is what it stands on, even where
    /// its round underside is hidden. In [0, 1].
    pub(super) plane_share: f64,
    /// Of all lines, the share that says nothing: something nearer is in the way down to the plane. In [0, 1].
    pub(super) hidden_share: f64,
}

/// What one line shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    Plane,
    Other,
    /// Something nearer, all the way down to the plane.
    Hidden,
    /// No depth.
    Nothing,
}

impl FrameGeometry<'_> {
    /// What is below the object at `pixels` of `window`, which `plane` lies under. `down` is the image's direction of falling things at the
    /// object, of length 1.
    pub(super) fn below(
        &self,
        window: &Window,
        pixels: &[usize],
        plane: &SupportPlane,
        down: Vector2<f64>,
    ) -> Below {
        let width = window.width as usize;
        // Of each line along `down`, the last pixel of the object.
        let mut last: BTreeMap<i64, (f64, usize)> = BTreeMap::new();
        for &idx in pixels {
            let at = Vector2::new((idx % width) as f64, (idx / width) as f64);
            let (along, across) = (down.dot(&at), down.perp(&at).round() as i64);
            let lowest = last.entry(across).or_insert((along, idx));
            if lowest.0 < along {
                *lowest = (along, idx);
            }
        }
        let shown: Vec<Shown> =
            last.values().map(|(_, idx)| self.shown_below(window, *idx, plane, down)).collect();
        let count = |what: Shown| shown.iter().filter(|it| **it == what).count() as f64;
        let (n_plane, n_other, n_hidden) = (count(Shown::Plane), count(Shown::Other), count(Shown::Hidden));
        Below {
            plane_share: n_plane / (n_plane + n_other).max(1.0),
            hidden_share: n_hidden / (n_plane + n_other + n_hidden).max(1.0),
        }
    }

    fn shown_below(&self, window: &Window, idx: usize, plane: &SupportPlane, down: Vector2<f64>) -> Shown {
        let (width, height) = (window.width as usize, window.height as usize);
        let at = Vector2::new((idx % width) as f64, (idx / width) as f64);
        // Two pixels down: the first may mix both surfaces.
        let below = at + 2.0 * down;
        let (x, y) = (below.x.round(), below.y.round());
        if x < 0.0 || y < 0.0 || width as f64 <= x || height as f64 <= y {
            // Out of the image: what it stands on is not seen, and things mostly stand.
            return Shown::Plane;
        }
        let is_on_plane = |it: Point3<f64>| plane.height_m(&it).abs() <= 2.0 * self.height_tolerance_m(it.z);
        let is_hidden = || window.points[idx].is_some_and(|own| self.is_hidden_to(plane, &own, window));
        match window.points[y as usize * width + x as usize] {
            Some(seen) if is_on_plane(seen) => Shown::Plane,
            _ if is_hidden() => Shown::Hidden,
            Some(_) => Shown::Other,
            None => Shown::Nothing,
        }
    }

    /// Whether something nearer is in the way from `own`, the lowest point that is seen, straight down to the plane. What goes on from it
    /// without a jump in depth is no occluder: it may be what the thing stands on.
    fn is_hidden_to(&self, plane: &SupportPlane, own: &Point3<f64>, window: &Window) -> bool {
        const N_STEPS: usize = 24;
        let gap_m = plane.height_m(own);
        let foot = own - plane.normal.scale(gap_m);
        let Some((from, to)) = self.camera.project(*own).zip(self.camera.project(foot)) else { return false };
        let length_px = (to - from).norm();
        let first_px = 2.0 * f64::from(window.stride);
        if length_px <= first_px {
            return false;
        }
        let nearer_by = |pixels: f64| -> Option<f64> {
            let share = (pixels / length_px).min(1.0);
            let at = from + (to - from) * share;
            // Where a point of the upright through `own` would be seen there.
            let ray = self.camera.ray(at)?;
            let normal = own.coords - plane.normal.scale(plane.normal.dot(&own.coords));
            let expected_z = normal.norm_squared() / normal.dot(&ray).max(1e-9);
            let (u, v) = (at.x.round(), at.y.round());
            let is_inside = 0.0 <= u && 0.0 <= v;
            let seen = self.point(is_inside.then_some(u as u32)?, v as u32)?;
            Some(expected_z - seen.z)
        };
        let step_m = self.step_m(window, own.z);
        let jump_m = [1.0, 1.5, 2.0].into_iter().find_map(|it| nearer_by(it * first_px).map(|by| (it, by)));
        let Some((at, jump_m)) = jump_m else { return false };
        // A surface that leads toward the viewer from its foot comes nearer as much on the next pixels as on these.
        let slope_m = nearer_by(2.0 * at * first_px).map_or(0.0, |it| (it - jump_m).max(0.0));
        if jump_m - slope_m <= step_m {
            return false;
        }
        let (mut n_nearer, mut n_seen) = (0_usize, 0_usize);
        for step in 0..N_STEPS {
            let pixels = first_px + (length_px - first_px) * step as f64 / (N_STEPS - 1) as f64;
            if let Some(by) = nearer_by(pixels) {
                n_seen += 1;
                n_nearer += usize::from(step_m < by);
            }
        }
        10 * n_nearer >= 9 * n_seen
    }
}
