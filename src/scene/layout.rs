//! Where everything is: draws a camera, a room, lights and objects from a seed.

use std::ops::Range;
use std::sync::Arc;

use nalgebra::{Isometry3, Matrix3, Point3, Rotation3, Translation3, UnitQuaternion, Vector3};

use super::color::{Color, linear_from_hsv};
use super::mesh::Texture;
use super::more_things;
use super::random::SceneRng;
use super::texture::Pattern;
use super::things::{Blueprint, Kind, any_angle, build};

type Vec3 = Vector3<f32>;

/// The camera before its resolution is known.
#[derive(Debug, Clone)]
pub(super) struct View {
    /// Camera pose: optical frame (REP 103) in the world.
    pub(super) world_from_camera: Isometry3<f32>,
    /// Half the horizontal field of view, as a tangent.
    pub(super) tan_half_width: f32,
    /// Width over height of what the camera sees.
    pub(super) aspect: f32,
}

/// Table, floor and wall.
#[derive(Debug, Clone)]
pub(super) struct Room {
    /// x and y ranges of the table top, meters: `[x_min, x_max, y_min, y_max]`.
    pub(super) table: [f32; 4],
    pub(super) table_pattern: Pattern,
    /// A picture instead of the pattern.
    pub(super) table_picture: Option<Arc<Texture>>,
    pub(super) table_colors: [Vec3; 2],
    /// Pattern repeats per meter.
    pub(super) table_scale: f32,
    pub(super) table_angle: f32,
    pub(super) table_specular: f32,
    pub(super) floor_pattern: Pattern,
    pub(super) floor_colors: [Vec3; 2],
    pub(super) wall_y: f32,
    pub(super) wall_colors: [Vec3; 2],
    pub(super) texture_seed: u32,
}

/// One soft key light, ambient light from above and a weak fill.
#[derive(Debug, Clone)]
pub(super) struct Lights {
    pub(super) key_direction: Vec3,
    pub(super) key: Vec3,
    /// How far the key light spreads around its direction.
    pub(super) softness: f32,
    pub(super) ambient: Vec3,
    pub(super) fill_direction: Vec3,
    pub(super) fill: Vec3,
}

/// What the sensor adds.
#[derive(Debug, Clone)]
pub(super) struct Sensor {
    pub(super) gain: Vec3,
    /// Weight of each direct neighbor in the blur.
    pub(super) blur: f32,
    /// Standard deviation in gray levels.
    pub(super) noise: f32,
}

/// An object where it stands.
#[derive(Debug, Clone)]
pub(super) struct Placed {
    pub(super) kind: Kind,
    pub(super) color: Color,
    pub(super) world_from_object: Isometry3<f32>,
    pub(super) blueprint: Blueprint,
}

/// Everything the renderer needs.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub(super) view: View,
    pub(super) room: Room,
    pub(super) lights: Lights,
    pub(super) sensor: Sensor,
    pub(super) objects: Vec<Placed>,
}

/// Draws a scene with at least two objects.
pub(super) fn draw(seed: u64) -> Layout {
    // A crowded first draw may leave one object; the next stream of the same seed then decides.
    let mut stream = 0;
    loop {
        let mut rng = SceneRng::new(seed, stream);
        let view = draw_view(&mut rng);
        let room = draw_room(&mut rng);
        let lights = draw_lights(&mut rng);
        let sensor = draw_sensor(&mut rng);
        let objects = draw_objects(&view, &room, &mut rng);
        if objects.len() >= 2 {
            return Layout { view, room, lights, sensor, objects };
        }
        stream += 1;
    }
}

