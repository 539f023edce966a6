//! The configuration: defaults, then a TOML file, then `SWITCHYARD_...` variables, then flags; the last one counts.
//!
//! Each room owns its options with their defaults; this file only puts the layers together. A key that is unknown in
//! the file or in `--set` is an error. Environment variables are looked up by the names of the options, never the other
//! way round: Kubernetes puts variables of its own that begin like ours into every pod.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::{
    auth,
    edge::{http, web},
    engine, hub, memory,
    model::limits,
    net,
    telemetry::{LogFormat, TraceOptions},
};

/// Everything that can be set, checked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where gRPC clients connect.
    pub listen: net::ListenAddress,
    /// Where probes and scrapes connect.
    pub ops_listen: net::ListenAddress,
    /// Names this hub to its clients; empty is the host name.
    pub node: String,
    /// Where streams are kept; empty for a hub without streams.
    pub data_dir: PathBuf,
    /// What is logged besides the record: a level, or directives as of the tracing library.
    pub log: String,
    /// How log lines look.
    pub log_format: LogFormat,
    /// How the hub shuts down.
    pub drain: Drain,
    /// Limits and times of connections.
    pub connections: net::Options,
    /// Limits of the operator's port.
    pub ops: http::Options,
    /// The port of browsers and plain HTTP clients.
    pub web: web::Options,
    /// TLS for clients.
    pub tls: net::TlsOptions,
    /// Limits and times of sessions.
    pub sessions: hub::Options,
    /// Where traces go.
    pub traces: TraceOptions,
    /// What each principal may use.
    pub quotas: hub::QuotaOptions,
    /// How much memory clients may make the hub keep.
    pub memory: memory::Options,
    /// Limits and times of streams.
    pub engine: engine::Options,
    /// Who may do what.
    pub auth: auth::Options,
}

/// How the hub shuts down on SIGTERM; in the file under `[drain]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Drain {
    /// How long the hub goes on serving while not ready, so that load balancers notice, in milliseconds.
    pub propagation_delay_ms: u64,
    /// The time over which the ends of sessions are spread, in milliseconds.
    pub spread_ms: u64,
    /// The process exits at the latest this long after the propagation delay, whatever clients do, in milliseconds.
    pub deadline_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 50051)).into(),
            ops_listen: SocketAddr::from(([127, 0, 0, 1], 8080)).into(),
            node: String::new(),
            data_dir: "data".into(),
            log: "info".into(),
            log_format: LogFormat::Text,
            drain: Drain::default(),
            connections: net::Options::default(),
            ops: http::Options::default(),
            web: web::Options::default(),
            tls: net::TlsOptions::default(),
            sessions: hub::Options::default(),
            traces: TraceOptions::default(),
            quotas: hub::QuotaOptions::default(),
            memory: memory::Options::default(),
            engine: engine::Options::default(),
            auth: auth::Options::default(),
        }
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self { propagation_delay_ms: 0, spread_ms: 2_000, deadline_ms: 20_000 }
    }
}

impl Drain {
    /// What is out of range, with its key and what it may be.
    fn check(&self) -> Result<(), String> {
        let times = [
            ("propagation_delay_ms", self.propagation_delay_ms),
            ("spread_ms", self.spread_ms),
            ("deadline_ms", self.deadline_ms),
        ];
        if let Some((key, value)) = times.into_iter().find(|(_, value)| *value > limits::MAX_TIME_MS) {
            return Err(format!("drain.{key} is {value} and must be at most {}", limits::MAX_TIME_MS));
        }
        if self.deadline_ms < self.spread_ms {
            return Err(format!(
                "drain.deadline_ms is {} and must be at least drain.spread_ms ({})",
                self.deadline_ms, self.spread_ms
            ));
        }
        Ok(())
    }

    /// How long to go on serving while not ready.
    pub fn propagation_delay(&self) -> Duration {
        Duration::from_millis(self.propagation_delay_ms)
    }

    /// Over how long the ends of sessions are spread.
    pub fn spread(&self) -> Duration {
        Duration::from_millis(self.spread_ms)
    }

