//! Parts of a picture that are looked at by themselves. All have the shape of the picture, so that things are squeezed as in the whole.

use crate::detection::BoundingBox2d;
use crate::image::RgbImage;

/// Windows begin and end on a grid of so many steps a side, so that they have a number each.
const GRID: u32 = 32;
/// Side of a tile, in steps: 1.6 times as large as in the whole picture, and no thing under 1/4 of the picture is cut by all.
const TILE: u32 = 20;
/// Surroundings are at least and at most so large, in steps.
const CROP: (u32, u32) = (12, 24);
/// How much larger than a thing its surroundings are.
const CONTEXT: f64 = 2.0;
/// What comes nearer to an inner border than this share of the window goes on behind it.
const BORDER: f64 = 0.015;

/// A part of a picture, in steps of the grid from its upper left corner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    x: u32,
    y: u32,
    side: u32,
}

/// Four that overlap by a quarter of the picture and cover it.
pub(super) fn tiles() -> Vec<Window> {
    let at = [0, GRID - TILE];
    at.into_iter().flat_map(|y| at.map(|x| Window { x, y, side: TILE })).collect()
}

/// What is around a box of a picture of this size.
pub(super) fn around(bbox: &BoundingBox2d, (width, height): (u32, u32)) -> Window {
    let (x, y) = bbox.center();
    let share = (bbox.width() / f64::from(width)).max(bbox.height() / f64::from(height));
    let side = ((CONTEXT * share * f64::from(GRID)).ceil() as u32).clamp(CROP.0, CROP.1);
    let from = |center: f64, of: u32| {
        let middle = center / f64::from(of) * f64::from(GRID);
        ((middle - 0.5 * f64::from(side)).round().max(0.0) as u32).min(GRID - side)
    };
    Window { x: from(x, width), y: from(y, height), side }
}

impl Window {
    /// Its number: no other window of a picture has it, and the whole picture has 0.
    pub(super) fn part(self) -> u32 {
        1 + self.x + GRID * (self.y + GRID * self.side)
    }

    /// Its pixels.
    pub(super) fn crop(self, image: &RgbImage) -> RgbImage {
        let [x0, y0, x1, y1] = self.edges(image.dimensions());
        image::imageops::crop_imm(image, x0, y0, (x1 - x0).max(1), (y1 - y0).max(1)).to_image()
    }

    /// A box within the window as one of the picture; `None` for what the window cuts.
    pub(super) fn to_picture(self, bbox: &BoundingBox2d, size: (u32, u32)) -> Option<BoundingBox2d> {
        let [x0, y0, x1, y1] = self.edges(size).map(f64::from);
        let (dx, dy) = (BORDER * (x1 - x0), BORDER * (y1 - y0));
        let (width, height) = (f64::from(size.0), f64::from(size.1));
        let is_cut = (bbox.x0 < dx && x0 > 0.0)
            || (bbox.y0 < dy && y0 > 0.0)
            || (bbox.x1 > x1 - x0 - dx && x1 < width)
            || (bbox.y1 > y1 - y0 - dy && y1 < height);
        (!is_cut).then_some(BoundingBox2d {
            x0: bbox.x0 + x0,
            y0: bbox.y0 + y0,
            x1: bbox.x1 + x0,
            y1: bbox.y1 + y0,
        })
    }

    /// In pixels of a picture: x0, y0, x1, y1.
    fn edges(self, (width, height): (u32, u32)) -> [u32; 4] {
        let at = |steps: u32, of: u32| (u64::from(steps) * u64::from(of) / u64::from(GRID)) as u32;
        [at(self.x, width), at(self.y, height), at(self.x + self.side, width), at(self.y + self.side, height)]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const SIZE: (u32, u32) = (641, 479);

    #[test]
    fn what_is_under_a_quarter_of_the_picture_is_whole_in_a_tile_and_comes_back_where_it_was() {
        let (w, h) = (0.23 * f64::from(SIZE.0), 0.23 * f64::from(SIZE.1));
        for i in 0..=20 {
            for j in 0..=20 {
                let x0 = f64::from(i) / 20.0 * (f64::from(SIZE.0) - w);
                let y0 = f64::from(j) / 20.0 * (f64::from(SIZE.1) - h);
                let thing = BoundingBox2d { x0, y0, x1: x0 + w, y1: y0 + h };
                let whole_in = tiles().into_iter().filter_map(|tile| {
                    let [left, top, right, bottom] = tile.edges(SIZE).map(f64::from);
                    let within = BoundingBox2d {
                        x0: (thing.x0 - left).max(0.0),
                        y0: (thing.y0 - top).max(0.0),
                        x1: (thing.x1 - left).min(right - left),
                        y1: (thing.y1 - top).min(bottom - top),
                    };
                    if within.area() > 0.0 { tile.to_picture(&within, SIZE) } else { None }
                });
                let whole_in: Vec<BoundingBox2d> = whole_in.collect();
                assert!(!whole_in.is_empty(), "{thing:?} is cut by all");
                for back in whole_in {
                    assert!(back.iou(&thing) > 0.999, "{back:?} was {thing:?}");
                }
            }
        }
    }

    #[test]
    fn surroundings_lie_within_the_picture_around_the_thing() {
        for bbox in [[0.0, 0.0, 9.0, 9.0], [600.0, 440.0, 641.0, 479.0], [300.0, 200.0, 420.0, 260.0]] {
            let bbox = BoundingBox2d::from(bbox);
            let [x0, y0, x1, y1] = around(&bbox, SIZE).edges(SIZE).map(f64::from);
            assert!(x0 <= bbox.x0 && y0 <= bbox.y0 && bbox.x1 <= x1 && bbox.y1 <= y1, "{bbox:?}");
            assert!(x1 <= f64::from(SIZE.0) && y1 <= f64::from(SIZE.1));
        }
        assert_eq!(around(&BoundingBox2d::from([0.0, 0.0, 641.0, 479.0]), SIZE).side, CROP.1);
    }

    #[test]
    fn every_window_has_a_number_of_its_own() {
        let sides = [CROP.0, 13, TILE, CROP.1];
        let all = sides.into_iter().flat_map(|side| {
            (0..=GRID - side).flat_map(move |y| (0..=GRID - side).map(move |x| Window { x, y, side }))
        });
        let all: Vec<u32> = all.map(Window::part).collect();
        let distinct: HashSet<u32> = all.iter().copied().collect();
        assert!(distinct.len() == all.len() && !distinct.contains(&0));
    }

    #[test]
    fn a_picture_of_a_few_pixels_has_windows_too() {
        for size in [(1, 1), (3, 2), (33, 1)] {
            let image = RgbImage::new(size.0, size.1);
            for tile in tiles() {
                assert!(tile.crop(&image).width() >= 1, "{size:?}");
            }
        }
    }
}
