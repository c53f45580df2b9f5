//! Models by their name on a Hugging Face hub: found in the cache, or downloaded once into it and then used without a network.
//!
//! * A model is `owner/name` or `owner/name@revision`; a known one ([`KNOWN_MODELS`]) may be called by `name` alone and is
//!   pinned to a commit. A branch or tag is asked for once: its commit is written down in the cache and used from then on,
//!   until somebody fetches it anew.
//! * The cache is that of `huggingface_hub` (its layout, environment variables and locks), so what `huggingface-cli download`
//!   or transformers brought is used, and the other way round.
//! * Only what a model is loaded from is fetched, never pickled weights. Every file is checked against the hash the hub keeps
//!   of it before it gets its name; interrupted downloads go on where they stopped.
//!
//! The `hf-hub` crate is not used: up to 0.5 it neither checks hashes nor obeys HF_HUB_OFFLINE and HF_HUB_CACHE, and from 1.0
//! on it brings an asynchronous HTTP stack and a storage client of its own.

mod cache;
mod digest;
mod download;
mod known;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

pub use known::{KNOWN_MODELS, KnownModel, known_model, pinned_weights};

use self::cache::RepositoryCache;
use self::digest::{ContentId, is_commit};
use self::download::{Client, Listing, RemoteFile};

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";
/// What every model is loaded from beside its weights.
const REQUIRED_FILES: [&str; 3] = ["config.json", "tokenizer.json", "preprocessor_config.json"];
const OPTIONAL_FILES: [&str; 1] = ["generation_config.json"];
const WEIGHTS: &str = "model.safetensors";
const WEIGHTS_INDEX: &str = "model.safetensors.index.json";

/// A model's name on the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubModel {
    /// `owner/name`.
    pub repository: String,
    /// A branch, a tag or a commit.
    pub revision: String,
}

impl FromStr for HubModel {
    type Err = HubError;

    /// `owner/name[@revision]`, or the `name[@revision]` of a known model.
    fn from_str(text: &str) -> Result<Self, HubError> {
        let (name, revision) =
            text.split_once('@').map_or((text, None), |(name, revision)| (name, Some(revision)));
        let known = known_model(name);
        let repository = known.map_or(name, |it| it.repository);
        let is_part = |part: &str| {
            let is_plain = |it: u8| it.is_ascii_alphanumeric() || b"._-".contains(&it);
            !part.is_empty() && part.bytes().all(is_plain) && !part.starts_with(['.', '-'])
        };
        let is_name = repository.split('/').count() == 2
            && repository.split('/').all(is_part)
            && !repository.contains("--");
        let revision = revision.or(known.and_then(|it| it.commit)).unwrap_or("main");
        if !is_name || !revision.split('/').all(is_part) {
            return Err(HubError::Name(text.to_owned()));
        }
        Ok(Self { repository: repository.to_owned(), revision: revision.to_owned() })
    }
}

impl fmt::Display for HubModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let revision = if is_commit(&self.revision) { &self.revision[..8] } else { &self.revision };
        write!(f, "{}@{revision}", self.repository)
    }
}

/// Where models come from and where they are kept.
#[derive(Debug, Clone)]
pub struct Hub {
    /// Without a slash at its end.
    pub endpoint: String,
    /// The folder of all repositories.
    pub cache_dir: PathBuf,
    /// Sent to the endpoint, and to nobody else.
    pub token: Option<String>,
    /// Whether only the cache is used.
    pub is_offline: bool,
    /// Before a second attempt; longer before later ones.
    pub retry_pause: Duration,
}

/// How far a download is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchProgress<'a> {
    /// The file at hand.
    pub file: &'a str,
    /// Of all files together.
    pub done_bytes: u64,
    /// Of all files together.
    pub total_bytes: u64,
    /// Whether another program is downloading this file and is being waited for.
    pub is_waiting: bool,
}

impl FetchProgress<'_> {
    /// In words, for people who wait for `model`.
    pub fn sentence(&self, model: &str) -> String {
        if self.is_waiting {
            return format!("waiting for another program that is downloading {model}");
        }
        let percent = 100 * self.done_bytes / self.total_bytes.max(1);
        let total_mb = self.total_bytes as f64 * 1e-6;
        format!("downloading {model}: {percent} % of {total_mb:.1} MB ({})", self.file)
    }
}

/// A model in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedModel {
    /// `owner/name`.
    pub repository: String,
    /// The commit.
    pub commit: String,
    /// Branches and tags that stand for it here.
    pub references: Vec<String>,
    /// Its folder, in a model directory's layout.
    pub dir: PathBuf,
    /// Of its files.
    pub size_bytes: u64,
    /// Files it cannot be loaded without that are not here.
    pub missing: Vec<String>,
}