/// A single object somewhere in the view of a camera `distance_m` away.
pub(super) fn draw_lone(seed: u64, kind: Kind, distance_m: f32) -> Layout {
    let mut rng = SceneRng::new(seed, 1 << 33);
    let (pitch, yaw) = (rng.range(25.0, 70.0).to_radians(), rng.range(-0.5, 0.5));
    let backward = Vec3::new(-pitch.cos() * yaw.sin(), -pitch.cos() * yaw.cos(), pitch.sin());
    let reach = 0.25 * distance_m;
    let target = Vec3::new(rng.range(-reach, reach), rng.range(-0.6 * reach, 0.6 * reach), 0.0);
    let world_from_camera = look_at(target + backward * distance_m, target, 0.1 * rng.bell());
    let view = View { world_from_camera, tan_half_width: 0.6, aspect: 4.0 / 3.0 };
    let mut room = draw_room(&mut rng);
    room.table = [-0.8, 0.8, -0.6, 0.6];
    let (lights, sensor) = (draw_lights(&mut rng), draw_sensor(&mut rng));
    let scale = rng.range(0.75, 1.3);
    let color = draw_color(kind, &mut rng);
    let blueprint = build(kind, color, scale, &mut rng);
    let rotation = UnitQuaternion::from_axis_angle(&Vec3::z_axis(), any_angle(&mut rng));
    let world_from_object = Isometry3::from_parts(Translation3::identity(), rotation);
    Layout { view, room, lights, sensor, objects: vec![Placed { kind, color, world_from_object, blueprint }] }
}

/// A camera at `eye` that looks at `target`, image x axis level except for `roll`.
pub(super) fn look_at(eye: Vec3, target: Vec3, roll: f32) -> Isometry3<f32> {
    let forward = (target - eye).try_normalize(1e-9).unwrap_or_else(|| -Vec3::z());
    let right = forward.cross(&Vec3::z()).try_normalize(1e-4).unwrap_or_else(Vec3::x);
    let down = forward.cross(&right);
    let rotation = Rotation3::from_matrix_unchecked(Matrix3::from_columns(&[right, down, forward]));
    let rotation = UnitQuaternion::from_rotation_matrix(&rotation)
        * UnitQuaternion::from_axis_angle(&Vec3::z_axis(), roll);
    Isometry3::from_parts(Translation3::from(eye), rotation)
}

fn draw_view(rng: &mut SceneRng) -> View {
    let aspect = rng.pick(&[1.0, 4.0 / 3.0, 4.0 / 3.0, 4.0 / 3.0, 16.0 / 9.0]);
    let tan_half_width = rng.range(45.0, 66.0).to_radians().mul_add(0.5, 0.0).tan();
    let pitch = if rng.chance(0.85) { rng.range(27.0, 75.0) } else { rng.range(20.0, 89.0) }.to_radians();
    let yaw = rng.range(-0.35, 0.35);
    let distance = (rng.range(0.34f32.ln(), 0.78f32.ln())).exp();
    let target = Vec3::new(rng.range(-0.06, 0.06), rng.range(-0.06, 0.06), 0.03);
    let backward = Vec3::new(-pitch.cos() * yaw.sin(), -pitch.cos() * yaw.cos(), pitch.sin());
    let roll = 0.04 * rng.bell();
    View { world_from_camera: look_at(target + backward * distance, target, roll), tan_half_width, aspect }
}

pub(super) fn draw_room(rng: &mut SceneRng) -> Room {
    let half_width = rng.range(0.4, 0.95);
    let table = [-half_width, half_width, -rng.range(0.4, 0.7), rng.range(0.3, 0.9)];
    let patterns = [
        Pattern::Plain,
        Pattern::Plain,
        Pattern::Plain,
        Pattern::Grain,
        Pattern::Grain,
        Pattern::Checks,
        Pattern::Mottled,
        Pattern::Tiles,
        Pattern::Stripes,
        Pattern::Planks,
        Pattern::Planks,
    ];
    Room {
        table,
        table_pattern: rng.pick(&patterns),
        table_picture: None,
        table_colors: draw_table_colors(rng),
        table_scale: rng.range(1.5, 9.0),
        table_angle: any_angle(rng),
        table_specular: rng.pick(&[0.0, 0.0, 0.1, 0.25]),
        floor_pattern: rng.pick(&[
            Pattern::Plain,
            Pattern::Grain,
            Pattern::Checks,
            Pattern::Tiles,
            Pattern::Planks,
        ]),
        floor_colors: {
            let color = draw_dull_color(rng);
            [color, color * rng.range(0.6, 1.2)]
        },
        wall_y: rng.range(0.9, 2.5),
        wall_colors: [draw_dull_color(rng), draw_dull_color(rng)],
        texture_seed: (rng.unit() * 16_777_216.0) as u32,
    }
}

