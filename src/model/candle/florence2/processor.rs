//! Florence-2's tasks: the sentence that asks, and the parser that turns the answer's text into typed regions.
//!
//! Sentences and parsers follow transformers 5.23.0, `models/florence2/processing_florence2.py`. There, text is taken
//! apart by regular expressions; the scanners here accept the same texts, including malformed ones, and give at most
//! one region per group of location tokens, so the output is bounded by the number of tokens.

use serde::Serialize;

use super::tokenizer::N_LOCATIONS;
use crate::detection::BoundingBox2d;
use crate::model::ModelError;
use crate::model::candle::generation::LocationChoice;
#[cfg(doc)]
use crate::model::candle::generation::NEAR_BINS;
use crate::model::candle::tokenize::plain_words;

/// What the model is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the reference's")]
pub enum Task {
    Caption,
    DetailedCaption,
    MoreDetailedCaption,
    Od,
    DenseRegionCaption,
    RegionProposal,
    CaptionToPhraseGrounding,
    OpenVocabularyDetection,
    ReferringExpressionSegmentation,
    RegionToSegmentation,
    RegionToCategory,
    RegionToDescription,
    RegionToOcr,
    Ocr,
    OcrWithRegion,
}

/// What a task needs beside the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// Nothing.
    None,
    /// A phrase or caption.
    Words,
    /// A box: four pixels, or four location tokens.
    Region,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Parser {
    Text,
    PhrasesWithBoxes,
    Boxes,
    Polygons,
    BoxesOrPolygons,
    Quads,
}

/// Name, sentence before the input, sentence after it, input, parser.
type Row = (Task, &'static str, &'static str, &'static str, Input, Parser);

#[rustfmt::skip]
const TASKS: [Row; 15] = [
    (Task::Caption, "CAPTION", "What does the image describe?", "", Input::None, Parser::Text),
    (Task::DetailedCaption, "DETAILED_CAPTION", "Describe in detail what is shown in the image.", "", Input::None, Parser::Text),
    (Task::MoreDetailedCaption, "MORE_DETAILED_CAPTION", "Describe with a paragraph what is shown in the image.", "", Input::None, Parser::Text),
    (Task::Od, "OD", "Locate the objects with category name in the image.", "", Input::None, Parser::PhrasesWithBoxes),
    (Task::DenseRegionCaption, "DENSE_REGION_CAPTION", "Locate the objects in the image, with their descriptions.", "", Input::None, Parser::PhrasesWithBoxes),
    (Task::RegionProposal, "REGION_PROPOSAL", "Locate the region proposals in the image.", "", Input::None, Parser::Boxes),
    (Task::CaptionToPhraseGrounding, "CAPTION_TO_PHRASE_GROUNDING", "Locate the phrases in the caption: ", "", Input::Words, Parser::PhrasesWithBoxes),
    (Task::OpenVocabularyDetection, "OPEN_VOCABULARY_DETECTION", "Locate ", " in the image.", Input::Words, Parser::BoxesOrPolygons),
    (Task::ReferringExpressionSegmentation, "REFERRING_EXPRESSION_SEGMENTATION", "Locate ", " in the image with mask", Input::Words, Parser::Polygons),
    (Task::RegionToSegmentation, "REGION_TO_SEGMENTATION", "What is the polygon mask of region ", "", Input::Region, Parser::Polygons),
    (Task::RegionToCategory, "REGION_TO_CATEGORY", "What is the region ", "?", Input::Region, Parser::Text),
    (Task::RegionToDescription, "REGION_TO_DESCRIPTION", "What does the region ", " describe?", Input::Region, Parser::Text),
    (Task::RegionToOcr, "REGION_TO_OCR", "What text is in the region ", "?", Input::Region, Parser::Text),
    (Task::Ocr, "OCR", "What is the text in the image?", "", Input::None, Parser::Text),
    (Task::OcrWithRegion, "OCR_WITH_REGION", "What is the text in the image, with regions?", "", Input::None, Parser::Quads),
];

/// What an answer says.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Words.
    Text(String),
    /// Boxes with a label each (empty for proposals).
    Boxes(Vec<LabeledBox>),
    /// Outlines.
    Polygons(Vec<LabeledPolygons>),
    /// Text in the image, each with the four corners around it.
    Quads(Vec<LabeledQuad>),
}