/// What was found out about a cached file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileCheck {
    /// Its content is what the hub had.
    Good,
    /// Its content is something else.
    Corrupted,
    /// The link leads nowhere.
    Missing,
    /// It was put there by hand: nobody knows what it should be.
    Unknown,
}

/// Why a model could not be had from the hub.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// No name of a model.
    #[error("{0:?} is no model on the hub: expected owner/name or owner/name@revision")]
    Name(String),
    /// Not cached, and the network is not to be used.
    #[error(
        "{model} is not in the cache {cache} and HF_HUB_OFFLINE is set{others}; unset it, or run `ground models fetch \
         {model}` with a network and bring the cache here"
    )]
    Offline {
        /// The model.
        model: String,
        /// The folder.
        cache: String,
        /// Other revisions that are there, as part of the sentence.
        others: String,
    },
    /// The hub cannot be reached, or the connection breaks again and again.
    #[error(
        "cannot download {model} from {endpoint}: {problem}; check the network (and HF_ENDPOINT), then try again: what has \
         arrived is kept"
    )]
    Unreachable {
        /// The model.
        model: String,
        /// The hub.
        endpoint: String,
        /// What happened.
        problem: String,
    },
    /// The hub says no.
    #[error("cannot download {model}: {problem}")]
    Refused {
        /// The model.
        model: String,
        /// One sentence.
        problem: String,
    },
    /// A file is not what it should be.
    #[error(
        "{model}: {file} arrived with hash {found}, expected {expected}; it was removed: try again, and if that does not help, \
         something between here and the hub changes it"
    )]
    Corrupted {
        /// The model.
        model: String,
        /// The file.
        file: String,
        /// As the hub has it.
        expected: String,
        /// As it arrived.
        found: String,
    },
    /// There is not enough room.
    #[error(
        "{model} needs {needed_mb} MB more in {cache}, which has {free_mb} MB: make room, or set HF_HUB_CACHE"
    )]
    NoSpace {
        /// The model.
        model: String,
        /// The folder.
        cache: String,
        /// To be downloaded.
        needed_mb: u64,
        /// Available.
        free_mb: u64,
    },
    /// The cache cannot be written or read.
    #[error("{model}: {path}: {error}; check the disk's space and permissions, or set HF_HUB_CACHE")]
    Disk {
        /// The model.
        model: String,
        /// The file.
        path: String,
        /// What happened.
        error: io::Error,
    },
}

impl Hub {
    /// As the environment says: HF_ENDPOINT, HF_HUB_CACHE, HF_HOME, HF_TOKEN, HF_HUB_OFFLINE.
    pub fn from_env() -> Self {
        Self::from_variables(|name| std::env::var(name).ok().filter(|it| !it.is_empty()))
    }

