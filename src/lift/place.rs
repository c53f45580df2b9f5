//! Where an object could be put down: on top of a thing, into it, or beside it.

use nalgebra::{Isometry3, Point2, Point3, Translation3, Unit, Vector3};

use super::{FrameGeometry, LiftedObject, PoseSource};
use crate::viewpoint::ViewAxes;

/// How the place lies to the destination.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum PlaceRelation {
    On,
    In,
    LeftOf,
    RightOf,
    InFrontOf,
    Behind,
    /// Wherever there is most room.
    NextTo,
    /// On it, as near as there is room to a place within it: (right, forward) from its middle as the viewer sees it, in units of its
    /// half extents, [-1, 1].
    Within(f64, f64),
}

/// What a place is wanted for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PlaceRequest {
    /// How the place lies to the destination.
    pub relation: PlaceRelation,
    /// Half the longer side of the footprint of what is put there, meters.
    pub radius_m: f64,
    /// "5 cm behind the plate": the gap to the destination, meters; `None`: as small as may be.
    pub gap_m: Option<f64>,
}

/// A place for an object.
#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    /// Middle of the free area on the surface, z up from it, x and y as the destination's; the camera's optical frame.
    pub place_in_camera: Isometry3<f64>,
    /// Distance from there to the nearest edge or thing, meters.
    pub clearance_m: f64,
}

/// Cell of the height map, meters.
const CELL_M: f64 = 0.005;
/// Cells whose heights differ by more are different surfaces, meters (plus noise).
const STEP_M: f64 = 0.01;
/// Gap left between things side by side, meters.
const GAP_M: f64 = 0.03;

