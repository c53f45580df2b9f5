//! Each request gets exactly one result, whatever becomes of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nalgebra::Isometry3;

use super::world::{FakeImage, LONG, STILL, World, deep, flat, header, settle};
use crate::config::RawConfig;
use crate::engine::inputs::CameraMessage;
use crate::engine::state::State;
use crate::result::Status;
use crate::transform::{StampedTransform, TransformStamp};

#[tokio::test]
async fn a_request_gets_one_result_with_its_words() {
    let mut world = World::new(flat(), STILL).await;
    world.color(world.tick());
    let (outcome, sequence) = world.call("a", "pick up the mug", Duration::ZERO).await.await.unwrap();
    assert_eq!((outcome.result.status, sequence), (Status::Found, 1));
    assert_eq!(
        (outcome.result.instruction.as_str(), outcome.result.action.as_str()),
        ("pick up the mug", "pick_up")
    );
    world.expect("a", Status::Found).await;
    world.call("b", "the plate", Duration::ZERO).await.await.unwrap();
    world.expect("b", Status::NotFound).await;
    world.expect_silence();
    let stages: Vec<&str> = outcome.latency_ms.iter().map(|it| it.0.as_str()).collect();
    assert_eq!(
        stages,
        ["wait", "convert", "parse", "ground", "locate", "resolve", "lift", "transform", "total"]
    );
}

#[tokio::test]
async fn a_request_canceled_while_it_waits_for_an_image_is_blocked() {
    let mut world = World::new(flat(), STILL).await;
    drop(world.call("a", "the mug", Duration::ZERO).await);
    let message = world.expect("a", Status::Blocked).await;
    assert_eq!(message, "the request was canceled before there was an answer");
    world.color(world.tick());
    world.call("b", "the mug", Duration::ZERO).await.await.unwrap();
    world.expect("b", Status::Found).await;
}

#[tokio::test]
async fn a_request_right_after_a_canceled_one_waits_for_the_model() {
    let mut world = World::new(flat(), STILL).await;
    world.model.hold();
    world.color(world.tick());
    // The first is at work, the second in the model's queue.
    let first = world.call("a", "the mug", Duration::ZERO).await;
    world.model.begun(1).await;
    drop(first);
    world.expect("a", Status::Blocked).await;
    drop(world.call("b", "the mug", Duration::ZERO).await);
    world.expect("b", Status::Blocked).await;
    let third = world.call("c", "the mug", Duration::ZERO).await;
    settle().await;
    world.expect_silence();
    world.model.release();
    world.expect("c", Status::Found).await;
    third.await.unwrap();
    world.expect_silence();
}

#[tokio::test]
async fn a_request_canceled_while_it_waits_for_tf_is_blocked() {
    let raw = RawConfig { viewpoint: "robot".to_owned(), transform_timeout_secs: 10.0, ..flat() };
    let mut world = World::new(raw, STILL).await;
    world.color(world.tick());
    drop(world.call("a", "the left mug", Duration::ZERO).await);
    world.expect("a", Status::Blocked).await;
    world.expect_silence();
}

#[tokio::test]
async fn an_asker_that_goes_after_the_answer_changes_nothing() {
    let mut world = World::new(flat(), STILL).await;
    world.color(world.tick());
    let answer = world.call("a", "the mug", Duration::ZERO).await;
    world.expect("a", Status::Found).await;
    drop(answer);
    settle().await;
    world.expect_silence();
}

#[tokio::test]
async fn a_slow_model_costs_the_request_its_timeout() {
    let mut world = World::new(flat(), STILL).await;
    world.model.hold();
    world.color(world.tick());
    let slow = world.call("a", "the mug", Duration::from_millis(200)).await;
    let message = world.expect("a", Status::Error).await;
    assert!(message.contains("no answer within") && message.contains("smaller model"), "{message}");
    slow.await.unwrap();
    world.model.release();
    world.call("b", "the mug", LONG).await.await.unwrap();
    world.expect("b", Status::Found).await;
}