    fn from_variables(get: impl Fn(&str) -> Option<String>) -> Self {
        let path = |name: &str| get(name).map(PathBuf::from);
        let cache_dir = path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE")).unwrap_or_else(|| {
            let home = path("HF_HOME").unwrap_or_else(|| {
                let user_cache =
                    path("XDG_CACHE_HOME").unwrap_or_else(|| path("HOME").unwrap_or_default().join(".cache"));
                user_cache.join("huggingface")
            });
            home.join("hub")
        });
        let is_yes = |it: String| matches!(it.to_lowercase().as_str(), "1" | "true" | "yes" | "on");
        Self {
            endpoint: get("HF_ENDPOINT")
                .map_or_else(|| DEFAULT_ENDPOINT.to_owned(), |it| it.trim_end_matches('/').to_owned()),
            cache_dir,
            token: get("HF_TOKEN"),
            is_offline: get("HF_HUB_OFFLINE").is_some_and(is_yes),
            retry_pause: Duration::from_secs(2),
        }
    }

    /// The model's directory, if all of it is in the cache. Asks nobody.
    pub fn find(&self, model: &HubModel) -> Option<PathBuf> {
        let cache = RepositoryCache::new(&self.cache_dir, &model.repository);
        let dir = cache.snapshot(&cache.commit(&model.revision)?);
        missing_files(&dir).is_empty().then_some(dir)
    }

    /// The model's directory: from the cache, or downloaded into it.
    pub fn find_or_fetch(
        &self,
        model: &HubModel,
        on_progress: &mut dyn FnMut(FetchProgress<'_>),
    ) -> Result<PathBuf, HubError> {
        self.find(model).map_or_else(|| self.fetch(model, on_progress), Ok)
    }

    /// Downloads what is missing or damaged, and moves a branch or tag to the commit it is at now.
    pub fn fetch(
        &self,
        model: &HubModel,
        on_progress: &mut dyn FnMut(FetchProgress<'_>),
    ) -> Result<PathBuf, HubError> {
        if self.is_offline {
            return Err(self.offline_error(model));
        }
        let client = Client::new(self, model);
        let (commit, files) = needed_files(model, client.list()?)?;
        let cache = RepositoryCache::new(&self.cache_dir, &model.repository);
        self.check_space(model, &cache, &files)?;

        let total_bytes = files.iter().map(|it| it.size).sum();
        let mut before = 0;
        for file in &files {
            let mut report = |done: u64, is_waiting: bool| {
                let done_bytes = before + done;
                on_progress(FetchProgress { file: &file.name, done_bytes, total_bytes, is_waiting });
            };
            let blob = cache.blob(&file.id);
            let _lock =
                cache.lock(&file.id, || report(0, true)).map_err(|error| client.disk_error(&blob, error))?;
            if check_content(&blob, &file.id) != FileCheck::Good {
                client.fetch(&commit, file, &blob, &mut |done| report(done, false))?;
            }
            cache.link(&commit, &file.name, &file.id).map_err(|error| client.disk_error(&blob, error))?;
            before += file.size;
        }
        // Last: a branch leads to a whole model, or to the one it led to before.
        if !is_commit(&model.revision) {
            cache
                .set_reference(&model.revision, &commit)
                .map_err(|error| client.disk_error(&self.cache_dir, error))?;
        }
        Ok(cache.snapshot(&commit))
    }

    /// All models in the cache that have a config.json.
    pub fn cached_models(&self) -> Vec<CachedModel> {
        let mut models = Vec::new();
        for repository in cache::repositories(&self.cache_dir) {
            let cache = RepositoryCache::new(&self.cache_dir, &repository);
            let references = cache.references();
            for commit in cache.commits() {
                let dir = cache.snapshot(&commit);
                if !dir.join("config.json").is_file() {
                    continue;
                }
                let names = references.iter().filter(|it| it.1 == commit);
                models.push(CachedModel {
                    repository: repository.clone(),
                    references: names.map(|it| it.0.clone()).collect(),
                    size_bytes: files_of(&dir)
                        .iter()
                        .filter_map(|it| Some(fs::metadata(it).ok()?.len()))
                        .sum(),
                    missing: missing_files(&dir),
                    commit,
                    dir,
                });
            }
        }
        models
    }

    /// Compares every file of a cached model with the hash it is kept under.
    pub fn verify(&self, model: &CachedModel) -> Vec<(String, FileCheck)> {
        let check = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let id = fs::read_link(path)
                .ok()
                .and_then(|blob| blob.file_name()?.to_str()?.parse::<ContentId>().ok());
            (name, id.map_or(FileCheck::Unknown, |id| check_content(path, &id)))
        };
        files_of(&model.dir).iter().map(check).collect()
    }

    fn check_space(
        &self,
        model: &HubModel,
        cache: &RepositoryCache,
        files: &[RemoteFile],
    ) -> Result<(), HubError> {
        let here = |file: &RemoteFile| {
            let blob = cache.blob(&file.id);
            let partial = cache::partial_of(&blob);
            [blob, partial].iter().find_map(|it| Some(fs::metadata(it).ok()?.len())).unwrap_or(0)
        };
        let needed: u64 = files.iter().map(|it| it.size.saturating_sub(here(it))).sum();
        match cache::free_bytes(&self.cache_dir) {
            Some(free) if free < needed => Err(HubError::NoSpace {
                model: model.to_string(),
                cache: self.cache_dir.display().to_string(),
                needed_mb: needed.div_ceil(1_000_000),
                free_mb: free / 1_000_000,
            }),
            _ => Ok(()),
        }
    }

    fn offline_error(&self, model: &HubModel) -> HubError {
        let whole = self
            .cached_models()
            .into_iter()
            .filter(|it| it.repository == model.repository && it.missing.is_empty());
        let names: Vec<String> = whole.map(|it| format!("{}@{}", it.repository, it.commit)).collect();
        let others =
            if names.is_empty() { String::new() } else { format!(" (the cache has {})", names.join(", ")) };
        HubError::Offline { model: model.to_string(), cache: self.cache_dir.display().to_string(), others }
    }
}

/// The name to show for a model directory: `owner/name@commit` for a snapshot in the hub's cache, else the folder's name.
pub fn shown_name(dir: &Path) -> String {
    match cache::snapshot_name(dir) {
        Some((repository, revision)) => HubModel { repository, revision }.to_string(),
        None => dir
            .file_name()
            .map_or_else(|| dir.display().to_string(), |name| name.to_string_lossy().into_owned()),
    }
}

