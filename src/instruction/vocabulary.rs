//! The closed-class words of the grammar, from YAML.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Deserialize;

use super::lexicon::{is_english, may_be_verb};
use super::types::{Action, AttributeKind, OrderBy, RelationKind};

/// The words the grammar knows. [`Vocabulary::default`] is `config/vocabulary.yaml` as built in.
#[derive(Debug, Clone)]
pub struct Vocabulary {
    pub(super) verbs: Table<Verb>,
    /// (verb, particle) pairs that may be split around the object.
    pub(super) split_verbs: HashMap<String, Vec<(String, Verb)>>,
    /// Verbs that are no action of the vocabulary, in the plain form, and whether a place may follow.
    pub(super) other_verbs: HashMap<String, bool>,
    /// Those of them that no name of a thing begins with: "slice bread".
    pub(super) firm_verbs: HashSet<String>,
    pub(super) fillers: Table<()>,
    /// What is said to a person at the end of a sentence.
    pub(super) vocatives: HashSet<String>,
    /// "Task:", "User:": words before a colon that are no part of the instruction.
    pub(super) labels: HashSet<String>,
    /// Short spellings and how they are written out.
    pub(super) spellings: BTreeMap<String, String>,
    pub(super) manners: Table<()>,
    /// Units of length, meters.
    pub(super) lengths: BTreeMap<String, f64>,
    pub(super) exceptions: Table<()>,
    /// Verbs that are done with a tool: "wipe the table with a sponge".
    pub(super) tool_verbs: HashSet<String>,
    /// Things that others are opened, pushed and turned with.
    pub(super) tools: HashSet<String>,
    /// What things have on them: "the vial with the red label".
    pub(super) features: HashSet<String>,
    pub(super) conjunctions: Table<()>,
    pub(super) sequencers: Table<()>,
    pub(super) determiners: Table<Determiner>,
    pub(super) other: Table<()>,
    pub(super) quantifiers: Table<Quantifier>,
    pub(super) numbers: BTreeMap<String, usize>,
    pub(super) ordinals: BTreeMap<String, usize>,
    pub(super) last: HashSet<String>,
    pub(super) singular_pronouns: HashSet<String>,
    pub(super) plural_pronouns: HashSet<String>,
    pub(super) generic_nouns: HashSet<String>,
    pub(super) viewer: HashSet<String>,
    pub(super) orders: Table<OrderBy>,
    pub(super) side_words: Table<()>,
    pub(super) attributes: Table<AttributeKind>,
    pub(super) color_modifiers: HashSet<String>,
    pub(super) nounlike: HashSet<String>,
    pub(super) compounds: Table<()>,
    pub(super) relations: Table<RelationKind>,
    pub(super) goals: Table<RelationKind>,
    pub(super) directions: Table<RelationKind>,
    pub(super) particles: HashSet<String>,
    pub(super) relative_pronouns: Table<()>,
    pub(super) relation_fillers: Table<()>,
    pub(super) parts: HashSet<String>,
    pub(super) grips: HashSet<String>,
    pub(super) units: HashSet<String>,
    pub(super) containers: HashSet<String>,
    pub(super) surfaces: HashSet<String>,
    /// Other things that have a middle, edges and corners to put something on.
    pub(super) supports: HashSet<String>,
    pub(super) instruments: HashSet<String>,
    pub(super) irregular_plurals: BTreeMap<String, String>,
    pub(super) plural_only: HashSet<String>,
    pub(super) reserved: HashSet<String>,
    /// Every single word of the closed classes that give a sentence its structure: what a typo is corrected to.
    pub(super) structure_words: Vec<String>,
    /// What the verbs of the vocabulary begin with, for the same.
    verb_words: HashSet<String>,
    /// Single-word colors, for the same.
    pub(super) color_words: Vec<String>,
    /// Single-word orders, for the same; not all: "closet" and "lager" are things.
    pub(super) mended_orders: Vec<String>,
}

