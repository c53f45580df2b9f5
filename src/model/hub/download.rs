//! HTTP: a repository's table of contents, and files that survive interruptions.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek as _, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use ureq::config::RedirectAuthHeaders;
use ureq::http::{Response, StatusCode, header};
use ureq::{Agent, Body};

use super::cache::partial_of;
use super::digest::ContentId;
use super::{Hub, HubError, HubModel};

/// A connection is given up and made anew after this long, or sooner when the other side ends it; what came is kept. So a
/// stalled transfer is noticed, and a slow one is not punished.
const MAX_TRANSFER_TIME: Duration = Duration::from_secs(120);
/// Connections in a row that bring nothing before a download fails.
const MAX_VAIN_ATTEMPTS: usize = 3;
/// A table of contents larger than this is none.
const MAX_LISTING_BYTES: u64 = 8 << 20;

/// A repository's files at one commit.
#[derive(Deserialize)]
pub(super) struct Listing {
    pub(super) sha: String,
    pub(super) siblings: Vec<Sibling>,
}

/// One of them, as `GET /api/models/OWNER/NAME/revision/REVISION?blobs=true` tells it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Sibling {
    pub(super) rfilename: String,
    pub(super) size: Option<u64>,
    pub(super) blob_id: Option<String>,
    pub(super) lfs: Option<Lfs>,
}

#[derive(Deserialize)]
pub(super) struct Lfs {
    pub(super) sha256: String,
}

/// A file to be had.
#[derive(Debug, Clone)]
pub(super) struct RemoteFile {
    pub(super) name: String,
    pub(super) size: u64,
    pub(super) id: ContentId,
}

/// Asks a hub.
pub(super) struct Client<'a> {
    hub: &'a Hub,
    model: &'a HubModel,
    agent: Agent,
}

