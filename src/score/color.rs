//! Whether pixels bear out a color word: "the orange bowl" is no black bowl, whatever a grounder makes of it.
//!
//! Each pixel is given a share of each of the eleven basic color terms by a logistic regression over CIELAB
//! (`training/colors.py`), once as it is and once in white light (shades of gray, Finlayson and Trezzi 2004). Of a
//! thing the shares are compared with the largest one: what has labels, shadows and shine has many. This only refutes. That a color fits
//! says nothing of the kind of thing, and near colors (white and gray, gray and black) are not told apart.

mod table;

use self::table::WEIGHTS;
use crate::color::Color;
use crate::detection::BoundingBox2d;
use crate::image::RgbImage;

/// The name of the score part.
pub const COLOR_FIT: &str = "color_fit";
/// A word whose share is this much of the largest one's, or less, is refuted.
const REFUTED: f64 = 0.1;
/// From this share on nothing is held against it.
const BORNE_OUT: f64 = 0.2;
/// Fewer pixels say nothing.
const MIN_PIXELS: usize = 20;
/// More are not looked at.
const MAX_PIXELS: usize = 400;
/// Of a box's width and height: half of what is looked at where there is no mask.
const INNER: f64 = 0.35;
/// Minkowski norm of the shades of gray.
const NORM: i32 = 6;

use Color::{Black, Blue, Brown, Gray, Green, Orange, Pink, Purple, Red, White, Yellow};

/// A color word's basic colors: any of them bears it out.
#[rustfmt::skip]
const WORDS: &[(&str, &[Color])] = &[
    ("red", &[Red]), ("green", &[Green]), ("blue", &[Blue]), ("yellow", &[Yellow]), ("orange", &[Orange]), ("purple", &[Purple]),
    ("pink", &[Pink]), ("white", &[White]), ("black", &[Black]), ("brown", &[Brown]), ("gray", &[Gray]), ("grey", &[Gray]),
    ("reddish", &[Red, Pink, Brown, Orange]), ("greenish", &[Green]), ("bluish", &[Blue, Purple]), ("yellowish", &[Yellow, Orange, White]),
    ("brownish", &[Brown, Orange]), ("cyan", &[Blue, Green]), ("teal", &[Blue, Green]), ("turquoise", &[Blue, Green]),
    ("magenta", &[Pink, Purple, Red]), ("violet", &[Purple, Blue]), ("lavender", &[Purple, Pink, Blue]), ("indigo", &[Blue, Purple]),
    ("navy", &[Blue, Black]), ("maroon", &[Red, Brown]), ("crimson", &[Red, Pink]),
    ("scarlet", &[Red, Orange]), ("beige", &[Brown, White, Yellow, Orange, Gray]), ("tan", &[Brown, Orange, Yellow]),
    ("khaki", &[Brown, Yellow, Green, Gray]), ("cream", &[White, Yellow]), ("ivory", &[White, Yellow]),
    ("gold", &[Yellow, Orange, Brown]), ("golden", &[Yellow, Orange, Brown]), ("silver", &[Gray, White]), ("bronze", &[Brown, Orange]),
    ("olive", &[Green, Yellow, Brown]), ("lime", &[Green, Yellow]), ("peach", &[Pink, Orange, Yellow]), ("salmon", &[Pink, Orange, Red]),
];

/// What pixels of a thing look like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ColorFits([f64; 11]);

/// The light of a picture, against which colors are seen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Light([f64; 3]);

impl Light {
    /// By shades of gray: of linear red, green and blue, with a mean of 1.
    pub fn of(image: &RgbImage) -> Self {
        let mut sums = [0.0; 3];
        // A fourth of the rows and columns is plenty.
        for row in image.rows().step_by(4) {
            for pixel in row.step_by(4) {
                for (sum, value) in sums.iter_mut().zip(pixel.0) {
                    *sum += linear(f64::from(value)).powi(NORM);
                }
            }
        }
        let norms = sums.map(|it| it.powf(1.0 / f64::from(NORM)).max(1e-9));
        let mean = norms.iter().sum::<f64>() / 3.0;
        Self(norms.map(|it| it / mean))
    }
}

