//! What a server counts of its answers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::http::StatusCode;

/// Why a request was not answered as it was asked, as one of few words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request is wrong: a field, the route, the model, the body.
    InvalidRequest,
    /// It came without the key, or from where it must not.
    Unauthorized,
    /// As many requests as allowed were inside.
    QueueFull,
    /// Something did not arrive in time: the body, or what the device was waited for.
    Timeout,
    /// The device failed, or is lost.
    Device,
    /// Not now: the server ends.
    Unavailable,
    /// The client left before the end.
    Cancelled,
    /// A mistake of the program.
    Internal,
}

impl ErrorKind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::InvalidRequest,
        Self::Unauthorized,
        Self::QueueFull,
        Self::Timeout,
        Self::Device,
        Self::Unavailable,
        Self::Cancelled,
        Self::Internal,
    ];

    /// The word.
    pub fn name(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::Unauthorized => "unauthorized",
            Self::QueueFull => "queue_full",
            Self::Timeout => "timeout",
            Self::Device => "device",
            Self::Unavailable => "unavailable",
            Self::Cancelled => "cancelled",
            Self::Internal => "internal",
        }
    }

    /// What a status says of itself.
    pub fn of(status: StatusCode) -> Self {
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Self::Unauthorized,
            StatusCode::REQUEST_TIMEOUT => Self::Timeout,
            StatusCode::TOO_MANY_REQUESTS => Self::QueueFull,
            StatusCode::SERVICE_UNAVAILABLE => Self::Unavailable,
            status if status.is_client_error() => Self::InvalidRequest,
            _ => Self::Internal,
        }
    }
}

/// The classes of HTTP's statuses.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Counts the answers of a server: by route and class of status, and what went wrong.
#[derive(Debug, Default)]
pub struct ServerMeter {
    errors: [AtomicU64; ErrorKind::ALL.len()],
    /// Keyed by the patterns of the routes, which are few, and not by what clients write.
    routes: Mutex<BTreeMap<String, [u64; CLASSES.len()]>>,
}

impl ServerMeter {
    /// Something went wrong.
    pub fn failed(&self, kind: ErrorKind) {
        self.errors[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A request for a route was answered.
    pub fn answered(&self, route: &str, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).clamp(1, CLASSES.len()) - 1;
        let mut routes = self.routes();
        if let Some(counts) = routes.get_mut(route) {
            counts[class] += 1;
        } else {
            let mut counts = [0; CLASSES.len()];
            counts[class] = 1;
            routes.insert(route.to_owned(), counts);
        }
    }

    /// How often each kind of error was met.
    pub fn errors(&self) -> [(ErrorKind, u64); ErrorKind::ALL.len()] {
        ErrorKind::ALL.map(|kind| (kind, self.errors[kind as usize].load(Ordering::Relaxed)))
    }

    /// Answers: route, class of status, how many. Routes that nobody asked for are not there, nor are classes without an
    /// answer.
    pub fn answers(&self) -> Vec<(String, &'static str, u64)> {
        let routes = self.routes();
        let each = routes.iter().flat_map(|(route, counts)| {
            CLASSES.iter().zip(counts).map(move |(class, count)| (route.clone(), *class, *count))
        });
        each.filter(|(_, _, count)| *count > 0).collect()
    }

    fn routes(&self) -> MutexGuard<'_, BTreeMap<String, [u64; CLASSES.len()]>> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_in_their_places() {
        let meter = ServerMeter::default();
        for (times, kind) in (1..).zip(ErrorKind::ALL) {
            (0..times).for_each(|_| meter.failed(kind));
        }
        let counted: Vec<u64> = meter.errors().map(|(_, count)| count).to_vec();
        assert_eq!(counted, (1..=8).collect::<Vec<_>>());
    }

    #[test]
    fn answers_are_counted_by_class() {
        let meter = ServerMeter::default();
        for (route, status) in [("/b", 200), ("/a", 404), ("/b", 204), ("/b", 503), ("/a", 999)] {
            meter.answered(route, StatusCode::from_u16(status).unwrap());
        }
        let told = [("/a", "4xx", 1), ("/a", "5xx", 1), ("/b", "2xx", 2), ("/b", "5xx", 1)];
        assert_eq!(meter.answers(), told.map(|(route, class, count)| (route.to_owned(), class, count)));
    }
}
