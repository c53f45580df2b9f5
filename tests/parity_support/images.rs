//! Images by formula, so that none need be stored.

use language_grounding::image::RgbImage;

/// The formula of `make_image` in `tests/parity/florence2_reference.py`.
#[expect(clippy::manual_midpoint, reason = "as in the script")]
pub(crate) fn make_image(width: u32, height: u32, seed: i64) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let (x, y) = (i64::from(x), i64::from(y));
        image::Rgb(std::array::from_fn(|c| {
            let c = c as i64;
            let wave = (x * (3 + seed % 5 + c) + y * (2 + seed % 7)) / 2;
            let blob = (x * x + y * y * (1 + c) + seed * 97) / (11 + 5 * c);
            let noise = ((x * 73_856_093) ^ (y * 19_349_663) ^ ((seed + c) * 83_492_791)) % 41;
            ((wave + blob % 120 + noise) % 256) as u8
        }))
    })
}
