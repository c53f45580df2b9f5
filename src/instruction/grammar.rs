//! Words to the tree: recursive descent over the closed classes, with everything else a noun.
//!
//! ```text
//! text      = clause { (sequencer | conjunction | mark) clause }
//! clause    = [fillers] [verb [particle]] things [particle] [direction] [fillers]
//! things    = thing modifiers { ("," | "and") thing modifiers }
//! thing     = [quantifier ["of"]] [determiner] [number] { ordinal | order | attribute | word } noun [of thing]
//! modifiers = { [relative pronoun] (place in a row | relation thing | goal thing | attribute) }
//! ```
//!
//! Modifiers hang on the nearest noun, but for surfaces ("on the table next to the cup"). With verbs that take a destination, one
//! of them is it: see `destination_weight`.

mod clause;
mod exclusion;
mod manner;
mod modifier;
mod open_verb;
mod pronouns;
mod thing;

use self::clause::push_task;
use super::lexicon::mended_noun;
use super::token::Token;
use super::types::{
    Action, Attribute, Instruction, ObjectReference, Order, OrderBy, ParseError, RelationKind, Span,
};
use super::vocabulary::{Verb, Vocabulary};

/// Stand in for a noun until the clause is complete. No token can be one of these.
const IT: &str = "\u{1}it";
const THEM: &str = "\u{1}them";

/// "the cup on the plate on the tray on the ...": deeper than this is no instruction.
const MAX_DEPTH: usize = 12;

/// Words in one noun.
const MAX_NOUN_WORDS: usize = 6;

/// Where reading stopped, and why.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: ParseError,
    /// The token that could not be placed; past the end where every word could, but not what they say together.
    pub(super) token_idx: usize,
}

/// Of what the words say together: another word would not help.
impl From<ParseError> for Failure {
    fn from(error: ParseError) -> Self {
        Self { error, token_idx: usize::MAX }
    }
}

/// The chain of tasks in `tokens`; `spoken_of` is what pronouns at the start may mean.
pub(super) fn parse_tokens(
    tokens: &[Token],
    vocabulary: &Vocabulary,
    spoken_of: Option<&Instruction>,
) -> Result<Instruction, Failure> {
    Parser { spoken_of, ..Parser::new(tokens, vocabulary) }.text()
}

/// Mends slips in the names of things: words of no closed class that are no English words.
pub(super) fn mend_nouns(tokens: &mut [Token], vocabulary: &Vocabulary) {
    for token in tokens.iter_mut().filter(|it| it.is_word && !it.is_name) {
        let is_quality = [&vocabulary.mended_orders, &vocabulary.color_words]
            .iter()
            .any(|it| thing::sole_misspelled(&token.text, it).is_some());
        if is_quality || vocabulary.is_closed(&token.text) || vocabulary.reserved.contains(&token.text) {
            continue;
        }
        if let Some(noun) = mended_noun(&token.text) {
            noun.clone_into(&mut token.text);
        }
    }
}

/// What a statement such as "the remote has gone missing" or "there's a puddle" is about.
pub(super) fn subject(tokens: &[Token], vocabulary: &Vocabulary) -> Option<Instruction> {
    let mut parser = Parser::new(tokens, vocabulary);
    let words = |n: usize| parser.words.get(..n);
    parser.position = match (words(1), words(2)) {
        (Some(["there's" | "here's"]), _) => 1,
        (_, Some(["there", "is" | "are"] | ["i", "see" | "have" | "spilled" | "dropped" | "left"])) => 2,
        _ if parser.determiner_at(0) => 0,
        _ => return None,
    };
    parser.bare(parser.position).ok()
}

/// Mends slips in verbs before anything is read: a word where a verb may stand, no English one, that is a verb of the vocabulary but
/// for one letter.
pub(super) fn mend_verbs(tokens: &mut [Token], vocabulary: &Vocabulary) {
    for at in 0..tokens.len() {
        let begins = at == 0 || {
            let before = &tokens[at - 1];
            !before.is_word
                || vocabulary.conjunctions.contains_word(&before.text)
                || vocabulary.sequencers.contains_word(&before.text)
                || vocabulary.fillers.contains_word(&before.text)
                || matches!(before.text.as_str(), "you" | "to")
        };
        let goes_on = tokens.get(at + 1).is_some_and(|it| it.is_word);
        let may_be_verb = begins && goes_on && tokens[at].is_word && !tokens[at].is_name;
        let mended = vocabulary.mended_verb(&tokens[at].text).filter(|_| may_be_verb);
        if let Some(verb) = mended.map(str::to_owned) {
            tokens[at].text = verb;
        }
    }
}

