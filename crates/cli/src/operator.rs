//! The operator's side of `bessemer serve`: the listener, and the signals.

use std::future::pending;

use anyhow::Context;
use bessemer_config::{Configuration, Origin, keys};
use bessemer_server::{AdminOptions, Control, bind_admin, serve_admin};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::output;
use crate::serve_arguments::ServeArguments;

/// Exit code of a process that an interrupt ended.
const INTERRUPTED: i32 = 130;

/// A listener that answers until it is closed.
pub struct Listener {
    task: JoinHandle<()>,
    close: oneshot::Sender<()>,
}

impl Listener {
    /// Starts answering, where the configuration has a listener. That the usual port is taken, as by a second server on
    /// this machine, is told in the log and ends nothing; for a port that somebody chose it is an error.
    pub async fn start(control: &Control) -> anyhow::Result<Option<Self>> {
        let configuration = control.configuration();
        let settings = &configuration.settings().admin;
        if !settings.enabled {
            return Ok(None);
        }
        let options = AdminOptions {
            host: settings.host.clone(),
            port: settings.port,
            token: settings.token.as_ref().map(|token| token.reveal().to_owned()),
        };
        let listener = match bind_admin(&options).await {
            Ok(listener) => listener,
            Err(error) if !is_chosen(&configuration) => {
                tracing::warn!("no listener for the operator: {error}");
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        Self::on(listener, control.clone(), options).map(Some)
    }

    fn on(listener: TcpListener, control: Control, options: AdminOptions) -> anyhow::Result<Self> {
        let address = listener.local_addr().context("the operator's socket has no address")?;
        output::note(&format!("operator's listener on http://{address}"));
        let (close, closed) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let closed = async { drop(closed.await) };
            if let Err(error) = serve_admin(listener, control, options, closed).await {
                tracing::error!("the operator's listener has ended: {error}");
            }
        });
        Ok(Self { task, close })
    }

    /// Ends it.
    pub async fn close(self) {
        let _ = self.close.send(());
        let _ = self.task.await;
    }
}

/// Whether somebody said where the listener is to be.
fn is_chosen(configuration: &Configuration) -> bool {
    let places =
        keys().iter().filter(|key| ["admin.host", "admin.port", "admin.enabled"].contains(&key.path));
    places.into_iter().any(|key| *configuration.origin(key) != Origin::Default)
}

/// Reads the file again at every SIGHUP, from now on; what comes while the model is loaded counts after that.
pub fn reload_at_hangup(control: Control, arguments: ServeArguments) -> anyhow::Result<JoinHandle<()>> {
    let mut hangup = signal(SignalKind::hangup()).context("signals cannot be listened to")?;
    Ok(tokio::spawn(async move {
        control.until_loaded().await;
        loop {
            match hangup.recv().await {
                Some(()) => reload(&control, &arguments).await,
                // No signal can come any more.
                None => pending().await,
            }
        }
    }))
}

async fn reload(control: &Control, arguments: &ServeArguments) {
    let file = match arguments.read() {
        Ok(file) => file,
        Err(error) => {
            return tracing::error!("nothing has changed: {}", crate::failure::message(&error));
        }
    };
    let from = file.as_ref().map_or_else(|| "no file".to_owned(), |file| file.path.to_string());
    match control.reload(file).await {
        Ok(applied) => {
            for change in &applied.late {
                tracing::warn!(key = change.key.path, "counts at the next start only, and is as it was");
            }
            tracing::info!(from, changes = applied.changes.len(), "the configuration was read again");
        }
        Err(error) => tracing::error!("nothing has changed: {}", error.to_string().replace('\n', "; ")),
    }
}

/// Completes at the first signal to end. The second one ends the process.
pub fn shutdown() -> anyhow::Result<impl Future<Output = ()>> {
    let listen = |kind| signal(kind).context("signals cannot be listened to");
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let (first, received) = oneshot::channel();
    tokio::spawn(async move {
        either(&mut interrupt, &mut terminate).await;
        output::note("finishing running requests; interrupt again to end at once");
        let _ = first.send(());
        either(&mut interrupt, &mut terminate).await;
        std::process::exit(INTERRUPTED);
    });
    Ok(async {
        let _ = received.await;
    })
}

async fn either(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
