//! `serve` as a process: where it listens, who may ask, and how it ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::run::command;

/// A server as a process.
pub struct Server {
    child: Child,
    /// The log so far.
    log: Arc<Mutex<String>>,
    /// Reads it, lest a full pipe stop the server.
    reader: Option<JoinHandle<()>>,
    address: String,
    /// Of the operator's listener.
    operator: String,
}

impl Server {
    fn start(key: Option<&str>) -> Self {
        let mut command = command();
        if let Some(key) = key {
            command.env("BESSEMER_API_KEY", key);
        }
        Self::run(&mut command, &["--port", "0", "--admin-port", "0"])
    }

    /// `serve` with these arguments.
    pub fn run(command: &mut Command, arguments: &[&str]) -> Self {
        let child = command.args(["serve", "--log-format", "json"]).args(arguments).spawn().unwrap();
        let (address, operator) = (String::new(), String::new());
        let mut server = Self { child, log: Arc::default(), reader: None, address, operator };
        let mut stderr = BufReader::new(server.child.stderr.take().unwrap());
        while server.address.is_empty() {
            let mut line = String::new();
            assert_ne!(
                stderr.read_line(&mut line).unwrap(),
                0,
                "the server ended before it listened: {}",
                server.log()
            );
            let message = message(&line);
            if let Some(address) = message.strip_prefix("listening on http://") {
                server.address = address.to_owned();
            }
            if let Some(address) = message.strip_prefix("operator's listener on http://") {
                server.operator = address.to_owned();
            }
            server.log.lock().unwrap().push_str(&line);
        }
        let log = server.log.clone();
        server.reader = Some(std::thread::spawn(move || {
            let mut line = String::new();
            while stderr.read_line(&mut line).unwrap() > 0 {
                log.lock().unwrap().push_str(&std::mem::take(&mut line));
            }
        }));
        server
    }

    /// Waits until the log holds `wanted`.
    fn wait_for_log(&self, wanted: &str) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.log().contains(wanted) {
            assert!(Instant::now() < deadline, "no '{wanted}' in the log: {}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends a request and returns the connection, from which the response can be read.
    pub fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> TcpStream {
        send(&self.address, method, path, headers, body)
    }

    /// Asks the operator's listener; status and JSON.
    pub fn operate(&self, method: &str, path: &str, body: &str) -> (u16, serde_json::Value) {
        let mut response = String::new();
        send(&self.operator, method, path, "", body).read_to_string(&mut response).unwrap();
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {response}")))
    }

    /// The operator's listener; empty where there is none.
    pub fn operator(&self) -> &str {
        &self.operator
    }

    /// Where clients are served.
    pub fn public(&self) -> &str {
        &self.address
    }

    fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> String {
        let mut response = String::new();
        self.send(method, path, headers, body).read_to_string(&mut response).unwrap();
        response
    }

    /// The log so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    /// Waits for the end; the exit code and the rest of the log.
    pub fn end(mut self) -> (Option<i32>, String) {
        let deadline = Instant::now() + Duration::from_secs(60);
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "the server does not end");
            std::thread::sleep(Duration::from_millis(20));
        };
        self.reader.take().unwrap().join().unwrap();
        (status.code(), self.log())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Ended already where the test went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The message of a line of the log.
fn message(line: &str) -> String {
    let line: serde_json::Value =
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    line["fields"]["message"].as_str().unwrap_or_default().to_owned()
}

fn send(address: &str, method: &str, path: &str, headers: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n{headers}\r\n{body}"
    )
    .unwrap();
    stream
}

const LONG: &str = r#"{"prompt": "Once upon a time", "max_tokens": 900, "stream": true, "temperature": 0,
    "logit_bias": {"0": -100, "2": -100}}"#;

#[test]
fn a_running_request_is_finished_after_the_first_signal() {
    let server = Server::start(None);
    assert!(server.ask("GET", "/health", "", "").starts_with("HTTP/1.1 200"));
    let mut stream = server.send("POST", "/v1/completions", "", LONG);
    let mut first = [0; 15];
    stream.read_exact(&mut first).unwrap();
    server.signal("-TERM");
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200 OK");
    assert!(
        rest.contains("data: [DONE]"),
        "the answer was broken off: …{:?}",
        rest.get(rest.len().saturating_sub(300)..)
    );
    let (code, log) = server.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("finishing running requests"), "{log}");
}

#[test]
fn the_second_signal_ends_at_once() {
    let server = Server::start(None);
    // Many at once, so that they cannot be done before the second signal.
    let mut streams: Vec<_> = (0..16).map(|_| server.send("POST", "/v1/completions", "", LONG)).collect();
    streams.iter_mut().for_each(|stream| stream.read_exact(&mut [0; 15]).unwrap());
    server.signal("-INT");
    server.wait_for_log("finishing running requests");
    server.signal("-INT");
    let (code, log) = server.end();
    assert_eq!(code, Some(130), "{log}");
}