struct Parser<'a> {
    tokens: &'a [Token],
    words: Vec<&'a str>,
    vocabulary: &'a Vocabulary,
    position: usize,
    /// The verb of the clause may have its particle behind the object.
    split: Option<&'a [(String, Verb)]>,
    /// The verb as its particle made it, where more stood behind the particle.
    particle: Option<Verb>,
    /// The clause's verb as said, in the plain form.
    verb_word: String,
    /// The clause's verb; none in a bare name.
    verb: Option<Verb>,
    /// Manners that stood between a thing and its place: "diagonally to the corner".
    pending_manner: Vec<String>,
    /// What an earlier step opened.
    opened: Option<ObjectReference>,
    /// What was said to be left alone.
    avoid: Vec<ObjectReference>,
    /// What pronouns may mean before anything is named.
    spoken_of: Option<&'a Instruction>,
}

/// What follows a thing and says more about it, or where it shall go.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact about the words, none excludes another")]
struct Modifier {
    meaning: Meaning,
    /// Said with "that is": never a destination.
    relative: bool,
    /// Said with "and": belongs to the head, not to the landmark before.
    to_head: bool,
    /// "into", "onto", "to": only a movement's end.
    goal: bool,
    /// "to the left of": rather a movement's end.
    towards: bool,
    /// Right behind "the closest cup": "to" goes with it, but for what is taken somewhere.
    after_closest: bool,
    /// Behind a comma.
    after_comma: bool,
    /// Behind the verb's particle: "put the money away in the safe".
    after_particle: bool,
    /// "that is not".
    negated: bool,
    /// "10 cm to the left": meters.
    distance_m: Option<f64>,
    token_idx: usize,
    span: Span,
}

#[derive(Debug, Clone)]
enum Meaning {
    Place(Order),
    Relation(RelationKind, Vec<ObjectReference>, usize),
    Attribute(Attribute),
}

type Things = Vec<(ObjectReference, Vec<Modifier>)>;

impl<'a> Parser<'a> {
    fn new(tokens: &'a [Token], vocabulary: &'a Vocabulary) -> Self {
        Self {
            tokens,
            words: tokens.iter().map(|it| it.text.as_str()).collect(),
            vocabulary,
            position: 0,
            split: None,
            particle: None,
            verb_word: String::new(),
            verb: None,
            pending_manner: Vec::new(),
            opened: None,
            avoid: Vec::new(),
            spoken_of: None,
        }
    }

    fn text(&mut self) -> Result<Instruction, Failure> {
        let mut tasks: Vec<Instruction> = Vec::new();
        self.skip_joints();
        // "before you close the trunk, put the tire in it": the first is done last.
        let you = usize::from(self.word(1) == Some("you"));
        let is_reversed = self.word(0) == Some("before") && self.is_verb(1 + you);
        if is_reversed {
            self.position = 1 + you;
        }
        let mut left_alone = None;
        while self.position < self.tokens.len() {
            if let Some(length) =
                self.prohibition_at(self.position).filter(|_| self.verb_at(self.position).is_none())
            {
                let failure = self.unexpected();
                self.prohibition(length, tasks.last())?;
                left_alone.get_or_insert(failure);
            } else if self.left_alone()? {
                let message = "expected something to do, got only what to leave".to_owned();
                left_alone.get_or_insert(self.fail_at(0, message));
            } else if self.is_list_of_names(&tasks) {
                let more = self.bare(self.position)?;
                if let Some(task) = tasks.last_mut() {
                    task.targets.extend(more.targets);
                }
            } else {
                for task in self.clause(tasks.last())? {
                    push_task(&mut tasks, task);
                }
            }
            let before = self.position;
            self.skip_joints();
            if self.position == before && self.position < self.tokens.len() {
                return Err(self.unexpected());
            }
        }
        if let (true, Some(failure)) = (tasks.is_empty(), left_alone) {
            return Err(failure);
        }
        if is_reversed && tasks.len() > 1 {
            tasks.rotate_left(1);
        }
        let mut chain = None;
        for mut task in tasks.into_iter().rev() {
            task.avoid.clone_from(&self.avoid);
            task.then = chain.map(Box::new);
            chain = Some(task);
        }
        chain.ok_or_else(|| {
            self.fail_at(
                0,
                "expected an instruction such as \"pick up the red cup\", got only filler words".to_owned(),
            )
        })
    }

