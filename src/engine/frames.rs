//! Which frame a request is answered on, and how long it waits for one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::camera::Role;
use super::input_health::{clock_problem, missing_input};
use super::inputs::{CameraFrame, InputStats};
use super::ports::Ports;
use super::refusal::Refusal;
use crate::config::Config;

/// The newest image after `after_sequence` that is fresh, with its depth image and intrinsics if they come in time.
pub async fn wait_for_frame(
    ports: &Ports,
    after_sequence: u64,
    timeout: Duration,
) -> Result<CameraFrame, Refusal> {
    let deadline = tokio::time::Instant::now() + timeout;
    let mut updates = ports.inputs.updates();
    // When the first usable image came: images that keep coming do not put off the moment to do without depth.
    let mut first_arrived = None;
    loop {
        updates.mark_unchanged();
        let config = Arc::clone(&ports.config.borrow());
        let is_usable = |it: &CameraFrame| {
            it.sequence() > after_sequence && stamp_problem(ports, it, config.max_frame_age).is_none()
        };
        let with_depth = ports.inputs.newest_with_depth(config.stamp_tolerance).filter(is_usable);
        if let Some(frame) =
            with_depth.as_ref().filter(|it| it.camera_info.is_some() && !it.lacks_depth_camera)
        {
            return Ok(frame.clone());
        }
        let mut wake = deadline;
        let without = || ports.inputs.newest(config.stamp_tolerance).filter(is_usable);
        if let Some(frame) = with_depth.or_else(without) {
            let first_arrived = *first_arrived.get_or_insert(frame.arrived());
            let depth_due = depth_due(ports, first_arrived, &config);
            if depth_due <= Instant::now() {
                return Ok(frame);
            }
            wake = wake.min(depth_due.into());
        }
        match tokio::time::timeout_at(wake, updates.changed()).await {
            // No topic is left.
            Ok(Err(_)) => return Err(Refusal::ShuttingDown),
            Err(_) if tokio::time::Instant::now() >= deadline => return Err(stale(ports, &config)),
            Ok(Ok(())) | Err(_) => {}
        }
    }
}

/// Until when to wait for the depth and the intrinsics of an image that arrived at `image_arrived`.
fn depth_due(ports: &Ports, image_arrived: Instant, config: &Config) -> Instant {
    if !config.pipeline.use_depth {
        return image_arrived;
    }
    let stats = ports.inputs.stats();
    let stats_of = |role| stats.iter().find(|it| it.role == role);
    let is_coming = |depth: &InputStats| {
        depth.last_arrival.is_some_and(|at| at.elapsed() <= config.max_frame_age)
            || ports.graph.borrow().get(&depth.topic).is_some_and(|it| !it.nodes.is_empty())
    };
    let is_depth_coming = stats_of(Role::Depth).is_some_and(is_coming);
    let grace = if is_depth_coming { ports.limits.depth_grace } else { Duration::ZERO };
    let camera_started = stats_of(Role::Image).and_then(|it| it.stream_start);
    let startup_end = camera_started.map_or(image_arrived, |at| at + ports.limits.startup_grace);
    startup_end.max(image_arrived + grace)
}

/// Why there is no image, in words.
fn stale(ports: &Ports, config: &Config) -> Refusal {
    let stats = ports.inputs.stats();
    let image = stats.iter().find(|it| it.role == Role::Image);
    let missing = image.and_then(|it| missing_input(it, &ports.graph.borrow(), config.max_frame_age));
    let stamp_problem = || {
        let newest = ports.inputs.newest(Duration::ZERO)?;
        stamp_problem(ports, &newest, config.max_frame_age)
    };
    Refusal::NoFreshImage(missing.or_else(stamp_problem).unwrap_or_else(|| {
        "no newer image came in time: is the camera slower than the request's timeout?".to_owned()
    }))
}

/// Why an image's stamp makes it useless: too old, or from a clock that is not ours.
fn stamp_problem(ports: &Ports, frame: &CameraFrame, max_age: Duration) -> Option<String> {
    let age_secs = (ports.now_ns)().saturating_sub(frame.header().stamp_ns) as f64 * 1e-9;
    let max_age_secs = max_age.as_secs_f64();
    if (-max_age_secs..=max_age_secs).contains(&age_secs) {
        return None;
    }
    let stats = ports.inputs.stats();
    let topic = stats.iter().find(|it| it.role == Role::Image).map_or("image", |it| it.topic.as_str());
    Some(clock_problem(topic, age_secs))
}