/// A box and what the model calls it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LabeledBox {
    /// What it shows.
    pub label: String,
    /// In pixels of the source image; corners as the model gave them, clipped to the image.
    pub bbox: BoundingBox2d,
    /// How surely the box was chosen, when known.
    pub certainty: Option<BoxCertainty>,
}

/// What the decoder's distributions say about one box. A location's distribution is over the 1000 locations only.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct BoxCertainty {
    /// Joint log-probability of the four locations.
    pub location_log_prob: f64,
    /// Geometric mean of the four locations' probabilities.
    pub location_probability: f64,
    /// The least of the four.
    pub min_location_probability: f64,
    /// Geometric mean over the edges of the probability that the edge lies within [`NEAR_BINS`] bins (half a percent of the
    /// image) of where it was put. Neighboring bins make equally good boxes and share the probability between them, so this,
    /// not the probability of the very bin, is the score of the box.
    pub location_mass: f64,
    /// Joint log-probability of the words the box was given for.
    pub phrase_log_prob: f64,
    /// Standard deviation of each edge's distribution in pixels (x0, y0, x1, y1).
    pub std_px: [f64; 4],
}

impl BoxCertainty {
    fn new(choices: &[LocationChoice; 4], (width, height): (u32, u32)) -> Self {
        let log_probs = choices.map(|it| f64::from(it.log_prob));
        let mean = |values: [f64; 4]| values.iter().sum::<f64>() / 4.0;
        Self {
            location_log_prob: log_probs.iter().sum(),
            location_probability: mean(log_probs).exp(),
            min_location_probability: log_probs.iter().copied().fold(f64::INFINITY, f64::min).exp(),
            location_mass: mean(choices.map(|it| f64::from(it.mass_near).ln())).exp(),
            phrase_log_prob: f64::from(choices[0].words_log_prob),
            std_px: std::array::from_fn(|i| {
                let length = if i.is_multiple_of(2) { width } else { height };
                f64::from(choices[i].std_bins) * f64::from(length) / f64::from(N_LOCATIONS)
            }),
        }
    }

    /// By name, as results carry them.
    pub fn parts(&self) -> Vec<(String, f64)> {
        let [x0, y0, x1, y1] = self.std_px;
        [
            ("location_log_prob", self.location_log_prob),
            ("location_probability", self.location_probability),
            ("min_location_probability", self.min_location_probability),
            ("location_mass", self.location_mass),
            ("phrase_log_prob", self.phrase_log_prob),
            ("x0_std_px", x0),
            ("y0_std_px", y0),
            ("x1_std_px", x1),
            ("y1_std_px", y1),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }
}

/// One thing's outlines.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LabeledPolygons {
    /// What it shows.
    pub label: String,
    /// Each x, y, x, y, .. in pixels of the source image.
    pub polygons: Vec<Vec<f64>>,
}

/// Text inside a quadrilateral.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LabeledQuad {
    /// The text.
    pub text: String,
    /// Corners x, y, .. in pixels of the source image.
    pub corners: [f64; 8],
}

impl std::str::FromStr for Task {
    type Err = ModelError;

    /// `CAPTION`, `caption` or `<CAPTION>`.
    fn from_str(name: &str) -> Result<Self, ModelError> {
        let bare = name.trim().trim_start_matches('<').trim_end_matches('>').to_ascii_uppercase();
        let known = || TASKS.iter().map(|row| row.1).collect::<Vec<_>>().join(", ");
        TASKS
            .iter()
            .find(|row| row.1 == bare)
            .map(|row| row.0)
            .ok_or_else(|| ModelError::Input(format!("unknown task {name:?}; expected one of {}", known())))
    }
}

