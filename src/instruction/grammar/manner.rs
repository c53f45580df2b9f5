//! How something is done, by how much to turn and how far: "gently", "90 degrees clockwise", "10 cm".

use super::Parser;
use crate::instruction::lexicon::{WordUse, word_use};
use crate::instruction::types::Rotation;

impl Parser<'_> {
    /// The number of words of a manner that stands at a place and does not begin the name of a thing ("the flat box").
    pub(super) fn manner_at(&self, at: usize) -> Option<usize> {
        let word = self.word(at)?;
        let listed = self.vocabulary.manners.longest(&self.words[at..]).map(|((), length)| length);
        let is_result = self.is_resultative()
            && matches!(word, "open" | "shut" | "closed" | "clean" | "dry" | "empty" | "flat" | "full")
            && self.ends_clause(at + 1);
        let listed = listed.or(is_result.then_some(1));
        let length = listed.or_else(|| is_adverb(word).then_some(1))?;
        let next = at + length;
        if self.vocabulary.exceptions.longest(&self.words[at..]).is_some() {
            return None; // "apart from"
        }
        let is_degree = self.skip_relation_fillers(at) > at
            || self.vocabulary.relation_fillers.longest(&self.words[at..]).is_some();
        let places = self.relation_at(next).is_some()
            || self.side_at(next).is_some()
            || self.vocabulary.directions.contains_word(self.words.get(next).unwrap_or(&""));
        if is_degree && places {
            return None; // "a bit to the left"
        }
        let goes_on = self.relation_at(next).is_some()
            || self.determiner_at(next)
            || self.measure_at(next).is_some()
            || self.is_verb(next)
            || self.word(next).is_some_and(|it| {
                self.is_pronoun(it)
                    || self.vocabulary.particles.contains(it)
                    || matches!(it, "to" | "with" | "using" | "by")
            })
            || self.manner_at(next).is_some();
        (self.ends_clause(next) || goes_on).then_some(length)
    }

    /// Takes the manners that stand at the position.
    pub(super) fn manners(&mut self, manner: &mut Vec<String>) {
        while let Some(length) = self.manner_at(self.position) {
            manner.push(self.words[self.position..self.position + length].join(" "));
            self.position += length;
            let joined = self.after_joint(self.position);
            if let Some(next) = joined.filter(|it| self.manner_at(*it).is_some()) {
                self.position = next; // "slowly and gently"
            }
        }
    }

    /// "slightly" before a direction, with the number of words.
    pub(super) fn degree_at(&self, at: usize) -> Option<usize> {
        let ((), length) = self.vocabulary.relation_fillers.longest(self.words.get(at..)?)?;
        let next = at + length;
        let word = self.words.get(next).copied().unwrap_or_default();
        let places = self.vocabulary.directions.contains_word(word)
            || self.vocabulary.orders.contains_word(word) && self.ends_clause(next + 1)
            || self.side_at(next).is_some();
        places.then_some(length)
    }

    /// A manner that stands between a thing and its place is kept for the clause: "gently on the tray".
    pub(super) fn manner_before_place(&mut self) {
        while let Some(length) = self.manner_at(self.position) {
            let next = self.position + length;
            if self.relation_at(next).is_none()
                && self.side_at(next).is_none()
                && self.manner_at(next).is_none()
            {
                return;
            }
            self.pending_manner.push(self.words[self.position..next].join(" "));
            self.position = next;
        }
    }

    /// A length at a place: meters and the number of words. "two inches", "half a meter", "about 10 cm".
    pub(super) fn measure_at(&self, at: usize) -> Option<(f64, usize)> {
        let about = usize::from(matches!(
            self.word(at),
            Some("about" | "approximately" | "roughly" | "exactly" | "around" | "another" | "within" | "at")
        ));
        let (number, words) = self.number_at(at + about)?;
        let unit = at + about + words;
        let meters = self.vocabulary.lengths.get(self.word(unit)?)?;
        Some((number * meters, about + words + 1))
    }

    /// A turn at a place, with the number of words: "by 45 degrees", "clockwise 90 degrees", "a quarter turn".
    pub(super) fn rotation_at(&self, start: usize) -> Option<(Rotation, usize)> {
        let mut at = start;
        let mut clockwise = self.sense_at(at);
        at += usize::from(clockwise.is_some());
        at += usize::from(matches!(self.word(at), Some("by" | "through")));
        let degrees = if let Some((number, words)) = self.number_at(at)
            && matches!(self.word(at + words), Some("degree" | "degrees" | "deg" | "°"))
        {
            at += words + 1;
            number
        } else {
            let (degrees, words) = self.turn_at(at)?;
            at += words;
            degrees
        };
        at += usize::from(matches!(self.word(at), Some("turn" | "turns" | "rotation" | "rotations")));
        if clockwise.is_none() {
            let skip = usize::from(matches!(self.word(at), Some("in" | "to")))
                + usize::from(matches!(self.word(at + 1), Some("a" | "the")));
            clockwise = self.sense_at(at + skip);
            at += clockwise.map_or(0, |_| skip + 1);
            at += usize::from(clockwise.is_some() && matches!(self.word(at), Some("direction")));
        }
        let degrees = if clockwise == Some(true) { -degrees } else { degrees };
        Some((Rotation { degrees, sense_told: clockwise.is_some() }, at - start))
    }

    /// "a quarter turn", "half a turn": degrees and the number of words.
    fn turn_at(&self, at: usize) -> Option<(f64, usize)> {
        let article = usize::from(matches!(self.word(at), Some("a" | "one")));
        let degrees = match self.word(at + article)? {
            "quarter" => 90.0,
            "half" => 180.0,
            "full" => 360.0,
            _ => return None,
        };
        let inner = usize::from(matches!(self.word(at + article + 1), Some("a")));
        let noun = at + article + 1 + inner;
        matches!(self.word(noun), Some("turn" | "rotation")).then_some((degrees, noun + 1 - at))
    }

    /// Whether a sense of rotation stands at a place, and if so whether it is clockwise.
    fn sense_at(&self, at: usize) -> Option<bool> {
        match self.word(at)? {
            "clockwise" => Some(true),
            "counterclockwise" | "counter-clockwise" | "anticlockwise" | "anti-clockwise" => Some(false),
            _ => None,
        }
    }

    /// "2.5", "two", "half a", "a", "a couple of", "one and a half", with the number of words.
    fn number_at(&self, at: usize) -> Option<(f64, usize)> {
        let words = |n: usize| self.words.get(at..at + n);
        match (words(4), words(3), words(2), self.word(at)?) {
            (Some([whole, "and", "a", "half"]), ..) => {
                return self.vocabulary.numbers.get(*whole).map(|it| (*it as f64 + 0.5, 4));
            }
            (_, Some(["a", "couple", "of"]), ..) => return Some((2.0, 3)),
            (_, _, Some(["half", "a" | "an"]), _) => return Some((0.5, 2)),
            (_, _, _, "half") => return Some((0.5, 1)),
            (_, _, _, "a" | "an") => return Some((1.0, 1)),
            _ => {}
        }
        let word = self.word(at)?;
        let written = self.vocabulary.numbers.get(word).map(|it| *it as f64);
        let number = written.or_else(|| {
            let digits = word.chars().all(|it| it.is_ascii_digit() || it == '.' || it == ',');
            word.replace(',', ".").parse().ok().filter(|it: &f64| digits && it.is_finite() && *it < 1e4)
        })?;
        Some((number, 1))
    }
}

/// "swiftly": an adverb that is no noun ("jelly") and no adjective ("curly").
fn is_adverb(word: &str) -> bool {
    word.len() > 4 && word.ends_with("ly") && word_use(word) == Some(WordUse::Other)
}
