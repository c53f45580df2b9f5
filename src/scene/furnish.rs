//! Scenes with models of a mesh library: household objects seen from a robot's head, with furniture and an arm.

use nalgebra::{Isometry3, Translation3, UnitQuaternion, Vector3};

use super::color::Color;
use super::layout::{
    Layout, Placed, Room, View, draw_color, draw_lights, draw_room, draw_sensor, is_clear, look_at, outline,
    sees,
};
use super::mesh::{MeshLibrary, Model, Role};
use super::random::SceneRng;
use super::things::{Blueprint, Kind, Modeled, any_angle, build};

type Vec3 = Vector3<f32>;

/// Streams of a seed from here on draw furnished scenes, those below plain ones.
const FIRST_STREAM: u64 = 1 << 40;

/// Draws a scene with at least two objects, most of them from the library.
pub(super) fn draw(seed: u64, library: &MeshLibrary) -> Layout {
    let mut stream = FIRST_STREAM;
    loop {
        let mut rng = SceneRng::new(seed, stream);
        let view = draw_view(&mut rng);
        let mut room = draw_room(&mut rng);
        if !library.tables.is_empty() && rng.chance(0.6) {
            room.table_picture = Some(library.tables[rng.below(library.tables.len())].clone());
            room.table_scale = rng.range(0.5, 2.5);
        }
        let lights = draw_lights(&mut rng);
        let sensor = draw_sensor(&mut rng);
        let objects = draw_objects(&view, &room, library, &mut rng);
        if objects.len() >= 2 {
            return Layout { view, room, lights, sensor, objects };
        }
        stream += 1;
    }
}

/// A camera on a robot's head or a stand: further away than a wrist camera, objects take 3 to 40 % of the width.
fn draw_view(rng: &mut SceneRng) -> View {
    let aspect = rng.pick(&[1.0, 4.0 / 3.0, 4.0 / 3.0, 4.0 / 3.0, 16.0 / 9.0]);
    let tan_half_width = rng.range(42.0, 66.0).to_radians().mul_add(0.5, 0.0).tan();
    let pitch = if rng.chance(0.8) { rng.range(25.0, 52.0) } else { rng.range(20.0, 85.0) }.to_radians();
    let yaw = rng.range(-0.5, 0.5);
    let distance = (rng.range(0.42f32.ln(), 1.15f32.ln())).exp();
    let target = Vec3::new(rng.range(-0.08, 0.08), rng.range(-0.08, 0.1), 0.04);
    let backward = Vec3::new(-pitch.cos() * yaw.sin(), -pitch.cos() * yaw.cos(), pitch.sin());
    let roll = 0.03 * rng.bell();
    View { world_from_camera: look_at(target + backward * distance, target, roll), tan_half_width, aspect }
}