#[test]
fn a_key_from_the_environment_is_asked_for() {
    let server = Server::start(Some("secret"));
    let ask = |headers| server.ask("GET", "/v1/models", headers, "");
    assert!(ask("").starts_with("HTTP/1.1 401"));
    assert!(ask("Authorization: Bearer wrong\r\n").starts_with("HTTP/1.1 401"));
    assert!(ask("Authorization: Bearer secret\r\n").starts_with("HTTP/1.1 200"));
    server.signal("-INT");
    assert_eq!(server.end().0, Some(0));
}

/// The lines of a log, each of which must be an object with what every line has.
#[track_caller]
fn lines(log: &str) -> Vec<serde_json::Value> {
    let parse = |line: &str| -> serde_json::Value {
        let line: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for field in ["timestamp", "level", "target"] {
            assert!(line[field].is_string(), "no {field}: {line}");
        }
        line
    };
    log.lines().map(parse).collect()
}

#[test]
fn every_line_of_the_log_is_json_and_those_of_a_request_have_its_id() {
    let server = Server::start(None);
    let body = r#"{"prompt": "Once", "max_tokens": 4}"#;
    let streamed = r#"{"prompt": "Once", "max_tokens": 4, "stream": true}"#;
    server.ask("POST", "/v1/completions", "X-Request-Id: mine-1\r\n", body);
    server.ask("POST", "/v1/completions", "X-Request-Id: mine-2\r\n", streamed);
    server.ask("POST", "/v1/completions", "X-Request-Id: mine-3\r\n", r#"{"prompt": 1}"#);
    let (status, _) =
        server.operate("POST", "/api/v1/config", r#"{"metal_optimizations": {"enabled": false}}"#);
    assert_eq!(status, 200);
    server.signal("-HUP");
    server.wait_for_log("the configuration was read again");
    server.signal("-TERM");
    let (code, log) = server.end();
    assert_eq!(code, Some(0), "{log}");
    let lines = lines(&log);
    let of = |id: &str| -> Vec<&str> {
        let own = lines.iter().filter(|line| line["span"]["request_id"] == id);
        own.map(|line| line["fields"]["message"].as_str().unwrap()).collect()
    };
    for (id, told) in [("mine-1", &["generated", "answered"][..]), ("mine-3", &["answered"])] {
        assert_eq!(of(id), told, "{log}");
    }
    // The head of a stream's answer goes out before or after its end.
    let mut second = of("mine-2");
    second.sort_unstable();
    assert_eq!(second, ["answered", "generated"], "{log}");
    let says = |message: &str| lines.iter().any(|line| line["fields"]["message"].as_str() == Some(message));
    assert!(says("finishing running requests; interrupt again to end at once"), "{log}");
}

#[test]
fn the_configuration_says_how_the_log_is_written_and_a_flag_goes_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("runtime.yaml");
    std::fs::write(&file, "log: {format: json}\nhost: 203.0.113.1\nport: 0\nadmin: {enabled: false}\n")
        .unwrap();
    let file = file.to_str().unwrap();
    let run = |more: &[&str]| {
        let mut command = command();
        let output = command.args(["serve", "--config", file]).args(more).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let told = lines(&run(&[]));
    let last = told.last().unwrap();
    assert_eq!(last["level"], "ERROR");
    assert!(last["fields"]["message"].as_str().unwrap().starts_with("error: host, port: "), "{last}");
    let text = run(&["--log-format", "text"]);
    assert!(text.lines().last().unwrap().starts_with("error: host, port: "), "{text}");
}

/// Takes one request and answers it; its first line.
fn collect(collector: &TcpListener) -> String {
    let (stream, _) = collector.accept().unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut stream = BufReader::new(stream);
    let (mut first, mut length) = (String::new(), 0);
    stream.read_line(&mut first).unwrap();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    assert!(body.windows(8).any(|window| window == b"generate"), "no span of a generation");
    stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
    first
}

#[test]
fn the_last_traces_reach_the_collector_that_environment_or_flag_names() {
    for by_flag in [true, false] {
        let collector = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", collector.local_addr().unwrap());
        let mut command = command();
        let mut arguments = vec!["--port", "0", "--admin-port", "0"];
        if by_flag {
            // It goes before what the environment says.
            command.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://203.0.113.1:1");
            arguments.extend(["--otlp-endpoint", &address]);
        } else {
            command.env("OTEL_EXPORTER_OTLP_ENDPOINT", &address);
        }
        let server = Server::run(&mut command, &arguments);
        server.ask("POST", "/v1/completions", "", r#"{"prompt": "Once", "max_tokens": 2}"#);
        server.signal("-TERM");
        assert_eq!(collect(&collector).trim_end(), "POST /v1/traces HTTP/1.1");
        let (code, log) = server.end();
        assert_eq!(code, Some(0), "{log}");
        assert!(log.contains("\"trace_id\":\""), "{log}");
        assert!(!log.contains("do not reach"), "{log}");
    }
}

#[test]
fn a_collector_needs_an_address() {
    let arguments = ["serve", "--port", "0", "--admin", "off", "--otlp-endpoint", "localhost:4318"];
    let output = command().args(arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("tracing.otlp_endpoint") && said.contains("http://"), "{said}");
}
