//! What stands on the table: kinds and colors, and how each kind is built from primitives.

use std::f32::consts::{FRAC_PI_2, TAU};
use std::sync::Arc;

use nalgebra::Vector3;
use serde::{Deserialize, Serialize};

use super::color::Color;
use super::mesh::Mesh;
use super::random::SceneRng;
use super::shape::{Hit, Shape};

type Vec3 = Vector3<f32>;

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Kind {
    Cup,
    Bowl,
    Bottle,
    Box,
    Ball,
    Plate,
    Can,
    Banana,
    Marker,
    Apple,
    Pear,
    Egg,
    Carrot,
    Mushroom,
    Candle,
    Vase,
    Jar,
    Teapot,
    Pitcher,
    Goblet,
    Spoon,
    Fork,
    Knife,
    Hammer,
    Screwdriver,
    Donut,
    Lamp,
    Cone,
    Bucket,
    /// A model of a [`MeshLibrary`](super::MeshLibrary), never drawn without one: `SceneObject::model` names it.
    Modeled,
}

impl Kind {
    /// The kinds of plain scenes.
    pub const ALL: [Self; 10] = [
        Self::Cup,
        Self::Bowl,
        Self::Bottle,
        Self::Box,
        Self::Ball,
        Self::Plate,
        Self::Can,
        Self::Banana,
        Self::Marker,
        Self::Apple,
    ];

    /// Kinds that only furnished scenes have besides, built from primitives too.
    pub const FURNISHED: [Self; 19] = [
        Self::Pear,
        Self::Egg,
        Self::Carrot,
        Self::Mushroom,
        Self::Candle,
        Self::Vase,
        Self::Jar,
        Self::Teapot,
        Self::Pitcher,
        Self::Goblet,
        Self::Spoon,
        Self::Fork,
        Self::Knife,
        Self::Hammer,
        Self::Screwdriver,
        Self::Donut,
        Self::Lamp,
        Self::Cone,
        Self::Bucket,
    ];

    /// The plain English noun.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cup => "cup",
            Self::Bowl => "bowl",
            Self::Bottle => "bottle",
            Self::Box => "box",
            Self::Ball => "ball",
            Self::Plate => "plate",
            Self::Can => "can",
            Self::Banana => "banana",
            Self::Marker => "marker",
            Self::Apple => "apple",
            Self::Pear => "pear",
            Self::Egg => "egg",
            Self::Carrot => "carrot",
            Self::Mushroom => "mushroom",
            Self::Candle => "candle",
            Self::Vase => "vase",
            Self::Jar => "jar",
            Self::Teapot => "teapot",
            Self::Pitcher => "pitcher",
            Self::Goblet => "goblet",
            Self::Spoon => "spoon",
            Self::Fork => "fork",
            Self::Knife => "knife",
            Self::Hammer => "hammer",
            Self::Screwdriver => "screwdriver",
            Self::Donut => "donut",
            Self::Lamp => "lamp",
            Self::Cone => "cone",
            Self::Bucket => "bucket",
            Self::Modeled => "model",
        }
    }
}

/// What is printed on a part.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Print {
    None,
    Speckled,
    /// Bands along z, `per_m` to the meter.
    Bands {
        per_m: f32,
    },
}

/// A primitive with its looks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    pub(super) shape: Shape,
    /// Linear RGB reflectance.
    pub(super) albedo: Vec3,
    /// Strength of the highlight, 0 = matte.
    pub(super) specular: f32,
    pub(super) print: Print,
}

/// An object before it is placed: it stands on z = 0 around the z axis of its own frame.
#[derive(Debug, Clone)]
pub(super) struct Blueprint {
    pub(super) parts: Vec<Part>,
    /// Circles (x, y, radius) that cover the outline seen from above.
    pub(super) footprint: Vec<[f32; 3]>,
    /// Box around all parts: lowest and highest corner.
    pub(super) bounds: (Vec3, Vec3),
    /// What it is made of besides the parts.
    pub(super) modeled: Option<Modeled>,
}

