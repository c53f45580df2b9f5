//! The ROS 2 node: arguments, signals, exit code.

use std::process::ExitCode;

use language_grounding::model::candle::load_model_by_name;
use language_grounding::model::given::{GivenDetections, GivenFile};
use language_grounding::model::{ModelError, ModelOptions, VisionLanguageModel};
use language_grounding::ros::{keep_image_memory, node};
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

/// A checkpoint by directory or name, downloaded if need be; or `given:FILE.json`, boxes that somebody else found, as a list of
/// `{"phrase", "bbox": [x0, y0, x1, y1], "score"}`, or `{"delay_ms", "boxes"}` to find them as slowly as a real model: for a scene that
/// stands still, and for tests of all but the model.
fn load(
    model: &str,
    options: &ModelOptions,
    on_progress: &mut dyn FnMut(String),
) -> Result<Box<dyn VisionLanguageModel>, ModelError> {
    let Some(path) = model.strip_prefix("given:") else {
        return load_model_by_name(model, options, &mut |name, progress| {
            on_progress(progress.sentence(name));
        });
    };
    let refused = |problem: String| ModelError::Checkpoint { path: path.to_owned(), problem };
    let text = std::fs::read_to_string(path).map_err(|error| refused(error.to_string()))?;
    let file: GivenFile = serde_json::from_str(&text).map_err(|error| refused(error.to_string()))?;
    Ok(Box::new(GivenDetections::from(file)))
}
