mod public;

use super::{Vocabulary, parse, parse_to_json};

/// `sentence => one line of the tree`, or `=> ! word: part of the message`.
const SENTENCES: &str = include_str!("../../tests/data/instructions.txt");

fn one_line(text: &str, vocabulary: &Vocabulary) -> String {
    match parse(text, vocabulary) {
        Ok(instruction) => instruction.to_string(),
        Err(error) => format!("! {}: {}", &text[error.span.clone()], error.message),
    }
}

#[track_caller]
fn check(line: &str, vocabulary: &Vocabulary) -> Result<(), String> {
    let (text, expected) = line.split_once("=>").expect("every line is SENTENCE => TREE");
    let (text, expected) = (text.trim(), expected.trim());
    let got = one_line(text, vocabulary);
    if got == expected { Ok(()) } else { Err(format!("{text}\n  expected {expected}\n  got      {got}")) }
}

#[test]
fn sentences_parse_to_the_trees_of_the_table() {
    let vocabulary = Vocabulary::default();
    let lines: Vec<&str> =
        SENTENCES.lines().filter(|it| !it.trim().is_empty() && !it.starts_with('#')).collect();
    assert!(lines.len() >= 550, "the table has {} sentences", lines.len());
    let failures: Vec<String> = lines.iter().filter_map(|it| check(it, &vocabulary).err()).collect();
    assert!(failures.is_empty(), "{} of {} wrong:\n{}", failures.len(), lines.len(), failures.join("\n"));
}

#[test]
fn case_politeness_and_space_change_nothing() {
    let vocabulary = Vocabulary::default();
    for line in SENTENCES.lines().filter(|it| it.contains("=> p") && !it.starts_with('#')) {
        let text = line.split("=>").next().unwrap().trim();
        let plain = one_line(text, &vocabulary);
        for said in [
            text.to_uppercase(),
            format!("  {}  ", text.replace(' ', "   ")),
            format!("Could you please {text}?"),
            format!("robot, {text}, please."),
            format!("{text}!!!"),
        ] {
            assert_eq!(one_line(&said, &vocabulary), plain, "{said}");
        }
    }
}

/// What LIBERO-90's pick and place sentences ask for, written by hand from the benchmark's task list.
#[test]
fn libero_roles() {
    let vocabulary = Vocabulary::default();
    let mut wrong = Vec::new();
    let roles: Vec<serde_json::Value> = include_str!("../../tests/data/libero_roles.jsonl")
        .lines()
        .map(|it| serde_json::from_str(it).unwrap())
        .collect();
    assert_eq!(roles.len(), 78);
    for role in &roles {
        let instruction = parse(role["sentence"].as_str().unwrap(), &vocabulary).unwrap();
        let clause = if role["clause"] == 1 { instruction.then.as_deref().unwrap() } else { &instruction };
        let got = clause.destination.as_ref().map(|it| {
            [
                clause.action.name().to_owned(),
                clause.targets[0].query(),
                it.relation.name().to_owned(),
                it.landmarks[0].query(),
            ]
        });
        let expected =
            ["action", "target", "relation", "destination"].map(|it| role[it].as_str().unwrap().to_owned());
        if got.as_ref() != Some(&expected) || clause.targets.len() != 1 {
            wrong.push(format!("{}: {got:?}", role["sentence"]));
        }
    }
    assert!(wrong.is_empty(), "{} of {} wrong:\n{}", wrong.len(), roles.len(), wrong.join("\n"));
}

/// Sentences made from trees must give the trees back.
#[test]
fn generated_sentences_round_trip() {
    let vocabulary = Vocabulary::default();
    let mut random = Random(7);
    let mut seen = std::collections::HashSet::new();
    for _ in 0..30_000 {
        let (text, expected) = sentence(&mut random);
        assert_eq!(one_line(&text, &vocabulary), expected, "{text}");
        seen.insert(text);
    }
    assert!(seen.len() >= 20_000, "only {} different sentences", seen.len());
}

