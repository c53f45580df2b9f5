//! Which frame is looked at, and what is said when there is none.

use std::time::Duration;

use super::world::{LONG, STILL, World, deep, flat, settle};
use crate::config::RawConfig;
use crate::engine::inputs::{Rectified, camera_inputs};
use crate::engine::ports::Limits;
use crate::engine::state::State;
use crate::result::Status;

#[tokio::test]
async fn the_newest_image_wins() {
    let mut world = World::new(flat(), STILL).await;
    world.model.hold();
    let stamps: Vec<i64> = (0..3).map(|_| world.tick()).collect();
    world.say("the mug").await;
    world.color(stamps[0]);
    world.model.begun(1).await;
    world.color(stamps[1]);
    world.color(stamps[2]);
    world.model.release();
    for stamp_ns in [stamps[0], stamps[2]] {
        let outcome = world.next().await.outcome;
        assert_eq!((outcome.result.status, outcome.result.stamp_ns), (Status::Found, stamp_ns));
        assert_eq!(outcome.result.frame_id, "camera_optical_frame");
    }
    settle().await;
    world.expect_silence();
    let health = world.monitor.read();
    assert_eq!((health.n_looked_at, health.n_images_dropped), (2, 1));
}

#[tokio::test]
async fn an_image_waits_for_depth_that_is_coming() {
    let mut world = World::new(deep(), STILL).await;
    let stamp_ns = world.tick();
    world.camera_info();
    // Of an image before.
    world.depth(stamp_ns - 50_000_000);
    world.say("the mug").await;
    world.color(stamp_ns);
    settle().await;
    world.expect_silence();
    world.depth(stamp_ns + 1_000_000);
    assert_eq!(world.next().await.had_depth, Some(true));
}

#[tokio::test]
async fn an_image_does_not_wait_for_depth_for_ever() {
    let limits = Limits { depth_grace: Duration::from_millis(30), ..STILL };
    let mut world = World::new(deep(), limits).await;
    let stamp_ns = world.tick();
    world.camera_info();
    world.depth(stamp_ns - 50_000_000);
    world.say("the mug").await;
    world.color(stamp_ns);
    // More images do not put it off.
    world.color(stamp_ns + 1_000_000);
    assert_eq!(world.next().await.had_depth, Some(false));
}

#[tokio::test]
async fn depth_of_another_time_is_told_with_its_offset() {
    let limits = Limits { depth_grace: Duration::from_millis(1), ..STILL };
    for (offset_ns, says) in [(-45_000_000, "45 ms before"), (700_000_000, "700 ms after")] {
        let mut world = World::new(deep(), limits).await;
        let stamp_ns = world.tick();
        world.camera_info();
        world.depth(stamp_ns + offset_ns);
        world.say("the mug").await;
        world.color(stamp_ns);
        let message = world.expect("instruction-1", Status::NoDepth).await;
        assert!(message.contains(says) && message.contains("stamp_tolerance_secs (now 0.02)"), "{message}");
        assert_eq!(world.monitor.read().unpaired_depth.as_ref(), Some(&message));
    }
}

#[tokio::test]
async fn nobody_waits_for_depth_that_no_one_sends() {
    let mut world = World::new(deep(), STILL).await;
    world.say("the mug").await;
    world.color(world.tick());
    assert_eq!(world.next().await.had_depth, Some(false));
}

#[tokio::test]
async fn a_camera_that_starts_gets_time_for_its_other_topics() {
    let mut world = World::new(deep(), Limits { startup_grace: LONG, ..STILL }).await;
    let stamp_ns = world.tick();
    world.say("the mug").await;
    world.color(stamp_ns);
    settle().await;
    world.expect_silence();
    world.depth(stamp_ns);
    settle().await;
    world.expect_silence();
    world.camera_info();
    assert_eq!(world.next().await.had_depth, Some(true));
}

#[tokio::test]
async fn no_image_is_said_again_and_again() {
    let limits = Limits { stale_period: Duration::from_millis(5), ..STILL };
    let mut world = World::new(flat(), limits).await;
    world.say("the mug").await;
    for _ in 0..2 {
        let message = world.expect("instruction-1", Status::Stale).await;
        assert!(message.starts_with("nobody publishes /camera/image"), "{message}");
    }
}

#[tokio::test]
async fn stamps_of_another_clock_are_no_images_of_now() {
    let limits = Limits { stale_period: Duration::from_millis(5), ..STILL };
    let mut world = World::new(RawConfig { max_frame_age_secs: 60.0, ..flat() }, limits).await;
    world.say("the mug").await;
    let hours = [(7_200_000_000_000, "7200.0 s in the past"), (-7_200_000_000_000, "7200.0 s in the future")];
    for (age_ns, words) in hours {
        world.color(world.now_ns() - age_ns);
        let message = loop {
            let message = world.expect("instruction-1", Status::Stale).await;
            if message.contains(words) {
                break message;
            }
        };
        assert!(message.contains("/camera/image"), "{message}");
    }
}

#[tokio::test]
async fn after_a_step_of_the_clock_new_images_are_looked_at() {
    let mut world = World::new(flat(), STILL).await;
    world.say("the mug").await;
    for step_ns in [0, 3_600_000_000_000, -7_200_000_000_000] {
        world.clock_ns.fetch_add(step_ns, std::sync::atomic::Ordering::Relaxed);
        let stamp_ns = world.tick();
        world.color(stamp_ns);
        assert_eq!(world.next().await.outcome.result.stamp_ns, stamp_ns);
    }
}

#[tokio::test]
async fn the_standing_instruction_waits_for_the_model_to_be_loaded() {
    let mut world = World::new(flat(), STILL).await;
    world.state.send_replace(State::Configuring);
    world.say("the mug").await;
    world.color(world.tick());
    settle().await;
    world.expect_silence();
    world.state.send_replace(State::Active);
    world.expect("instruction-1", Status::Found).await;
}

#[tokio::test]
async fn when_no_more_images_can_come_that_is_said() {
    let mut world = World::new(flat(), STILL).await;
    let answer = world.call("a", "the mug", Duration::ZERO).await;
    let (feed, _) = camera_inputs(Rectified::default());
    drop(std::mem::replace(&mut world.feed, feed));
    assert_eq!(world.expect("a", Status::Blocked).await, "the node is shutting down");
    answer.await.unwrap();
}