    /// How long after the propagation delay the process exits at the latest.
    pub fn deadline(&self) -> Duration {
        Duration::from_millis(self.deadline_ms)
    }
}

/// The flags of `switchyard serve`.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Flags {
    /// Read options from this TOML file
    #[arg(long, value_name = "FILE", env = "SWITCHYARD_CONFIG")]
    pub config: Option<PathBuf>,
    /// Where gRPC clients connect: HOST:PORT, or :PORT for all interfaces [default: 127.0.0.1:50051]
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// Where probes and scrapes connect, in the same form [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    pub ops_listen: Option<String>,
    /// Where browsers and plain HTTP clients connect, in the same form; '' for nowhere [default: 127.0.0.1:50080]
    #[arg(long, value_name = "ADDRESS")]
    pub web_listen: Option<String>,
    /// The name of this hub as its clients see it [default: the host name]
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// Other hubs for clients to try: URLs with commas between them, such as https://hub-1:50051 [default: none]
    #[arg(long, value_name = "URL,...")]
    pub alternatives: Option<String>,
    /// Where streams are kept; '' for a hub without streams [default: data]
    #[arg(long, value_name = "FOLDER")]
    pub data_dir: Option<String>,
    /// What to log: error, warn, info, debug, trace, or directives [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub log: Option<String>,
    /// The format of log lines: text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// Set any option of the file, such as sessions.max_subscriptions=1000000; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// Why there is no configuration. The text names the option and where it was set.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {error}", .path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The file is not TOML, has an unknown key, or a value of the wrong kind.
    #[error("{origin}: {error}")]
    Invalid {
        /// Where it was set.
        origin: String,
        /// What is wrong, and with which key.
        error: String,
    },
    /// A value is out of its range.
    #[error("{0}")]
    OutOfRange(String),
}

impl Config {
    /// Puts the layers together. `environment` looks up one variable.
    pub fn load(flags: &Flags, environment: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let mut table = match &flags.config {
            None => Table::new(),
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|error| ConfigError::Unreadable { path: path.clone(), error })?;
                // Read alone first, so that its faults are told with its name and line.
                toml::from_str::<Self>(&text).map_err(|error| invalid(&path.display().to_string(), &error))?;
                text.parse().map_err(|error| invalid(&path.display().to_string(), &error))?
            }
        };
        let kinds = kinds();
        for (key, kind) in &kinds {
            let variable = format!("SWITCHYARD_{}", key.to_uppercase().replace('.', "_"));
            if let Some(text) = environment(&variable) {
                put(&mut table, key, value(&variable, key, &text, kind)?);
            }
        }
        for (origin, key, text) in flags.overrides()? {
            let kind = kinds.get(&key).ok_or_else(|| invalid(&origin, &format!("there is no option {key}")))?;
            let value = value(&origin, &key, &text, kind)?;
            put(&mut table, &key, value);
        }
        let config = Value::Table(table).try_into().map_err(|error| invalid("configuration", &error))?;
        Self::check(config)
    }

    /// Reads the text of one file, without environment and flags. `origin` names it in errors.
    pub fn from_toml(origin: &str, text: &str) -> Result<Self, ConfigError> {
        Self::check(toml::from_str(text).map_err(|error| invalid(origin, &error))?)
    }

    fn check(self) -> Result<Self, ConfigError> {
        self.connections.check().map_err(ConfigError::OutOfRange)?;
        self.ops.check().map_err(ConfigError::OutOfRange)?;
        self.tls.check().map_err(ConfigError::OutOfRange)?;
        self.web.check().map_err(ConfigError::OutOfRange)?;
        self.sessions.check().map_err(ConfigError::OutOfRange)?;
        self.traces.check().map_err(ConfigError::OutOfRange)?;
        self.quotas.check().map_err(ConfigError::OutOfRange)?;
        self.drain.check().map_err(ConfigError::OutOfRange)?;
        self.memory.check().map_err(ConfigError::OutOfRange)?;
        self.engine.check().map_err(ConfigError::OutOfRange)?;
        self.auth.check().map_err(ConfigError::OutOfRange)?;
        Ok(self)
    }
}