impl Task {
    fn row(self) -> &'static Row {
        &TASKS[self as usize]
    }

    /// All tasks.
    pub fn all() -> impl Iterator<Item = Self> {
        TASKS.iter().map(|row| row.0)
    }

    /// What it needs beside the image.
    pub fn input(self) -> Input {
        self.row().4
    }

    /// The reference's name without brackets.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// The sentence that asks for this task. `text` is words, or for tasks about a region the region: four location
    /// tokens `<loc_n>`, or four pixels x0, y0, x1, y1 separated by commas or spaces.
    pub fn prompt(self, text: Option<&str>, (width, height): (u32, u32)) -> Result<String, ModelError> {
        let (_, name, before, after, input, _) = self.row();
        let text = text.map(str::trim).filter(|text| !text.is_empty());
        let filled = match (input, text) {
            (Input::None, None) => String::new(),
            (Input::None, Some(_)) => {
                return Err(ModelError::Input(format!("task {name} takes no text")));
            }
            (_, None) => return Err(ModelError::Input(format!("task {name} needs a text"))),
            (Input::Words, Some(text)) => plain_words(text),
            (Input::Region, Some(text)) => region_tokens(text, width, height)?,
        };
        Ok(format!("{before}{filled}{after}"))
    }

    /// Reads an answer's text. `locations` are the choices of its location tokens in order; empty when unknown.
    pub fn parse(self, text: &str, size: (u32, u32), locations: &[LocationChoice]) -> Answer {
        let parser = self.row().5;
        if parser == Parser::Text {
            return Answer::Text(
                text.replace("<s>", "").replace("</s>", "").replace("<pad>", "").trim().to_owned(),
            );
        }
        let text = text.replace("<s>", "").replace("</s>", "").replace("<pad>", "");
        let scan = Scan { text: &text, size, locations };
        match parser {
            Parser::Boxes => Answer::Boxes(scan.boxes(Label::Absent)),
            Parser::Polygons => Answer::Polygons(scan.polygons(Label::Absent)),
            Parser::BoxesOrPolygons if text.contains("<poly>") => {
                Answer::Polygons(scan.polygons(Label::Required))
            }
            Parser::Quads => Answer::Quads(scan.quads()),
            _ => Answer::Boxes(scan.boxes(Label::Required)),
        }
    }
}

/// A pixel coordinate along an axis of `length` pixels as a location bin.
pub fn quantize(pixel: f64, length: u32) -> u32 {
    let bins = f64::from(N_LOCATIONS);
    (pixel / (f64::from(length) / bins)).floor().clamp(0.0, bins - 1.0) as u32
}

/// The middle of a location bin in pixels.
pub fn dequantize(bin: u32, length: u32) -> f64 {
    (f64::from(bin.min(N_LOCATIONS - 1)) + 0.5) * (f64::from(length) / f64::from(N_LOCATIONS))
}

/// A region as it stands in a prompt.
pub fn box_tokens(bbox: &BoundingBox2d, width: u32, height: u32) -> String {
    let (x, y) = (|v| quantize(v, width), |v| quantize(v, height));
    format!("<loc_{}><loc_{}><loc_{}><loc_{}>", x(bbox.x0), y(bbox.y0), x(bbox.x1), y(bbox.y1))
}

