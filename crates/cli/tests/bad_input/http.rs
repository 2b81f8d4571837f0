//! A server in a process of its own, and the plainest of clients.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::folder::Folder;
use crate::program;

/// The key that the server asks for.
pub const KEY: &str = "secret";

/// A running server; dropping it ends the process.
pub struct Server {
    process: Child,
    address: SocketAddr,
    /// Of the operator's listener.
    operator: SocketAddr,
    folder: Folder,
}

/// A request as it goes over the wire.
pub struct Request<'a> {
    pub method: &'a str,
    pub path: &'a str,
    pub headers: Vec<(&'a str, String)>,
    pub body: &'a [u8],
}

impl<'a> Request<'a> {
    /// A well-formed POST of `body`.
    pub fn post(path: &'a str, body: &'a [u8]) -> Self {
        let headers = vec![
            ("Content-Type", "application/json".to_owned()),
            ("Authorization", format!("Bearer {KEY}")),
            ("Content-Length", body.len().to_string()),
        ];
        Self { method: "POST", path, headers, body }
    }
}

impl Server {
    /// Serves a small model on a free port.
    pub fn start() -> Self {
        let folder = Folder::plain();
        let mut process = program::command(folder.root())
            .args(["serve", "--model", "./model", "--model-name", "small", "--port", "0", "--api-key", KEY])
            .args(["--admin-port", "0", "--admin-token", KEY])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let mut errors = BufReader::new(process.stderr.take().expect("standard error is a pipe"));
        let mut said = String::new();
        let mut until = |what: &str| loop {
            let before = said.len();
            if errors.read_line(&mut said).expect("the server speaks UTF-8") == 0 {
                panic!("the server ended: {said}");
            }
            if let Some((_, address)) = said[before..].split_once(what) {
                break address.trim().parse().expect("an address");
            }
        };
        let operator = until("operator's listener on http://");
        let address = until("listening on http://");
        // Nobody reads on, and a full pipe would stop the server.
        std::thread::spawn(move || std::io::copy(&mut errors, &mut std::io::sink()));
        Self { process, address, operator, folder }
    }

    /// Status and `error` of an answer.
    pub fn error(&self, request: &Request<'_>) -> (u16, Value) {
        let (status, mut body) = answer(self.address, request);
        (status, body["error"].take())
    }

    /// Status and body of an answer of the operator's listener.
    pub fn operate(&self, request: &Request<'_>) -> (u16, Value) {
        answer(self.operator, request)
    }

    /// Runs the program against the operator's listener; exit code and message, in which the listener has its usual port.
    pub fn failure(&self, arguments: &[&str]) -> (u16, String) {
        let address = self.operator.to_string();
        let url = format!("http://{address}");
        let (status, message) = program::failure(self.folder.root(), &[arguments, &["--url", &url]].concat());
        (status, message.replace(&address, "127.0.0.1:9464"))
    }
}

fn answer(address: SocketAddr, request: &Request<'_>) -> (u16, Value) {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout can be set");
    let mut head = format!("{} {} HTTP/1.1\r\nConnection: close\r\n", request.method, request.path);
    if !request.headers.iter().any(|(name, _)| *name == "Host") {
        head.push_str("Host: localhost\r\n");
    }
    for (name, value) in &request.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).expect("the head is taken");
    // A server may answer and close before it has read the whole of a body that it refuses.
    let _ = stream.write_all(request.body);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).expect("answers are UTF-8");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}")))
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