impl ColorFits {
    /// Of the pixels of `image` within `bbox` for which `is_of_thing(column, row)`. `None` where there are too few to tell.
    pub fn of(
        image: &RgbImage,
        bbox: &BoundingBox2d,
        light: Light,
        is_of_thing: impl Fn(u32, u32) -> bool,
    ) -> Option<Self> {
        let bbox = bbox.clipped(image.width(), image.height());
        let rows = bbox.y0.floor() as u32..(bbox.y1.ceil() as u32).min(image.height());
        let columns = bbox.x0.floor() as u32..(bbox.x1.ceil() as u32).min(image.width());
        let pixels: Vec<[u8; 3]> = rows
            .flat_map(|v| columns.clone().map(move |u| (u, v)))
            .filter(|&(u, v)| is_of_thing(u, v))
            .map(|(u, v)| image.get_pixel(u, v).0)
            .collect();
        if pixels.len() < MIN_PIXELS {
            return None;
        }
        let some = pixels.iter().step_by(pixels.len().div_ceil(MAX_PIXELS));
        let (mut as_seen, mut in_white) = ([0.0; 11], [0.0; 11]);
        for pixel in some {
            let linear = pixel.map(|it| linear(f64::from(it)));
            add(&mut as_seen, shares(linear));
            add(&mut in_white, shares(std::array::from_fn(|c| (linear[c] / light.0[c]).min(1.0))));
        }
        let (as_seen, in_white) = (of_largest(as_seen), of_largest(in_white));
        Some(Self(std::array::from_fn(|i| as_seen[i].max(in_white[i]))))
    }

    /// How far the pixels bear out a color word: its share of the most likely color's, [0, 1]. `None` for words that name no basic color.
    pub fn fit(&self, word: &str) -> Option<f64> {
        let (_, colors) = WORDS.iter().find(|it| it.0 == word)?;
        Some(colors.iter().map(|it| self.0[*it as usize]).fold(0.0, f64::max))
    }

    /// What it is called first.
    pub fn name(&self) -> &'static str {
        let first = (0..11).max_by(|a, b| self.0[*a].total_cmp(&self.0[*b])).unwrap_or(0);
        Color::ALL[first].name()
    }
}

/// Whether a pixel lies in the middle of a box, where most of what is boxed is.
pub fn is_inner(bbox: &BoundingBox2d, u: u32, v: u32) -> bool {
    let (x, y) = bbox.center();
    let dx = (f64::from(u) + 0.5 - x) / (INNER * bbox.width()).max(1e-9);
    let dy = (f64::from(v) + 0.5 - y) / (INNER * bbox.height()).max(1e-9);
    dx * dx + dy * dy <= 1.0
}

/// What a score is multiplied with: 0 where the color is refuted, 1 where nothing is held against it.
pub fn gate(fit: f64) -> f64 {
    ((fit - REFUTED) / (BORNE_OUT - REFUTED)).clamp(0.0, 1.0)
}

fn add(sums: &mut [f64; 11], shares: [f64; 11]) {
    for (sum, share) in sums.iter_mut().zip(shares) {
        *sum += share;
    }
}

fn of_largest(shares: [f64; 11]) -> [f64; 11] {
    let largest = shares.iter().copied().fold(1e-12, f64::max);
    shares.map(|it| it / largest)
}

/// Probability of each basic color for a pixel of linear sRGB.
fn shares(linear: [f64; 3]) -> [f64; 11] {
    let terms = terms(linear);
    let logits = WEIGHTS.map(|row| row.iter().zip(terms).map(|(w, t)| w * t).sum::<f64>());
    let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let odds = logits.map(|it| (it - most).exp());
    let sum: f64 = odds.iter().sum();
    odds.map(|it| it / sum)
}

/// 1, L, a, b, L2, a2, b2, La, Lb, ab of CIELAB (D65), with L from -1 to 1 and the others on the same scale.
fn terms([red, green, blue]: [f64; 3]) -> [f64; 10] {
    let x = 0.412_456_4 * red + 0.357_576_1 * green + 0.180_437_5 * blue;
    let y = 0.212_672_9 * red + 0.715_152_2 * green + 0.072_175 * blue;
    let z = 0.019_333_9 * red + 0.119_192 * green + 0.950_304_1 * blue;
    let f = |t: f64| {
        let edge: f64 = 6.0 / 29.0;
        if t > edge.powi(3) { t.cbrt() } else { t / (3.0 * edge * edge) + 4.0 / 29.0 }
    };
    let (fx, fy, fz) = (f(x / 0.95047), f(y), f(z / 1.08883));
    let (l, a, b) = ((116.0 * fy - 16.0) / 50.0 - 1.0, 10.0 * (fx - fy), 4.0 * (fy - fz));
    [1.0, l, a, b, l * l, a * a, b * b, l * a, l * b, a * b]
}