fn region_tokens(text: &str, width: u32, height: u32) -> Result<String, ModelError> {
    let (run, rest) = location_run(text);
    if run.len() == 4 && rest.is_empty() && run.iter().all(|bin| *bin < N_LOCATIONS) {
        return Ok(text.to_owned());
    }
    let numbers: Option<Vec<f64>> = text
        .split([',', ' '])
        .filter(|part| !part.is_empty())
        .map(|part| part.parse().ok().filter(|number: &f64| number.is_finite()))
        .collect();
    match numbers.as_deref() {
        Some(&[x0, y0, x1, y1]) if x0 < x1 && y0 < y1 => {
            Ok(box_tokens(&BoundingBox2d { x0, y0, x1, y1 }, width, height))
        }
        _ => Err(ModelError::Input(format!(
            "region {text:?}: expected pixels \"x0,y0,x1,y1\" with x0 < x1 and y0 < y1, or four <loc_n> tokens"
        ))),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Label {
    Required,
    Absent,
}

/// An answer being read.
struct Scan<'a> {
    text: &'a str,
    size: (u32, u32),
    locations: &'a [LocationChoice],
}

impl Scan<'_> {
    /// Text followed by four or more locations: a box for every four.
    fn boxes(&self, label: Label) -> Vec<LabeledBox> {
        let mut boxes = Vec::new();
        let (mut at, mut n_locations, mut text_start) = (0, 0, 0);
        while at < self.text.len() {
            let remaining = &self.text[at..];
            if remaining.starts_with('<') {
                let (run, rest) = location_run(remaining);
                if run.len() >= 4 && (label == Label::Absent || text_start < at) {
                    let words = if label == Label::Required { &self.text[text_start..at] } else { "" };
                    let spoken = words.trim_start();
                    // The reference's label ends at a line's end, where no location follows.
                    if !spoken.contains('\n') {
                        for (i, bins) in run.chunks_exact(4).enumerate() {
                            boxes.push(self.labeled_box(spoken, bins, n_locations + 4 * i));
                        }
                    }
                    n_locations += run.len();
                    at = self.text.len() - rest.len();
                    text_start = at;
                    continue;
                }
                n_locations += usize::from(!run.is_empty());
                // What follows an unused bracket counts as text, as in the reference's `[^<]+`.
                text_start = at + 1;
            }
            at += next_char(remaining);
        }
        boxes
    }

    fn labeled_box(&self, label: &str, bins: &[u32], first_location: usize) -> LabeledBox {
        let (width, height) = self.size;
        let choices: Option<&[LocationChoice; 4]> = self
            .locations
            .get(first_location..first_location + 4)
            .and_then(|choices| choices.try_into().ok())
            .filter(|choices: &&[_; 4]| choices.iter().zip(bins).all(|(choice, bin)| choice.bin == *bin));
        let edge = |i: usize| dequantize(bins[i], if i.is_multiple_of(2) { width } else { height });
        LabeledBox {
            label: ascii(label.trim()),
            bbox: BoundingBox2d { x0: edge(0), y0: edge(1), x1: edge(2), y1: edge(3) },
            certainty: choices.map(|choices| BoxCertainty::new(choices, self.size)),
        }
    }

    /// Four or more of location, `<sep>`, `<poly>`, `</poly>`, after text if a label is required.
    fn polygons(&self, label: Label) -> Vec<LabeledPolygons> {
        let mut found = Vec::new();
        let (mut at, mut text_start) = (0, 0);
        while at < self.text.len() {
            let remaining = &self.text[at..];
            if remaining.starts_with('<') {
                let (n_tokens, length) = polygon_run(remaining);
                if n_tokens >= 4 && (label == Label::Absent || text_start < at) {
                    let start = if label == Label::Required { text_start } else { at };
                    found.extend(self.polygon_group(&self.text[start..at + length]));
                    at += length;
                    text_start = at;
                    continue;
                }
                text_start = at + 1;
            }
            at += next_char(remaining);
        }
        found
    }

    fn polygon_group(&self, group: &str) -> Vec<LabeledPolygons> {
        // The label reaches to the first location or polygon; one leading location does not count.
        let (leading, _) = location_run(group);
        let body = if leading.is_empty() { group } else { &group[token_len(group)..] };
        let spoken = body.trim_start();
        let Some(end) =
            first_of(spoken, &["<od>", "</od>", "<box>", "</box>", "<bbox>", "</bbox>", "<loc_", "<poly>"])
                .filter(|end| !spoken[..*end].contains('\n'))
        else {
            return Vec::new();
        };
        let label = spoken[..end].trim();
        let mut instances = Vec::new();
        if group.contains("<poly>") && group.contains("</poly>") {
            let mut rest = group;
            while let Some(start) = rest.find("<poly>") {
                let inner = &rest[start + "<poly>".len()..];
                let Some(end) = inner.find("</poly>") else { break };
                instances.push(&inner[..end]);
                rest = &inner[end + "</poly>".len()..];
            }
        } else {
            instances.push(group);
        }
        instances
            .into_iter()
            .map(|instance| self.outlines(instance))
            .filter(|polygons| !polygons.is_empty())
            .map(|polygons| LabeledPolygons { label: label.to_owned(), polygons })
            .collect()
    }

    /// Runs of locations that end with `<sep>` or with the text.
    fn outlines(&self, instance: &str) -> Vec<Vec<f64>> {
        let mut polygons = Vec::new();
        let mut at = 0;
        while at < instance.len() {
            let (run, rest) = location_run(&instance[at..]);
            if run.is_empty() {
                at += next_char(&instance[at..]);
                continue;
            }
            at = instance.len() - rest.len();
            if rest.is_empty() || rest.starts_with("<sep>") {
                let pairs = run.chunks_exact(2);
                let (width, height) = self.size;
                polygons.push(
                    pairs.flat_map(|xy| [dequantize(xy[0], width), dequantize(xy[1], height)]).collect(),
                );
            }
        }
        polygons
    }

    /// Text (on one line) followed by eight locations.
    fn quads(&self) -> Vec<LabeledQuad> {
        let mut quads = Vec::new();
        let (mut start, mut at) = (0, 0);
        while at < self.text.len() {
            let (run, _) = location_run(&self.text[at..]);
            if at > start && run.len() >= 8 {
                let (width, height) = self.size;
                quads.push(LabeledQuad {
                    text: self.text[start..at].trim().to_owned(),
                    corners: std::array::from_fn(|i| {
                        dequantize(run[i], if i.is_multiple_of(2) { width } else { height })
                    }),
                });
                for _ in 0..8 {
                    at += token_len(&self.text[at..]);
                }
                start = at;
                continue;
            }
            if self.text[at..].starts_with('\n') {
                start = at + 1;
            }
            at += next_char(&self.text[at..]);
        }
        quads
    }
}

