//! The tree as the JSON of `ground parse`.

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::{Destination, Instruction, ObjectReference, Order, ParseError, Relation, Rotation, Span};

impl Serialize for Instruction {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.serialize_step(&mut map)?;
        let steps: Vec<Step<'_>> = self.steps().map(Step).collect();
        map.serialize_entry("steps", &steps)?;
        if let Some(then) = &self.then {
            map.serialize_entry("then", then)?;
        }
        map.end()
    }
}

/// One step of an instruction, without what comes after it.
struct Step<'a>(&'a Instruction);

impl Serialize for Step<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.0.serialize_step(&mut map)?;
        map.end()
    }
}

impl Instruction {
    fn serialize_step<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        map.serialize_entry("action", self.action.name())?;
        map.serialize_entry("targets", &self.targets)?;
        map.serialize_entry("destination", &self.destination)?;
        map.serialize_entry("manner", &self.manner)?;
        map.serialize_entry("rotation", &self.rotation)?;
        let offset = self.destination.as_ref().and_then(|it| Some((it.relation, it.distance_m?)));
        let offset =
            offset.map(|(relation, distance_m)| Offset { direction: relation.name(), distance: distance_m });
        map.serialize_entry("offset_m", &offset)?;
        if let Some(recipient) = &self.recipient {
            map.serialize_entry("recipient", recipient)?;
        }
        if let Some(instrument) = &self.instrument {
            map.serialize_entry("instrument", instrument)?;
        }
        if let Some(tool) = &self.tool {
            map.serialize_entry("tool", tool)?;
        }
        if let Some(purpose) = &self.purpose {
            map.serialize_entry("purpose", purpose)?;
        }
        if !self.avoid.is_empty() {
            map.serialize_entry("avoid", &self.avoid)?;
        }
        map.serialize_entry("span", &span_array(&self.span))
    }
}

/// How far a place is moved, and which way: a relation's name and meters.
#[derive(serde::Serialize)]
struct Offset {
    direction: &'static str,
    distance: f64,
}

/// `degrees` are counterclockwise seen from above; the axis is the vertical.
impl Serialize for Rotation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("degrees", &self.degrees)?;
        map.serialize_entry("about", "up")?;
        map.serialize_entry("sense_told", &self.sense_told)?;
        map.end()
    }
}

impl Serialize for ObjectReference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.serialize_entries(&mut map)?;
        map.end()
    }
}

impl ObjectReference {
    fn serialize_entries<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        map.serialize_entry("phrase", &self.query())?;
        map.serialize_entry("noun", &self.noun)?;
        let words = |negated: bool| -> Vec<&str> {
            self.attributes.iter().filter(|it| it.negated == negated).map(|it| it.word.as_str()).collect()
        };
        map.serialize_entry("attributes", &words(false))?;
        if self.attributes.iter().any(|it| it.negated) {
            map.serialize_entry("not_attributes", &words(true))?;
        }
        map.serialize_entry("quantity", self.quantity.name())?;
        map.serialize_entry("count", &self.quantity.count())?;
        if let Some(n) = self.out_of {
            map.serialize_entry("out_of", &n)?;
        }
        if !self.orders.is_empty() {
            map.serialize_entry("orders", &self.orders)?;
        }
        if self.other {
            map.serialize_entry("other", &true)?;
        }
        if let Some(whole) = &self.whole {
            map.serialize_entry("part_of", whole)?;
        }
        map.serialize_entry("relations", &self.relations)?;
        if !self.except.is_empty() {
            map.serialize_entry("except", &self.except)?;
        }
        if !self.alternatives.is_empty() {
            map.serialize_entry("alternatives", &self.alternatives)?;
        }
        map.serialize_entry("span", &span_array(&self.span))
    }
}

impl Serialize for Order {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("by", &self.by)?;
        map.serialize_entry("rank", &self.rank)?;
        map.end()
    }
}

impl Serialize for Relation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", &self.kind)?;
        map.serialize_entry("landmarks", &self.landmarks)?;
        if self.rank != 1 {
            map.serialize_entry("rank", &self.rank)?;
        }
        if let Some(distance_m) = self.distance_m {
            map.serialize_entry("distance_m", &distance_m)?;
        }
        if self.negated {
            map.serialize_entry("negated", &true)?;
        }
        map.serialize_entry("span", &span_array(&self.span))?;
        map.end()
    }
}

/// The first landmark's keys stand beside `relation`; further ones ("between") are under `landmarks`.
impl Serialize for Destination {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("relation", &self.relation)?;
        if let Some(landmark) = self.landmarks.first() {
            landmark.serialize_entries(&mut map)?;
        } else {
            map.serialize_entry("phrase", &None::<&str>)?;
            map.serialize_entry("noun", &None::<&str>)?;
            map.serialize_entry("span", &span_array(&self.span))?;
        }
        if self.landmarks.len() > 1 {
            map.serialize_entry("landmarks", &self.landmarks)?;
        }
        if !self.also.is_empty() {
            map.serialize_entry("also", &self.also)?;
        }
        map.end()
    }
}

impl Serialize for ParseError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("message", &self.message)?;
        map.serialize_entry("span", &span_array(&self.span))?;
        map.end()
    }
}

fn span_array(span: &Span) -> [usize; 2] {
    [span.start, span.end]
}
