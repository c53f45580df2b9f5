//! The tree in one line, as `ground parse` explains it and the tests write it.

use std::fmt;

use super::{Action, AttributeKind, Instruction, ObjectReference, Quantity, RelationKind};

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One line, every part of the tree in it: `put {[leftmost #1] red mug} on {plate}; then close {drawer}`.
impl fmt::Display for Instruction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.action)?;
        for (target_idx, target) in self.targets.iter().enumerate() {
            write!(f, "{} {target}", if target_idx == 0 { "" } else { " and" })?;
        }
        if let Some(destination) = &self.destination {
            write!(f, " -> {}", destination.relation.name())?;
            if let Some(distance_m) = destination.distance_m {
                write!(f, " {} m", rounded(distance_m))?;
            }
            for (landmark_idx, landmark) in destination.landmarks.iter().enumerate() {
                write!(f, "{} {landmark}", if landmark_idx == 0 { "" } else { " and" })?;
            }
            for also in &destination.also {
                write!(f, " & {}", also.kind.name())?;
                for landmark in &also.landmarks {
                    write!(f, " {landmark}")?;
                }
            }
        }
        if let Some(recipient) = &self.recipient {
            write!(f, " for {recipient}")?;
        }
        if let Some(instrument) = &self.instrument {
            write!(f, " using {instrument}")?;
        }
        if let Some(tool) = &self.tool {
            write!(f, " using {tool}")?;
        }
        let rotation = self.rotation.iter().map(|it| {
            let sense = match (it.sense_told, it.degrees < 0.0) {
                (false, _) => "",
                (true, true) => " clockwise",
                (true, false) => " counterclockwise",
            };
            format!("{} deg{sense}", it.degrees.abs())
        });
        let how: Vec<String> = self.manner.iter().cloned().chain(rotation).collect();
        if !how.is_empty() {
            write!(f, " [{}]", how.join(", "))?;
        }
        if let Some(purpose) = &self.purpose {
            write!(f, " to {purpose:?}")?;
        }
        for (avoid_idx, avoid) in self.avoid.iter().enumerate() {
            write!(f, "{} {avoid}", if avoid_idx == 0 { " avoiding" } else { " and" })?;
        }
        if let Some(then) = &self.then {
            write!(f, "; then {then}")?;
        }
        Ok(())
    }
}

/// `{both mug | leftmost 2 | left_of {plate}}`: quantity unless one, sizes and phrase, then orders, whole and relations.
impl fmt::Display for ObjectReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        match self.quantity {
            Quantity::One => {}
            Quantity::Any(n) => write!(f, "any {n} ")?,
            Quantity::Exactly(n) => write!(f, "exactly {n} ")?,
            Quantity::All => f.write_str("all ")?,
        }
        if self.other {
            f.write_str("other ")?;
        }
        for attribute in &self.attributes {
            if matches!(attribute.kind, AttributeKind::Size(_)) && !attribute.negated {
                write!(f, "{} ", attribute.word)?;
            }
        }
        f.write_str(&self.query())?;
        for order in &self.orders {
            write!(f, " | {}", order.by.name())?;
            if order.rank != 1 {
                write!(f, " {}", order.rank)?;
            }
        }
        if let Some(n) = self.out_of {
            write!(f, " | out of {n}")?;
        }
        if let Some(whole) = &self.whole {
            write!(f, " | of {whole}")?;
        }
        for attribute in self.attributes.iter().filter(|it| it.negated) {
            write!(f, " | not {}", attribute.word)?;
        }
        for relation in self.relations.iter().filter(|it| it.kind != RelationKind::With || it.negated) {
            write!(f, " | {}{}", if relation.negated { "not " } else { "" }, relation.kind.name())?;
            if relation.rank != 1 {
                write!(f, " {}", relation.rank)?;
            }
            if let Some(distance_m) = relation.distance_m {
                write!(f, " {} m", rounded(distance_m))?;
            }
            for landmark in &relation.landmarks {
                write!(f, " {landmark}")?;
            }
        }
        for except in &self.except {
            write!(f, " | except {except}")?;
        }
        if let Some(answer) = &self.answer {
            write!(f, " | answered {answer}")?;
        }
        f.write_str("}")?;
        for alternative in &self.alternatives {
            write!(f, " or {alternative}")?;
        }
        Ok(())
    }
}

/// Meters to the tenth of a millimeter: an inch is no round number of them.
fn rounded(meters: f64) -> f64 {
    (meters * 1e4).round() / 1e4
}
