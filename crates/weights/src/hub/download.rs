//! One file from the hub into the cache, resumed as often as it takes.
//!
//! The partial file lies beside its blob under the name of its tag, so it can only ever be continued with the bytes it
//! was begun with. Whoever downloads holds the blob's lock: a second process waits and then finds the file.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use sha2::{Digest, Sha256};
use ureq::Body;
use ureq::http::{Response, StatusCode};

use super::cache::{Cache, create_parent};
use super::client::{Answer, Client, Failure, Tag, hex};
use crate::{Result, WeightsError};

/// Attempts without a single new byte before giving up.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(100);
const CHUNK: usize = 1 << 20;

/// Told `(done, total)` bytes.
type Report<'r> = &'r dyn Fn(u64, u64);

/// Brings `file` of `commit` into the snapshot.
pub(super) fn file(
    client: &Client,
    cache: &Cache,
    commit: &str,
    file: &str,
    report: Report<'_>,
) -> Result<()> {
    let shown = cache.snapshot_of(commit).join(file);
    if shown.is_file() {
        return Ok(());
    }
    let tag = retried(client, || client.tag(commit, file))?;
    let _lock = cache.lock(&tag.name)?;
    // Whoever held the lock before may have brought the file.
    if shown.is_file() {
        return Ok(());
    }
    let blob = cache.blob(&tag.name);
    if !blob.is_file() {
        let mut path = blob.clone().into_os_string();
        path.push(".incomplete");
        let partial = Partial { client, commit, file, tag: &tag, path: PathBuf::from(path) };
        partial.complete(&blob, report)?;
    }
    cache.link(commit, file, &tag.name)
}

/// A file that is not yet whole.
struct Partial<'a> {
    client: &'a Client,
    commit: &'a str,
    file: &'a str,
    tag: &'a Tag,
    path: PathBuf,
}

impl Partial<'_> {
    fn complete(&self, blob: &Path, report: Report<'_>) -> Result<()> {
        create_parent(&self.path)?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&self.path)
            .map_err(WeightsError::io(&self.path, "open it"))?;
        self.fill(&mut file, report)?;
        self.verify(&mut file)?;
        file.sync_all().map_err(WeightsError::io(&self.path, "write it"))?;
        std::fs::rename(&self.path, blob).map_err(WeightsError::io(blob, "move the finished download to it"))
    }

    /// Appends until the file has its size.
    fn fill(&self, file: &mut File, report: Report<'_>) -> Result<()> {
        let mut idle = 0;
        loop {
            let start = file.seek(SeekFrom::End(0)).map_err(WeightsError::io(&self.path, "read its size"))?;
            if start > 0 && self.tag.size == Some(start) {
                report(start, start);
                return Ok(());
            }
            let reason = match self.append(file, start, report) {
                Ok(Outcome::Whole) => return Ok(()),
                Ok(Outcome::Broken(reason)) | Err(Failure::Unreachable(reason)) => reason,
                Err(Failure::Refused(error)) => return Err(error),
            };
            let reached =
                file.seek(SeekFrom::End(0)).map_err(WeightsError::io(&self.path, "read its size"))?;
            idle = if reached > start { 0 } else { idle + 1 };
            if idle == ATTEMPTS {
                return Err(gave_up(
                    self.client,
                    &format!("{:?} stops at byte {reached}: {reason}", self.file),
                ));
            }
            tracing::warn!(file = self.file, reached, %reason, "the download broke off; resuming");
            thread::sleep(PAUSE * (1 << idle));
        }
    }

    /// One request: everything from `start` on, as far as it comes.
    fn append(&self, file: &mut File, start: u64, report: Report<'_>) -> Answer<Outcome> {
        let response = self.client.bytes(self.commit, self.file, start)?;
        let mut done = match begin(&response) {
            Some(begin) if begin == start => start,
            // It knows no ranges and begins again, so the file does too.
            Some(0) => self.truncate(file)?,
            _ => {
                self.truncate(file)?;
                return Ok(Outcome::Broken(format!("the server does not continue at byte {start}")));
            }
        };
        let length =
            response.headers().get("content-length").and_then(|length| length.to_str().ok()?.parse().ok());
        let total = self.tag.size.or(length.map(|length: u64| done + length));
        let mut body = response.into_body().into_reader();
        let mut chunk = vec![0; CHUNK];
        loop {
            report(done, total.unwrap_or(done));
            let count = match body.read(&mut chunk) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) => return Ok(Outcome::Broken(error.to_string())),
            };
            let new = chunk.get(..count).unwrap_or_default();
            file.write_all(new)
                .map_err(WeightsError::io(&self.path, "write it"))
                .map_err(Failure::Refused)?;
            done += count as u64;
        }
        match total {
            Some(total) if done < total => Ok(Outcome::Broken(format!("{done} of {total} bytes came"))),
            _ => Ok(Outcome::Whole),
        }
    }

    fn truncate(&self, file: &mut File) -> Answer<u64> {
        file.set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .map_err(WeightsError::io(&self.path, "empty it"))
            .map_err(Failure::Refused)
    }

    /// Compares size and, where the tag is one, checksum. A file that does not match is thrown away.
    fn verify(&self, file: &mut File) -> Result<()> {
        let read = |error| WeightsError::io(&self.path, "read it")(error);
        let size = file.seek(SeekFrom::End(0)).map_err(read)?;
        let mut rule = None;
        if let Some(expected) = self.tag.size
            && expected != size
        {
            rule = Some(format!("{:?} has {size} bytes after the download, not {expected}", self.file));
        } else if self.tag.name.len() == 64 && self.tag.name.bytes().all(|b| b.is_ascii_hexdigit()) {
            file.seek(SeekFrom::Start(0)).map_err(read)?;
            let mut hash = Sha256::new();
            let mut chunk = vec![0; CHUNK];
            loop {
                let count = file.read(&mut chunk).map_err(read)?;
                if count == 0 {
                    break;
                }
                hash.update(chunk.get(..count).unwrap_or_default());
            }
            let found = hex(&hash.finalize());
            if found != self.tag.name {
                rule = Some(format!(
                    "{:?} has checksum {found} after the download, not {}",
                    self.file, self.tag.name
                ));
            }
        }
        let Some(rule) = rule else { return Ok(()) };
        std::fs::remove_file(&self.path).map_err(WeightsError::io(&self.path, "remove it"))?;
        let cure = "The damaged file was removed: try again".into();
        Err(WeightsError::Hub { id: self.client.id().to_string(), rule, cure })
    }
}

enum Outcome {
    Whole,
    Broken(String),
}

/// The byte of the file that an answer begins with; `None` if it holds none of the file.
fn begin(response: &Response<Body>) -> Option<u64> {
    match response.status() {
        StatusCode::OK => Some(0),
        StatusCode::PARTIAL_CONTENT => {
            let range = response.headers().get("content-range")?.to_str().ok()?;
            range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
        }
        _ => None,
    }
}

/// Asks again while the hub cannot be reached.
fn retried<T>(client: &Client, ask: impl Fn() -> Answer<T>) -> Result<T> {
    let mut last = String::new();
    for attempt in 0..ATTEMPTS {
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(Failure::Refused(error)) => return Err(error),
            Err(Failure::Unreachable(reason)) => last = reason,
        }
        thread::sleep(PAUSE * (1 << attempt));
    }
    Err(gave_up(client, &last))
}

fn gave_up(client: &Client, reason: &str) -> WeightsError {
    WeightsError::Hub {
        id: client.id().to_string(),
        rule: format!("the download failed {ATTEMPTS} times: {reason}"),
        cure: "Try again: it goes on where it stopped".into(),
    }
}
