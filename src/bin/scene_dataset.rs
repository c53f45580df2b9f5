//! Renders scenes of many seeds: to shards of raw arrays for training, or to images and questions for `ground --batch`.
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
use language_grounding::scene::{Color, Kind, RenderedScene, Scene, SceneConfig, SceneObject};
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
    /// Instead of shards, write what `ground --batch` takes: `SEED.png` and `SEED_depth.png` of 640x480 and `queries.jsonl`
    /// with the truth beside every question (see tests/eval/generated.py).
    #[arg(long)]
    queries: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    ensure!(args.shard > 0, "expected at least one scene per shard, got --shard 0");
    fs::create_dir_all(&args.out).with_context(|| format!("cannot make {}", args.out.display()))?;
    let progress = ProgressBar::new(args.seeds.end - args.seeds.start);
    if args.queries {
        return write_queries(&args.out, args.seeds, &progress);
    }
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

/// Every object that its color and kind name alone, and for every scene one color and kind that it lacks.
fn write_queries(out: &Path, seeds: Range<u64>, progress: &ProgressBar) -> anyhow::Result<()> {
    let config = SceneConfig::camera(640, 480);
    let lines: Vec<String> = seeds
        .into_par_iter()
        .map(|seed| {
            let scene = Scene::generate(seed, &config)?.render();
            progress.inc(1);
            let (image, depth) = (format!("{seed}.png"), format!("{seed}_depth.png"));
            scene.image.save(out.join(&image))?;
            let depth_mm: Vec<u16> = scene.depth.as_slice().iter().map(|it| (it * 1e3).round() as u16).collect();
            image::ImageBuffer::<image::Luma<u16>, _>::from_raw(640, 480, depth_mm)
                .context("one depth per pixel")?
                .save(out.join(&depth))?;
            let k = scene.camera.k();
            let line = |phrase: &str, truth: serde_json::Value| {
                let k = [&k[0..3], &k[3..6], &k[6..9]];
                let id = format!("{seed} {phrase}");
                let instruction = format!("pick up the {phrase}");
                let query = json!({"id": id, "image": image, "depth": depth, "K": k, "instruction": instruction,
                                   "phrase": phrase, "truth": truth});
                format!("{query}\n")
            };
            let phrases: Vec<String> = scene.objects.iter().map(SceneObject::phrase).collect();
            let mut lines = String::new();
            for object in &scene.objects {
                let phrase = object.phrase();
                let is_only = phrases.iter().filter(|it| **it == phrase).count() == 1;
                let (Some(bbox), Some(centroid)) = (object.bbox, object.surface_centroid_in_camera) else {
                    continue;
                };
                // As large as the smallest objects the model was taught: 14 of 192 pixels.
                let is_seen = object.visible_fraction >= 1.0 / 3.0 && bbox.width().min(bbox.height()) >= 46.0;
                if is_only && is_seen {
                    let center = scene.world_from_camera.inverse() * object.center_in_world;
                    lines += &line(
                        &phrase,
                        json!({"bbox": bbox, "surface_centroid": centroid.coords.as_slice(),
                               "center": center.coords.as_slice(), "size_m": object.size_m.as_slice()}),
                    );
                }
            }
            // A step that has no factor in common with 110 walks over all color and kind pairs from a start of the seed's own.
            let pairs = (Color::ALL.len() * Kind::ALL.len()) as u64;
            let absent = (0..pairs)
                .map(|step| (seed + 37 * step) % pairs)
                .map(|it| {
                    let (color, kind) = (it as usize % Color::ALL.len(), it as usize / Color::ALL.len());
                    format!("{} {}", Color::ALL[color].name(), Kind::ALL[kind].name())
                })
                .find(|it| !phrases.contains(it));
            if let Some(phrase) = absent {
                lines += &line(&phrase, serde_json::Value::Null);
            }
            Ok(lines)
        })
        .collect::<anyhow::Result<_>>()?;
    progress.finish();
    let path = out.join("queries.jsonl");
    fs::write(&path, lines.concat()).with_context(|| format!("cannot write {}", path.display()))
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
