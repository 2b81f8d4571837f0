//! The other side of the operator's listener: the commands that ask a running server.

use std::io::ErrorKind;
use std::time::Duration;

use anyhow::{anyhow, bail};
use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use serde_json::Value;
use ureq::http::Uri;
use ureq::{Agent, Error};

use crate::environment;

/// How long an answer may take; the listener answers at once, from a thread of its own.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of an answer at most. Statistics are some thousand.
const LARGEST_ANSWER: u64 = 4 << 20;

const CHECK_URL: &str = "Give with --url the address that `bessemer serve` calls the operator's listener";

/// Which server is asked, and as whom.
#[derive(Debug, Args)]
#[command(next_help_heading = "Server")]
pub struct OperatorArguments {
    /// Address of the operator's listener.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9464", value_parser = address)]
    url: String,
    /// Its token [default: BESSEMER_ADMIN_TOKEN, else none].
    #[arg(long, value_name = "TOKEN", value_parser = NonEmptyStringValueParser::new())]
    token: Option<String>,
}

/// Reads an address, without the slash at its end.
fn address(text: &str) -> Result<String, String> {
    const RULE: &str = "must be the address of a server, such as http://127.0.0.1:9464";
    let uri: Uri = text.parse().map_err(|_| RULE.to_owned())?;
    let scheme = uri.scheme_str().is_some_and(|scheme| ["http", "https"].contains(&scheme));
    let host = uri.host().is_some_and(|host| !host.is_empty());
    let port = uri.authority().is_some_and(|authority| {
        authority.host().len() == authority.as_str().len() || authority.port_u16().is_some()
    });
    if !scheme || !host || !port || uri.query().is_some() || text.contains(['@', '#']) {
        return Err(RULE.to_owned());
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// A running server's listener for its operator.
pub struct OperatorClient {
    agent: Agent,
    url: String,
    authorization: Option<String>,
}

impl OperatorClient {
    /// Whom `arguments` and the environment mean. Nothing is asked yet.
    ///
    /// # Errors
    /// When the token cannot be sent in a header.
    pub fn new(arguments: OperatorArguments) -> anyhow::Result<Self> {
        let token = match arguments.token {
            Some(token) => Some(token),
            None => environment::variable(environment::ADMIN_TOKEN)?,
        };
        if token.as_ref().is_some_and(|token| !token.bytes().all(|byte| (b' '..=b'~').contains(&byte))) {
            bail!(
                "token: must be ASCII without control characters, as a header has it, but it is not. Give \
                 the token of the server"
            );
        }
        let authorization = token.map(|token| format!("Bearer {token}"));
        // The listener is this machine's or reached as it is: no proxy, and nobody sends the token elsewhere.
        let config = Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None);
        Ok(Self { agent: config.build().into(), url: arguments.url, authorization })
    }

    /// The address that is asked.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// `/api/v1/stats`: an object.
    ///
    /// # Errors
    /// When nobody answers, the answer is a refusal, or whoever answers is no operator's listener.
    pub fn stats(&self) -> anyhow::Result<Value> {
        let mut request = self.agent.get(format!("{}/api/v1/stats", self.url));
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        let url = &self.url;
        let unreachable = |error: &Error| {
            let reason = reason(error);
            anyhow!(
                "{url}: must be the operator's listener of a running server, but {reason}. Start \
                 `bessemer serve`, or give its address with --url"
            )
        };
        let mut response = request.call().map_err(|error| unreachable(&error))?;
        let status = response.status();
        let text = response.body_mut().with_config().limit(LARGEST_ANSWER).read_to_vec();
        let text = text.map_err(|error| unreachable(&error))?;
        let body: Option<Value> = serde_json::from_slice(&text).ok();
        match (status.as_u16(), body) {
            (200, Some(body)) if body.get("uptime_seconds").is_some() => Ok(body),
            (401, _) if self.authorization.is_some() => {
                bail!(
                    "{url}: the token must be the server's admin.token, but it is another one. Correct \
                     --token or BESSEMER_ADMIN_TOKEN"
                )
            }
            (401, _) => bail!(
                "{url}: it must be asked with a token, but none was given. Set \
                 BESSEMER_ADMIN_TOKEN, or give --token"
            ),
            (403, Some(body)) if body["error"]["message"].is_string() => {
                bail!("{url}: {}", body["error"]["message"].as_str().unwrap_or_default())
            }
            (_, _) => bail!(
                "{url}: must be the operator's listener of `bessemer serve`, but its /api/v1/stats answers with \
                 {status} and no statistics. {CHECK_URL}"
            ),
        }
    }
}

/// Why there was no answer.
fn reason(error: &Error) -> String {
    match error {
        Error::Io(error) if error.kind() == ErrorKind::ConnectionRefused => "nobody listens there".to_owned(),
        Error::Timeout(_) => format!("it did not answer within {} s", TIMEOUT.as_secs()),
        Error::HostNotFound => "there is no host of this name".to_owned(),
        error => format!("it cannot be asked ({error})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert_eq!(address("http://127.0.0.1:9464/").as_deref(), Ok("http://127.0.0.1:9464"));
        assert_eq!(
            address("https://ops.example.org/bessemer").as_deref(),
            Ok("https://ops.example.org/bessemer")
        );
        for wrong in [
            "",
            "127.0.0.1:9464",
            "localhost",
            "ftp://a",
            "http://",
            "http://a?b",
            "http://a:b",
            "http://u@a",
        ] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }
}
