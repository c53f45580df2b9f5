//! The node: everything of this folder put together, from the first argument to the last goodbye.

use std::collections::BTreeSet;
use std::future::Future;
use std::panic::catch_unwind;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use r2r::diagnostic_msgs::msg::DiagnosticArray;
use r2r::std_msgs::msg::String as Text;
use r2r::{Clock, ParameterValue, Publisher, QosProfile};
use tokio::sync::{mpsc, watch};

use super::depth::DepthRegistrar;
use super::diagnostics::{Monitor, Surroundings};
use super::engine::{Conversation, Engine, ModelSlot};
use super::inputs::Inputs;
use super::lifecycle::{Lifecycle, State, Transition, TransitionRequest, find_transition};
use super::parameters::{self, Declaration, ParametersError, Range, Values};
use super::publish::ResultPublisher;
use super::remap::Remapping;
use super::tracking::{self, Tracking};
use super::transforms::TransformListener;
use super::{GraphSnapshot, Spinner, logging, now_ns, services};
use crate::config::{Change, Config, PARAMETERS, ParameterRange, ParameterValue as Value, RawConfig};
use crate::config_files;
use crate::instruction::Vocabulary;
use crate::model::worker::ModelWorker;
use crate::model::{ModelError, ModelOptions, VisionLanguageModel};

/// The default name of the node.
pub const NODE_NAME: &str = "language_grounding";
/// Requests that may wait for the engine.
const MAX_WAITING_REQUESTS: usize = 16;
const DIAGNOSTICS_PERIOD: Duration = Duration::from_secs(1);

/// How a model is loaded: from its name or directory. Told how far that is, in words.
pub type LoadModel = fn(
    model: &str,
    options: &ModelOptions,
    on_progress: &mut dyn FnMut(String),
) -> Result<Box<dyn VisionLanguageModel>, ModelError>;

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
    let inputs = Inputs::subscribe(&mut node, &names, &config)?;
    let transforms = TransformListener::subscribe(&mut node, config.transform_cache, &monitor)?;
    let publisher = ResultPublisher::new(&mut node)?;
    let diagnostics = node.create_publisher("/diagnostics", QosProfile::default())?;
    let (lifecycle, transitions) = Lifecycle::serve(&mut node)?;
    let (requests, waiting_requests) = mpsc::channel(MAX_WAITING_REQUESTS);
    services::serve(&mut node, &requests)?;
    let instructions = subscribe_instructions(&mut node)?;
    let clock = node.get_ros_clock();
    let full_name = node.fully_qualified_name()?;

    let mut watched: Vec<String> = inputs.stats().into_iter().map(|it| it.topic).collect();
    watched.push("/tf_static".to_owned());
    let (spinner, graph) = Spinner::start_watching(node, watched)?;
    let model = ModelSlot::default();
    let config = config_of(settings);
    let dialogue_window = config.borrow().dialogue_window;
    let vocabulary = Arc::new(Vocabulary::default());
    let tracking = Tracking::default();
    let depth = DepthRegistrar::new(transforms.clone());
    let publisher = Arc::new(Mutex::new(publisher));
    tokio::spawn(tracking.clone().run(tracking::Surroundings {
        inputs: inputs.clone(),
        transforms: transforms.clone(),
        depth: depth.clone(),
        config: config.clone(),
        state: lifecycle.watch(),
        publisher: Arc::clone(&publisher),
        monitor: monitor.clone(),
    }));
    let engine = Engine {
        inputs: inputs.clone(),
        transforms,
        depth,
        tracking,
        remembered_plane: Mutex::default(),
        config: config.clone(),
        state: lifecycle.watch(),
        graph: graph.clone(),
        model: Arc::clone(&model),
        publisher,
        monitor: monitor.clone(),
        clock: Arc::clone(&clock),
        topic_conversation: Conversation::new(dialogue_window, Arc::clone(&vocabulary)),
        request_conversation: Conversation::new(dialogue_window, vocabulary),
    };
    tokio::spawn(engine.run(waiting_requests, instructions));
    let reporter = Reporter {
        node: full_name,
        publisher: diagnostics,
        inputs,
        graph,
        state: lifecycle.watch(),
        config: config.clone(),
        monitor: monitor.clone(),
        clock,
    };
    tokio::spawn(reporter.run());
    let control = Control { lifecycle, model, config, load, monitor };
    tokio::spawn(control.run(transitions, autostart));

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
        range: Range::Any,
        description: description.to_owned(),
        constraints: String::new(),
        read_only: true,
    });
    let of_config = PARAMETERS.iter().map(|parameter| {
        let unit = if parameter.unit.is_empty() { String::new() } else { format!(" [{}]", parameter.unit) };
        let (range, constraints) = match parameter.range {
            ParameterRange::Any => (Range::Any, String::new()),
            ParameterRange::Integer { min, max } => (Range::Integer(min, max), String::new()),
            ParameterRange::Float { min, max } => (Range::Double(min, max), String::new()),
            ParameterRange::Choice(choices) => (Range::Any, format!("one of: {}", choices.join(", "))),
        };
        Declaration {
            name: parameter.name.to_owned(),
            default: match parameter.default() {
                Value::Bool(it) => ParameterValue::Bool(it),
                Value::Integer(it) => ParameterValue::Integer(it),
                Value::Float(it) => ParameterValue::Double(it),
                Value::Text(it) => ParameterValue::String(it),
            },
            range,
            description: format!("{}{unit}", parameter.description),
            constraints,
            read_only: parameter.change == Change::ReadOnly,
        }
    });
    of_config.chain(of_node).collect()
}

