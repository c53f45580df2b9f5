//! Against a local server that plays the hub: as the real one does, and as networks and disks do.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::json;

use super::*;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// All files a model is loaded from.
const N_BYTES: usize = 300_000 + 27 + 2 + 3 + 4;
const LATER_COMMIT: &str = "89abcdef0123456789abcdef0123456789abcdef";

/// How the server fails its clients.
#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Well,
    /// Each connection ends after this many bytes of a file.
    Truncates(usize),
    /// One byte of the weights is not what the list of files says.
    Corrupts,
    /// Sends whole files whatever part was asked for.
    IgnoresRanges,
    /// Answers 503.
    Overloaded,
}

struct FakeHub {
    files: Mutex<BTreeMap<String, Vec<u8>>>,
    commit: Mutex<&'static str>,
    mood: Mutex<Mood>,
    n_requests: AtomicUsize,
    n_file_bytes: AtomicUsize,
    endpoint: String,
}

impl FakeHub {
    /// Serves `owner/name` until the test program ends.
    fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let weights: Vec<u8> = (0..300_000_u32).map(|it| ((it * 31) >> 3) as u8).collect();
        let file = |name: &str, content: &[u8]| (name.to_owned(), content.to_vec());
        let hub = Arc::new(Self {
            files: Mutex::new(BTreeMap::from([
                file("config.json", br#"{"model_type": "florence2"}"#),
                file("tokenizer.json", b"{}"),
                file("preprocessor_config.json", b"{ }"),
                file("generation_config.json", b"{  }"),
                file("README.md", b"not needed"),
                file("pytorch_model.bin", b"pickle"),
                file("onnx/model.safetensors", b"not this one"),
                file("model.safetensors", &weights),
            ])),
            commit: Mutex::new(COMMIT),
            mood: Mutex::new(Mood::Well),
            n_requests: AtomicUsize::new(0),
            n_file_bytes: AtomicUsize::new(0),
            endpoint: format!("http://{}", listener.local_addr().unwrap()),
        });
        let served = Arc::clone(&hub);
        spawn("hub", move || {
            for stream in listener.incoming().flatten() {
                let served = Arc::clone(&served);
                // A client that goes away is its own business.
                spawn("hub connection", move || served.answer(&stream).unwrap_or_default());
            }
        });
        hub
    }

    fn answer(&self, mut stream: &TcpStream) -> std::io::Result<()> {
        self.n_requests.fetch_add(1, Ordering::Relaxed);
        let mut lines = BufReader::new(stream).lines();
        let request = lines.next().unwrap()?;
        let mut from = 0;
        for line in lines {
            let line = line?.to_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(range) = line.strip_prefix("range: bytes=") {
                from = range.trim_end_matches('-').parse().unwrap();
            }
        }
        let path = request.split(' ').nth(1).unwrap().to_owned();
        let mood = *self.mood.lock().unwrap();
        let mut reply = |status: &str, headers: &str, size: usize, body: &[u8]| {
            let head =
                format!("HTTP/1.1 {status}\r\ncontent-length: {size}\r\nconnection: close\r\n{headers}\r\n");
            stream.write_all(head.as_bytes())?;
            stream.write_all(body)
        };
        if mood == Mood::Overloaded {
            return reply("503 Service Unavailable", "", 0, b"");
        }
        if let Some(revision) = path.strip_prefix("/api/models/owner/name/revision/") {
            let commit = *self.commit.lock().unwrap();
            let revision = revision.strip_suffix("?blobs=true").unwrap();
            if ![commit, COMMIT, "main", "refs%2Fpr%2F1"].contains(&revision) {
                return reply("404 Not Found", "x-error-code: RevisionNotFound\r\n", 0, b"");
            }
            let commit = if revision == COMMIT { COMMIT } else { commit };
            let listing = self.listing(commit);
            return reply("200 OK", "", listing.len(), listing.as_bytes());
        }
        let file = |prefix: &str| {
            let (commit, name) = path.strip_prefix(prefix)?.split_once('/')?;
            let files = self.files.lock().unwrap();
            Some((name.to_owned(), files.get(name).filter(|_| commit.len() == 40)?.clone()))
        };
        if let Some((name, _)) = file("/owner/name/resolve/") {
            // The real hub sends clients elsewhere for the content.
            let headers = format!("location: {}/elsewhere/{COMMIT}/{name}\r\n", self.endpoint);
            return reply("302 Found", &headers, 0, b"");
        }
        if let Some((name, mut content)) = file("/elsewhere/") {
            if mood == Mood::Corrupts && name == WEIGHTS {
                content[1000] ^= 1;
            }
            let size = content.len();
            if from >= size {
                return reply("416 Range Not Satisfiable", "", 0, b"");
            }
            let (status, headers) = if from > 0 && mood != Mood::IgnoresRanges {
                content.drain(..from);
                ("206 Partial Content", format!("content-range: bytes {from}-{}/{size}\r\n", size - 1))
            } else {
                ("200 OK", String::new())
            };
            let announced = content.len();
            if let Mood::Truncates(n) = mood {
                content.truncate(n);
            }
            self.n_file_bytes.fetch_add(content.len(), Ordering::Relaxed);
            return reply(status, &headers, announced, &content);
        }
        reply("401 Unauthorized", "x-error-code: RepoNotFound\r\n", 0, b"")
    }