fn draw_objects(view: &View, room: &Room, library: &MeshLibrary, rng: &mut SceneRng) -> Vec<Placed> {
    let of = |role: Role| library.models.iter().filter(|it| it.role == role).collect::<Vec<_>>();
    let (small, large, arms) = (of(Role::Object), of(Role::Furniture), of(Role::Arm));
    let mut objects: Vec<Placed> = Vec::new();
    let mut taken: Vec<[f32; 3]> = Vec::new();
    // Places on or in furniture: (x, y, height, half the smaller side).
    let mut grounds: Vec<[f32; 4]> = Vec::new();
    if !arms.is_empty() && rng.chance(0.4) {
        let blueprint = modeled(arms[rng.below(arms.len())], None, 1.0);
        let place = Vec3::new(rng.range(-0.25, 0.25), rng.range(0.4, 0.75), rng.range(-0.1, 0.05));
        // The arm's own x axis points from its mount over the table, toward the camera.
        let rotation = UnitQuaternion::from_axis_angle(
            &Vec3::z_axis(),
            -std::f32::consts::FRAC_PI_2 + rng.range(-0.4, 0.4),
        );
        let world_from_object = Isometry3::from_parts(Translation3::from(place), rotation);
        taken.push([place.x, place.y, 0.12]);
        objects.push(Placed { kind: Kind::Modeled, color: Color::White, world_from_object, blueprint });
    }
    let n_large = if large.is_empty() { 0 } else { rng.pick(&[0, 0, 1, 1, 2]) };
    let n_small = 2 + rng.below(7);
    let scale_of_scene = (0.08 * rng.bell()).exp();
    for index in 0..n_large + n_small {
        let furniture = index < n_large;
        let scale = (scale_of_scene * (0.08 * rng.bell()).exp()).clamp(0.8, 1.35);
        let (kind, color, blueprint, model) = if furniture || rng.chance(0.62) {
            let model =
                if furniture { large[rng.below(large.len())] } else { draw_model(&small, &objects, rng) };
            let paint = (model.paint && rng.chance(0.45)).then(|| rng.pick(&Color::ALL));
            let shade = paint.map(|it| it.shade(rng));
            let color = paint.or(model.color).unwrap_or(Color::White);
            (Kind::Modeled, color, modeled(model, paint.zip(shade), scale), Some(model))
        } else {
            let kind = if rng.chance(0.35) { rng.pick(&Kind::ALL) } else { rng.pick(&Kind::FURNISHED) };
            let color = draw_color(kind, rng);
            (kind, color, build(kind, color, scale, rng), None)
        };
        let width = (blueprint.bounds.1 - blueprint.bounds.0).xy().min();
        if !furniture && !grounds.is_empty() && rng.chance(0.18) {
            let at = rng.below(grounds.len());
            let [x, y, height, half] = grounds[at];
            if width < 1.6 * half {
                grounds.swap_remove(at);
                objects.push(stand(kind, color, blueprint, [x, y, height], any_angle(rng)));
                continue;
            }
        }
        // Furniture stands square to the table, more or less.
        let angle = match (furniture, rng.below(4)) {
            (true, 0..3) => std::f32::consts::FRAC_PI_2 * rng.below(4) as f32 + rng.range(-0.3, 0.3),
            _ => any_angle(rng),
        };
        for _ in 0..30 {
            let shares = if furniture { 0.1..0.75 } else { 0.045..0.6 };
            let Some((x, y)) = sees(view, room, &blueprint, shares, 2.2, rng) else { continue };
            let circles = outline(&blueprint, x, y, angle);
            if !is_clear(&circles, &taken, room) {
                continue;
            }
            taken.extend(circles);
            if let Some(model) = model {
                let height = if model.top { Some(blueprint.bounds.1.z) } else { model.floor };
                grounds.extend(height.map(|it| [x, y, it, 0.5 * width]));
            }
            objects.push(stand(kind, color, blueprint, [x, y, 0.0], angle));
            break;
        }
    }
    objects
}

/// Any model, now and then one that is there already.
fn draw_model<'a>(models: &[&'a Model], objects: &[Placed], rng: &mut SceneRng) -> &'a Model {
    if !objects.is_empty() && rng.chance(0.2) {
        let other = &objects[rng.below(objects.len())];
        let twin = other.blueprint.modeled.as_ref();
        if let Some(model) = twin.and_then(|it| models.iter().find(|model| model.name == it.name)) {
            return model;
        }
    }
    models[rng.below(models.len())]
}

fn stand(kind: Kind, color: Color, blueprint: Blueprint, [x, y, z]: [f32; 3], angle: f32) -> Placed {
    let rotation = UnitQuaternion::from_axis_angle(&Vec3::z_axis(), angle);
    let world_from_object = Isometry3::from_parts(Translation3::new(x, y, z), rotation);
    Placed { kind, color, world_from_object, blueprint }
}

