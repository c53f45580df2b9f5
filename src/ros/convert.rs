//! Camera messages to the core's types. Every refusal is one sentence: what was expected, what came, what to do.

use image::{DynamicImage, ImageReader};
use r2r::sensor_msgs::msg::{CameraInfo, CompressedImage, Image};

use crate::camera::{Calibration, PinholeCamera};
use crate::engine::camera::{ColorMessage, ConvertError, DepthMessage, IntrinsicsMessage};
use crate::image::encoding::RawImage;
use crate::image::{DepthImage, DepthUnit, RgbImage, compressed, rvl};

/// The largest side of an RVL image: a bound on what a broken header can make us allocate.
const MAX_RVL_SIDE: u32 = 16_384;
/// Bytes of the configuration header that `compressed_depth_image_transport` puts before its PNG:
/// an int32 format and the two float32 quantization parameters.
const COMPRESSED_DEPTH_HEADER: usize = 12;

impl ColorMessage for Image {
    fn size(&self) -> Option<(u32, u32)> {
        Some((self.width, self.height))
    }

    fn rgb(&self) -> Result<RgbImage, ConvertError> {
        rgb_image(self)
    }
}

impl ColorMessage for CompressedImage {
    fn size(&self) -> Option<(u32, u32)> {
        compressed_size(self)
    }

    fn rgb(&self) -> Result<RgbImage, ConvertError> {
        rgb_image_from_compressed(self)
    }
}

impl DepthMessage for Image {
    fn depth(&self, unit: DepthUnit) -> Result<DepthImage, ConvertError> {
        depth_image(self, unit)
    }
}

impl DepthMessage for CompressedImage {
    fn depth(&self, unit: DepthUnit) -> Result<DepthImage, ConvertError> {
        depth_image_from_compressed(self, unit)
    }
}

impl IntrinsicsMessage for CameraInfo {
    fn camera(&self, image_size: (u32, u32), is_rectified: bool) -> Result<PinholeCamera, ConvertError> {
        camera(self, image_size, is_rectified)
    }
}

/// A raw color image.
pub fn rgb_image(message: &Image) -> Result<RgbImage, ConvertError> {
    Ok(raw(message).rgb()?)
}

/// A raw depth image: 16UC1 in millimeters (0 = none) or 32FC1 in meters (not finite or <= 0 = none), unless `unit`
/// says otherwise, of either byte order.
pub fn depth_image(message: &Image, unit: DepthUnit) -> Result<DepthImage, ConvertError> {
    let raw = raw(message);
    let n_pixels = message.width as usize * message.height as usize;
    let (width, height) = (message.width, message.height);
    match message.encoding.as_str() {
        "16UC1" | "mono16" => {
            let read = raw.reader();
            let mut values = Vec::with_capacity(n_pixels.min(message.data.len()));
            for row in raw.rows(2)? {
                let (pixels, _) = row.as_chunks::<2>();
                values.extend(pixels.iter().map(|&bytes| read(bytes)));
            }
            Ok(DepthImage::from_integers(width, height, &values, unit)?)
        }
        "32FC1" => {
            let read = if raw.is_big_endian { f32::from_be_bytes } else { f32::from_le_bytes };
            let mut depth_m = Vec::with_capacity(n_pixels.min(message.data.len()));
            for row in raw.rows(4)? {
                let (values, _) = row.as_chunks::<4>();
                depth_m.extend(values.iter().map(|&bytes| read(bytes)));
            }
            Ok(DepthImage::from_floats(width, height, depth_m, unit)?)
        }
        other => Err(ConvertError::DepthEncoding { got: other.to_owned() }),
    }
}

/// A JPEG or PNG color image (`compressed_image_transport`).
pub fn rgb_image_from_compressed(message: &CompressedImage) -> Result<RgbImage, ConvertError> {
    let refused = |reason| ConvertError::Compressed { format: message.format.clone(), reason };
    compressed::decode(&message.data).and_then(|it| compressed::color(it.pixels)).map_err(refused)
}

/// Columns and rows of a compressed image, from its header alone; `None` when it has none.
pub fn compressed_size(message: &CompressedImage) -> Option<(u32, u32)> {
    let reader = ImageReader::new(std::io::Cursor::new(&message.data)).with_guessed_format().ok()?;
    reader.into_dimensions().ok()
}