/// A model of the library, as it stands in a scene.
#[derive(Debug, Clone)]
pub(super) struct Modeled {
    pub(super) name: Arc<str>,
    pub(super) mesh: Arc<Mesh>,
    pub(super) scale: f32,
    /// Its color instead of its own ones, and the shade of it; the texture's brightness stays.
    pub(super) paint: Option<(Color, Vec3)>,
}

impl Modeled {
    /// The first meeting after `t_min` and its reflectance.
    pub(super) fn hit(&self, origin: &Vec3, direction: &Vec3, t_min: f32) -> Option<(Hit, Vec3)> {
        let (hit, own) = self.mesh.hit(&(origin / self.scale), direction, t_min / self.scale)?;
        let albedo = match &self.paint {
            // Mean brightness 0.5 keeps the shade as it is.
            Some((_, shade)) => shade * (0.55 + 0.6 * own.mean().sqrt()),
            None => own,
        };
        Some((Hit { t: hit.t * self.scale, ..hit }, albedo.map(|it| it.min(1.0))))
    }

    /// Whether there is any meeting after `t_min`.
    pub(super) fn is_hit(&self, origin: &Vec3, direction: &Vec3, t_min: f32) -> bool {
        self.mesh.is_hit(&(origin / self.scale), direction, t_min / self.scale)
    }
}

/// Builds one object: `scale` 1 is life size.
pub(super) fn build(kind: Kind, color: Color, scale: f32, rng: &mut SceneRng) -> Blueprint {
    let albedo = color.shade(rng);
    let specular = if rng.chance(0.7) { rng.range(0.0, 0.5) } else { 0.0 };
    let print = match rng.below(8) {
        0 => Print::Speckled,
        1 if matches!(kind, Kind::Cup | Kind::Can | Kind::Bottle | Kind::Bowl) => {
            Print::Bands { per_m: rng.range(40.0, 110.0) / scale }
        }
        _ => Print::None,
    };
    let mut builder = Builder { parts: Vec::new(), albedo, specular, print };
    let footprint = match kind {
        Kind::Cup => builder.cup(scale, rng),
        Kind::Bowl => builder.bowl(scale, rng),
        Kind::Bottle => builder.bottle(color, scale, rng),
        Kind::Box => builder.cuboid(scale, rng),
        Kind::Ball => builder.ball(color, scale, rng),
        Kind::Plate => builder.plate(color, scale, rng),
        Kind::Can => builder.can(scale, rng),
        Kind::Banana => builder.banana(scale, rng),
        Kind::Marker => builder.marker(scale, rng),
        Kind::Apple => builder.apple(scale, rng),
        Kind::Modeled => unreachable!("models are not built from primitives"),
        other => builder.furnished(other, scale, rng),
    };
    let mut bounds = (Vec3::repeat(f32::INFINITY), Vec3::repeat(f32::NEG_INFINITY));
    for part in &builder.parts {
        let (low, high) = part.shape.bounds();
        bounds = (bounds.0.inf(&low), bounds.1.sup(&high));
    }
    Blueprint { parts: builder.parts, footprint, bounds, modeled: None }
}

pub(super) struct Builder {
    parts: Vec<Part>,
    albedo: Vec3,
    specular: f32,
    print: Print,
}

pub(super) type Footprint = Vec<[f32; 3]>;

impl Builder {
    /// A part in the object's own color.
    pub(super) fn add(&mut self, shape: Shape) {
        self.parts.push(Part { shape, albedo: self.albedo, specular: self.specular, print: self.print });
    }

    /// A part in another color, without print.
    pub(super) fn add_in(&mut self, shape: Shape, albedo: Vec3, specular: f32) {
        self.parts.push(Part { shape, albedo, specular, print: Print::None });
    }

    /// A surface of revolution through (z, radius) points, in the object's own color or another.
    pub(super) fn lathe(&mut self, profile: &[(f32, f32)], other: Option<Vec3>) {
        for pair in profile.windows(2) {
            let (mut low, mut high) = (pair[0], pair[1]);
            let shape = if (low.0 - high.0).abs() < 1e-5 {
                Shape::Ring { z: low.0, inner: low.1.min(high.1), outer: low.1.max(high.1) }
            } else {
                if low.0 > high.0 {
                    std::mem::swap(&mut low, &mut high);
                }
                Shape::Frustum { z0: low.0, r0: low.1, z1: high.0, r1: high.1 }
            };
            match other {
                None => self.add(shape),
                Some(albedo) => self.add_in(shape, albedo, self.specular),
            }
        }
    }

