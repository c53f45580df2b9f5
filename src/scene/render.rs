//! The ray caster: one ray through every pixel center for depth and mask, a jittered grid of rays for color.

use nalgebra::{Point2, Point3, Vector3};

use super::layout::{Layout, Placed};
use super::random::SceneRng;
use super::shape::Hit;
use super::texture::{fractal_noise, value_noise};
use super::things::{Part, Print};
use crate::camera::PinholeCamera;
use crate::detection::BoundingBox2d;
use crate::image::RgbImage;

type Vec3 = Vector3<f32>;

/// Height of the floor below the table top, meters.
const FLOOR_Z: f32 = -0.75;

/// What the camera saw, before it is described.
pub(super) struct Raw {
    pub(super) image: RgbImage,
    /// Meters along z through every pixel center; NaN where the ray leaves the room.
    pub(super) depth_m: Vec<f32>,
    /// 0 for the room, else object index + 1, at every pixel center.
    pub(super) mask: Vec<u8>,
    pub(super) sightings: Vec<Sighting>,
}

/// What was seen of one object.
#[derive(Debug, Clone)]
pub(super) struct Sighting {
    /// Color rays that hit it first.
    pub(super) visible: u32,
    /// Color rays that would hit it if it were alone.
    pub(super) alone: u32,
    /// Box around the visible rays; `None` when there are none.
    pub(super) bbox: Option<BoundingBox2d>,
    /// Sum of visible surface points at pixel centers, camera frame, and their number.
    pub(super) surface_sum: Vector3<f64>,
    pub(super) surface_points: u32,
}

/// Renders `layout` through `camera` with `samples` x `samples` color rays per pixel; with none, the image stays black and
/// what is seen is counted by pixel centers.
pub(super) fn render(layout: &Layout, camera: &PinholeCamera, samples: u32, seed: u64) -> Raw {
    let (width, height) = camera.size();
    let solids: Vec<Solid<'_>> = layout.objects.iter().map(Solid::new).collect();
    let spans: Vec<Span> = solids.iter().map(|solid| solid.span(layout, camera)).collect();
    let tracer = Tracer { layout, solids: &solids };
    let mut rng = SceneRng::new(seed, 1 << 32);
    let n_pixels = width as usize * height as usize;
    let mut raw = Raw {
        image: RgbImage::new(width, height),
        depth_m: vec![f32::NAN; n_pixels],
        mask: vec![0; n_pixels],
        sightings: vec![Sighting::new(); solids.len()],
    };
    let mut linear = vec![Vec3::zeros(); n_pixels];
    let spacing = 1.0 / samples.max(1) as f32;
    let mut near = Vec::with_capacity(solids.len());
    for row in 0..height {
        for column in 0..width {
            let pixel = (row * width + column) as usize;
            near.clear();
            near.extend((0..solids.len()).filter(|&i| spans[i].holds(column, row)));
            let center = Point2::new(f64::from(column), f64::from(row));
            let (ray, length) = tracer.ray(camera, center);
            let sightings = &mut raw.sightings;
            let mut pass = |index: usize| sightings[index].alone += u32::from(samples == 0);
            if let Some((t, seen)) = tracer.first(&ray, &near, &mut pass) {
                let z = t / length;
                raw.depth_m[pixel] = z;
                if let Seen::Object { index, .. } = seen {
                    raw.mask[pixel] = index as u8 + 1;
                    raw.sightings[index].surface_sum += unprojected(camera, center) * f64::from(z);
                    raw.sightings[index].surface_points += 1;
                    if samples == 0 {
                        raw.sightings[index].add_visible(center + Vector3::repeat(0.5).xy(), 0.5);
                    }
                }
            }
            if samples == 0 {
                continue;
            }
            let mut sum = Vec3::zeros();
            for sample in 0..samples * samples {
                let across = ((sample % samples) as f32 + 0.2 + 0.6 * rng.unit()) * spacing;
                let down = ((sample / samples) as f32 + 0.2 + 0.6 * rng.unit()) * spacing;
                // In image coordinates (edges), so half a pixel from the camera's pixel centers.
                let at = Point2::new(f64::from(column as f32 + across), f64::from(row as f32 + down));
                let (ray, _) = tracer.ray(camera, at - Vector3::repeat(0.5).xy());
                let sightings = &mut raw.sightings;
                let first = tracer.first(&ray, &near, &mut |index| sightings[index].alone += 1);
                if let Some((t, seen)) = first {
                    if let Seen::Object { index, .. } = seen {
                        raw.sightings[index].add_visible(at, f64::from(0.3 * spacing));
                    }
                    sum += tracer.shade(&ray, t, &seen, &mut rng);
                }
            }
            linear[pixel] = sum * (spacing * spacing);
        }
    }
    if samples > 0 {
        develop(layout, &linear, &mut rng, &mut raw.image);
    }
    for sighting in &mut raw.sightings {
        sighting.bbox = sighting.bbox.map(|bbox| bbox.clipped(width, height));
    }
    raw
}

