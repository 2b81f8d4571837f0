//! The first interrupt ends the run in good order, the second one at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

use crate::output;

/// Exit code of a process that an interrupt ended.
const INTERRUPTED: i32 = 130;

/// Becomes true at the first SIGINT or SIGTERM.
pub fn listen() -> anyhow::Result<Arc<AtomicBool>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("signals cannot be listened to")?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        let listen = |kind| signal(kind).context("signals cannot be listened to");
        (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?)
    };
    let interrupted = Arc::new(AtomicBool::new(false));
    let told = interrupted.clone();
    let serve = move || {
        runtime.block_on(async {
            for first in [true, false] {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if first {
                    output::note("finishing the requests that are under way; interrupt again to end at once");
                    told.store(true, Ordering::Release);
                }
            }
            std::process::exit(INTERRUPTED)
        })
    };
    std::thread::Builder::new()
        .name("interrupts".into())
        .spawn(serve)
        .context("the thread that listens to signals cannot be started")?;
    Ok(interrupted)
}