/// The bins of the location tokens at the start of `text`, and what follows them.
fn location_run(mut text: &str) -> (Vec<u32>, &str) {
    let mut bins = Vec::new();
    while let Some(inside) = text.strip_prefix("<loc_") {
        let n_digits = inside.bytes().take_while(u8::is_ascii_digit).count();
        if n_digits == 0 || inside.as_bytes().get(n_digits) != Some(&b'>') {
            break;
        }
        bins.push(inside[..n_digits].parse().unwrap_or(u32::MAX));
        text = &inside[n_digits + 1..];
    }
    (bins, text)
}

/// Number and length in bytes of the polygon tokens at the start of `text`.
fn polygon_run(text: &str) -> (usize, usize) {
    let (mut n, mut rest) = (0, text);
    loop {
        let length = polygon_token_len(rest);
        if length == 0 {
            return (n, text.len() - rest.len());
        }
        n += 1;
        rest = &rest[length..];
    }
}

fn polygon_token_len(text: &str) -> usize {
    for tag in ["<sep>", "<poly>", "</poly>"] {
        if text.starts_with(tag) {
            return tag.len();
        }
    }
    let Some(inside) = text.strip_prefix("<loc_") else { return 0 };
    let n_digits = inside.bytes().take_while(u8::is_ascii_digit).count();
    let is_location = n_digits > 0 && inside.as_bytes().get(n_digits) == Some(&b'>');
    if is_location { token_len(text) } else { 0 }
}

/// Length of the tag at the start of `text`.
fn token_len(text: &str) -> usize {
    text.find('>').map_or(text.len(), |end| end + 1)
}

fn next_char(text: &str) -> usize {
    text.chars().next().map_or(1, char::len_utf8)
}

fn first_of(text: &str, needles: &[&str]) -> Option<usize> {
    needles.iter().filter_map(|needle| text.find(needle)).min()
}

