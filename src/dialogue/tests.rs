use super::Dialogue;
use crate::config::{Config, RawConfig};
use crate::detection::{BoundingBox2d, Detection2d};
use crate::image::{RgbImage, RgbdFrame};
use crate::instruction::Vocabulary;
use crate::lift::FrameContext;
use crate::model::precomputed::Precomputed;
use crate::pipeline;
use crate::request::GroundingRequest;
use crate::result::{GroundingResult, Status};

const SECOND: i64 = 1_000_000_000;

/// Three mugs in a row, the middle one red, a plate under the right one.
fn look(request: &GroundingRequest) -> GroundingResult {
    let at = |phrase: &str, x: f64| {
        Detection2d::new(phrase, BoundingBox2d { x0: x, y0: 100.0, x1: x + 40.0, y1: 150.0 }, 0.9)
    };
    let boxes = vec![
        at("mug", 20.0),
        at("mug", 140.0),
        at("mug", 260.0),
        at("red mug", 140.0),
        Detection2d::new("plate", BoundingBox2d { x0: 240.0, y0: 140.0, x1: 319.0, y1: 170.0 }, 0.9),
        at("bowl", 80.0),
    ];
    let frame = RgbdFrame {
        key: 0,
        image: RgbImage::new(320, 240),
        depth: None,
        camera: None,
        frame_id: "camera".to_owned(),
        stamp_ns: 0,
    };
    let config = Config::try_from(RawConfig { use_depth: false, ..RawConfig::default() }).unwrap();
    let mut model = Precomputed::new(boxes);
    pipeline::run(&mut model, &frame, &FrameContext::default(), request, &config.pipeline, &mut |_| {})
}

/// `STATUS action left-edges-of-targets`, or the error's message.
fn say(dialogue: &mut Dialogue, text: &str, at_secs: i64) -> String {
    let now_ns = at_secs * SECOND;
    let asked = match dialogue.understand(&format!("{text}{at_secs}"), text, now_ns, &Vocabulary::default()) {
        Ok(asked) => asked,
        Err(error) => return error.message,
    };
    let result = look(&asked);
    dialogue.record(&format!("{text}{at_secs}"), &asked, &result, now_ns);
    let targets = result.targets.iter().fold(String::new(), |list, it| list + " " + &it.bbox.x0.to_string());
    match result.status {
        Status::Found => format!("{} {}{targets}", result.status.name(), result.action),
        status => status.name().to_owned(),
    }
}

#[track_caller]
fn check(turns: &[(&str, &str)]) {
    let mut dialogue = Dialogue::new(30 * SECOND);
    for (turn, (text, expected)) in turns.iter().enumerate() {
        let got = say(&mut dialogue, text, turn as i64);
        assert!(got.starts_with(expected), "{text}: expected {expected}, got {got}, in {turns:?}");
    }
}

#[test]
fn answers_keep_what_was_asked() {
    let ask = ("pick up the mug", "AMBIGUOUS");
    check(&[ask, ("the left one", "FOUND pick_up 20")]);
    check(&[ask, ("left", "FOUND pick_up 20")]);
    check(&[ask, ("the second", "FOUND pick_up 140")]);
    check(&[ask, ("the second from the right, please", "FOUND pick_up 140")]);
    check(&[ask, ("the red one", "FOUND pick_up 140")]);
    check(&[ask, ("the mug on the plate", "FOUND pick_up 260")]);
    check(&[ask, ("the one on the plate", "FOUND pick_up 260")]);
    check(&[ask, ("all of them", "FOUND pick_up 20 140 260")]);
    check(&[ask, ("any", "FOUND pick_up 20")]);
    check(&[ask, ("both", "AMBIGUOUS")]);
    check(&[ask, ("the fourth one", "NOT_FOUND")]);
    check(&[ask, ("no, the right one", "FOUND pick_up 260")]);
    check(&[ask, ("yes, the right one", "FOUND pick_up 260")]);
    check(&[ask, ("yes", "\"yes\" does not say which: 3 mugs")]);
    check(&[ask, ("no", "\"no\" does not say which")]);
}

#[test]
fn a_question_about_the_destination_is_answered_for_the_destination() {
    check(&[("put the bowl on the mug", "AMBIGUOUS"), ("the left one", "FOUND put 80")]);
}

