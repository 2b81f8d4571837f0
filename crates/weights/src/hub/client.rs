//! The three questions asked of the hub: what is in a repository, what is a file's tag, what are its bytes.

use std::collections::HashSet;
use std::time::Duration;

use serde::Deserialize;
use sha2::{Digest, Sha256};
use ureq::config::RedirectAuthHeaders;
use ureq::http::{Response, StatusCode};
use ureq::{Agent, Body};

use super::environment::HubOptions;
use super::id::{HubId, is_segment};
use crate::WeightsError;

/// A server that says nothing for so long is taken for dead.
const SILENCE: Duration = Duration::from_secs(60);
const CONNECT: Duration = Duration::from_secs(15);
/// A repository's description is some kilobytes; more than this is not one.
const LARGEST_LISTING: u64 = 64 << 20;

/// Why the hub did not answer.
pub(super) enum Failure {
    /// No answer, or one that says "later": the same question may succeed in a moment.
    Unreachable(String),
    /// An answer that will not change by asking again.
    Refused(WeightsError),
}

pub(super) type Answer<T> = std::result::Result<T, Failure>;

/// Speaks for one repository.
pub(super) struct Client {
    agent: Agent,
    endpoint: String,
    authorisation: Option<String>,
    id: HubId,
}

/// The files of a repository at one commit.
pub(super) struct Listing {
    pub(super) commit: String,
    files: HashSet<String>,
}

impl Listing {
    pub(super) fn holds(&self, file: &str) -> bool {
        self.files.contains(file)
    }
}

/// What identifies a file's bytes.
pub(super) struct Tag {
    /// Name of its blob in the cache; of large files the SHA-256 of the content.
    pub(super) name: String,
    /// Bytes, if the server says so.
    pub(super) size: Option<u64>,
}

