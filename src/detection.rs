//! What a grounding model saw: boxes with scores for a phrase.

use serde::{Deserialize, Serialize};

/// An axis-aligned box in pixels of the source image: edges, not pixel centers, so that the whole image is
/// `(0, 0, width, height)`. Serialized as `[x0, y0, x1, y1]`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(from = "[f64; 4]", into = "[f64; 4]")]
pub struct BoundingBox2d {
    /// Left edge.
    pub x0: f64,
    /// Top edge.
    pub y0: f64,
    /// Right edge.
    pub x1: f64,
    /// Bottom edge.
    pub y1: f64,
}

impl From<[f64; 4]> for BoundingBox2d {
    fn from([x0, y0, x1, y1]: [f64; 4]) -> Self {
        Self { x0, y0, x1, y1 }
    }
}

impl From<BoundingBox2d> for [f64; 4] {
    fn from(bbox: BoundingBox2d) -> Self {
        [bbox.x0, bbox.y0, bbox.x1, bbox.y1]
    }
}

impl BoundingBox2d {
    /// Width in pixels (0 when the edges are swapped).
    pub fn width(&self) -> f64 {
        (self.x1 - self.x0).max(0.0)
    }

    /// Height in pixels (0 when the edges are swapped).
    pub fn height(&self) -> f64 {
        (self.y1 - self.y0).max(0.0)
    }

    /// Area in square pixels.
    pub fn area(&self) -> f64 {
        self.width() * self.height()
    }

    /// Center (x, y).
    pub fn center(&self) -> (f64, f64) {
        (0.5 * (self.x0 + self.x1), 0.5 * (self.y0 + self.y1))
    }

    /// The part inside an image of the given size.
    #[must_use]
    pub fn clipped(&self, width: u32, height: u32) -> Self {
        let (width, height) = (f64::from(width), f64::from(height));
        Self {
            x0: self.x0.clamp(0.0, width),
            y0: self.y0.clamp(0.0, height),
            x1: self.x1.clamp(0.0, width),
            y1: self.y1.clamp(0.0, height),
        }
    }

    /// Intersection over union in [0, 1]; 0 when either box is empty.
    pub fn iou(&self, other: &Self) -> f64 {
        let intersection = self.intersection_area(other);
        if intersection <= 0.0 { 0.0 } else { intersection / (self.area() + other.area() - intersection) }
    }

    /// Whether more than `share` of the smaller of the two boxes lies in the other: then one is a part of the other.
    pub fn is_part(&self, other: &Self, share: f64) -> bool {
        share * self.area().min(other.area()) < self.intersection_area(other)
    }

    /// Area in both boxes, square pixels.
    pub fn intersection_area(&self, other: &Self) -> f64 {
        let width = self.x1.min(other.x1) - self.x0.max(other.x0);
        let height = self.y1.min(other.y1) - self.y0.max(other.y0);
        width.max(0.0) * height.max(0.0)
    }
}

/// One box a model offers for a phrase.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Detection2d {
    /// The phrase it was asked for.
    pub phrase: String,
    /// Where, in pixels of the source image.
    pub bbox: BoundingBox2d,
    /// How sure the model is that the phrase is shown here, in [0, 1].
    pub score: f32,
    /// What the score was made of and what else the model says about the box, by name; see the model for their meaning.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub score_parts: Vec<(String, f64)>,
}

impl Detection2d {
    /// A box with a score and nothing behind it.
    pub fn new(phrase: impl Into<String>, bbox: BoundingBox2d, score: f32) -> Self {
        Self { phrase: phrase.into(), bbox, score, score_parts: Vec::new() }
    }
}

/// Greedy non-maximum suppression: keeps the best of every group of boxes that overlap by more than `max_iou`.
/// Returns detections by falling score.
pub fn non_maximum_suppression(mut detections: Vec<Detection2d>, max_iou: f64) -> Vec<Detection2d> {
    detections.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut kept: Vec<Detection2d> = Vec::new();
    for detection in detections {
        if kept.iter().all(|it| it.bbox.iou(&detection.bbox) <= max_iou) {
            kept.push(detection);
        }
    }
    kept
}