impl Flags {
    /// (where it was set, key, text) of everything the flags set.
    fn overrides(&self) -> Result<Vec<(String, String, String)>, ConfigError> {
        let named = [
            ("listen", &self.listen),
            ("ops_listen", &self.ops_listen),
            ("web.listen", &self.web_listen),
            ("node", &self.node),
            ("sessions.alternatives", &self.alternatives),
            ("data_dir", &self.data_dir),
            ("log", &self.log),
            ("log_format", &self.log_format),
        ];
        let mut overrides: Vec<_> = named
            .into_iter()
            .filter_map(|(key, text)| {
                let name = key.strip_prefix("sessions.").unwrap_or(key);
                let flag = format!("--{}", name.replace(['_', '.'], "-"));
                text.as_ref().map(|text| (flag, key.to_owned(), text.clone()))
            })
            .collect();
        for set in &self.set {
            let origin = format!("--set {set}");
            let (key, text) = set.split_once('=').ok_or_else(|| invalid(&origin, &"expected KEY=VALUE"))?;
            overrides.push((origin, key.trim().to_owned(), text.trim().to_owned()));
        }
        Ok(overrides)
    }
}

/// Every option by its dotted key, with its default as it is written in the file.
pub fn defaults() -> BTreeMap<String, String> {
    kinds().into_iter().map(|(key, value)| (key, value.to_string())).collect()
}

/// Every option by its dotted key, with its default, which tells the kind of value it wants.
fn kinds() -> BTreeMap<String, Value> {
    fn collect(prefix: &str, table: Table, into: &mut BTreeMap<String, Value>) {
        for (key, value) in table {
            match value {
                Value::Table(inner) => collect(&format!("{prefix}{key}."), inner, into),
                value => {
                    into.insert(format!("{prefix}{key}"), value);
                }
            }
        }
    }
    let mut kinds = BTreeMap::new();
    // No option is optional, so every key is there; a test says so.
    let defaults = Table::try_from(Config::default()).unwrap_or_default();
    collect("", defaults, &mut kinds);
    kinds
}

/// The value of one option. It is judged alone, so that its faults are told with the place where it was set.
fn value(origin: &str, key: &str, text: &str, kind: &Value) -> Result<Value, ConfigError> {
    let value = parse(origin, text, kind)?;
    let mut alone = Table::new();
    put(&mut alone, key, value.clone());
    Value::Table(alone).try_into::<Config>().map_err(|error| invalid(origin, &error.message()))?;
    Ok(value)
}

fn parse(origin: &str, text: &str, kind: &Value) -> Result<Value, ConfigError> {
    match kind {
        Value::Float(_) => {
            text.parse().map(Value::Float).map_err(|_| invalid(origin, &format!("{text:?} is not a number")))
        }
        Value::Integer(_) => {
            text.parse().map(Value::Integer).map_err(|_| invalid(origin, &format!("{text:?} is not a whole number")))
        }
        Value::Boolean(_) => {
            text.parse().map(Value::Boolean).map_err(|_| invalid(origin, &format!("{text:?} is not true or false")))
        }
        _ if text.starts_with(['"', '\'']) => quoted(text)
            .map(Value::String)
            .ok_or_else(|| invalid(origin, &format!("{text} begins with a quote and is not a TOML string"))),
        _ => Ok(Value::String(text.to_owned())),
    }
}

/// The text inside a string that is written as in the file: shells take its quotes off, and other ways to give arguments and
/// variables do not.
fn quoted(text: &str) -> Option<String> {
    let mut table: Table = format!("text = {text}").parse().ok()?;
    match (table.len(), table.remove("text")) {
        (1, Some(Value::String(text))) => Some(text),
        _ => None,
    }
}

/// Sets a dotted key of one or two parts, as all of ours are.
fn put(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
        }
        Some((section, key)) => {
            let section = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(inner) = section {
                inner.insert(key.to_owned(), value);
            }
        }
    }
}