fn draw_table_colors(rng: &mut SceneRng) -> [Vec3; 2] {
    if rng.chance(0.5) {
        let (hue, saturation, value) = (rng.range(18.0, 40.0), rng.range(0.2, 0.6), rng.range(0.3, 0.9));
        let dark = linear_from_hsv(hue, (saturation * 1.1).min(1.0), value * rng.range(0.55, 0.92));
        [linear_from_hsv(hue, saturation, value), dark]
    } else {
        let color = draw_dull_color(rng);
        [color, (color * rng.range(0.5, 1.3)).map(|c| c.min(1.0))]
    }
}

fn draw_dull_color(rng: &mut SceneRng) -> Vec3 {
    let (hue, saturation) = (rng.range(0.0, 360.0), rng.range(0.0, 0.5) * rng.unit());
    linear_from_hsv(hue, saturation, rng.range(0.15, 0.95))
}

pub(super) fn draw_lights(rng: &mut SceneRng) -> Lights {
    let (azimuth, elevation) = (any_angle(rng), rng.range(32.0, 80.0).to_radians());
    let fill_azimuth = any_angle(rng);
    let warmth = rng.range(-0.08, 0.08);
    let brightness = rng.range(0.85, 1.15);
    let ambient = rng.range(0.28, 0.6);
    let key = rng.range(0.4, 0.75);
    Lights {
        key_direction: Vec3::new(
            azimuth.cos() * elevation.cos(),
            azimuth.sin() * elevation.cos(),
            elevation.sin(),
        ),
        key: Vec3::new(1.0 + warmth, 1.0, 1.0 - warmth) * (key * brightness),
        softness: rng.pick(&[0.03, 0.15, 0.4, 0.8]),
        ambient: Vec3::new(1.0 - 0.4 * warmth, 1.0, 1.0 + 0.4 * warmth) * (ambient * brightness),
        fill_direction: Vec3::new(0.8 * fill_azimuth.cos(), 0.8 * fill_azimuth.sin(), 0.6),
        fill: Vec3::repeat(rng.range(0.0, 0.25)),
    }
}

pub(super) fn draw_sensor(rng: &mut SceneRng) -> Sensor {
    let exposure = rng.range(0.88, 1.15);
    let gain = Vec3::from_fn(|_, _| exposure * (1.0 + rng.range(-0.04, 0.04)));
    let blur = if rng.chance(0.4) { rng.range(0.05, 0.2) } else { 0.0 };
    Sensor { gain, blur, noise: rng.range(0.0, 5.0) }
}

/// A typical color for the kinds that have one, else any.
pub(super) fn draw_color(kind: Kind, rng: &mut SceneRng) -> Color {
    match kind {
        Kind::Banana if rng.chance(0.8) => {
            rng.pick(&[Color::Yellow, Color::Yellow, Color::Yellow, Color::Green])
        }
        Kind::Apple if rng.chance(0.75) => rng.pick(&[Color::Red, Color::Red, Color::Green, Color::Yellow]),
        _ => rng.pick(more_things::colors_of(kind)),
    }
}

