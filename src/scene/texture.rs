//! Surface patterns: a position on a surface to a blend of two colors.

use super::random::lattice;

/// What covers a plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pattern {
    Plain,
    Grain,
    Checks,
    Mottled,
    Tiles,
    Stripes,
    Planks,
}

impl Pattern {
    /// How much of the second color shows at (u, v), in [0, 1]. One pattern repeat is about one unit.
    pub(super) fn blend(self, u: f32, v: f32, seed: u32) -> f32 {
        let blend = match self {
            Self::Plain => 0.15 * fractal_noise(u * 3.0, v * 3.0, seed),
            Self::Grain => {
                let bend = fractal_noise(u * 0.5, v * 4.0, seed);
                let rings = 0.5 + 0.5 * ((v * 5.0 + bend * 4.5) * 3.2).sin();
                0.55 * rings + 0.45 * fractal_noise(u * 2.0, v * 38.0, seed)
            }
            Self::Checks => f32::from((((u * 2.0).floor() + (v * 2.0).floor()) as i64 & 1) as u8),
            Self::Mottled => fractal_noise(u * 2.0, v * 2.0, seed),
            Self::Tiles => {
                let (a, b) = ((u * 1.5).rem_euclid(1.0), (v * 1.5).rem_euclid(1.0));
                if a < 0.05 || b < 0.05 { 1.0 } else { 0.2 * fractal_noise(u * 4.0, v * 4.0, seed) }
            }
            Self::Stripes => f32::from(u8::from((v * 2.0).rem_euclid(1.0) < 0.5)),
            Self::Planks => {
                let plank = (v * 2.2).floor();
                if v * 2.2 - plank < 0.03 {
                    1.0
                } else {
                    let grain = fractal_noise(u * 0.7 + plank * 7.3, v * 9.0, seed);
                    0.25 + 0.35 * lattice(plank as i32, 3, seed) + 0.35 * grain
                }
            }
        };
        blend.clamp(0.0, 1.0)
    }
}

/// Three octaves of smooth noise in [0, 1].
pub(super) fn fractal_noise(x: f32, y: f32, seed: u32) -> f32 {
    let octave = |k: u32, scale: f32| value_noise(x * scale, y * scale, seed.wrapping_add(k));
    (octave(0, 1.0) * 0.5 + octave(1, 2.1) * 0.25 + octave(2, 4.3) * 0.125) / 0.875
}

/// Smoothly interpolated lattice noise in [0, 1].
pub(super) fn value_noise(x: f32, y: f32, seed: u32) -> f32 {
    let (ix, iy) = (x.floor(), y.floor());
    let smooth = |f: f32| f * f * (3.0 - 2.0 * f);
    let (fx, fy) = (smooth(x - ix), smooth(y - iy));
    let (ix, iy) = (ix as i32, iy as i32);
    let mix = |a: f32, b: f32, f: f32| a + (b - a) * f;
    let row = |y: i32| mix(lattice(ix, y, seed), lattice(ix.wrapping_add(1), y, seed), fx);
    mix(row(iy), row(iy.wrapping_add(1)), fy)
}
