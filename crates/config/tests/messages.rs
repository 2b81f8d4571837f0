//! What is told of wrong configurations, of other names, and of who goes before whom.

use bessemer_config::{ConfigFile, Configuration, Key, Sources, keys};
use serde_json::json;

fn sources(text: &str) -> Sources {
    let file = ConfigFile { path: "config/runtime.yaml".into(), text: text.to_owned() };
    Sources { file: Some(file), ..Sources::default() }
}

fn read(text: &str) -> Configuration {
    sources(text).resolve().unwrap()
}

fn refused(text: &str) -> String {
    sources(text).resolve().unwrap_err().to_string()
}

fn key(path: &str) -> &'static Key {
    keys().iter().find(|key| key.path == path).unwrap()
}

#[test]
fn every_mistake_is_told_at_once_with_its_line() {
    let text = "\
metal_optimizations:
  memory_pool:
    heap_size_mb: 32
    num_heap: 4
  blit_queue:
    timeout_ms: soon
prot: 80
";
    assert_eq!(
        refused(text),
        "config/runtime.yaml:3: metal_optimizations.memory_pool.heap_size_mb is 32, but it must be 64 to 2048: \
         set it to 64\n\
         config/runtime.yaml:4: num_heap is given, but there is no such key in metal_optimizations.memory_pool: \
         did you mean num_heaps?\n\
         config/runtime.yaml:6: metal_optimizations.blit_queue.timeout_ms is soon, but it must be 100 to 30000: \
         write a whole number without quotes\n\
         config/runtime.yaml:7: prot is given, but there is no such key in the top: did you mean port?"
    );
}

#[test]
fn impossible_pairs_name_both_and_the_line_of_the_one_that_was_said() {
    let text = "metal_optimizations:\n  memory_pool:\n    max_heap_size_mb: 128\n    warmup_sizes: [32]\n";
    let message = refused(text);
    assert_eq!(
        message,
        "config/runtime.yaml:3: metal_optimizations.memory_pool.heap_size_mb is 256, but memory_pool.max_heap_size_mb \
         allows 128: lower the first or raise the second"
    );
    let message = refused("exact: true\nkv_dtype: f16\n");
    assert!(message.contains("runtime.yaml:1: exact is true, but kv_dtype is f16"), "{message}");
    let message = refused("admin: {host: 0.0.0.0}\n");
    assert!(message.contains("admin.token is not set: set BESSEMER_ADMIN_TOKEN"), "{message}");
    assert!(refused("port: 9464\n").contains("runtime.yaml:1: admin.port is 9464, but port is 9464 too"));
    assert!(refused("metal_optimizations: {rollout: {stages: [50, 10]}}\n").contains("above the one before"));
    let text = "metal_optimizations:\n  memory_pool:\n    warmup_buffer_sizes_mb: [32, 128, 512]\n";
    assert!(
        refused(text)
            .contains("runtime.yaml:3: metal_optimizations.memory_pool.warmup_buffer_sizes_mb is 512")
    );
}

#[test]
fn a_key_in_the_wrong_place_is_sent_to_the_right_one() {
    let message = refused("metal_optimizations:\n  heap_size_mb: 256\n");
    assert!(message.ends_with("heap_size_mb belongs to metal_optimizations.memory_pool"), "{message}");
    let message = refused("server:\n  port: 80\n");
    assert!(message.contains("server is given, but there is no such key"), "{message}");
    let message = refused("metal_optimizations: true\n");
    assert!(message.contains("write them indented below `metal_optimizations:`"), "{message}");
    assert!(refused("- port\n").contains("the document is a list of 1"));
}

