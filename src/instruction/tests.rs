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
    assert!(lines.len() >= 474, "the table has {} sentences", lines.len());
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
    const VERBS: [(&str, &str); 6] = [
        ("pick up", "pick_up"),
        ("grab", "pick_up"),
        ("find", "find"),
        ("point at", "point_at"),
        ("push", "push"),
        ("put", "put"),
    ];
    const NOUNS: [&str; 10] = [
        "cup",
        "zorble",
        "wine bottle",
        "alphabet soup",
        "plate",
        "stapler",
        "mug",
        "banana",
        "toy car",
        "kettle",
    ];
    const COLORS: [&str; 7] = ["", "red", "dark blue", "yellow and white", "wooden", "big", "small green"];
    const ORDERS: [(&str, &str, &str); 7] = [
        ("", "", ""),
        ("left ", "", " | leftmost"),
        ("second ", " from the right", " | rightmost 2"),
        ("", " at the back", " | farthest"),
        ("nearest ", "", " | nearest"),
        ("", " in the middle", " | middle"),
        ("tallest ", "", " | tallest"),
    ];
    const RELATIONS: [(&str, &str); 10] = [
        ("to the left of", "left_of"),
        ("right of", "right_of"),
        ("in front of", "in_front_of"),
        ("behind", "behind"),
        ("next to", "next_to"),
        ("on", "on"),
        ("inside", "in"),
        ("under", "under"),
        ("near", "near"),
        ("closest to", "closest_to"),
    ];
    let vocabulary = Vocabulary::default();
    let mut random = Random(7);
    let mut checked = 0;
    for _ in 0..12_000 {
        let thing = |random: &mut Random| -> (String, String) {
            let noun = random.pick(&NOUNS);
            let color = random.pick(&COLORS);
            let (before, after, order) = random.pick(&ORDERS);
            let space = if color.is_empty() { "" } else { " " };
            (format!("the {before}{color}{space}{noun}{after}"), format!("{color}{space}{noun}{order}"))
        };
        let (verb, action) = random.pick(&VERBS);
        let (target_text, target) = thing(&mut random);
        let (landmark_text, landmark) = thing(&mut random);
        let (relation_text, relation) = random.pick(&RELATIONS);
        let (text, expected) = match (random.below(3), action) {
            (0, "put") => (
                format!("put {target_text} on {landmark_text}"),
                format!("put {{{target}}} -> on {{{landmark}}}"),
            ),
            (0, _) => (format!("{verb} {target_text}"), format!("{action} {{{target}}}")),
            (1, "push" | "put") if !matches!(relation, "closest_to") => (
                format!("{verb} {target_text} {relation_text} {landmark_text}"),
                format!("{action} {{{target}}} -> {relation} {{{landmark}}}"),
            ),
            (_, "push" | "put") => (
                format!("{verb} {target_text} that is {relation_text} {landmark_text} into the box"),
                format!("{action} {{{target} | {relation} {{{landmark}}}}} -> in {{box}}"),
            ),
            _ => (
                format!("{verb} {target_text} {relation_text} {landmark_text}"),
                format!("{action} {{{target} | {relation} {{{landmark}}}}}"),
            ),
        };
        // A side behind a moved thing that goes nowhere else is where it goes: that is said in the table, not here.
        if text.starts_with("pu") && !expected.contains("->") {
            continue;
        }
        let got = one_line(&text, &vocabulary);
        assert_eq!(got, expected, "{text}");
        checked += 1;
    }
    assert!(checked >= 10_000, "{checked}");
}

#[test]
fn any_text_gives_an_answer_with_a_span_inside_it() {
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

    let value = parse_to_json("frobnicate the cup", &vocabulary);
    assert_eq!(value["error"]["span"], serde_json::json!([0, 10]));
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