impl FrameGeometry<'_> {
    /// Where to put something. `None` when no place is seen to be free.
    pub fn place(&self, destination: &LiftedObject, request: &PlaceRequest) -> Option<Place> {
        let view = self.view();
        match request.relation {
            PlaceRelation::On | PlaceRelation::In | PlaceRelation::Within(..)
                if destination.source == PoseSource::SupportPlane =>
            {
                None
            }
            PlaceRelation::In if destination.hollow_depth_m > 0.0 => Some(inside(destination)),
            PlaceRelation::On | PlaceRelation::In => self.place_on(destination, None),
            PlaceRelation::Within(right, forward) => {
                let wanted = within(destination, right, forward, &view);
                self.place_on(destination, Some((wanted, request.radius_m)))
            }
            _ => self.place_beside(destination, request, &view),
        }
    }

    /// Where something is once it was moved by `distance_m` in a direction: its underside's middle, z up.
    pub fn moved(&self, object: &LiftedObject, relation: PlaceRelation, distance_m: f64) -> Option<Place> {
        let [direction] = directions(relation, &self.view())[..] else { return None };
        let up = object.object_in_camera * Vector3::z_axis();
        let level = direction.into_inner() - up.scale(up.dot(&direction));
        let step = level.try_normalize(1e-6)?.scale(distance_m);
        let base = Translation3::new(0.0, 0.0, -0.5 * object.size_m.z);
        let clearance_m = 0.5 * object.size_m.x.max(object.size_m.y);
        let there = Translation3::from(step) * object.object_in_camera * base;
        let free_m = self.free_radius(&Point3::from(there.translation.vector), &up, clearance_m + GAP_M);
        Some(Place { place_in_camera: there, clearance_m: free_m.unwrap_or(0.0) })
    }

    /// The middle of the largest round area of one height on what is seen of the destination; or of the one with room for a radius
    /// that is nearest to a point wanted (of the destination's frame, meters).
    fn place_on(&self, destination: &LiftedObject, wanted: Option<(Point2<f64>, f64)>) -> Option<Place> {
        let camera_from_object = destination.object_in_camera;
        let half = destination.size_m * 0.5;
        let (columns, rows) =
            ((2.0 * half.x / CELL_M).ceil() as usize + 1, (2.0 * half.y / CELL_M).ceil() as usize + 1);
        if 250_000 < columns * rows {
            return None;
        }
        let mut heights: Vec<Vec<f64>> = vec![Vec::new(); columns * rows];
        let mask = &destination.mask;
        for v in mask.y0..mask.y0 + mask.height {
            for u in mask.x0..mask.x0 + mask.width {
                if !mask.contains(u, v) {
                    continue;
                }
                let Some(point) = self.point(u, v) else { continue };
                let it = camera_from_object.inverse_transform_point(&point);
                let (column, row) = ((it.x + half.x) / CELL_M, (it.y + half.y) / CELL_M);
                if 0.0 <= column && 0.0 <= row && (column as usize) < columns && (row as usize) < rows {
                    heights[row as usize * columns + column as usize].push(it.z);
                }
            }
        }
        // A cell's height is its highest: on walls and rims that is the rim.
        let cells: Vec<Option<f64>> =
            heights.iter_mut().map(|it| (!it.is_empty()).then(|| super::quantile(it, 0.9))).collect();
        let cells = filled(&cells, columns, rows);
        let tolerance_m = STEP_M + self.noise_m(destination.body_center.z);
        let mut best: Option<((f64, f64), usize)> = None;
        for (idx, height) in cells.iter().enumerate() {
            let Some(height) = height else { continue };
            let (column, row) = ((idx % columns) as isize, (idx / columns) as isize);
            let is_level = |c: isize, r: isize| {
                let is_inside = 0 <= c && 0 <= r && (c as usize) < columns && (r as usize) < rows;
                is_inside
                    && cells[r as usize * columns + c as usize]
                        .is_some_and(|it| (it - height).abs() <= tolerance_m)
            };
            // Only better places are searched to the end.
            let mut free = 0.0;
            'rings: for ring in 1.. {
                for (c, r) in around(column, row, ring) {
                    if !is_level(c, r) {
                        break 'rings;
                    }
                }
                free = ring as f64;
            }
            // Among equals the one nearest to the middle.
            let from_middle =
                Point2::new(column as f64 - 0.5 * columns as f64, row as f64 - 0.5 * rows as f64)
                    .coords
                    .norm();
            let merit = match wanted {
                None => free - 1e-3 * from_middle,
                Some((at, radius_m)) => {
                    let x = (column as f64 + 0.5) * CELL_M - half.x;
                    let y = (row as f64 + 0.5) * CELL_M - half.y;
                    let has_room = radius_m <= free * CELL_M;
                    f64::from(u8::from(has_room)) * 1e3 - (Point2::new(x, y) - at).norm()
                }
            };
            let merit = (merit, free);
            if best.is_none_or(|(it, _)| it < merit) {
                best = Some((merit, idx));
            }
        }
        let ((_, free), idx) = best?;
        let height = cells[idx]?;
        let at = Translation3::new(
            ((idx % columns) as f64 + 0.5) * CELL_M - half.x,
            ((idx / columns) as f64 + 0.5) * CELL_M - half.y,
            height,
        );
        Some(Place { place_in_camera: camera_from_object * at, clearance_m: (free.max(0.0) + 0.5) * CELL_M })
    }

    /// On the support plane, in a direction from the destination, where nothing stands.
    fn place_beside(
        &self,
        destination: &LiftedObject,
        request: &PlaceRequest,
        view: &ViewAxes,
    ) -> Option<Place> {
        let PlaceRequest { relation, radius_m, gap_m } = *request;
        let up = destination.object_in_camera * Vector3::z_axis();
        let directions = directions(relation, view);
        let base = self.foot(destination, &up);
        let mut best: Option<Place> = None;
        for direction in directions {
            let in_object = destination.object_in_camera.inverse_transform_vector(&direction);
            let half_m =
                0.5 * (in_object.x.abs() * destination.size_m.x + in_object.y.abs() * destination.size_m.y);
            for step in 0..if gap_m.is_some() { 1 } else { 4 } {
                let distance_m = half_m + radius_m + gap_m.unwrap_or(GAP_M * f64::from(step + 1));
                let at = base + direction.scale(distance_m);
                let Some(clearance_m) = self.free_radius(&at, &up, radius_m + GAP_M) else { continue };
                if radius_m <= clearance_m
                    && best.as_ref().is_none_or(|it| it.clearance_m + 1e-3 < clearance_m)
                {
                    let place_in_camera = Isometry3::from_parts(
                        Translation3::from(at.coords),
                        destination.object_in_camera.rotation,
                    );
                    best = Some(Place { place_in_camera, clearance_m });
                }
                if best.is_some() {
                    break;
                }
            }
        }
        best
    }

    /// The middle of a thing's underside, on the plane below it: where its foot is hidden, how far down it reaches is an estimate.
    fn foot(&self, thing: &LiftedObject, up: &Unit<Vector3<f64>>) -> Point3<f64> {
        let base = thing.body_center - up.scale(0.5 * thing.size_m.z);
        let reach_m = (0.5 * thing.size_m.z).max(0.02);
        let heights = self.planes().iter().map(|it| it.height_m(&base)).filter(|it| it.abs() <= reach_m);
        let nearest = heights.min_by(|a, b| a.abs().total_cmp(&b.abs()));
        base - up.scale(nearest.unwrap_or(0.0))
    }

    /// How far from a point of the support nothing stands and the support is seen; `None` when the support is not seen there.
    fn free_radius(&self, at: &Point3<f64>, up: &Unit<Vector3<f64>>, reach_m: f64) -> Option<f64> {
        let pixel = self.camera.project(*at)?;
        let (fx, fy) = self.camera.focal_lengths();
        let (reach_u, reach_v) = (fx * reach_m / at.z, fy * reach_m / at.z);
        let (width, height) = self.camera.size();
        let range = |middle: f64, reach: f64, n: u32| {
            ((middle - reach).floor().max(0.0) as u32)
                ..((middle + reach).ceil().clamp(0.0, f64::from(n)) as u32)
        };
        let (mut n_support, mut clearance_m) = (0, reach_m);
        // Things rise in the image above their base, wherever up is in it: look higher up too.
        let rise = -0.5 * self.down_in_image(at, up);
        let (x, y) = (pixel.x + rise.x * reach_u, pixel.y + rise.y * reach_v);
        for v in range(y, (1.0 + rise.y.abs()) * reach_v, height) {
            for u in range(x, (1.0 + rise.x.abs()) * reach_u, width) {
                let Some(point) = self.point(u, v) else { continue };
                let offset = point - at;
                let height_m = up.dot(&offset);
                let distance_m = (offset - up.scale(height_m)).norm();
                let tolerance_m = 0.008 + 2.0 * self.noise_m(point.z);
                if height_m.abs() <= tolerance_m && distance_m <= reach_m {
                    n_support += 1;
                } else if distance_m < clearance_m && height_m.abs() < 0.5 {
                    // Higher: in the way. Lower: beyond the edge.
                    clearance_m = distance_m;
                }
            }
        }
        (30 <= n_support).then_some(clearance_m)
    }
}

