//! YUV of cameras to rgb8, as OpenCV's `cvtColor` does it: BT.601, limited range, the same fixed-point arithmetic.

/// Fractional bits of the coefficients below.
const SHIFT: u32 = 20;
const Y_GAIN: i32 = 1_220_542;
const U_TO_BLUE: i32 = 2_116_026;
const U_TO_GREEN: i32 = -409_993;
const V_TO_GREEN: i32 = -852_492;
const V_TO_RED: i32 = 1_673_527;

/// Where the bytes of two neighboring pixels that share their color stand in the four bytes of a packed 4:2:2 pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackedOrder {
    y: [usize; 2],
    u: usize,
    v: usize,
}

/// Y U Y V: `yuyv`, `yuv422_yuy2`.
pub const YUYV: PackedOrder = PackedOrder { y: [0, 2], u: 1, v: 3 };
/// U Y V Y: `uyvy`, `yuv422`.
pub const UYVY: PackedOrder = PackedOrder { y: [1, 3], u: 0, v: 2 };

/// A plane of Y followed by a plane of alternating U and V.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SemiPlanar {
    /// U before V, or the other way around.
    pub u_first: bool,
    /// Both planes are of the same size; else 2x2 pixels share their color.
    pub is_full: bool,
}

impl SemiPlanar {
    /// Bytes of an image whose rows of Y are `step` bytes apart.
    pub fn n_bytes(self, width: usize, height: usize, step: usize) -> usize {
        let (color_step, color_rows) = self.color_plane(width, height, step);
        step * height + color_step * color_rows
    }

    /// Bytes from row to row, and the number of rows.
    fn color_plane(self, width: usize, height: usize, step: usize) -> (usize, usize) {
        if self.is_full {
            (step * 2, height)
        } else {
            (step.max(width.next_multiple_of(2)), height.div_ceil(2))
        }
    }
}

/// Packed 4:2:2, rows `step` bytes apart; `data` holds `step * height` bytes and `step >= 2 * width`.
pub fn rgb_from_packed(width: usize, height: usize, step: usize, data: &[u8], order: PackedOrder) -> Vec<u8> {
    let mut rgb = vec![0; width * height * 3];
    for (to, from) in rgb.chunks_exact_mut(width * 3).zip(data.chunks(step)) {
        for (pixels, pair) in to.chunks_mut(6).zip(from.chunks(4)) {
            // An odd width ends in half a pair, and its color may end with the row.
            let color = |at: usize| pair.get(at).copied().unwrap_or(128);
            let chroma = Chroma::new(color(order.u), color(order.v));
            for (pixel, y) in pixels.chunks_exact_mut(3).zip(order.y) {
                pixel.copy_from_slice(&chroma.rgb(pair[y]));
            }
        }
    }
    rgb
}

/// A plane of Y and a plane of U and V; `data` holds [`SemiPlanar::n_bytes`] and `step >= width`.
pub fn rgb_from_semi_planar(
    width: usize,
    height: usize,
    step: usize,
    data: &[u8],
    order: SemiPlanar,
) -> Vec<u8> {
    let mut rgb = vec![0; width * height * 3];
    let (luma, color) = data.split_at(step * height);
    let (color_step, _) = order.color_plane(width, height, step);
    let (rows_shared, pixels_shared) = if order.is_full { (1, 1) } else { (2, 2) };
    for (row, (to, y)) in rgb.chunks_exact_mut(width * 3).zip(luma.chunks(step)).enumerate() {
        let color = &color[row / rows_shared * color_step..];
        let groups = to.chunks_mut(3 * pixels_shared).zip(y.chunks(pixels_shared)).zip(color.chunks_exact(2));
        for ((pixels, y), pair) in groups {
            let (u, v) = if order.u_first { (pair[0], pair[1]) } else { (pair[1], pair[0]) };
            let chroma = Chroma::new(u, v);
            for (pixel, y) in pixels.chunks_exact_mut(3).zip(y) {
                pixel.copy_from_slice(&chroma.rgb(*y));
            }
        }
    }
    rgb
}

/// What color adds to gray, with the rounding in it.
struct Chroma([i32; 3]);

impl Chroma {
    #[inline]
    fn new(u: u8, v: u8) -> Self {
        const HALF: i32 = 1 << (SHIFT - 1);
        let (u, v) = (i32::from(u) - 128, i32::from(v) - 128);
        Self([HALF + V_TO_RED * v, HALF + V_TO_GREEN * v + U_TO_GREEN * u, HALF + U_TO_BLUE * u])
    }

    #[inline]
    fn rgb(&self, y: u8) -> [u8; 3] {
        let gray = (i32::from(y) - 16).max(0) * Y_GAIN;
        self.0.map(|it| ((gray + it) >> SHIFT).clamp(0, 255) as u8)
    }
}
