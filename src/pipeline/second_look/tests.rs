use super::*;
use crate::config::{Config, RawConfig};
use crate::detection::BoundingBox2d;
use crate::image::RgbImage;
use crate::model::{Grounder, ModelInfo};

const SIDE: u32 = 256;

/// Sees white squares on black that are 16 pixels of its input or larger, for every phrase but "nothing".
struct Nearsighted {
    info: ModelInfo,
    looks: Vec<(u32, usize)>,
}

impl Nearsighted {
    fn new(side: Option<u32>) -> Self {
        let info = ModelInfo {
            name: "nearsighted".into(),
            model_type: "test".into(),
            device: "cpu".into(),
            synthetic: true,
            input_side: side,
            is_told: false,
        };
        Self { info, looks: Vec::new() }
    }
}

impl Model for Nearsighted {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn grounder(&mut self) -> Option<&mut dyn Grounder> {
        Some(self)
    }
}

impl Grounder for Nearsighted {
    fn ground(
        &mut self,
        image: KeyedImage<'_>,
        phrases: &[&str],
    ) -> Result<Vec<Vec<Detection2d>>, ModelError> {
        self.looks.push((image.part, phrases.len()));
        let of_picture = image.image;
        let shrink = f64::from(of_picture.width()) / f64::from(SIDE);
        let seen = |phrase: &&str| {
            let lit = of_picture.enumerate_pixels().filter(|it| it.2.0[0] > 0);
            let (mut x, mut y): (Vec<u32>, Vec<u32>) = lit.map(|(x, y, _)| (x, y)).unzip();
            x.sort_unstable();
            y.sort_unstable();
            let (Some(x0), Some(x1), Some(y0), Some(y1)) = (x.first(), x.last(), y.first(), y.last()) else {
                return Vec::new();
            };
            let bbox = BoundingBox2d::from([*x0, *y0, x1 + 1, y1 + 1].map(f64::from));
            let score = if *phrase == "nothing" { 0.0 } else { (bbox.height() / shrink / 18.0).min(0.95) };
            if score < 0.1 { Vec::new() } else { vec![Detection2d::new(*phrase, bbox, score as f32)] }
        };
        Ok(phrases.iter().map(seen).collect())
    }
}

/// 640 x 480, black but for a square.
fn square(x0: u32, y0: u32, side: u32) -> RgbImage {
    let is_lit = |at: u32, from: u32| (from..from + side).contains(&at);
    RgbImage::from_fn(640, 480, |x, y| image::Rgb([255 * u8::from(is_lit(x, x0) && is_lit(y, y0)); 3]))
}

fn look(model: &mut Nearsighted, picture: &RgbImage, phrases: &[&str]) -> Vec<Vec<Detection2d>> {
    let options = Config::try_from(RawConfig::default()).unwrap().pipeline;
    ground(model, KeyedImage::whole(7, picture), phrases, &options).unwrap()
}

#[test]
fn what_was_half_seen_is_seen_where_it_is_at_the_price_of_one_more_look() {
    for (x, y) in [(0, 0), (300, 200), (620, 460), (319, 100)] {
        let mut model = Nearsighted::new(Some(SIDE));
        let found = look(&mut model, &square(x, y, 20), &["block"]);
        let [only] = found[0].as_slice() else { panic!("{found:?}") };
        assert!(only.score > 0.5, "{only:?}");
        let truth = BoundingBox2d::from([x, y, x + 20, y + 20].map(f64::from));
        assert!(only.bbox.iou(&truth) > 0.999, "{only:?} is not {truth:?}");
        assert_eq!(model.looks.len(), 2, "{:?}", model.looks);
        let own = only.score_parts.iter().find(|it| it.0 == SECOND_LOOK).unwrap().1;
        assert!(f64::from(only.score) < own, "what was overlooked at first is trusted less");
    }
}

#[test]
fn what_was_not_seen_at_all_is_looked_for_in_tiles() {
    let mut model = Nearsighted::new(Some(SIDE));
    let found = look(&mut model, &square(100, 100, 4), &["block"]);
    assert!(found[0].iter().all(|it| it.score < 0.2), "{found:?}");
    assert_eq!(model.looks.len(), 5, "{:?}", model.looks);
}

#[test]
fn only_the_phrases_in_doubt_are_asked_again() {
    let mut model = Nearsighted::new(Some(SIDE));
    let found = look(&mut model, &square(100, 100, 60), &["block", "nothing"]);
    assert!(found[0].len() == 1 && found[0][0].score_parts.is_empty(), "{found:?}");
    assert!(found[1].is_empty());
    assert_eq!(model.looks[0], (0, 2));
    assert!(model.looks[1..].iter().all(|it| it.0 != 0 && it.1 == 1), "{:?}", model.looks);
}

#[test]
fn a_thing_is_not_cut_in_two_by_the_borders_of_windows() {
    // Too large for any tile, and too weak to be sure of.
    let mut model = Nearsighted::new(Some(SIDE));
    let picture = square(90, 10, 460);
    let mut options = Config::try_from(RawConfig::default()).unwrap().pipeline;
    let mut thresholds = (*options.thresholds).clone();
    thresholds.score = 0.99;
    options.thresholds = std::sync::Arc::new(thresholds);
    let found = ground(&mut model, KeyedImage::whole(7, &picture), &["wall"], &options).unwrap();
    assert_eq!(found[0].len(), 1, "{found:?}");
    assert!((found[0][0].bbox.width() - 460.0).abs() < 1.0, "{found:?}");
}

#[test]
fn nobody_looks_twice_who_need_not() {
    let picture = square(100, 100, 4);
    for (side, choice, n_looks) in [
        (None, SecondLook::Always, 1), // it sees pictures as they are
        (Some(640), SecondLook::Always, 1),
        (Some(SIDE), SecondLook::Never, 1),
        (Some(513), SecondLook::Auto, 1),
        (Some(512), SecondLook::Auto, 5),
        (Some(500), SecondLook::Always, 5),
    ] {
        let mut model = Nearsighted::new(side);
        let options = PipelineOptions {
            second_look: choice,
            ..Config::try_from(RawConfig::default()).unwrap().pipeline
        };
        ground(&mut model, KeyedImage::whole(7, &picture), &["nothing"], &options).unwrap();
        assert_eq!(model.looks.len(), n_looks, "{side:?} {choice:?}");
    }
}
