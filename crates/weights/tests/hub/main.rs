//! Models by their Hugging Face id, against a hub imitated on the loopback interface.

mod server;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bessemer_weights::{Access, HubOptions, ModelFiles, OpenOptions, Progress, WeightsError};
use server::{COMMIT, Fault, Hub, Repository};

const ID: &str = "tales/fox";

fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(path)
}

/// Sharded, with an index.
fn sharded() -> Repository {
    Repository::of_folder(&golden("models/qwen2/model"))
        .with("pytorch_model.bin", vec![1; 10])
        .with("README.md", vec![])
}

/// One file of 200 kB.
fn single() -> Repository {
    Repository::of_folder(&golden("quantised/llama_4bit_g64/model")).without("model.safetensors.index.json")
}

fn options(hub: &Hub, cache: &tempfile::TempDir) -> OpenOptions {
    OpenOptions {
        hub: Some(HubOptions {
            endpoint: hub.endpoint(),
            cache: cache.path().into(),
            token: None,
            access: Access::Online,
        }),
        ..OpenOptions::default()
    }
}

fn offline(mut options: OpenOptions) -> OpenOptions {
    if let Some(hub) = &mut options.hub {
        hub.access = Access::Offline;
    }
    options
}

fn with_token(mut options: OpenOptions, token: &str) -> OpenOptions {
    if let Some(hub) = &mut options.hub {
        hub.token = Some(token.into());
    }
    options
}

fn message(result: Result<ModelFiles, WeightsError>) -> String {
    result.unwrap_err().to_string()
}

