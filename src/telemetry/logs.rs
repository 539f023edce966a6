//! Logs on standard error, as text or JSON, and how much is logged, which can be changed while the process runs.
//!
//! The record of who was refused what and who managed what (target `audit`) is written whatever else is logged: nobody
//! can switch it off.

use std::{io::IsTerminal, sync::OnceLock};

use serde::{Deserialize, Serialize};
use tracing::{Level, Metadata, Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{FilterExt, FilterFn},
    fmt::MakeWriter,
    layer::SubscriberExt,
    registry::LookupSpan,
    reload,
    util::SubscriberInitExt,
};

/// The target of the record.
pub const AUDIT: &str = "audit";

/// Changes what is logged besides the record.
type Handle = reload::Handle<EnvFilter, Registry>;

/// What is logged by this process: logs are its own, whatever hubs it runs.
static FILTER: OnceLock<Handle> = OnceLock::new();

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
    let (logger, handle) = logger(filter, format, std::io::stderr().is_terminal(), std::io::stderr)?;
    logger.try_init().map_err(|error| error.to_string())?;
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

/// Writes the record, and of all else what the filter lets through.
fn logger<W>(
    filter: &str,
    format: LogFormat,
    colours: bool,
    writer: W,
) -> Result<(impl Subscriber + Send + Sync + use<W>, Handle), String>
where
    W: for<'a> MakeWriter<'a> + Clone + Send + Sync + 'static,
{
    let of_record = |line: &Metadata<'_>| line.target() == AUDIT && *line.level() <= Level::INFO;
    let record = FilterFn::new(of_record).with_max_level_hint(LevelFilter::INFO);
    let (filter, handle) = reload::Layer::new(parse(filter)?);
    let rest = filter.and(FilterFn::new(move |line| !of_record(line)).with_max_level_hint(LevelFilter::TRACE));
    let logger = Registry::default()
        .with(lines(format, colours, writer.clone()).with_filter(rest))
        .with(lines(format, colours, writer).with_filter(record));
    Ok((logger, handle))
}

fn lines<S, W>(format: LogFormat, colours: bool, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(colours);
    match format {
        LogFormat::Text => Box::new(lines),
        LogFormat::Json => Box::new(lines.json().flatten_event(true)),
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, sync::Arc};

    use parking_lot::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn no_filter_keeps_the_record_back_and_each_line_comes_once() {
        let log = Log::default();
        let writer = log.clone();
        let (logger, handle) = logger("info", LogFormat::Json, false, move || writer.clone()).expect("a logger");
        let told = || String::from_utf8(std::mem::take(&mut *log.0.lock())).expect("text").lines().count();
        tracing::subscriber::with_default(logger, || {
            let all = |lines: [usize; 4]| {
                tracing::warn!(target: "audit", principal = "jwt:bob", "denied");
                let denied = told();
                tracing::info!(target: "audit", "managed");
                let managed = told();
                tracing::info!("else");
                let info = told();
                tracing::debug!("more");
                assert_eq!([denied, managed, info, told()], lines);
            };
            all([1, 1, 1, 0]);
            for (filter, others) in [
                ("off", [0, 0]),
                ("off,audit=off", [0, 0]),
                ("info,audit=off", [1, 0]),
                ("audit[{principal}]=off,debug", [1, 1]),
                ("trace", [1, 1]),
                ("error", [0, 0]),
            ] {
                handle.reload(parse(filter).expect("a filter")).expect("changed");
                all([1, 1, others[0], others[1]]);
            }
        });
    }
}