/// A sentence and its tree.
fn sentence(random: &mut Random) -> (String, String) {
    const FETCHING: [(&str, &str); 5] = [
        ("pick up", "pick_up"),
        ("grab", "pick_up"),
        ("find", "find"),
        ("point at", "point_at"),
        ("open", "open"),
    ];
    const BRINGING: [(&str, &str); 4] =
        [("put", "put"), ("place", "put"), ("move", "move"), ("push", "push")];
    // What is only ever a place to go to, and what can be one.
    const GOALS: [(&str, &str); 4] = [("into", "in"), ("onto", "on"), ("inside", "in"), ("on top of", "on")];
    let (target, tree) = thing(random, 1);
    let (landmark, landmark_tree) = thing(random, 0);
    match random.below(8) {
        0 | 1 => {
            let (verb, action) = random.pick(&FETCHING);
            (format!("{verb} {target}"), format!("{action} {{{tree}}}"))
        }
        2 | 3 => {
            let (verb, action) = random.pick(&BRINGING);
            let (target, tree) = thing(random, 0);
            let (words, relation) = random.pick(&GOALS);
            (
                format!("{verb} {target} {words} {landmark}"),
                format!("{action} {{{tree}}} -> {relation} {{{landmark_tree}}}"),
            )
        }
        4 => {
            let (words, relation) = random.pick(&RELATIONS[..8]);
            let (target, tree) = thing(random, 0);
            (
                format!("put {target} {words} {landmark}"),
                format!("put {{{tree}}} -> {relation} {{{landmark_tree}}}"),
            )
        }
        5 => (format!("take {target} and {landmark}"), format!("pick_up {{{tree}}} and {{{landmark_tree}}}")),
        6 => {
            // The pronoun stands for the whole target.
            let pronoun = if tree.starts_with("exactly") || tree.starts_with("all") { "them" } else { "it" };
            (
                format!("pick up {target}, then put {pronoun} in {landmark}"),
                format!("put {{{tree}}} -> in {{{landmark_tree}}}"),
            )
        }
        _ => (
            format!("open {landmark} and look at {target}"),
            format!("open {{{landmark_tree}}}; then look_at {{{tree}}}"),
        ),
    }
}

const RELATIONS: [(&str, &str); 12] = [
    ("to the left of", "left_of"),
    ("right of", "right_of"),
    ("in front of", "in_front_of"),
    ("behind", "behind"),
    ("next to", "next_to"),
    ("under", "under"),
    ("above", "above"),
    ("near", "near"),
    ("on", "on"),
    ("inside", "in"),
    ("closest to", "closest_to"),
    ("farthest from", "farthest_from"),
];

/// A noun phrase with up to `n` relations that say where it is, and its tree without braces.
fn thing(random: &mut Random, n: usize) -> (String, String) {
    const NOUNS: [(&str, &str); 9] = [
        ("cup", "cups"),
        ("zorble", "zorbles"),
        ("wine bottle", "wine bottles"),
        ("knife", "knives"),
        ("plate", "plates"),
        ("stapler", "staplers"),
        ("brush", "brushes"),
        ("toy car", "toy cars"),
        ("berry", "berries"),
    ];
    const COLORS: [&str; 7] =
        ["", "red ", "dark blue ", "yellow and white ", "wooden ", "big ", "small green "];
    const ORDERS: [(&str, &str, &str); 7] = [
        ("", "", ""),
        ("left ", "", " | leftmost"),
        ("second ", " from the right", " | rightmost 2"),
        ("", " at the back", " | farthest"),
        ("nearest ", "", " | nearest"),
        ("", " in the middle", " | middle"),
        ("tallest ", "", " | tallest"),
    ];
    const COUNTS: [(&str, &str); 7] = [
        ("both ", "exactly 2 "),
        ("all ", "all "),
        ("the ", "all "),
        ("two ", "any 2 "),
        ("the three ", "exactly 3 "),
        ("one of the four ", "any 1 "),
        ("every one of the ", "all "),
    ];
    let (noun, plural) = random.pick(&NOUNS);
    let color = random.pick(&COLORS);
    let (mut text, mut tree) = match random.below(6) {
        0 | 1 => {
            let (words, count) = random.pick(&COUNTS);
            // Two colors of several things are two kinds of things; that is in the table.
            let color = if color.contains(" and ") { "" } else { color };
            let out_of = if words.contains("four") { " | out of 4" } else { "" };
            (format!("{words}{color}{plural}"), format!("{count}{color}{noun}{out_of}"))
        }
        2 => (format!("the handle of the {color}{noun}"), format!("handle | of {{{color}{noun}}}")),
        3 => {
            let article = if color.is_empty() { "a" } else { "another" };
            let other = if article == "another" { "other " } else { "" };
            (format!("{article} {color}{noun}"), format!("any 1 {other}{color}{noun}"))
        }
        _ => {
            let (before, after, order) = random.pick(&ORDERS);
            (format!("the {before}{color}{noun}{after}"), format!("{color}{noun}{order}"))
        }
    };
    // What stands behind "the handle of the cup" belongs to the cup.
    if n > 0 && !text.contains(" of ") {
        let (landmark, landmark_tree) = thing(random, n - 1);
        if random.below(6) == 0 {
            let (other, other_tree) = thing(random, 0);
            if !landmark_tree.starts_with('a') && !landmark_tree.starts_with("exactly") {
                text += &format!(" between {landmark} and {other}");
                tree += &format!(" | between {{{landmark_tree}}} {{{other_tree}}}");
                return (text, tree);
            }
        }
        let (words, relation) = random.pick(&RELATIONS);
        let that_is = random.pick(&["", "", "that is ", "which is "]);
        let that_is = if text.contains("s ") && that_is.contains("is") { "" } else { that_is };
        text += &format!(" {that_is}{words} {landmark}");
        tree += &format!(" | {relation} {{{landmark_tree}}}");
    }
    (text, tree)
}