#[tokio::test]
async fn a_model_that_breaks_off_costs_one_request() {
    let mut world = World::new(flat(), STILL).await;
    world.color(world.tick());
    world.call("a", "the bomb", Duration::ZERO).await.await.unwrap();
    assert!(world.expect("a", Status::Error).await.contains("boom"));
    world.call("b", "the mug", Duration::ZERO).await.await.unwrap();
    world.expect("b", Status::Found).await;
    *world.ports.model.lock() = None;
    world.call("c", "the mug", Duration::ZERO).await.await.unwrap();
    assert_eq!(world.expect("c", Status::Error).await, "no model is loaded");
}

#[tokio::test]
async fn words_that_are_none_are_refused_without_an_image() {
    let mut world = World::new(flat(), STILL).await;
    for (number, text) in (1..).zip(["", "please", &"a".repeat(5000)]) {
        world.call("a", text, Duration::ZERO).await.await.unwrap();
        world.expect("a", Status::BadInstruction).await;
        world.say(text).await;
        // No words at all take the standing instruction back.
        let status = if text.is_empty() { Status::Blocked } else { Status::BadInstruction };
        world.expect(&format!("instruction-{number}"), status).await;
    }
    // They are settled: an image changes nothing.
    world.color(world.tick());
    settle().await;
    world.expect_silence();
}

#[tokio::test]
async fn a_node_that_is_not_active_blocks() {
    let mut world = World::new(flat(), STILL).await;
    world.color(world.tick());
    for (state, words) in [(State::Inactive, "activate it"), (State::Configuring, "still being loaded")] {
        world.state.send_replace(state);
        world.call("a", "the mug", Duration::ZERO).await.await.unwrap();
        let message = world.expect("a", Status::Blocked).await;
        assert!(message.contains(words), "{message}");
        assert!(world.describe("").await.unwrap_err().refusal.to_string().contains(words));
    }
}

#[tokio::test]
async fn an_instruction_that_was_never_looked_at_is_blocked_by_a_newer_one() {
    let mut world = World::new(flat(), STILL).await;
    world.say("the mug").await;
    world.say("the plate").await;
    let message = world.expect("instruction-1", Status::Blocked).await;
    assert_eq!(message, "a newer instruction came before this one was looked at");
    world.color(world.tick());
    world.expect("instruction-2", Status::NotFound).await;
    world.say("").await;
    world.expect("instruction-3", Status::Blocked).await;
    world.color(world.tick());
    settle().await;
    world.expect_silence();
}

#[tokio::test]
async fn the_same_words_again_change_nothing() {
    let mut world = World::new(flat(), STILL).await;
    for _ in 0..3 {
        world.say("the mug").await;
    }
    for _ in 0..3 {
        world.color(world.tick());
        world.expect("instruction-1", Status::Found).await;
        world.say(" the mug ").await;
    }
    settle().await;
    world.expect_silence();
    // Other words are answered at once, on the image that is there.
    world.say("the plate").await;
    let outcome = world.next().await.outcome;
    assert_eq!((outcome.result.status, outcome.result.instruction.as_str()), (Status::NotFound, "the plate"));
    // What is not understood is said each time.
    for _ in 0..2 {
        world.say("please").await;
        let outcome = world.next().await.outcome;
        assert_eq!(outcome.result.status, Status::BadInstruction);
    }
}

#[tokio::test]
async fn services_go_before_the_standing_instruction() {
    let mut world = World::new(flat(), STILL).await;
    world.model.hold();
    world.say("the plate").await;
    world.color(world.tick());
    world.model.begun(1).await;
    let answer = world.call("a", "the mug", Duration::ZERO).await;
    world.color(world.tick());
    world.model.release();
    world.expect("instruction-1", Status::NotFound).await;
    world.expect("a", Status::Found).await;
    world.expect("instruction-1", Status::NotFound).await;
    answer.await.unwrap();
}

#[tokio::test]
async fn an_answer_belongs_to_the_way_its_question_came() {
    let mut world = World::new(flat(), STILL).await;
    world.color(world.tick());
    let (outcome, _) = world.call("a", "push the mug", Duration::ZERO).await.await.unwrap();
    assert_eq!(outcome.result.action, "push");
    world.expect("a", Status::Found).await;
    // Nobody has said on the topic what to do with it.
    world.say("the left one").await;
    let outcome = world.next().await.outcome;
    assert_eq!((outcome.instruction_id.as_str(), outcome.result.action.as_str()), ("instruction-1", "find"));
    let (outcome, _) = world.call("b", "the left one", Duration::ZERO).await.await.unwrap();
    assert_eq!((outcome.result.status, outcome.result.action.as_str()), (Status::Found, "push"));
}

