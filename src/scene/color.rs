//! The colors of things as light.

use nalgebra::Vector3;

use super::random::SceneRng;
pub use crate::color::Color;

type Vec3 = Vector3<f32>;

impl Color {
    /// A shade that people call by this name, as linear RGB. The ranges leave gaps between neighbors.
    pub(super) fn shade(self, rng: &mut SceneRng) -> Vec3 {
        let (hue, saturation, value) = match self {
            Self::Red => ((-7.0, 6.0), (0.8, 1.0), (0.6, 0.95)),
            Self::Green => ((98.0, 150.0), (0.55, 0.95), (0.38, 0.8)),
            Self::Blue => ((208.0, 238.0), (0.65, 1.0), (0.45, 0.95)),
            Self::Yellow => ((49.0, 59.0), (0.75, 1.0), (0.85, 1.0)),
            Self::Orange => ((21.0, 31.0), (0.85, 1.0), (0.88, 1.0)),
            Self::Purple => ((266.0, 288.0), (0.5, 0.9), (0.4, 0.75)),
            Self::Pink => ((325.0, 345.0), (0.32, 0.6), (0.88, 1.0)),
            Self::White => ((0.0, 360.0), (0.0, 0.05), (0.92, 1.0)),
            Self::Black => ((0.0, 360.0), (0.0, 0.2), (0.04, 0.13)),
            Self::Brown => ((18.0, 30.0), (0.55, 0.75), (0.25, 0.43)),
            Self::Gray => ((0.0, 360.0), (0.0, 0.06), (0.42, 0.6)),
        };
        let mut within = |(low, high): (f32, f32)| rng.range(low, high);
        let (hue, saturation, value) = (within(hue), within(saturation), within(value));
        linear_from_hsv(hue, saturation, value)
    }
}

/// Hue in degrees, saturation and value in [0, 1], to linear RGB.
pub(super) fn linear_from_hsv(hue: f32, saturation: f32, value: f32) -> Vec3 {
    let channel = |n: f32| {
        let k = (n + hue / 60.0).rem_euclid(6.0);
        value - value * saturation * k.min(4.0 - k).clamp(0.0, 1.0)
    };
    Vec3::new(channel(5.0), channel(3.0), channel(1.0)).map(|c| c.powf(2.2))
}