/// The commit of a listing, and the files a model is loaded from.
fn needed_files(model: &HubModel, listing: Listing) -> Result<(String, Vec<RemoteFile>), HubError> {
    let refused = |problem: String| HubError::Refused { model: model.to_string(), problem };
    let commit = listing.sha;
    if !is_commit(&commit) || (is_commit(&model.revision) && commit != model.revision) {
        return Err(refused(format!(
            "asked for revision {:?}, the hub answered with {commit:?}",
            model.revision
        )));
    }
    let has = |name: &str| listing.siblings.iter().any(|it| it.rfilename == name);
    let has_extension =
        |name: &str, extension: &str| Path::new(name).extension().is_some_and(|it| it == extension);
    let is_shard = |name: &str| {
        name.starts_with("model-") && has_extension(name, "safetensors") && !name.contains(['/', '\\'])
    };
    let mut names: Vec<&str> = REQUIRED_FILES.to_vec();
    names.extend(OPTIONAL_FILES.into_iter().filter(|it| has(it)));
    if has(WEIGHTS) || !has(WEIGHTS_INDEX) {
        names.push(WEIGHTS);
    } else {
        names.push(WEIGHTS_INDEX);
        names.extend(listing.siblings.iter().map(|it| it.rfilename.as_str()).filter(|it| is_shard(it)));
    }
    let mut files = Vec::new();
    for name in names {
        let Some(sibling) = listing.siblings.iter().find(|it| it.rfilename == name) else {
            let pickled =
                listing.siblings.iter().map(|it| it.rfilename.as_str()).find(|it| has_extension(it, "bin"));
            let hint = match pickled.filter(|_| name == WEIGHTS) {
                Some(pickled) => {
                    format!(" ({pickled} is a pickle, which is never read: convert it with transformers)")
                }
                None => String::new(),
            };
            return Err(refused(format!(
                "the repository has no {name}, which the model is loaded from{hint}"
            )));
        };
        let id = sibling.lfs.as_ref().map(|it| it.sha256.as_str()).or(sibling.blob_id.as_deref());
        let (Some(size), Some(id)) = (sibling.size, id.and_then(|it| it.parse::<ContentId>().ok())) else {
            return Err(refused(format!("the hub tells no size or no hash for {name}")));
        };
        let pinned = pinned_weights(&model.repository, &commit).filter(|_| name == WEIGHTS);
        if let Some(pinned) = pinned.filter(|it| *it != id.to_string()) {
            return Err(refused(format!(
                "the hub says {name} has SHA-256 {id}, but this commit's is {pinned}"
            )));
        }
        files.push(RemoteFile { name: name.to_owned(), size, id });
    }
    Ok((commit, files))
}

/// Which of the files that a model cannot be loaded without are not in `dir`.
fn missing_files(dir: &Path) -> Vec<String> {
    let is_here = |name: &str| dir.join(name).is_file();
    let mut missing: Vec<String> =
        REQUIRED_FILES.into_iter().filter(|it| !is_here(it)).map(str::to_owned).collect();
    if !is_here(WEIGHTS) {
        match shards(&dir.join(WEIGHTS_INDEX)) {
            Some(shards) => missing.extend(shards.into_iter().filter(|it| !is_here(it))),
            None => missing.push(WEIGHTS.to_owned()),
        }
    }
    missing
}

/// The files that an index of weights names, if it can be read.
fn shards(index: &Path) -> Option<Vec<String>> {
    let index: serde_json::Value = serde_json::from_str(&fs::read_to_string(index).ok()?).ok()?;
    let files = index.get("weight_map")?.as_object()?.values();
    let mut names: Vec<String> = files.filter_map(|it| it.as_str().map(str::to_owned)).collect();
    names.sort();
    names.dedup();
    Some(names)
}

fn check_content(path: &Path, id: &ContentId) -> FileCheck {
    let found = File::open(path).and_then(|file| {
        let size = file.metadata()?.len();
        id.of(file, size)
    });
    match found {
        Ok(found) if found == *id => FileCheck::Good,
        Err(error) if error.kind() == io::ErrorKind::NotFound => FileCheck::Missing,
        Ok(_) | Err(_) => FileCheck::Corrupted,
    }
}

/// The files of a snapshot, links that lead nowhere included, sorted.
fn files_of(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(dir).into_iter().flatten().filter_map(|it| Some(it.ok()?.path())).collect();
    paths.retain(|it| !it.is_dir());
    paths.sort();
    paths
}