    /// As the real hub lists: large files by SHA-256, small ones by Git's hash.
    fn listing(&self, commit: &str) -> String {
        let hash = |kind: &str, content: &[u8]| {
            let id: ContentId = kind.parse().unwrap();
            id.of(content, content.len() as u64).unwrap().to_string()
        };
        let files = self.files.lock().unwrap();
        let siblings = files.iter().map(|(name, content)| {
            let git = hash(&"0".repeat(40), content);
            let mut entry = json!({"rfilename": name, "size": content.len(), "blobId": git});
            if name.ends_with(".safetensors") {
                let sha256 = hash(&"0".repeat(64), content);
                entry["lfs"] = json!({"sha256": sha256, "size": content.len(), "pointerSize": 134});
            }
            entry
        });
        json!({"id": "owner/name", "sha": commit, "siblings": siblings.collect::<Vec<_>>()}).to_string()
    }

    fn set_mood(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    fn n_requests(&self) -> usize {
        self.n_requests.load(Ordering::Relaxed)
    }

    fn client(&self, cache: &tempfile::TempDir) -> Hub {
        Hub {
            endpoint: self.endpoint.clone(),
            cache_dir: cache.path().to_owned(),
            token: None,
            is_offline: false,
            retry_pause: Duration::from_millis(1),
        }
    }
}

fn spawn(name: &str, f: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().name(name.to_owned()).spawn(f).unwrap();
}

fn model(name: &str) -> HubModel {
    name.parse().unwrap()
}

fn fetch(hub: &Hub, name: &str) -> Result<PathBuf, HubError> {
    hub.find_or_fetch(&model(name), &mut |_| {})
}

#[track_caller]
fn check_whole(server: &FakeHub, dir: &Path) {
    for (name, content) in &*server.files.lock().unwrap() {
        let wanted = !["README.md", "pytorch_model.bin", "onnx/model.safetensors"].contains(&name.as_str());
        assert_eq!(fs::read(dir.join(name)).ok(), wanted.then(|| content.clone()), "{name}");
    }
}

/// Unfinished or temporary files anywhere in the cache.
fn leftovers(cache: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(cache).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.is_symlink() {
            found.extend(leftovers(&path));
        } else if path.extension().is_some_and(|it| it == "incomplete" || it == "tmp") {
            found.push(path);
        }
    }
    found
}

#[test]
fn a_model_is_fetched_once_and_used_offline() {
    let (server, cache) = (FakeHub::start(), tempfile::tempdir().unwrap());
    let mut hub = server.client(&cache);
    let mut progress = Vec::new();
    let dir = hub
        .find_or_fetch(&model("owner/name"), &mut |it| progress.push((it.done_bytes, it.total_bytes)))
        .unwrap();
    assert_eq!(dir, cache.path().join("models--owner--name/snapshots").join(COMMIT));
    check_whole(&server, &dir);
    assert!(progress.is_sorted(), "{progress:?}");
    assert_eq!(progress.last(), Some(&(N_BYTES as u64, N_BYTES as u64)));
    assert_eq!(leftovers(cache.path()), Vec::<PathBuf>::new());

    let n_requests = server.n_requests();
    hub.is_offline = true;
    for name in ["owner/name", "owner/name@main", &format!("owner/name@{COMMIT}")] {
        assert_eq!(fetch(&hub, name).unwrap(), dir, "{name}");
    }
    assert_eq!(server.n_requests(), n_requests, "a cached model asks nobody");
    assert_eq!(shown_name(&dir), "owner/name@01234567");
}