    /// The inside of a vessel: often the same color, sometimes a light glaze.
    pub(super) fn inside(&self, rng: &mut SceneRng) -> Vec3 {
        if rng.chance(0.7) { self.albedo * rng.range(0.65, 1.0) } else { Vec3::repeat(0.8) }
    }

    fn cup(&mut self, scale: f32, rng: &mut SceneRng) -> Footprint {
        let height = 0.09 * scale * rng.range(0.85, 1.15);
        let top = 0.04 * scale * rng.range(0.9, 1.12);
        let bottom = top * rng.range(0.72, 1.0);
        let wall = 0.003 * scale;
        let inside = self.inside(rng);
        self.lathe(&[(0.0, 0.0), (0.0, bottom), (height, top), (height, top - wall)], None);
        self.lathe(&[(height, top - wall), (0.005, bottom - wall), (0.005, 0.0)], Some(inside));
        if rng.chance(0.25) {
            let level = height * rng.range(0.6, 0.88);
            let drink = rng.pick(&[[0.05, 0.02, 0.008], [0.5, 0.3, 0.1], [0.8, 0.75, 0.65]]);
            self.add_in(Shape::Ring { z: level, inner: 0.0, outer: top - wall }, Vec3::from(drink), 0.3);
        }
        let mut footprint = vec![[0.0, 0.0, top]];
        if rng.chance(0.8) {
            let reach = height * rng.range(0.27, 0.34);
            let start = 0.5 * (top + bottom) - 0.002;
            let points: Vec<Vec3> = (0..7)
                .map(|i| {
                    let angle = -FRAC_PI_2 + i as f32 / 6.0 * std::f32::consts::PI;
                    Vec3::new(start + reach * angle.cos(), 0.0, height * 0.52 + reach * angle.sin())
                })
                .collect();
            for pair in points.windows(2) {
                self.add(Shape::Capsule { a: pair[0], b: pair[1], radius: 0.006 * scale });
            }
            footprint.push([start + 0.5 * reach, 0.0, 0.6 * reach]);
        }
        footprint
    }

    fn bowl(&mut self, scale: f32, rng: &mut SceneRng) -> Footprint {
        let height = 0.055 * scale * rng.range(0.85, 1.25);
        let radius = 0.072 * scale * rng.range(0.9, 1.12);
        let wall = 0.004;
        let curve: Vec<(f32, f32)> = (0..6)
            .map(|i| {
                let angle = FRAC_PI_2 * i as f32 / 5.0;
                (height * (1.0 - angle.cos()), radius * (0.42 + 0.58 * angle.sin()))
            })
            .collect();
        let inside = self.inside(rng);
        self.lathe(&curve, None);
        self.lathe(&[(height, radius), (height, radius - wall)], None);
        let hollow: Vec<(f32, f32)> = curve
            .iter()
            .enumerate()
            .map(|(i, &(z, r))| (if i + 1 == curve.len() { z } else { z + wall }, r - wall))
            .collect();
        self.lathe(&hollow, Some(inside));
        self.add_in(Shape::Ring { z: wall, inner: 0.0, outer: radius * 0.42 }, inside, 0.0);
        vec![[0.0, 0.0, radius]]
    }

    fn bottle(&mut self, color: Color, scale: f32, rng: &mut SceneRng) -> Footprint {
        let height = 0.2 * scale * rng.range(0.82, 1.1);
        let radius = 0.034 * scale * rng.range(0.9, 1.12);
        let neck = radius * rng.range(0.32, 0.44);
        let shoulder = rng.range(0.52, 0.64);
        self.specular = self.specular.max(0.25);
        let profile = [
            (0.0, radius),
            (height * shoulder, radius),
            (height * (shoulder + 0.16), neck),
            (height * 0.92, neck),
        ];
        self.lathe(&profile, None);
        let cap = if rng.chance(0.5) {
            rng.pick(&[Color::White, Color::Black, Color::Red, Color::Blue, Color::Gray]).shade(rng)
        } else {
            self.albedo
        };
        self.lathe(
            &[(height * 0.92, neck), (height * 0.92, neck * 1.2), (height, neck * 1.2), (height, 0.0)],
            Some(cap),
        );
        if rng.chance(0.3) {
            let label = Vec3::repeat(if color == Color::White { 0.35 } else { 0.75 });
            self.lathe(&[(height * 0.15, radius * 1.015), (height * 0.36, radius * 1.015)], Some(label));
        }
        vec![[0.0, 0.0, radius]]
    }

