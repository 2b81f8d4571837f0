//! Finding stop strings in a text that arrives in pieces.
//!
//! ```text
//!   text so far:  Once upon a time\nUse          stop: "\nUser:"
//!                 └─ safe to send ─┘└held┘       the longest suffix that may still become a stop string
//! ```
//!
//! Text leaves only when no stop string can begin in it any more, so nothing has ever to be taken back.

/// The stop strings of one request and the text held back because of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct StopStrings {
    stops: Vec<String>,
    held: String,
}

/// What may be done after a piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scan {
    /// The first so many bytes of the held text are safe.
    Safe(usize),
    /// A stop string begins at this byte of the held text.
    Match {
        /// Where.
        at: usize,
        /// Which.
        stop: String,
    },
}

impl StopStrings {
    /// Watches for any of `stops`, none of them empty.
    pub(crate) fn new(stops: Vec<String>) -> Self {
        Self { stops, held: String::new() }
    }

    /// The text held back.
    pub(crate) fn held(&self) -> &str {
        &self.held
    }

    /// Takes the next piece.
    pub(crate) fn push(&mut self, piece: &str) -> Scan {
        self.held.push_str(piece);
        let first = self
            .stops
            .iter()
            .filter_map(|stop| Some((self.held.find(stop.as_str())?, stop)))
            .min_by_key(|(at, stop)| (*at, stop.len()));
        if let Some((at, stop)) = first {
            return Scan::Match { at, stop: stop.clone() };
        }
        let boundaries = self.held.char_indices().map(|(at, _)| at);
        let begins = |at: usize| {
            let tail = self.held.get(at..).unwrap_or_default();
            self.stops.iter().any(|stop| stop.starts_with(tail))
        };
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        let earliest = (self.held.len() + 1).saturating_sub(longest.max(1));
        let safe = boundaries.filter(|at| *at >= earliest).find(|at| begins(*at)).unwrap_or(self.held.len());
        Scan::Safe(safe)
    }

    /// Gives out the first `bytes` of the held text.
    pub(crate) fn take(&mut self, bytes: usize) -> String {
        let whole = |at: &usize| self.held.is_char_boundary(*at);
        let at = (0..=bytes.min(self.held.len())).rev().find(whole).unwrap_or(0);
        let rest = self.held.split_off(at);
        std::mem::replace(&mut self.held, rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Everything sent, and the stop string that ended it.
    fn run(stops: &[String], pieces: &[String]) -> (String, Option<String>) {
        let mut watch = StopStrings::new(stops.to_vec());
        let mut sent = String::new();
        for piece in pieces {
            match watch.push(piece) {
                Scan::Safe(bytes) => sent += &watch.take(bytes),
                Scan::Match { at, stop } => {
                    sent += &watch.take(at);
                    return (sent, Some(stop));
                }
            }
        }
        let rest = watch.held().len();
        sent += &watch.take(rest);
        (sent, None)
    }

    #[test]
    fn across_pieces() {
        let stops = ["\nUser:".to_owned(), "END".to_owned()];
        let pieces = |list: &[&str]| list.iter().map(|piece| (*piece).to_owned()).collect::<Vec<_>>();
        let (sent, stop) = run(&stops, &pieces(&["Hello\nUs", "e", "r", ": x"]));
        assert_eq!((sent.as_str(), stop.as_deref()), ("Hello", Some("\nUser:")));
        let (sent, stop) = run(&stops, &pieces(&["Hello\nUs", "e E", "N", "d é"]));
        assert_eq!((sent.as_str(), stop), ("Hello\nUse ENd é", None));
    }

    #[test]
    fn held_only_as_long_as_needed() {
        let mut watch = StopStrings::new(vec!["aab".into()]);
        assert_eq!(watch.push("xaaa"), Scan::Safe(2));
        assert_eq!(watch.take(2), "xa");
        assert_eq!(watch.push("c"), Scan::Safe(3));
        assert_eq!(StopStrings::default().push("abc"), Scan::Safe(3));
    }

    proptest! {
        #[test]
        fn no_part_of_a_stop_string_is_sent(
            stops in prop::collection::vec("[abé]{1,4}", 1..4),
            pieces in prop::collection::vec("[abcé]{0,3}", 0..20),
        ) {
            let whole = pieces.concat();
            let (sent, stop) = run(&stops, &pieces);
            match stop {
                // The cut is where the stop string that completes first begins.
                Some(stop) => {
                    let with_stop = format!("{}{}", sent, stop);
                    prop_assert!(whole.starts_with(&with_stop));
                    prop_assert!(stops.iter().all(|stop| !sent.contains(stop.as_str())));
                }
                None => {
                    prop_assert_eq!(&sent, &whole);
                    prop_assert!(stops.iter().all(|stop| !whole.contains(stop.as_str())));
                }
            }
        }
    }
}
