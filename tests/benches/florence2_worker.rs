//! Our side of `florence2_vs_transformers.py` and `florence2_cuda.py`, beside this file: loads a checkpoint, then runs one job per
//! line of standard input and answers with one line of JSON. Also says where the time goes.
//!
//! A job is `KEY N_BEAMS TASK [TEXT]`; images with the same KEY are the same image (a formula of it, 640x480). Arguments:
//! `DIR [OPTION=VALUE ..]` with the options `device` (default: cpu), `quantize` and `limit_to_locations`.

#[path = "../parity_support/images.rs"]
mod images;

use std::io::{BufRead as _, Write as _};
use std::path::Path;
use std::time::Instant;

use language_grounding::model::registry::load;
use language_grounding::model::{KeyedImage, ModelOptions, Quantize, RawTask};
use serde_json::json;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let dir = arguments.next().ok_or("expected a checkpoint directory")?;
    let mut options = ModelOptions::on("cpu");
    for argument in arguments {
        match argument.split_once('=') {
            Some(("limit_to_locations", value)) => options.florence2.limit_to_locations = value == "true",
            Some(("device", value)) => options.device = value.to_owned(),
            Some(("quantize", value)) => {
                options.quantize = Quantize::by_name(value).ok_or("unknown value of quantize")?;
            }
            _ => return Err(format!("unknown option {argument:?}").into()),
        }
    }
    let mut model = load(Path::new(&dir), &options)?;
    let mut out = std::io::stdout();
    writeln!(
        out,
        "{}",
        json!({"ready": true, "peak_rss_mb": peak_rss_mb(), "threads": rayon::current_num_threads()})
    )?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let mut parts = line.splitn(4, ' ');
        let mut part = || parts.next().ok_or("expected KEY N_BEAMS TASK [TEXT]");
        let (key, n_beams, name) = (part()?.parse::<u64>()?, part()?.parse()?, part()?);
        let image = images::make_image(640, 480, key as i64);
        let (wall, cpu) = (Instant::now(), cpu_seconds());
        let task = RawTask { name, text: parts.next(), n_beams, ..RawTask::default() };
        let output = model.raw_task(KeyedImage::whole(key, &image), &task)?;
        let answer = json!({
            "wall_s": wall.elapsed().as_secs_f64(), "cpu_s": cpu_seconds() - cpu, "ids": output.token_ids,
            "peak_rss_mb": peak_rss_mb(),
        });
        writeln!(out, "{answer}")?;
    }
    Ok(())
}

/// User and system time of this process, from /proc (100 ticks a second); 0 where there is none.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields = after_name.split_whitespace().skip(11).take(2).filter_map(|it| it.parse::<f64>().ok());
    fields.sum::<f64>() / 100.0
}

/// The most memory this process ever had, from /proc; 0 where there is none.
fn peak_rss_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kb| kb.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}