fn ascii(text: &str) -> String {
    text.chars().filter(char::is_ascii).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: (u32, u32) = (640, 480);

    fn boxes(task: Task, text: &str) -> Vec<(String, [i64; 4])> {
        match task.parse(text, SIZE, &[]) {
            Answer::Boxes(boxes) => {
                let ints = |b: BoundingBox2d| <[f64; 4]>::from(b).map(|v| v as i64);
                boxes.into_iter().map(|it| (it.label, ints(it.bbox))).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn table_and_enum_agree() {
        for (i, row) in TASKS.iter().enumerate() {
            assert_eq!(row.0 as usize, i);
            assert_eq!(format!("<{}>", row.1).parse::<Task>().unwrap(), row.0);
        }
        assert!("<VQA>".parse::<Task>().unwrap_err().to_string().contains("OPEN_VOCABULARY_DETECTION"));
    }

    #[test]
    fn quantizing_and_back_stays_within_half_a_bin() {
        for length in [1, 7, 192, 640, 4000] {
            for i in 0..=400 {
                let pixel = f64::from(length) * f64::from(i) / 400.0;
                let back = dequantize(quantize(pixel, length), length);
                assert!(
                    (back - pixel).abs() <= 0.5001 * f64::from(length) / 1000.0,
                    "{pixel} of {length}: {back}"
                );
            }
        }
        assert_eq!((quantize(-5.0, 640), quantize(1e9, 640), quantize(f64::NAN, 640)), (0, 999, 0));
    }

    #[test]
    fn boxes_are_read() {
        let text = "</s><s>red cup<loc_100><loc_200><loc_300><loc_400><loc_5><loc_6><loc_7><loc_8>café<loc_0><loc_0><loc_999><loc_999><loc_1></s>";
        let expected = vec![
            ("red cup".to_owned(), [64, 96, 192, 192]),
            ("red cup".to_owned(), [3, 3, 4, 4]),
            ("caf".to_owned(), [0, 0, 639, 479]),
        ];
        assert_eq!(boxes(Task::OpenVocabularyDetection, text), expected);
        assert_eq!(boxes(Task::Od, "<loc_1><loc_1><loc_1><loc_1>cup<loc_1><loc_1><loc_1>"), vec![]);
        assert_eq!(boxes(Task::RegionProposal, "<loc_0><loc_0><loc_1><loc_2>").len(), 1);
    }

    #[test]
    fn no_text_breaks_the_parsers() {
        let pieces = [
            "<loc_1>",
            "<loc_999>",
            "<loc_12345678901234567890>",
            "<loc_>",
            "<loc_5",
            "<sep>",
            "<poly>",
            "</poly>",
            "cup",
            " ",
            "\n",
            "é",
            "<",
            ">",
            "</s>",
            "<s>",
            "<pad>",
            "<od>",
            "<loc_1><loc_2><loc_3><loc_4>",
        ];
        let mut state = 7u64;
        for round in 0..20_000 {
            let mut text = String::new();
            for _ in 0..round % 24 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                text.push_str(pieces[(state >> 33) as usize % pieces.len()]);
            }
            for row in &TASKS {
                match row.0.parse(&text, SIZE, &[]) {
                    Answer::Boxes(boxes) => assert!(boxes.len() <= text.len() / 28 + 1),
                    Answer::Polygons(all) => assert!(all.len() <= text.len()),
                    Answer::Quads(quads) => assert!(quads.len() <= text.len() / 56 + 1),
                    Answer::Text(answer) => assert!(answer.len() <= text.len()),
                }
            }
        }
    }

    #[test]
    fn prompts_and_regions() {
        let prompt = |task: Task, text: Option<&str>| task.prompt(text, SIZE);
        assert_eq!(prompt(Task::Caption, None).unwrap(), "What does the image describe?");
        assert_eq!(
            prompt(Task::OpenVocabularyDetection, Some("red <cup>")).unwrap(),
            "Locate red cup in the image."
        );
        let expected = "What does the region <loc_0><loc_100><loc_500><loc_999> describe?";
        assert_eq!(prompt(Task::RegionToDescription, Some("0,48 320,480")).unwrap(), expected);
        let tokens = "<loc_0><loc_100><loc_500><loc_999>";
        assert_eq!(prompt(Task::RegionToDescription, Some(tokens)).unwrap(), expected);
        for (task, text) in [
            (Task::Caption, Some("x")),
            (Task::OpenVocabularyDetection, None),
            (Task::RegionToOcr, Some("1,2,3")),
            (Task::RegionToOcr, Some("9,9,3,3")),
            (Task::RegionToOcr, Some("<loc_1><loc_2><loc_3><loc_1000>")),
        ] {
            assert!(matches!(prompt(task, text), Err(ModelError::Input(_))), "{} {text:?}", task.name());
        }
    }
}
