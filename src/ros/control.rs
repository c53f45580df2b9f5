//! The work behind the lifecycle's transitions: loading the model and dropping it.

use std::time::Instant;

use tokio::sync::mpsc;

use super::lifecycle::{Lifecycle, Transition, TransitionRequest, find_transition};
use crate::engine::ports::Ports;
use crate::engine::state::State;
use crate::model::worker::ModelWorker;
use crate::model::{Model, ModelError, ModelInfo, ModelOptions};

/// How a model is loaded: from its name or directory. Told how far that is, in words.
pub type LoadModel = fn(
    model: &str,
    options: &ModelOptions,
    on_progress: &mut dyn FnMut(String),
) -> Result<Box<dyn Model>, ModelError>;

/// Carries transitions out, and keeps the model meanwhile.
pub struct Control {
    lifecycle: Lifecycle,
    ports: Ports,
    load: LoadModel,
    worker: Option<ModelWorker>,
}

/// Why the node could not be configured.
#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error("{0}")]
    Thread(#[from] std::io::Error),
    #[error("loading the model broke off; this is a bug")]
    BrokeOff,
    #[error("{0}")]
    Model(#[from] ModelError),
}

impl Control {
    /// With no model loaded yet.
    pub fn new(lifecycle: Lifecycle, ports: Ports, load: LoadModel) -> Self {
        Self { lifecycle, ports, load, worker: None }
    }

    /// Carries out what is asked for as long as the node lives; with `autostart`, first configures and activates.
    pub async fn run(mut self, mut requests: mpsc::Receiver<TransitionRequest>, autostart: bool) {
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

    async fn carry_out(&mut self, transition: Transition) -> bool {
        self.lifecycle.begin(transition);
        let done = match transition.goal {
            State::Inactive if transition.start == State::Unconfigured => self.load_model().await,
            State::Unconfigured | State::Finalized => {
                self.drop_model().await;
                Ok(())
            }
            _ => Ok(()),
        };
        self.lifecycle.finish(transition, done.is_ok());
        match done {
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

    async fn load_model(&mut self) -> Result<(), LoadError> {
        let started = Instant::now();
        let loaded = self.start_worker().await;
        if let Ok(info) = &loaded {
            tracing::info!(
                "{} ({}) on {}, loaded in {:.2} s{}",
                info.name,
                info.model_type,
                info.device,
                started.elapsed().as_secs_f64(),
                if info.synthetic { "; trained on rendered scenes only" } else { "" }
            );
        }
        self.ports.monitor.set_model(Some(loaded.as_ref().cloned().map_err(ToString::to_string)));
        loaded.map(drop)
    }

    async fn start_worker(&mut self) -> Result<ModelInfo, LoadError> {
        let (name, options) = {
            let config = self.ports.config.borrow();
            (config.model.clone(), config.model_options.clone())
        };
        let (monitor, load) = (self.ports.monitor.clone(), self.load);
        let load = move || load(&name, &options, &mut |progress| monitor.set_loading(progress));
        let (worker, loaded) = ModelWorker::spawn(load)?;
        let info = loaded.await.map_err(|_| LoadError::BrokeOff)??;
        *self.ports.model.lock() = Some(worker.handle());
        self.worker = Some(worker);
        Ok(info)
    }

    async fn drop_model(&mut self) {
        *self.ports.model.lock() = None;
        let worker = self.worker.take();
        // Joins the model's thread, which may be at work.
        tokio::task::spawn_blocking(move || drop(worker)).await.ok();
        self.ports.monitor.set_model(None);
    }
}