#[test]
fn what_the_hubs_own_tools_downloaded_is_found() {
    let (server, cache) = (FakeHub::start(), tempfile::tempdir().unwrap());
    let repository = cache.path().join("models--owner--name");
    let snapshot = repository.join("snapshots").join(COMMIT);
    for folder in ["refs", "blobs"] {
        fs::create_dir_all(repository.join(folder)).unwrap();
    }
    fs::create_dir_all(&snapshot).unwrap();
    fs::write(repository.join("refs/main"), COMMIT).unwrap();
    for (i, name) in REQUIRED_FILES.iter().chain(&[WEIGHTS]).enumerate() {
        fs::write(repository.join(format!("blobs/{i}")), "content").unwrap();
        std::os::unix::fs::symlink(format!("../../blobs/{i}"), snapshot.join(name)).unwrap();
    }
    assert_eq!(fetch(&server.client(&cache), "owner/name").unwrap(), snapshot);
    assert_eq!(server.n_requests(), 0);
}

#[test]
fn broken_connections_are_taken_up_again() {
    let (server, cache) = (FakeHub::start(), tempfile::tempdir().unwrap());
    server.set_mood(Mood::Truncates(70_000));
    let dir = fetch(&server.client(&cache), "owner/name").unwrap();
    check_whole(&server, &dir);
    assert_eq!(server.n_file_bytes.load(Ordering::Relaxed), N_BYTES, "no byte was sent twice");
}

#[test]
fn a_later_run_goes_on_where_the_first_stopped() {
    for (mood, n_bytes_sent) in [(Mood::Well, 100_000), (Mood::IgnoresRanges, 300_000)] {
        let (server, cache) = (FakeHub::start(), tempfile::tempdir().unwrap());
        let hub = server.client(&cache);
        let dir = fetch(&hub, "owner/name").unwrap();
        let blob = fs::canonicalize(dir.join(WEIGHTS)).unwrap();
        let content = fs::read(&blob).unwrap();
        fs::remove_file(&blob).unwrap();
        fs::write(format!("{}.incomplete", blob.display()), &content[..200_000]).unwrap();
        assert_eq!(hub.find(&model("owner/name")), None, "a model without its weights is not there");
        server.n_file_bytes.store(0, Ordering::Relaxed);
        server.set_mood(mood);
        check_whole(&server, &fetch(&hub, "owner/name").unwrap());
        assert_eq!(server.n_file_bytes.load(Ordering::Relaxed), n_bytes_sent);
    }
}

#[test]
fn a_corrupted_file_is_refused_and_removed() {
    let (server, cache) = (FakeHub::start(), tempfile::tempdir().unwrap());
    let hub = server.client(&cache);
    server.set_mood(Mood::Corrupts);
    let error = fetch(&hub, "owner/name").unwrap_err();
    assert!(matches!(&error, HubError::Corrupted { file, .. } if file == WEIGHTS), "{error}");
    assert_eq!(hub.find(&model("owner/name")), None);
    assert_eq!(leftovers(cache.path()), Vec::<PathBuf>::new());
    server.set_mood(Mood::Well);
    check_whole(&server, &fetch(&hub, "owner/name").unwrap());
}

#[test]
fn damage_on_disk_is_noticed_and_mended() {
    let (server, cache) = (FakeHub::start(), tempfile::tempdir().unwrap());
    let hub = server.client(&cache);
    let dir = fetch(&hub, "owner/name").unwrap();
    let check = |expected: FileCheck| {
        let cached = hub.cached_models();
        assert_eq!(cached.len(), 1);
        assert_eq!((cached[0].references.as_slice(), cached[0].missing.len()), (&["main".to_owned()][..], 0));
        let checks = hub.verify(&cached[0]);
        assert_eq!(checks.len(), 5, "{checks:?}");
        for (name, found) in checks {
            assert_eq!(found, if name == WEIGHTS { expected.clone() } else { FileCheck::Good }, "{name}");
        }
    };
    check(FileCheck::Good);
    let blob = fs::canonicalize(dir.join(WEIGHTS)).unwrap();
    let mut content = fs::read(&blob).unwrap();
    content[5] ^= 64;
    fs::write(&blob, content).unwrap();
    check(FileCheck::Corrupted);
    hub.fetch(&model("owner/name"), &mut |_| {}).unwrap();
    check(FileCheck::Good);
}