#[tokio::test]
async fn describing_says_what_is_seen_or_why_not() {
    let world = World::new(flat(), STILL).await;
    world.color(world.tick());
    let described = world.describe("").await.unwrap();
    assert_eq!((described.text.as_str(), described.model.as_str()), ("a mug", "fake"));
    assert_eq!(described.header, header(world.now_ns()));
    let refused = world.describe("what color is it?").await.unwrap_err();
    assert_eq!(refused.refusal.to_string(), "model \"fake\" cannot do \"answer\"");
    assert_eq!((refused.header, refused.model.as_str()), (header(world.now_ns()), "fake"));
    let long = world.describe(&"a".repeat(5000)).await.unwrap_err();
    assert!(long.refusal.to_string().contains("at most 4096 bytes, got 5000"));
}

#[tokio::test]
async fn a_side_of_a_frame_that_is_not_known_is_not_guessed() {
    let raw = RawConfig { viewpoint: "robot".to_owned(), transform_timeout_secs: 0.0, ..flat() };
    let mut world = World::new(raw, STILL).await;
    world.color(world.tick());
    world.call("a", "the left mug", Duration::ZERO).await.await.unwrap();
    let message = world.expect("a", Status::NoTransform).await;
    assert!(message.starts_with("left, right, front and back are those of \"base_link\""), "{message}");
    // Words without sides need no viewpoint.
    world.call("b", "the mug", Duration::ZERO).await.await.unwrap();
    world.expect("b", Status::Found).await;
    world.tf.put([fixed("base_link", "camera_optical_frame")]);
    world.call("c", "the left mug", Duration::ZERO).await.await.unwrap();
    world.expect("c", Status::Found).await;
}

#[tokio::test]
async fn depth_of_a_pair_is_converted_once_and_what_failed_is_tried_again() {
    let raw = RawConfig {
        depth_registration: "register".to_owned(),
        transform_timeout_secs: 0.0,
        track: false,
        ..deep()
    };
    let world = World::new(raw, STILL).await;
    let config = Arc::clone(&world.ports.config.borrow());
    let depth = FakeImage::new();
    world.camera_info();
    let of_depth_camera = CameraMessage::DepthCameraInfo(FakeImage::new());
    let mut elsewhere = header(world.now_ns());
    elsewhere.frame_id = "depth_optical_frame".to_owned();
    world.feed.put(elsewhere.clone(), of_depth_camera);
    world.feed.put(elsewhere, CameraMessage::Depth(Arc::<FakeImage>::clone(&depth)));
    world.color(world.now_ns());
    let seen = world.ports.inputs.newest_with_depth(Duration::ZERO).unwrap();
    let found = world.ports.depth.of_frame(&seen, (64, 48), &config).await;
    assert!(found.depth.is_none());
    assert!(found.refusals[0].to_string().starts_with("depth cannot be registered"), "{:?}", found.refusals);
    world.tf.put([fixed("camera_optical_frame", "depth_optical_frame")]);
    let registrar = world.ports.depth.clone();
    let (a, b) = tokio::join!(
        world.ports.depth.of_frame(&seen, (64, 48), &config),
        registrar.of_frame(&seen, (64, 48), &config)
    );
    assert_eq!(depth.n_converted.load(Ordering::SeqCst), 2, "once in vain, once for both");
    assert_eq!(a.registered_from.as_deref(), Some("depth_optical_frame"));
    assert_eq!(a.depth.unwrap().as_slice().as_ptr(), b.depth.unwrap().as_slice().as_ptr(), "they share it");
}

fn fixed(parent: &str, child: &str) -> StampedTransform {
    StampedTransform {
        parent: parent.to_owned(),
        child: child.to_owned(),
        parent_from_child: Isometry3::identity(),
        stamp: TransformStamp::Static,
    }
}
