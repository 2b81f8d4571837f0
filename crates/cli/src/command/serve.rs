//! `bessemer serve`: the OpenAI-compatible server.

use std::time::Duration;

use anyhow::Context;
use bessemer_config::Settings;
use bessemer_server::{Cors, ServerOptions};
use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::model_arguments::{Loaded, engine_options, load};
use crate::output;
use crate::serve_arguments::ServeArguments;

const AFTER_HELP: &str = "\
Examples:
  bessemer serve
  bessemer serve --model Qwen/Qwen3-0.6B --port 8080 --max-sequences 32
  BESSEMER_API_KEY=secret bessemer serve --host 0.0.0.0
  bessemer serve --config config/runtime.yaml --preset batch
  curl http://127.0.0.1:8080/v1/completions -H 'Content-Type: application/json' \\
       -d '{\"model\": \"default\", \"prompt\": \"Once upon a time\", \"max_tokens\": 40}'

The first SIGINT or SIGTERM lets running requests finish (see --drain-timeout), the second ends at once.";

/// Exit code of a process that an interrupt ended.
const INTERRUPTED: i32 = 130;

/// Serves the model over HTTP with OpenAI's interface.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Serve {
    #[command(flatten)]
    arguments: ServeArguments,
}

impl Serve {
    /// Does it.
    pub fn run(self) -> anyhow::Result<()> {
        let configuration = self.arguments.configuration()?;
        match self.arguments.file()? {
            Some(file) => tracing::info!(file = %file.display(), "configuration"),
            None => tracing::info!("configuration: no file"),
        }
        for note in configuration.notes() {
            tracing::warn!("{note}");
        }
        let options = server_options(configuration.settings());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .context("the threads of the server cannot be started")?;
        // The port first: that it is taken should be known before a large model is loaded.
        let listener = runtime.block_on(bessemer_server::bind(&options))?;
        let address = listener.local_addr().context("the listening socket has no address")?;
        let Loaded { engine, load_time } = load(engine_options(configuration.settings())?)?;
        let info = engine.info();
        tracing::info!(
            model = info.model,
            seconds = load_time.as_secs_f64(),
            context = info.context,
            kv_bytes = info.kv_bytes,
            "loaded"
        );
        runtime.block_on(async {
            let shutdown = shutdown()?;
            output::note(&format!("listening on http://{address}"));
            bessemer_server::serve_on(listener, engine, options, shutdown).await.map_err(anyhow::Error::from)
        })
    }
}

/// What a configuration means for the server.
fn server_options(settings: &Settings) -> ServerOptions {
    let server = &settings.server;
    let cors = match server.cors.as_slice() {
        [] => Cors::Off,
        origins if origins.iter().any(|origin| origin == "*") => Cors::Any,
        origins => Cors::Origins(origins.to_vec()),
    };
    ServerOptions {
        host: server.host.clone(),
        port: server.port,
        api_key: server.api_key.as_ref().map(|key| key.reveal().to_owned()),
        model_name: server.model_name.clone(),
        cors,
        drain_timeout: Duration::from_secs(server.drain_timeout.into()),
        ..ServerOptions::default()
    }
}

/// Completes at the first signal to end. The second one ends the process.
fn shutdown() -> anyhow::Result<impl Future<Output = ()>> {
    let listen = |kind| signal(kind).context("signals cannot be listened to");
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let (first, received) = tokio::sync::oneshot::channel();
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