/// A depth image of `compressed_depth_image_transport`: a 16-bit PNG or RVL after a 12-byte header, holding millimeters
/// (`16UC1`) or quantized inverse depth (`32FC1`: depth = a / (value - b)). A bare 16-bit PNG is millimeters.
pub fn depth_image_from_compressed(
    message: &CompressedImage,
    unit: DepthUnit,
) -> Result<DepthImage, ConvertError> {
    let refused = |reason: &str| ConvertError::CompressedDepth {
        format: message.format.clone(),
        reason: reason.to_owned(),
    };
    let has_header = message.format.contains("compressedDepth");
    let body = message.data.get(if has_header { COMPRESSED_DEPTH_HEADER } else { 0 }..).unwrap_or_default();
    let is_rvl = message.format.trim_end().ends_with("rvl");
    let (width, height, values) =
        if is_rvl { rvl_values(body) } else { png_values(body) }.map_err(|reason| refused(&reason))?;
    if has_header && message.format.starts_with("32FC1") {
        let parameter = |at: usize| {
            let (bytes, _) = message.data[at..].as_chunks::<4>();
            f32::from_le_bytes(bytes[0])
        };
        // The body was read, so the 12 header bytes are there.
        let (a, b) = (parameter(4), parameter(8));
        let depth_m =
            values.iter().map(|&v| if v == 0 { f32::NAN } else { a / (f32::from(v) - b) }).collect();
        return Ok(DepthImage::from_floats(width, height, depth_m, unit)?);
    }
    Ok(DepthImage::from_integers(width, height, &values, unit)?)
}

/// Columns, rows and values.
type Values = (u32, u32, Vec<u16>);

fn png_values(png: &[u8]) -> Result<Values, String> {
    match compressed::decode(png)?.pixels {
        DynamicImage::ImageLuma16(values) => Ok((values.width(), values.height(), values.into_raw())),
        other => Err(format!("depth must be a 16-bit gray PNG, this is {:?}", other.color())),
    }
}

/// The plugin puts the size before the stream.
fn rvl_values(body: &[u8]) -> Result<Values, String> {
    let Some((size, stream)) = body.split_first_chunk::<8>() else {
        return Err("it has no size".to_owned());
    };
    let ([width, height], _) = size.as_chunks::<4>() else { return Err("it has no size".to_owned()) };
    let (width, height) = (u32::from_le_bytes(*width), u32::from_le_bytes(*height));
    if !(1..=MAX_RVL_SIDE).contains(&width) || !(1..=MAX_RVL_SIDE).contains(&height) {
        return Err(format!("its size is {width}x{height}"));
    }
    let values = rvl::decode(stream, width as usize * height as usize)?;
    Ok((width, height, values))
}

/// The camera of an image of `image_size` (width, height) pixels, moved by the region of interest and scaled by the binning
/// (REP 104): `K` and the lens `D` for an image as the sensor gives it, `P` without a lens for a rectified one.
pub fn camera(
    message: &CameraInfo,
    image_size: (u32, u32),
    is_rectified: bool,
) -> Result<PinholeCamera, ConvertError> {
    let roi = &message.roi;
    let calibration = Calibration {
        size: (message.width, message.height),
        k: std::array::from_fn(|it| message.k.get(it).copied().unwrap_or(0.0)),
        // An uncalibrated driver leaves P empty.
        p: <[f64; 12]>::try_from(message.p.as_slice()).ok(),
        lens: (message.distortion_model.clone(), message.d.clone()),
        roi: (roi.width > 0 && roi.height > 0).then_some((roi.x_offset, roi.y_offset, roi.width, roi.height)),
        binning: (message.binning_x.max(1), message.binning_y.max(1)),
    };
    let (width, height) = calibration.image_size();
    if (width, height) != image_size {
        let (image_width, image_height) = image_size;
        return Err(ConvertError::CameraSize { image_width, image_height, width, height });
    }
    Ok(calibration.camera(is_rectified)?)
}

