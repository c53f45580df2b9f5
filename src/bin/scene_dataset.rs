//! Renders scenes of many seeds: to shards of raw arrays for training, or to images and questions for `ground --batch`.
//!
//! Every shard `NNNNNNNNN` (its first seed) is three files: `.rgb` (u8, `[n, size, size, 3]`), `.mask` (u8,
//! `[n, size, size]`, 0 = room, object index + 1) and `.jsonl` (one scene per line: seed and objects with kind,
//! color, box in [0, 1], visible fraction, center in the world and depth of the visible surface; for a model of a mesh library its
//! name and paint, and beside the shards the library's `manifest.json`).

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use indicatif::ProgressBar;
use language_grounding::scene::{Color, Kind, MeshLibrary, RenderedScene, Scene, SceneConfig};
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
    /// Folder of textured models (training/meshes.py makes it): of every ten scenes, seven are furnished from it.
    #[arg(long)]
    meshes: Option<PathBuf>,
    /// Instead of shards, write what `ground --batch` takes: `SEED.png` and `SEED_depth.png` of 640x480 and `queries.jsonl`
    /// with the truth beside every question (see tests/eval/score.py).
    #[arg(long)]
    queries: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    ensure!(args.shard > 0, "expected at least one scene per shard, got --shard 0");
    fs::create_dir_all(&args.out).with_context(|| format!("cannot make {}", args.out.display()))?;
    let library = args.meshes.as_deref().map(load_meshes).transpose()?;
    if let Some(folder) = &args.meshes {
        let copied = fs::copy(folder.join("manifest.json"), args.out.join("manifest.json"));
        copied.with_context(|| format!("cannot copy the manifest to {}", args.out.display()))?;
    }
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
            write_shard(&args.out, seeds, args.size, library.as_ref(), &progress)?;
        }
    }
    progress.finish();
    Ok(())
}

fn load_meshes(folder: &Path) -> anyhow::Result<MeshLibrary> {
    MeshLibrary::load(&|name| fs::read(folder.join(name)))
        .with_context(|| format!("cannot use the models in {}", folder.display()))
}

/// Every object that its color and kind, or its kind, name alone; and for every scene a color and kind that it lacks, a kind that
/// it lacks and a color in which it lacks one of its kinds.
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
            let line = |kind_of_query: &str, phrase: &str, truth: serde_json::Value| {
                let k = [&k[0..3], &k[3..6], &k[6..9]];
                let id = format!("{seed} {phrase}");
                let instruction = format!("pick up the {phrase}");
                let query = json!({"id": id, "image": image, "depth": depth, "K": k, "instruction": instruction,
                                   "phrase": phrase, "type": kind_of_query, "truth": truth});
                format!("{query}\n")
            };
            Ok(present(&scene, &line) + &absent(&scene, &line))
        })
        .collect::<anyhow::Result<_>>()?;
    progress.finish();
    let path = out.join("queries.jsonl");
    fs::write(&path, lines.concat()).with_context(|| format!("cannot write {}", path.display()))
}

/// Writes a query: its type, phrase and truth.
type Line<'a> = &'a dyn Fn(&str, &str, serde_json::Value) -> String;

fn present(scene: &RenderedScene, line: Line<'_>) -> String {
    let mut lines = String::new();
    for object in &scene.objects {
        let (Some(bbox), Some(centroid)) = (object.bbox, object.surface_centroid_in_camera) else { continue };
        // As large as the smallest objects the model was taught: 14 of 192 pixels.
        if object.visible_fraction < 1.0 / 3.0 || bbox.width().min(bbox.height()) < 46.0 {
            continue;
        }
        let center = scene.world_from_camera.inverse() * object.center_in_world;
        let truth = json!({"bbox": bbox, "surface_centroid": centroid.coords.as_slice(),
                           "center": center.coords.as_slice(), "size_m": object.size_m.as_slice()});
        let same_kind = scene.objects.iter().filter(|it| it.kind == object.kind);
        if same_kind.clone().filter(|it| it.color == object.color).count() == 1 {
            lines += &line("color+kind", &object.phrase(), truth.clone());
        }
        if same_kind.count() == 1 {
            lines += &line("kind", object.kind.name(), truth);
        }
    }
    lines
}

fn absent(scene: &RenderedScene, line: Line<'_>) -> String {
    let lacks = |kind: Kind, color: Option<Color>| {
        !scene.objects.iter().any(|it| it.kind == kind && color.is_none_or(|color| it.color == color))
    };
    let phrase = |kind: Kind, color: Color| format!("{} {}", color.name(), kind.name());
    let start = scene.seed as usize;
    // A step that has no factor in common with the number of choices walks over all of them, from the seed's own start.
    let n_colors = Color::ALL.len();
    let n_pairs = n_colors * Kind::ALL.len();
    let mut pairs = (0..n_pairs)
        .map(|step| (start + 37 * step) % n_pairs)
        .map(|it| (Kind::ALL[it / n_colors], Color::ALL[it % n_colors]));
    let mut kinds = (0..Kind::ALL.len()).map(|step| Kind::ALL[(start + 3 * step) % Kind::ALL.len()]);
    let named = &scene.objects[start % scene.objects.len()];
    let mut colors = (0..n_colors).map(|step| Color::ALL[(start + 5 * step) % n_colors]);
    let mut lines = String::new();
    if let Some((kind, color)) = pairs.find(|&(kind, color)| lacks(kind, Some(color))) {
        lines += &line("absent: color+kind", &phrase(kind, color), serde_json::Value::Null);
    }
    if let Some(kind) = kinds.find(|&kind| lacks(kind, None)) {
        lines += &line("absent: kind", kind.name(), serde_json::Value::Null);
    }
    if let Some(color) = colors.find(|&color| lacks(named.kind, Some(color))) {
        lines += &line("absent: wrong color", &phrase(named.kind, color), serde_json::Value::Null);
    }
    lines
}

fn parse_seeds(text: &str) -> Result<Range<u64>, String> {
    let seeds = text.split_once("..").and_then(|(a, b)| Some(a.parse().ok()?..b.parse().ok()?));
    seeds
        .filter(|it: &Range<u64>| it.start < it.end)
        .ok_or_else(|| format!("expected seeds as A..B with A < B, got {text:?}"))
}

/// The .jsonl is renamed into place last, so a shard that has one is whole.
fn write_shard(
    out: &Path,
    seeds: Range<u64>,
    size: u32,
    library: Option<&MeshLibrary>,
    progress: &ProgressBar,
) -> anyhow::Result<()> {
    let first = seeds.start;
    let config = SceneConfig::training(size);
    let scenes: Vec<RenderedScene> = seeds
        .into_par_iter()
        .map(|seed| {
            let scene = match library {
                Some(library) if seed % 10 < 7 => Scene::furnished(seed, library, &config)?,
                _ => Scene::generate(seed, &config)?,
            };
            progress.inc(1);
            Ok(scene.render())
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
            let model = it.model.as_ref().map(|(name, paint)| json!({"name": name, "paint": paint}));
            json!({
                "model": model,
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