fn validate(values: &Values) -> Result<Settings, String> {
    let mut raw = RawConfig::default();
    for parameter in PARAMETERS {
        let value = match values.get(parameter.name) {
            Some(ParameterValue::Bool(it)) => Value::Bool(*it),
            Some(ParameterValue::Integer(it)) => Value::Integer(*it),
            Some(ParameterValue::Double(it)) => Value::Float(*it),
            Some(ParameterValue::String(it)) => Value::Text(it.clone()),
            // Declared with its default, and changes keep the type.
            _ => continue,
        };
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

/// Carries transitions out.
struct Control {
    lifecycle: Lifecycle,
    model: ModelSlot,
    config: watch::Receiver<Arc<Config>>,
    load: LoadModel,
    monitor: Monitor,
}

impl Control {
    async fn run(self, mut requests: mpsc::Receiver<TransitionRequest>, autostart: bool) {
        if autostart {
            for label in ["configure", "activate"] {
                let state = *self.lifecycle.watch().borrow();
                let Some(transition) = find_transition(state, 0, label) else { break };
                if !self.carry_out(transition).await {
                    break;
                }
            }
        }
        while let Some(TransitionRequest { transition, done }) = requests.recv().await {
            // It may have been asked for while another one was carried out.
            let is_current = *self.lifecycle.watch().borrow() == transition.start;
            let success = is_current && self.carry_out(transition).await;
            done.send(success).ok();
        }
    }

    async fn carry_out(&self, transition: Transition) -> bool {
        self.lifecycle.begin(transition);
        let outcome = match transition.goal {
            State::Inactive if transition.start == State::Unconfigured => self.load_model().await,
            State::Unconfigured | State::Finalized => {
                self.drop_model().await;
                Ok(())
            }
            _ => Ok(()),
        };
        self.lifecycle.finish(transition, outcome.is_ok());
        match outcome {
            Ok(()) => {
                tracing::info!(
                    "{}: {} -> {}",
                    transition.label,
                    transition.start.label(),
                    transition.goal.label()
                );
                true
            }
            Err(problem) => {
                tracing::error!("{} failed: {problem}", transition.label);
                false
            }
        }
    }

    async fn load_model(&self) -> Result<(), String> {
        let (name, options, load) = {
            let config = self.config.borrow();
            (config.model.clone(), config.model_options.clone(), self.load)
        };
        let started = Instant::now();
        let loaded = async {
            let monitor = self.monitor.clone();
            let load = move || load(&name, &options, &mut |progress| monitor.set_loading(progress));
            let (worker, loaded) = ModelWorker::spawn(load).map_err(|error| error.to_string())?;
            let info = loaded.await.map_err(|_| "loading the model broke off; this is a bug".to_owned())?;
            Ok::<_, String>((worker, info.map_err(|error| error.to_string())?))
        };
        let outcome = loaded.await.map(|(worker, info)| {
            *self.model.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(worker));
            tracing::info!(
                "{} ({}) on {}, loaded in {:.2} s{}",
                info.name,
                info.model_type,
                info.device,
                started.elapsed().as_secs_f64(),
                if info.synthetic { "; trained on rendered scenes only" } else { "" }
            );
            info
        });
        self.monitor.set_model(Some(outcome.clone()));
        outcome.map(drop)
    }

    async fn drop_model(&self) {
        let worker = self.model.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Joins the model's thread, which may be at work.
        tokio::task::spawn_blocking(move || drop(worker)).await.ok();
        self.monitor.set_model(None);
    }
}

/// Tells /diagnostics.
struct Reporter {
    node: String,
    publisher: Publisher<DiagnosticArray>,
    inputs: Inputs,
    graph: watch::Receiver<GraphSnapshot>,
    state: watch::Receiver<State>,
    config: watch::Receiver<Arc<Config>>,
    monitor: Monitor,
    clock: Arc<Mutex<Clock>>,
}

impl Reporter {
    async fn run(self) {
        let mut before = (self.inputs.stats(), Instant::now());
        let mut ticks = tokio::time::interval(DIAGNOSTICS_PERIOD);
        let mut told = BTreeSet::new();
        ticks.tick().await;
        loop {
            ticks.tick().await;
            let inputs = self.inputs.stats();
            let report = {
                let graph = self.graph.borrow();
                let around = Surroundings {
                    inputs: &inputs,
                    inputs_before: &before.0,
                    elapsed: before.1.elapsed(),
                    graph: &graph,
                    state: *self.state.borrow(),
                    max_age: self.config.borrow().max_frame_age,
                    now_ns: now_ns(&self.clock),
                };
                self.monitor.report(&self.node, &around)
            };
            // Once in the log, for those who do not watch /diagnostics; the numbers in it change every second.
            for status in report.status.iter().filter(|it| it.level > 0) {
                let kind: String = status.message.chars().filter(|it| !it.is_ascii_digit()).collect();
                if told.len() < 100 && told.insert(kind) {
                    tracing::warn!("{}", status.message);
                }
            }
            if self.publisher.publish(&report).is_err() {
                return;
            }
            before = (inputs, Instant::now());
        }
    }
}
