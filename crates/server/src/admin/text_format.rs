//! Prometheus' text format, version 0.0.4.
//!
//! Written here because what is told are snapshots of counters that others keep. The crates that write this format keep their
//! own (`metrics`, `prometheus`), and `prometheus-client`, which can take snapshots, writes OpenMetrics only, in which a
//! counter's type line has another name than its sample.

use std::fmt::{Display, Write};

use bessemer_engine::HistogramSnapshot;

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

    /// A histogram, its buckets counted up to their bounds.
    pub fn histogram(&mut self, name: &str, help: &str, labels: &[(&str, &str)], values: &HistogramSnapshot) {
        self.family(name, "histogram", help);
        let HistogramSnapshot { buckets, count, sum } = values;
        let bucket = format!("{name}_bucket");
        for (bound, count) in buckets.iter().copied().chain([(f64::INFINITY, *count)]) {
            let bound = Number(bound).to_string();
            let labels: Vec<_> = labels.iter().copied().chain([("le", bound.as_str())]).collect();
            self.sample(&bucket, &labels, count);
        }
        self.sample(&format!("{name}_sum"), labels, Number(*sum));
        self.sample(&format!("{name}_count"), labels, count);
    }

    /// The heading of a metric with labels, whose samples follow.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        debug_assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
        debug_assert!(!self.0.contains(&format!("# TYPE {name} ")), "{name} twice");
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

    #[test]
    fn buckets_count_up_to_infinity() {
        let values =
            HistogramSnapshot { buckets: vec![(0.000_001, 1), (0.5, 1), (1.0, 3)], count: 4, sum: 12.25 };
        let mut page = Page::default();
        page.histogram("t_seconds", "Times.", &[("m", "x")], &values);
        assert_eq!(
            page.into_text(),
            "# HELP t_seconds Times.\n# TYPE t_seconds histogram\n\
             t_seconds_bucket{m=\"x\",le=\"0.000001\"} 1\n\
             t_seconds_bucket{m=\"x\",le=\"0.5\"} 1\n\
             t_seconds_bucket{m=\"x\",le=\"1\"} 3\n\
             t_seconds_bucket{m=\"x\",le=\"+Inf\"} 4\n\
             t_seconds_sum{m=\"x\"} 12.25\nt_seconds_count{m=\"x\"} 4\n"
        );
    }
}