    /// "red mug; plate; bowl": names only.
    fn is_list_of_names(&self, tasks: &[Instruction]) -> bool {
        let [only] = tasks else { return false };
        only.action == Action::Find
            && only.span.start == only.targets.first().map_or(0, |it| it.span.start)
            && self.starts_thing(self.position)
            && !self.is_verb(self.position)
            && self.position > 0
            && self.words[self.position - 1] == "."
    }

    fn determiner_at(&self, at: usize) -> bool {
        self.words.get(at..).is_some_and(|it| {
            self.vocabulary.determiners.longest(it).is_some()
                || self.vocabulary.quantifiers.longest(it).is_some()
        })
    }

    /// A noun phrase can begin here.
    fn starts_thing(&self, at: usize) -> bool {
        let Some(word) = self.word(at) else { return false };
        if self.determiner_at(at) || self.is_pronoun(word) {
            return true;
        }
        if self.vocabulary.reserved.contains(word) || word == "of" || word == "'s" {
            return false;
        }
        if self.vocabulary.numbers.contains_key(word) || self.vocabulary.generic_nouns.contains(word) {
            return true;
        }
        self.vocabulary.orders.contains_word(word) && !self.ends_clause(at + 1)
            || self.vocabulary.attributes.contains_word(word)
            || !self.ends_thing(at)
    }

    fn starts_modifier(&self, at: usize) -> bool {
        self.relation_at(at).is_some() || self.side_at(at).is_some()
    }

    /// No word of a noun phrase stands here.
    fn ends_thing(&self, at: usize) -> bool {
        let Some(word) = self.word(at) else { return true };
        let rest = &self.words[at..];
        let vocabulary = self.vocabulary;
        word == "of"
            || word == "'s"
            || word == "for" && (self.determiner_at(at + 1) || matches!(self.word(at + 1), Some("me" | "us")))
            || vocabulary.reserved.contains(word)
            || vocabulary.conjunctions.longest(rest).is_some()
            || vocabulary.sequencers.longest(rest).is_some()
            || vocabulary.determiners.longest(rest).is_some()
            || vocabulary.quantifiers.longest(rest).is_some()
            || vocabulary.relative_pronouns.longest(rest).is_some()
            || self.is_pronoun(word)
            || matches!(word, "me" | "us")
            || self.filler_at(at).is_some()
            || (vocabulary.particles.contains(word) && !vocabulary.orders.contains_word(word))
            || vocabulary.directions.longest(rest).is_some() && !vocabulary.orders.contains_word(word)
            || self.is_relation_start(at)
            || self.manner_at(at).is_some()
            || vocabulary.exceptions.longest(rest).is_some()
    }

    /// Prepositions, but not order words that also begin relations ("near", "left") before a noun ("the near cup").
    fn is_relation_start(&self, at: usize) -> bool {
        let filled = self.skip_relation_fillers(at);
        if filled > at && (self.relation_at(filled).is_some() || self.side_at(filled).is_some()) {
            return true;
        }
        if self.side_at(at).is_some() {
            return true;
        }
        self.relation_at(at).is_some_and(|(_, length, _)| {
            length > 1
                || !self.vocabulary.orders.contains_word(self.words[at])
                || self.determiner_at(at + length)
                || self.word(at + length).is_some_and(|it| self.count_of(it).is_some() || self.is_pronoun(it))
        })
    }

    /// A filler that can stand inside a sentence: those that double as something else only where the clause ends.
    fn filler_at(&self, at: usize) -> Option<usize> {
        if self.vocative_at(at) {
            return Some(1);
        }
        let ((), length) = self.vocabulary.fillers.longest(self.words.get(at..)?)?;
        let word = self.words[at];
        let doubles = self.vocabulary.ordinals.contains_key(word)
            || matches!(word, "robot" | "next" | "well" | "there" | "here" | "then" | "first");
        (!doubles || length > 1).then_some(length)
    }

