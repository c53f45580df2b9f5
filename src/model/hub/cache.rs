//! The cache on disk, in the layout that `huggingface_hub` 1.0 writes and reads, so that neither downloads what the other has:
//!
//! ```text
//! models--OWNER--NAME/refs/REVISION          the commit a branch or tag was at
//!                    /snapshots/COMMIT/FILE  a link to
//!                    /blobs/HASH             the content, called by its hash
//!                    /blobs/HASH.incomplete  as far as a download got
//! .locks/models--OWNER--NAME/HASH.lock       held (flock) while it is written
//! ```

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::digest::{ContentId, is_commit};

/// One repository's folder; it need not exist.
#[derive(Debug, Clone)]
pub(super) struct RepositoryCache {
    folder: PathBuf,
    locks: PathBuf,
}

impl RepositoryCache {
    pub(super) fn new(cache_dir: &Path, repository: &str) -> Self {
        let name = format!("models--{}", repository.replace('/', "--"));
        Self { folder: cache_dir.join(&name), locks: cache_dir.join(".locks").join(name) }
    }

    /// The commit `revision` stands for here, if that is known.
    pub(super) fn commit(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.to_owned());
        }
        let text = fs::read_to_string(self.folder.join("refs").join(revision)).ok()?;
        Some(text.trim().to_owned()).filter(|it| is_commit(it))
    }

    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    pub(super) fn blob(&self, id: &ContentId) -> PathBuf {
        self.folder.join("blobs").join(id.to_string())
    }

    /// The commits that are here in whole or in part.
    pub(super) fn commits(&self) -> Vec<String> {
        let mut commits = entries(&self.folder.join("snapshots"));
        commits.retain(|it| is_commit(it));
        commits
    }

    /// Branches and tags with their commits.
    pub(super) fn references(&self) -> Vec<(String, String)> {
        let names = entries(&self.folder.join("refs")).into_iter();
        names.filter_map(|name| self.commit(&name).map(|commit| (name, commit))).collect()
    }

    /// Makes `file` of `commit` be `id`.
    pub(super) fn link(&self, commit: &str, file: &str, id: &ContentId) -> io::Result<()> {
        let snapshot = self.snapshot(commit);
        fs::create_dir_all(&snapshot)?;
        // Made aside and renamed: there is no moment without the file, whoever else does the same.
        let aside = snapshot.join(format!(".{file}.{}", unique()));
        std::os::unix::fs::symlink(Path::new("../../blobs").join(id.to_string()), &aside)?;
        fs::rename(&aside, snapshot.join(file))
    }

    /// Writes down which commit a branch or tag is at.
    pub(super) fn set_reference(&self, revision: &str, commit: &str) -> io::Result<()> {
        let path = self.folder.join("refs").join(revision);
        let folder = path.parent().unwrap_or(&self.folder);
        fs::create_dir_all(folder)?;
        let aside = folder.join(format!(".{}", unique()));
        fs::write(&aside, commit)?;
        fs::rename(&aside, &path)
    }

    /// Waits until nobody else writes `id`; `on_wait` is called if somebody does. Dropping the file lets go.
    pub(super) fn lock(&self, id: &ContentId, on_wait: impl FnOnce()) -> io::Result<File> {
        fs::create_dir_all(self.folder.join("blobs"))?;
        fs::create_dir_all(&self.locks)?;
        let lock = File::create(self.locks.join(format!("{id}.lock")))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            on_wait();
            flock(&lock, FlockOperation::LockExclusive)?;
        }
        Ok(lock)
    }
}

/// All repositories of models in a cache, `owner/name`, sorted.
pub(super) fn repositories(cache_dir: &Path) -> Vec<String> {
    let names = entries(cache_dir).into_iter();
    names.filter_map(|it| repository_of(&it)).collect()
}

/// What a cache's folder is the folder of: `owner/name`.
fn repository_of(folder: &str) -> Option<String> {
    Some(folder.strip_prefix("models--")?.replacen("--", "/", 1))
}

/// Where a download of `blob` is kept until it is whole.
pub(super) fn partial_of(blob: &Path) -> PathBuf {
    PathBuf::from(format!("{}.incomplete", blob.display()))
}

/// What a snapshot's folder is a snapshot of: `owner/name` and the commit.
pub(super) fn snapshot_name(dir: &Path) -> Option<(String, String)> {
    let commit = dir.file_name()?.to_str()?;
    let snapshots = dir.parent()?;
    let folder = snapshots.parent()?.file_name()?.to_str()?;
    let repository = repository_of(folder)?;
    (snapshots.file_name()? == "snapshots" && is_commit(commit)).then(|| (repository, commit.to_owned()))
}

/// Bytes that can still be written where `path` is or will be.
pub(super) fn free_bytes(path: &Path) -> Option<u64> {
    let existing = path.ancestors().find(|it| it.exists())?;
    let stat = rustix::fs::statvfs(existing).ok()?;
    Some(stat.f_bavail * stat.f_frsize)
}

fn entries(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|it| it.ok()?.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

/// A name nobody else uses at this moment.
fn unique() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    format!("{}.{}.tmp", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed))
}