fn raw(message: &Image) -> RawImage<'_> {
    RawImage {
        width: message.width,
        height: message.height,
        step: message.step,
        encoding: &message.encoding,
        is_big_endian: message.is_bigendian != 0,
        data: &message.data,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(width: u32, height: u32, encoding: &str, step: u32, data: Vec<u8>) -> Image {
        Image { width, height, encoding: encoding.to_owned(), step, data, ..Default::default() }
    }

    #[test]
    fn every_color_encoding_gives_the_same_pixels() {
        // Two red-ish pixels over two blue-ish ones, rows padded by one byte.
        let cases: [(&str, u32, &[u8]); 4] = [
            ("rgb8", 7, &[200, 10, 20, 201, 11, 21, 9, 1, 2, 250, 3, 4, 251, 9]),
            ("bgr8", 7, &[20, 10, 200, 21, 11, 201, 9, 250, 2, 1, 251, 4, 3, 9]),
            ("rgba8", 9, &[200, 10, 20, 0, 201, 11, 21, 0, 9, 1, 2, 250, 0, 3, 4, 251, 0, 9]),
            ("bgra8", 9, &[20, 10, 200, 0, 21, 11, 201, 0, 9, 250, 2, 1, 0, 251, 4, 3, 0, 9]),
        ];
        for (encoding, step, data) in cases {
            let image = rgb_image(&message(2, 2, encoding, step, data.to_vec())).unwrap();
            assert_eq!(image.as_raw(), &[200, 10, 20, 201, 11, 21, 1, 2, 250, 3, 4, 251], "{encoding}");
        }
        let gray = rgb_image(&message(2, 1, "mono8", 2, vec![7, 9])).unwrap();
        assert_eq!(gray.as_raw(), &[7, 7, 7, 9, 9, 9]);
    }

    #[test]
    fn bad_images_are_refused_with_a_sentence() {
        let check = |bad: Image, says: &str| {
            let sentence = rgb_image(&bad).unwrap_err().to_string();
            assert!(sentence.contains(says), "{sentence:?} lacks {says:?}");
        };
        check(message(0, 0, "rgb8", 0, vec![]), "got 0x0");
        check(message(4, 0, "rgb8", 12, vec![]), "got 4x0");
        check(message(2, 1, "rgb8", 5, vec![0; 6]), "step >= 6");
        check(message(2, 2, "rgb8", 6, vec![0; 11]), "expected 12 bytes");
        check(message(u32::MAX, u32::MAX, "rgba8", u32::MAX, vec![0; 4]), "step >= ");
        check(message(2, 1, "bayer_rggb8", 2, vec![0; 2]), "3x3");
        check(message(2, 1, "jpeg", 12, vec![0; 12]), "rgb8");
        check(message(2, 1, "16UC1", 4, vec![0; 4]), "depth topic");
        check(message(2, 1, "", 6, vec![0; 6]), "got \"\"");
    }

    #[test]
    fn depth_is_meters_whatever_the_encoding_and_byte_order() {
        let float = |value: f32, big: bool| if big { value.to_be_bytes() } else { value.to_le_bytes() };
        let mut cases = vec![
            (message(2, 1, "16UC1", 4, vec![0xe8, 0x03, 0, 0]), 0),
            (message(2, 1, "16UC1", 4, vec![0x03, 0xe8, 0, 0]), 1),
        ];
        for (nothing, big) in [(f32::NAN, 0), (f32::INFINITY, 1), (0.0, 0), (-1.0, 1), (f32::NEG_INFINITY, 0)]
        {
            let data = [float(1.0, big == 1), float(nothing, big == 1)].concat();
            cases.push((message(2, 1, "32FC1", 8, data), big));
        }
        for (mut image, is_bigendian) in cases {
            image.is_bigendian = is_bigendian;
            let depth = depth_image(&image, DepthUnit::ByEncoding).unwrap();
            assert!((depth.get(0, 0).unwrap() - 1.0).abs() < 1e-6, "{}", image.encoding);
            assert_eq!(depth.get(1, 0), None, "{}", image.encoding);
        }
        let sentence = depth_image(&message(1, 1, "rgb8", 3, vec![0; 3]), DepthUnit::ByEncoding)
            .unwrap_err()
            .to_string();
        assert!(sentence.contains("16UC1"), "{sentence}");
    }

    #[test]
    fn compressed_depth_is_read_as_rvl_too() {
        // A row of nothing, 1500 and 1499: runs 1 and 2, differences 3000 and 1 (coded), as the paper packs them.
        let nibbles = [1_u32, 2, 0x8, 0xf, 0xe, 5, 1, 0];
        let word = nibbles.iter().fold(0, |word, it| word << 4 | it);
        let body = [3_u32.to_le_bytes(), 1_u32.to_le_bytes(), word.to_le_bytes()].concat();
        let header = [[0; 4], 3000.0_f32.to_le_bytes(), 0.0_f32.to_le_bytes()].concat();
        for (format, meters) in
            [("16UC1; compressedDepth rvl", [1.5, 1.499]), ("32FC1; compressedDepth rvl", [2.0, 2.001_334])]
        {
            let data = [header.clone(), body.clone()].concat();
            let message = CompressedImage { format: format.to_owned(), data, ..Default::default() };
            let depth = depth_image_from_compressed(&message, DepthUnit::ByEncoding).unwrap();
            assert_eq!(depth.get(0, 0), None);
            for (u, expected) in meters.into_iter().enumerate() {
                assert!((depth.get(u as u32 + 1, 0).unwrap() - expected).abs() < 1e-5, "{format}");
            }
            let cut = CompressedImage { data: message.data[..20].to_vec(), ..message };
            let sentence = depth_image_from_compressed(&cut, DepthUnit::ByEncoding).unwrap_err().to_string();
            assert!(sentence.contains("ends early"), "{sentence}");
        }
    }

    #[test]
    fn compressed_depth_is_read_in_both_forms() {
        let png = |values: Vec<u16>| {
            let gray =
                image::ImageBuffer::<image::Luma<u16>, _>::from_raw(values.len() as u32, 1, values).unwrap();
            let mut bytes = std::io::Cursor::new(Vec::new());
            DynamicImage::ImageLuma16(gray).write_to(&mut bytes, image::ImageFormat::Png).unwrap();
            bytes.into_inner()
        };
        let compressed = |format: &str, header: &[u8], values: Vec<u16>| CompressedImage {
            format: format.to_owned(),
            data: [header.to_vec(), png(values)].concat(),
            ..Default::default()
        };
        let millimeters = compressed("16UC1; compressedDepth png", &[0; 12], vec![1500, 0]);
        let header = [[0; 4], 1000.0_f32.to_le_bytes(), 10.0_f32.to_le_bytes()].concat();
        // 1000 / (510 - 10) = 2 m
        let inverse = compressed("32FC1; compressedDepth png", &header, vec![510, 0]);
        for (message, meters) in
            [(millimeters, 1.5), (inverse, 2.0), (compressed("png", &[], vec![250, 0]), 0.25)]
        {
            let depth = depth_image_from_compressed(&message, DepthUnit::ByEncoding).unwrap();
            assert!((depth.get(0, 0).unwrap() - meters).abs() < 1e-5, "{}", message.format);
            assert_eq!(depth.get(1, 0), None, "{}", message.format);
        }
        let garbage =
            CompressedImage { data: vec![1, 2, 3], format: "jpeg".to_owned(), ..Default::default() };
        assert!(rgb_image_from_compressed(&garbage).is_err());
        assert!(depth_image_from_compressed(&garbage, DepthUnit::ByEncoding).is_err());
    }

    #[test]
    fn the_camera_follows_region_of_interest_and_binning() {
        let k = vec![600.0, 0.0, 320.0, 0.0, 610.0, 240.0, 0.0, 0.0, 1.0];
        let mut info = CameraInfo { width: 640, height: 480, k, ..Default::default() };
        assert_eq!(camera(&info, (640, 480), false).unwrap().focal_lengths(), (600.0, 610.0));
        assert!(camera(&info, (320, 240), false).unwrap_err().to_string().contains("640x480"));
        info.binning_x = 2;
        info.binning_y = 2;
        assert_eq!(camera(&info, (320, 240), false).unwrap().k().map(f64::round)[2] as i32, 160);
        info.roi.x_offset = 100;
        info.roi.width = 400;
        info.roi.height = 480;
        assert_eq!(camera(&info, (200, 240), false).unwrap().k().map(f64::round)[2] as i32, 110);
        // A pixel of the part is the pixel of the whole that it came from, lens or not.
        info.distortion_model = "plumb_bob".to_owned();
        info.d = vec![-0.2, 0.05, 0.001, 0.0, 0.0];
        let part = camera(&info, (200, 240), false).unwrap();
        let whole_info = CameraInfo {
            binning_x: 0,
            binning_y: 0,
            roi: r2r::sensor_msgs::msg::RegionOfInterest::default(),
            ..info.clone()
        };
        let whole = camera(&whole_info, (640, 480), false).unwrap();
        let ray = part.ray(nalgebra::Point2::new(30.0, 200.0)).unwrap();
        let same = whole.ray(nalgebra::Point2::new(100.0 + 60.0, 400.0)).unwrap();
        assert!((ray - same).norm() < 1e-9, "{ray} {same}");
        info.p = vec![500.0, 0.0, 310.0, 0.0, 0.0, 500.0, 230.0, 0.0, 0.0, 0.0, 1.0, 0.0];
        let rectified = camera(&info, (200, 240), true).unwrap();
        assert_eq!(
            (rectified.focal_lengths().0, rectified.distortion()),
            (250.0, &crate::camera::Distortion::None)
        );
        let uncalibrated = CameraInfo { width: 4, height: 4, k: vec![0.0; 9], ..Default::default() };
        assert!(camera(&uncalibrated, (4, 4), false).unwrap_err().to_string().contains("calibrated"));
    }
}