/// The ray through a pixel, z = 1. A scene's camera has no lens, so that every pixel has one.
fn unprojected(camera: &PinholeCamera, pixel: Point2<f64>) -> Vector3<f64> {
    camera.ray(pixel).unwrap_or_else(Vector3::z)
}

struct Ray {
    origin: Vec3,
    /// Length 1.
    direction: Vec3,
}

/// What a ray met first.
enum Seen {
    Object { index: usize, surface: Surface, normal: Vec3 },
    Table,
    Floor,
    Wall,
}

/// What an object is made of where a ray met it.
#[derive(Clone, Copy)]
enum Surface {
    /// The part of this index.
    Part(usize),
    /// A model of this reflectance.
    Model(Vec3),
}

/// An object with what speeds up tests against it.
struct Solid<'a> {
    placed: &'a Placed,
    center: Vec3,
    radius: f32,
}

impl<'a> Solid<'a> {
    fn new(placed: &'a Placed) -> Self {
        let (low, high) = placed.blueprint.bounds;
        let center = placed.world_from_object * Point3::from((low + high) * 0.5);
        Self { placed, center: center.coords, radius: (high - low).norm() * 0.5 }
    }

    fn may_hit(&self, ray: &Ray) -> bool {
        let to_center = self.center - ray.origin;
        let along = to_center.dot(&ray.direction);
        to_center.norm_squared() - along * along <= self.radius * self.radius && along > -self.radius
    }

    /// The nearest meeting, the normal in the world.
    fn hit(&self, ray: &Ray, t_min: f32) -> Option<(Surface, Hit)> {
        let pose = &self.placed.world_from_object;
        let origin = pose.inverse_transform_point(&Point3::from(ray.origin)).coords;
        let direction = pose.inverse_transform_vector(&ray.direction);
        let modeled = self.placed.blueprint.modeled.as_ref();
        let mut best: Option<(Surface, Hit)> = modeled
            .and_then(|it| it.hit(&origin, &direction, t_min))
            .map(|(hit, albedo)| (Surface::Model(albedo), hit));
        for (index, part) in self.placed.blueprint.parts.iter().enumerate() {
            if let Some(hit) = part.shape.hit(&origin, &direction, t_min)
                && best.as_ref().is_none_or(|(_, it)| hit.t < it.t)
            {
                best = Some((Surface::Part(index), hit));
            }
        }
        best.map(|(surface, hit)| (surface, Hit { t: hit.t, normal: pose.rotation * hit.normal }))
    }

    fn is_hit(&self, ray: &Ray, t_min: f32) -> bool {
        let Some(modeled) = &self.placed.blueprint.modeled else { return self.hit(ray, t_min).is_some() };
        let pose = &self.placed.world_from_object;
        let origin = pose.inverse_transform_point(&Point3::from(ray.origin)).coords;
        modeled.is_hit(&origin, &pose.inverse_transform_vector(&ray.direction), t_min)
    }

    /// The pixels that its bounding sphere can cover.
    fn span(&self, layout: &Layout, camera: &PinholeCamera) -> Span {
        let everywhere = Span { columns: (0.0, f64::INFINITY), rows: (0.0, f64::INFINITY) };
        let in_camera = layout.view.world_from_camera.inverse_transform_point(&Point3::from(self.center));
        let nearest_z = in_camera.z - self.radius;
        let Some(center) = camera.project(in_camera.cast::<f64>()) else { return everywhere };
        if nearest_z < 0.02 {
            return everywhere;
        }
        // A sphere seen off axis reaches further than radius / z: bound it by its distance and obliqueness.
        let oblique = f64::from(in_camera.coords.norm() / nearest_z);
        let (fx, fy) = camera.focal_lengths();
        let reach = f64::from(self.radius / nearest_z) * oblique * oblique + 0.02;
        Span {
            columns: (center.x - fx * reach - 1.0, center.x + fx * reach + 1.0),
            rows: (center.y - fy * reach - 1.0, center.y + fy * reach + 1.0),
        }
    }
}

struct Span {
    columns: (f64, f64),
    rows: (f64, f64),
}

