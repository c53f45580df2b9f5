//! The pipeline without ROS: an image or a batch file in, JSON out.

mod batch;
mod calibrate;
mod input;
mod models;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use clap::{Args, Parser, Subcommand};
use language_grounding::config::{Config, RawConfig};
use language_grounding::image::{RgbImage, RgbdFrame};
use language_grounding::instruction::{Vocabulary, parse_to_json};
use language_grounding::model::{KeyedImage, Model, ModelOptions, RawTask};
use language_grounding::options::PipelineOptions;
use language_grounding::result::{GroundingResult, Stage, Status};
use language_grounding::score::ensemble;
use language_grounding::{annotate, config_files, pipeline, report};
use serde_json::{Value, json};

use self::input::Upright;

/// Find what an instruction refers to in an image, and where it is.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    ground: GroundArguments,
}

#[derive(Args)]
struct GroundArguments {
    /// What to do with what, such as "pick up the red cup".
    instruction: Option<String>,
    /// Color image (JPEG or PNG).
    #[arg(long)]
    image: Option<PathBuf>,
    /// Depth registered to the image: 16-bit PNG in millimeters (see --depth-scale), 0 = none.
    #[arg(long, requires = "camera")]
    depth: Option<PathBuf>,
    /// Meters per unit of the depth image, such as 0.001 (millimeters) or 0.00025; otherwise depth_scale of --config.
    #[arg(long, value_name = "METERS")]
    depth_scale: Option<f64>,
    /// Calibration of the (rectified) image, as ROS camera calibration files.
    #[arg(long)]
    camera: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArguments,
    /// Draw the result on the image and save it here (PNG or JPEG).
    #[arg(long)]
    annotate: Option<PathBuf>,
    /// Describe the image instead, or answer a question about it.
    #[arg(long, value_name = "QUESTION", num_args = 0..=1, default_missing_value = "")]
    describe: Option<String>,
    /// Answer every line of a JSON Lines file: {"id", "image", "depth"?, "K"?, "instruction", "candidates"?}. Fails in the end
    /// when a line gave ERROR; the others are answered all the same.
    #[arg(long, value_name = "QUERIES", conflicts_with_all = ["image", "depth", "camera", "annotate", "describe", "instruction"])]
    batch: Option<PathBuf>,
    /// Where the answers go; standard output without it.
    #[arg(long, requires = "batch")]
    output: Option<PathBuf>,
    /// ROS parameter file, as the node takes it.
    #[arg(long)]
    config: Option<PathBuf>,
    /// File of words that adds to the built-in vocabulary, as the parameter `vocabulary`.
    #[arg(long)]
    vocabulary: Option<PathBuf>,
}

#[derive(Args)]
struct ModelArguments {
    /// Model directory, name of a shipped model, or owner/name[@revision] on the Hugging Face hub.
    #[arg(long)]
    model: Option<String>,
    /// auto, cpu, cuda or cuda:N.
    #[arg(long)]
    device: Option<String>,
    /// How the model writes: beam or greedy.
    #[arg(long)]
    decode: Option<String>,
    /// How the model keeps its weights: none (as they are), auto (the fastest here), bf16, int8 (CPU) or f16 (GPU).
    #[arg(long)]
    quantize: Option<String>,
    /// Let a generative model answer with boxes of the asked phrase only.
    #[arg(long)]
    limit_to_locations: bool,
    /// A second model (CLIP or SigLIP) that looks at each box again.
    #[arg(long)]
    verifier: Option<String>,
    /// A second model (OWLv2 or Florence-2) that is asked the same: how well it agrees with each box.
    #[arg(long)]
    second_model: Option<String>,
}