    /// "honey, can you" at the start of a sentence, "but" or "after" before a verb.
    fn called_at(&self, at: usize) -> bool {
        let next = at + 1;
        match self.word(at) {
            Some("but" | "after") => self.is_verb(next) || self.inflected_verb_at(next).is_some(),
            Some(word) => {
                at == 0
                    && self.vocabulary.vocatives.contains(word)
                    && (self.is_verb(next)
                        || self.filler_at(next).is_some()
                        || self.words.get(next) == Some(&","))
            }
            None => false,
        }
    }

    /// "bro", at the end of a sentence.
    fn vocative_at(&self, at: usize) -> bool {
        let ends = self.tokens.get(at + 1).is_none_or(|it| it.text == ".");
        let is_named = at > 0 && {
            let before = self.words[at - 1];
            self.determiner_at(at - 1)
                || matches!(before, "to" | "for" | "of" | "and" | "with")
                || self.vocabulary.relations.contains_word(before)
        };
        ends && at > 0 && !is_named && self.word(at).is_some_and(|it| self.vocabulary.vocatives.contains(it))
    }

    /// Nothing more of the clause stands here.
    fn ends_clause(&self, at: usize) -> bool {
        let Some(token) = self.tokens.get(at) else { return true };
        if !token.is_word {
            return true;
        }
        let rest = &self.words[at..];
        let is_relation = self.vocabulary.relations.longest(rest).is_some_and(|(_, length)| length > 1); // "next to"
        self.vocabulary.conjunctions.longest(rest).is_some()
            || self.vocabulary.sequencers.longest(rest).is_some() && !is_relation
            || self
                .vocabulary
                .fillers
                .longest(rest)
                .is_some_and(|((), length)| at + length >= self.tokens.len() || self.ends_clause(at + length))
    }

    /// Behind a comma, a conjunction or both; none when something else stands here.
    fn after_joint(&self, at: usize) -> Option<usize> {
        let mut next = at;
        if self.tokens.get(next).is_some_and(|it| it.text == ",") {
            next += 1;
        }
        if let Some(((), length)) =
            self.words.get(next..).and_then(|it| self.vocabulary.conjunctions.longest(it))
        {
            next += length;
        }
        (next > at && next < self.tokens.len()).then_some(next)
    }

    /// What may stand between clauses: marks, conjunctions, sequencers, fillers.
    fn skip_joints(&mut self) {
        while self.position < self.tokens.len() {
            if !self.tokens[self.position].is_word && matches!(self.words[self.position], "," | ".") {
                self.position += 1;
                continue;
            }
            let rest = &self.words[self.position..];
            let length =
                [&self.vocabulary.sequencers, &self.vocabulary.conjunctions, &self.vocabulary.fillers]
                    .iter()
                    .filter_map(|it| it.longest(rest))
                    .map(|((), length)| length)
                    .max();
            if self.called_at(self.position) {
                self.position += 1;
                continue;
            }
            // A verb may begin with a filler's word ("go to").
            let verb = self.vocabulary.verbs.longest(rest).map_or(0, |(_, length)| length);
            match length {
                Some(length) if length >= verb && !self.ordinal_phrase(length) => self.position += length,
                _ => return,
            }
        }
    }

    /// "first mug from the left" begins with an ordinal, "first pick up" with a filler.
    fn ordinal_phrase(&self, length: usize) -> bool {
        let word = self.words[self.position];
        length == 1
            && self.vocabulary.ordinals.contains_key(word)
            && self.tokens.get(self.position + 1).is_some_and(|it| it.is_word)
            && self.verb_at(self.position + 1).is_none()
            && self.vocabulary.fillers.longest(&self.words[self.position + 1..]).is_none()
    }

    fn skip_fillers(&mut self) {
        loop {
            let filler = self.vocabulary.fillers.longest(self.rest()).map(|((), length)| length);
            match filler.or(self.vocative_at(self.position).then_some(1)) {
                Some(length) => self.position += length,
                None => return,
            }
        }
    }

    /// "pick up, please, the cup": fillers that cannot begin a name.
    fn skip_fillers_before_thing(&mut self) {
        while let Some(length) = self.filler_at(self.position) {
            self.position += length;
        }
    }

    fn skip_word(&mut self, word: &str) {
        if self.word(self.position) == Some(word) {
            self.position += 1;
        }
    }

