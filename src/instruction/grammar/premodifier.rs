//! What stands between a determiner and the end of the noun: ordinals, orders, attributes, and the words of the noun itself.

use super::number::choose_from;
use super::{Failure, MAX_NOUN_WORDS, Parser, is_side};
use crate::instruction::types::{
    Attribute, AttributeKind, GENERIC_NOUN, ObjectReference, Order, OrderBy, Quantity,
};

/// What was read before the end of a noun.
pub(super) struct Premodifiers {
    /// Words that may be the noun: unknown ones, and attributes that may be nouns.
    pub(super) noun: Vec<String>,
    /// A number behind an order: "the top two books".
    pub(super) count: Option<usize>,
    /// "second", while the order that it counts in was not said.
    ordinal: Option<usize>,
    is_last: bool,
    /// The token that the noun begins at.
    noun_start: usize,
}

/// "left", "largest" before a noun.
struct OrderPhrase {
    by: OrderBy,
    n_words: usize,
    /// It can be "of the cups".
    is_ranking: bool,
}

impl Parser<'_> {
    /// Everything between the determiner and the noun's end. Attributes and orders go to `thing`.
    pub(super) fn premodifiers(
        &mut self,
        thing: &mut ObjectReference,
        depth: usize,
    ) -> Result<Premodifiers, Failure> {
        let mut read = Premodifiers {
            noun: Vec::new(),
            count: None,
            ordinal: None,
            is_last: false,
            noun_start: self.position,
        };
        while let Some(word) = self.word(self.position) {
            if word == "'s" {
                self.part_of_owner(thing, &mut read, depth)?;
                return Ok(read);
            }
            if self.compound(&mut read) {
                continue;
            }
            if read.noun.is_empty() && self.vocabulary.generic_nouns.contains(word) {
                self.generic_noun(word, thing, &mut read);
                return Ok(read);
            }
            if self.ordinal(word, thing, &mut read) || self.count_behind_order(word, thing, &mut read) {
                continue;
            }
            if let Some(order) = self.order_phrase(&read) {
                if self.ranks_what_follows(&order, thing, &read) {
                    self.ranked_of(&order, thing, &mut read, depth)?;
                    return Ok(read);
                }
                self.order(&order, thing, &mut read);
                continue;
            }
            if !read.noun.is_empty() && self.ends_name(self.position) {
                break;
            }
            if self.quality(thing, &mut read) {
                continue;
            }
            if self.noun_ends(&read) {
                break;
            }
            self.noun_word(word, &mut read)?;
        }
        read.settle_ordinal(thing);
        Ok(read)
    }

    /// "the cabinet's top drawer": what was read is the owner, what follows is a part of it.
    fn part_of_owner(
        &mut self,
        thing: &mut ObjectReference,
        read: &mut Premodifiers,
        depth: usize,
    ) -> Result<(), Failure> {
        self.position += 1;
        let mut owner = std::mem::replace(thing, self.empty_reference(read.noun_start));
        self.name(&mut owner, &std::mem::take(&mut read.noun), read.noun_start)?;
        owner.span = self.span_from(read.noun_start);
        let mut part = self.noun_phrase(depth + 1)?;
        give_owner(&mut part, owner);
        read.noun = vec![part.noun.clone()];
        *thing = part;
        Ok(())
    }

    /// Words that name one thing together, whatever each of them means alone.
    fn compound(&mut self, read: &mut Premodifiers) -> bool {
        let Some(((), length)) = self.vocabulary.compounds.longest(self.rest()) else { return false };
        let words = &self.words[self.position..self.position + length];
        read.noun.extend(words.iter().map(|it| (*it).to_owned()));
        self.position += length;
        true
    }

    /// "thing", "something red".
    fn generic_noun(&mut self, word: &str, thing: &mut ObjectReference, read: &mut Premodifiers) {
        self.position += 1;
        read.settle_ordinal(thing);
        if word.ends_with('s') {
            thing.quantity = Quantity::All;
        }
        while let Some(attribute) = self.attribute(true) {
            thing.attributes.push(attribute);
        }
        read.noun = vec![GENERIC_NOUN.to_owned()];
    }

    /// "second", "last", "second to last", "2nd from left".
    fn ordinal(&mut self, word: &str, thing: &mut ObjectReference, read: &mut Premodifiers) -> bool {
        let next = self.position + 1;
        if read.noun.is_empty()
            && let Some(&rank) = self.vocabulary.ordinals.get(word)
        {
            self.position = next;
            read.ordinal = Some(rank);
            if let Some((by, length)) = self.side_counted_from(next) {
                self.position += length;
                read.ordinal = None;
                thing.orders.push(Order { by, rank });
            }
            return true;
        }
        if read.noun.is_empty() && self.vocabulary.last.contains(word) {
            self.position = next;
            read.is_last = true;
            return true;
        }
        let is_to_last = read.ordinal.is_some()
            && word == "to"
            && self.word(next).is_some_and(|it| self.vocabulary.last.contains(it));
        if is_to_last {
            self.position = next + 1;
            read.is_last = true;
        }
        is_to_last
    }

    /// "the top two books", "the last two".
    fn count_behind_order(&mut self, word: &str, thing: &ObjectReference, read: &mut Premodifiers) -> bool {
        let is_ranked = read.ordinal.is_some() || read.is_last || !thing.orders.is_empty();
        if !read.noun.is_empty() || !is_ranked || self.ends_noun_phrase(self.position + 1) {
            return false;
        }
        let Some(count) = self.count_of(word) else { return false };
        read.count = Some(count);
        self.position += 1;
        true
    }

    /// The order that stands here before any noun; one with a slip is mended unless it may be the noun.
    fn order_phrase(&self, read: &Premodifiers) -> Option<OrderPhrase> {
        if !read.noun.is_empty() {
            return None;
        }
        if let Some((&by, n_words)) = self.vocabulary.orders.longest(self.rest()) {
            return Some(OrderPhrase { by, n_words, is_ranking: self.is_ranking(self.position) });
        }
        let by = *self.misspelled_order(self.position)?;
        (!self.is_last_word(self.position)).then_some(OrderPhrase {
            by,
            n_words: 1,
            is_ranking: !is_side(by),
        })
    }

    /// "the largest of the cups", not "the top of the cabinet".
    fn ranks_what_follows(&self, order: &OrderPhrase, thing: &ObjectReference, read: &Premodifiers) -> bool {
        self.is_before_of(order) && (order.is_ranking || thing.span.is_empty() && read.ordinal.is_some())
    }

    fn is_before_of(&self, order: &OrderPhrase) -> bool {
        matches!(self.word(self.position + order.n_words), Some("of" | "'s"))
    }

    /// The things behind "the largest of", of which one is meant.
    fn ranked_of(
        &mut self,
        order: &OrderPhrase,
        thing: &mut ObjectReference,
        read: &mut Premodifiers,
        depth: usize,
    ) -> Result<(), Failure> {
        self.position += order.n_words + 1;
        let mut ranked = self.noun_phrase(depth + 1)?;
        ranked.orders.push(Order { by: order.by, rank: read.ordinal.unwrap_or(1) });
        read.noun = vec![ranked.noun.clone()];
        choose_from(&mut ranked, Quantity::One);
        *thing = ranked;
        Ok(())
    }

    /// Takes an order in; before "of" it is the name of a part: "the top of the cabinet".
    fn order(&mut self, order: &OrderPhrase, thing: &mut ObjectReference, read: &mut Premodifiers) {
        let end = self.position + order.n_words;
        if self.is_before_of(order) {
            read.noun.push(self.words[self.position..end].join(" "));
        } else {
            thing.orders.push(Order { by: order.by, rank: read.ordinal.take().unwrap_or(1) });
        }
        self.position = end;
    }

    /// An attribute. Words before it that looked like the noun are qualities too ("fancy red cup"), unless the phrase ends with it
    /// ("cup red").
    fn quality(&mut self, thing: &mut ObjectReference, read: &mut Premodifiers) -> bool {
        let at = self.position;
        let Some(attribute) = self.attribute(!read.noun.is_empty()) else { return false };
        let is_behind_noun = !read.noun.is_empty() && self.ends_noun_phrase(self.position);
        if is_behind_noun && self.vocabulary.nounlike.contains(&attribute.word) {
            read.noun.push(attribute.word);
            return true;
        }
        if is_behind_noun {
            thing.attributes.push(attribute);
            return true;
        }
        for word in read.noun.drain(..) {
            thing.attributes.push(Attribute { kind: AttributeKind::Other, word, negated: false });
        }
        read.noun_start = at;
        thing.attributes.push(attribute);
        self.color_and(thing);
        true
    }

    /// The word here belongs to what follows the noun phrase.
    fn noun_ends(&self, read: &Premodifiers) -> bool {
        let at = self.position;
        if self.ends_noun_phrase(at) {
            return true;
        }
        let Some(last) = read.noun.last() else { return false };
        // "cup near red plate".
        if self.relation_at(at).is_some_and(|it| self.starts_noun_phrase(at + it.1)) {
            return true;
        }
        // "move the cup left": the clause decides.
        let Some((&by, length)) = self.vocabulary.orders.longest(self.rest()) else { return false };
        let may_be_part = is_end_of_name(by) || by == OrderBy::Middle && self.is_support(last);
        self.ends_noun_phrase(at + length) && !may_be_part || self.orders_to_the_end(at).len() > 1
    }

    fn noun_word(&mut self, word: &str, read: &mut Premodifiers) -> Result<(), Failure> {
        let at = self.position;
        read.noun.push(word.to_owned());
        self.position += 1;
        if read.noun.len() > MAX_NOUN_WORDS {
            return Err(self.fail_at(
                at,
                format!("expected a name of at most {MAX_NOUN_WORDS} words, still going on at {word:?}"),
            ));
        }
        Ok(())
    }

    /// "from the left" behind an ordinal and before a name: the side, with the number of words.
    fn side_counted_from(&self, at: usize) -> Option<(OrderBy, usize)> {
        let the = usize::from(self.word(at + 1) == Some("the"));
        let (&by, length) = self.vocabulary.orders.longest(self.words.get(at + 1 + the..)?)?;
        let end = at + 1 + the + length;
        let is_before_name = self.word(at) == Some("from") && is_side(by) && !self.ends_noun_phrase(end);
        is_before_name.then_some((by, end - at))
    }

    /// What stands here goes on with the clause, not with the name: "cup 10 cm to the left", "mug upright".
    fn ends_name(&self, at: usize) -> bool {
        self.manner_at(at).is_some()
            || self.degree_at(at).is_some()
            || self.rotation_at(at).is_some()
            || self.measure_at(at).is_some_and(|(_, length)| {
                let next = at + length;
                self.ends_clause(next)
                    || self.starts_modifier(self.skip_relation_fillers(next))
                    || self.vocabulary.directions.contains_word(self.words.get(next).unwrap_or(&""))
                    || self.vocabulary.orders.contains_word(self.words.get(next).unwrap_or(&""))
            })
    }

    /// The noun phrase ends behind this word, and not with "of".
    pub(super) fn is_last_word(&self, at: usize) -> bool {
        self.ends_noun_phrase(at + 1) && self.word(at + 1) != Some("of")
    }

    /// "largest", not "top": a ranking can be "of the cups".
    pub(super) fn is_ranking(&self, at: usize) -> bool {
        self.vocabulary.orders.longest(&self.words[at..]).is_some_and(|(by, _)| !is_side(*by))
            || self.words[at].ends_with("most")
            || self.words[at].ends_with("est")
    }
}

impl Premodifiers {
    /// An ordinal that no order went with counts in the last one said, else from the left.
    fn settle_ordinal(&self, thing: &mut ObjectReference) {
        if self.is_last {
            thing.orders.push(Order { by: OrderBy::Rightmost, rank: self.ordinal.unwrap_or(1) });
        } else if let Some(rank) = self.ordinal {
            match thing.orders.last_mut() {
                Some(order) => order.rank = rank,
                None => thing.orders.push(Order { by: OrderBy::Leftmost, rank }),
            }
        }
    }
}

/// "stove top", "table bottom": the last word of a name as well.
fn is_end_of_name(by: OrderBy) -> bool {
    matches!(by, OrderBy::Highest | OrderBy::Lowest)
}

/// "the cabinet's left door's handle": the handle of the door of the cabinet.
pub(super) fn give_owner(part: &mut ObjectReference, owner: ObjectReference) {
    match &mut part.whole {
        Some(whole) => give_owner(whole, owner),
        None => part.whole = Some(Box::new(owner)),
    }
}
