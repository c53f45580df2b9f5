//! What is counted as things happen, for whoever reports the node's health.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use super::outcome::Outcome;
use crate::model::ModelInfo;
use crate::result::Status;

/// Results whose latencies are remembered.
const LATENCY_WINDOW: usize = 100;

/// Counters that everybody writes to. Clones share them.
#[derive(Clone, Default)]
pub struct Monitor {
    health: Arc<Mutex<Health>>,
}

/// What has been counted.
#[derive(Debug, Default)]
pub struct Health {
    /// Answers by status.
    pub results: BTreeMap<&'static str, u64>,
    /// Number of the newest image that was looked at.
    pub last_looked_at: u64,
    /// Images that were looked at.
    pub n_looked_at: u64,
    /// Images that were never looked at, because newer ones had come.
    pub n_images_dropped: u64,
    /// Milliseconds by stage, of the last results.
    pub latencies_ms: VecDeque<Vec<(String, f64)>>,
    /// The model that is loaded.
    pub model: Option<ModelInfo>,
    /// Why no model could be loaded.
    pub model_error: Option<String>,
    /// What is being done to load one.
    pub loading: Option<String>,
    /// The last ERROR, and when.
    pub last_error: Option<(String, Instant)>,
    /// Why a transform was refused, last.
    pub transforms_refused: Option<String>,
    /// Depth stamp minus color stamp of the last pair, nanoseconds.
    pub depth_offset_ns: Option<i64>,
    /// Why depth that comes belongs to no color image.
    pub unpaired_depth: Option<String>,
    /// The frame of the depth that was brought to the color image; `None` when it came registered.
    pub registered_from: Option<String>,
    /// What made the last answer less sure than it looks, one sentence each.
    pub warnings: Vec<String>,
    /// Poses that were published between the model's answers.
    pub n_tracked: u64,
}

impl Monitor {
    /// A request was answered; telling it took `publish`.
    pub fn count(&self, outcome: &Outcome, publish: Duration) {
        let mut health = self.lock();
        *health.results.entry(outcome.result.status.name()).or_default() += 1;
        if !outcome.latency_ms.is_empty() {
            let mut latencies_ms = outcome.latency_ms.clone();
            latencies_ms.push(("publish".to_owned(), publish.as_secs_f64() * 1e3));
            health.latencies_ms.push_back(latencies_ms);
            if health.latencies_ms.len() > LATENCY_WINDOW {
                health.latencies_ms.pop_front();
            }
        }
        health.warnings.clone_from(&outcome.result.warnings);
        if outcome.result.status == Status::Error {
            health.last_error = Some((outcome.result.message.clone(), Instant::now()));
        }
    }

    /// The model looks at an image; those between it and the one before were never looked at.
    pub fn look_at(&self, sequence: u64) {
        let mut health = self.lock();
        if sequence > health.last_looked_at {
            health.n_images_dropped += sequence - health.last_looked_at - 1;
            health.last_looked_at = sequence;
            health.n_looked_at += 1;
        }
    }

    /// Images that come while nothing is asked are not dropped: counting starts anew after them.
    pub fn skip_to(&self, sequence: u64) {
        let mut health = self.lock();
        health.last_looked_at = health.last_looked_at.max(sequence);
    }

    /// A model was loaded, or dropped, or could not be loaded.
    pub fn set_model(&self, model: Option<Result<ModelInfo, String>>) {
        let mut health = self.lock();
        health.loading = None;
        (health.model, health.model_error) = match model {
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
        let mut health = self.lock();
        // A bad publisher repeats itself many times a second.
        if health.transforms_refused.as_ref() != Some(&reason) {
            tracing::warn!("{reason}");
            health.transforms_refused = Some(reason);
        }
    }

    /// How far the stamps of the last color and depth image that were paired are apart (depth minus color).
    /// Where they were not paired although depth comes, why.
    pub fn set_depth_offset(&self, offset_ns: Option<i64>, unpaired: Option<String>) {
        let mut health = self.lock();
        health.depth_offset_ns = offset_ns;
        health.unpaired_depth = unpaired;
    }

    /// The frame of the depth that was brought to the color image; `None` when it came registered.
    pub fn set_registered_from(&self, frame: Option<&String>) {
        let mut health = self.lock();
        if health.registered_from.as_ref() != frame {
            health.registered_from = frame.cloned();
        }
    }

    /// A pose of the target was told between the model's answers.
    pub fn count_tracked(&self) {
        self.lock().n_tracked += 1;
    }

    /// What has been counted so far. Nothing is counted while it is held.
    pub fn read(&self) -> MutexGuard<'_, Health> {
        self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Health> {
        self.health.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_images_between_looks_count_as_dropped() {
        let monitor = Monitor::default();
        for sequence in [1, 2, 5, 5] {
            monitor.look_at(sequence);
        }
        monitor.skip_to(20);
        monitor.look_at(21);
        let health = monitor.read();
        assert_eq!((health.n_looked_at, health.n_images_dropped), (4, 2));
    }
}
