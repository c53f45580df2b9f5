//! Camera encodings held to OpenCV (`tests/parity/opencv_colors.py` wrote the fixture).

#![allow(clippy::unwrap_used, reason = "data that cannot be read fails the test")]

use language_grounding::image::encoding::{EncodingError, RawImage};
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixture {
    images: Vec<Encoded>,
}

#[derive(Deserialize)]
struct Encoded {
    encoding: String,
    width: u32,
    height: u32,
    step: u32,
    data: String,
    rgb: String,
}

#[test]
fn colors_are_those_of_opencv() {
    let fixture: Fixture = serde_json::from_str(include_str!("data/camera_encodings.json")).unwrap();
    assert_eq!(fixture.images.len(), 18);
    for it in &fixture.images {
        let (data, rgb) = (bytes(&it.data), bytes(&it.rgb));
        let got = raw(it, it.step, &data).rgb().unwrap();
        assert_eq!(got.as_raw(), &rgb, "{}", it.encoding);
        if it.encoding.starts_with("nv") {
            continue;
        }
        // Rows with padding are the same image.
        let padded: Vec<u8> =
            data.chunks(it.step as usize).flat_map(|row| [row, &[77; 5][..]].concat()).collect();
        let got = raw(it, it.step + 5, &padded).rgb().unwrap();
        assert_eq!(got.as_raw(), &rgb, "{} with padding", it.encoding);
    }
}

#[test]
fn the_other_byte_order_and_odd_sizes() {
    let deep = RawImage {
        width: 1,
        height: 1,
        step: 6,
        encoding: "rgb16",
        is_big_endian: true,
        data: &[255, 255, 128, 0, 0, 9],
    };
    assert_eq!(deep.rgb().unwrap().as_raw(), &[255, 128, 0]);
    // Gray has no color: every pixel is its own Y, also the last of an odd row.
    let odd = RawImage {
        width: 3,
        height: 1,
        step: 6,
        encoding: "yuyv",
        is_big_endian: false,
        data: &[126, 128, 16, 128, 235, 128],
    };
    assert_eq!(odd.rgb().unwrap().as_raw(), &[128, 128, 128, 0, 0, 0, 255, 255, 255]);
    let odd = RawImage {
        encoding: "nv12",
        step: 3,
        height: 3,
        data: &[126, 16, 235, 126, 16, 235, 126, 16, 235, 128, 128, 128, 128, 128, 128, 128, 128],
        ..odd
    };
    let row = [128, 128, 128, 0, 0, 0, 255, 255, 255];
    assert_eq!(odd.rgb().unwrap().as_raw(), &[row, row, row].concat());
    // Full color for every pixel.
    let full = RawImage {
        width: 2,
        height: 1,
        step: 2,
        encoding: "nv24",
        is_big_endian: false,
        data: &[81, 81, 90, 240, 128, 128],
    };
    assert_eq!(full.rgb().unwrap().as_raw(), &[254, 0, 0, 76, 76, 76]);
}

#[test]
fn what_is_no_image_is_refused_with_a_sentence() {
    let check = |width, height, encoding, step, n_bytes, says: &str| {
        let data = vec![0; n_bytes];
        let image = RawImage { width, height, step, encoding, is_big_endian: false, data: &data };
        let sentence = image.rgb().unwrap_err().to_string();
        assert!(sentence.contains(says), "{sentence:?} lacks {says:?}");
    };
    for encoding in ["rgb8", "yuyv", "nv21", "bayer_rggb8", "rgba16"] {
        check(0, 0, encoding, 0, 0, "got 0x0");
        check(4, 4, encoding, 3, 100, "step >= ");
        check(4, 4, encoding, 40, 159, "expected ");
        check(u32::MAX, u32::MAX, encoding, u32::MAX, 4, "");
    }
    check(2, 2, "bayer_rggb8", 2, 4, "at least 3x3");
    check(4, 1, "16UC1", 8, 8, "depth topic");
    check(4, 1, "", 8, 8, "got \"\"");
    check(4, 4, "nv12", 4, 23, "expected 24 bytes");
    assert!(matches!(
        RawImage { width: 1, height: 1, step: 1, encoding: "bayer_what8", is_big_endian: false, data: &[0] }
            .rgb(),
        Err(EncodingError::Unknown { .. })
    ));
}

fn raw<'a>(it: &'a Encoded, step: u32, data: &'a [u8]) -> RawImage<'a> {
    let Encoded { width, height, encoding, .. } = it;
    RawImage { width: *width, height: *height, step, encoding, is_big_endian: false, data }
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}