fn assert_mentions(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

#[derive(Default)]
struct Log(Mutex<Vec<(String, u64, u64)>>);

impl Progress for Log {
    fn downloaded(&self, file: &str, done: u64, total: u64) {
        self.0.lock().unwrap().push((file.into(), done, total));
    }
}

#[test]
fn a_sharded_model_is_downloaded_once_and_then_opens_without_the_network() {
    let hub = Hub::start(sharded(), Fault::None);
    let cache = tempfile::tempdir().unwrap();
    let log = Arc::new(Log::default());
    let options = OpenOptions { progress: Some(log.clone()), ..with_token(options(&hub, &cache), "secret") };

    let files = ModelFiles::open(ID, &options).unwrap();
    let local =
        ModelFiles::open(&golden("models/qwen2/model").display().to_string(), &OpenOptions::default())
            .unwrap();
    assert_eq!(files.tensors.names(), local.tensors.names());
    for name in files.tensors.names() {
        assert_eq!(
            files.tensors.read(&name).unwrap().bytes,
            local.tensors.read(&name).unwrap().bytes,
            "{name}"
        );
    }
    assert_eq!((files.config, files.tokenizer_json), (local.config, local.tokenizer_json));

    let requests = hub.requests();
    assert!(
        requests.iter().all(|r| !r.path.contains("pytorch") && !r.path.contains("README")),
        "{requests:?}"
    );
    let to_storage: Vec<_> = requests.iter().filter(|r| r.path.starts_with("/storage/")).collect();
    assert_eq!(to_storage.len(), 4, "every shard comes from the storage host once");
    assert!(to_storage.iter().all(|r| r.authorization.is_none()), "the token must not leave the hub");
    assert!(
        requests.iter().filter(|r| !r.path.starts_with("/storage/")).all(|r| r.authorization.is_some()),
        "{requests:?}"
    );

    let shard = "model-00001-of-00004.safetensors";
    let size = std::fs::metadata(golden("models/qwen2/model").join(shard)).unwrap().len();
    let events = log.0.lock().unwrap().clone();
    assert!(events.contains(&(shard.into(), size, size)), "{events:?}");
    assert!(events.iter().all(|(_, done, total)| done <= total));

    let folder = cache.path().join("models--tales--fox");
    assert_eq!(std::fs::read_to_string(folder.join("refs/main")).unwrap(), COMMIT);
    assert!(folder.join("snapshots").join(COMMIT).join(shard).is_file());
    #[cfg(unix)]
    assert!(
        std::fs::read_link(folder.join("snapshots").join(COMMIT).join(shard))
            .unwrap()
            .starts_with("../../blobs")
    );

    let before = hub.requests().len();
    ModelFiles::open(ID, &options).unwrap();
    assert_eq!(
        hub.requests().len(),
        before + 1,
        "a cached model costs one question: what does main mean now"
    );
    ModelFiles::open(ID, &offline(options.clone())).unwrap();
    ModelFiles::open(&format!("{ID}@{COMMIT}"), &options).unwrap();
    assert_eq!(hub.requests().len(), before + 1, "offline, or at a known commit, nothing is asked");
}

#[test]
fn offline_without_the_whole_model_says_so() {
    let hub = Hub::start(sharded(), Fault::None);
    let cache = tempfile::tempdir().unwrap();
    let options = options(&hub, &cache);
    assert_mentions(&message(ModelFiles::open(ID, &offline(options.clone()))), &[ID, "HF_HUB_OFFLINE"]);
    assert!(hub.requests().is_empty());

    ModelFiles::open(ID, &options).unwrap();
    let shard = cache
        .path()
        .join("models--tales--fox/snapshots")
        .join(COMMIT)
        .join("model-00002-of-00004.safetensors");
    std::fs::remove_file(shard).unwrap();
    assert_mentions(&message(ModelFiles::open(ID, &offline(options.clone()))), &[ID, "whole model"]);
    ModelFiles::open(ID, &options).unwrap();
    ModelFiles::open(ID, &offline(options)).unwrap();
}

#[test]
fn a_hub_out_of_reach_is_no_error_if_the_cache_is_whole() {
    let cache = tempfile::tempdir().unwrap();
    let hub = Hub::start(single(), Fault::None);
    ModelFiles::open(ID, &options(&hub, &cache)).unwrap();
    let mut gone = options(&hub, &cache);
    if let Some(hub) = &mut gone.hub {
        // Port 9 (discard) of the loopback interface: nobody listens.
        hub.endpoint = "http://127.0.0.1:9".into();
    }
    ModelFiles::open(ID, &gone).unwrap();
    assert_mentions(
        &message(ModelFiles::open("tales/owl", &gone)),
        &["tales/owl", "cannot be reached", "HF_ENDPOINT"],
    );
}

#[test]
fn refusals_name_the_id_and_the_cure() {
    let cache = tempfile::tempdir().unwrap();
    let hub = Hub::start(single(), Fault::None);
    let open = |name: &str| message(ModelFiles::open(name, &options(&hub, &cache)));
    assert_mentions(&open("tales/wolf"), &["tales/wolf", "404", "Check the spelling"]);
    assert_mentions(&open("tales/fox@v9"), &["tales/fox@v9", "\"v9\"", "branch, tag or commit"]);

    let gated = Hub::start(single(), Fault::Gated);
    let stranger = message(ModelFiles::open(ID, &options(&gated, &cache)));
    assert_mentions(&stranger, &[ID, "gated", "401", "HF_TOKEN", "Accept its conditions"]);
    let known = message(ModelFiles::open(ID, &with_token(options(&gated, &cache), "t")));
    assert_mentions(&known, &[ID, "the token has no access", "account of HF_TOKEN"]);

    let other = single().without("model.safetensors").with("model.gguf", vec![0; 8]);
    let other = Hub::start(other, Fault::None);
    assert_mentions(
        &message(ModelFiles::open(ID, &options(&other, &cache))),
        &[ID, "neither", "safetensors"],
    );
}

#[test]
fn a_revision_has_its_own_reference() {
    let cache = tempfile::tempdir().unwrap();
    let hub = Hub::start(single(), Fault::None);
    ModelFiles::open("tales/fox@refs/pr/1", &options(&hub, &cache)).unwrap();
    let references = cache.path().join("models--tales--fox/refs");
    assert_eq!(std::fs::read_to_string(references.join("refs/pr/1")).unwrap(), COMMIT);
    assert!(!references.join("main").exists());
    let by_option = OpenOptions { revision: Some("v1".into()), ..options(&hub, &cache) };
    ModelFiles::open(ID, &by_option).unwrap();
    assert!(references.join("v1").is_file());
    assert!(hub.requests().iter().any(|r| r.path == "/api/models/tales/fox/revision/v1"));
}

#[test]
fn a_connection_that_drops_is_resumed_with_a_range() {
    let cache = tempfile::tempdir().unwrap();
    let size = std::fs::metadata(golden("quantised/llama_4bit_g64/model/model.safetensors")).unwrap().len();
    let hub = Hub::start(single(), Fault::DropOnceAt(60_000));
    let log = Arc::new(Log::default());
    let options = OpenOptions { progress: Some(log.clone()), ..options(&hub, &cache) };
    let files = ModelFiles::open(ID, &options).unwrap();
    assert!(files.tensors.names().len() > 20);
    let ranges: Vec<_> =
        hub.requests().into_iter().filter(|r| r.path.starts_with("/storage/")).map(|r| r.range).collect();
    assert_eq!(ranges, [None, Some("bytes=60000-".into())]);
    let events = log.0.lock().unwrap().clone();
    assert!(events.contains(&("model.safetensors".into(), 60_000, size)), "it goes on from where it stopped");
    assert_eq!(events.last(), Some(&("model.safetensors".into(), size, size)));
}

#[test]
fn a_later_call_goes_on_where_the_first_gave_up() {
    let cache = tempfile::tempdir().unwrap();
    let broken = Hub::start(single(), Fault::NothingAfter(50_000));
    let error = message(ModelFiles::open(ID, &options(&broken, &cache)));
    assert_mentions(&error, &[ID, "model.safetensors", "byte 50000", "Try again"]);
    let hub = Hub::start(single(), Fault::None);
    ModelFiles::open(ID, &options(&hub, &cache)).unwrap();
    let ranges: Vec<_> =
        hub.requests().into_iter().filter(|r| r.path.starts_with("/storage/")).map(|r| r.range).collect();
    assert_eq!(ranges, [Some("bytes=50000-".into())]);
}

#[test]
fn two_who_want_the_same_model_download_it_once() {
    let cache = tempfile::tempdir().unwrap();
    let hub = Hub::start(single(), Fault::None);
    let options = options(&hub, &cache);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| ModelFiles::open(ID, &options).unwrap());
        }
    });
    let transfers = hub.requests().into_iter().filter(|r| r.path.starts_with("/storage/")).count();
    assert_eq!(transfers, 1);
}