/// Why a vocabulary file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum VocabularyError {
    /// It is not the YAML expected.
    #[error("vocabulary: {0}")]
    Yaml(String),
    /// An entry has no words in it, or upper case ones, which no text would ever match.
    #[error("vocabulary: {0:?} can never match: entries are lower-case words with single spaces")]
    Entry(String),
}

/// What a verb asks for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Verb {
    pub(super) action: Action,
    pub(super) takes_destination: bool,
    pub(super) target: TargetNeed,
    /// "hand me": the recipient is part of the verb.
    pub(super) recipient: Option<String>,
}

/// Whether an action has an object.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum TargetNeed {
    #[default]
    Required,
    Optional,
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Determiner {
    Definite,
    Indefinite,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quantifier {
    All,
    Both,
    Some,
}

/// Phrases of one class, found by longest match.
#[derive(Debug, Clone)]
pub(super) struct Table<T> {
    by_first_word: HashMap<String, Vec<(Vec<String>, T)>>,
}

impl Default for Vocabulary {
    fn default() -> Self {
        Self::from_raw(built_in()).expect("the built-in vocabulary's entries are checked by a test")
    }
}

impl Vocabulary {
    /// The built-in vocabulary and what `yaml`, in the form of `config/vocabulary.yaml`, adds to it.
    pub fn from_yaml(yaml: &str) -> Result<Self, VocabularyError> {
        let mut raw = built_in();
        raw.add(parse_yaml(yaml)?);
        Self::from_raw(raw)
    }

    fn from_raw(raw: RawVocabulary) -> Result<Self, VocabularyError> {
        let mut verbs = Table::default();
        let mut split_verbs: HashMap<String, Vec<(String, Verb)>> = HashMap::new();
        let particles: HashSet<String> = raw.particles.iter().cloned().collect();
        for (name, action) in &raw.actions {
            for phrase in &action.verbs {
                let recipient = ["me", "us"].iter().find(|it| phrase.split(' ').next_back() == Some(it));
                let verb = Verb {
                    action: Action::from_name(name),
                    takes_destination: action.destination,
                    target: action.target,
                    recipient: recipient.filter(|_| name == "hand_over").map(|it| (*it).to_owned()),
                };
                verbs.insert(phrase, verb.clone())?;
                if let [first, second] = phrase.split(' ').collect::<Vec<_>>()[..]
                    && particles.contains(second)
                {
                    split_verbs.entry(first.to_owned()).or_default().push((second.to_owned(), verb));
                }
            }
        }
        let mut attributes = Table::default();
        for (kind, words) in [
            (AttributeKind::State, &raw.states),
            (AttributeKind::Shape, &raw.shapes),
            (AttributeKind::Material, &raw.materials),
            (AttributeKind::Color, &raw.colors),
        ] {
            for word in words {
                attributes.insert(word, kind)?;
            }
        }
        for (by, words) in &raw.sizes {
            for word in words {
                attributes.insert(word, AttributeKind::Size(*by))?;
            }
        }
        let mut determiners = Table::default();
        for word in &raw.determiners.definite {
            determiners.insert(word, Determiner::Definite)?;
        }
        for word in &raw.determiners.indefinite {
            determiners.insert(word, Determiner::Indefinite)?;
        }
        let mut quantifiers = Table::default();
        for (quantifier, words) in [
            (Quantifier::All, &raw.quantifiers.all),
            (Quantifier::Both, &raw.quantifiers.both),
            (Quantifier::Some, &raw.quantifiers.some),
        ] {
            for word in words {
                quantifiers.insert(word, quantifier)?;
            }
        }
        let mut other_verbs = HashMap::new();
        for (verbs, takes_place) in [
            (&raw.other_verbs.plain, false),
            (&raw.other_verbs.firm, false),
            (&raw.other_verbs.placing, true),
        ] {
            other_verbs.extend(verbs.iter().map(|it| (it.clone(), takes_place)));
        }
        let openers: Vec<String> = raw.openers.iter().flat_map(|it| expanded(it)).collect();
        let relations = Table::from_map(&raw.relations)?;
        let goals = Table::from_map(&raw.goals)?;
        let conjunctions = Table::from_list(&raw.conjunctions)?;
        let mut structure_words: Vec<String> = verbs
            .words()
            .chain(relations.words())
            .chain(goals.words())
            .chain(conjunctions.words())
            .chain(determiners.words())
            .chain(raw.sequencers.iter().flat_map(|it| it.split(' ')))
            .filter(|it| it.len() > 1)
            .map(str::to_owned)
            .collect();
        structure_words.sort();
        structure_words.dedup();
        let of_verb = |phrase: &Vec<String>| match &phrase[..] {
            [word] => Some(word.clone()),
            [word, second]
                if particles.contains(second) || matches!(second.as_str(), "to" | "at" | "for") =>
            {
                Some(word.clone())
            }
            _ => None,
        };
        let verb_words =
            verbs.by_first_word.values().flatten().filter_map(|(phrase, _)| of_verb(phrase)).collect();
        Ok(Self {
            verbs,
            split_verbs,
            verb_words,
            other_verbs,
            firm_verbs: raw.other_verbs.firm.into_iter().collect(),
            fillers: Table::from_list(raw.fillers.iter().chain(&openers))?,
            vocatives: raw.vocatives.into_iter().collect(),
            labels: raw.labels.into_iter().collect(),
            spellings: raw.spellings,
            manners: Table::from_list(&raw.manners)?,
            lengths: raw.lengths,
            exceptions: Table::from_list(&raw.exceptions)?,
            tool_verbs: raw.tool_verbs.into_iter().collect(),
            tools: raw.tools.into_iter().collect(),
            features: raw.features.into_iter().collect(),
            conjunctions,
            sequencers: Table::from_list(&raw.sequencers)?,
            determiners,
            other: Table::from_list(&raw.other)?,
            quantifiers,
            numbers: raw.numbers,
            ordinals: raw.ordinals,
            last: raw.last.into_iter().collect(),
            singular_pronouns: raw.pronouns.singular.into_iter().collect(),
            plural_pronouns: raw.pronouns.plural.into_iter().collect(),
            generic_nouns: raw.pronouns.generic.into_iter().collect(),
            viewer: raw.pronouns.viewer.into_iter().collect(),
            orders: Table::from_map(&raw.orders)?,
            side_words: Table::from_list(&raw.side_words)?,
            attributes,
            color_modifiers: raw.color_modifiers.into_iter().collect(),
            nounlike: raw.nounlike.into_iter().collect(),
            compounds: Table::from_list(&raw.compounds)?,
            relations,
            goals,
            directions: Table::from_map(&raw.directions)?,
            particles,
            relative_pronouns: Table::from_list(&raw.relative_pronouns)?,
            relation_fillers: Table::from_list(&raw.relation_fillers)?,
            parts: raw.parts.into_iter().collect(),
            grips: raw.grips.into_iter().collect(),
            units: raw.units.into_iter().collect(),
            containers: raw.containers.into_iter().collect(),
            surfaces: raw.surfaces.into_iter().collect(),
            supports: raw.supports.into_iter().collect(),
            instruments: raw.instruments.into_iter().collect(),
            irregular_plurals: raw.irregular_plurals,
            plural_only: raw.plural_only.into_iter().collect(),
            reserved: raw.reserved.into_iter().collect(),
            structure_words,
            mended_orders: raw
                .orders
                .iter()
                .flat_map(|(by, words)| single_words(words).into_iter().filter(move |it| is_mended(*by, it)))
                .collect(),
            color_words: single_words(&raw.colors),
        })
    }
}

impl Vocabulary {
    /// Whether a word tells a place in a row or a color, and may be a part of "third-from-left" or "dark-blue".
    pub(super) fn may_be_hyphenated(&self, word: &str) -> bool {
        let is_color = matches!(self.attributes.longest(&[word]), Some((AttributeKind::Color, _)));
        is_color
            || self.orders.contains_word(word)
            || self.color_modifiers.contains(word)
            || self.ordinals.contains_key(word)
            || self.last.contains(word)
            || matches!(word, "from" | "to" | "the" | "of" | "in" | "on" | "most")
    }

    /// Whether a single word belongs to a closed class.
    pub(super) fn is_closed(&self, word: &str) -> bool {
        self.structure_words.binary_search_by(|it| it.as_str().cmp(word)).is_ok()
            || self.attributes.contains_word(word)
            || self.orders.contains_word(word)
            || self.color_modifiers.contains(word)
            || self.numbers.contains_key(word)
            || self.ordinals.contains_key(word)
            || self.last.contains(word)
            || word == "most"
    }

    /// The verbs of the vocabulary that a word is but for one slip, in order.
    pub(super) fn verbs_near(&self, word: &str) -> Vec<&str> {
        let near = |it: &&String| it.len() >= 3 && one_edit_apart(it, word);
        let mut near: Vec<&str> = self.verb_words.iter().filter(near).map(String::as_str).collect();
        near.sort_unstable();
        near
    }

    /// The one word of the vocabulary's verbs that `word` is but for one slip, where it is no English word.
    pub(super) fn mended_verb(&self, word: &str) -> Option<&str> {
        if word.chars().count() < 3 || may_be_verb(word) {
            return None;
        }
        let near = self.verbs_near(word);
        // The first letter is seldom wrong: "graab" is "grab".
        let alike: Vec<&str> =
            near.iter().filter(|it| it.chars().next() == word.chars().next()).copied().collect();
        match (&near[..], &alike[..]) {
            ([only], _) | (_, [only]) => Some(only),
            _ => None,
        }
    }
}

/// A pattern with choices `(can|could) you [please]` as all phrases it stands for.
fn expanded(pattern: &str) -> Vec<String> {
    let mut phrases = vec![String::new()];
    let mut rest = pattern;
    while let Some(first) = rest.chars().next() {
        let (choices, length) = match (first, rest.find([')', ']'])) {
            ('(' | '[', Some(end)) => {
                let mut choices: Vec<&str> = rest[1..end].split('|').collect();
                choices.extend((first == '[').then_some(""));
                (choices, end + 1)
            }
            _ => {
                let end = rest[1..].find(['(', '[']).map_or(rest.len(), |it| it + 1);
                (vec![&rest[..end]], end)
            }
        };
        phrases =
            phrases.iter().flat_map(|it| choices.iter().map(move |choice| format!("{it}{choice}"))).collect();
        rest = &rest[length..];
    }
    let mut phrases: Vec<String> =
        phrases.iter().map(|it| it.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    phrases.sort();
    phrases.dedup();
    phrases
}

/// Sides, and superlatives but for "closest".
fn is_mended(by: OrderBy, word: &str) -> bool {
    match by {
        OrderBy::Leftmost | OrderBy::Rightmost | OrderBy::Middle => true,
        OrderBy::Nearest | OrderBy::Farthest => false,
        _ => word.ends_with("est"),
    }
}

fn single_words<'a>(phrases: impl IntoIterator<Item = &'a String>) -> Vec<String> {
    phrases.into_iter().filter(|it| !it.contains(' ')).cloned().collect()
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { by_first_word: HashMap::new() }
    }
}