    fn is_closed(&self, at: usize) -> bool {
        let Some(word) = self.word(at) else { return true };
        self.vocabulary.structure_words.binary_search_by(|it| it.as_str().cmp(word)).is_ok()
            || self.vocabulary.attributes.contains_word(word)
            || self.vocabulary.orders.contains_word(word)
            || self.vocabulary.parts.contains(word)
            || self.vocabulary.containers.contains(word)
    }

    fn rest(&self) -> &[&'a str] {
        &self.words[self.position.min(self.words.len())..]
    }

    /// The word at a place; none at marks and past the end.
    fn word(&self, at: usize) -> Option<&'a str> {
        self.tokens.get(at).filter(|it| it.is_word).map(|_| self.words[at])
    }

    /// From a token to the one before the position.
    fn span_from(&self, start: usize) -> Span {
        let first = self.tokens.get(start).or(self.tokens.last()).map_or(0, |it| it.span.start);
        let end = self.position.max(start + 1).min(self.tokens.len());
        first..self.tokens.get(end.saturating_sub(1)).map_or(first, |it| it.span.end).max(first)
    }

    fn unexpected(&self) -> Failure {
        let Some(token) = self.tokens.get(self.position) else { return self.expected("more") };
        let word = &token.text;
        let message = match word.as_str() {
            "do" if matches!(self.word(self.position + 1), Some("not")) => {
                "cannot follow \"do not\": say what to do, not what to leave".to_owned()
            }
            "not" | "don't" | "dont" | "isn't" | "doesn't" | "never" | "no" | "except" | "but"
            | "without" | "avoid" => {
                format!("cannot follow {word:?}: say what to do, not what to leave")
            }
            "or" | "nor" => "cannot choose between things joined by \"or\": say which".to_owned(),
            "if" | "unless" | "until" | "when" | "while" | "whether" | "because" => {
                format!("cannot follow a condition ({word:?}): say what to do now")
            }
            _ if self.is_question(self.position) => {
                format!("expected an instruction, got a question ({word:?}): ask ~/describe")
            }
            _ => format!("did not expect {word:?} here"),
        };
        self.fail_at(self.position, message)
    }

    /// "what is on the table", "tell me how many", "is the mug red".
    fn is_question(&self, at: usize) -> bool {
        let begins = at == 0 || self.ends_clause(at - 1) || self.vocabulary.fillers.ends(&self.words[..at]);
        match self.word(at) {
            Some("what" | "why" | "how" | "who" | "whose" | "what's") => true,
            Some(
                "is" | "are" | "was" | "were" | "does" | "do" | "did" | "has" | "have" | "which" | "describe"
                | "tell",
            ) => begins,
            _ => false,
        }
    }

    fn expected(&self, what: &str) -> Failure {
        let message = match self.tokens.get(self.position) {
            Some(token) => format!("expected {what}, got {:?}", token.text),
            None => format!("expected {what}, got the end of the text"),
        };
        self.fail_at(self.position, message)
    }

    fn fail_at(&self, token_idx: usize, message: String) -> Failure {
        let end = self.tokens.last().map_or(0, |it| it.span.end);
        let span = self.tokens.get(token_idx).map_or(end..end, |it| it.span.clone());
        Failure { error: ParseError { message, span }, token_idx }
    }
}

/// "second" alone counts from the left until a side is named.
fn is_ordinal_only(order: &Order) -> bool {
    order.by == OrderBy::Leftmost
}

fn is_side(by: OrderBy) -> bool {
    matches!(
        by,
        OrderBy::Leftmost
            | OrderBy::Rightmost
            | OrderBy::Nearest
            | OrderBy::Farthest
            | OrderBy::Highest
            | OrderBy::Lowest
            | OrderBy::Middle
    )
}

fn direction_of(by: OrderBy) -> RelationKind {
    match by {
        OrderBy::Leftmost => RelationKind::LeftOf,
        OrderBy::Rightmost => RelationKind::RightOf,
        OrderBy::Nearest => RelationKind::InFrontOf,
        OrderBy::Farthest => RelationKind::Behind,
        OrderBy::Highest => RelationKind::Above,
        OrderBy::Lowest => RelationKind::Under,
        _ => RelationKind::AtCenterOf,
    }
}
