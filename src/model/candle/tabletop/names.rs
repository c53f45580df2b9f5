//! Words for what the dense head boxes: each cell has a probability for every kind and color that the checkpoint was taught.
//! Surer than a small decoder's own words.

use serde::Deserialize;

use super::naming_head::CellNames;

/// The nouns and colors that a checkpoint with a naming head was taught, in the order of its outputs.
#[derive(Debug, Clone, Deserialize)]
pub struct Names {
    /// Kinds.
    pub kinds: Vec<String>,
    /// Those of them that come in many colors: named with theirs.
    pub colored: Vec<String>,
    /// Colors.
    pub colors: Vec<String>,
    /// Every noun that its phrases were taught in, kinds and their synonyms; empty where the checkpoint does not say.
    #[serde(default)]
    pub nouns: Vec<String>,
}

impl Names {
    /// The likeliest name where each cell has its weight, and the probability of its kind; `None` where all weights are 0.
    pub(super) fn likeliest(&self, cells: &CellNames, weights: &[f64]) -> Option<(String, f64)> {
        let (kind, probability) = likeliest(&self.kinds, &cells.kinds, weights)?;
        if !self.colored.contains(kind) {
            return Some((kind.clone(), probability));
        }
        Some((format!("{} {kind}", self.color(cells, weights)?), probability))
    }

    /// The likeliest color, likewise.
    pub(super) fn color(&self, cells: &CellNames, weights: &[f64]) -> Option<&str> {
        likeliest(&self.colors, &cells.colors, weights).map(|(color, _)| color.as_str())
    }
}

/// The name of the largest weighted mean, and that. The cells may have more probabilities than there are names.
fn likeliest<'a>(names: &'a [String], cells: &[Vec<f32>], weights: &[f64]) -> Option<(&'a String, f64)> {
    let total = weights.iter().sum::<f64>();
    if total <= 0.0 {
        return None;
    }
    let mean = |i: usize| {
        cells.iter().zip(weights).map(|(cell, weight)| f64::from(cell[i]) * weight).sum::<f64>() / total
    };
    names.iter().enumerate().map(|(i, name)| (name, mean(i))).max_by(|a, b| a.1.total_cmp(&b.1))
}

/// A question that boxes and scores can answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// "What color is the cup?"
    Color(String),
    /// "How many cups are there?"
    Count(String),
    /// "Is there a cup?"
    Presence(String),
}

impl Question {
    /// None for every other question.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim().trim_end_matches(['?', '.', '!']).to_lowercase();
        let words: Vec<&str> = text.split_whitespace().collect();
        let phrase = |words: &[&str]| (!words.is_empty()).then(|| words.join(" "));
        match words.as_slice() {
            ["what", "color" | "colour", "is" | "are", "the" | "this" | "that", thing @ ..] => {
                phrase(thing).map(Self::Color)
            }
            ["how", "many", thing @ .., "are" | "is", "there"]
            | ["how", "many", thing @ .., "do" | "can", "you", "see"]
            | ["how", "many", thing @ ..] => phrase(thing).map(Self::Count),
            ["is" | "are", "there", "a" | "an" | "any", thing @ ..]
            | ["do" | "can", "you", "see", "a" | "an" | "any", thing @ ..] => {
                phrase(thing).map(Self::Presence)
            }
            _ => None,
        }
    }
}

/// "a red cup, an apple and two plates": things in order of their first place, like ones together.
pub(super) fn listed(things: &[String]) -> String {
    let mut counted: Vec<(&str, usize)> = Vec::new();
    for thing in things {
        match counted.iter_mut().find(|(known, _)| known == thing) {
            Some((_, n)) => *n += 1,
            None => counted.push((thing, 1)),
        }
    }
    let parts: Vec<String> = counted
        .iter()
        .map(|&(thing, n)| match n {
            1 => format!("{} {thing}", if thing.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" }),
            _ => format!("{} {}", number(n), plural(thing)),
        })
        .collect();
    match parts.split_last() {
        None => "nothing that this model has a name for".to_owned(),
        Some((only, [])) => only.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
    }
}

/// "two" to "ten", then figures.
pub(super) fn number(n: usize) -> String {
    const WORDS: [&str; 11] =
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"];
    WORDS.get(n).map_or_else(|| n.to_string(), |word| (*word).to_owned())
}

fn plural(noun: &str) -> String {
    match noun {
        _ if noun.ends_with("shelf") => noun.replace("shelf", "shelves"),
        _ if noun.ends_with(['x', 's']) || noun.ends_with("sh") || noun.ends_with("ch") => {
            format!("{noun}es")
        }
        _ => format!("{noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_that_boxes_can_answer_are_known_by_their_form() {
        for (text, expected) in [
            ("What color is the coffee mug?", Some(Question::Color("coffee mug".into()))),
            ("what colour are the cups", Some(Question::Color("cups".into()))),
            ("How many red cups are there?", Some(Question::Count("red cups".into()))),
            ("How many books do you see?", Some(Question::Count("books".into()))),
            ("How many plates?", Some(Question::Count("plates".into()))),
            ("Is there an apple?", Some(Question::Presence("apple".into()))),
            ("Are there any yellow bowls?", Some(Question::Presence("yellow bowls".into()))),
            ("What is left of the cup?", None),
            ("Is there a?", None),
            ("How many are there?", None),
            ("", None),
        ] {
            assert_eq!(Question::parse(text), expected, "{text}");
        }
    }

    #[test]
    fn lists_read_as_people_write_them() {
        let listed = |things: &[&str]| super::listed(&things.iter().map(|&it| it.into()).collect::<Vec<_>>());
        assert_eq!(listed(&[]), "nothing that this model has a name for");
        assert_eq!(listed(&["apple"]), "an apple");
        assert_eq!(listed(&["red cup", "box", "red cup"]), "two red cups and a box");
        assert_eq!(
            listed(&["shelf", "blue dish", "box", "shelf", "blue dish", "box", "box"]),
            "two shelves, two blue dishes and three boxes"
        );
    }
}
