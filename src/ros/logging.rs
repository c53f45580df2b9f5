//! `tracing` events to the ROS console (which honors `--log-level`) and to /rosout, which r2r does not publish itself.

use std::fmt::Write as _;
use std::sync::Arc;

use parking_lot::Mutex;
use r2r::rcl_interfaces::msg::Log;
use r2r::{Clock, Publisher, QosProfile};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

/// Sends this crate's events to the console and to /rosout from now on. May be called once per process.
pub fn init(node: &mut r2r::Node) -> r2r::Result<()> {
    let qos = QosProfile::default().keep_last(1000).reliable().transient_local();
    let layer = RosLayer {
        logger: node.logger().to_owned(),
        rosout: Mutex::new(node.create_publisher("/rosout", qos)?),
        clock: node.get_ros_clock(),
    };
    // A second initialization would be a second node in one process: its events go where the first one's go.
    tracing_subscriber::registry().with(layer).try_init().ok();
    Ok(())
}

struct RosLayer {
    logger: String,
    /// A publisher is `Send` but not `Sync`.
    rosout: Mutex<Publisher<Log>>,
    clock: Arc<std::sync::Mutex<Clock>>,
}

impl<S: Subscriber> tracing_subscriber::Layer<S> for RosLayer {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let metadata = event.metadata();
        if !(metadata.target().starts_with("language_grounding") || metadata.target() == "grounding_node") {
            return;
        }
        let mut text = Sentence(String::new());
        event.record(&mut text);
        let Sentence(msg) = text;
        let (level, severity) = match *metadata.level() {
            Level::ERROR => (Log::ERROR as u8, r2r::LogSeverity::Error),
            Level::WARN => (Log::WARN as u8, r2r::LogSeverity::Warn),
            Level::INFO => (Log::INFO as u8, r2r::LogSeverity::Info),
            Level::DEBUG | Level::TRACE => (Log::DEBUG as u8, r2r::LogSeverity::Debug),
        };
        let file = metadata.file().unwrap_or_default();
        let line = metadata.line().unwrap_or_default();
        // rcutils takes C strings.
        r2r::log(&msg.replace('\0', " "), &self.logger, file, line, severity);
        if *metadata.level() > Level::INFO {
            return;
        }
        let stamp = self.clock.lock().ok().and_then(|mut clock| clock.get_now().ok()).unwrap_or_default();
        let log = Log {
            stamp: Clock::to_builtin_time(&stamp),
            level,
            name: self.logger.clone(),
            msg,
            file: file.to_owned(),
            line,
            ..Default::default()
        };
        // Fails only when the node is gone, and then nobody listens.
        self.rosout.lock().publish(&log).ok();
    }
}

/// An event's message, followed by its fields as `name=value`.
struct Sentence(String);

impl Visit for Sentence {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing to a String cannot fail.
        if field.name() == "message" {
            write!(self.0, "{value:?}").ok();
        } else {
            write!(self.0, " {}={value:?}", field.name()).ok();
        }
    }
}
