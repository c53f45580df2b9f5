//! JPEG and PNG to pixels. Told apart by their content, whatever they are called.

use ::image::metadata::Orientation;
use ::image::{DynamicImage, ImageDecoder as _, ImageReader, Limits};

use super::RgbImage;

/// The largest side that is decoded: a bound on what a broken header can make us allocate.
const MAX_SIDE: u32 = 16_384;

/// A decoded picture.
#[derive(Debug)]
pub struct Decoded {
    /// As stored.
    pub pixels: DynamicImage,
    /// How the camera was held (EXIF): what must be done to see it upright.
    pub orientation: Orientation,
}

/// Pixels as they are stored.
///
/// # Errors
/// What is wrong, in words: no picture, or one that ends early. (A decoder fills up what is missing of a JPEG with gray.)
pub fn decode(bytes: &[u8]) -> Result<Decoded, String> {
    let mut reader = ImageReader::new(std::io::Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|error| error.to_string())?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(|error| error.to_string())?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let pixels = DynamicImage::from_decoder(decoder).map_err(|error| error.to_string())?;
    if is_cut_jpeg(bytes) {
        return Err(format!("the JPEG ends early, after {} bytes", bytes.len()));
    }
    Ok(Decoded { pixels, orientation })
}

/// A color picture: gray of 8 bits is one, gray of 16 bits is depth.
///
/// # Errors
/// What it is instead, in words.
pub fn color(decoded: DynamicImage) -> Result<RgbImage, String> {
    match decoded {
        DynamicImage::ImageLuma16(_) | DynamicImage::ImageLumaA16(_) => {
            Err("it is a 16-bit gray image, which is depth and not color: check what `image` is".to_owned())
        }
        other => Ok(other.into_rgb8()),
    }
}

/// Whether a JPEG has no end of image after its first scan.
fn is_cut_jpeg(bytes: &[u8]) -> bool {
    if !bytes.starts_with(&[0xff, 0xd8]) {
        return false;
    }
    // Segments before the first scan may hold a thumbnail with an end of its own.
    let mut at = 2;
    loop {
        match bytes.get(at..at + 4) {
            Some(&[0xff, 0xff, ..]) => at += 1,
            Some(&[0xff, 0xda, ..]) => break,
            Some(&[0xff, _, high, low]) => at += 2 + usize::from(high) * 256 + usize::from(low),
            _ => return true,
        }
    }
    !bytes[at..].windows(2).any(|it| it == [0xff, 0xd9])
}

#[cfg(test)]
mod tests {
    use ::image::{ImageFormat, Luma};

    use super::*;

    fn encoded(pixels: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut bytes = std::io::Cursor::new(Vec::new());
        pixels.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    fn picture() -> DynamicImage {
        DynamicImage::ImageRgb8(RgbImage::from_fn(64, 48, |u, v| {
            ::image::Rgb([u as u8 * 4, v as u8 * 5, 90])
        }))
    }

    /// Says in EXIF that the camera was turned.
    fn with_exif(jpeg: &[u8], orientation: u8) -> Vec<u8> {
        let mut exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
        exif.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
        let length = (exif.len() as u16 + 2).to_be_bytes();
        [&jpeg[..2], &[0xff, 0xe1], &length, &exif, &jpeg[2..]].concat()
    }

    #[test]
    fn a_jpeg_that_ends_early_is_no_picture() {
        let whole = encoded(&picture(), ImageFormat::Jpeg);
        assert!(decode(&whole).is_ok());
        assert!(
            decode(&[&whole[..], &[0; 100]].concat()).is_ok(),
            "padding after the end is none of its own"
        );
        for part in [0.3, 0.6, 0.9, 0.99] {
            let cut = &whole[..(whole.len() as f64 * part) as usize];
            assert!(decode(cut).is_err(), "{part} of it");
        }
        let sentence = decode(&whole[..whole.len() - 2]).unwrap_err();
        assert!(sentence.contains("ends early"), "{sentence}");
        // A thumbnail's end is not the picture's.
        let thumbnail = [&whole[..2], &[0xff, 0xe2, 0, 6, 0xff, 0xd8, 0xff, 0xd9], &whole[2..]].concat();
        assert!(decode(&thumbnail).is_ok());
        assert!(decode(&thumbnail[..thumbnail.len() - 9]).is_err());
        let png = encoded(&picture(), ImageFormat::Png);
        assert!(decode(&png[..png.len() / 2]).is_err());
    }

    #[test]
    fn the_camera_tells_how_it_was_held() {
        let jpeg = encoded(&picture(), ImageFormat::Jpeg);
        for (said, expected) in
            [(1, Orientation::NoTransforms), (6, Orientation::Rotate90), (8, Orientation::Rotate270)]
        {
            let mut decoded = decode(&with_exif(&jpeg, said)).unwrap();
            assert_eq!(decoded.orientation, expected);
            decoded.pixels.apply_orientation(decoded.orientation);
            assert_eq!(decoded.pixels.width(), if said == 1 { 64 } else { 48 });
        }
    }

    #[test]
    fn gray_of_16_bits_is_no_color() {
        let deep = ::image::ImageBuffer::<Luma<u16>, _>::from_raw(2, 1, vec![800, 900]).unwrap();
        assert!(color(DynamicImage::ImageLuma16(deep)).unwrap_err().contains("depth and not color"));
        assert_eq!(color(picture()).unwrap().dimensions(), (64, 48));
        let gray = DynamicImage::ImageLuma8(picture().into_luma8());
        assert!(color(gray).is_ok());
    }
}