#[derive(Subcommand)]
enum Command {
    /// Print what the words mean, as JSON.
    Parse {
        /// The words.
        instruction: String,
        /// File of words that adds to the built-in vocabulary, as the parameter `vocabulary`.
        #[arg(long)]
        vocabulary: Option<PathBuf>,
    },
    /// Run one of the model's own tasks and print all of its output, as JSON.
    Task {
        /// The model's name for it, such as CAPTION; for a detector `detect` or `image_guided`.
        #[arg(long)]
        task: String,
        /// Color image (JPEG or PNG).
        #[arg(long)]
        image: PathBuf,
        /// Words, or a region as "x0,y0,x1,y1" in pixels, for tasks that need them; "red cup;laptop" for detect.
        #[arg(long)]
        text: Option<String>,
        /// 1 decodes greedily.
        #[arg(long, default_value_t = 1)]
        beams: usize,
        /// List a detector's boxes above this score.
        #[arg(long, default_value_t = 0.1)]
        threshold: f32,
        /// An image of what to look for (JPEG or PNG), for image_guided.
        #[arg(long)]
        example: Option<PathBuf>,
        #[command(flatten)]
        model: ModelArguments,
    },
    /// Fit one score to labeled boxes and print how far it can be trusted.
    Calibrate {
        /// JSON Lines file: {"score_parts": {NAME: NUMBER, ...}, "correct": true or false}, parts as in results.
        labeled: PathBuf,
        /// Where the weights go, for the parameter `score_weights`; none are written without it.
        #[arg(long)]
        output: Option<PathBuf>,
        /// What the labels are of; kept with the weights.
        #[arg(long, default_value = "")]
        fitted_on: String,
    },
    /// List, download and check models.
    Models {
        #[command(subcommand)]
        command: models::ModelsCommand,
    },
    /// Print the parameters with their defaults, as a ROS parameter file.
    Config,
}

/// A result and how long its stages took.
pub(crate) struct Answer {
    pub(crate) result: GroundingResult,
    pub(crate) latency_ms: Vec<(Stage, f64)>,
}

/// Loaded when first needed: a batch with candidates needs none.
pub(crate) struct LazyModel {
    name: String,
    options: ModelOptions,
    model: Option<Box<dyn Model>>,
}

