//! Bars for downloads and loading, on a terminal only.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bessemer_weights::Progress;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// One bar for each file that is downloaded.
#[derive(Default)]
struct Downloads {
    all: MultiProgress,
    bars: Mutex<HashMap<String, ProgressBar>>,
}

/// Shows downloads, where there is somebody to see them.
pub fn downloads() -> Option<Arc<dyn Progress>> {
    std::io::stderr().is_terminal().then(|| Arc::new(Downloads::default()) as Arc<dyn Progress>)
}

impl Progress for Downloads {
    fn downloaded(&self, file: &str, done: u64, total: u64) {
        let mut bars = self.bars.lock().unwrap_or_else(PoisonError::into_inner);
        let bar = bars.entry(file.to_owned()).or_insert_with(|| {
            let bar = ProgressBar::new(total).with_message(file.to_owned()).with_position(done);
            self.all.add(bar.with_style(bytes_style()))
        });
        bar.set_position(done);
        if done >= total {
            bar.finish_and_clear();
        }
    }
}

fn bytes_style() -> ProgressStyle {
    ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// A line that says what is going on until it is dropped.
pub struct Waiting(ProgressBar);

impl Waiting {
    /// Shows `message` after a moment, so that what is quick does not flicker.
    pub fn new(message: String) -> Self {
        let bar = ProgressBar::new_spinner().with_message(message);
        if std::io::stderr().is_terminal() {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Self(bar)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// A bar over `total` steps; invisible where standard error is no terminal.
pub fn steps(total: usize, message: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(total as u64).with_style(style).with_message(message)
}