#[test]
fn a_branch_stays_where_it_was_until_it_is_fetched_anew() {
    let (server, cache) = (FakeHub::start(), tempfile::tempdir().unwrap());
    let hub = server.client(&cache);
    let first = fetch(&hub, "owner/name").unwrap();
    *server.commit.lock().unwrap() = LATER_COMMIT;
    server.files.lock().unwrap().get_mut(WEIGHTS).unwrap()[0] ^= 1;
    assert_eq!(fetch(&hub, "owner/name").unwrap(), first);
    let later = hub.fetch(&model("owner/name"), &mut |_| {}).unwrap();
    assert!(later.ends_with(LATER_COMMIT));
    check_whole(&server, &later);
    assert_eq!(fetch(&hub, "owner/name").unwrap(), later);
    assert_eq!(fetch(&hub, &format!("owner/name@{COMMIT}")).unwrap(), first, "the older one is kept");
    assert!(fetch(&hub, "owner/name@refs/pr/1").unwrap().ends_with(LATER_COMMIT));
}

#[test]
fn fetches_at_the_same_time_share_one_download() {
    let (server, cache) = (FakeHub::start(), tempfile::tempdir().unwrap());
    let hub = server.client(&cache);
    std::thread::scope(|scope| {
        let fetches: Vec<_> = (0..4).map(|_| scope.spawn(|| fetch(&hub, "owner/name"))).collect();
        for it in fetches {
            check_whole(&server, &it.join().unwrap().unwrap());
        }
    });
    assert_eq!(server.n_file_bytes.load(Ordering::Relaxed), N_BYTES);
    assert_eq!(leftovers(cache.path()), Vec::<PathBuf>::new());
}

#[test]
fn shards_are_fetched_with_their_index() {
    let (server, cache) = (FakeHub::start(), tempfile::tempdir().unwrap());
    let shard = "model-00001-of-00001.safetensors";
    {
        let mut files = server.files.lock().unwrap();
        let weights = files.remove(WEIGHTS).unwrap();
        files.insert(shard.to_owned(), weights);
        let index = json!({"weight_map": {"a": shard, "b": shard}}).to_string();
        files.insert(WEIGHTS_INDEX.to_owned(), index.into_bytes());
    }
    let hub = server.client(&cache);
    let dir = fetch(&hub, "owner/name").unwrap();
    check_whole(&server, &dir);
    fs::remove_file(dir.join(shard)).unwrap();
    assert_eq!(hub.cached_models()[0].missing, [shard]);
    assert_eq!(hub.find(&model("owner/name")), None);
}

#[test]
fn refusals_say_what_to_do() {
    let (server, cache) = (FakeHub::start(), tempfile::tempdir().unwrap());
    let hub = server.client(&cache);
    let check = |hub: &Hub, name: &str, expected: &str| {
        let error = fetch(hub, name).unwrap_err().to_string();
        assert!(error.contains(expected), "{error:?} lacks {expected:?}");
    };
    check(&hub, "owner/nothing", "has no public model owner/nothing: check the name, or set HF_TOKEN");
    check(&hub, "owner/name@v9", "has no revision \"v9\"");
    check(&hub, &format!("owner/name@{}", "e".repeat(40)), "has no revision");
    let offline = Hub { is_offline: true, ..hub.clone() };
    check(&offline, "owner/name", "HF_HUB_OFFLINE is set; unset it, or run `ground models fetch");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    check(&Hub { endpoint: gone, ..hub.clone() }, "owner/name", "check the network (and HF_ENDPOINT)");
    server.set_mood(Mood::Overloaded);
    check(&hub, "owner/name", "answered 503");
    server.set_mood(Mood::Well);
    let weights = server.files.lock().unwrap().remove(WEIGHTS).unwrap();
    check(
        &hub,
        "owner/name",
        "no model.safetensors, which the model is loaded from (pytorch_model.bin is a pickle",
    );
    server.files.lock().unwrap().insert(WEIGHTS.to_owned(), weights);
    server.set_mood(Mood::Truncates(0));
    check(&hub, "owner/name", "Peer disconnected; check the network");
    server.set_mood(Mood::Well);
    // A cache that cannot be written.
    fs::write(cache.path().join("a file"), "").unwrap();
    let inside_file = Hub { cache_dir: cache.path().join("a file"), ..hub.clone() };
    check(&inside_file, "owner/name", "check the disk's space and permissions, or set HF_HUB_CACHE");

    fetch(&hub, "owner/name").unwrap();
    check(&offline, "owner/name@v9", &format!("the cache has owner/name@{COMMIT}"));
}

