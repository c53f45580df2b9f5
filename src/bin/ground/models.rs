//! `ground models`: which models there are, downloading them, checking them.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};
use language_grounding::model::hub::{
    CachedModel, FetchProgress, FileCheck, Hub, HubModel, KNOWN_MODELS, pinned_weights,
};
use language_grounding::model::locate::shipped_models;
use language_grounding::model::registry;

#[derive(Subcommand)]
pub(crate) enum ModelsCommand {
    /// Show the shipped models, those in the cache of the Hugging Face hub, and those that can be fetched.
    List,
    /// Download models into the cache, to be used without a network from then on. Mends what is damaged.
    Fetch {
        /// owner/name[@revision], or the short name of a model that `list` shows.
        #[arg(required = true)]
        models: Vec<String>,
    },
    /// Compare the cached files with the hashes they are kept under; all cached models if none is named.
    Verify {
        /// owner/name[@revision], or the short name of a model that `list` shows.
        models: Vec<String>,
    },
}

/// Exit code 1: a model named cannot be had, or a file is damaged or missing.
pub(crate) fn run(command: &ModelsCommand) -> anyhow::Result<ExitCode> {
    let hub = Hub::from_env();
    match command {
        ModelsCommand::List => list(&hub),
        ModelsCommand::Fetch { models } => {
            for name in models {
                let model: HubModel = name.parse()?;
                let mut bar = FetchBar::default();
                let dir = hub.fetch(&model, &mut |progress| bar.show(name, progress))?;
                bar.finish();
                println!("{model} is in {}", dir.display());
            }
        }
        ModelsCommand::Verify { models } => return verify(&hub, models),
    }
    Ok(ExitCode::SUCCESS)
}

/// A progress bar on a terminal; a line at the start of each model elsewhere.
#[derive(Default)]
pub(crate) struct FetchBar(Option<(String, ProgressBar)>);

impl FetchBar {
    pub(crate) fn show(&mut self, name: &str, progress: FetchProgress<'_>) {
        if self.0.as_ref().is_some_and(|it| it.0 != name) {
            self.finish();
        }
        let (_, bar) = self.0.get_or_insert_with(|| {
            if !std::io::stderr().is_terminal() {
                eprintln!("downloading {name} ({})", megabytes(progress.total_bytes));
            }
            let template = "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}, {eta} left";
            let style =
                ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            (name.to_owned(), ProgressBar::new(progress.total_bytes).with_style(style))
        });
        let note = if progress.is_waiting { " (another program is downloading it)" } else { "" };
        bar.set_message(format!("{name} {}{note}", progress.file));
        bar.set_position(progress.done_bytes);
    }

    pub(crate) fn finish(&mut self) {
        if let Some((_, bar)) = self.0.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for FetchBar {
    fn drop(&mut self) {
        self.finish();
    }
}

fn list(hub: &Hub) {
    println!("Shipped:");
    for (name, dir) in shipped_models() {
        println!("  {name}\n      {}", dir.display());
    }
    println!("\nIn the cache {}:", hub.cache_dir.display());
    let (usable, others): (Vec<_>, Vec<_>) =
        hub.cached_models().into_iter().partition(|it| registry::is_known(&it.dir));
    for CachedModel { repository, commit, references, size_bytes, missing, .. } in &usable {
        let names =
            if references.is_empty() { String::new() } else { format!(" ({})", references.join(", ")) };
        println!("  {repository}@{commit}{names}, {}", megabytes(*size_bytes));
        if !missing.is_empty() {
            println!(
                "      incomplete, without {}: `ground models fetch {repository}@{commit}`",
                missing.join(", ")
            );
        }
    }
    match (usable.len(), others.len()) {
        (0, 0) => println!("  nothing"),
        (_, 0) => {}
        (_, n) => println!("  {n} of other kinds, which this program cannot run"),
    }
    println!("\nTo be fetched from {}:", hub.endpoint);
    for it in KNOWN_MODELS {
        let commit = it.commit.map_or("main", |it| &it[..8]);
        println!("  {} ({commit})\n      {}", it.repository, it.summary);
    }
    let kinds = registry::known_model_types().join(", ");
    println!("  any other whose config.json has a model_type of {kinds}: owner/name[@revision]");
}

fn verify(hub: &Hub, names: &[String]) -> anyhow::Result<ExitCode> {
    let cached = hub.cached_models();
    let chosen: Vec<&CachedModel> = if names.is_empty() {
        cached.iter().collect()
    } else {
        let mut chosen = Vec::new();
        for name in names {
            let model: HubModel = name.parse()?;
            let found = cached.iter().find(|it| {
                let is_revision = it.commit == model.revision || it.references.contains(&model.revision);
                it.repository == model.repository && is_revision
            });
            chosen.push(found.with_context(|| {
                format!("{model} is not in the cache {}; see `ground models list`", hub.cache_dir.display())
            })?);
        }
        chosen
    };
    if chosen.is_empty() {
        bail!("the cache {} has no models", hub.cache_dir.display());
    }
    let mut is_good = true;
    for model in chosen {
        let name = format!("{}@{}", model.repository, model.commit);
        println!("{name}");
        for (file, found) in hub.verify(model) {
            let verdict = match found {
                FileCheck::Good => "good",
                FileCheck::Corrupted => "DAMAGED",
                FileCheck::Missing => "MISSING",
                FileCheck::Unknown => "not from the hub, not checked",
            };
            println!("  {file}: {verdict}");
            is_good &= !matches!(found, FileCheck::Corrupted | FileCheck::Missing);
        }
        for file in &model.missing {
            println!("  {file}: MISSING");
            is_good = false;
        }
        is_good &= check_pin(model);
    }
    if !is_good {
        println!("to mend a model: `ground models fetch owner/name@revision`");
    }
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The cache says what a file hashes to; for pinned weights this program knows what it must be.
fn check_pin(model: &CachedModel) -> bool {
    let Some(pinned) = pinned_weights(&model.repository, &model.commit) else { return true };
    let weights = model.dir.join("model.safetensors");
    let is_pinned = std::fs::read_link(&weights).is_ok_and(|it| it.ends_with(pinned));
    if !is_pinned {
        println!("  model.safetensors: DAMAGED, not the one this commit has (SHA-256 {pinned})");
    }
    is_pinned
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 * 1e-6)
}