#[derive(Deserialize)]
struct Repository {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

impl Client {
    pub(super) fn new(options: &HubOptions, id: &HubId) -> Self {
        let builder = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects_will_error(false)
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .user_agent(concat!("bessemer/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE));
        // A hub on this machine is not behind the proxy, whatever the environment says.
        let local = ["http://127.0.0.1", "http://localhost", "http://[::1]"];
        let builder = if local.iter().any(|host| options.endpoint.starts_with(host)) {
            builder.proxy(None)
        } else {
            builder
        };
        Self {
            agent: builder.build().new_agent(),
            endpoint: options.endpoint.clone(),
            authorisation: options.token.as_ref().map(|token| format!("Bearer {token}")),
            id: id.clone(),
        }
    }

    pub(super) fn id(&self) -> &HubId {
        &self.id
    }

    /// The files of the repository at the wanted revision.
    pub(super) fn listing(&self) -> Answer<Listing> {
        let revision = self.id.revision.replace('/', "%2F");
        let url = format!("{}/api/models/{}/revision/{revision}", self.endpoint, self.id.repository());
        let mut response = self.send(self.agent.get(&url), None)?;
        let text = response.body_mut().with_config().limit(LARGEST_LISTING).read_to_vec();
        let text = text.map_err(|error| Failure::Unreachable(error.to_string()))?;
        let repository: Repository = serde_json::from_slice(&text).map_err(|error| {
            self.refused(format!("its description is not what a hub sends: {error}"), CHECK_ENDPOINT)
        })?;
        if !is_segment(&repository.sha) {
            return Err(
                self.refused(format!("its commit {:?} is not a hash", repository.sha), CHECK_ENDPOINT)
            );
        }
        let files = repository.siblings.into_iter().map(|sibling| sibling.rfilename).collect();
        Ok(Listing { commit: repository.sha, files })
    }

    /// The tag of a file. Redirects within the hub are followed, the one to the storage is not: it no longer knows the
    /// tag.
    pub(super) fn tag(&self, commit: &str, file: &str) -> Answer<Tag> {
        let mut url = self.file_url(commit, file);
        for _ in 0..5 {
            let request = self.agent.head(&url).config().max_redirects(0).build();
            let response = self.send(request, Some(file))?;
            let header = |name: &str| response.headers().get(name)?.to_str().ok();
            let location = header("location").filter(|_| response.status().is_redirection());
            if let (Some(location), None) = (location, header("x-linked-etag"))
                && location.starts_with('/')
            {
                url = format!("{}{location}", origin(&self.endpoint));
                continue;
            }
            let size = match header("x-linked-size") {
                Some(size) => size.parse().ok(),
                None if response.status().is_success() => {
                    header("content-length").and_then(|size| size.parse().ok())
                }
                None => None,
            };
            let tag = header("x-linked-etag").or(header("etag")).unwrap_or_default();
            let tag = tag.trim_start_matches("W/").trim_matches('"');
            let name = if is_segment(tag) {
                tag.into()
            } else {
                // A mirror without usable tags: the commit and the file's name identify the bytes as well.
                format!("untagged-{}", hex(&Sha256::digest(format!("{commit}/{file}"))))
            };
            return Ok(Tag { name, size });
        }
        Err(self.refused(format!("the hub redirects {file:?} in a circle"), CHECK_ENDPOINT))
    }

    /// The bytes of a file from `start` on. The status tells whether the server began there (206) or at zero (200).
    pub(super) fn bytes(&self, commit: &str, file: &str, start: u64) -> Answer<Response<Body>> {
        let request = self.agent.get(self.file_url(commit, file));
        let request = if start > 0 { request.header("range", format!("bytes={start}-")) } else { request };
        self.send(request, Some(file))
    }

    fn file_url(&self, commit: &str, file: &str) -> String {
        format!("{}/{}/resolve/{commit}/{file}", self.endpoint, self.id.repository())
    }

    fn send(
        &self,
        request: ureq::RequestBuilder<ureq::typestate::WithoutBody>,
        file: Option<&str>,
    ) -> Answer<Response<Body>> {
        let request = match &self.authorisation {
            Some(authorisation) => request.header("authorization", authorisation),
            None => request,
        };
        let response = request.call().map_err(|error| Failure::Unreachable(error.to_string()))?;
        let status = response.status();
        if status.is_success() || status.is_redirection() || status == StatusCode::RANGE_NOT_SATISFIABLE {
            return Ok(response);
        }
        if status.is_server_error() || matches!(status.as_u16(), 408 | 429) {
            return Err(Failure::Unreachable(format!("the hub answers {status}")));
        }
        Err(self.explain(&response, file))
    }

    fn explain(&self, response: &Response<Body>, file: Option<&str>) -> Failure {
        let status = response.status();
        let code =
            response.headers().get("x-error-code").and_then(|code| code.to_str().ok()).unwrap_or_default();
        let has_token = self.authorisation.is_some();
        let page = format!("{}/{}", self.endpoint, self.id.repository());
        match (status.as_u16(), code, file) {
            (401 | 403, "GatedRepo", _) if has_token => self.refused(
                format!("it is gated, and the token has no access ({status})"),
                &format!("Accept its conditions at {page} with the account of HF_TOKEN"),
            ),
            (401 | 403, "GatedRepo", _) => self.refused(
                format!("it is gated ({status})"),
                &format!("Accept its conditions at {page}, then set HF_TOKEN to a token of that account"),
            ),
            (401 | 403, _, _) if has_token => self.refused(
                format!("the hub refuses access ({status})"),
                "Check the spelling of the id, and that HF_TOKEN is valid and may read it",
            ),
            // The hub does not tell strangers whether a private repository exists.
            (401 | 403, _, _) => self.refused(
                format!("it does not exist, or is private or gated ({status})"),
                "Check the spelling of the id; for a private model set HF_TOKEN",
            ),
            (404, "RevisionNotFound", _) => self.refused(
                format!("it has no revision {:?} ({status})", self.id.revision),
                &format!("Choose a branch, tag or commit of {page}"),
            ),
            (404, _, Some(file)) => {
                self.refused(format!("it holds no {file:?} ({status})"), &format!("See the files at {page}"))
            }
            (404, _, None) => self.refused(
                format!("there is no such model or revision at {} ({status})", self.endpoint),
                "Check the spelling: an id is org/name or org/name@revision",
            ),
            _ => self.refused(format!("the hub answers {status}"), CHECK_ENDPOINT),
        }
    }

    fn refused(&self, rule: String, cure: &str) -> Failure {
        Failure::Refused(WeightsError::Hub { id: self.id.to_string(), rule, cure: cure.into() })
    }
}

const CHECK_ENDPOINT: &str = "Check HF_ENDPOINT, or try again later";

/// `scheme://host` of a URL.
fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    match url.get(host..).and_then(|rest| rest.find('/')) {
        Some(end) => url.get(..host + end).unwrap_or(url),
        None => url,
    }
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