/// A slip in one closed-class word (two letters swapped, one left out) is read as it was meant, or refused; hardly ever otherwise.
#[test]
fn slips_in_closed_class_words_are_mended_or_refused() {
    const SENTENCES: [&str; 12] = [
        "pick up the red cup",
        "place the mug between the plate and the bowl",
        "grab the cup behind the plate",
        "put the cup under the table",
        "put the cup inside the box",
        "push the mug to the left of the plate",
        "put the bowl in front of the plate",
        "move the fork next to the knife and close the drawer",
        "find the second mug from the right",
        "open the box and put the ball into the box",
        "hand me the largest of the bottles",
        "take the mug on the left, then put it onto the tray",
    ];
    const CONTENT: [&str; 16] = [
        "red", "cup", "mug", "plate", "bowl", "table", "box", "fork", "knife", "drawer", "ball", "bottles",
        "tray", "me", "it", "second",
    ];
    let vocabulary = Vocabulary::default();
    let (mut mended, mut refused, mut misread) = (0, 0, Vec::new());
    for sentence in SENTENCES {
        let meant = one_line(sentence, &vocabulary);
        let words: Vec<&str> = sentence.split(' ').collect();
        for (place, word) in words.iter().enumerate() {
            let word = word.trim_end_matches(',');
            if word.len() < 4 || CONTENT.contains(&word) {
                continue;
            }
            for at in 0..word.len() {
                let mut swapped: Vec<char> = word.chars().collect();
                if at + 1 < word.len() {
                    swapped.swap(at, at + 1);
                }
                let left_out: String =
                    word.chars().enumerate().filter(|it| it.0 != at).map(|it| it.1).collect();
                for slip in [swapped.into_iter().collect(), left_out] {
                    let mut said = words.clone();
                    said[place] = &slip;
                    let said = said.join(" ");
                    let got = one_line(&said, &vocabulary);
                    match got {
                        got if got == meant => mended += 1,
                        got if got.starts_with('!') => refused += 1,
                        got => misread.push(format!("{said}: {got}")),
                    }
                }
            }
        }
    }
    let total = mended + refused + misread.len();
    println!(
        "{mended} mended, {refused} refused, {} misread of {total}:\n{}",
        misread.len(),
        misread.join("\n")
    );
    assert!(100 * mended >= 85 * total && 100 * misread.len() <= 8 * total, "{mended} mended of {total}");
}

/// Words that the grammar has rules for, and some that it has none for.
const WORDS: [&str; 60] = [
    "pick",
    "up",
    "the",
    "red",
    "cup",
    "left",
    "of",
    "to",
    "on",
    "it",
    "them",
    "and",
    "then",
    ",",
    ".",
    "put",
    "in",
    "between",
    "second",
    "from",
    "right",
    "that",
    "is",
    "with",
    "'s",
    "both",
    "two",
    "all",
    "one",
    "other",
    "me",
    "hand",
    "turn",
    "off",
    "largest",
    "top",
    "drawer",
    "please",
    "at",
    "back",
    "middle",
    "closest",
    "orange",
    "glass",
    "a",
    "some",
    "everything",
    "not",
    "stop",
    "first",
    "last",
    "zorble",
    "é",
    "near",
    "into",
    "down",
    "these",
    "side",
    "next",
    "dark",
];

