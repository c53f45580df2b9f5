//! What the node knows about its own health: counted as things happen, told once a second on /diagnostics.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use r2r::diagnostic_msgs::msg::{DiagnosticArray, DiagnosticStatus, KeyValue};
use r2r::std_msgs::msg::Header;

use super::inputs::{InputStats, Role};
use super::lifecycle::State;
use super::outcome::Outcome;
use super::{GraphSnapshot, Publishers, time_from_nanos};
use crate::model::ModelInfo;
use crate::result::Status;

const OK: u8 = DiagnosticStatus::OK as u8;
const WARN: u8 = DiagnosticStatus::WARN as u8;
const ERROR: u8 = DiagnosticStatus::ERROR as u8;
/// Results whose latencies are remembered.
const LATENCY_WINDOW: usize = 100;

/// Counters that everybody writes to.
#[derive(Clone, Default)]
pub struct Monitor {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    results: BTreeMap<&'static str, u64>,
    last_looked_at: u64,
    n_looked_at: u64,
    n_images_dropped: u64,
    latencies_ms: VecDeque<Vec<(String, f64)>>,
    model: Option<ModelInfo>,
    model_error: Option<String>,
    /// What is being done to load a model.
    loading: Option<String>,
    last_error: Option<(String, Instant)>,
    transforms_refused: Option<String>,
    depth_offset_ns: Option<i64>,
    registered_from: Option<String>,
    n_tracked: u64,
}

/// What a look at the inputs is made of.
pub struct Surroundings<'a> {
    /// Each camera topic.
    pub inputs: &'a [InputStats],
    /// The same a second ago: rates are the difference.
    pub inputs_before: &'a [InputStats],
    /// Time between the two.
    pub elapsed: Duration,
    /// Who publishes on them.
    pub graph: &'a GraphSnapshot,
    /// Of the node.
    pub state: State,
    /// Older input is missing input.
    pub max_age: Duration,
    /// The ROS clock, nanoseconds.
    pub now_ns: i64,
}

impl Monitor {
    /// A request was answered; telling it took `publish`.
    pub fn count(&self, outcome: &Outcome, publish: Duration) {
        let mut shared = self.lock();
        *shared.results.entry(outcome.result.status.name()).or_default() += 1;
        if !outcome.latency_ms.is_empty() {
            let mut latencies_ms = outcome.latency_ms.clone();
            latencies_ms.push(("publish".to_owned(), publish.as_secs_f64() * 1e3));
            shared.latencies_ms.push_back(latencies_ms);
            if shared.latencies_ms.len() > LATENCY_WINDOW {
                shared.latencies_ms.pop_front();
            }
        }
        if outcome.result.status == Status::Error {
            shared.last_error = Some((outcome.result.message.clone(), Instant::now()));
        }
    }

    /// The model looks at an image; those between it and the one before were never looked at.
    pub fn look_at(&self, sequence: u64) {
        let mut shared = self.lock();
        if sequence > shared.last_looked_at {
            shared.n_images_dropped += sequence - shared.last_looked_at - 1;
            shared.last_looked_at = sequence;
            shared.n_looked_at += 1;
        }
    }

    /// Images that come while nothing is asked are not dropped: counting starts anew after them.
    pub fn skip_to(&self, sequence: u64) {
        let mut shared = self.lock();
        shared.last_looked_at = shared.last_looked_at.max(sequence);
    }

    /// A model was loaded, or dropped, or could not be loaded.
    pub fn set_model(&self, model: Option<Result<ModelInfo, String>>) {
        let mut shared = self.lock();
        shared.loading = None;
        (shared.model, shared.model_error) = match model {
            Some(Ok(info)) => (Some(info), None),
            Some(Err(error)) => (None, Some(error)),
            None => (None, None),
        };
    }

    /// How far the loading of a model is, as one sentence.
    pub fn set_loading(&self, progress: String) {
        self.lock().loading = Some(progress);
    }

