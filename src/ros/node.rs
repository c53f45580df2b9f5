//! The node: everything of this folder put together, from the first argument to the last goodbye.

use std::panic::catch_unwind;
use std::sync::Arc;

use futures::StreamExt as _;
use parking_lot::Mutex;
use r2r::std_msgs::msg::String as Text;
use r2r::{ParameterValue, QosProfile};
use tokio::sync::{mpsc, watch};

use super::control::{Control, LoadModel};
use super::lifecycle::Lifecycle;
use super::parameters::{self, Declaration, ParametersError, Values};
use super::publish::ResultPublisher;
use super::remap::Remapping;
use super::{Spinner, diagnostics, inputs, logging, now_ns, services, transforms};
use crate::config::{Change, Config, PARAMETERS, ParameterRange, RawConfig};
use crate::config_files;
use crate::engine::clock::StampClock;
use crate::engine::conversation::Conversation;
use crate::engine::depth::DepthRegistrar;
use crate::engine::monitor::Monitor;
use crate::engine::ports::{Limits, ModelSlot, Ports};
use crate::engine::scheduler::Scheduler;
use crate::engine::tracking::Tracking;

/// The default name of the node.
pub const NODE_NAME: &str = "language_grounding";
/// Requests that may wait for the engine.
const MAX_WAITING_REQUESTS: usize = 16;

/// Why the node could not start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The arguments for ROS are wrong.
    #[error("ROS refused the arguments: check what follows --ros-args ({0})")]
    Arguments(String),
    /// Parameters given at the start are wrong.
    #[error("{0}")]
    Parameters(#[from] ParametersError),
    /// ROS failed.
    #[error("ROS: {0}")]
    Ros(#[from] r2r::Error),
    /// A thread could not be made.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// What the parameters come to.
struct Settings {
    config: Arc<Config>,
    use_sim_time: bool,
    autostart: bool,
}

/// Runs the node until `shutdown` is ready.
pub async fn run(
    args: Vec<String>,
    load: LoadModel,
    shutdown: impl Future<Output = ()>,
) -> Result<(), NodeError> {
    // r2r panics on arguments that rcl refuses.
    let context = catch_unwind(r2r::Context::create).map_err(|panic| {
        NodeError::Arguments(panic.downcast_ref::<String>().cloned().unwrap_or_default())
    })??;
    let mut node = r2r::Node::create(context, NODE_NAME, "")?;
    logging::init(&mut node)?;
    let settings = parameters::serve(&mut node, declarations(), Box::new(validate))?;
    let (use_sim_time, autostart, config) = {
        let settings = settings.borrow();
        (settings.use_sim_time, settings.autostart, Arc::clone(&settings.config))
    };
    if use_sim_time {
        node.get_time_source().enable_sim_time(&mut node)?;
    }

    let names = Remapping::from_args(args, &node.name()?, &node.namespace()?);
    let monitor = Monitor::default();
    let inputs = inputs::subscribe(&mut node, &names, &config)?;
    let clock = node.get_ros_clock();
    let now: StampClock = Arc::new(move || now_ns(&clock));
    let transforms = transforms::subscribe(&mut node, config.transform_cache, &monitor, Arc::clone(&now))?;
    let results = ResultPublisher::new(&mut node)?;
    let diagnostics = node.create_publisher("/diagnostics", QosProfile::default())?;
    let (lifecycle, transitions) = Lifecycle::serve(&mut node)?;
    let (calls, waiting_calls) = mpsc::channel(MAX_WAITING_REQUESTS);
    services::serve(&mut node, &calls)?;
    let instructions = subscribe_instructions(&mut node)?;
    let full_name = node.fully_qualified_name()?;

    let mut watched: Vec<String> = inputs.stats().into_iter().map(|it| it.topic).collect();
    watched.push("/tf_static".to_owned());
    let (spinner, graph) = Spinner::start_watching(node, watched)?;
    let ports = Ports {
        inputs,
        depth: DepthRegistrar::new(transforms.clone()),
        transforms,
        config: config_of(settings),
        state: lifecycle.watch(),
        graph,
        model: ModelSlot::default(),
        results: Arc::new(Mutex::new(results)),
        monitor,
        now_ns: now,
        limits: Limits::default(),
    };
    let conversation = || Conversation::new(config.dialogue_window);
    let tracking = Tracking::default();
    tokio::spawn(tracking.clone().run(ports.clone()));
    let scheduler = Scheduler::new(ports.clone(), tracking, conversation(), conversation());
    tokio::spawn(scheduler.run(waiting_calls, instructions));
    tokio::spawn(diagnostics::report_health(full_name, diagnostics, ports.clone()));
    tokio::spawn(Control::new(lifecycle, ports, load).run(transitions, autostart));

    shutdown.await;
    tracing::info!("shutting down");
    spinner.stop();
    Ok(())
}

/// The node's parameters: the table of the configuration, and those that concern the node alone.
fn declarations() -> Vec<Declaration> {
    let of_node = [
        (
            "use_sim_time",
            false,
            "Take the time from /clock instead of the system; stamps of images must be of the same clock.",
        ),
        (
            "autostart",
            true,
            "Configure and activate by itself; when false, a lifecycle manager does it by the lifecycle services.",
        ),
    ];
    let of_node = of_node.into_iter().map(|(name, default, description)| Declaration {
        name: name.to_owned(),
        default: ParameterValue::Bool(default),
        range: ParameterRange::Any,
        description: description.to_owned(),
        read_only: true,
    });
    let of_config = PARAMETERS.iter().map(|parameter| {
        let unit = if parameter.unit.is_empty() { String::new() } else { format!(" [{}]", parameter.unit) };
        Declaration {
            name: parameter.name.to_owned(),
            default: parameters::to_ros(parameter.default()),
            range: parameter.range,
            description: format!("{}{unit}", parameter.description),
            read_only: parameter.change == Change::ReadOnly,
        }
    });
    of_config.chain(of_node).collect()
}

fn validate(values: &Values) -> Result<Settings, String> {
    let mut raw = RawConfig::default();
    for parameter in PARAMETERS {
        // Declared with its default, and changes keep the type.
        let Some(value) = values.get(parameter.name).and_then(parameters::from_ros) else { continue };
        raw.set(parameter.name, value).map_err(|error| error.to_string())?;
    }
    let config = config_files::open(raw).map_err(|error| error.to_string())?;
    let flag = |name: &str| matches!(values.get(name), Some(ParameterValue::Bool(true)));
    Ok(Settings {
        config: Arc::new(config),
        use_sim_time: flag("use_sim_time"),
        autostart: flag("autostart"),
    })
}

/// The part of the settings that can change, for those who need no more.
fn config_of(mut settings: watch::Receiver<Arc<Settings>>) -> watch::Receiver<Arc<Config>> {
    let (sender, receiver) = watch::channel(Arc::clone(&settings.borrow_and_update().config));
    tokio::spawn(async move {
        while settings.changed().await.is_ok() {
            let config = Arc::clone(&settings.borrow_and_update().config);
            sender.send_replace(config);
        }
    });
    receiver
}

/// Instructions one by one; a queue, because each of them is owed a result.
fn subscribe_instructions(node: &mut r2r::Node) -> r2r::Result<mpsc::Receiver<String>> {
    let qos = QosProfile::default().best_effort();
    let mut messages = node.subscribe::<Text>("instruction", qos)?;
    let (sender, receiver) = mpsc::channel(MAX_WAITING_REQUESTS);
    tokio::spawn(async move {
        while let Some(Text { data }) = messages.next().await {
            if sender.send(data).await.is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}