fn draw_objects(view: &View, room: &Room, rng: &mut SceneRng) -> Vec<Placed> {
    let wanted = 2 + rng.below(7);
    let family = rng.range(-0.12, 0.12);
    let mut objects: Vec<Placed> = Vec::new();
    let mut taken: Vec<[f32; 3]> = Vec::new();
    for _ in 0..wanted {
        let mut kind = rng.pick(&Kind::ALL);
        let mut color = draw_color(kind, rng);
        if !objects.is_empty() {
            // Confusers: the same kind, the same color, now and then both.
            let other = &objects[rng.below(objects.len())];
            match rng.below(20) {
                0..5 => (kind, color) = (other.kind, rng.pick(&Color::ALL)),
                5..8 => color = other.color,
                8 => (kind, color) = (other.kind, other.color),
                _ => {}
            }
        }
        let scale = (family + 0.14 * rng.bell()).exp().clamp(0.75, 1.4);
        let blueprint = build(kind, color, scale, rng);
        let angle = any_angle(rng);
        for _ in 0..30 {
            let Some((x, y)) = sees(view, room, &blueprint, 0.1..0.62, 1.3, rng) else { continue };
            let circles = outline(&blueprint, x, y, angle);
            if is_clear(&circles, &taken, room) {
                taken.extend(circles);
                let rotation = UnitQuaternion::from_axis_angle(&Vec3::z_axis(), angle);
                let world_from_object = Isometry3::from_parts(Translation3::new(x, y, 0.0), rotation);
                objects.push(Placed { kind, color, world_from_object, blueprint });
                break;
            }
        }
    }
    objects
}

/// The circles of an object that stands at (x, y), turned by `angle`.
pub(super) fn outline(blueprint: &Blueprint, x: f32, y: f32, angle: f32) -> Vec<[f32; 3]> {
    let (sin, cos) = angle.sin_cos();
    let turned = blueprint.footprint.iter();
    turned.map(|&[fx, fy, r]| [x + cos * fx - sin * fy, y + sin * fx + cos * fy, r]).collect()
}

/// Whether circles lie on the table and apart from those taken.
pub(super) fn is_clear(circles: &[[f32; 3]], taken: &[[f32; 3]], room: &Room) -> bool {
    let clear = |a: &[f32; 3], b: &[f32; 3]| (a[0] - b[0]).hypot(a[1] - b[1]) > a[2] + b[2] + 0.008;
    let on_table = |c: &[f32; 3]| {
        let [x_min, x_max, y_min, y_max] = room.table;
        c[0] - c[2] > x_min && c[0] + c[2] < x_max && c[1] - c[2] > y_min && c[1] + c[2] < y_max
    };
    circles.iter().all(|c| on_table(c) && taken.iter().all(|t| clear(c, t)))
}

/// A place on the table whose object center the camera sees, evenly spread over the image rather than the table.
/// `shares`: how much of the image's width the object's diagonal may take.
pub(super) fn sees(
    view: &View,
    room: &Room,
    blueprint: &Blueprint,
    shares: Range<f32>,
    max_depth_m: f32,
    rng: &mut SceneRng,
) -> Option<(f32, f32)> {
    let tan_half_height = view.tan_half_width / view.aspect;
    let (u, v) = (rng.range(-0.84, 0.84), rng.range(-0.84, 0.84));
    let ray = view.world_from_camera.rotation * Vec3::new(u * view.tan_half_width, v * tan_half_height, 1.0);
    let eye = view.world_from_camera.translation.vector;
    let height = 0.5 * (blueprint.bounds.0.z + blueprint.bounds.1.z);
    if ray.z >= -1e-3 {
        return None;
    }
    let z_depth = (height - eye.z) / ray.z;
    // Too near fills the image, too far leaves a speck.
    let extent = (blueprint.bounds.1 - blueprint.bounds.0).norm();
    let share = extent / (2.0 * z_depth * view.tan_half_width);
    if z_depth < 0.15 || !shares.contains(&share) || z_depth > max_depth_m {
        return None;
    }
    let place = Point3::from(eye + ray * z_depth);
    let [x_min, x_max, y_min, y_max] = room.table;
    (place.x > x_min && place.x < x_max && place.y > y_min && place.y < y_max).then_some((place.x, place.y))
}
