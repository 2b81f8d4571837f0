//! One answer of `/api/v1/stats`.

use serde_json::Value;

/// What a server said at one moment. Whatever it did not say, or said in another form, is absent.
#[derive(Clone, Debug, PartialEq)]
pub struct Stats(Value);

impl Stats {
    /// The answer.
    pub fn new(answer: Value) -> Self {
        Self(answer)
    }

    /// A number, by its place, such as `/engine/running`.
    pub fn number(&self, place: &str) -> Option<f64> {
        self.0.pointer(place)?.as_f64().filter(|number| number.is_finite())
    }

    /// A text that is not empty.
    pub fn text(&self, place: &str) -> Option<&str> {
        self.0.pointer(place)?.as_str().filter(|text| !text.is_empty())
    }

    /// Yes or no.
    pub fn flag(&self, place: &str) -> Option<bool> {
        self.0.pointer(place)?.as_bool()
    }

    /// The items of a list; none where there is no list.
    pub fn items(&self, place: &str) -> impl Iterator<Item = Stats> {
        let items = self.0.pointer(place).and_then(Value::as_array);
        items.into_iter().flatten().cloned().map(Self)
    }

    /// Seconds that the server has been up: the clock of everything else that it says.
    pub fn uptime(&self) -> f64 {
        self.number("/uptime_seconds").unwrap_or_default()
    }
}
