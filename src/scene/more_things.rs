//! Kinds that only furnished scenes draw, built from primitives like the others.

use std::f32::consts::{FRAC_PI_2, TAU};

use nalgebra::Vector3;

use super::color::Color;
use super::random::SceneRng;
use super::shape::Shape;
use super::things::{Builder, Footprint, Kind};

type Vec3 = Vector3<f32>;

/// Colors that the kind has.
pub(super) fn colors_of(kind: Kind) -> &'static [Color] {
    match kind {
        Kind::Pear => &[Color::Green, Color::Yellow],
        Kind::Egg => &[Color::White, Color::Brown],
        Kind::Carrot => &[Color::Orange],
        Kind::Mushroom => &[Color::White, Color::Brown, Color::Red],
        Kind::Spoon | Kind::Fork => &[Color::Gray, Color::Gray, Color::Brown, Color::Black],
        Kind::Cone => &[Color::Orange, Color::Red, Color::Yellow, Color::Blue, Color::Green],
        _ => &Color::ALL,
    }
}

impl Builder {
    /// One of [`Kind::FURNISHED`]; `scale` 1 is life size.
    pub(super) fn furnished(&mut self, kind: Kind, scale: f32, rng: &mut SceneRng) -> Footprint {
        let s = scale * rng.range(0.88, 1.14);
        let metal = Vec3::repeat(rng.range(0.4, 0.65));
        match kind {
            Kind::Pear => self.pear(s),
            Kind::Egg => self.egg(s),
            Kind::Carrot => self.carrot(s),
            Kind::Mushroom => self.mushroom(s),
            Kind::Candle => self.candle(s, rng),
            Kind::Vase => self.vase(s, rng),
            Kind::Jar => self.jar(s, rng),
            Kind::Teapot => self.teapot(s),
            Kind::Pitcher => self.pitcher(s, rng),
            Kind::Goblet => self.goblet(s, rng),
            Kind::Spoon | Kind::Fork => self.spoon_or_fork(kind, s),
            Kind::Knife => self.knife(s, metal),
            Kind::Hammer => self.hammer(s, metal),
            Kind::Screwdriver => self.screwdriver(s, metal),
            Kind::Donut => self.donut(s),
            Kind::Lamp => self.lamp(s, metal),
            Kind::Cone => self.cone(s),
            _ => self.bucket(s, metal, rng),
        }
    }

    fn pear(&mut self, s: f32) -> Footprint {
        self.ellipsoid([0.0, 0.0, 0.036], [0.036, 0.036, 0.036], s, None);
        self.ellipsoid([0.0, 0.0, 0.07], [0.021, 0.021, 0.034], s, None);
        self.rod([0.0, 0.0, 0.1], [0.006, 0.0, 0.12], 0.003, s, Some(Vec3::new(0.06, 0.03, 0.01)));
        around(0.036 * s)
    }

    fn egg(&mut self, s: f32) -> Footprint {
        self.ellipsoid([0.0, 0.0, 0.022], [0.03, 0.022, 0.022], s, None);
        around(0.03 * s)
    }

    fn carrot(&mut self, s: f32) -> Footprint {
        let green = Vec3::new(0.06, 0.3, 0.04);
        for i in 0..7 {
            let (x, radius) = (-0.08 + 0.02 * i as f32, 0.005 + 0.0018 * i as f32);
            self.rod([x, 0.0, 0.016], [x + 0.02, 0.0, 0.016], radius, s, None);
        }
        for side in [-0.5, 0.0, 0.5] {
            self.rod([0.07, 0.0, 0.016], [0.12, 0.05 * side, 0.02], 0.004, s, Some(green));
        }
        along(0.1 * s, 0.018 * s)
    }

    fn mushroom(&mut self, s: f32) -> Footprint {
        self.turned(&[(0.0, 0.014), (0.045, 0.011)], s, Some(Vec3::new(0.7, 0.62, 0.5)));
        self.ellipsoid([0.0, 0.0, 0.045], [0.036, 0.036, 0.024], s, None);
        around(0.036 * s)
    }

    fn candle(&mut self, s: f32, rng: &mut SceneRng) -> Footprint {
        let height = rng.range(0.06, 0.13);
        self.turned(&[(0.0, 0.0), (0.0, 0.026), (height, 0.026), (height, 0.0)], s, None);
        let black = Some(Vec3::repeat(0.02));
        self.rod([0.0, 0.0, height], [0.001, 0.0, height + 0.011], 0.0016, s, black);
        around(0.026 * s)
    }

    fn vase(&mut self, s: f32, rng: &mut SceneRng) -> Footprint {
        let (belly, neck) = (rng.range(0.045, 0.06), rng.range(0.016, 0.026));
        let profile =
            [(0.0, 0.03), (0.06, belly), (0.1, 0.9 * belly), (0.15, neck), (0.19, neck), (0.205, 1.6 * neck)];
        self.turned(&profile, s, None);
        self.turned(&[(0.205, 1.5 * neck), (0.17, 0.8 * neck), (0.17, 0.0)], s, Some(Vec3::repeat(0.03)));
        around(belly * s)
    }