#[test]
fn a_server_without_ranges_begins_again() {
    let cache = tempfile::tempdir().unwrap();
    let hub = Hub::start(single(), Fault::DropOnceNoRanges(60_000));
    let files = ModelFiles::open(ID, &options(&hub, &cache)).unwrap();
    let local = golden("quantised/llama_4bit_g64/model/model.safetensors");
    assert_eq!(files.bytes_on_disk, std::fs::metadata(local).unwrap().len());
}

#[test]
fn wrong_bytes_are_refused_and_thrown_away() {
    let cache = tempfile::tempdir().unwrap();
    let hub = Hub::start(single(), Fault::WrongBytes);
    let error = message(ModelFiles::open(ID, &options(&hub, &cache)));
    assert_mentions(&error, &[ID, "model.safetensors", "checksum", "try again"]);
    let blobs = cache.path().join("models--tales--fox/blobs");
    let left: Vec<_> = std::fs::read_dir(blobs).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(
        left.iter().all(|name| name.len() != 64 && !name.to_string_lossy().contains("incomplete")),
        "{left:?}"
    );
}

#[test]
fn a_hostile_hub_cannot_leave_the_cache() {
    let cache = tempfile::tempdir().unwrap();
    let hub = Hub::start(single(), Fault::Commit("../../../../outside"));
    assert_mentions(&message(ModelFiles::open(ID, &options(&hub, &cache))), &[ID, "outside", "not a hash"]);
    let index = br#"{"weight_map": {"a": "../../../escape.safetensors"}}"#;
    let hub = Hub::start(single().with("model.safetensors.index.json", index.to_vec()), Fault::None);
    let error = message(ModelFiles::open(ID, &options(&hub, &cache)));
    assert_mentions(&error, &["escape.safetensors", "same folder"]);
}