impl<T: Clone> Table<T> {
    fn insert(&mut self, phrase: &str, meaning: T) -> Result<(), VocabularyError> {
        let words: Vec<String> = phrase.split(' ').map(str::to_owned).collect();
        if words.iter().any(|it| it.is_empty() || *it != it.to_lowercase()) {
            return Err(VocabularyError::Entry(phrase.to_owned()));
        }
        let entries = self.by_first_word.entry(words[0].clone()).or_default();
        let place = entries.partition_point(|(it, _)| it.len() >= words.len());
        entries.insert(place, (words, meaning));
        Ok(())
    }

    /// The longest phrase that `words` starts with: its meaning and its number of words.
    pub(super) fn longest(&self, words: &[&str]) -> Option<(&T, usize)> {
        let entries = self.by_first_word.get(*words.first()?)?;
        let (phrase, meaning) = entries.iter().find(|(phrase, _)| {
            phrase.len() <= words.len() && phrase.iter().zip(words).all(|(a, b)| a == b)
        })?;
        Some((meaning, phrase.len()))
    }

    /// A phrase of two words or more that `words` starts with but for a typo (one edit) in one word of four letters or more.
    pub(super) fn misspelled(&self, words: &[&str]) -> Option<(&T, usize)> {
        let entries = self.by_first_word.values().flatten().filter(|(phrase, _)| {
            phrase.len() > 1 && phrase.len() <= words.len() && {
                let mut wrong = phrase.iter().zip(words).filter(|(a, b)| a != b);
                let is_slip =
                    |a: &str, b: &str| a.len() >= 4 && b.len() >= 3 && one_edit_apart(a, b) && !is_english(b);
                wrong.next().is_some_and(|(a, b)| is_slip(a, b)) && wrong.next().is_none()
            }
        });
        let (phrase, meaning) = entries.max_by_key(|(phrase, _)| (phrase.len(), phrase.clone()))?;
        Some((meaning, phrase.len()))
    }