#[test]
fn any_text_gives_an_answer_with_a_span_inside_it() {
    let vocabulary = Vocabulary::default();
    let mut random = Random(3);
    for round in 0..20_000 {
        let mut text = String::new();
        for _ in 0..random.below(14) {
            if round % 4 == 0 {
                text.push(char::from_u32(random.below(0x3000) as u32).unwrap_or('?'));
            } else {
                text.push_str(random.pick(&WORDS));
                text.push_str(random.pick(&[" ", " ", " ", ", ", "'s ", "’", "  "]));
            }
        }
        match parse(&text, &vocabulary) {
            Ok(instruction) => {
                assert!(instruction.span.end <= text.len(), "{text:?}");
                assert!(
                    !instruction.to_string().contains('\u{1}'),
                    "{text:?}: a pronoun is left: {instruction}"
                );
                let again: serde_json::Value = serde_json::to_value(&instruction).unwrap();
                assert!(again["targets"].is_array());
            }
            Err(error) => {
                assert!(text.get(error.span.clone()).is_some(), "{text:?}: {error:?}");
                assert!(!error.message.is_empty());
            }
        }
    }
}

#[test]
fn endless_and_nested_text_is_refused() {
    let vocabulary = Vocabulary::default();
    for (text, part) in [
        ("cup ".repeat(25_000), "at most 2000 bytes"),
        ("on the cup ".repeat(150), "expected a thing"),
        (format!("pick up the cup{}", " on the cup".repeat(170)), "within each other"),
        (format!("pick up {}", "the lid of ".repeat(170)), "within each other"),
        (format!("pick up {}", "cup, ".repeat(380)), "at most 20 things"),
        ("(".repeat(1999), "no words"),
        ("the ".repeat(499), "expected a thing"),
        ("cup's ".repeat(300), "within each other"),
    ] {
        let error = parse(&text, &vocabulary).unwrap_err();
        assert!(error.message.contains(part), "{}...: {}", &text[..20.min(text.len())], error.message);
    }
}

#[test]
fn json_is_the_contract() {
    let vocabulary = Vocabulary::default();
    let value = parse_to_json("put both red mugs left of the plate on the wooden tray", &vocabulary);
    assert_eq!(value["error"], serde_json::Value::Null);
    assert_eq!(value["action"], "put");
    let target = &value["targets"][0];
    assert_eq!(target["phrase"], "red mug");
    assert_eq!(target["noun"], "mug");
    assert_eq!(target["attributes"], serde_json::json!(["red"]));
    assert_eq!(target["quantity"], "exactly");
    assert_eq!(target["count"], 2);
    assert_eq!(target["relations"][0]["type"], "left_of");
    assert_eq!(target["relations"][0]["landmarks"][0]["phrase"], "plate");
    assert_eq!(value["destination"]["relation"], "on");
    assert_eq!(value["destination"]["phrase"], "wooden tray");
    assert_eq!(value["destination"]["noun"], "tray");

    let value = parse_to_json("what is on the table", &vocabulary);
    assert_eq!(value["error"]["span"], serde_json::json!([0, 4]));
    assert_eq!(value["steps"], serde_json::json!([]));
    assert_eq!(value["targets"], serde_json::json!([]));
    assert!(value["destination"].is_null() && value["action"].is_null());

    let value = parse_to_json("turn on the stove and put the pan on it", &vocabulary);
    assert_eq!(value["then"]["destination"]["phrase"], "stove");
}

#[test]
fn queries_are_what_a_detector_can_see() {
    let vocabulary = Vocabulary::default();
    for (text, expected) in [
        ("pick up the second big red cup to the left of the plate", &["red cup", "plate"][..]),
        ("put both mugs in the top drawer of the cabinet", &["mug", "drawer", "cabinet"]),
        ("the yellow and white mug", &["yellow and white mug"]),
        ("the block between the red cube and the red cube", &["block", "red cube"]),
        ("the red one", &["red object"]),
        ("turn on the stove and put the pan on it", &["stove", "pan"]),
        ("put the cup to the left", &["cup"]),
        ("the mug with the handle", &["mug with handle"]),
        ("stop", &[]),
    ] {
        assert_eq!(parse(text, &vocabulary).unwrap().queries(), expected, "{text}");
    }
}

#[test]
fn spans_are_places_in_the_text() {
    let vocabulary = Vocabulary::default();
    let text = "Please put the réd cup on the left plate, thanks";
    let instruction = parse(text, &vocabulary).unwrap();
    assert_eq!(&text[instruction.targets[0].span.clone()], "the réd cup");
    let destination = instruction.destination.unwrap();
    assert_eq!(&text[destination.landmarks[0].span.clone()], "the left plate");
    assert_eq!(&text[destination.span], "on the left plate");
}

#[test]
fn user_words_are_heard() {
    let vocabulary = Vocabulary::from_yaml("actions: {wipe: {verbs: [wipe]}}\ncolors: [mauve]").unwrap();
    assert_eq!(one_line("wipe the mauve table", &vocabulary), "wipe {mauve table}");
}

/// `SplitMix64`.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}
