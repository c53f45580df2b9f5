//! Publishes an RGB-D camera for machines without one: a generated tabletop scene, or a recorded bag in a loop.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Parser;
use language_grounding::ros::player::bag::BagPlayer;
use language_grounding::ros::player::simulated::{DepthEncoding, SimulatedCamera, SimulatedCameraOptions};
use language_grounding::ros::player::{ImageReliability, PlayerError};
use language_grounding::ros::{Spinner, now_ns, without_ros_args};
use tokio::signal::unix::{SignalKind, signal};

/// Publish an RGB-D camera: a generated tabletop scene, or a recorded bag in a loop.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Look at the generated scene of this seed; its ground truth goes to standard output as one line of JSON.
    #[arg(long, value_name = "SEED", required_unless_present = "bag")]
    generate: Option<u64>,
    /// Play this rosbag2 MCAP file in a loop, at its own rate, with fresh stamps.
    #[arg(long, value_name = "FILE.mcap", conflicts_with = "generate")]
    bag: Option<PathBuf>,
    /// Frames per second of the generated scene.
    #[arg(long, default_value_t = 10.0)]
    rate: f64,
    /// How many times faster than recorded the bag is played.
    #[arg(long, default_value_t = 1.0)]
    speed: f64,
    /// Image columns of the generated scene.
    #[arg(long, default_value_t = 640, value_parser = clap::value_parser!(u32).range(16..=7680))]
    width: u32,
    /// Image rows of the generated scene.
    #[arg(long, default_value_t = 480, value_parser = clap::value_parser!(u32).range(16..=4320))]
    height: u32,
    /// Encoding of the generated depth images.
    #[arg(long, default_value = "16UC1")]
    depth_encoding: DepthEncoding,
    /// Optical frame of the generated scene's camera.
    #[arg(long, default_value = "camera_color_optical_frame")]
    frame_id: String,
    /// Frame of the generated scene's table top.
    #[arg(long, default_value = "world")]
    world_frame_id: String,
    /// Publish images reliably instead of best effort.
    #[arg(long)]
    reliable: bool,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let arguments = Arguments::parse_from(without_ros_args(std::env::args()));
    anyhow::ensure!(arguments.rate.is_finite() && arguments.rate > 0.0, PlayerError::Rate(arguments.rate));
    let context = r2r::Context::create().context("cannot start ROS")?;
    let mut node = r2r::Node::create(context, "scene_player", "").context("cannot make the node")?;
    language_grounding::ros::logging::init(&mut node)?;
    // The player has no parameters of its own, but r2r obeys `use_sim_time` only where there are some.
    let (parameters, _) = node.make_parameter_handler().context("cannot serve parameters")?;
    tokio::spawn(parameters);
    let images = if arguments.reliable { ImageReliability::Reliable } else { ImageReliability::BestEffort };
    let clock = node.get_ros_clock();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();

    let player: Box<dyn FnOnce() -> Result<(), PlayerError> + Send> = if let Some(path) = &arguments.bag {
        let bag = BagPlayer::open(&mut node, path, images)?;
        let topics: Vec<&str> = bag.topics().collect();
        tracing::info!("playing {} on {}", path.display(), topics.join(", "));
        let speed = arguments.speed;
        Box::new(move || {
            bag.play(now_ns(&clock), speed, |at_ns| {
                let wait = Duration::from_nanos((at_ns - now_ns(&clock)).max(0) as u64);
                stopped.recv_timeout(wait) == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
            })
        })
    } else {
        let seed = arguments.generate.context("give --generate SEED or --bag FILE.mcap")?;
        let options = SimulatedCameraOptions {
            seed,
            width: arguments.width,
            height: arguments.height,
            frame_id: arguments.frame_id,
            world_frame_id: arguments.world_frame_id,
            depth_encoding: arguments.depth_encoding,
            reliability: images,
        };
        let mut camera = SimulatedCamera::new(&mut node, options)?;
        #[allow(clippy::print_stdout, reason = "the ground truth is this program's output")]
        {
            println!("{}", camera.ground_truth());
        }
        tracing::info!("scene {seed}: {}x{} at {} Hz", arguments.width, arguments.height, arguments.rate);
        let period = Duration::try_from_secs_f64(1.0 / arguments.rate)?;
        Box::new(move || {
            camera.publish_transform(now_ns(&clock))?;
            let mut next = Instant::now();
            loop {
                camera.publish_frame(now_ns(&clock))?;
                next = (next + period).max(Instant::now());
                let wait = next.saturating_duration_since(Instant::now());
                if stopped.recv_timeout(wait) != Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                    return Ok(());
                }
            }
        })
    };
    let spinner = Spinner::start(node)?;
    let mut playing = tokio::task::spawn_blocking(player);
    let finished = tokio::select! {
        _ = interrupt.recv() => None,
        _ = terminate.recv() => None,
        finished = &mut playing => Some(finished),
    };
    drop(stop);
    let outcome = match finished {
        Some(outcome) => outcome,
        None => playing.await,
    };
    spinner.stop();
    Ok(outcome??)
}