/// An sRGB value from 0 to 255 as linear light in [0, 1].
fn linear(value: f64) -> f64 {
    let value = value / 255.0;
    if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPICAL: [(&str, [u8; 3]); 11] = [
        ("red", [180, 25, 25]),
        ("green", [40, 140, 50]),
        ("blue", [35, 70, 190]),
        ("yellow", [230, 210, 40]),
        ("orange", [240, 130, 20]),
        ("purple", [110, 40, 150]),
        ("pink", [240, 140, 180]),
        ("white", [245, 245, 245]),
        ("black", [15, 15, 15]),
        ("brown", [100, 60, 30]),
        ("gray", [125, 125, 125]),
    ];

    /// Of a picture of one color in a gray room.
    fn fits(color: [u8; 3], light: [f64; 3]) -> ColorFits {
        let lit =
            |it: [u8; 3]| image::Rgb(std::array::from_fn(|c| (f64::from(it[c]) * light[c]).min(255.0) as u8));
        let image = RgbImage::from_fn(60, 40, |u, _| lit(if u < 20 { color } else { [150, 150, 150] }));
        let bbox = BoundingBox2d::from([0.0, 0.0, 20.0, 40.0]);
        ColorFits::of(&image, &bbox, Light::of(&image), |_, _| true).unwrap()
    }

    #[test]
    fn a_typical_color_bears_out_its_own_name_and_refutes_far_ones() {
        for (name, color) in TYPICAL {
            let fits = fits(color, [1.0; 3]);
            assert!(fits.fit(name).unwrap() >= BORNE_OUT, "{name}: {fits:?}");
        }
        for (color, others) in [
            ("black", ["orange", "yellow", "pink", "green"]),
            ("white", ["orange", "purple", "green", "brown"]),
            ("red", ["green", "blue", "white", "yellow"]),
            ("blue", ["red", "orange", "yellow", "pink"]),
            ("green", ["red", "orange", "purple", "pink"]),
            ("yellow", ["blue", "purple", "green", "black"]),
        ] {
            let (_, rgb) = TYPICAL.iter().find(|it| it.0 == color).unwrap();
            let fits = fits(*rgb, [1.0; 3]);
            for other in others {
                assert!(gate(fits.fit(other).unwrap()) < 0.1, "{color} as {other}: {fits:?}");
            }
        }
    }

    #[test]
    fn warm_and_cold_light_refute_no_true_color() {
        for light in [[1.0, 0.85, 0.6], [0.75, 0.9, 1.0], [0.5, 0.5, 0.5]] {
            for (name, color) in TYPICAL {
                let fit = fits(color, light).fit(name).unwrap();
                assert!(gate(fit) > 0.0, "{name} in {light:?}: {fit}");
            }
        }
    }

    #[test]
    fn words_for_no_basic_color_and_few_pixels_say_nothing() {
        let fits = fits([0, 0, 0], [1.0; 3]);
        assert_eq!(fits.name(), "black");
        for word in ["transparent", "multicolored", "mauve", "wooden"] {
            assert_eq!(fits.fit(word), None, "{word}");
        }
        let image = RgbImage::new(9, 9);
        let at = |bbox: [f64; 4]| ColorFits::of(&image, &bbox.into(), Light::of(&image), |_, _| true);
        assert!(at([0.0, 0.0, 4.0, 4.0]).is_none() && at([20.0, 0.0, 40.0, 9.0]).is_none());
        assert!(at([-3.0, -3.0, 9.0, 9.0]).is_some());
    }

    #[test]
    fn the_middle_of_a_box_is_an_ellipse() {
        let bbox = BoundingBox2d::from([10.0, 20.0, 30.0, 60.0]);
        assert!(is_inner(&bbox, 20, 40) && is_inner(&bbox, 14, 40) && is_inner(&bbox, 20, 52));
        assert!(!is_inner(&bbox, 11, 40) && !is_inner(&bbox, 14, 52) && !is_inner(&bbox, 20, 57));
    }
}
