//! Whether a model can know what is missing: "not in view" and "never heard of" are different answers.

use crate::instruction::{GENERIC_NOUN, Instruction};
use crate::result::{Ambiguity, StepResult, UnmetConstraint};

/// What a missing object's NOT_FOUND adds where the model was taught `known` nouns and no others, and this one is not among them.
pub(super) fn untaught_noun(
    answer: &StepResult,
    step: &Instruction,
    known: Option<&[String]>,
) -> Option<String> {
    let known = known?;
    let Some(Ambiguity { unmet: Some((UnmetConstraint::Object, phrase)), .. }) = &answer.ambiguity else {
        return None;
    };
    let reference = step.references().into_iter().find(|it| it.query() == *phrase)?;
    let noun = reference.noun.as_str();
    let is_taught = noun == GENERIC_NOUN || known.iter().any(|it| names_same_kind(noun, it));
    (!is_taught).then(|| {
        format!("this model was never taught the word {noun:?} (it knows {} words for objects)", known.len())
    })
}

/// Whether `noun` is `known`, either of them in the plural, or with something more said of it: "coffee mugs" are mugs.
fn names_same_kind(noun: &str, known: &str) -> bool {
    let forms = |word: &str| {
        let forms = [Some(word), word.strip_suffix('s'), word.strip_suffix("es")];
        forms.into_iter().flatten().map(str::to_owned).collect::<Vec<_>>()
    };
    let ends_with = |noun: &str, known: &str| {
        noun.strip_suffix(known).is_some_and(|before| before.is_empty() || before.ends_with(' '))
    };
    let known = forms(known);
    forms(noun).iter().any(|noun| known.iter().any(|known| ends_with(noun, known)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plurals_and_closer_descriptions_are_taught_words() {
        for (noun, known, expected) in [
            ("mug", "mug", true),
            ("mugs", "mug", true),
            ("dishes", "dish", true),
            ("cookie", "cookies", true),
            ("coffee mug", "mug", true),
            ("smug", "mug", false),
            ("helicopter", "mug", false),
            ("mug holder", "mug", false),
        ] {
            assert_eq!(names_same_kind(noun, known), expected, "{noun} {known}");
        }
    }
}
