//! The typed tree of an instruction.

use std::fmt;
use std::ops::Range;

use serde::ser::{Serialize, SerializeMap, Serializer};

/// A place in the instruction's text: byte offsets into its UTF-8, start inclusive, end exclusive.
pub type Span = Range<usize>;

/// One thing to do, and perhaps another after it.
///
/// "Pick up X and put it Y" is one task and has one form: the action is [`Action::Put`], exactly as if the sentence
/// had been "put X Y". Pronouns are gone: "it" is a copy of what it refers to.
#[derive(Debug, Clone, PartialEq)]
pub struct Instruction {
    /// What to do. A bare noun phrase asks to find it.
    pub action: Action,
    /// What to do it to. Empty only where the action needs no object ("stop").
    pub targets: Vec<ObjectReference>,
    /// Where to.
    pub destination: Option<Destination>,
    /// To whom, as said ("me").
    pub recipient: Option<String>,
    /// With what, as said ("left hand").
    pub instrument: Option<String>,
    /// What to do afterwards.
    pub then: Option<Box<Instruction>>,
    /// The part of the text that says all this, without `then`.
    pub span: Span,
}

/// What to do, in the vocabulary's canonical names.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the actions")]
pub enum Action {
    PickUp,
    Put,
    Stack,
    Move,
    Push,
    Pull,
    Open,
    Close,
    TurnOn,
    TurnOff,
    Turn,
    Press,
    Pour,
    HandOver,
    Release,
    PointAt,
    LookAt,
    Find,
    GoTo,
    Stop,
    /// An action that only the user's vocabulary names.
    Custom(String),
}

/// A thing as the words describe it.
#[derive(Debug, Clone, PartialEq)]
pub struct ObjectReference {
    /// The head noun, lower case, singular: "mug", "wine bottle". [`GENERIC_NOUN`] where the words leave it open ("the red one").
    pub noun: String,
    /// In the order spoken.
    pub attributes: Vec<Attribute>,
    /// How many.
    pub quantity: Quantity,
    /// "the leftmost of the three cups": how many there are to choose from.
    pub out_of: Option<usize>,
    /// Which one in a row: "left", "second from the right", "largest".
    pub orders: Vec<Order>,
    /// Where it is with respect to other things.
    pub relations: Vec<Relation>,
    /// What it is a part of: the cabinet of "the top drawer of the cabinet".
    pub whole: Option<Box<ObjectReference>>,
    /// "the other mug": not the one spoken of before.
    pub other: bool,
    /// What was answered when asked which of several is meant: "the left one" says which of those it is.
    pub answer: Option<Box<ObjectReference>>,
    /// Where in the text.
    pub span: Span,
}

/// The noun of a reference that names no kind: "the red one", "something red", "the thing on the left".
pub const GENERIC_NOUN: &str = "object";

/// A quality of the thing itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// What the word is about.
    pub kind: AttributeKind,
    /// The word or words, lower case: "red", "dark blue".
    pub word: String,
}

/// What an attribute is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttributeKind {
    /// "red".
    Color,
    /// Relative to its like: "big", "tall". Names how things are ranked.
    Size(OrderBy),
    /// "wooden".
    Material,
    /// "round".
    Shape,
    /// "open", "empty".
    State,
    /// A word before the noun that the vocabulary does not know, where it cannot be a part of the noun.
    Other,
}

/// How many things are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantity {
    /// "the mug": one, and it matters which.
    One,
    /// "a mug", "two of the mugs", "any three cups": so many, whichever.
    Any(usize),
    /// "both mugs", "the three cups": so many and no more.
    Exactly(usize),
    /// "all mugs", "the mugs", "every mug".
    All,
}

/// A place in a ranking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// What is ranked.
    pub by: OrderBy,
    /// 1 is the first; for [`OrderBy::Middle`] always 1.
    pub rank: usize,
}