impl Span {
    fn holds(&self, column: u32, row: u32) -> bool {
        let (x, y) = (f64::from(column), f64::from(row));
        x >= self.columns.0 && x <= self.columns.1 && y >= self.rows.0 && y <= self.rows.1
    }
}

impl Sighting {
    fn new() -> Self {
        Self { visible: 0, alone: 0, bbox: None, surface_sum: Vector3::zeros(), surface_points: 0 }
    }

    /// `margin`: half the distance that two neighboring rays can leave unseen, pixels.
    fn add_visible(&mut self, at: Point2<f64>, margin: f64) {
        self.visible += 1;
        let seen = [at.x - margin, at.y - margin, at.x + margin, at.y + margin];
        let [x0, y0, x1, y1] = self.bbox.map_or(seen, <[f64; 4]>::from);
        self.bbox = Some(BoundingBox2d {
            x0: x0.min(seen[0]),
            y0: y0.min(seen[1]),
            x1: x1.max(seen[2]),
            y1: y1.max(seen[3]),
        });
    }
}

struct Tracer<'a> {
    layout: &'a Layout,
    solids: &'a [Solid<'a>],
}

impl Tracer<'_> {
    /// The world ray through a pixel (pixel centers are integers) and the length of its z = 1 vector.
    fn ray(&self, camera: &PinholeCamera, pixel: Point2<f64>) -> (Ray, f32) {
        let in_camera = unprojected(camera, pixel).cast::<f32>();
        let length = in_camera.norm();
        let pose = &self.layout.view.world_from_camera;
        (Ray { origin: pose.translation.vector, direction: pose.rotation * (in_camera / length) }, length)
    }

    /// The first surface on a camera ray among the objects `near` it and the room. Calls `on_pass` for every
    /// object that the ray would hit if the object were alone.
    fn first(&self, ray: &Ray, near: &[usize], on_pass: &mut dyn FnMut(usize)) -> Option<(f32, Seen)> {
        let mut best: Option<(f32, Seen)> = None;
        for &index in near {
            let solid = &self.solids[index];
            if !solid.may_hit(ray) {
                continue;
            }
            if let Some((surface, hit)) = solid.hit(ray, 1e-3) {
                on_pass(index);
                if best.as_ref().is_none_or(|(t, _)| hit.t < *t) {
                    best = Some((hit.t, Seen::Object { index, surface, normal: hit.normal }));
                }
            }
        }
        best.or_else(|| self.room(ray))
    }

    fn room(&self, ray: &Ray) -> Option<(f32, Seen)> {
        let room = &self.layout.room;
        if ray.direction.z < -1e-6 {
            let t = -ray.origin.z / ray.direction.z;
            let (x, y) = (ray.origin.x + t * ray.direction.x, ray.origin.y + t * ray.direction.y);
            let [x_min, x_max, y_min, y_max] = room.table;
            if x > x_min && x < x_max && y > y_min && y < y_max {
                return Some((t, Seen::Table));
            }
        }
        let to_floor = (ray.direction.z < -1e-6).then(|| (FLOOR_Z - ray.origin.z) / ray.direction.z);
        let to_wall = (ray.direction.y > 1e-6).then(|| (room.wall_y - ray.origin.y) / ray.direction.y);
        match (to_floor, to_wall) {
            (Some(floor), Some(wall)) if wall < floor => Some((wall, Seen::Wall)),
            (Some(floor), _) => Some((floor, Seen::Floor)),
            (None, Some(wall)) => Some((wall, Seen::Wall)),
            (None, None) => None,
        }
    }

    fn in_shadow(&self, ray: &Ray) -> bool {
        self.solids.iter().any(|solid| solid.may_hit(ray) && solid.is_hit(ray, 2e-4))
    }

    /// Linear RGB of a surface point.
    fn shade(&self, ray: &Ray, t: f32, seen: &Seen, rng: &mut SceneRng) -> Vec3 {
        let Layout { room, lights, .. } = self.layout;
        let point = ray.origin + ray.direction * t;
        let blend = |colors: &[Vec3; 2], share: f32| colors[0] + (colors[1] - colors[0]) * share;
        let (albedo, specular, normal) = match *seen {
            Seen::Object { surface: Surface::Model(albedo), normal, .. } => {
                let facing = if normal.dot(&ray.direction) > 0.0 { -normal } else { normal };
                (albedo, 0.05, facing)
            }
            Seen::Object { index, surface: Surface::Part(part), normal } => {
                let placed = self.solids[index].placed;
                let part = &placed.blueprint.parts[part];
                let facing = if normal.dot(&ray.direction) > 0.0 { -normal } else { normal };
                (printed(part, placed, &point, room.texture_seed + index as u32), part.specular, facing)
            }
            Seen::Table => {
                let (sin, cos) = room.table_angle.sin_cos();
                let (u, v) = (cos * point.x - sin * point.y, sin * point.x + cos * point.y);
                let (u, v) = (u * room.table_scale, v * room.table_scale);
                let albedo = match &room.table_picture {
                    Some(picture) => picture.at(u, v),
                    None => blend(&room.table_colors, room.table_pattern.blend(u, v, room.texture_seed)),
                };
                (albedo, room.table_specular, Vec3::z())
            }
            Seen::Floor => {
                let share = room.floor_pattern.blend(point.x * 3.0, point.y * 3.0, room.texture_seed + 7);
                (blend(&room.floor_colors, share), 0.0, Vec3::z())
            }
            Seen::Wall => {
                let share = fractal_noise(point.x * 2.0, point.z * 2.0, room.texture_seed + 9);
                let panel =
                    value_noise((point.x * 1.7).floor(), (point.z * 1.7).floor(), room.texture_seed + 11);
                let share = if panel < 0.35 { 1.0 - share } else { 0.5 * share };
                (blend(&room.wall_colors, share), 0.0, -Vec3::y())
            }
        };
        let spread = Vec3::new(rng.unit() - 0.5, rng.unit() - 0.5, 0.0) * lights.softness;
        let toward_light = (lights.key_direction + spread).try_normalize(1e-6).unwrap_or_else(Vec3::z);
        let incidence = normal.dot(&toward_light).max(0.0);
        let key = match seen {
            _ if incidence <= 0.0 => 0.0,
            Seen::Floor | Seen::Wall => 0.8,
            _ => {
                let shadow_ray = Ray { origin: point + normal * 3e-4, direction: toward_light };
                if self.in_shadow(&shadow_ray) { 0.0 } else { 1.0 }
            }
        };
        // A cheap stand-in for the table's own shade on what stands on it.
        let contact = match seen {
            Seen::Object { .. } => 0.82 + 0.18 * (point.z / 0.06).clamp(0.0, 1.0),
            _ => 1.0,
        };
        let fill = normal.dot(&lights.fill_direction).max(0.0);
        let light = lights.ambient * (contact * (0.75 + 0.25 * normal.z))
            + lights.key * (incidence * key)
            + lights.fill * fill;
        let halfway = (toward_light - ray.direction).try_normalize(1e-6).unwrap_or(normal);
        let highlight = specular * key * normal.dot(&halfway).max(0.0).powi(40);
        albedo.component_mul(&light) + lights.key * highlight
    }
}

