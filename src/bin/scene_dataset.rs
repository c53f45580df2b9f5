//! Renders scenes of many seeds to shards of raw arrays, for training and evaluation.
//!
//! Every shard `NNNNNNNNN` (its first seed) is three files: `.rgb` (u8, `[n, size, size, 3]`), `.mask` (u8,
//! `[n, size, size]`, 0 = room, object index + 1) and `.jsonl` (one scene per line: seed and objects with kind,
//! color, box in [0, 1], visible fraction, center in the world and depth of the visible surface).

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use indicatif::ProgressBar;
use language_grounding::scene::{RenderedScene, Scene, SceneConfig};
use rayon::prelude::*;
use serde_json::json;

/// Render generated scenes to training shards.
#[derive(Parser)]
struct Args {
    /// Seeds to render, as A..B (B not included).
    #[arg(long, value_parser = parse_seeds)]
    seeds: Range<u64>,
    /// Directory for the shards.
    #[arg(long)]
    out: PathBuf,
    /// Columns and rows of the square images.
    #[arg(long, default_value_t = 192)]
    size: u32,
    /// Scenes per shard.
    #[arg(long, default_value_t = 1000)]
    shard: u64,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    ensure!(args.shard > 0, "expected at least one scene per shard, got --shard 0");
    fs::create_dir_all(&args.out).with_context(|| format!("cannot make {}", args.out.display()))?;
    let progress = ProgressBar::new(args.seeds.end - args.seeds.start);
    let mut first = args.seeds.start;
    while first < args.seeds.end {
        let seeds = first..args.seeds.end.min(first + args.shard);
        first = seeds.end;
        let n = seeds.end - seeds.start;
        if args.out.join(format!("{:09}.jsonl", seeds.start)).exists() {
            progress.inc(n);
        } else {
            write_shard(&args.out, seeds, args.size, &progress)?;
        }
    }
    progress.finish();
    Ok(())
}

fn parse_seeds(text: &str) -> Result<Range<u64>, String> {
    let seeds = text.split_once("..").and_then(|(a, b)| Some(a.parse().ok()?..b.parse().ok()?));
    seeds
        .filter(|it: &Range<u64>| it.start < it.end)
        .ok_or_else(|| format!("expected seeds as A..B with A < B, got {text:?}"))
}

/// The .jsonl is renamed into place last, so a shard that has one is whole.
fn write_shard(out: &Path, seeds: Range<u64>, size: u32, progress: &ProgressBar) -> anyhow::Result<()> {
    let first = seeds.start;
    let config = SceneConfig::training(size);
    let scenes: Vec<RenderedScene> = seeds
        .into_par_iter()
        .map(|seed| {
            let scene = Scene::generate(seed, &config)?.render();
            progress.inc(1);
            Ok(scene)
        })
        .collect::<anyhow::Result<_>>()?;
    let write = |extension: &str, bytes: &[u8]| -> anyhow::Result<()> {
        let part = out.join(format!("{first:09}.{extension}.part"));
        let path = out.join(format!("{first:09}.{extension}"));
        fs::write(&part, bytes).with_context(|| format!("cannot write {}", part.display()))?;
        fs::rename(&part, &path).with_context(|| format!("cannot name {}", path.display()))
    };
    let join = |part: &dyn Fn(&RenderedScene) -> Vec<u8>| scenes.iter().flat_map(part).collect::<Vec<u8>>();
    write("rgb", &join(&|it| it.image.as_raw().clone()))?;
    write("mask", &join(&|it| it.mask.clone()))?;
    let lines: Vec<String> = scenes.iter().map(|it| format!("{}\n", describe(it, size))).collect();
    if lines.is_empty() {
        bail!("no scene in shard {first}");
    }
    write("jsonl", lines.concat().as_bytes())
}

fn describe(scene: &RenderedScene, size: u32) -> serde_json::Value {
    let objects: Vec<_> = scene
        .objects
        .iter()
        .map(|it| {
            let bbox = it.bbox.map(|b| <[f64; 4]>::from(b).map(|edge| edge / f64::from(size)));
            let center = it.center_in_world.coords;
            json!({
                "kind": it.kind,
                "color": it.color,
                "bbox": bbox,
                "visible_fraction": it.visible_fraction,
                "visible_pixels": it.visible_pixels,
                "center_in_world": [center.x, center.y, center.z],
                "depth_m": it.surface_centroid_in_camera.map(|p| p.z),
            })
        })
        .collect();
    json!({ "seed": scene.seed, "objects": objects })
}