#[test]
fn other_names_count_and_are_noted() {
    let configuration = read(
        "max-queue: 7\nmetal_optimizations:\n  blit_queue: {max_concurrent_ops: 3}\n  command_buffer_ring: {timeout_ms: 0}\n",
    );
    assert_eq!(configuration.settings().server.max_queue, 7);
    assert_eq!(configuration.settings().optimizations.blit_queue.config.max_pending_ops, 3);
    assert_eq!(configuration.settings().optimizations.command_buffer_ring.config.max_wait_ms, 0);
    let notes = configuration.notes();
    assert_eq!(notes.len(), 3, "{notes:?}");
    assert_eq!(notes[0], "config/runtime.yaml:1: max-queue is another name of max_queue: write max_queue");
    assert!(
        notes[1].ends_with("max_concurrent_ops is another name of max_pending_ops: write max_pending_ops")
    );
    let message = refused("metal_optimizations:\n  memory_pool:\n    pool_count: 3\n    num_heaps: 4\n");
    assert!(message.contains("given twice, first in config/runtime.yaml:3"), "{message}");
}

#[test]
fn what_nothing_acts_on_says_so() {
    let configuration =
        read("metal_optimizations: {rollout: {percent: 10}}\nmetal_acceleration: {prefer_python: true}\n");
    assert_eq!(configuration.settings().rollout.percent, 10);
    let notes = configuration.notes();
    assert_eq!(notes.len(), 3, "{notes:?}");
    assert!(
        notes[1]
            .contains("metal_optimizations.rollout.percent is checked and kept, but nothing acts on it yet")
    );
    assert_eq!(read("").notes(), [""; 0]);
}

#[test]
fn who_says_later_goes_before() {
    let path = "metal_optimizations.memory_pool.heap_size_mb";
    let mut sources = sources("preset: batch\n");
    let at = |sources: &Sources| {
        let configuration = sources.clone().resolve().unwrap();
        let value = key(path).value(configuration.settings()).to_string();
        (value, configuration.origin(key(path)).to_string())
    };
    assert_eq!(at(&Sources::default()), ("256".into(), "default".into()));
    assert_eq!(at(&sources), ("512".into(), "preset batch".into()));
    sources.file.as_mut().unwrap().text += "metal_optimizations:\n  memory_pool:\n    heap_size_mb: 300\n";
    assert_eq!(at(&sources), ("300".into(), "config/runtime.yaml:4".into()));
    sources.environment = vec![("METAL_OPTIMIZATIONS_MEMORY_POOL_HEAP_SIZE_MB".into(), "301".into())];
    assert_eq!(
        at(&sources),
        ("301".into(), "environment METAL_OPTIMIZATIONS_MEMORY_POOL_HEAP_SIZE_MB".into())
    );
    sources.arguments = vec![(path, "302".into()), ("preset", "debug".into())];
    assert_eq!(at(&sources), ("302".into(), format!("argument {path}")));
    let configuration = sources.resolve().unwrap();
    assert_eq!(configuration.origin(key("preset")).to_string(), "argument --preset");
    assert!(
        configuration.settings().optimizations.blit_queue.config.verbose_logging,
        "the preset of the argument"
    );
    let patched =
        configuration.patched(&json!({"metal_optimizations": {"memory_pool": {"heap_size_mb": 303}}}));
    let patched = patched.unwrap();
    assert_eq!(key(path).value(patched.settings()).to_string(), "303");
    assert_eq!(patched.origin(key(path)).to_string(), "changed at run time");
}

#[test]
fn variables_are_read_whole_or_refused() {
    let with = |name: &str, value: &str| {
        Sources { environment: vec![(name.into(), value.into())], ..Sources::default() }.resolve()
    };
    let warmup = "METAL_OPTIMIZATIONS_MEMORY_POOL_WARMUP_BUFFER_SIZES_MB";
    let read = with(warmup, "16, 64").unwrap();
    assert_eq!(read.settings().optimizations.memory_pool.config.warmup_buffer_sizes_mb, [16, 64]);
    assert!(with("METAL_OPTIMIZATIONS_ENABLED", "").is_ok(), "an empty one counts as unset");
    let message = with("METAL_OPTIMIZATIONS_ENABLED", "maybe").unwrap_err().to_string();
    assert_eq!(
        message,
        "environment METAL_OPTIMIZATIONS_ENABLED: metal_optimizations.enabled is maybe, but it must be false, true or \
         auto: choose one of them, without quotes"
    );
    let message = with("METAL_OPTIMIZATIONS_BLIT_QUEUE_ENABELD", "true").unwrap_err().to_string();
    assert!(message.ends_with("did you mean METAL_OPTIMIZATIONS_BLIT_QUEUE_ENABLED?"), "{message}");
    let message = with("BESSEMER_PORT", "tcp://10.0.0.1:8080").unwrap_err().to_string();
    assert!(message.contains("enableServiceLinks: false"), "{message}");
    assert!(with("BESSEMER_SERVICE_HOST", "10.0.0.1").is_ok());
    let asked = Sources {
        environment: vec![("METAL_OPTIMIZATIONS_ENABLED".into(), "maybe".into())],
        arguments: vec![("metal_optimizations.enabled", "false".into())],
        ..Sources::default()
    };
    assert!(asked.resolve().is_ok(), "what an argument says is not looked for in the environment");
}

