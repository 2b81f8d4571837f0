//! The operator's side of `serve` as a process: sources of settings, signals, the listener.

use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bessemer_config::{Acts, Key, Kind, keys};
use serde_json::Value;

use crate::run::command;
use crate::serve::Server;

/// Longest wait for what must come.
const PATIENCE: Duration = Duration::from_secs(60);

/// A value that the default is not, as a file and as the environment spell it.
fn another(key: &Key) -> (String, String) {
    let both = |text: &str| (text.to_owned(), text.to_owned());
    match (key.name(), &key.kind) {
        ("enabled" | "graceful_fallback", Kind::Switch) => both("true"),
        ("verbose_logging" | "verify_checksums" | "prefer_reference" | "kv_quantization", _) => both("true"),
        ("warmup_buffer_sizes_mb", _) => ("[8, 64]".into(), "8,64".into()),
        ("stages", _) => ("[50, 100]".into(), "50,100".into()),
        ("heap_size_mb", _) => both("192"),
        ("max_heap_size_mb", _) => both("1024"),
        ("num_heaps", _) => both("5"),
        ("min_heaps", _) => both("3"),
        ("fallback_log_level", _) => both("info"),
        ("threshold", _) => both("0.5"),
        ("preset", _) => both("realtime"),
        (_, Kind::Flag) => both("false"),
        (_, Kind::Whole(range) | Kind::WholeOrZero(range)) => both(&range.start().to_string()),
        (name, _) => panic!("{name} has no other value here"),
    }
}

fn changeable() -> Vec<&'static Key> {
    keys().iter().filter(|key| key.acts != Acts::AtStart).collect()
}

/// A file with one key.
fn file(key: &Key, value: &str) -> String {
    let names: Vec<&str> = key.path.split('.').collect();
    let mut text = String::new();
    for (depth, name) in names.iter().enumerate() {
        let value = if depth + 1 == names.len() { value } else { "" };
        text += &format!("{}{name}: {value}\n", "  ".repeat(depth));
    }
    text
}

fn find<'a>(key: &Key, document: &'a Value) -> &'a Value {
    key.path.split('.').fold(document, |node, name| &node[name])
}

fn shown(folder: &Path, set: impl FnOnce(&mut Command)) -> Value {
    let mut command = command();
    command.current_dir(folder).args(["config", "show", "--json"]);
    set(&mut command);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Whether a value as a file spells it is this JSON.
fn is(json: &Value, spelling: &str) -> bool {
    json.as_str().map_or_else(|| json.to_string().replace(',', ", "), str::to_owned) == spelling
}

#[test]
fn each_key_is_taken_from_the_file_and_from_the_environment() {
    let folder = tempfile::tempdir().unwrap();
    for key in changeable() {
        let (in_file, in_environment) = another(key);
        std::fs::write(folder.path().join("one.yaml"), file(key, &in_file)).unwrap();
        let document = shown(folder.path(), |command| {
            command.args(["--config", "one.yaml"]);
        });
        assert!(is(find(key, &document["config"]), &in_file), "{}: {document}", key.path);
        let origin = find(key, &document["origins"]).as_str().unwrap();
        assert_eq!(origin, format!("one.yaml:{}", key.path.split('.').count()));
        let document = shown(folder.path(), |command| {
            command.env(key.variable(), &in_environment);
        });
        assert!(is(find(key, &document["config"]), &in_file), "{}: {document}", key.path);
        let origin = find(key, &document["origins"]).as_str().unwrap();
        assert_eq!(origin, format!("environment {}", key.variable()));
    }
}

#[test]
fn the_environment_reaches_the_engine() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = command();
    for key in changeable() {
        command.env(key.variable(), another(key).1);
    }
    let server = Server::run(command.current_dir(folder.path()), &["--port", "0", "--admin-port", "0"]);
    let (_, stats) = server.operate("GET", "/api/v1/stats", "");
    let document = serde_json::json!({"metal_optimizations": stats["metal_optimizations"]["settings"]});
    for key in changeable().into_iter().filter(|key| key.path.starts_with("metal_optimizations.")) {
        assert!(is(find(key, &document), &another(key).0), "{}: {document}", key.path);
    }
}

/// A client that reads streams, which must all be the same, until it is told to stop; how many there were.
fn read_streams(server: &Arc<Server>, done: &Arc<AtomicBool>) -> std::thread::JoinHandle<usize> {
    let (server, done) = (server.clone(), done.clone());
    let ask = move || {
        let body = r#"{"prompt": "Once upon a time", "max_tokens": 20, "temperature": 0, "stream": true}"#;
        let mut answer = String::new();
        server.send("POST", "/v1/completions", "", body).read_to_string(&mut answer).unwrap();
        assert!(answer.contains("data: [DONE]"), "{answer}");
        let chunks = answer.lines().filter_map(|line| line.strip_prefix("data: {"));
        let texts = chunks.map(|chunk| serde_json::from_str::<Value>(&format!("{{{chunk}")).unwrap());
        texts
            .map(|chunk| chunk["choices"][0]["text"].as_str().unwrap_or_default().to_owned())
            .collect::<String>()
    };
    std::thread::spawn(move || {
        let first = ask();
        let mut answers = 1;
        while !done.load(Ordering::Acquire) {
            assert_eq!(ask(), first);
            answers += 1;
        }
        answers
    })
}