#[test]
fn too_little_room_is_noticed_before_anything_is_written() {
    let (server, cache) = (FakeHub::start(), tempfile::tempdir().unwrap());
    let file = |size: u64| RemoteFile { name: String::new(), size, id: "0".repeat(64).parse().unwrap() };
    let (hub, name) = (server.client(&cache), model("owner/name"));
    let repository = RepositoryCache::new(&hub.cache_dir, &name.repository);
    assert!(hub.check_space(&name, &repository, &[file(1)]).is_ok());
    let error = hub.check_space(&name, &repository, &[file(1 << 60)]).unwrap_err().to_string();
    assert!(error.contains("needs 1152921504607 MB more in"), "{error}");
}

#[test]
fn a_pinned_commit_must_have_the_weights_it_had() {
    let known = &KNOWN_MODELS[0];
    let sibling = |name: &str, sha256: &str| json!({"rfilename": name, "size": 1, "lfs": {"sha256": sha256}});
    let check = |sha256: &str, is_fine: bool| {
        let names = REQUIRED_FILES.iter().map(|it| sibling(it, &"0".repeat(64)));
        let siblings: Vec<_> = names.chain([sibling(WEIGHTS, sha256)]).collect();
        let listing =
            serde_json::from_value(json!({"sha": known.commit.unwrap(), "siblings": siblings})).unwrap();
        assert_eq!(needed_files(&model("Florence-2-base-ft"), listing).is_ok(), is_fine, "{sha256}");
    };
    check(known.weights_sha256.unwrap(), true);
    check(&"0".repeat(64), false);
}

#[test]
fn names_are_read_and_nonsense_is_refused() {
    let check = |text: &str, expected: Option<(&str, &str)>| {
        let found = text.parse::<HubModel>().ok();
        let expected = expected.map(|(repository, revision)| HubModel {
            repository: repository.into(),
            revision: revision.into(),
        });
        assert_eq!(found, expected, "{text:?}");
    };
    let known = &KNOWN_MODELS[0];
    check("Florence-2-base-ft", Some((known.repository, known.commit.unwrap())));
    check(known.repository, Some((known.repository, known.commit.unwrap())));
    check("Florence-2-base-ft@main", Some((known.repository, "main")));
    check("microsoft/Florence-2-base", Some(("microsoft/Florence-2-base", "main")));
    check("a/b@refs/pr/3", Some(("a/b", "refs/pr/3")));
    for nonsense in [
        "",
        "a",
        "/",
        "a/",
        "a/b/c",
        "/a/b",
        "../b",
        "a/..",
        "a/b@",
        "a/b@../x",
        "a/b@x/../y",
        "a--b/c",
        "a b/c",
        "http://a/b",
    ] {
        check(nonsense, None);
    }
    for it in KNOWN_MODELS {
        assert!(it.commit.is_none_or(is_commit), "{it:?}");
        assert!(
            it.weights_sha256.is_none_or(|it| it.parse::<ContentId>().is_ok() && it.len() == 64),
            "{it:?}"
        );
    }
}

#[test]
fn the_environment_is_the_one_of_huggingface_hub() {
    let hub = |variables: &[(&str, &str)]| {
        Hub::from_variables(|name| variables.iter().find(|it| it.0 == name).map(|it| it.1.to_owned()))
    };
    let home = ("HOME", "/home/me");
    assert_eq!(hub(&[home]).cache_dir, Path::new("/home/me/.cache/huggingface/hub"));
    assert_eq!(hub(&[home, ("XDG_CACHE_HOME", "/x")]).cache_dir, Path::new("/x/huggingface/hub"));
    assert_eq!(hub(&[home, ("HF_HOME", "/hf")]).cache_dir, Path::new("/hf/hub"));
    assert_eq!(hub(&[("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/c")]).cache_dir, Path::new("/c"));
    assert_eq!(hub(&[home]).endpoint, "https://huggingface.co");
    assert_eq!(hub(&[("HF_ENDPOINT", "http://mirror/")]).endpoint, "http://mirror");
    assert!(hub(&[("HF_HUB_OFFLINE", "1")]).is_offline && hub(&[("HF_HUB_OFFLINE", "YES")]).is_offline);
    assert!(!hub(&[("HF_HUB_OFFLINE", "0")]).is_offline && !hub(&[home]).is_offline);
}
