//! Raw camera images to rgb8, by the encodings of sensor_msgs. Every refusal is one sentence.

use super::RgbImage;
use super::bayer::{Pattern, rgb_from_mosaic};
use super::yuv::{SemiPlanar, UYVY, YUYV, rgb_from_packed, rgb_from_semi_planar};

/// A raw image as sensor_msgs/Image has it.
#[derive(Debug, Clone, Copy)]
pub struct RawImage<'a> {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Bytes from row to row.
    pub step: u32,
    /// What the bytes mean.
    pub encoding: &'a str,
    /// Of values of more than a byte.
    pub is_big_endian: bool,
    /// Row-major.
    pub data: &'a [u8],
}

/// Why a raw image was refused.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum EncodingError {
    /// No pixels.
    #[error("expected an image with pixels, got {width}x{height}: the camera driver sends empty images")]
    Empty {
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
    },
    /// Color encoding that is not read.
    #[error(
        "expected encoding rgb8, bgr8, rgba8, bgra8, mono8, their 16-bit forms, yuyv, uyvy, nv12, nv21, nv24 or bayer_*, \
         got {got:?}: {remedy}"
    )]
    Unknown {
        /// As sent.
        got: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// Rows are shorter than their pixels.
    #[error(
        "expected step >= {expected} bytes for {width} pixels of {encoding}, got {got}: the image is corrupt"
    )]
    Step {
        /// width * bytes per pixel.
        expected: usize,
        /// Columns.
        width: u32,
        /// As sent.
        encoding: String,
        /// As sent.
        got: u32,
    },
    /// The data ends before the last row does.
    #[error("expected {expected} bytes ({height} rows of {step}), got {got}: the image is corrupt")]
    Length {
        /// Of the whole image.
        expected: usize,
        /// Rows.
        height: u32,
        /// Bytes per row.
        step: u32,
        /// Bytes sent.
        got: usize,
    },
    /// A mosaic too small to have neighbors.
    #[error("expected a mosaic of at least 3x3 pixels, got {width}x{height}")]
    Mosaic {
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
    },
}