fn modeled(model: &Model, paint: Option<(Color, Vec3)>, scale: f32) -> Blueprint {
    let (low, high) = model.mesh.bounds();
    let (low, high) = (low * scale, high * scale);
    let size = high - low;
    let (long, short) = if size.x >= size.y { (size.x, size.y) } else { (size.y, size.x) };
    // Circles along the longer side.
    let n = (long / short.max(0.02)).ceil().clamp(1.0, 8.0);
    let step = long / n;
    let radius = 0.5 * step.hypot(short) * 0.95;
    let footprint = (0..n as usize).map(|i| {
        let along = (i as f32 + 0.5) * step - 0.5 * long;
        let middle = (low + high) * 0.5;
        if size.x >= size.y {
            [middle.x + along, middle.y, radius]
        } else {
            [middle.x, middle.y + along, radius]
        }
    });
    Blueprint {
        parts: Vec::new(),
        footprint: footprint.collect(),
        bounds: (low, high),
        modeled: Some(Modeled { name: model.name.clone(), mesh: model.mesh.clone(), scale, paint }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::io::{Cursor, ErrorKind};

    use super::super::{Scene, SceneConfig};
    use super::*;
    use crate::scene::tests::outside_m;

    /// A library of one blue die of 6 cm and one shelf of 30 cm on which things may stand.
    fn library() -> MeshLibrary {
        let mut files = HashMap::new();
        for (name, side, color) in [("die", 0.06f32, "0 0 0.8"), ("shelf", 0.3, "0.8 0.8 0.8")] {
            let mut text = format!("mtllib {name}.mtl\nusemtl m\nvt 0.5 0.5\n");
            for i in 0..8 {
                let at = |bit: i32| if i >> bit & 1 == 1 { 0.5 * side } else { -0.5 * side };
                text += &format!("v {} {} {}\n", at(0), at(1), at(2) + 0.5 * side);
            }
            for quad in [[1, 2, 4, 3], [5, 6, 8, 7], [1, 2, 6, 5], [3, 4, 8, 7], [1, 3, 7, 5], [2, 4, 8, 6]] {
                let [a, b, c, d] = quad;
                text += &format!("f {a}/1 {b}/1 {c}/1\nf {a}/1 {c}/1 {d}/1\n");
            }
            files.insert(format!("{name}.obj"), text.into_bytes());
            let material = format!("newmtl m\nKd {color}\nmap_Kd {name}.png\n");
            files.insert(format!("{name}.mtl"), material.into_bytes());
            let pixel = if name == "die" { [0, 0, 200] } else { [200, 200, 200] };
            let mut png = Cursor::new(Vec::new());
            image::RgbImage::from_pixel(2, 2, image::Rgb(pixel))
                .write_to(&mut png, image::ImageFormat::Png)
                .unwrap();
            files.insert(format!("{name}.png"), png.into_inner());
        }
        let manifest = r#"{"models": [{"name": "die", "color": "blue", "role": "object", "paint": true},
            {"name": "shelf", "color": "gray", "role": "furniture", "top": true}], "tables": ["shelf.png"]}"#;
        files.insert("manifest.json".to_owned(), manifest.as_bytes().to_vec());
        MeshLibrary::load(&|name| files.get(name).cloned().ok_or_else(|| ErrorKind::NotFound.into())).unwrap()
    }

    #[test]
    fn furnished_scenes_repeat_and_their_depth_lies_on_the_models() {
        let library = library();
        let (mut painted, mut raised) = (0, 0);
        for seed in 0..40 {
            let render = || Scene::furnished(seed, &library, &SceneConfig::camera(96, 72)).unwrap().render();
            let seen = render();
            assert!(seen.objects.len() >= 2);
            if seed < 3 {
                assert_eq!(seen.image, render().image);
            }
            for (index, object) in seen.objects.iter().enumerate() {
                assert_eq!(object.model.is_some(), object.kind == Kind::Modeled);
                let Some((name, paint)) = &object.model else { continue };
                painted += usize::from(paint.is_some());
                raised += usize::from(object.world_from_object.translation.z > 0.1);
                let side = if name == "die" { 0.06 } else { 0.3 };
                assert!((object.size_m.z / side).ln().abs() < 0.35, "{name} {}", object.size_m);
                for pixel in (0..96 * 72u32).filter(|&it| usize::from(seen.mask[it as usize]) == index + 1) {
                    let (u, v) = (pixel % 96, pixel / 96);
                    assert!(outside_m(&seen, object, u, v) < 1e-4);
                }
            }
        }
        assert!(painted > 5 && raised > 0, "{painted} painted, {raised} on furniture");
    }
}
