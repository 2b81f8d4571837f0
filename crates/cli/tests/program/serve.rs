//! `serve` as a process: where it listens, who may ask, and how it ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStderr, Command};
use std::time::{Duration, Instant};

use crate::run::command;

struct Server {
    child: Child,
    /// The log that was not read yet.
    stderr: Option<BufReader<ChildStderr>>,
    /// The log so far.
    log: String,
    address: String,
}

impl Server {
    fn start(key: Option<&str>) -> Self {
        let mut command = command();
        if let Some(key) = key {
            command.env("BESSEMER_API_KEY", key);
        }
        let mut child = command.args(["serve", "--port", "0", "--log-format", "json"]).spawn().unwrap();
        let stderr = Some(BufReader::new(child.stderr.take().unwrap()));
        let mut server = Self { child, stderr, log: String::new(), address: String::new() };
        let line = server.read_log_until("listening on http://");
        line.trim_end().strip_prefix("listening on http://").unwrap().clone_into(&mut server.address);
        server
    }

    /// Reads the log up to a line that holds `wanted`.
    fn read_log_until(&mut self, wanted: &str) -> String {
        let stderr = self.stderr.as_mut().unwrap();
        loop {
            let mut line = String::new();
            let count = stderr.read_line(&mut line).unwrap();
            assert_ne!(count, 0, "the log ended before '{wanted}': {}", self.log);
            self.log.push_str(&line);
            if line.contains(wanted) {
                return line;
            }
        }
    }

    /// Sends a request and returns the connection, from which the response can be read.
    fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n{headers}\r\n{body}"
        )
        .unwrap();
        stream
    }

    fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> String {
        let mut response = String::new();
        self.send(method, path, headers, body).read_to_string(&mut response).unwrap();
        response
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    /// Waits for the end; the exit code and the rest of the log.
    fn end(mut self) -> (Option<i32>, String) {
        let deadline = Instant::now() + Duration::from_secs(60);
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "the server does not end");
            std::thread::sleep(Duration::from_millis(20));
        };
        self.stderr.take().unwrap().read_to_string(&mut self.log).unwrap();
        (status.code(), std::mem::take(&mut self.log))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Ended already where the test went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
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
    let mut server = Server::start(None);
    // Many at once, so that they cannot be done before the second signal.
    let mut streams: Vec<_> = (0..16).map(|_| server.send("POST", "/v1/completions", "", LONG)).collect();
    streams.iter_mut().for_each(|stream| stream.read_exact(&mut [0; 15]).unwrap());
    server.signal("-INT");
    server.read_log_until("finishing running requests");
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