/// Where beside a thing: one direction, or all where any will do.
fn directions(relation: PlaceRelation, view: &ViewAxes) -> Vec<Unit<Vector3<f64>>> {
    match relation {
        PlaceRelation::LeftOf => vec![-view.right],
        PlaceRelation::RightOf => vec![view.right],
        PlaceRelation::InFrontOf => vec![-view.forward],
        PlaceRelation::Behind => vec![view.forward],
        _ => vec![view.right, -view.right, -view.forward, view.forward],
    }
}

/// A place within a thing as the viewer sees it, in the thing's own frame, meters from its middle.
fn within(destination: &LiftedObject, right: f64, forward: f64, view: &ViewAxes) -> Point2<f64> {
    let half = destination.size_m * 0.5;
    let to_object = |axis: &Vector3<f64>, amount: f64| {
        let it = destination.object_in_camera.inverse_transform_vector(axis);
        let reach = it.x.abs() * half.x + it.y.abs() * half.y;
        Point2::new(it.x, it.y).coords * (amount * reach)
    };
    Point2::from(to_object(&view.right, right) + to_object(&view.forward, forward))
}

/// The middle of a vessel, on its bottom as far as that is seen.
fn inside(destination: &LiftedObject) -> Place {
    let bottom = Translation3::new(0.0, 0.0, 0.5 * destination.size_m.z - destination.hollow_depth_m);
    Place {
        place_in_camera: destination.object_in_camera * bottom,
        clearance_m: 0.5 * destination.size_m.y.min(destination.size_m.x),
    }
}

/// Cells without a height but with heights on most sides get their mean: at a distance, pixels are wider than cells.
fn filled(cells: &[Option<f64>], columns: usize, rows: usize) -> Vec<Option<f64>> {
    let mut all = cells.to_vec();
    for row in 0..rows {
        for column in 0..columns {
            if all[row * columns + column].is_some() {
                continue;
            }
            let (mut sum, mut n) = (0.0, 0);
            for r in row.saturating_sub(1)..(row + 2).min(rows) {
                for c in column.saturating_sub(1)..(column + 2).min(columns) {
                    if let Some(height) = cells[r * columns + c] {
                        (sum, n) = (sum + height, n + 1);
                    }
                }
            }
            if 2 <= n {
                all[row * columns + column] = Some(sum / f64::from(n));
            }
        }
    }
    all
}

/// The cells of a circle of `radius` cells, about one per cell of its length.
fn around(column: isize, row: isize, radius: usize) -> impl Iterator<Item = (isize, isize)> {
    let n = 8 * radius;
    (0..n).map(move |it| {
        let (sin, cos) = (std::f64::consts::TAU * it as f64 / n as f64).sin_cos();
        (column + (cos * radius as f64).round() as isize, row + (sin * radius as f64).round() as isize)
    })
}