/// What a ranking goes by, named by its first place. Sides are those of the viewpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum OrderBy {
    Leftmost,
    Rightmost,
    /// Nearest to the viewer; also "front".
    Nearest,
    /// Farthest from the viewer; also "back".
    Farthest,
    Highest,
    Lowest,
    /// Between the others.
    Middle,
    Largest,
    Smallest,
    Tallest,
    Shortest,
    Widest,
    Narrowest,
}

/// Where a thing is with respect to others.
#[derive(Debug, Clone, PartialEq)]
pub struct Relation {
    /// How.
    pub kind: RelationKind,
    /// To what: one; two or one plural for [`RelationKind::Between`]; none for a direction ("to the left").
    pub landmarks: Vec<ObjectReference>,
    /// For [`RelationKind::ClosestTo`] and [`RelationKind::FarthestFrom`]: 1 is the closest (farthest).
    pub rank: usize,
    /// Where in the text.
    pub span: Span,
}

/// How a thing is placed with respect to a landmark. Sides are those of the viewpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum RelationKind {
    LeftOf,
    RightOf,
    /// Nearer to the viewer than the landmark.
    InFrontOf,
    /// Farther from the viewer than the landmark.
    Behind,
    NextTo,
    Near,
    Between,
    On,
    In,
    Under,
    Above,
    /// On or in, whichever: "take the cup from the tray".
    From,
    /// Towards (destinations only).
    To,
    AtCenterOf,
    AtEdgeOf,
    AtCornerOf,
    AtFrontOf,
    AtBackOf,
    AtLeftOf,
    AtRightOf,
    ClosestTo,
    FarthestFrom,
    /// Having a part: "the mug with the handle". Goes into the phrase.
    With,
}

/// Where to bring the targets.
#[derive(Debug, Clone, PartialEq)]
pub struct Destination {
    /// How the place relates to the landmarks.
    pub relation: RelationKind,
    /// One, or two for "between"; none for a bare direction ("to the left"): then it is relative to where the target is.
    pub landmarks: Vec<ObjectReference>,
    /// Where in the text.
    pub span: Span,
}

/// Why a text is no instruction, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ParseError {
    /// One sentence: what was expected, what came.
    pub message: String,
    /// The words it is about.
    pub span: Span,
}

impl Instruction {
    /// The targets, the destination's landmarks, and the landmarks and wholes of all of these; not of what comes `then`.
    pub fn references(&self) -> Vec<&ObjectReference> {
        let mut found: Vec<&ObjectReference> =
            self.targets.iter().chain(self.destination.iter().flat_map(|it| &it.landmarks)).collect();
        let mut next = 0;
        while let Some(&reference) = found.get(next) {
            let landmarks = reference.relations.iter().flat_map(|it| &it.landmarks);
            found.extend(landmarks.chain(reference.whole.as_deref()).chain(reference.answer.as_deref()));
            next += 1;
        }
        found
    }

    /// Whether the words name a side: left, right, front or back, which depend on who looks.
    pub fn depends_on_viewpoint(&self) -> bool {
        let destination = self.destination.iter().map(|it| it.relation);
        let references = self.references();
        let relations = references.iter().flat_map(|it| &it.relations).map(|it| it.kind);
        let mut orders = references.iter().flat_map(|it| &it.orders);
        destination.chain(relations).any(RelationKind::depends_on_viewpoint)
            || orders.any(|it| it.by.depends_on_viewpoint())
    }

    /// All distinct phrases that must be grounded, targets first, then landmarks and destinations in the order spoken.
    /// A part asks for its whole as well.
    pub fn queries(&self) -> Vec<String> {
        let mut phrases = Vec::new();
        for target in &self.targets {
            target.collect_queries(&mut phrases);
        }
        for landmark in self.destination.iter().flat_map(|it| &it.landmarks) {
            landmark.collect_queries(&mut phrases);
        }
        if let Some(then) = &self.then {
            for phrase in then.queries() {
                push_distinct(&mut phrases, phrase);
            }
        }
        phrases
    }
}

