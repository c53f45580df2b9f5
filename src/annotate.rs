//! Drawing a result on its image: boxes, labels, masks, oriented boxes, axes and the verdict.

use font8x8::UnicodeFonts as _;
use image::Rgb;
use nalgebra::{Isometry3, Point2, Point3, UnitQuaternion, Vector3};

use crate::camera::PinholeCamera;
use crate::detection::BoundingBox2d;
use crate::image::RgbImage;
use crate::lift::{Grasp, LiftedObject};
use crate::result::{GroundedObject, GroundingResult, Status};

const TARGET: Rgb<u8> = Rgb([40, 220, 80]);
const DESTINATION: Rgb<u8> = Rgb([60, 160, 255]);
const CANDIDATE: Rgb<u8> = Rgb([170, 170, 170]);
const AMBIGUOUS: Rgb<u8> = Rgb([255, 190, 40]);
const FAILURE: Rgb<u8> = Rgb([255, 90, 80]);
const INK: Rgb<u8> = Rgb([15, 15, 15]);
const GRASP: Rgb<u8> = Rgb([255, 80, 220]);
const UNCERTAINTY: Rgb<u8> = Rgb([255, 235, 60]);
const PLANE: Rgb<u8> = Rgb([150, 150, 235]);
const WHITE: Rgb<u8> = Rgb([255, 255, 255]);
/// Axes as everywhere in ROS: x red, y green, z blue.
const AXES: [Rgb<u8>; 3] = [Rgb([235, 50, 50]), Rgb([50, 200, 50]), Rgb([70, 90, 255])];

/// A copy of `image` with `result` drawn on it: candidates thin and gray, targets green and destination blue with mask tint,
/// label and score, their oriented boxes, axes, 95 % ellipses, the plane they stand on, best grasps and the free place where there is
/// a pose and a camera, and the verdict along the top.
pub fn draw(image: &RgbImage, result: &GroundingResult, camera: Option<&PinholeCamera>) -> RgbImage {
    let mut canvas = Canvas { image: image.clone(), scale: if image.width() < 900 { 1 } else { 2 } };
    if image.width() == 0 || image.height() == 0 {
        return canvas.image;
    }
    let is_chosen = |it: &GroundedObject| {
        result.targets.iter().chain(&result.destination).any(|chosen| chosen.id == it.id)
    };
    let candidate_color = if result.status == Status::Ambiguous { AMBIGUOUS } else { CANDIDATE };
    for candidate in result.candidates.iter().filter(|it| !is_chosen(it)) {
        canvas.rectangle(&candidate.bbox, candidate_color, 1);
        if result.status == Status::Ambiguous {
            canvas.label(&candidate.bbox, &label_of(candidate), candidate_color);
        }
    }
    let chosen = result.targets.iter().map(|it| (it, TARGET));
    let chosen: Vec<_> = chosen.chain(result.destination.iter().map(|it| (it, DESTINATION))).collect();
    for (object, color) in &chosen {
        if let Some(lifted) = &object.lifted {
            canvas.tint(lifted, *color);
        }
    }
    for (object, color) in &chosen {
        let width = canvas.scale as i32 + 1;
        canvas.rectangle(&object.bbox, *color, width);
        if let (Some(lifted), Some(camera)) = (&object.lifted, camera) {
            if let Some((footing, radius_m)) = lifted.footing() {
                canvas.circle(&footing, radius_m, PLANE, 1, camera);
            }
            canvas.oriented_box(lifted, camera);
            canvas.uncertainty(lifted, camera);
        }
    }
    if let Some(camera) = camera {
        for grasp in result.targets.iter().filter_map(|it| it.grasps.first()) {
            canvas.grasp(grasp, camera);
        }
        if let Some(place) = &result.place {
            let width = canvas.scale as i32 + 1;
            canvas.circle(&place.place_in_camera, place.clearance_m, DESTINATION, width, camera);
        }
    }
    // Labels last: nothing is drawn over text.
    for (object, color) in &chosen {
        canvas.label(&object.bbox, &label_of(object), *color);
    }
    let verdict_color = match result.status {
        Status::Found => TARGET,
        Status::Ambiguous => AMBIGUOUS,
        _ => FAILURE,
    };
    let verdict = if result.message.is_empty() {
        result.status.name().to_owned()
    } else {
        format!("{}: {}", result.status.name(), result.message)
    };
    let said = format!("> {}", result.instruction);
    let seen_by = format!("model: {}", result.model);
    let mut lines = vec![(said.as_str(), WHITE), (verdict.as_str(), verdict_color)];
    if !result.model.is_empty() {
        lines.push((&seen_by, CANDIDATE));
    }
    canvas.banner(&lines);
    canvas.image
}

