//! What is known of the node's health, once a second on /diagnostics.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use r2r::Publisher;
use r2r::diagnostic_msgs::msg::{DiagnosticArray, DiagnosticStatus, KeyValue};
use r2r::std_msgs::msg::Header;

use super::time_from_nanos;
use crate::engine::camera::Role;
use crate::engine::input_health::{GraphSnapshot, clock_problem, missing_input};
use crate::engine::inputs::InputStats;
use crate::engine::monitor::Health;
use crate::engine::ports::Ports;
use crate::engine::state::State;

/// How often the node's health is published.
const PERIOD: Duration = Duration::from_secs(1);
/// Kinds of warnings that are logged.
const MAX_KINDS_LOGGED: usize = 100;
const OK: u8 = DiagnosticStatus::OK as u8;
const WARN: u8 = DiagnosticStatus::WARN as u8;
const ERROR: u8 = DiagnosticStatus::ERROR as u8;

/// Publishes the health of a node (by its full name) for as long as the node lives.
pub async fn report_health(node: String, publisher: Publisher<DiagnosticArray>, ports: Ports) {
    let mut before = (ports.inputs.stats(), Instant::now());
    let mut ticks = tokio::time::interval(PERIOD);
    let mut logged = BTreeSet::new();
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let inputs = ports.inputs.stats();
        let report = {
            let now = InputsNow {
                now: &inputs,
                before: &before.0,
                elapsed: before.1.elapsed(),
                graph: &ports.graph.borrow(),
                state: *ports.state.borrow(),
                max_age: ports.config.borrow().max_frame_age,
                now_ns: (ports.now_ns)(),
            };
            report(&node, &ports.monitor.read(), &now)
        };
        // Once in the log, for those who do not watch /diagnostics; the numbers in it change every second.
        for status in report.status.iter().filter(|it| it.level > 0) {
            let kind: String = status.message.chars().filter(|it| !it.is_ascii_digit()).collect();
            if logged.len() < MAX_KINDS_LOGGED && logged.insert(kind) {
                tracing::warn!("{}", status.message);
            }
        }
        if publisher.publish(&report).is_err() {
            return;
        }
        before = (inputs, Instant::now());
    }
}

/// What a look at the inputs is made of.
struct InputsNow<'a> {
    /// Each camera topic.
    now: &'a [InputStats],
    /// The same a second ago: rates are the difference.
    before: &'a [InputStats],
    /// Time between the two.
    elapsed: Duration,
    /// Who publishes on them.
    graph: &'a GraphSnapshot,
    /// Of the node.
    state: State,
    /// Older input is missing input.
    max_age: Duration,
    /// The ROS clock, nanoseconds.
    now_ns: i64,
}

