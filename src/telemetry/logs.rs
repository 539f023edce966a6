//! Logs on standard error, as text or JSON, and how much is logged, which can be changed while the process runs.

use std::{io::IsTerminal, sync::OnceLock};

use serde::{Deserialize, Serialize};
use tracing_subscriber::{EnvFilter, Registry, layer::SubscriberExt, reload, util::SubscriberInitExt};

/// What is logged by this process: logs are its own, whatever hubs it runs.
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging for the process. `filter` is a level, or directives such as `info,switchyard::net=debug`.
pub fn set_up_logs(filter: &str, format: LogFormat) -> Result<(), String> {
    let (filter, handle) = reload::Layer::new(parse(filter)?);
    let colours = std::io::stderr().is_terminal();
    let logs = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colours);
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        LogFormat::Text => registry.with(logs).try_init(),
        LogFormat::Json => registry.with(logs.json().flatten_event(true)).try_init(),
    }
    .map_err(|error| error.to_string())?;
    // Set-up succeeds once in a process.
    FILTER.get_or_init(|| handle);
    Ok(())
}

/// What is logged, as directives; `None` in a process that set up no logs.
pub fn log_filter() -> Option<String> {
    FILTER.get()?.with_current(ToString::to_string).ok()
}

/// Changes what is logged from now on, until the process ends.
pub fn set_log_filter(filter: &str) -> Result<(), String> {
    let handle = FILTER.get().ok_or("this process set up no logs")?;
    handle.reload(parse(filter)?).map_err(|error| error.to_string())
}

fn parse(filter: &str) -> Result<EnvFilter, String> {
    EnvFilter::try_new(filter).map_err(|error| format!("log: {error}"))
}