impl ObjectReference {
    /// The phrase a detector is asked for: what can be seen on the thing alone, so neither order nor relations nor
    /// relative size. "the second big red cup left of the plate" asks for "red cup".
    pub fn query(&self) -> String {
        let mut phrase = String::new();
        let mut after_color = false;
        for attribute in &self.attributes {
            if matches!(attribute.kind, AttributeKind::Size(_)) {
                continue;
            }
            let is_color = attribute.kind == AttributeKind::Color;
            if !phrase.is_empty() {
                phrase.push_str(if after_color && is_color { " and " } else { " " });
            }
            phrase.push_str(&attribute.word);
            after_color = is_color;
        }
        if !phrase.is_empty() {
            phrase.push(' ');
        }
        phrase.push_str(&self.noun);
        for with in self.relations.iter().filter(|it| it.kind == RelationKind::With) {
            for landmark in &with.landmarks {
                phrase.push_str(" with ");
                phrase.push_str(&landmark.query());
            }
        }
        phrase
    }

    fn collect_queries(&self, phrases: &mut Vec<String>) {
        push_distinct(phrases, self.query());
        if let Some(whole) = &self.whole {
            whole.collect_queries(phrases);
        }
        if let Some(answer) = &self.answer {
            answer.collect_queries(phrases);
        }
        for relation in self.relations.iter().filter(|it| it.kind != RelationKind::With) {
            for landmark in &relation.landmarks {
                landmark.collect_queries(phrases);
            }
        }
    }
}

impl Quantity {
    /// The contract's name: "one", "any", "exactly" or "all".
    pub fn name(&self) -> &'static str {
        match self {
            Self::One => "one",
            Self::Any(_) => "any",
            Self::Exactly(_) => "exactly",
            Self::All => "all",
        }
    }

    /// How many, where the words say it.
    pub fn count(&self) -> Option<usize> {
        match *self {
            Self::One => Some(1),
            Self::Any(n) | Self::Exactly(n) => Some(n),
            Self::All => None,
        }
    }
}

impl Action {
    const NAMED: [(&'static str, Self); 20] = [
        ("pick_up", Self::PickUp),
        ("put", Self::Put),
        ("stack", Self::Stack),
        ("move", Self::Move),
        ("push", Self::Push),
        ("pull", Self::Pull),
        ("open", Self::Open),
        ("close", Self::Close),
        ("turn_on", Self::TurnOn),
        ("turn_off", Self::TurnOff),
        ("turn", Self::Turn),
        ("press", Self::Press),
        ("pour", Self::Pour),
        ("hand_over", Self::HandOver),
        ("release", Self::Release),
        ("point_at", Self::PointAt),
        ("look_at", Self::LookAt),
        ("find", Self::Find),
        ("go_to", Self::GoTo),
        ("stop", Self::Stop),
    ];

    /// The action of a canonical name.
    pub fn from_name(name: &str) -> Self {
        let known = Self::NAMED.into_iter().find(|(it, _)| *it == name);
        known.map_or_else(|| Self::Custom(name.to_owned()), |(_, action)| action)
    }

    /// Its canonical name, snake case.
    pub fn name(&self) -> &str {
        match self {
            Self::Custom(name) => name,
            known => Self::NAMED.iter().find(|(_, it)| it == known).map_or("", |(name, _)| name),
        }
    }
}

impl RelationKind {
    /// Whether it depends on who looks.
    pub fn depends_on_viewpoint(self) -> bool {
        matches!(
            self,
            Self::LeftOf
                | Self::RightOf
                | Self::InFrontOf
                | Self::Behind
                | Self::AtFrontOf
                | Self::AtBackOf
                | Self::AtLeftOf
                | Self::AtRightOf
        )
    }

    /// In words, as they stand before a landmark: "left of".
    pub fn words(self) -> &'static str {
        match self {
            Self::LeftOf => "left of",
            Self::RightOf => "right of",
            Self::InFrontOf => "in front of",
            Self::Behind => "behind",
            Self::NextTo => "next to",
            Self::Near => "near",
            Self::Between => "between",
            Self::On => "on",
            Self::In => "in",
            Self::Under => "under",
            Self::Above => "above",
            Self::From => "from",
            Self::To => "to",
            Self::AtCenterOf => "at the center of",
            Self::AtEdgeOf => "at the edge of",
            Self::AtCornerOf => "at the corner of",
            Self::AtFrontOf => "at the front of",
            Self::AtBackOf => "at the back of",
            Self::AtLeftOf => "at the left of",
            Self::AtRightOf => "at the right of",
            Self::ClosestTo => "closest to",
            Self::FarthestFrom => "farthest from",
            Self::With => "with",
        }
    }