#[test]
fn corrections_and_the_other_one() {
    let found = ("pick up the left mug", "FOUND pick_up 20");
    check(&[found, ("no, the right one", "FOUND pick_up 260")]);
    check(&[found, ("no, the red one", "FOUND pick_up 140")]);
    check(&[found, ("the other one", "AMBIGUOUS"), ("the right one", "FOUND pick_up 260")]);
    check(&[
        ("the mug", "AMBIGUOUS"),
        ("left", "FOUND find 20"),
        ("the other one", "AMBIGUOUS"),
        ("right", "FOUND find 260"),
        ("the other mug", "AMBIGUOUS"),
    ]);
    check(&[("the red mug", "FOUND find 140"), ("the other one", "NOT_FOUND")]);
}

#[test]
fn yes_takes_what_was_offered() {
    check(&[
        ("pick up the green mug", "NOT_FOUND"),
        ("yes", "AMBIGUOUS"),
        ("the left one", "FOUND pick_up 20"),
    ]);
    check(&[("pick up the blue plate", "NOT_FOUND"), ("yes", "FOUND pick_up 240")]);
    check(&[("pick up the bowl on the plate", "NOT_FOUND"), ("ok", "FOUND pick_up 80")]);
    check(&[("the banana", "NOT_FOUND"), ("yes", "nothing was asked that \"yes\" could answer")]);
    check(&[("yes", "expected an instruction")]);
}

#[test]
fn new_instructions_are_new() {
    let ask = ("pick up the mug", "AMBIGUOUS");
    check(&[ask, ("push the plate", "FOUND push 240")]);
    check(&[ask, ("the plate", "FOUND find 240")]);
    check(&[ask, ("find the left mug", "FOUND find 20")]);
    check(&[ask, ("the red thing", "FOUND find 140")]);
}

#[test]
fn an_answer_that_comes_late_stands_for_itself() {
    let mut dialogue = Dialogue::new(30 * SECOND);
    assert_eq!(say(&mut dialogue, "pick up the mug", 0), "AMBIGUOUS");
    assert_eq!(say(&mut dialogue, "the left one", 31), "FOUND find 20");
    let mut dialogue = Dialogue::new(0);
    assert_eq!(say(&mut dialogue, "pick up the mug", 0), "AMBIGUOUS");
    assert_eq!(say(&mut dialogue, "the left one", 1), "FOUND find 20");
}

#[test]
fn a_request_that_is_tried_again_means_the_same() {
    let mut dialogue = Dialogue::new(30 * SECOND);
    let vocabulary = Vocabulary::default();
    say(&mut dialogue, "the mug", 0);
    say(&mut dialogue, "the left one", 1);
    let first = dialogue.understand("find-1", "the other one", 2 * SECOND, &vocabulary).unwrap();
    let result = look(&first);
    dialogue.record("find-1", &first, &result, 2 * SECOND);
    assert_eq!(dialogue.understand("find-1", "the other one", 3 * SECOND, &vocabulary).unwrap(), first);
}

#[test]
fn what_is_missing_is_told_apart() {
    for (text, missing, phrase, candidates) in [
        ("the banana", "object", "banana", 0),
        ("the green mug", "attribute", "green mug", 1),
        ("the bowl on the plate", "relation", "bowl", 1),
        ("the bowl next to the banana", "object", "banana", 0),
        ("five mugs", "count", "mug", 1),
        ("put the bowl on the blue plate", "attribute", "blue plate", 1),
    ] {
        let result = look(&GroundingRequest::parse(text, &Vocabulary::default()).unwrap());
        let doubt = result.ambiguity.unwrap_or_else(|| panic!("{text}: {:?}", result.status));
        let (kind, of) = doubt.unmet.clone().unwrap();
        assert_eq!((kind.name(), of.as_str(), doubt.indices.len()), (missing, phrase, candidates), "{text}");
    }
    let message = look(&GroundingRequest::parse("the blue plate", &Vocabulary::default()).unwrap()).message;
    assert_eq!(
        message,
        "no blue plate seen; the nearest thing seen is a plate at the right of the image (score 0.90)"
    );
}
