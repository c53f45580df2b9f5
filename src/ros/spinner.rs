//! The thread that drives a node, and its look at the ROS graph once a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::engine::input_health::{GraphSnapshot, Publishers};

/// How long one turn waits for something to happen: bounds the time to stop.
const SPIN_TIMEOUT: Duration = Duration::from_millis(50);
/// How often the graph is looked at.
const GRAPH_PERIOD: Duration = Duration::from_secs(1);
/// A turn shorter than this did no work worth having.
const IDLE_TURN: Duration = Duration::from_micros(300);
/// Short turns in a row after which the thread rests between turns.
const MAX_IDLE_TURNS: u32 = 20;
/// How long it rests then.
const REST: Duration = Duration::from_millis(1);

/// Spins a node on its own thread until stopped, then destroys it, so that the ROS graph forgets it.
pub struct Spinner {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Spinner {
    /// Spins `node`.
    pub fn start(node: r2r::Node) -> std::io::Result<Self> {
        let (spinner, _) = Self::start_watching(node, Vec::new())?;
        Ok(spinner)
    }

    /// Spins `node` and looks once a second at who publishes on `topics` (full names).
    pub fn start_watching(
        mut node: r2r::Node,
        topics: Vec<String>,
    ) -> std::io::Result<(Self, watch::Receiver<GraphSnapshot>)> {
        let (graph, watched) = watch::channel(GraphSnapshot::new());
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("ros_spin".to_owned()).spawn(move || {
            let mut looked = Instant::now();
            let mut idle_turns = 0;
            while !stopped.load(Ordering::Relaxed) {
                let turn = Instant::now();
                node.spin_once(SPIN_TIMEOUT);
                // r2r's action server never drops expired goals, and from then on spin_once returns at once for ever
                // (https://github.com/sequenceplanner/r2r/issues/136). Many turns that did nothing are that.
                idle_turns = if turn.elapsed() < IDLE_TURN { idle_turns + 1 } else { 0 };
                if idle_turns > MAX_IDLE_TURNS {
                    std::thread::sleep(REST);
                }
                if !topics.is_empty() && looked.elapsed() >= GRAPH_PERIOD {
                    looked = Instant::now();
                    graph.send_replace(snapshot(&node, &topics));
                }
            }
        })?;
        Ok((Self { stop, thread }, watched))
    }

    /// Stops spinning and destroys the node.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        if self.thread.join().is_err() {
            tracing::error!("the ROS thread panicked; this is a bug");
        }
    }
}

fn snapshot(node: &r2r::Node, topics: &[String]) -> GraphSnapshot {
    let mut graph = GraphSnapshot::new();
    for topic in topics {
        let Ok(infos) = node.get_publishers_info_by_topic(topic, false) else { continue };
        let mut publishers = Publishers::default();
        for info in infos {
            let namespace = info.node_namespace.trim_end_matches('/');
            publishers.nodes.push(format!("{namespace}/{}", info.node_name));
            publishers.types.push(info.topic_type);
            publishers.any_volatile |= info.qos_profile.durability == r2r::qos::DurabilityPolicy::Volatile;
        }
        publishers.nodes.sort();
        publishers.types.sort();
        publishers.types.dedup();
        graph.insert(topic.clone(), publishers);
    }
    graph
}