/// A copy of `image` with words about it along the top: what was asked (nothing for a caption), what is said, and by which model.
pub fn draw_words(image: &RgbImage, question: &str, text: &str, model: &str) -> RgbImage {
    let mut canvas = Canvas { image: image.clone(), scale: if image.width() < 900 { 1 } else { 2 } };
    if image.width() == 0 || image.height() == 0 {
        return canvas.image;
    }
    let (asked, seen_by) = (format!("> {question}"), format!("model: {model}"));
    let lines = [(asked.as_str(), WHITE), (text, TARGET), (seen_by.as_str(), CANDIDATE)];
    canvas.banner(if question.is_empty() { &lines[1..] } else { &lines });
    canvas.image
}

fn label_of(object: &GroundedObject) -> String {
    format!("{} {:.2}", object.phrase, object.score)
}

struct Canvas {
    image: RgbImage,
    /// Pixels per font pixel.
    scale: u32,
}

impl Canvas {
    fn put(&mut self, x: i32, y: i32, color: Rgb<u8>) {
        let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y)) else { return };
        if let Some(pixel) = self.image.get_pixel_mut_checked(x, y) {
            *pixel = color;
        }
    }

    fn fill(&mut self, x0: i32, y0: i32, x1: i32, y1: i32, color: Rgb<u8>) {
        let (width, height) = (self.image.width() as i32, self.image.height() as i32);
        for y in y0.max(0)..y1.min(height) {
            for x in x0.max(0)..x1.min(width) {
                self.put(x, y, color);
            }
        }
    }

    fn rectangle(&mut self, bbox: &BoundingBox2d, color: Rgb<u8>, line: i32) {
        let bbox = bbox.clipped(self.image.width(), self.image.height());
        let [x0, y0, x1, y1] = <[f64; 4]>::from(bbox).map(|it| it.round() as i32);
        self.fill(x0, y0, x1, y0 + line, color);
        self.fill(x0, y1 - line, x1, y1, color);
        self.fill(x0, y0, x0 + line, y1, color);
        self.fill(x1 - line, y0, x1, y1, color);
    }

    fn tint(&mut self, lifted: &LiftedObject, color: Rgb<u8>) {
        if lifted.size_m.z == 0.0 {
            return; // a surface: a tint would cover the picture
        }
        let mask = &lifted.mask;
        for y in mask.y0..(mask.y0 + mask.height).min(self.image.height()) {
            for x in mask.x0..(mask.x0 + mask.width).min(self.image.width()) {
                if mask.contains(x, y) {
                    let pixel = self.image.get_pixel_mut(x, y);
                    for (value, tint) in pixel.0.iter_mut().zip(color.0) {
                        *value = ((u16::from(*value) * 65 + u16::from(tint) * 35) / 100) as u8;
                    }
                }
            }
        }
    }

    /// The edges of the oriented box, dark under white, and half-length axes from its center.
    fn oriented_box(&mut self, lifted: &LiftedObject, camera: &PinholeCamera) {
        let half = lifted.size_m * 0.5;
        let project = |x: f64, y: f64, z: f64| {
            camera.project(lifted.object_in_camera * Point3::new(x * half.x, y * half.y, z * half.z))
        };
        let signs = [-1.0, 1.0];
        for a in signs {
            for b in signs {
                for [from, to] in [
                    [project(-1.0, a, b), project(1.0, a, b)],
                    [project(a, -1.0, b), project(a, 1.0, b)],
                    [project(a, b, -1.0), project(a, b, 1.0)],
                ] {
                    self.line(from, to, WHITE, 1);
                }
            }
        }
        let length = 0.7 * lifted.size_m.max().max(0.03);
        let center = camera.project(lifted.body_center);
        for (axis, color) in AXES.into_iter().enumerate() {
            let mut tip = Point3::origin();
            tip[axis] = length;
            self.line(center, camera.project(lifted.object_in_camera * tip), color, self.scale as i32 + 1);
        }
    }

    /// The fingers of a gripper: a bracket around where it closes, along y.
    fn grasp(&mut self, grasp: &Grasp, camera: &PinholeCamera) {
        let corners = grasp.outline().map(|it| camera.project(it));
        for pair in corners.windows(2) {
            self.line(pair[0], pair[1], GRASP, self.scale as i32 + 1);
        }
    }

    /// A level circle, such as that which is free around a place.
    fn circle(
        &mut self,
        center_in_camera: &Isometry3<f64>,
        radius_m: f64,
        color: Rgb<u8>,
        width: i32,
        camera: &PinholeCamera,
    ) {
        let at = |turn: usize| {
            let (sin, cos) = (std::f64::consts::TAU * turn as f64 / 24.0).sin_cos();
            camera.project(center_in_camera * Point3::new(radius_m * cos, radius_m * sin, 0.0))
        };
        for turn in 0..24 {
            self.line(at(turn), at(turn + 1), color, width);
        }
    }

    /// Where the center may be: the 95 % ellipse of its covariance, as the image sees it.
    fn uncertainty(&mut self, lifted: &LiftedObject, camera: &PinholeCamera) {
        let position = lifted.covariance.fixed_view::<3, 3>(0, 0).into_owned();
        let Some(root) = position.cholesky() else { return };
        // 95 % of a chi-squared distribution with two degrees of freedom.
        let radius = 5.991_f64.sqrt();
        let rays =
            UnitQuaternion::rotation_between(&Vector3::z(), &lifted.body_center.coords).unwrap_or_default();
        let at = |turn: usize| {
            let (sin, cos) = (std::f64::consts::TAU * turn as f64 / 24.0).sin_cos();
            // The ellipsoid's outline across the line of sight.
            let across = rays * Vector3::new(cos, sin, 0.0);
            let along = root.l().transpose() * across;
            let reach = (root.l() * along) * (radius / along.norm().max(1e-9));
            camera.project(lifted.body_center + reach)
        };
        for turn in 0..24 {
            self.line(at(turn), at(turn + 1), UNCERTAINTY, 1);
        }
    }

    fn line(&mut self, from: Option<Point2<f64>>, to: Option<Point2<f64>>, color: Rgb<u8>, width: i32) {
        let (Some(from), Some(to)) = (from, to) else { return };
        // Nothing sensible is farther out than this; it also bounds the work.
        let is_far = |it: &Point2<f64>| !(it.x.abs() < 1e4 && it.y.abs() < 1e4);
        if is_far(&from) || is_far(&to) {
            return;
        }
        let n_steps = (to - from).amax().ceil().max(1.0) as usize;
        for step in 0..=n_steps {
            let at = from + (to - from) * (step as f64 / n_steps as f64);
            let (x, y) = (at.x.round() as i32, at.y.round() as i32);
            self.fill(x, y, x + width, y + width, color);
        }
    }

    /// A filled label above the box, or inside where there is no room.
    fn label(&mut self, bbox: &BoundingBox2d, text: &str, color: Rgb<u8>) {
        let scale = self.scale as i32;
        let (width, height) = (text_width(text, scale) + 4 * scale, 10 * scale);
        let x = (bbox.x0.round() as i32).min(self.image.width() as i32 - width).max(0);
        let above = bbox.y0.round() as i32 - height;
        let y = if above < 0 { bbox.y0.round() as i32 } else { above };
        self.fill(x, y, x + width, y + height, color);
        self.text(x + 2 * scale, y + scale, text, INK);
    }

    /// Lines of text along the top on a dark ground, broken at spaces.
    fn banner(&mut self, texts: &[(&str, Rgb<u8>)]) {
        let scale = self.scale as i32;
        let n_columns = ((self.image.width() as i32 - 4 * scale) / (8 * scale)).max(1) as usize;
        let mut y = 0;
        for (text, color) in texts {
            for line in wrapped(text, n_columns).iter().take(3) {
                for row in y..y + 10 * scale {
                    for x in 0..self.image.width() {
                        if let Some(pixel) = self.image.get_pixel_mut_checked(x, row as u32) {
                            pixel.0 = pixel.0.map(|it| it / 5);
                        }
                    }
                }
                self.text(2 * scale, y + scale, line, *color);
                y += 10 * scale;
            }
        }
    }

    fn text(&mut self, x: i32, y: i32, text: &str, color: Rgb<u8>) {
        let scale = self.scale as i32;
        for (column, character) in text.chars().enumerate() {
            let glyph = font8x8::BASIC_FONTS.get(character).or_else(|| font8x8::LATIN_FONTS.get(character));
            let glyph = glyph.or_else(|| font8x8::BASIC_FONTS.get('?')).unwrap_or_default();
            for (row, bits) in glyph.iter().enumerate() {
                for bit in (0..8).filter(|bit| bits & (1 << bit) != 0) {
                    let (left, top) = (x + (column as i32 * 8 + bit) * scale, y + row as i32 * scale);
                    self.fill(left, top, left + scale, top + scale, color);
                }
            }
        }
    }
}

fn text_width(text: &str, scale: i32) -> i32 {
    text.chars().count() as i32 * 8 * scale
}

fn wrapped(text: &str, n_columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is always a line");
        let n_now = line.chars().count();
        if n_now == 0 {
            line.push_str(word);
        } else if n_now + 1 + word.chars().count() <= n_columns {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}