    fn cuboid(&mut self, scale: f32, rng: &mut SceneRng) -> Footprint {
        let half = if rng.chance(0.5) {
            Vec3::repeat(0.028 * scale * rng.range(0.85, 1.25))
        } else {
            Vec3::from_fn(|_, _| 0.032 * scale * rng.range(0.65, 1.7))
        };
        self.add(Shape::Cuboid { center: Vec3::new(0.0, 0.0, half.z), half });
        vec![[0.0, 0.0, half.x.hypot(half.y)]]
    }

    fn ball(&mut self, color: Color, scale: f32, rng: &mut SceneRng) -> Footprint {
        let radius = 0.036 * scale * rng.range(0.85, 1.25);
        let center = Vec3::new(0.0, 0.0, radius);
        self.add(Shape::Ellipsoid { center, radii: Vec3::repeat(radius) });
        if rng.chance(0.35) {
            // A seam around the middle, as on many toy balls.
            let seam = Vec3::repeat(if matches!(color, Color::White | Color::Yellow) { 0.05 } else { 0.8 });
            let half_width = 0.11 * radius;
            let r = (radius * radius - half_width * half_width).sqrt() * 1.012;
            self.lathe(&[(radius - half_width, r), (radius + half_width, r)], Some(seam));
        }
        vec![[0.0, 0.0, radius]]
    }

    fn plate(&mut self, color: Color, scale: f32, rng: &mut SceneRng) -> Footprint {
        let radius = 0.095 * scale * rng.range(0.85, 1.12);
        let height = 0.016 * scale;
        self.lathe(
            &[(0.0, radius * 0.6), (height, radius), (height, radius * 0.985), (0.004, radius * 0.6)],
            None,
        );
        let well = self.albedo * rng.range(0.82, 1.0);
        self.add_in(Shape::Ring { z: 0.004, inner: 0.0, outer: radius * 0.61 }, well, self.specular);
        if rng.chance(0.25) {
            let trim = rng.pick(&[Color::Blue, Color::Gray, Color::Black, Color::White]);
            if trim != color {
                let shade = trim.shade(rng);
                self.lathe(&[(height * 0.93, radius * 0.93), (height * 1.05, radius)], Some(shade));
            }
        }
        vec![[0.0, 0.0, radius]]
    }

    fn can(&mut self, scale: f32, rng: &mut SceneRng) -> Footprint {
        let height = 0.118 * scale * rng.range(0.88, 1.08);
        let radius = 0.033 * scale * rng.range(0.95, 1.08);
        let metal = Vec3::repeat(rng.range(0.5, 0.7));
        self.specular = self.specular.max(0.25);
        // The shoulder keeps the color, so that even from straight above a can shows a ring of it.
        let lid = radius * 0.74;
        self.lathe(
            &[(0.0, radius * 0.86), (height * 0.05, radius), (height * 0.92, radius), (height, lid)],
            None,
        );
        self.lathe(&[(height, lid), (height * 0.985, lid * 0.98)], Some(metal));
        self.add_in(Shape::Ring { z: height * 0.985, inner: 0.0, outer: lid }, metal * 0.9, 0.5);
        let tab = Shape::Ellipsoid {
            center: Vec3::new(0.0, radius * 0.22, height * 0.985),
            radii: Vec3::new(radius * 0.22, radius * 0.38, 0.002),
        };
        self.add_in(tab, metal * 0.45, 0.4);
        vec![[0.0, 0.0, radius]]
    }