    /// A transform from TF was refused.
    pub fn transform_refused(&self, reason: String) {
        let mut shared = self.lock();
        // A bad publisher repeats itself many times a second.
        if shared.transforms_refused.as_ref() != Some(&reason) {
            tracing::warn!("{reason}");
            shared.transforms_refused = Some(reason);
        }
    }

    /// How far the stamps of the last color and depth image that were paired are apart (depth minus color).
    pub fn set_depth_offset(&self, offset_ns: Option<i64>) {
        self.lock().depth_offset_ns = offset_ns;
    }

    /// The frame of the depth that was brought to the color image; `None` when it came registered.
    pub fn set_registered_from(&self, frame: Option<&String>) {
        let mut shared = self.lock();
        if shared.registered_from.as_ref() != frame {
            shared.registered_from = frame.cloned();
        }
    }

    /// A pose of the target was told between the model's answers.
    pub fn count_tracked(&self) {
        self.lock().n_tracked += 1;
    }

    /// The message for /diagnostics.
    pub fn report(&self, node: &str, around: &Surroundings<'_>) -> DiagnosticArray {
        let shared = self.lock();
        let node = node.trim_start_matches('/');
        let status = [inputs_status(&shared, around), model_status(&shared, around), results_status(&shared)];
        let header = Header { stamp: time_from_nanos(around.now_ns), frame_id: String::new() };
        let status = status
            .into_iter()
            .map(|mut status| {
                status.name = format!("{node}: {}", status.name);
                node.clone_into(&mut status.hardware_id);
                status
            })
            .collect();
        DiagnosticArray { header, status }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why nothing (recent) comes on a topic, as one sentence; `None` when something does.
pub fn missing_input(stats: &InputStats, graph: &GraphSnapshot, max_age: Duration) -> Option<String> {
    let InputStats { topic, message_type, .. } = stats;
    let age = stats.last_arrival.map(|it| it.elapsed());
    if age.is_some_and(|age| age <= max_age) {
        return None;
    }
    let nobody = Publishers::default();
    let publishers = graph.get(topic).unwrap_or(&nobody);
    let who = publishers.nodes.join(", ");
    let fits = publishers.types.iter().any(|it| it == message_type);
    let remap = match stats.role {
        Role::Image => "image",
        Role::Depth => "depth",
        Role::DepthCameraInfo => "depth_camera_info",
        Role::CameraInfo => "camera_info",
    };
    Some(match (publishers.types.is_empty(), fits, age) {
        (true, _, None) => {
            format!("nobody publishes {topic} ({message_type}): remap `{remap}` to your camera's topic")
        }
        (true, _, Some(age)) => {
            format!(
                "{topic} has ended: its last message came {:.1} s ago and nobody publishes it any more",
                age.as_secs_f64()
            )
        }
        (false, false, _) => format!(
            "{topic} carries {}, expected {message_type} (published by {who}): check the remapping and the \
             image_transport and depth_transport parameters",
            publishers.types.join(" and ")
        ),
        (false, true, None) => format!(
            "{who} publishes {topic}, but nothing arrives: large images get lost in Fast DDS's default transport, start the \
             publisher with config/fastdds_shm.xml or reliable QoS"
        ),
        (false, true, Some(age)) => format!(
            "the last message on {topic} (published by {who}) came {:.1} s ago: is the camera paused?",
            age.as_secs_f64()
        ),
    })
}

fn inputs_status(shared: &Shared, around: &Surroundings<'_>) -> DiagnosticStatus {
    let mut values = Values::default();
    let mut problems = Vec::new();
    let mut level = OK;
    for stats in around.inputs {
        let name = format!("{:?}", stats.role).to_lowercase();
        let before =
            around.inputs_before.iter().find(|it| it.role == stats.role).map_or(0, |it| it.n_received);
        let rate_hz = (stats.n_received - before) as f64 / around.elapsed.as_secs_f64().max(1e-3);
        values.add(&format!("{name} topic"), &stats.topic);
        values.add(&format!("{name} rate (Hz)"), format!("{rate_hz:.1}"));
        if let Some(arrival) = stats.last_arrival {
            values.add(
                &format!("{name} last arrival (s ago)"),
                format!("{:.3}", arrival.elapsed().as_secs_f64()),
            );
        }
        if let Some(stamp_ns) = stats.last_stamp_ns {
            let age_secs = (around.now_ns - stamp_ns) as f64 * 1e-9;
            values.add(&format!("{name} stamp age (s)"), format!("{age_secs:.3}"));
            if stats.role == Role::Image && stats.last_arrival.is_some_and(|it| it.elapsed() < around.max_age)
            {
                let max_age_secs = around.max_age.as_secs_f64();
                if !(-max_age_secs..=max_age_secs).contains(&age_secs) {
                    level = ERROR;
                    problems.push(clock_problem(&stats.topic, age_secs));
                }
            }
        }
        // Registered depth needs none of its own.
        if stats.role == Role::DepthCameraInfo {
            continue;
        }
        if let Some(problem) = missing_input(stats, around.graph, around.max_age.max(Duration::from_secs(1)))
        {
            level = level.max(match stats.role {
                Role::Image => ERROR,
                Role::Depth | Role::CameraInfo | Role::DepthCameraInfo => WARN,
            });
            problems.push(problem);
        }
    }
    if around.graph.get("/tf_static").is_some_and(|it| it.any_volatile) {
        level = level.max(WARN);
        problems.push(
            "a publisher of /tf_static has durability volatile, which does not match: make it transient local"
                .to_owned(),
        );
    }
    if let Some(refused) = &shared.transforms_refused {
        level = level.max(WARN);
        problems.push(refused.clone());
    }
    if let Some(offset_ns) = shared.depth_offset_ns {
        values.add("depth stamp minus color stamp (ms)", format!("{:.1}", offset_ns as f64 * 1e-6));
    }
    if let Some(frame) = &shared.registered_from {
        values.add("depth registered by the node from", frame);
    }
    values.add("images looked at", shared.n_looked_at);
    values.add("images dropped", shared.n_images_dropped);
    let message = if problems.is_empty() { "all inputs arrive".to_owned() } else { problems.join("; ") };
    DiagnosticStatus { level, name: "inputs".to_owned(), message, values: values.0, ..Default::default() }
}

/// A stamp that cannot be right, in words.
pub fn clock_problem(topic: &str, age_secs: f64) -> String {
    let (amount, direction) = (age_secs.abs(), if age_secs < 0.0 { "in the future" } else { "in the past" });
    format!(
        "images on {topic} are stamped {amount:.1} s {direction}: check the camera's clock, its driver's header.stamp, \
         and use_sim_time"
    )
}

fn model_status(shared: &Shared, around: &Surroundings<'_>) -> DiagnosticStatus {
    let mut values = Values::default();
    values.add("lifecycle", around.state.label());
    let (level, message) = match (&shared.loading, &shared.model, &shared.model_error) {
        (Some(progress), ..) => (WARN, progress.clone()),
        (None, Some(info), _) => {
            values.add("model", &info.name);
            values.add("model type", &info.model_type);
            values.add("device", &info.device);
            values.add("trained on rendered scenes only", info.synthetic);
            if around.state == State::Active {
                (OK, format!("{} on {}", info.name, info.device))
            } else {
                (WARN, format!("{} is loaded, the node is {}", info.name, around.state.label()))
            }
        }
        (None, None, Some(error)) => (ERROR, error.clone()),
        (None, None, None) => (WARN, format!("no model is loaded, the node is {}", around.state.label())),
    };
    if let Some(mib) = resident_mib() {
        values.add("memory (MiB)", format!("{mib:.0}"));
    }
    DiagnosticStatus { level, name: "model".to_owned(), message, values: values.0, ..Default::default() }
}

fn results_status(shared: &Shared) -> DiagnosticStatus {
    let mut values = Values::default();
    for (status, count) in &shared.results {
        values.add(status, count);
    }
    values.add("poses by tracking", shared.n_tracked);
    let mut by_stage: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (stage, ms) in shared.latencies_ms.iter().flatten() {
        by_stage.entry(stage).or_default().push(*ms);
    }
    for (stage, mut ms) in by_stage {
        ms.sort_by(f64::total_cmp);
        let quantile = |q: f64| ms[((ms.len() - 1) as f64 * q).round() as usize];
        values.add(&format!("{stage} p50 (ms)"), format!("{:.2}", quantile(0.5)));
        values.add(&format!("{stage} p99 (ms)"), format!("{:.2}", quantile(0.99)));
    }
    let (level, message) = match &shared.last_error {
        Some((error, when)) if when.elapsed() < Duration::from_secs(10) => (ERROR, error.clone()),
        Some((error, when)) => {
            values.add("last error", error);
            values.add("last error (s ago)", when.elapsed().as_secs());
            (OK, "no recent errors".to_owned())
        }
        None => (OK, "no errors".to_owned()),
    };
    DiagnosticStatus { level, name: "results".to_owned(), message, values: values.0, ..Default::default() }
}

#[derive(Default)]
struct Values(Vec<KeyValue>);

impl Values {
    fn add(&mut self, key: &str, value: impl std::fmt::Display) {
        self.0.push(KeyValue { key: key.to_owned(), value: format!("{value}") });
    }
}

/// Resident memory of this process.
fn resident_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_input_is_told_with_its_remedy() {
        let stats = |arrived: Option<Instant>| InputStats {
            role: Role::Image,
            topic: "/cam/image".to_owned(),
            message_type: "sensor_msgs/msg/Image",
            n_received: 0,
            last_arrival: arrived,
            stream_start: None,
            last_stamp_ns: None,
        };
        let graph = |types: &[&str]| {
            let publishers = Publishers {
                nodes: vec!["/driver".to_owned()],
                types: types.iter().map(|it| (*it).to_owned()).collect(),
                any_volatile: true,
            };
            GraphSnapshot::from([("/cam/image".to_owned(), publishers)])
        };
        let long_ago = Instant::now().checked_sub(Duration::from_secs(7)).unwrap();
        let check = |arrived, graph: &GraphSnapshot, says: Option<&str>| match (
            missing_input(&stats(arrived), graph, Duration::from_secs(1)),
            says,
        ) {
            (None, None) => {}
            (Some(got), Some(expected)) => assert!(got.contains(expected), "{got:?} lacks {expected:?}"),
            (got, expected) => panic!("got {got:?}, expected {expected:?}"),
        };
        check(Some(Instant::now()), &graph(&["sensor_msgs/msg/Image"]), None);
        check(None, &GraphSnapshot::new(), Some("nobody publishes /cam/image"));
        check(None, &graph(&["sensor_msgs/msg/CompressedImage"]), Some("expected sensor_msgs/msg/Image"));
        check(None, &graph(&["sensor_msgs/msg/Image"]), Some("fastdds_shm.xml"));
        check(Some(long_ago), &graph(&["sensor_msgs/msg/Image"]), Some("7.0 s ago"));
        check(Some(long_ago), &GraphSnapshot::new(), Some("has ended"));
    }

    #[test]
    fn only_images_between_looks_count_as_dropped() {
        let monitor = Monitor::default();
        for sequence in [1, 2, 5, 5] {
            monitor.look_at(sequence);
        }
        monitor.skip_to(20);
        monitor.look_at(21);
        let shared = monitor.lock();
        assert_eq!((shared.n_looked_at, shared.n_images_dropped), (4, 2));
    }
}
