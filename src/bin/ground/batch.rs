//! Many questions from a file: one JSON object a line in, one a line out, in the same order.

use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use language_grounding::camera::PinholeCamera;
use language_grounding::detection::Detection2d;
use language_grounding::image::{DepthUnit, RgbImage, RgbdFrame};
use language_grounding::instruction::Vocabulary;
use language_grounding::model::Model;
use language_grounding::model::precomputed::Precomputed;
use language_grounding::options::PipelineOptions;
use language_grounding::report;
use language_grounding::result::Status;
use serde::Deserialize;
use serde_json::Value;

use crate::input::Upright;
use crate::{Answer, LazyModel, input};

/// One line of the input; unknown keys are left alone.
#[derive(Deserialize)]
struct Query {
    image: PathBuf,
    depth: Option<PathBuf>,
    #[serde(rename = "K")]
    k: Option<Intrinsics>,
    instruction: String,
    candidates: Option<Vec<Detection2d>>,
}

/// The 3x3 matrix, by rows or flat.
#[derive(Deserialize)]
#[serde(untagged)]
enum Intrinsics {
    Rows([[f64; 3]; 3]),
    Flat([f64; 9]),
}

impl Intrinsics {
    fn k(self) -> [f64; 9] {
        match self {
            Self::Flat(k) => k,
            Self::Rows([a, b, c]) => [a[0], a[1], a[2], b[0], b[1], b[2], c[0], c[1], c[2]],
        }
    }
}

/// Questions about one image usually follow each other: it is read once, and the model sees one key.
struct CachedImage {
    path: PathBuf,
    upright: Upright,
    key: u64,
    image: RgbImage,
}

/// Answers every line of `queries` into `output` (standard output without one). Returns how many of how many gave ERROR.
pub(crate) fn run(
    queries: &Path,
    output: Option<&Path>,
    model: &mut LazyModel,
    vocabulary: &Vocabulary,
    options: &PipelineOptions,
    depth_unit: DepthUnit,
) -> anyhow::Result<(usize, usize)> {
    let open =
        || File::open(queries).with_context(|| format!("cannot read the queries {}", queries.display()));
    let lines: Vec<String> = BufReader::new(open()?)
        .split(b'\n')
        .map(|it| it.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
        .collect::<Result<_, _>>()
        .with_context(|| format!("cannot read the queries {}", queries.display()))?;
    let mut output: Box<dyn Write> = match output {
        Some(path) => Box::new(BufWriter::new(
            File::create(path).with_context(|| format!("cannot write the results {}", path.display()))?,
        )),
        None => Box::new(std::io::stdout().lock()),
    };
    let dir = queries.parent().unwrap_or(Path::new(""));
    let n_queries = lines.iter().filter(|it| !it.trim().is_empty()).count();
    // Drawn on standard error, and by itself only where that is a terminal.
    let progress = ProgressBar::new(n_queries as u64)
        .with_style(ProgressStyle::with_template("{bar:40} {pos}/{len} {eta} left").context("progress bar")?);
    let mut cache = None;
    let mut n_failed = 0;
    for (line_idx, line) in lines.iter().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let parsed: Result<Value, _> = serde_json::from_str(line);
        let id = match parsed.as_ref().ok().and_then(|it| it.get("id")) {
            Some(id) => id.clone(),
            None => Value::from(line_idx + 1),
        };
        let result = parsed
            .with_context(|| format!("line {} is not JSON", line_idx + 1))
            .and_then(|it| answer(it, dir, &mut cache, model, vocabulary, options, depth_unit));
        if result.as_ref().map_or(true, |it| it.result.status == Status::Error) {
            n_failed += 1;
        }
        let json = match result {
            Ok(answer) => report::result_to_json(&id, &answer.result, &answer.latency_ms),
            Err(err) => report::error_to_json(&id, &format!("{err:#}")),
        };
        writeln!(output, "{json}").context("cannot write a result")?;
        progress.inc(1);
    }
    progress.finish_and_clear();
    output.flush().context("cannot write the results")?;
    Ok((n_failed, n_queries))
}

fn answer(
    line: Value,
    dir: &Path,
    cache: &mut Option<CachedImage>,
    model: &mut LazyModel,
    vocabulary: &Vocabulary,
    options: &PipelineOptions,
    depth_unit: DepthUnit,
) -> anyhow::Result<Answer> {
    let query: Query = serde_json::from_value(line)
        .context("expected {\"id\", \"image\", \"depth\"?, \"K\"?, \"instruction\", \"candidates\"?}")?;
    let path = dir.join(&query.image);
    let upright =
        if query.depth.is_some() || query.k.is_some() { Upright::AsStored } else { Upright::AsHeld };
    if cache.as_ref().is_none_or(|it| it.path != path || it.upright != upright) {
        let key = cache.as_ref().map_or(1, |it| it.key + 1);
        *cache = None;
        *cache = Some(CachedImage { image: input::load_image(&path, upright)?, path, upright, key });
    }
    let Some(CachedImage { key, image, .. }) = cache.as_ref() else { bail!("no image; this is a bug") };
    let (width, height) = image.dimensions();
    let camera = query.k.map(|it| PinholeCamera::from_k(width, height, &it.k())).transpose()?;
    let depth = query.depth.map(|it| input::load_depth(&dir.join(it), depth_unit)).transpose()?;
    let options = PipelineOptions { use_depth: options.use_depth && depth.is_some(), ..options.clone() };
    let frame =
        RgbdFrame { key: *key, image: image.clone(), depth, camera, frame_id: String::new(), stamp_ns: 0 };
    if let Some(candidates) = query.candidates {
        for candidate in &candidates {
            let is_score = (0.0..=1.0).contains(&candidate.score);
            ensure!(
                is_score,
                "candidate {:?}: expected a score in [0, 1], got {}",
                candidate.phrase,
                candidate.score
            );
        }
        let mut given = Precomputed::new(candidates);
        return Ok(crate::ask(vocabulary, &mut given, &frame, &query.instruction, &options));
    }
    let model: &mut dyn Model = model.get()?;
    Ok(crate::ask(vocabulary, model, &frame, &query.instruction, &options))
}