    fn banana(&mut self, scale: f32, rng: &mut SceneRng) -> Footprint {
        let length = 0.098 * scale * rng.range(0.88, 1.12);
        let thickness = 0.018 * scale;
        let bend = rng.range(0.75, 1.05);
        let arc = length / bend;
        let n = 9;
        let spine: Vec<Vec3> = (0..n)
            .map(|i| {
                let angle = bend * (2.0 * i as f32 / (n - 1) as f32 - 1.0);
                Vec3::new(arc * angle.sin(), arc * (1.0 - angle.cos()) - 0.25 * length * bend, thickness)
            })
            .collect();
        for (i, pair) in spine.windows(2).enumerate() {
            let along = (2.0 * (i as f32 + 0.5) / (n - 1) as f32 - 1.0).abs();
            self.add(Shape::Capsule {
                a: pair[0],
                b: pair[1],
                radius: thickness * (1.0 - 0.55 * along.powi(3)),
            });
        }
        let tip = spine[n - 1];
        let stalk = tip + Vec3::new(0.013, 0.014, 0.002) * scale;
        self.add_in(Shape::Capsule { a: tip, b: stalk, radius: 0.005 * scale }, self.albedo * 0.4, 0.0);
        let end = Shape::Ellipsoid { center: spine[0], radii: Vec3::repeat(0.0085 * scale) };
        self.add_in(end, Vec3::new(0.05, 0.03, 0.01), 0.0);
        spine.iter().step_by(2).map(|p| [p.x, p.y, thickness]).collect()
    }

    fn marker(&mut self, scale: f32, rng: &mut SceneRng) -> Footprint {
        let length = 0.07 * scale * rng.range(0.9, 1.15);
        let radius = 0.01 * scale * rng.range(0.9, 1.15);
        let at = |x: f32| Vec3::new(x, 0.0, radius);
        let barrel = Shape::Capsule { a: at(-length), b: at(length * 0.3), radius };
        if rng.chance(0.7) {
            self.add(barrel);
        } else {
            // Half the barrel light, cap and end in the color.
            self.add_in(
                Shape::Capsule { a: at(-length * 0.55), b: at(length * 0.3), radius },
                Vec3::repeat(0.75),
                0.2,
            );
            self.add(Shape::Capsule { a: at(-length), b: at(-length * 0.55), radius });
        }
        self.add(Shape::Capsule { a: at(length * 0.3), b: at(length), radius: radius * 1.12 });
        let tip = Shape::Capsule { a: at(-length), b: at(-length - 1.5 * radius), radius: radius * 0.45 };
        self.add_in(tip, self.albedo * 0.4, 0.0);
        let n = 7;
        (0..n).map(|i| [length * (2.0 * i as f32 / (n - 1) as f32 - 1.0), 0.0, radius * 1.5]).collect()
    }

    fn apple(&mut self, scale: f32, rng: &mut SceneRng) -> Footprint {
        let radius = 0.039 * scale * rng.range(0.9, 1.1);
        self.specular = self.specular.max(0.2);
        if matches!(self.print, Print::Bands { .. }) {
            self.print = Print::None;
        }
        let body = |z: f32, r: f32, h: f32| Shape::Ellipsoid {
            center: Vec3::new(0.0, 0.0, z * radius),
            radii: Vec3::new(r, r, h) * radius,
        };
        self.add(body(0.68, 0.78, 0.68));
        self.add(body(1.02, 1.0, 0.72));
        let wood = Vec3::new(0.06, 0.03, 0.01);
        let foot = Vec3::new(0.0, 0.0, 1.7 * radius);
        let top = Vec3::new(0.16 * radius * rng.range(-1.0, 1.0), 0.0, 2.2 * radius);
        self.add_in(Shape::Capsule { a: foot, b: top, radius: 0.0032 * scale }, wood, 0.0);
        if rng.chance(0.7) {
            let leaf = Shape::Ellipsoid {
                center: Vec3::new(0.42 * radius, 0.0, 2.02 * radius),
                radii: Vec3::new(0.42 * radius, 0.2 * radius, 0.06 * radius),
            };
            self.add_in(leaf, Vec3::new(0.06, 0.3, 0.04), 0.1);
        }
        vec![[0.0, 0.0, radius]]
    }
}

/// An angle anywhere on the circle.
pub(super) fn any_angle(rng: &mut SceneRng) -> f32 {
    rng.range(0.0, TAU)
}
