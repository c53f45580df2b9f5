//! The typed tree of an instruction.

mod display;
mod json;

use std::ops::Range;

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
    /// With which part of the robot, as said ("left hand").
    pub instrument: Option<String>,
    /// With which thing: the sponge of "wipe the table with a sponge".
    pub tool: Option<ObjectReference>,
    /// How, as said: "gently", "upright", "in half".
    pub manner: Vec<String>,
    /// By how much to turn.
    pub rotation: Option<Rotation>,
    /// What for, as said: "open the door".
    pub purpose: Option<String>,
    /// What must be left alone.
    pub avoid: Vec<ObjectReference>,
    /// What to do afterwards.
    pub then: Option<Box<Instruction>>,
    /// The part of the text that says all this, without `then`.
    pub span: Span,
}

/// A turn, as far as the words tell it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rotation {
    /// Degrees, positive counterclockwise as seen from above (REP 103), also where no sense is told.
    pub degrees: f64,
    /// Whether the words tell the sense, "clockwise" or "counterclockwise".
    pub sense_told: bool,
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
    /// Any other: a name of the user's vocabulary, or the verb as said, with its particle ("wipe", "knock over").
    Custom(String),
}

/// A thing as the words describe it.
#[derive(Debug, Clone, Default, PartialEq)]
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
    /// "all but the red one": what is not meant.
    pub except: Vec<ObjectReference>,
    /// "either the red mug or the blue one": what may be taken in its place.
    pub alternatives: Vec<ObjectReference>,
    /// A table, a floor: what things stand on, which may be seen as a plane where no detector has a box for it.
    pub is_surface: bool,
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
    /// "that is not red".
    pub negated: bool,
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Quantity {
    /// "the mug": one, and it matters which.
    #[default]
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
    /// "two inches from the plate": how far, meters.
    pub distance_m: Option<f64>,
    /// "that is not on the plate".
    pub negated: bool,
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
    /// "10 cm to the left": how far from the landmark, or from where the target is; meters.
    pub distance_m: Option<f64>,
    /// "on the table, next to the mug": what else must hold of the place.
    pub also: Vec<Relation>,
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
    /// An action with nothing named yet.
    pub(crate) fn of(action: Action) -> Self {
        Self {
            action,
            targets: Vec::new(),
            destination: None,
            recipient: None,
            instrument: None,
            tool: None,
            manner: Vec::new(),
            rotation: None,
            purpose: None,
            avoid: Vec::new(),
            then: None,
            span: 0..0,
        }
    }

    /// This step and all that come after it, in order.
    pub fn steps(&self) -> impl Iterator<Item = &Instruction> {
        std::iter::successors(Some(self), |it| it.then.as_deref())
    }

    /// Whether it only asks to stop: "stop", "never mind".
    pub fn is_stop(&self) -> bool {
        self.action == Action::Stop && self.then.is_none()
    }

    /// The step at a place, 0 for the first.
    pub fn step_mut(&mut self, step_idx: usize) -> Option<&mut Instruction> {
        (0..step_idx).try_fold(self, |it, _| it.then.as_deref_mut())
    }

    /// The targets, the destination's landmarks, the tool, what must be left alone, and the landmarks and wholes of all of these;
    /// not of what comes `then`.
    pub fn references(&self) -> Vec<&ObjectReference> {
        let mut found: Vec<&ObjectReference> = self.named().collect();
        let mut next = 0;
        while let Some(&reference) = found.get(next) {
            found.extend(reference.spoken_with());
            next += 1;
        }
        found
    }

    /// What is named by the step itself: targets first.
    fn named(&self) -> impl Iterator<Item = &ObjectReference> {
        let destination = self.destination.iter();
        let also = destination.clone().flat_map(|it| &it.also).flat_map(|it| &it.landmarks);
        let landmarks = destination.flat_map(|it| &it.landmarks);
        self.targets.iter().chain(landmarks).chain(also).chain(&self.tool).chain(&self.avoid)
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
        for reference in self.steps().flat_map(Self::named) {
            reference.collect_queries(&mut phrases);
        }
        phrases
    }
}

impl ObjectReference {
    /// The references that say which one is meant: landmarks, the whole, an answer, exceptions, alternatives.
    fn spoken_with(&self) -> impl Iterator<Item = &ObjectReference> {
        let landmarks = self.relations.iter().flat_map(|it| &it.landmarks);
        landmarks
            .chain(self.whole.as_deref())
            .chain(self.answer.as_deref())
            .chain(&self.except)
            .chain(&self.alternatives)
    }

    /// The phrase a detector is asked for: what can be seen on the thing alone, so neither order nor relations nor
    /// relative size. "the second big red cup left of the plate" asks for "red cup".
    pub fn query(&self) -> String {
        let mut phrase = String::new();
        let mut after_color = false;
        for attribute in &self.attributes {
            if matches!(attribute.kind, AttributeKind::Size(_)) || attribute.negated {
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
        // "the mug that is not red": which of the mugs are red is asked as well.
        for attribute in self.attributes.iter().filter(|it| it.negated) {
            push_distinct(phrases, format!("{} {}", attribute.word, self.noun));
        }
        for reference in self.whole.as_deref().into_iter().chain(self.answer.as_deref()) {
            reference.collect_queries(phrases);
        }
        let relations = self.relations.iter().filter(|it| it.kind != RelationKind::With);
        let landmarks = relations.flat_map(|it| &it.landmarks);
        for reference in landmarks.chain(&self.except).chain(&self.alternatives) {
            reference.collect_queries(phrases);
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

fn push_distinct(phrases: &mut Vec<String>, phrase: String) {
    if !phrases.contains(&phrase) {
        phrases.push(phrase);
    }
}
