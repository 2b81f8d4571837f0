//! The environment variables of this program, read here and nowhere else. An empty one counts as unset.

/// The configuration file.
pub const CONFIG: &str = "BESSEMER_CONFIG";

/// The token of the operator's listener.
pub const ADMIN_TOKEN: &str = "BESSEMER_ADMIN_TOKEN";

/// What is logged.
pub const LOG: &str = "BESSEMER_LOG";

/// Collectors of traces, as OpenTelemetry names them; the exporter reads the value, and further variables that begin with
/// `OTEL_`, by itself.
const COLLECTORS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// `true`: nothing is traced, whatever else is said.
const NO_TRACES: &str = "OTEL_SDK_DISABLED";

/// Beginnings of the names that may set keys of the configuration.
const SETTINGS: [&str; 2] = ["BESSEMER_", "METAL_"];

/// Every variable that may set a key of the configuration; which of them do is the configuration's matter.
///
/// # Errors
/// When the value of one is not UTF-8.
pub fn settings() -> anyhow::Result<Vec<(String, String)>> {
    let mut settings = Vec::new();
    for (name, value) in std::env::vars_os() {
        let Some(name) = name.to_str().filter(|name| SETTINGS.iter().any(|begin| name.starts_with(begin)))
        else {
            continue;
        };
        let Some(value) = value.to_str() else { return Err(not_text(name)) };
        settings.push((name.to_owned(), value.to_owned()));
    }
    Ok(settings)
}

/// Whether a collector of traces is named.
///
/// # Errors
/// When the value is not UTF-8.
pub fn names_a_collector() -> anyhow::Result<bool> {
    COLLECTORS.iter().try_fold(false, |found, name| Ok(found || variable(name)?.is_some()))
}

/// Whether traces are switched off.
///
/// # Errors
/// When the value is not UTF-8.
pub fn forbids_traces() -> anyhow::Result<bool> {
    Ok(variable(NO_TRACES)?.is_some_and(|value| value.eq_ignore_ascii_case("true")))
}

/// The value of `name`, if it is set.
///
/// # Errors
/// When the value is not UTF-8.
pub fn variable(name: &str) -> anyhow::Result<Option<String>> {
    match std::env::var(name) {
        Ok(value) => Ok(Some(value).filter(|value| !value.is_empty())),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err(not_text(name)),
    }
}

fn not_text(name: &str) -> anyhow::Error {
    anyhow::anyhow!("{name}: must be UTF-8 text, but it holds other bytes. Correct or unset it")
}