fn printed(part: &Part, placed: &Placed, point: &Vec3, seed: u32) -> Vec3 {
    let factor = match part.print {
        Print::None => return part.albedo,
        Print::Speckled => {
            let p = placed.world_from_object.inverse_transform_point(&Point3::from(*point));
            0.85 + 0.3 * fractal_noise(p.x * 60.0, p.z * 60.0 + p.y * 40.0, seed)
        }
        Print::Bands { per_m } => {
            if (point.z * per_m).rem_euclid(1.0) < 0.5 {
                1.0
            } else {
                0.68
            }
        }
    };
    (part.albedo * factor).map(|c| c.min(1.0))
}

/// Linear light to 8-bit sRGB-like values, with the sensor's blur and noise.
fn develop(layout: &Layout, linear: &[Vec3], rng: &mut SceneRng, image: &mut RgbImage) {
    let sensor = &layout.sensor;
    let (width, height) = image.dimensions();
    let at = |x: i64, y: i64| {
        let (x, y) = (x.clamp(0, i64::from(width) - 1), y.clamp(0, i64::from(height) - 1));
        linear[y as usize * width as usize + x as usize]
    };
    for y in 0..i64::from(height) {
        for x in 0..i64::from(width) {
            let mut color = at(x, y);
            if sensor.blur > 0.0 {
                let around = at(x - 1, y) + at(x + 1, y) + at(x, y - 1) + at(x, y + 1);
                color = color * (1.0 - 4.0 * sensor.blur) + around * sensor.blur;
            }
            let color = color.component_mul(&sensor.gain).map(|c| {
                // A soft shoulder keeps highlights from clipping hard.
                (c / (1.0 + 0.12 * c)).clamp(0.0, 1.0).powf(1.0 / 2.2) * 255.0
            });
            let color = color.map(|c| (c + sensor.noise * rng.bell() + 0.5).clamp(0.0, 255.0) as u8);
            image.put_pixel(x as u32, y as u32, image::Rgb([color.x, color.y, color.z]));
        }
    }
}
