//! `bessemer serve`: the OpenAI-compatible server.

use std::time::Duration;

use anyhow::Context;
use bessemer_server::{Cors, ServerOptions};
use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::model_arguments::{EngineArguments, Loaded, load};
use crate::{environment, output};

const AFTER_HELP: &str = "\
Examples:
  bessemer serve
  bessemer serve --model Qwen/Qwen3-0.6B --port 8080 --max-sequences 32
  BESSEMER_API_KEY=secret bessemer serve --host 0.0.0.0
  curl http://127.0.0.1:8080/v1/completions -H 'Content-Type: application/json' \\
       -d '{\"model\": \"default\", \"prompt\": \"Once upon a time\", \"max_tokens\": 40}'

The first SIGINT or SIGTERM lets running requests finish (see --drain-timeout), the second ends at once.";

/// Exit code of a process that an interrupt ended.
const INTERRUPTED: i32 = 130;

/// Serves the model over HTTP with OpenAI's interface.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Serve {
    /// Port to listen on; 0 lets the system choose.
    #[arg(short, long, default_value_t = 8080)]
    port: u16,
    /// Name or address to listen on; 0.0.0.0 is every interface.
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// Key that clients must send as "Authorization: Bearer" [default: BESSEMER_API_KEY, else none].
    #[arg(long, value_name = "KEY", value_parser = NonEmptyStringValueParser::new())]
    api_key: Option<String>,
    /// Name under which the model is shown [default: --model].
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    model_name: Option<String>,
    /// Web origin that may use the server, such as https://chat.example.org, or *; may be given several times.
    #[arg(long, value_name = "ORIGIN")]
    cors: Vec<String>,
    /// Requests that may wait beside the running ones; more are answered with 429.
    #[arg(long, value_name = "N", default_value_t = 256)]
    max_queue: u16,
    /// Seconds that running requests may go on after the signal to end.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    drain_timeout: u32,
    #[command(flatten)]
    engine: EngineArguments,
}

impl Serve {
    /// Does it.
    pub fn run(self) -> anyhow::Result<()> {
        let options = self.server_options()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .context("the threads of the server cannot be started")?;
        // The port first: that it is taken should be known before a large model is loaded.
        let listener = runtime.block_on(bessemer_server::bind(&options))?;
        let address = listener.local_addr().context("the listening socket has no address")?;
        let mut engine_options = self.engine.options(16)?;
        engine_options.max_queue = usize::from(self.max_queue);
        let Loaded { engine, load_time } = load(engine_options)?;
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

    fn server_options(&self) -> anyhow::Result<ServerOptions> {
        let api_key = match &self.api_key {
            Some(key) => Some(key.clone()),
            None => environment::variable(environment::API_KEY)?,
        };
        let cors = match self.cors.as_slice() {
            [] => Cors::Off,
            origins if origins.iter().any(|origin| origin == "*") => Cors::Any,
            origins => Cors::Origins(origins.to_vec()),
        };
        Ok(ServerOptions {
            host: self.host.clone(),
            port: self.port,
            api_key,
            model_name: self.model_name.clone(),
            cors,
            drain_timeout: Duration::from_secs(self.drain_timeout.into()),
            ..ServerOptions::default()
        })
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
