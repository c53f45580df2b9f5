//! The ROS 2 node: arguments, signals, exit code.

use std::process::ExitCode;

use language_grounding::model::{Model, ModelError, ModelOptions};
use language_grounding::ros::{keep_image_memory, node};
use language_grounding::score::ensemble;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    keep_image_memory();
    let code = match run() {
        Ok(()) => 0,
        Err(error) => {
            #[allow(clippy::print_stderr, reason = "ROS logging may be what failed")]
            {
                eprintln!("grounding_node: {error:#}");
            }
            1
        }
    };
    // Not a return: a model that is still being loaded must not hold up the end.
    std::process::exit(code)
}

fn run() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        // Before anything that takes time, so that a signal ends the node cleanly in every state.
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let shutdown = async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        };
        node::run(std::env::args().collect(), load, shutdown).await?;
        Ok(())
    })
}

/// A model by name, downloaded if need be, with those that score what it finds.
fn load(
    model: &str,
    options: &ModelOptions,
    on_progress: &mut dyn FnMut(String),
) -> Result<Box<dyn Model>, ModelError> {
    ensemble::load(model, options, &mut |name, progress| on_progress(progress.sentence(name)))
}