    /// Whether `words` ends with one of the phrases.
    pub(super) fn ends(&self, words: &[&str]) -> bool {
        let is_last =
            |at: usize| self.longest(&words[at..]).is_some_and(|(_, length)| at + length == words.len());
        (0..words.len()).rev().take(8).any(is_last)
    }

    pub(super) fn contains_word(&self, word: &str) -> bool {
        self.longest(&[word]).is_some()
    }

    fn words(&self) -> impl Iterator<Item = &str> {
        self.by_first_word.values().flatten().flat_map(|(phrase, _)| phrase).map(String::as_str)
    }

    fn from_map(phrases_by_meaning: &BTreeMapLike<T>) -> Result<Self, VocabularyError> {
        let mut table = Self::default();
        for (meaning, phrases) in phrases_by_meaning {
            for phrase in phrases {
                table.insert(phrase, meaning.clone())?;
            }
        }
        Ok(table)
    }
}

impl Table<()> {
    fn from_list<'a>(phrases: impl IntoIterator<Item = &'a String>) -> Result<Self, VocabularyError> {
        let mut table = Self::default();
        for phrase in phrases {
            table.insert(phrase, ())?;
        }
        Ok(table)
    }
}

/// True when one insertion, deletion, substitution or swap of neighbors turns `a` into `b`.
pub(super) fn one_edit_apart(a: &str, b: &str) -> bool {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let prefix = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
    let (a, b) = (&a[prefix..], &b[prefix..]);
    let suffix = a.iter().rev().zip(b.iter().rev()).take_while(|(x, y)| x == y).count();
    let (a, b) = (&a[..a.len() - suffix], &b[..b.len() - suffix]);
    match (a, b) {
        ([], [_]) | ([_], [] | [_]) => true,
        ([p, q], [r, s]) => p == s && q == r,
        _ => false,
    }
}