fn invalid(origin: &str, error: &impl ToString) -> ConfigError {
    ConfigError::Invalid { origin: origin.to_owned(), error: error.to_string().trim_end().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing(_: &str) -> Option<String> {
        None
    }

    fn set(values: &[&str]) -> Flags {
        Flags { set: values.iter().map(|v| (*v).to_owned()).collect(), ..Flags::default() }
    }

    fn check_refused(flags: &Flags, told: &str) {
        let error = Config::load(flags, nothing).expect_err("refused").to_string();
        assert!(error.contains(told), "{error}");
    }

    #[test]
    fn later_layers_count() {
        let environment = |name: &str| match name {
            "SWITCHYARD_LISTEN" => Some("127.0.0.1:1".to_owned()),
            "SWITCHYARD_SESSIONS_MAX_SUBSCRIPTIONS" => Some("7".to_owned()),
            _ => None,
        };
        let flags = Flags { listen: Some("127.0.0.1:2".into()), ..Flags::default() };
        let config = Config::load(&flags, environment).expect("a configuration");
        assert_eq!(config.listen.port(), 2);
        assert_eq!(config.sessions.max_subscriptions, 7);
    }

    #[test]
    fn every_option_can_be_set_by_its_key() {
        for (key, value) in kinds() {
            let text = match value {
                Value::String(text) => text,
                other => other.to_string(),
            };
            let flags = set(&[&format!("{key}={text}")]);
            assert!(Config::load(&flags, nothing).is_ok(), "{key}");
        }
        assert!(kinds().contains_key("listen") && kinds().contains_key("sessions.max"));
    }

    #[test]
    fn faults_name_the_option() {
        check_refused(&set(&["sessions.nonsense=1"]), "sessions.nonsense");
        check_refused(&set(&["sessions.max=many"]), "not a whole number");
        check_refused(&set(&["sessions.max"]), "KEY=VALUE");
        check_refused(&set(&["listen=localhost"]), "listen=localhost: \"localhost\" has no port");
        check_refused(&Flags { listen: Some("foo".into()), ..Flags::default() }, "listen: \"foo\" has no port");
        check_refused(
            &Flags { ops_listen: Some("unix:x".into()), ..Flags::default() },
            "ops-listen: \"unix:x\" is no Unix",
        );
        check_refused(&set(&["sessions.alternatives=hub-1:1"]), "sessions.alternatives=hub-1:1: \"hub-1:1\" is not");
        check_refused(&Flags { alternatives: Some("x".into()), ..Flags::default() }, "alternatives: \"x\" is not");
        check_refused(&set(&["tls.client_auth=never"]), "tls.client_auth=never: unknown variant");
        let variable = |name: &str| (name == "SWITCHYARD_OPS_LISTEN").then(|| "foo".to_owned());
        let error = Config::load(&Flags::default(), variable).expect_err("refused").to_string();
        assert!(error.starts_with("SWITCHYARD_OPS_LISTEN: \"foo\" has no port"), "{error}");
        check_refused(&set(&["connections.stream_window_bytes=1"]), "stream_window_bytes");
        check_refused(&set(&["sessions.max_subscriptions=1000001"]), "max_subscriptions");
        check_refused(&set(&["drain.deadline_ms=1"]), "deadline_ms");
        let error = Config::from_toml("hub.toml", "[sessions]\nmaximum = 1").expect_err("unknown key").to_string();
        assert!(error.contains("hub.toml") && error.contains("maximum"), "{error}");
        let error = Config::from_toml("hub.toml", "ops_listen = \"foo\"").expect_err("no port").to_string();
        assert!(error.contains("ops_listen") && error.contains("\"foo\" has no port"), "{error}");
    }

    #[test]
    fn strings_may_have_the_quotes_they_have_in_the_file() {
        for (text, wanted) in [
            ("\"a b.crt\"", "a b.crt"),
            ("'a\\b.crt'", "a\\b.crt"),
            ("\"a\\\\b\"", "a\\b"),
            ("a\"b\"", "a\"b\""),
            ("''", ""),
        ] {
            let config = Config::load(&set(&[&format!("node={text}")]), nothing).expect(text);
            assert_eq!(config.node, wanted, "{text}");
        }
        for text in ["\"open", "'a' 'b'", "\"a\"\nlog = \"b\"", "\"a\" # b\nc", "\"\"\"a"] {
            check_refused(&set(&[&format!("node={text}")]), "begins with a quote");
        }
    }
}