    /// The contract's name, snake case.
    pub fn name(self) -> &'static str {
        match self {
            Self::LeftOf => "left_of",
            Self::RightOf => "right_of",
            Self::InFrontOf => "in_front_of",
            Self::Behind => "behind",
            Self::NextTo => "next_to",
            Self::Near => "near",
            Self::Between => "between",
            Self::On => "on",
            Self::In => "in",
            Self::Under => "under",
            Self::Above => "above",
            Self::From => "from",
            Self::To => "to",
            Self::AtCenterOf => "at_center_of",
            Self::AtEdgeOf => "at_edge_of",
            Self::AtCornerOf => "at_corner_of",
            Self::AtFrontOf => "at_front_of",
            Self::AtBackOf => "at_back_of",
            Self::AtLeftOf => "at_left_of",
            Self::AtRightOf => "at_right_of",
            Self::ClosestTo => "closest_to",
            Self::FarthestFrom => "farthest_from",
            Self::With => "with",
        }
    }
}

impl OrderBy {
    /// Whether it depends on who looks.
    pub fn depends_on_viewpoint(self) -> bool {
        matches!(self, Self::Leftmost | Self::Rightmost | Self::Nearest | Self::Farthest)
    }

    /// As an adjective: "leftmost".
    pub fn name(self) -> &'static str {
        match self {
            Self::Leftmost => "leftmost",
            Self::Rightmost => "rightmost",
            Self::Nearest => "nearest",
            Self::Farthest => "farthest",
            Self::Highest => "highest",
            Self::Lowest => "lowest",
            Self::Middle => "middle",
            Self::Largest => "largest",
            Self::Smallest => "smallest",
            Self::Tallest => "tallest",
            Self::Shortest => "shortest",
            Self::Widest => "widest",
            Self::Narrowest => "narrowest",
        }
    }
}

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
            for (landmark_idx, landmark) in destination.landmarks.iter().enumerate() {
                write!(f, "{} {landmark}", if landmark_idx == 0 { "" } else { " and" })?;
            }
        }
        if let Some(recipient) = &self.recipient {
            write!(f, " for {recipient}")?;
        }
        if let Some(instrument) = &self.instrument {
            write!(f, " using {instrument}")?;
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
            if matches!(attribute.kind, AttributeKind::Size(_)) {
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
        for relation in self.relations.iter().filter(|it| it.kind != RelationKind::With) {
            write!(f, " | {}", relation.kind.name())?;
            if relation.rank != 1 {
                write!(f, " {}", relation.rank)?;
            }
            for landmark in &relation.landmarks {
                write!(f, " {landmark}")?;
            }
        }
        if let Some(answer) = &self.answer {
            write!(f, " | answered {answer}")?;
        }
        f.write_str("}")
    }
}

impl Serialize for Instruction {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("action", self.action.name())?;
        map.serialize_entry("targets", &self.targets)?;
        map.serialize_entry("destination", &self.destination)?;
        if let Some(recipient) = &self.recipient {
            map.serialize_entry("recipient", recipient)?;
        }
        if let Some(instrument) = &self.instrument {
            map.serialize_entry("instrument", instrument)?;
        }
        if let Some(then) = &self.then {
            map.serialize_entry("then", then)?;
        }
        map.serialize_entry("span", &span_array(&self.span))?;
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
        let words: Vec<&str> = self.attributes.iter().map(|it| it.word.as_str()).collect();
        map.serialize_entry("attributes", &words)?;
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

fn push_distinct(phrases: &mut Vec<String>, phrase: String) {
    if !phrases.contains(&phrase) {
        phrases.push(phrase);
    }
}
