//! Prometheus' text format, version 0.0.4.
//!
//! Written here because what is told are snapshots of counters that others keep. The crates that write this format keep their
//! own (`metrics`, `prometheus`), and `prometheus-client`, which can take snapshots, writes OpenMetrics only, in which a
//! counter's type line has another name than its sample.

use std::fmt::{Display, Write};

/// What every scraper knows it by.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A page of metrics.
#[derive(Debug, Default)]
pub struct Page(String);

impl Page {
    /// A counter without labels. Its name ends with `_total`.
    pub fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, "counter", help);
        self.sample(name, &[], value);
    }

    /// A gauge without labels.
    pub fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.family(name, "gauge", help);
        self.sample(name, &[], Number(value));
    }

    /// The heading of a metric with labels, whose samples follow.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        debug_assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// A sample.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (at, (label, text)) in labels.iter().enumerate() {
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{}{label}=\"{text}\"", if at == 0 { '{' } else { ',' });
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{end} {value}");
    }

    /// The whole.
    pub fn into_text(self) -> String {
        self.0
    }
}

/// A number as the format has it, where Rust writes `inf`.
pub struct Number(pub f64);

impl Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            number if number.is_nan() => f.write_str("NaN"),
            f64::INFINITY => f.write_str("+Inf"),
            f64::NEG_INFINITY => f.write_str("-Inf"),
            number => write!(f, "{number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page() {
        let mut page = Page::default();
        page.counter("a_total", "What is\ncounted", 3);
        page.gauge("b", "A share", 0.5);
        page.family("c", "gauge", "With labels");
        page.sample("c", &[("x", "1"), ("y", "a\"b\\\n")], Number(f64::INFINITY));
        assert_eq!(
            page.into_text(),
            "# HELP a_total What is\\ncounted\n# TYPE a_total counter\na_total 3\n\
             # HELP b A share\n# TYPE b gauge\nb 0.5\n\
             # HELP c With labels\n# TYPE c gauge\nc{x=\"1\",y=\"a\\\"b\\\\\\n\"} +Inf\n"
        );
    }
}
