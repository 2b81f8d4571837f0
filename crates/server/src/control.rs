//! Changing what a running server goes by.
//!
//! - **One thread decides.** It alone changes the configuration, one change after the other, and waits for the step boundary
//!   at which a change counts. Whoever asks sends it a command through a bounded channel and holds no lock meanwhile.
//! - **All or nothing.** A change is a whole new configuration that was checked; the engine takes its part of it or refuses,
//!   and only then is it published. A refused change leaves everything as it was.
//! - **The state is there before the model**, so that somebody can ask whether the server is ready while it loads.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;

use bessemer_config::{Change, ConfigError, ConfigFile, Configuration};
use bessemer_engine::{Engine, EngineError};
use serde_json::Value;
use tokio::sync::{oneshot, watch};

use crate::ServerMeter;

/// Changes that may wait for their turn.
const WAITING: usize = 16;

/// The configuration of a server and the door to changing it. Clones share it.
#[derive(Clone, Debug)]
pub struct Control(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    commands: Option<SyncSender<Command>>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    configuration: watch::Sender<Arc<Configuration>>,
    phase: watch::Sender<Phase>,
    started: Instant,
    meter: Arc<ServerMeter>,
}

/// How far a server is.
#[derive(Clone, Debug)]
pub enum Phase {
    /// The model is being loaded.
    Loading,
    /// Requests are taken.
    Running(Engine),
    /// The last requests are finished.
    Draining(Engine),
}

impl Phase {
    /// The engine, once there is one.
    pub fn engine(&self) -> Option<&Engine> {
        match self {
            Self::Loading => None,
            Self::Running(engine) | Self::Draining(engine) => Some(engine),
        }
    }
}

/// What became of a change that was made.
#[derive(Debug)]
pub struct Applied {
    /// What is in force now.
    pub configuration: Arc<Configuration>,
    /// The keys that changed.
    pub changes: Vec<Change>,
    /// Keys that the file wants otherwise and that count at the next start only.
    pub late: Vec<Change>,
}

/// Why a change was not made; nothing is different.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// It is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The engine cannot do it.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The model is not loaded yet.
    #[error("the model is being loaded, and settings cannot change meanwhile. Try again in a moment")]
    Loading,
    /// Too many changes wait.
    #[error("{WAITING} changes are waiting for their turn already. Try again in a moment")]
    Busy,
    /// The thread has ended.
    #[error("nothing changes settings any more: the server is at its end. Start it again")]
    Ended,
}

#[derive(Debug)]
enum Wanted {
    Patch(Value),
    File(Option<ConfigFile>),
}

#[derive(Debug)]
struct Command {
    wanted: Wanted,
    reply: oneshot::Sender<Result<Applied, ControlError>>,
}

impl Control {
    /// Starts the thread, with the configuration that the server begins with.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn new(configuration: Configuration) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            configuration: watch::Sender::new(Arc::new(configuration)),
            phase: watch::Sender::new(Phase::Loading),
            started: Instant::now(),
            meter: Arc::default(),
        });
        let (commands, receiver) = sync_channel(WAITING);
        let theirs = shared.clone();
        let thread = std::thread::Builder::new()
            .name("bessemer-control".into())
            .spawn(move || theirs.obey(&receiver))?;
        Ok(Self(Arc::new(Inner { commands: Some(commands), shared, thread: Some(thread) })))
    }

    /// What is in force.
    pub fn configuration(&self) -> Arc<Configuration> {
        self.0.shared.configuration.borrow().clone()
    }

    /// How far the server is.
    pub fn phase(&self) -> Phase {
        self.0.shared.phase.borrow().clone()
    }

    /// What the public server has answered, when its options share it.
    pub fn meter(&self) -> &Arc<ServerMeter> {
        &self.0.shared.meter
    }

    /// Seconds since the start.
    pub fn uptime_seconds(&self) -> f64 {
        self.0.shared.started.elapsed().as_secs_f64()
    }

    /// The model is loaded.
    pub fn loaded(&self, engine: Engine) {
        self.0.shared.phase.send_replace(Phase::Running(engine));
    }

    /// Completes when the model is loaded.
    pub async fn until_loaded(&self) {
        let mut phase = self.0.shared.phase.subscribe();
        // The sender lives as long as we do.
        let _ = phase.wait_for(|phase| !matches!(phase, Phase::Loading)).await;
    }

    /// The server takes no more requests.
    pub fn start_draining(&self) {
        self.0.shared.phase.send_modify(|phase| {
            if let Phase::Running(engine) = phase {
                *phase = Phase::Draining(engine.clone());
            }
        });
    }

    /// Changes settings by a JSON merge patch; returns when they are in force.
    ///
    /// # Errors
    /// When the patch is wrong, or the engine cannot do it; nothing has changed then.
    pub async fn patch(&self, patch: Value) -> Result<Applied, ControlError> {
        self.ask(Wanted::Patch(patch)).await
    }

    /// Takes another file in place of the one before, and takes back what was changed by patches.
    ///
    /// # Errors
    /// As [`Control::patch`].
    pub async fn reload(&self, file: Option<ConfigFile>) -> Result<Applied, ControlError> {
        self.ask(Wanted::File(file)).await
    }

    async fn ask(&self, wanted: Wanted) -> Result<Applied, ControlError> {
        let (reply, answer) = oneshot::channel();
        let commands = self.0.commands.as_ref().ok_or(ControlError::Ended)?;
        commands.try_send(Command { wanted, reply }).map_err(|error| match error {
            TrySendError::Full(_) => ControlError::Busy,
            TrySendError::Disconnected(_) => ControlError::Ended,
        })?;
        answer.await.unwrap_or(Err(ControlError::Ended))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // No engine may be left in the thread's hands when the owner of the last handle goes on to take the device down.
        drop(self.commands.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that changes settings had ended by a panic");
        }
    }
}

impl Shared {
    fn obey(&self, commands: &Receiver<Command>) {
        while let Ok(Command { wanted, reply }) = commands.recv() {
            // Who has left needs no answer, and the change counts all the same.
            let _ = reply.send(self.apply(wanted));
        }
    }

    fn apply(&self, wanted: Wanted) -> Result<Applied, ControlError> {
        let engine = self.phase.borrow().engine().cloned().ok_or(ControlError::Loading)?;
        let before = self.configuration.borrow().clone();
        let (made, late) = match wanted {
            Wanted::Patch(patch) => (before.patched(&patch)?, Vec::new()),
            Wanted::File(file) => before.reloaded(file)?,
        };
        let changes = made.changes_from(&before);
        if made.settings().optimizations != before.settings().optimizations {
            engine.update_optimizations(made.settings().optimizations.clone())?;
        }
        let told = before.notes();
        made.notes().iter().filter(|note| !told.contains(note)).for_each(|note| tracing::warn!("{note}"));
        for change in &changes {
            let (from, to) = (change.key.json(&change.from), change.key.json(&change.to));
            tracing::info!(key = change.key.path, %from, %to, "changed");
        }
        let configuration = Arc::new(made);
        self.configuration.send_replace(configuration.clone());
        Ok(Applied { configuration, changes, late })
    }
}
