//! `bessemer bench --kernels`: every kernel by itself, on the shapes of real models, as a share of what the device gives
//! at most.

mod bench;
mod ceilings;
mod operands;
mod operations;
mod shapes;

use std::fmt::Write as _;
use std::sync::Arc;

use bessemer_hal::{Device, DeviceInfo};
use serde::Serialize;

use super::host::Host;
use super::spread::Spread;
use crate::{output, progress};
use bench::Bench;
use ceilings::Ceilings;

/// How kernels are measured.
#[derive(Clone, Debug, Serialize)]
pub struct Settings {
    /// Submissions of each kernel that count.
    pub repeat: usize,
    /// Bytes of weights that the launches of one submission rotate through, so that caches do not serve them.
    pub rotate: u64,
    /// Only kernels whose model, name, shape and rows contain all of these, which `+` separates.
    pub filter: Option<String>,
}

/// What is known of one kernel on one shape.
#[derive(Debug, Serialize)]
struct Measured {
    model: &'static str,
    kernel: &'static str,
    shape: String,
    rows: usize,
    /// Time of a launch, the barrier behind it included.
    us: Spread,
    /// Bytes that must be moved and operations that must be made.
    bytes: f64,
    operations: f64,
    gb_s: f64,
    tflop_s: f64,
    /// Share of the ceiling that is reached first: memory or arithmetic.
    share: f64,
    bound: &'static str,
}

#[derive(Debug, Serialize)]
struct Report {
    version: &'static str,
    device: String,
    backend: String,
    features: Vec<String>,
    host: Host,
    settings: Settings,
    ceilings: Ceilings,
    kernels: Vec<Measured>,
}

/// Measures all kernels on `device`.
pub fn run(device: Arc<dyn Device>, settings: Settings, json: bool) -> anyhow::Result<()> {
    let mut bench = Bench::new(device.clone());
    let ceilings = Ceilings::measure(&mut bench, settings.repeat)?;
    let wanted: Vec<_> = shapes::cases()
        .into_iter()
        .filter(|case| {
            let name = format!("{} {} {}, {} rows", case.model, case.kernel(), case.shape(), case.rows);
            let contains = |word: &str| name.contains(word);
            settings.filter.as_ref().is_none_or(|filter| filter.split('+').all(contains))
        })
        .collect();
    let bar = progress::steps(wanted.len(), "kernels");
    let mut kernels = Vec::new();
    for case in wanted {
        let work = case.work();
        let prepared = case.prepare(&bench, settings.rotate)?;
        let us = Spread::of(bench.time(&prepared, settings.repeat)?)?;
        let seconds = us.median * 1e-6;
        let memory = work.bytes / seconds / ceilings.read_bytes_s.median;
        let arithmetic = work.operations / seconds / ceilings.operations_s.median;
        kernels.push(Measured {
            model: case.model,
            kernel: case.kernel(),
            shape: case.shape(),
            rows: case.rows,
            gb_s: work.bytes / seconds / 1e9,
            tflop_s: work.operations / seconds / 1e12,
            share: memory.max(arithmetic),
            bound: if memory >= arithmetic { "memory" } else { "arithmetic" },
            bytes: work.bytes,
            operations: work.operations,
            us,
        });
        bar.inc(1);
    }
    bar.finish_and_clear();
    let DeviceInfo { name, backend, features, .. } = device.info().clone();
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        device: name,
        backend: format!("{backend:?}"),
        features,
        host: Host::look(),
        settings,
        ceilings,
        kernels,
    };
    if json { output::print_json(&report) } else { output::print(&report.text()?) }
}

impl Report {
    fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        writeln!(text, "bessemer {} · {} · {}", self.version, self.device, self.backend)?;
        writeln!(
            text,
            "ceilings: {:.1} GB/s read, {:.2} TFLOP/s ({} units); median (smallest – largest) of {}",
            self.ceilings.read_bytes_s.median / 1e9,
            self.ceilings.operations_s.median / 1e12,
            self.ceilings.units,
            self.settings.repeat
        )?;
        writeln!(
            text,
            "{:<14} {:<16} {:<30} {:>5} {:>28} {:>9} {:>9} {:>6}",
            "model", "kernel", "shape", "rows", "µs", "GB/s", "TFLOP/s", "share"
        )?;
        for k in &self.kernels {
            writeln!(
                text,
                "{:<14} {:<16} {:<30} {:>5} {:>28} {:>9.1} {:>9.2} {:>4.0} % {}",
                k.model,
                k.kernel,
                k.shape,
                k.rows,
                k.us.to_string(),
                k.gb_s,
                k.tflop_s,
                100.0 * k.share,
                k.bound
            )?;
        }
        Ok(text)
    }
}