impl<'a> Client<'a> {
    pub(super) fn new(hub: &'a Hub, model: &'a HubModel) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(20)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .timeout_recv_body(Some(MAX_TRANSFER_TIME))
            // Large files are redirected to other hosts, which must not see the token.
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .user_agent(concat!("language_grounding/", env!("CARGO_PKG_VERSION")))
            .build();
        Self { hub, model, agent: config.into() }
    }

    /// The files of the revision asked for.
    pub(super) fn list(&self) -> Result<Listing, HubError> {
        let HubModel { repository, revision, .. } = self.model;
        let revision = revision.replace('/', "%2F");
        let url = format!("{}/api/models/{repository}/revision/{revision}?blobs=true", self.hub.endpoint);
        let mut vain = 0;
        loop {
            let answer = self.get(&url, 0).and_then(|response| {
                let mut text = Vec::new();
                let mut body = response.into_body().into_reader().take(MAX_LISTING_BYTES);
                body.read_to_end(&mut text).map_err(|error| Failure::Broken(error.to_string()))?;
                serde_json::from_slice(&text).map_err(|error| {
                    Failure::Final(self.error(format!(
                        "{url} did not answer with a list of files ({error}): is HF_ENDPOINT a Hugging Face hub?"
                    )))
                })
            });
            match answer {
                Ok(listing) => return Ok(listing),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Disk(error)) => return Err(self.disk_error(&self.hub.cache_dir, error)),
                Err(Failure::Broken(problem)) => self.pause_or_give_up(&mut vain, &problem)?,
            }
        }
    }

    /// Gets `file` of `commit` into `path`: whole and as it should be, or not at all. Goes on where an earlier attempt
    /// stopped. `on_progress` is told how many bytes of it are here.
    pub(super) fn fetch(
        &self,
        commit: &str,
        file: &RemoteFile,
        path: &Path,
        on_progress: &mut dyn FnMut(u64),
    ) -> Result<(), HubError> {
        let url = format!("{}/{}/resolve/{commit}/{}", self.hub.endpoint, self.model.repository, file.name);
        let partial = partial_of(path);
        let on_disk = |error: io::Error| self.disk_error(&partial, error);
        let mut output =
            OpenOptions::new().create(true).read(true).append(true).open(&partial).map_err(on_disk)?;
        let mut done = output.metadata().map_err(on_disk)?.len();
        if done > file.size {
            done = 0;
            output.set_len(0).map_err(on_disk)?;
        }
        let mut vain = 0;
        while done < file.size {
            on_progress(done);
            let before = done;
            let problem = match self.transfer(&url, &mut output, &mut done, file.size, on_progress) {
                Ok(()) if done == file.size => break,
                Ok(()) => format!("the connection ended after {done} of {} bytes", file.size),
                Err(Failure::Broken(problem)) => problem,
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Disk(error)) => return Err(on_disk(error)),
            };
            if done > before {
                vain = 0;
            }
            self.pause_or_give_up(&mut vain, &problem)?;
        }
        on_progress(done);
        output.seek(SeekFrom::Start(0)).map_err(on_disk)?;
        let found = file.id.of(&output, file.size).map_err(on_disk)?;
        if found != file.id {
            fs::remove_file(&partial).map_err(on_disk)?;
            return Err(HubError::Corrupted {
                model: self.model.to_string(),
                file: file.name.clone(),
                expected: file.id.to_string(),
                found: found.to_string(),
            });
        }
        output.sync_all().map_err(on_disk)?;
        fs::rename(&partial, path).map_err(on_disk)
    }

    /// One connection's worth of a file, from byte `done` on.
    fn transfer(
        &self,
        url: &str,
        output: &mut File,
        done: &mut u64,
        size: u64,
        on_progress: &mut dyn FnMut(u64),
    ) -> Result<(), Failure> {
        let response = self.get(url, *done)?;
        if *done > 0 && !starts_at(&response, *done) {
            // The server sends the whole file, or says that there is no such part.
            *done = 0;
            output.set_len(0).map_err(Failure::Disk)?;
            if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
                return Ok(());
            }
        }
        let mut body = response.into_body().into_reader();
        let mut buffer = vec![0; 1 << 18];
        loop {
            let n = body.read(&mut buffer).map_err(|error| Failure::Broken(error.to_string()))?;
            if n == 0 {
                return Ok(());
            }
            if *done + n as u64 > size {
                return Err(Failure::Final(self.error(format!(
                    "{url} is longer than the {size} bytes the hub announced: something between here and there changes it"
                ))));
            }
            output.write_all(&buffer[..n]).map_err(Failure::Disk)?;
            *done += n as u64;
            on_progress(*done);
        }
    }

    fn get(&self, url: &str, from: u64) -> Result<Response<Body>, Failure> {
        let mut request = self.agent.get(url);
        if from > 0 {
            request = request.header(header::RANGE, format!("bytes={from}-"));
        }
        if let Some(token) = &self.hub.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let response = request.call().map_err(|error| Failure::Broken(format!("{url}: {error}")))?;
        let status = response.status();
        let code = response.headers().get("x-error-code").and_then(|it| it.to_str().ok()).unwrap_or("");
        let HubModel { repository, revision, .. } = self.model;
        let problem = match (status.as_u16(), code) {
            (200 | 206 | 416, _) => return Ok(response),
            (404, "RevisionNotFound") => {
                format!(
                    "the repository has no revision {revision:?}; expected a branch, a tag or a full commit hash"
                )
            }
            (401 | 404, "RepoNotFound") | (401, "") => format!(
                "{} has no public model {repository}: check the name, or set HF_TOKEN if it is private",
                self.hub.endpoint
            ),
            (401 | 403, _) => format!(
                "access was refused: accept the license on {}/{repository} and set HF_TOKEN to a token that may read it",
                self.hub.endpoint
            ),
            (404, _) => format!("{url} does not exist (404): check the name and the revision"),
            (429 | 500.., _) => return Err(Failure::Broken(format!("{url} answered {status}"))),
            _ => format!("{url} answered {status}"),
        };
        Err(Failure::Final(self.error(problem)))
    }

    /// Waits before the next attempt, or says that there is none.
    fn pause_or_give_up(&self, vain: &mut usize, problem: &str) -> Result<(), HubError> {
        *vain += 1;
        if *vain >= MAX_VAIN_ATTEMPTS {
            return Err(HubError::Unreachable {
                model: self.model.to_string(),
                endpoint: self.hub.endpoint.clone(),
                problem: problem.to_owned(),
            });
        }
        std::thread::sleep(self.hub.retry_pause * *vain as u32);
        Ok(())
    }

    fn error(&self, problem: String) -> HubError {
        HubError::Refused { model: self.model.to_string(), problem }
    }

    pub(super) fn disk_error(&self, path: &Path, error: io::Error) -> HubError {
        HubError::Disk { model: self.model.to_string(), path: path.display().to_string(), error }
    }
}

/// Why an attempt failed.
enum Failure {
    /// Another one would fail, too.
    Final(HubError),
    /// Another one may not.
    Broken(String),
    /// What came could not be written.
    Disk(io::Error),
}

/// Whether a response continues a file at byte `from`.
fn starts_at(response: &Response<Body>, from: u64) -> bool {
    let range = response.headers().get(header::CONTENT_RANGE).and_then(|it| it.to_str().ok());
    response.status() == StatusCode::PARTIAL_CONTENT
        && range.is_some_and(|it| it.starts_with(&format!("bytes {from}-")))
}