type BTreeMapLike<T> = Vec<(T, Vec<String>)>;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawVocabulary {
    actions: BTreeMap<String, RawAction>,
    other_verbs: RawOtherVerbs,
    fillers: Vec<String>,
    openers: Vec<String>,
    vocatives: Vec<String>,
    labels: Vec<String>,
    spellings: BTreeMap<String, String>,
    manners: Vec<String>,
    lengths: BTreeMap<String, f64>,
    exceptions: Vec<String>,
    tool_verbs: Vec<String>,
    tools: Vec<String>,
    features: Vec<String>,
    conjunctions: Vec<String>,
    sequencers: Vec<String>,
    determiners: RawDeterminers,
    other: Vec<String>,
    quantifiers: RawQuantifiers,
    numbers: BTreeMap<String, usize>,
    ordinals: BTreeMap<String, usize>,
    last: Vec<String>,
    pronouns: RawPronouns,
    #[serde(deserialize_with = "pairs")]
    orders: BTreeMapLike<OrderBy>,
    side_words: Vec<String>,
    colors: Vec<String>,
    color_modifiers: Vec<String>,
    #[serde(deserialize_with = "pairs")]
    sizes: BTreeMapLike<OrderBy>,
    materials: Vec<String>,
    shapes: Vec<String>,
    states: Vec<String>,
    nounlike: Vec<String>,
    compounds: Vec<String>,
    #[serde(deserialize_with = "pairs")]
    relations: BTreeMapLike<RelationKind>,
    #[serde(deserialize_with = "pairs")]
    goals: BTreeMapLike<RelationKind>,
    #[serde(deserialize_with = "pairs")]
    directions: BTreeMapLike<RelationKind>,
    particles: Vec<String>,
    relative_pronouns: Vec<String>,
    relation_fillers: Vec<String>,
    parts: Vec<String>,
    grips: Vec<String>,
    units: Vec<String>,
    containers: Vec<String>,
    surfaces: Vec<String>,
    supports: Vec<String>,
    instruments: Vec<String>,
    irregular_plurals: BTreeMap<String, String>,
    plural_only: Vec<String>,
    reserved: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawAction {
    verbs: Vec<String>,
    destination: bool,
    target: TargetNeed,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawOtherVerbs {
    plain: Vec<String>,
    placing: Vec<String>,
    firm: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawDeterminers {
    definite: Vec<String>,
    indefinite: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawQuantifiers {
    all: Vec<String>,
    both: Vec<String>,
    some: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawPronouns {
    singular: Vec<String>,
    plural: Vec<String>,
    generic: Vec<String>,
    viewer: Vec<String>,
}

impl RawVocabulary {
    fn add(&mut self, more: Self) {
        for (name, action) in more.actions {
            let entry = self.actions.entry(name).or_insert_with(|| RawAction {
                verbs: Vec::new(),
                destination: action.destination,
                target: action.target,
            });
            entry.verbs.extend(action.verbs);
        }
        for (mine, added) in [
            (&mut self.other_verbs.plain, more.other_verbs.plain),
            (&mut self.other_verbs.placing, more.other_verbs.placing),
            (&mut self.other_verbs.firm, more.other_verbs.firm),
            (&mut self.fillers, more.fillers),
            (&mut self.openers, more.openers),
            (&mut self.vocatives, more.vocatives),
            (&mut self.labels, more.labels),
            (&mut self.manners, more.manners),
            (&mut self.exceptions, more.exceptions),
            (&mut self.tool_verbs, more.tool_verbs),
            (&mut self.tools, more.tools),
            (&mut self.features, more.features),
            (&mut self.conjunctions, more.conjunctions),
            (&mut self.sequencers, more.sequencers),
            (&mut self.determiners.definite, more.determiners.definite),
            (&mut self.determiners.indefinite, more.determiners.indefinite),
            (&mut self.other, more.other),
            (&mut self.quantifiers.all, more.quantifiers.all),
            (&mut self.quantifiers.both, more.quantifiers.both),
            (&mut self.quantifiers.some, more.quantifiers.some),
            (&mut self.last, more.last),
            (&mut self.pronouns.singular, more.pronouns.singular),
            (&mut self.pronouns.plural, more.pronouns.plural),
            (&mut self.pronouns.generic, more.pronouns.generic),
            (&mut self.pronouns.viewer, more.pronouns.viewer),
            (&mut self.side_words, more.side_words),
            (&mut self.colors, more.colors),
            (&mut self.color_modifiers, more.color_modifiers),
            (&mut self.materials, more.materials),
            (&mut self.shapes, more.shapes),
            (&mut self.states, more.states),
            (&mut self.nounlike, more.nounlike),
            (&mut self.compounds, more.compounds),
            (&mut self.particles, more.particles),
            (&mut self.relative_pronouns, more.relative_pronouns),
            (&mut self.relation_fillers, more.relation_fillers),
            (&mut self.parts, more.parts),
            (&mut self.grips, more.grips),
            (&mut self.units, more.units),
            (&mut self.containers, more.containers),
            (&mut self.surfaces, more.surfaces),
            (&mut self.supports, more.supports),
            (&mut self.instruments, more.instruments),
            (&mut self.plural_only, more.plural_only),
            (&mut self.reserved, more.reserved),
        ] {
            mine.extend(added);
        }
        self.spellings.extend(more.spellings);
        self.lengths.extend(more.lengths);
        self.numbers.extend(more.numbers);
        self.ordinals.extend(more.ordinals);
        self.irregular_plurals.extend(more.irregular_plurals);
        self.orders.extend(more.orders);
        self.sizes.extend(more.sizes);
        self.relations.extend(more.relations);
        self.goals.extend(more.goals);
        self.directions.extend(more.directions);
    }
}

fn built_in() -> RawVocabulary {
    parse_yaml(include_str!("../../config/vocabulary.yaml"))
        .expect("the built-in vocabulary is checked by a test")
}

/// An empty file adds nothing.
fn parse_yaml(yaml: &str) -> Result<RawVocabulary, VocabularyError> {
    if yaml.trim().is_empty() {
        return Ok(RawVocabulary::default());
    }
    crate::yaml::read(yaml).map_err(|error| VocabularyError::Yaml(error.to_string()))
}

/// A map whose keys are enums, in the order written (two keys may have the same meaning after [`RawVocabulary::add`]).
fn pairs<'de, D, K>(deserializer: D) -> Result<Vec<(K, Vec<String>)>, D::Error>
where
    D: serde::Deserializer<'de>,
    K: Deserialize<'de>,
{
    struct Pairs<K>(std::marker::PhantomData<K>);
    impl<'de, K: Deserialize<'de>> serde::de::Visitor<'de> for Pairs<K> {
        type Value = Vec<(K, Vec<String>)>;
        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.write_str("a map from a name to a list of phrases")
        }
        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut entries = Vec::new();
            while let Some(entry) = map.next_entry()? {
                entries.push(entry);
            }
            Ok(entries)
        }
    }
    deserializer.deserialize_map(Pairs(std::marker::PhantomData))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_vocabulary_is_sound() {
        let raw = parse_yaml(include_str!("../../config/vocabulary.yaml")).unwrap();
        assert!(raw.actions.len() >= 20);
        for name in raw.actions.keys() {
            assert!(
                !matches!(Action::from_name(name), Action::Custom(_)),
                "{name} is not a canonical action"
            );
        }
        Vocabulary::from_raw(raw).unwrap();
    }

    #[test]
    fn edits() {
        for (a, b, expected) in [
            ("on", "onn", true),
            ("left", "lfet", true),
            ("left", "lift", true),
            ("left", "left", false),
            ("left", "loft", true),
            ("pick", "pikc", true),
            ("pick", "pkic", false),
            ("pick", "ipkc", false),
            ("front", "fronts", true),
            ("abc", "cba", false),
            ("", "a", true),
            ("", "", false),
        ] {
            assert_eq!(one_edit_apart(a, b), expected, "{a} {b}");
            assert_eq!(one_edit_apart(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn user_files_extend_the_built_in_words() {
        let vocabulary = Vocabulary::from_yaml(
            "actions: {wipe: {verbs: [wipe, wipe off]}, pick_up: {verbs: [yoink]}}\ncolors: [mauve]",
        )
        .unwrap();
        let (verb, length) = vocabulary.verbs.longest(&["wipe", "off", "the"]).unwrap();
        assert_eq!((verb.action.clone(), length), (Action::Custom("wipe".to_owned()), 2));
        assert_eq!(vocabulary.verbs.longest(&["yoink"]).unwrap().0.action, Action::PickUp);
        assert!(vocabulary.verbs.longest(&["grab"]).is_some());
        assert_eq!(vocabulary.attributes.longest(&["mauve"]), Some((&AttributeKind::Color, 1)));
    }

    #[test]
    fn bad_files_are_refused_with_a_reason() {
        for (yaml, part) in [
            ("colours: [mauve]", "unknown field"),
            ("colors: mauve", "sequence"),
            ("relations: {beneathish: [under]}", "unknown variant"),
            ("colors: [Mauve]", "lower-case"),
            ("colors: ['dark  red']", "lower-case"),
            ("colors: ['']", "lower-case"),
            ("[", "vocabulary"),
        ] {
            let message = Vocabulary::from_yaml(yaml).unwrap_err().to_string();
            assert!(message.contains(part), "{yaml}: {message}");
        }
    }
}
