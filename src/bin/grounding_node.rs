//! The ROS 2 node: arguments, signals, exit code.

use std::process::ExitCode;

use language_grounding::model::{Model, ModelError, ModelOptions};
use language_grounding::ros::{keep_image_memory, node, without_ros_args};
use language_grounding::score::ensemble;
use tokio::signal::unix::{SignalKind, signal};

const HELP: &str = "\
Grounds instructions in camera images: the ROS 2 node of language_grounding.

Usage: grounding_node [--ros-args [-p NAME:=VALUE] [--params-file FILE] [-r FROM:=TO] ...]

Options:
  -h, --help     Print this
  -V, --version  Print the version

Parameters are described in docs/parameters.md and by `ros2 param describe`, topics and services in docs/interfaces.md;
`ground config` prints a parameter file with all defaults.
";

fn main() -> ExitCode {
    // The first is the program itself.
    if let Some(argument) = without_ros_args(std::env::args()).get(1) {
        return answer(argument);
    }
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

/// What is not for ROS.
#[allow(clippy::print_stdout, clippy::print_stderr, reason = "there is no node yet that could log")]
fn answer(argument: &str) -> ExitCode {
    match argument {
        "-h" | "--help" => print!("{HELP}"),
        "-V" | "--version" => println!("grounding_node {}", env!("CARGO_PKG_VERSION")),
        unknown => {
            eprintln!(
                "grounding_node: expected --help, --version or --ros-args ..., got {unknown:?}: parameters are given as \
                 --ros-args -p NAME:=VALUE"
            );
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
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