#[test]
fn a_reload_takes_the_file_and_forgets_what_was_changed() {
    let heap = key("metal_optimizations.memory_pool.num_heaps");
    let running = read("port: 8081\nmetal_optimizations: {memory_pool: {num_heaps: 3}}\n");
    let changed = running
        .patched(&json!({"metal_optimizations": {"memory_pool": {"num_heaps": 5}, "enabled": false}}))
        .unwrap();
    let file = |text: &str| Some(ConfigFile { path: "config/runtime.yaml".into(), text: text.to_owned() });
    let text = "port: 8082\nmetal_optimizations: {memory_pool: {num_heaps: 6}}\n";
    let (reloaded, late) = changed.reloaded(file(text)).unwrap();
    assert_eq!(heap.value(reloaded.settings()).to_string(), "6");
    assert_eq!(reloaded.settings().server.port, 8081, "it listens where it listens");
    assert_eq!(late.iter().map(|change| change.key.path).collect::<Vec<_>>(), ["port"]);
    assert_eq!(reloaded.origin(key("metal_optimizations.enabled")).to_string(), "default");
    let again = reloaded.patched(&json!({"metal_optimizations": {"enabled": true}})).unwrap();
    assert_eq!(again.settings().server.port, 8081);
    assert!(changed.reloaded(file("metal_optimizations: {memory_pool: {num_heaps: 99}}\n")).is_err());
    let (none, _) = changed.reloaded(None).unwrap();
    assert_eq!(heap.value(none.settings()).to_string(), "4");
}

#[test]
fn a_patch_cannot_change_what_counts_at_the_start() {
    let running = read("");
    let message = running.patched(&json!({"port": 80, "device": "cpu"})).unwrap_err().to_string();
    assert_eq!(
        message,
        "device is cpu, but it counts when the program starts, and is auto now: write it into the file and start again\n\
         port is 80, but it counts when the program starts, and is 8080 now: write it into the file and start again"
    );
    assert!(running.patched(&json!({"port": 8080})).is_ok(), "as it is");
    let three = running.patched(&json!({"metal_optimizations": {"memory_pool": {"pool_count": 3}}})).unwrap();
    let back = three.patched(&json!({"metal_optimizations": {"memory_pool": {"pool_count": null}}})).unwrap();
    assert_eq!(back.settings(), running.settings(), "another name takes back too");
    let many: serde_json::Map<_, _> = (0..10_000).map(|n| (format!("key{n}"), json!(1))).collect();
    assert_eq!(running.patched(&json!(many)).unwrap_err().problems.len(), 50);
    assert!(running.patched(&json!([])).unwrap_err().to_string().starts_with("the document is a list of 0"));
    assert!(running.patched(&json!({"api_key": "secret"})).unwrap_err().to_string().contains("(hidden)"));
}

#[test]
fn secrets_are_not_shown() {
    let configuration = read("api_key: hunter2\nadmin: {token: hunter3}\n");
    let shown = format!("{}{}{configuration:?}", configuration.yaml(), configuration.json());
    assert!(!configuration.yaml().contains("hunter") && !configuration.json().to_string().contains("hunter"));
    assert!(configuration.yaml().contains("# api_key is set and not shown  # config/runtime.yaml:1"));
    assert!(!format!("{:?}", configuration.settings()).contains("hunter"), "{shown}");
}