impl RawImage<'_> {
    /// The image as rgb8; alpha is dropped, gray stands in all three channels.
    ///
    /// # Errors
    /// The encoding is none of a color image, or the sizes do not fit.
    pub fn rgb(&self) -> Result<RgbImage, EncodingError> {
        let (width, height, step) = (self.width as usize, self.height as usize, self.step as usize);
        let rgb = match self.encoding {
            "rgb8" => self.pixels::<1, 3>([0, 1, 2])?,
            "bgr8" | "8UC3" => self.pixels::<1, 3>([2, 1, 0])?,
            "rgba8" => self.pixels::<1, 4>([0, 1, 2])?,
            "bgra8" | "8UC4" => self.pixels::<1, 4>([2, 1, 0])?,
            "mono8" | "8UC1" => self.pixels::<1, 1>([0; 3])?,
            "rgb16" => self.pixels::<2, 3>([0, 1, 2])?,
            "bgr16" | "16UC3" => self.pixels::<2, 3>([2, 1, 0])?,
            "rgba16" => self.pixels::<2, 4>([0, 1, 2])?,
            "bgra16" | "16UC4" => self.pixels::<2, 4>([2, 1, 0])?,
            "yuyv" | "yuv422_yuy2" => rgb_from_packed(width, height, step, self.whole(2)?, YUYV),
            "uyvy" | "yuv422" => rgb_from_packed(width, height, step, self.whole(2)?, UYVY),
            "nv12" => self.semi_planar(SemiPlanar { u_first: true, is_full: false })?,
            "nv21" => self.semi_planar(SemiPlanar { u_first: false, is_full: false })?,
            "nv24" => self.semi_planar(SemiPlanar { u_first: true, is_full: true })?,
            other => match Pattern::from_encoding(other) {
                Some(pattern) => self.mosaic(pattern)?,
                None => {
                    let remedy = remedy(other);
                    return Err(EncodingError::Unknown { got: other.to_owned(), remedy });
                }
            },
        };
        RgbImage::from_raw(self.width, self.height, rgb).ok_or(self.too_short(width * height * 3))
    }

    /// The rows without their padding.
    ///
    /// # Errors
    /// There are no pixels, or fewer bytes than the rows need.
    pub fn rows(&self, bytes_per_pixel: usize) -> Result<impl Iterator<Item = &[u8]>, EncodingError> {
        let row_bytes = self.width as usize * bytes_per_pixel;
        let whole = self.whole(bytes_per_pixel)?;
        Ok(whole.chunks_exact(self.step as usize).map(move |row| &row[..row_bytes]))
    }

    /// The bytes of all rows.
    fn whole(&self, bytes_per_pixel: usize) -> Result<&[u8], EncodingError> {
        let Self { width, height, step, .. } = *self;
        if width == 0 || height == 0 {
            return Err(EncodingError::Empty { width, height });
        }
        let row_bytes = width as usize * bytes_per_pixel;
        if (step as usize) < row_bytes {
            let encoding = self.encoding.to_owned();
            return Err(EncodingError::Step { expected: row_bytes, width, encoding, got: step });
        }
        let expected = step as usize * height as usize;
        self.data.get(..expected).ok_or(self.too_short(expected))
    }

    fn too_short(&self, expected: usize) -> EncodingError {
        EncodingError::Length { expected, height: self.height, step: self.step, got: self.data.len() }
    }

    /// Channels side by side: `BYTES` each, `CHANNELS` a pixel; `order` says where red, green and blue are.
    fn pixels<const BYTES: usize, const CHANNELS: usize>(
        &self,
        order: [usize; 3],
    ) -> Result<Vec<u8>, EncodingError> {
        let n_bytes = self.width as usize * self.height as usize * 3;
        let rows = self.rows(BYTES * CHANNELS)?;
        let mut rgb = Vec::with_capacity(n_bytes);
        if BYTES == 1 && CHANNELS == 3 && order == [0, 1, 2] {
            rows.for_each(|row| rgb.extend_from_slice(row));
        } else if BYTES == 1 {
            for row in rows {
                let (pixels, _) = row.as_chunks::<CHANNELS>();
                rgb.extend(pixels.iter().flat_map(|it| order.map(|at| it[at])));
            }
        } else {
            let read = self.reader();
            for row in rows {
                let (values, _) = row.as_chunks::<2>();
                let (pixels, _) = values.as_chunks::<CHANNELS>();
                rgb.extend(pixels.iter().flat_map(|it| order.map(|at| upper_byte(read(it[at]).into()))));
            }
        }
        Ok(rgb)
    }

    fn semi_planar(&self, order: SemiPlanar) -> Result<Vec<u8>, EncodingError> {
        self.whole(1)?;
        let (width, height, step) = (self.width as usize, self.height as usize, self.step as usize);
        let expected = order.n_bytes(width, height, step);
        let data = self.data.get(..expected).ok_or(self.too_short(expected))?;
        Ok(rgb_from_semi_planar(width, height, step, data, order))
    }

    fn mosaic(&self, pattern: Pattern) -> Result<Vec<u8>, EncodingError> {
        let (width, height) = (self.width as usize, self.height as usize);
        if 0 < width.min(height) && width.min(height) < 3 {
            return Err(EncodingError::Mosaic { width: self.width, height: self.height });
        }
        if self.encoding.ends_with("16") {
            let read = self.reader();
            let mut values = Vec::with_capacity(width * height);
            for row in self.rows(2)? {
                values.extend(row.as_chunks::<2>().0.iter().map(|it| read(*it)));
            }
            return Ok(rgb_from_mosaic(width, height, &values, pattern, upper_byte));
        }
        let whole = self.whole(1)?;
        if self.step == self.width {
            return Ok(rgb_from_mosaic(width, height, whole, pattern, |it| it as u8));
        }
        let values: Vec<u8> = self.rows(1)?.flatten().copied().collect();
        Ok(rgb_from_mosaic(width, height, &values, pattern, |it| it as u8))
    }

    /// Reads values of 16 bits.
    pub fn reader(&self) -> fn([u8; 2]) -> u16 {
        if self.is_big_endian { u16::from_be_bytes } else { u16::from_le_bytes }
    }
}

/// 0 to 65535 as 0 to 255.
fn upper_byte(value: u32) -> u8 {
    ((value * 255 + 32_767) / 65_535) as u8
}

fn remedy(encoding: &str) -> &'static str {
    match encoding {
        "16UC1" | "mono16" | "32FC1" => {
            "`image` seems to be remapped to a depth topic, or set the driver to 8 bits"
        }
        _ => "set the camera driver's color format to rgb8",
    }
}
