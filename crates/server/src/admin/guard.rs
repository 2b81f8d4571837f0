//! Whether a request comes from a web page that has no business here.
//!
//! A browser sends what any page asks it to, from the operator's own machine, where a loopback address is no protection. It
//! does say where the page is from: in `Origin` with every request that changes something, and in `Sec-Fetch-Site` with
//! every request of today's browsers. A page whose own name was turned to this address (DNS rebinding) looks like the same
//! origin, but its `Host` is a name that no loopback listener has.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::Response;

use super::Admin;
use crate::openai::error::ApiError;

/// Lets everything pass but requests of other origins.
pub async fn refuse_web_pages(
    State(admin): State<Arc<Admin>>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    check(request.headers(), admin.address.ip().is_loopback())?;
    Ok(next.run(request).await)
}

fn check(headers: &HeaderMap, loopback: bool) -> Result<(), ApiError> {
    let host = match headers.get(header::HOST).map(|value| value.to_str()) {
        None => None,
        Some(Ok(host)) => Some(host),
        Some(Err(_)) => return Err(foreign_host("one that is no text")),
    };
    if let Some(host) = host.filter(|host| loopback && !is_local(host)) {
        return Err(foreign_host(&format!("`{}`", crate::openai::fields::shortened(host))));
    }
    let site = headers.get("sec-fetch-site").map(|value| value.as_bytes());
    let foreign_site = site.is_some_and(|site| site != b"same-origin" && site != b"none");
    let foreign_origin = headers.get(header::ORIGIN).is_some_and(|origin| {
        let own = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        own.is_none_or(|(_, authority)| host.is_none_or(|host| !authority.eq_ignore_ascii_case(host)))
    });
    if foreign_site || foreign_origin {
        let message = "origin: web pages of other origins may not use this listener. Send the request from a program, or \
                       through a server of your own";
        return Err(ApiError::forbidden("foreign_origin", message));
    }
    Ok(())
}

fn foreign_host(given: &str) -> ApiError {
    let message = format!(
        "host: must be localhost or a loopback address, as the listener's, but {given} was given. Use \
         http://127.0.0.1 with its port, or listen on another address with admin.host and admin.token"
    );
    ApiError::forbidden("foreign_host", message)
}

/// Whether `host`, with or without a port, is this machine.
fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderName, HeaderValue};

    fn code(headers: &[(&'static str, &'static str)], loopback: bool) -> Option<&'static str> {
        let pairs = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        check(&pairs.collect(), loopback).err().and_then(|error| error.code())
    }

    #[test]
    fn programs_and_the_same_origin_pass() {
        assert_eq!(code(&[], true), None);
        for host in ["localhost:9464", "127.0.0.1:9464", "127.0.0.1", "[::1]:9464", "LOCALHOST"] {
            assert!(is_local(host), "{host}");
        }
        assert_eq!(code(&[("host", "localhost:9464"), ("origin", "http://localhost:9464")], true), None);
        assert_eq!(code(&[("host", "127.0.0.1:9464"), ("sec-fetch-site", "none")], true), None);
        assert_eq!(code(&[("host", "admin.example.org"), ("sec-fetch-site", "same-origin")], false), None);
    }

    #[test]
    fn other_origins_and_other_names_do_not() {
        let local = ("host", "127.0.0.1:9464");
        for origin in
            ["http://evil.example", "null", "http://127.0.0.1:80", "http://localhost:9464", "file://"]
        {
            assert_eq!(code(&[local, ("origin", origin)], true), Some("foreign_origin"), "{origin}");
        }
        for site in ["cross-site", "same-site", "elsewhere"] {
            assert_eq!(code(&[local, ("sec-fetch-site", site)], true), Some("foreign_origin"), "{site}");
        }
        for host in
            ["evil.example:9464", "localhost.evil.example", "0.0.0.0:9464", "", "[::1", "127.0.0.1.nip.io"]
        {
            let local = host == "[::1";
            assert_eq!(code(&[("host", host)], true), (!local).then_some("foreign_host"), "{host}");
        }
        assert_eq!(code(&[("host", "a"), ("origin", "http://b")], false), Some("foreign_origin"));
        assert_eq!(code(&[("origin", "http://b")], true), Some("foreign_origin"), "an origin without a host");
    }
}