    fn jar(&mut self, s: f32, rng: &mut SceneRng) -> Footprint {
        self.turned(&[(0.0, 0.034), (0.075, 0.036), (0.087, 0.03)], s, None);
        let lid = rng.pick(&[Color::White, Color::Black, Color::Gray, Color::Red]).shade(rng);
        self.turned(&[(0.087, 0.031), (0.087, 0.034), (0.103, 0.034), (0.103, 0.0)], s, Some(lid));
        around(0.036 * s)
    }

    fn teapot(&mut self, s: f32) -> Footprint {
        self.ellipsoid([0.0, 0.0, 0.052], [0.06, 0.06, 0.052], s, None);
        self.rod([0.05, 0.0, 0.045], [0.085, 0.0, 0.07], 0.01, s, None);
        self.rod([0.085, 0.0, 0.07], [0.1, 0.0, 0.092], 0.007, s, None);
        self.arc([-0.058, 0.0, 0.055], 0.032, [FRAC_PI_2, 3.0 * FRAC_PI_2], 0.006, s);
        self.ellipsoid([0.0, 0.0, 0.104], [0.01, 0.01, 0.01], s, None);
        [around(0.062 * s), vec![[0.08 * s, 0.0, 0.025 * s], [-0.075 * s, 0.0, 0.02 * s]]].concat()
    }

    fn pitcher(&mut self, s: f32, rng: &mut SceneRng) -> Footprint {
        let inside = self.inside(rng);
        self.turned(
            &[(0.0, 0.0), (0.0, 0.045), (0.1, 0.055), (0.17, 0.04), (0.2, 0.047), (0.2, 0.044)],
            s,
            None,
        );
        self.turned(&[(0.2, 0.044), (0.01, 0.04), (0.01, 0.0)], s, Some(inside));
        self.arc([-0.046, 0.0, 0.115], 0.045, [FRAC_PI_2, 3.0 * FRAC_PI_2], 0.008, s);
        [around(0.055 * s), vec![[-0.075 * s, 0.0, 0.03 * s]]].concat()
    }

    fn goblet(&mut self, s: f32, rng: &mut SceneRng) -> Footprint {
        let inside = self.inside(rng);
        let profile = [
            (0.0, 0.0),
            (0.002, 0.036),
            (0.008, 0.008),
            (0.075, 0.005),
            (0.09, 0.03),
            (0.16, 0.037),
            (0.16, 0.035),
        ];
        self.turned(&profile, s, None);
        self.turned(&[(0.16, 0.035), (0.095, 0.027), (0.095, 0.0)], s, Some(inside));
        around(0.037 * s)
    }

    fn spoon_or_fork(&mut self, kind: Kind, s: f32) -> Footprint {
        self.rod([-0.09, 0.0, 0.006], [0.05, 0.0, 0.006], 0.0045, s, None);
        if kind == Kind::Spoon {
            self.ellipsoid([0.072, 0.0, 0.008], [0.03, 0.02, 0.006], s, None);
        } else {
            self.rod([0.05, -0.012, 0.006], [0.05, 0.012, 0.006], 0.004, s, None);
            for side in [-1.0, 0.0, 1.0] {
                self.rod([0.05, 0.012 * side, 0.006], [0.1, 0.012 * side, 0.009], 0.0028, s, None);
            }
        }
        along(0.1 * s, 0.02 * s)
    }

    fn knife(&mut self, s: f32, metal: Vec3) -> Footprint {
        self.rod([-0.1, 0.0, 0.01], [0.0, 0.0, 0.01], 0.01, s, None);
        let blade = Shape::Cuboid {
            center: Vec3::new(0.06, 0.0, 0.008) * s,
            half: Vec3::new(0.065, 0.013, 0.0015) * s,
        };
        self.add_in(blade, metal, 0.5);
        along(0.12 * s, 0.016 * s)
    }

    fn hammer(&mut self, s: f32, metal: Vec3) -> Footprint {
        self.rod([-0.12, 0.0, 0.015], [0.08, 0.0, 0.015], 0.012, s, None);
        self.rod([0.08, -0.04, 0.018], [0.08, 0.04, 0.018], 0.017, s, Some(metal * 0.6));
        [along(0.12 * s, 0.018 * s), vec![[0.08 * s, 0.0, 0.06 * s]]].concat()
    }

    fn screwdriver(&mut self, s: f32, metal: Vec3) -> Footprint {
        self.rod([-0.1, 0.0, 0.016], [-0.02, 0.0, 0.016], 0.016, s, None);
        self.rod([-0.02, 0.0, 0.016], [0.1, 0.0, 0.012], 0.0045, s, Some(metal));
        along(0.11 * s, 0.016 * s)
    }

