//! A hub on the loopback interface: the routes, headers and redirects of huggingface.co, and faults on demand.
//!
//! Small files: a relative redirect, then 200 with `ETag`. Safetensors: 302 with `X-Linked-Etag` to `/storage/…` under
//! another host name, which must not see the token.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What goes wrong.
#[derive(Clone, Copy, PartialEq)]
pub enum Fault {
    None,
    Gated,
    /// The first transfer from storage breaks at this byte.
    DropOnceAt(usize),
    /// The same, and ranges are not understood.
    DropOnceNoRanges(usize),
    /// No transfer from storage gets beyond this byte.
    NothingAfter(usize),
    WrongBytes,
    /// The repository claims this commit.
    Commit(&'static str),
}

#[derive(Default)]
pub struct Repository(BTreeMap<String, Vec<u8>>);

impl Repository {
    pub fn of_folder(folder: &Path) -> Self {
        let files = std::fs::read_dir(folder).unwrap().map(|entry| {
            let entry = entry.unwrap();
            (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())
        });
        Self(files.collect())
    }

    pub fn with(mut self, file: &str, bytes: Vec<u8>) -> Self {
        self.0.insert(file.into(), bytes);
        self
    }

    pub fn without(mut self, file: &str) -> Self {
        self.0.remove(file);
        self
    }
}

#[derive(Debug, Clone)]
pub struct Request {
    method: String,
    pub path: String,
    pub range: Option<String>,
    pub authorization: Option<String>,
}

pub struct Hub {
    port: u16,
    state: Arc<State>,
}

struct State {
    repository: Repository,
    fault: Fault,
    dropped: AtomicBool,
    stopped: AtomicBool,
    requests: Mutex<Vec<Request>>,
}

impl Hub {
    pub fn start(repository: Repository, fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            repository,
            fault,
            dropped: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            requests: Mutex::default(),
        });
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.stopped.load(Ordering::Acquire) {
                    return;
                }
                let (shared, stream) = (shared.clone(), stream.unwrap());
                // A client that hangs up early is part of the tests.
                std::thread::spawn(move || shared.serve(stream, port).ok());
            }
        });
        Self { port, state }
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn requests(&self) -> Vec<Request> {
        self.state.requests.lock().unwrap().clone()
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.state.stopped.store(true, Ordering::Release);
        // Wakes the accepting thread so that it sees the flag.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// The connection closes after so many bytes of the body.
    cut: Option<usize>,
}

fn reply(status: u16, headers: Vec<(&'static str, String)>, body: Vec<u8>) -> Reply {
    Reply { status, headers, body, cut: None }
}

impl State {
    fn serve(&self, mut stream: TcpStream, port: u16) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let mut words = line.split_whitespace();
        let (Some(method), Some(path)) = (words.next(), words.next()) else { return Ok(()) };
        let mut request =
            Request { method: method.into(), path: path.into(), range: None, authorization: None };
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            let Some((name, value)) = header.trim().split_once(':') else { break };
            match name.to_ascii_lowercase().as_str() {
                "range" => request.range = Some(value.trim().into()),
                "authorization" => request.authorization = Some(value.trim().into()),
                _ => {}
            }
        }
        self.requests.lock().unwrap().push(request.clone());
        let reply = self.answer(&request, port);
        let mut head = format!(
            "HTTP/1.1 {} -\r\nconnection: close\r\ncontent-length: {}\r\n",
            reply.status,
            reply.body.len()
        );
        for (name, value) in &reply.headers {
            write!(head, "{name}: {value}\r\n").unwrap();
        }
        stream.write_all(format!("{head}\r\n").as_bytes())?;
        if request.method != "HEAD" {
            stream.write_all(&reply.body[..reply.cut.unwrap_or(reply.body.len())])?;
        }
        stream.flush()
    }

    fn answer(&self, request: &Request, port: u16) -> Reply {
        let path = request.path.as_str();
        if let Some(revision) = path.strip_prefix("/api/models/tales/fox/revision/") {
            return self.listing(revision, request);
        }
        if let Some(file) = path.strip_prefix(&format!("/tales/fox/resolve/{COMMIT}/")) {
            let Some(bytes) = self.repository.0.get(file) else {
                return reply(404, vec![("x-error-code", "EntryNotFound".into())], vec![]);
            };
            if file.ends_with(".safetensors") {
                let headers = vec![
                    ("location", format!("http://localhost:{port}/storage/{file}")),
                    ("x-linked-etag", format!("\"{}\"", checksum(bytes))),
                    ("x-linked-size", bytes.len().to_string()),
                ];
                return reply(302, headers, vec![]);
            }
            return reply(307, vec![("location", format!("/api/resolve-cache/{file}"))], b"moved".to_vec());
        }
        if let Some(file) = path.strip_prefix("/api/resolve-cache/") {
            let bytes = self.repository.0[file].clone();
            return reply(200, vec![("etag", format!("W/\"{}\"", &checksum(&bytes)[..40]))], bytes);
        }
        if let Some(file) = path.strip_prefix("/storage/") {
            return self.storage(file, request);
        }
        reply(404, vec![("x-error-code", "RepoNotFound".into())], vec![])
    }

    fn listing(&self, revision: &str, request: &Request) -> Reply {
        if self.fault == Fault::Gated {
            let status = if request.authorization.is_some() { 403 } else { 401 };
            return reply(status, vec![("x-error-code", "GatedRepo".into())], vec![]);
        }
        if !["main", "v1", "refs%2Fpr%2F1", COMMIT].contains(&revision) {
            return reply(404, vec![("x-error-code", "RevisionNotFound".into())], vec![]);
        }
        let sha = if let Fault::Commit(commit) = self.fault { commit } else { COMMIT };
        let siblings: Vec<_> =
            self.repository.0.keys().map(|file| serde_json::json!({"rfilename": file})).collect();
        let body = serde_json::json!({"id": "tales/fox", "sha": sha, "siblings": siblings});
        reply(200, vec![], body.to_string().into_bytes())
    }

    fn storage(&self, file: &str, request: &Request) -> Reply {
        let mut bytes = self.repository.0[file].clone();
        if self.fault == Fault::WrongBytes {
            bytes[1000] ^= 1;
        }
        let ranges = !matches!(self.fault, Fault::DropOnceNoRanges(_));
        let start = request.range.as_deref().filter(|_| ranges).map_or(0, |range| {
            range.strip_prefix("bytes=").and_then(|range| range.strip_suffix('-')).unwrap().parse().unwrap()
        });
        let cut = match self.fault {
            Fault::DropOnceAt(at) | Fault::DropOnceNoRanges(at) => {
                (!self.dropped.swap(true, Ordering::AcqRel)).then_some(at)
            }
            Fault::NothingAfter(at) => Some(at.saturating_sub(start)),
            _ => None,
        };
        if start == 0 {
            return Reply { cut, ..reply(200, vec![], bytes) };
        }
        let range = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
        Reply { cut, ..reply(206, vec![("content-range", range)], bytes.split_off(start)) }
    }
}

fn checksum(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
