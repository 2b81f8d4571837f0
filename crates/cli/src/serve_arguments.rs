//! The flags of `bessemer serve`, and what they come to together with file and environment.

use std::path::PathBuf;

use bessemer_config::{ConfigFile, Configuration, PRESETS, Sources};
use clap::Args;
use clap::builder::{NonEmptyStringValueParser, PossibleValue, PossibleValuesParser};

use crate::given::{self, Given};
use crate::logging::LogFormat;
use crate::model_arguments::{EngineArguments, Switch};
use crate::{config_file, environment};

/// Flags of the server. Whoever names none gets what the configuration says.
#[derive(Debug, Args)]
pub struct ServeArguments {
    /// Configuration file [default: BESSEMER_CONFIG, else config/runtime.yaml if it is there].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Settings under one name; file, environment and other flags go before it.
    #[arg(long, value_name = "NAME", value_parser = presets())]
    pub preset: Option<String>,
    /// Port to listen on; 0 lets the system choose [default: 8080].
    #[arg(short, long)]
    pub port: Option<u16>,
    /// Name or address to listen on; 0.0.0.0 is every interface [default: 127.0.0.1].
    #[arg(long)]
    pub host: Option<String>,
    /// Key that clients must send as "Authorization: Bearer" [default: BESSEMER_API_KEY, else none].
    #[arg(long, value_name = "KEY", value_parser = NonEmptyStringValueParser::new())]
    pub api_key: Option<String>,
    /// Name under which the model is shown [default: --model].
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub model_name: Option<String>,
    /// Web origin that may use the server, such as https://chat.example.org, or *; may be given several times.
    #[arg(long, value_name = "ORIGIN")]
    pub cors: Vec<String>,
    /// Requests that may wait beside the running ones; more are answered with 429 [default: 256].
    #[arg(long, value_name = "N")]
    pub max_queue: Option<u16>,
    /// Seconds that running requests may go on after the signal to end [default: 30].
    #[arg(long, value_name = "SECONDS")]
    pub drain_timeout: Option<u32>,
    /// OpenTelemetry collector that takes traces, such as http://localhost:4318 [default: OTEL_EXPORTER_OTLP_ENDPOINT, else
    /// no traces].
    #[arg(long, value_name = "URL", value_parser = NonEmptyStringValueParser::new())]
    pub otlp_endpoint: Option<String>,
    /// `--log-format`, which is a flag of every command.
    #[arg(skip)]
    pub log_format: Option<LogFormat>,
    #[command(flatten)]
    pub admin: AdminArguments,
    #[command(flatten)]
    pub engine: EngineArguments,
}

/// Flags of the listener for the operator.
#[derive(Debug, Args)]
#[command(next_help_heading = "Admin")]
pub struct AdminArguments {
    /// A listener for the operator: configuration, statistics, metrics, health [default: on].
    #[arg(id = "admin_enabled", long = "admin", value_enum, value_name = "SWITCH")]
    pub enabled: Option<Switch>,
    /// Name or address that it listens on; other than loopback needs a token [default: 127.0.0.1].
    #[arg(id = "admin_host", long = "admin-host", value_name = "HOST")]
    pub host: Option<String>,
    /// Its port; 0 lets the system choose [default: 9464].
    #[arg(id = "admin_port", long = "admin-port", value_name = "PORT")]
    pub port: Option<u16>,
    /// Token that its clients must send as "Authorization: Bearer" [default: BESSEMER_ADMIN_TOKEN, else none].
    #[arg(id = "admin_token", long = "admin-token", value_name = "TOKEN", value_parser = NonEmptyStringValueParser::new())]
    pub token: Option<String>,
}

fn presets() -> PossibleValuesParser {
    PossibleValuesParser::new(PRESETS.iter().map(|preset| PossibleValue::new(preset.name).help(preset.about)))
}

impl ServeArguments {
    /// The file that these arguments mean.
    pub fn file(&self) -> anyhow::Result<Option<PathBuf>> {
        config_file::find(self.config.as_deref())
    }

    /// The file with what is in it now.
    pub fn read(&self) -> anyhow::Result<Option<ConfigFile>> {
        self.file()?.map(|path| config_file::read(&path)).transpose()
    }

    /// What arguments, environment and file come to.
    pub fn configuration(&self) -> anyhow::Result<Configuration> {
        let sources =
            Sources { file: self.read()?, environment: environment::settings()?, arguments: self.given() };
        Ok(sources.resolve()?)
    }

    fn given(&self) -> Given {
        let mut given = given::engine(&self.engine);
        given::value(&mut given, "preset", self.preset.as_ref());
        given::value(&mut given, "port", self.port.as_ref());
        given::value(&mut given, "host", self.host.as_ref());
        given::value(&mut given, "api_key", self.api_key.as_ref());
        given::value(&mut given, "model_name", self.model_name.as_ref());
        given::value(&mut given, "cors", (!self.cors.is_empty()).then(|| self.cors.join(",")).as_ref());
        given::value(&mut given, "max_queue", self.max_queue.as_ref());
        given::value(&mut given, "drain_timeout", self.drain_timeout.as_ref());
        given::value(&mut given, "tracing.otlp_endpoint", self.otlp_endpoint.as_ref());
        given::value(&mut given, "log.format", self.log_format.map(given::name).as_ref());
        let AdminArguments { enabled, host, port, token } = &self.admin;
        given::switch(&mut given, "admin.enabled", *enabled);
        given::value(&mut given, "admin.host", host.as_ref());
        given::value(&mut given, "admin.port", port.as_ref());
        given::value(&mut given, "admin.token", token.as_ref());
        given
    }
}