    fn donut(&mut self, s: f32) -> Footprint {
        self.ring([0.0, 0.0, 0.018], 0.034, 0.018, s, None);
        self.ring([0.0, 0.0, 0.013], 0.034, 0.0185, s, Some(Vec3::new(0.5, 0.26, 0.1)));
        around(0.052 * s)
    }

    fn lamp(&mut self, s: f32, metal: Vec3) -> Footprint {
        self.turned(&[(0.0, 0.05), (0.012, 0.05), (0.012, 0.0)], s, Some(metal));
        self.rod([0.0, 0.0, 0.01], [0.0, 0.0, 0.2], 0.006, s, Some(metal));
        self.turned(&[(0.16, 0.085), (0.26, 0.05)], s, None);
        around(0.085 * s)
    }

    fn cone(&mut self, s: f32) -> Footprint {
        let base =
            Shape::Cuboid { center: Vec3::new(0.0, 0.0, 0.004) * s, half: Vec3::new(0.05, 0.05, 0.004) * s };
        self.add(base);
        self.turned(&[(0.008, 0.038), (0.12, 0.007), (0.12, 0.0)], s, None);
        let stripe = Vec3::repeat(0.85);
        self.turned(&[(0.05, 0.0272), (0.075, 0.0203)], s, Some(stripe));
        around(0.065 * s)
    }

    fn bucket(&mut self, s: f32, metal: Vec3, rng: &mut SceneRng) -> Footprint {
        let inside = self.inside(rng);
        self.turned(&[(0.0, 0.0), (0.0, 0.05), (0.12, 0.068), (0.12, 0.065)], s, None);
        self.turned(&[(0.12, 0.065), (0.01, 0.047), (0.01, 0.0)], s, Some(inside));
        let points = (0..9).map(|i| {
            let angle = std::f32::consts::PI * i as f32 / 8.0;
            Vec3::new(0.067 * angle.cos(), 0.03 * angle.sin(), 0.118 + 0.045 * angle.sin())
        });
        self.chain(&points.collect::<Vec<_>>(), 0.0025, s, Some(metal));
        around(0.07 * s)
    }

    fn ellipsoid(&mut self, center: [f32; 3], radii: [f32; 3], s: f32, other: Option<Vec3>) {
        self.colored(
            Shape::Ellipsoid { center: Vec3::from(center) * s, radii: Vec3::from(radii) * s },
            other,
        );
    }

    fn rod(&mut self, a: [f32; 3], b: [f32; 3], radius: f32, s: f32, other: Option<Vec3>) {
        self.chain(&[Vec3::from(a), Vec3::from(b)], radius, s, other);
    }

    /// Rods from point to point.
    fn chain(&mut self, points: &[Vec3], radius: f32, s: f32, other: Option<Vec3>) {
        for pair in points.windows(2) {
            self.colored(Shape::Capsule { a: pair[0] * s, b: pair[1] * s, radius: radius * s }, other);
        }
    }

    /// A handle: part of an upright circle in the plane y = 0; angles from +x toward +z.
    fn arc(&mut self, center: [f32; 3], radius: f32, [from, to]: [f32; 2], thickness: f32, s: f32) {
        let points = (0..7).map(|i| {
            let angle = from + (to - from) * i as f32 / 6.0;
            Vec3::from(center) + Vec3::new(radius * angle.cos(), 0.0, radius * angle.sin())
        });
        self.chain(&points.collect::<Vec<_>>(), thickness, s, None);
    }

    /// A lying torus.
    fn ring(&mut self, center: [f32; 3], radius: f32, thickness: f32, s: f32, other: Option<Vec3>) {
        let points = (0..=14).map(|i| {
            let angle = TAU * i as f32 / 14.0;
            Vec3::from(center) + Vec3::new(radius * angle.cos(), radius * angle.sin(), 0.0)
        });
        self.chain(&points.collect::<Vec<_>>(), thickness, s, other);
    }

    fn turned(&mut self, profile: &[(f32, f32)], s: f32, other: Option<Vec3>) {
        let scaled: Vec<_> = profile.iter().map(|&(z, radius)| (z * s, radius * s)).collect();
        self.lathe(&scaled, other);
    }

    fn colored(&mut self, shape: Shape, other: Option<Vec3>) {
        match other {
            None => self.add(shape),
            Some(albedo) => self.add_in(shape, albedo, 0.2),
        }
    }
}

fn around(radius: f32) -> Footprint {
    vec![[0.0, 0.0, radius]]
}

/// Circles along x from -`half` to `half`.
fn along(half: f32, radius: f32) -> Footprint {
    (0..7).map(|i| [half * (i as f32 / 3.0 - 1.0), 0.0, radius]).collect()
}
