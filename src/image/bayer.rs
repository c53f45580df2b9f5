//! Raw mosaics of color cameras to rgb8: bilinear, with the rounding and the borders of OpenCV's `demosaicing`.

/// The color of the top-left pixel, and of the one right of it: the rest of 2x2 pixels follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the pixels, row by row")]
pub enum Pattern {
    Rggb,
    Bggr,
    Gbrg,
    Grbg,
}

impl Pattern {
    /// From an encoding of sensor_msgs, such as `bayer_rggb8`.
    pub fn from_encoding(encoding: &str) -> Option<Self> {
        match encoding.strip_prefix("bayer_")?.trim_end_matches(|it: char| it.is_ascii_digit()) {
            "rggb" => Some(Self::Rggb),
            "bggr" => Some(Self::Bggr),
            "gbrg" => Some(Self::Gbrg),
            "grbg" => Some(Self::Grbg),
            _ => None,
        }
    }

    /// (row, column) of red within 2x2 pixels; blue stands diagonally to it.
    fn red(self) -> (usize, usize) {
        match self {
            Self::Rggb => (0, 0),
            Self::Grbg => (0, 1),
            Self::Gbrg => (1, 0),
            Self::Bggr => (1, 1),
        }
    }
}

/// rgb8 of a mosaic of at least 3x3 pixels, row-major; `to_u8` brings a value to 8 bits.
pub fn rgb_from_mosaic<T: Copy + Into<u32>>(
    width: usize,
    height: usize,
    mosaic: &[T],
    pattern: Pattern,
    to_u8: fn(u32) -> u8,
) -> Vec<u8> {
    let mut rgb = vec![0; width * height * 3];
    for (row, to) in rgb.chunks_exact_mut(width * 3).enumerate() {
        // The outermost pixels are those next to them: half of their neighbors are missing.
        let v = row.clamp(1, height - 2);
        let line = |v: usize| &mosaic[v * width..(v + 1) * width];
        let rows = [line(v - 1), line(v), line(v + 1)];
        let (red_row, red_column) = pattern.red();
        let is_red_row = v % 2 == red_row;
        for u in 1..width - 1 {
            let at = |dv: usize, du: usize| -> u32 { rows[dv][u + du - 1].into() };
            let is_green = is_red_row != (u % 2 == red_column);
            let (in_row, green, in_column) = if is_green {
                ((at(1, 0) + at(1, 2)).div_ceil(2), at(1, 1), (at(0, 1) + at(2, 1)).div_ceil(2))
            } else {
                let cross = (at(0, 1) + at(2, 1) + at(1, 0) + at(1, 2) + 2) / 4;
                (at(1, 1), cross, (at(0, 0) + at(0, 2) + at(2, 0) + at(2, 2) + 2) / 4)
            };
            let (red, blue) = if is_red_row { (in_row, in_column) } else { (in_column, in_row) };
            to[3 * u..3 * u + 3].copy_from_slice(&[to_u8(red), to_u8(green), to_u8(blue)]);
        }
        to.copy_within(3..6, 0);
        to.copy_within(3 * (width - 2)..3 * (width - 1), 3 * (width - 1));
    }
    rgb
}