impl LazyModel {
    pub(crate) fn get(&mut self) -> anyhow::Result<&mut dyn Model> {
        if self.model.is_none() {
            let mut bar = models::FetchBar::default();
            let model = ensemble::load(&self.name, &self.options, &mut |name, progress| {
                bar.show(name, progress);
            })?;
            self.model = Some(model);
        }
        Ok(self.model.as_mut().context("the model was just loaded; this is a bug")?.as_mut())
    }
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(code) => code,
        Err(err) => {
            eprintln!("ground: {err:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.command {
        Some(Command::Parse { instruction, vocabulary }) => {
            let raw = RawConfig { vocabulary: path_text(vocabulary.as_deref()), ..RawConfig::default() };
            print_json(&parse_to_json(&instruction, &config_files::open(raw)?.vocabulary))?;
            Ok(ExitCode::SUCCESS)
        }
        Some(Command::Task { task, image, text, beams, threshold, example, model }) => {
            let config = load_config(None, None, None, model)?;
            let mut model = LazyModel { name: config.model, options: config.model_options, model: None };
            let image = input::load_image(&image, Upright::AsHeld)?;
            let example = example.map(|it| input::load_image(&it, Upright::AsHeld)).transpose()?;
            let task = RawTask {
                name: &task,
                text: text.as_deref(),
                threshold,
                example: example.as_ref(),
                n_beams: beams,
            };
            let output = model.get()?.raw_task(KeyedImage::whole(0, &image), &task)?;
            print_json(&serde_json::to_value(output)?)?;
            Ok(ExitCode::SUCCESS)
        }
        Some(Command::Calibrate { labeled, output, fitted_on }) => {
            calibrate::run(&labeled, output.as_deref(), &fitted_on)?;
            Ok(ExitCode::SUCCESS)
        }
        Some(Command::Models { command }) => models::run(&command),
        Some(Command::Config) => {
            print!("{}", RawConfig::default().to_ros_yaml());
            Ok(ExitCode::SUCCESS)
        }
        None => ground(arguments.ground),
    }
}

fn ground(arguments: GroundArguments) -> anyhow::Result<ExitCode> {
    if let Some(path) = &arguments.annotate {
        let format = image::ImageFormat::from_path(path).ok();
        ensure!(
            matches!(format, Some(image::ImageFormat::Png | image::ImageFormat::Jpeg)),
            "expected --annotate FILE.png or FILE.jpg, got {}",
            path.display()
        );
    }
    let config = load_config(
        arguments.config.as_deref(),
        arguments.vocabulary.as_deref(),
        arguments.depth_scale,
        arguments.model,
    )?;
    let mut model =
        LazyModel { name: config.model.clone(), options: config.model_options.clone(), model: None };
    let vocabulary = config.vocabulary.as_ref();
    if let Some(queries) = &arguments.batch {
        let (n_failed, n_queries) = batch::run(
            queries,
            arguments.output.as_deref(),
            &mut model,
            vocabulary,
            &config.pipeline,
            config.depth_unit,
        )?;
        if 0 < n_failed {
            eprintln!("ground: {n_failed} of {n_queries} lines gave ERROR; each says why in its message");
            return Ok(ExitCode::FAILURE);
        }
        return Ok(ExitCode::SUCCESS);
    }

    let path = arguments.image.context("expected --image IMAGE or --batch QUERIES; see --help")?;
    let is_measured = arguments.depth.is_some() || arguments.camera.is_some();
    let image = input::load_image(&path, if is_measured { Upright::AsStored } else { Upright::AsHeld })?;
    if let Some(question) = arguments.describe {
        let pixels = &image;
        let image = KeyedImage::whole(0, &image);
        let model = model.get()?;
        let text =
            if question.is_empty() { model.caption(image, None)? } else { model.answer(image, &question)? };
        let label = model.info().label();
        print_json(&json!({ "question": question, "text": text, "model": label }))?;
        if let Some(path) = &arguments.annotate {
            save(&annotate::draw_words(pixels, &question, &text, &label), path)?;
        }
        return Ok(ExitCode::SUCCESS);
    }

    let instruction =
        arguments.instruction.context("expected an INSTRUCTION, such as \"pick up the red cup\"")?;
    let camera = arguments.camera.as_deref().map(input::load_camera).transpose()?;
    let depth = arguments.depth.as_deref().map(|it| input::load_depth(it, config.depth_unit)).transpose()?;
    let options = PipelineOptions { use_depth: depth.is_some(), ..config.pipeline };
    let frame = RgbdFrame { key: 0, image, depth, camera, frame_id: String::new(), stamp_ns: 0 };
    let Answer { result, latency_ms } = ask(vocabulary, model.get()?, &frame, &instruction, &options);
    print_json(&report::result_to_json(&json!(path.display().to_string()), &result, &latency_ms))?;
    if let Some(path) = &arguments.annotate {
        save(&annotate::draw(&frame.image, &result, frame.camera.as_ref()), path)?;
    }
    Ok(if result.status == Status::Error { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn save(drawn: &RgbImage, path: &Path) -> anyhow::Result<()> {
    drawn.save(path).with_context(|| format!("cannot write the annotated image {}", path.display()))
}

/// Runs the pipeline with a clock beside it.
pub(crate) fn ask(
    vocabulary: &Vocabulary,
    model: &mut dyn Model,
    frame: &RgbdFrame,
    instruction: &str,
    options: &PipelineOptions,
) -> Answer {
    let mut latency_ms = Vec::new();
    let mut last = Instant::now();
    let mut result = pipeline::run_text(model, frame, instruction, vocabulary, options, &mut |stage| {
        latency_ms.push((stage, last.elapsed().as_secs_f64() * 1e3));
        last = Instant::now();
    });
    pipeline::with_positions(&mut result, &frame.frame_id, None);
    Answer { result, latency_ms }
}

fn load_config(
    path: Option<&Path>,
    vocabulary: Option<&Path>,
    depth_scale: Option<f64>,
    model: ModelArguments,
) -> anyhow::Result<Config> {
    let mut raw = match path {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read the parameters {}", path.display()))?;
            RawConfig::from_ros_yaml(&text)?
        }
        None => RawConfig::default(),
    };
    if vocabulary.is_some() {
        raw.vocabulary = path_text(vocabulary);
    }
    raw.depth_scale = depth_scale.unwrap_or(raw.depth_scale);
    if let Some(name) = model.model {
        ensure!(!name.is_empty(), "expected a directory or a name for --model");
        raw.model = name;
    }
    raw.device = model.device.unwrap_or(raw.device);
    raw.decode = model.decode.unwrap_or(raw.decode);
    raw.quantize = model.quantize.unwrap_or(raw.quantize);
    raw.limit_to_locations |= model.limit_to_locations;
    raw.verifier = model.verifier.unwrap_or(raw.verifier);
    raw.second_model = model.second_model.unwrap_or(raw.second_model);
    let config = config_files::open(raw)?;
    ensure!(
        config.viewpoint_frame.is_none(),
        "expected viewpoint camera: without ROS there is no transform to {}",
        config.viewpoint_frame.unwrap_or_default()
    );
    Ok(config)
}

/// A path as a parameter has it; empty for none.
fn path_text(path: Option<&Path>) -> String {
    path.map(|it| it.display().to_string()).unwrap_or_default()
}

fn print_json(value: &Value) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value)?;
    match writeln!(std::io::stdout(), "{text}") {
        // Whoever read has read enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}