#[test]
fn each_key_is_taken_at_a_hangup_while_clients_read() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("config")).unwrap();
    let path = folder.path().join("config/runtime.yaml");
    std::fs::write(&path, "port: 0\nadmin: {port: 0}\n").unwrap();
    let server = Arc::new(Server::run(command().current_dir(folder.path()), &[]));
    let done = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..2).map(|_| read_streams(&server, &done)).collect();
    let start = "port: 0\nadmin: {port: 0}\n";
    let mut late = Vec::new();
    for key in changeable() {
        let (value, _) = another(key);
        std::fs::write(&path, format!("{start}{}", file(key, &value))).unwrap();
        server.signal("-HUP");
        let begun = Instant::now();
        let reached = loop {
            let (status, stats) = server.operate("GET", "/api/v1/stats", "");
            assert_eq!(status, 200);
            let own = stats["metal_optimizations"]["settings"].clone();
            let in_engine = serde_json::json!({"metal_optimizations": own});
            let document = if key.path.starts_with("metal_optimizations.") {
                in_engine
            } else {
                server.operate("GET", "/api/v1/config", "").1["config"].take()
            };
            let seen = is(find(key, &document), &value);
            if seen || begun.elapsed() > PATIENCE {
                break seen;
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        assert!(reached, "{} did not become {value}", key.path);
        if begun.elapsed() > Duration::from_secs(1) {
            late.push((key.path, begun.elapsed()));
        }
    }
    // A machine that has other things to do may stop all of us for longer, but not most of the time.
    assert!(late.len() * 10 <= changeable().len(), "longer than a second took {late:?}");

    // A bad file changes nothing.
    let before = server.operate("GET", "/api/v1/config", "").1;
    std::fs::write(&path, "metal_optimizations:\n  memory_pool:\n    num_heaps: 99\n").unwrap();
    server.signal("-HUP");
    let begun = Instant::now();
    while !server
        .log()
        .contains("nothing has changed: config/runtime.yaml:3: metal_optimizations.memory_pool.num_heaps")
    {
        assert!(begun.elapsed() < PATIENCE, "{}", server.log());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(server.operate("GET", "/api/v1/config", "").1, before);
    std::fs::remove_file(&path).unwrap();
    server.signal("-HUP");
    let begun = Instant::now();
    while server.operate("GET", "/api/v1/config", "").1["origins"]["metal_acceleration"]["features"]["kv_quantization"]
        != "default"
    {
        assert!(begun.elapsed() < PATIENCE, "no file says nothing");
    }

    done.store(true, Ordering::Release);
    let answers: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
    assert!(answers >= 2);
    server.signal("-TERM");
    let Ok(server) = Arc::try_unwrap(server) else { panic!("all clients are gone") };
    let (code, log) = server.end();
    assert_eq!(code, Some(0), "{log}");
}

#[test]
fn a_server_at_its_end_is_not_ready_and_answers_its_operator() {
    let server =
        Server::run(command().current_dir(std::env::temp_dir()), &["--port", "0", "--admin-port", "0"]);
    assert_eq!(server.operate("GET", "/ready", "").0, 200);
    let body = r#"{"prompt": "Once upon a time", "max_tokens": 900, "stream": true, "ignore_eos": true}"#;
    let mut streams: Vec<_> = (0..4).map(|_| server.send("POST", "/v1/completions", "", body)).collect();
    streams.iter_mut().for_each(|stream| stream.read_exact(&mut [0; 15]).unwrap());
    server.signal("-TERM");
    let begun = Instant::now();
    loop {
        let (status, answer) = server.operate("GET", "/ready", "");
        if status == 503 {
            assert_eq!(answer["error"]["code"], "shutting_down");
            break;
        }
        assert!(begun.elapsed() < PATIENCE);
    }
    assert_eq!(server.operate("GET", "/health", "").1["status"], "draining");
    let off = r#"{"metal_optimizations": {"enabled": false}}"#;
    assert_eq!(server.operate("POST", "/api/v1/config", off).0, 200, "the operator may still help");
    for mut stream in streams {
        let mut rest = String::new();
        stream.read_to_string(&mut rest).unwrap();
        assert!(rest.contains("data: [DONE]"));
    }
    assert_eq!(server.end().0, Some(0));
}

#[test]
fn a_taken_port_is_a_warning_unless_somebody_chose_it() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = command()
        .current_dir(folder.path())
        .args(["serve", "--port", "0", "--admin-port", &port])
        .output()
        .unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(errors.contains("Choose another --admin-port"), "{errors}");

    let server = Server::run(command().current_dir(folder.path()), &["--port", "0", "--admin", "off"]);
    assert_eq!(server.operator(), "");
    server.signal("-HUP");
    server.signal("-TERM");
    let (code, log) = server.end();
    assert_eq!(code, Some(0), "a hangup ends nothing: {log}");
}