/// The message for /diagnostics.
fn report(node: &str, health: &Health, inputs: &InputsNow<'_>) -> DiagnosticArray {
    let node = node.trim_start_matches('/');
    let status = [inputs_status(health, inputs), model_status(health, inputs.state), results_status(health)];
    let header = Header { stamp: time_from_nanos(inputs.now_ns), frame_id: String::new() };
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

fn inputs_status(health: &Health, inputs: &InputsNow<'_>) -> DiagnosticStatus {
    let mut values = Values::default();
    let mut problems = Vec::new();
    let mut level = OK;
    for stats in inputs.now {
        let name = format!("{:?}", stats.role).to_lowercase();
        let before = inputs.before.iter().find(|it| it.role == stats.role).map_or(0, |it| it.n_received);
        let rate_hz = (stats.n_received - before) as f64 / inputs.elapsed.as_secs_f64().max(1e-3);
        values.add(&format!("{name} topic"), &stats.topic);
        values.add(&format!("{name} rate (Hz)"), format!("{rate_hz:.1}"));
        if let Some(arrival) = stats.last_arrival {
            values.add(
                &format!("{name} last arrival (s ago)"),
                format!("{:.3}", arrival.elapsed().as_secs_f64()),
            );
        }
        if let Some(stamp_ns) = stats.last_stamp_ns {
            let age_secs = (inputs.now_ns - stamp_ns) as f64 * 1e-9;
            values.add(&format!("{name} stamp age (s)"), format!("{age_secs:.3}"));
            if stats.role == Role::Image && stats.last_arrival.is_some_and(|it| it.elapsed() < inputs.max_age)
            {
                let max_age_secs = inputs.max_age.as_secs_f64();
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
        if let Some(problem) = missing_input(stats, inputs.graph, inputs.max_age.max(Duration::from_secs(1)))
        {
            level = level.max(match stats.role {
                Role::Image => ERROR,
                Role::Depth | Role::CameraInfo | Role::DepthCameraInfo => WARN,
            });
            problems.push(problem);
        }
    }
    if inputs.graph.get("/tf_static").is_some_and(|it| it.any_volatile) {
        level = level.max(WARN);
        problems.push(
            "a publisher of /tf_static has durability volatile, which does not match: make it transient local"
                .to_owned(),
        );
    }
    if let Some(refused) = &health.transforms_refused {
        level = level.max(WARN);
        problems.push(refused.clone());
    }
    if let Some(unpaired) = &health.unpaired_depth {
        level = level.max(WARN);
        problems.push(unpaired.clone());
    }
    if let Some(offset_ns) = health.depth_offset_ns {
        values.add("depth stamp minus color stamp (ms)", format!("{:.1}", offset_ns as f64 * 1e-6));
    }
    if let Some(frame) = &health.registered_from {
        values.add("depth registered by the node from", frame);
    }
    values.add("images looked at", health.n_looked_at);
    values.add("images dropped", health.n_images_dropped);
    let message = if problems.is_empty() { "all inputs arrive".to_owned() } else { problems.join("; ") };
    DiagnosticStatus { level, name: "inputs".to_owned(), message, values: values.0, ..Default::default() }
}

fn model_status(health: &Health, state: State) -> DiagnosticStatus {
    let mut values = Values::default();
    values.add("lifecycle", state.label());
    let (level, message) = match (&health.loading, &health.model, &health.model_error) {
        (Some(progress), ..) => (WARN, progress.clone()),
        (None, Some(info), _) => {
            values.add("model", &info.name);
            values.add("model type", &info.model_type);
            values.add("device", &info.device);
            values.add("trained on rendered scenes only", info.synthetic);
            if state == State::Active {
                (OK, format!("{} on {}", info.name, info.device))
            } else {
                (WARN, format!("{} is loaded, the node is {}", info.name, state.label()))
            }
        }
        (None, None, Some(error)) => (ERROR, error.clone()),
        (None, None, None) => (WARN, format!("no model is loaded, the node is {}", state.label())),
    };
    if let Some(mib) = resident_mib() {
        values.add("memory (MiB)", format!("{mib:.0}"));
    }
    DiagnosticStatus { level, name: "model".to_owned(), message, values: values.0, ..Default::default() }
}

fn results_status(health: &Health) -> DiagnosticStatus {
    let mut values = Values::default();
    for (status, count) in &health.results {
        values.add(status, count);
    }
    values.add("poses by tracking", health.n_tracked);
    let mut by_stage: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (stage, ms) in health.latencies_ms.iter().flatten() {
        by_stage.entry(stage).or_default().push(*ms);
    }
    for (stage, mut ms) in by_stage {
        ms.sort_by(f64::total_cmp);
        let quantile = |q: f64| ms[((ms.len() - 1) as f64 * q).round() as usize];
        values.add(&format!("{stage} p50 (ms)"), format!("{:.2}", quantile(0.5)));
        values.add(&format!("{stage} p99 (ms)"), format!("{:.2}", quantile(0.99)));
    }
    let (level, message) = match &health.last_error {
        Some((error, when)) if when.elapsed() < Duration::from_secs(10) => (ERROR, error.clone()),
        Some((error, when)) => {
            values.add("last error", error);
            values.add("last error (s ago)", when.elapsed().as_secs());
            (OK, "no recent errors".to_owned())
        }
        None => (OK, "no errors".to_owned()),
    };
    for (idx, warning) in health.warnings.iter().enumerate() {
        values.add(&format!("warning {}", idx + 1), warning);
    }
    let (level, message) = if level == OK && !health.warnings.is_empty() {
        (WARN, health.warnings.join("; "))
    } else {
        (level, message)
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
