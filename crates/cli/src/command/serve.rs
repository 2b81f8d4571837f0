//! `bessemer serve`: the OpenAI-compatible server.

use std::time::Duration;

use anyhow::Context;
use bessemer_server::{Control, Cors, ServerOptions, Traces};
use clap::{Args, ValueEnum};

use crate::logging::LogFormat;
use crate::model_arguments::{Loaded, engine_options, load};
use crate::operator::{self, Listener};
use crate::serve_arguments::ServeArguments;
use crate::{environment, output};

const AFTER_HELP: &str = "\
Examples:
  bessemer serve
  bessemer serve --model Qwen/Qwen3-0.6B --port 8080 --max-sequences 32
  BESSEMER_API_KEY=secret bessemer serve --host 0.0.0.0
  bessemer serve --config config/runtime.yaml --preset batch
  curl http://127.0.0.1:8080/v1/completions -H 'Content-Type: application/json' \\
       -d '{\"model\": \"default\", \"prompt\": \"Once upon a time\", \"max_tokens\": 40}'

The first SIGINT or SIGTERM lets running requests finish (see --drain-timeout), the second ends at once. SIGHUP reads the
configuration file again. What can be set: `bessemer config --help`; the operator's listener: docs/admin.md.";

/// Serves the model over HTTP with OpenAI's interface.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Serve {
    #[command(flatten)]
    arguments: ServeArguments,
}

impl Serve {
    /// The form of the log that the configuration asks for; `given` is what was typed. A configuration that is wrong asks
    /// for none: that it is wrong is told by [`Serve::run`].
    pub fn log_format(&mut self, given: Option<LogFormat>) -> Option<LogFormat> {
        self.arguments.log_format = given;
        let configuration = self.arguments.configuration().ok()?;
        LogFormat::from_str(&configuration.settings().log.format, false).ok()
    }

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
        let engine_options = engine_options(configuration.settings())?;
        let control = Control::new(configuration).context("the threads of the server cannot be started")?;
        let options = server_options(&control)?;
        let traces = options.traces.clone();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .context("the threads of the server cannot be started")?;
        // The ports first: that one is taken should be known before a large model is loaded.
        let listener = runtime.block_on(bessemer_server::bind(&options))?;
        let address = listener.local_addr().context("the listening socket has no address")?;
        let operator = runtime.block_on(Listener::start(&control))?;
        let reloads =
            runtime.block_on(async { operator::reload_at_hangup(control.clone(), self.arguments) })?;
        let Loaded { engine, load_time } = load(engine_options)?;
        let info = engine.info();
        tracing::info!(
            model = info.model,
            seconds = load_time.as_secs_f64(),
            context = info.context,
            kv_bytes = info.kv_bytes,
            "loaded"
        );
        control.loaded(engine.clone());
        runtime.block_on(async {
            let shutdown = operator::shutdown()?;
            let shutdown = async {
                shutdown.await;
                control.start_draining();
            };
            output::note(&format!("listening on http://{address}"));
            let served = bessemer_server::serve_on(listener, engine, options, shutdown).await;
            reloads.abort();
            if let Some(operator) = operator {
                operator.close().await;
            }
            served.map_err(anyhow::Error::from)
        })?;
        if let Some(traces) = traces {
            traces.shutdown();
        }
        Ok(())
    }
}

/// What a configuration means for the server, whose answers the operator is told of.
fn server_options(control: &Control) -> anyhow::Result<ServerOptions> {
    let configuration = control.configuration();
    let server = &configuration.settings().server;
    let cors = match server.cors.as_slice() {
        [] => Cors::Off,
        origins if origins.iter().any(|origin| origin == "*") => Cors::Any,
        origins => Cors::Origins(origins.to_vec()),
    };
    Ok(ServerOptions {
        host: server.host.clone(),
        port: server.port,
        api_key: server.api_key.as_ref().map(|key| key.reveal().to_owned()),
        model_name: server.model_name.clone(),
        cors,
        drain_timeout: Duration::from_secs(server.drain_timeout.into()),
        meter: control.meter().clone(),
        traces: traces(configuration.settings().tracing.otlp_endpoint.as_deref())?,
        ..ServerOptions::default()
    })
}

/// Where traces go, if anywhere: to the collector of the configuration, else to that of the environment.
fn traces(endpoint: Option<&str>) -> anyhow::Result<Option<Traces>> {
    if environment::forbids_traces()? || endpoint.is_none() && !environment::names_a_collector()? {
        return Ok(None);
    }
    Ok(Some(Traces::to(endpoint)?))
}
