//! How a client is made: every setting, with its default and its range.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use tonic::transport::ClientTlsConfig;

use crate::{
    client::Client,
    connect::Target,
    credential,
    error::Error,
    ids,
    link::{Links, Shows, endpoint},
    machine::{Machine, Returns, Setup, publishes::Amount},
    shared::{OnState, Shared},
    stamp::{Inject, Stamp},
    state::Status,
    telemetry::Telemetry,
    token::{Token, TokenSource},
};

/// The longest name that a hub takes, in bytes,
const MAX_NAME_BYTES: usize = 256;
/// the most labels,
const MAX_LABELS: usize = 32;
/// and their bytes.
const MAX_LABEL_BYTES: usize = 4096;
/// How long a hub may be silent, unless told otherwise: as long as most proxies allow.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// The range that a hub allows.
const SHORTEST_HEARTBEAT: Duration = Duration::from_secs(1);
const LONGEST_HEARTBEAT: Duration = Duration::from_secs(300);
/// Events that may wait to be published or for the answer, unless told otherwise,
const QUEUE_EVENTS: usize = 8192;
/// and their bytes.
const QUEUE_BYTES: usize = 16 * 1024 * 1024;

/// The settings of a client. See [`Client::builder`].
#[must_use = "a client is made by `connect_lazy`"]
pub struct Builder {
    addresses: Vec<String>,
    name: String,
    labels: HashMap<String, String>,
    heartbeat: Duration,
    queue: Amount,
    returns: Returns,
    tls: Option<ClientTlsConfig>,
    shows: Shows,
    on_state: Option<OnState>,
    inject: Option<Inject>,
    telemetry: Telemetry,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("addresses", &self.addresses).field("name", &self.name).finish_non_exhaustive()
    }
}

impl Client {
    /// Begins to make a client of these hubs: `https://HOST:PORT`, `http://HOST:PORT`, `unix:/PATH`, or `HOST:PORT`, which
    /// is https if TLS is set. They serve the same events; the client is connected to one of them at a time. They are tried
    /// in random order, the next one after each failure, and so are the records of a name that has several.
    pub fn builder<A: Into<String>>(addresses: impl IntoIterator<Item = A>) -> Builder {
        Builder {
            addresses: addresses.into_iter().map(Into::into).collect(),
            name: String::new(),
            labels: HashMap::new(),
            heartbeat: HEARTBEAT,
            queue: Amount { events: QUEUE_EVENTS, bytes: QUEUE_BYTES },
            returns: Returns::default(),
            tls: None,
            shows: Shows::Nothing,
            on_state: None,
            inject: None,
            telemetry: Telemetry::default(),
        }
    }
}

impl Builder {
    /// The name of the client, such as that of its service: for logs and lists of the hub, and the source of its events. A
    /// hub waits only for clients with a name to come back to what they hold of a group.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// One more label, for lists of the hub.
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }

    /// A token that is the same for as long as the client lives. Where the hub refuses it, the client fails.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.shows = Shows::Token(Token::new(token));
        self
    }

    /// Where tokens come from: one for every session, and a fresh one before it expires.
    pub fn token_source(mut self, source: impl TokenSource) -> Self {
        self.shows = Shows::Source(Arc::new(source));
        self
    }

    /// What is wanted of TLS, where it is more than to trust the authorities of the system.
    pub fn tls(mut self, tls: ClientTlsConfig) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Takes addresses, TLS and token from a [`Target`], whose server may be several, with commas between them. The file of
    /// a token is read again for every session.
    pub fn target(mut self, target: &Target) -> Result<Self, Error> {
        self.addresses.extend(target.server.split(',').map(|server| server.trim().to_owned()));
        if target.tls.is_set() {
            let tls = target.tls.config().map_err(|error| Error::invalid("tls", format!("{error:#}")))?;
            self.tls = Some(tls);
        }
        let credential = &target.credential;
        match (&credential.token, &credential.token_file) {
            (Some(token), _) if !token.is_empty() => Ok(self.token(token)),
            (_, Some(path)) => {
                let path = path.clone();
                Ok(self.token_source(move || std::future::ready(read(&path))))
            }
            _ => Ok(self),
        }
    }

    /// How long the hub may be silent before it says that it is there: 15 seconds unless this is called, from 1 second to 5
    /// minutes. A session in which nothing comes for twice as long, and 5 seconds, is lost.
    pub fn heartbeat(mut self, interval: Duration) -> Self {
        self.heartbeat = interval;
        self
    }

    /// How many events may wait to be published, or for the answer: 8192 unless this is called. More have to wait until
    /// there is room.
    pub fn queue_events(mut self, events: usize) -> Self {
        self.queue.events = events;
        self
    }

    /// The same limit in bytes: 16 MiB unless this is called.
    pub fn queue_bytes(mut self, bytes: usize) -> Self {
        self.queue.bytes = bytes;
        self
    }

    /// Comes back even if an operator has ended its session, which otherwise fails the client.
    pub fn returns_when_terminated(mut self) -> Self {
        self.returns.when_terminated = true;
        self
    }

    /// Fails if none of the addresses leads to a session at first, instead of trying until one does: for programs that a
    /// person starts, who may have mistyped them.
    pub fn fails_fast(mut self) -> Self {
        self.returns.fails_fast = true;
        self
    }

    /// Fails when its session is lost, instead of coming back: for scripts that start again by themselves.
    pub fn for_one_session(mut self) -> Self {
        self.returns.is_for_once = true;
        self
    }

    /// Calls this on every change of state, in the task that runs the client. It must not take long.
    pub fn on_state(mut self, hears: impl Fn(&Status) + Send + Sync + 'static) -> Self {
        self.on_state = Some(Box::new(hears));
        self
    }

    /// Calls this for every event that is published, with its attributes: to add the `traceparent` and `tracestate` of the
    /// current span.
    pub fn trace_context(mut self, inject: impl Fn(&mut HashMap<String, String>) + Send + Sync + 'static) -> Self {
        self.inject = Some(Arc::new(inject));
        self
    }

    /// Records spans with tracers of this provider: `send TOPIC` for every call to publish, until its answer, and
    /// `process TOPIC` for every event that a worker has. Whoever publishes hands the trace on in the attributes
    /// `traceparent` and `tracestate`, unless an event has them already, from [`trace_context`](Self::trace_context) or by
    /// itself: then the span is linked to them.
    ///
    /// ```
    /// # fn make() -> Result<(), switchyard_client::Error> {
    /// use opentelemetry_sdk::{metrics::SdkMeterProvider, trace::SdkTracerProvider};
    /// use switchyard_client::Client;
    ///
    /// let (tracers, meters) = (SdkTracerProvider::default(), SdkMeterProvider::default());
    /// let hub = Client::builder(["127.0.0.1:50051"]).tracer_provider(&tracers).meter_provider(&meters).connect_lazy()?;
    /// # drop(hub);
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "opentelemetry")]
    pub fn tracer_provider<P>(mut self, provider: &P) -> Self
    where
        P: opentelemetry::trace::TracerProvider,
        P::Tracer: Send + Sync + 'static,
        <P::Tracer as opentelemetry::trace::Tracer>::Span: Send + Sync + 'static,
    {
        self.telemetry.trace(provider);
        self
    }

    /// Records metrics with a meter of this provider: how many events are published and received, how long publishes and
    /// handlers take, and what [`Client::stats`] has, as `switchyard.client.*`. Clients that share a provider need names of
    /// their own to be told apart in the latter. A provider may keep what it reads these from, which is little, for longer
    /// than the client.
    #[cfg(feature = "opentelemetry")]
    pub fn meter_provider(mut self, provider: &impl opentelemetry::metrics::MeterProvider) -> Self {
        self.telemetry.measure(provider);
        self
    }

    /// Makes the client. It connects once it is run: see [`Client::run`].
    pub fn connect_lazy(self) -> Result<Client, Error> {
        self.check()?;
        let seed = ids::seed();
        let has_tls = self.tls.is_some();
        let links = Links::new(self.tls, self.shows.clone(), seed);
        let machine = Machine::new(Setup {
            name: self.name.clone(),
            labels: self.labels,
            heartbeat: self.heartbeat,
            addresses: self.addresses,
            has_tls,
            has_source: matches!(self.shows, Shows::Source(_)),
            returns: self.returns,
            most: self.queue,
            seed,
        });
        let stamp = Stamp { name: self.name, inject: self.inject };
        Ok(Client::new(Shared::new(machine, self.on_state, self.telemetry), links, stamp))
    }

    /// Finds what can never work.
    fn check(&self) -> Result<(), Error> {
        if self.addresses.is_empty() {
            return Err(Error::invalid("addresses", "are missing"));
        }
        for address in &self.addresses {
            endpoint(address, self.tls.as_ref())?;
        }
        if self.name.len() > MAX_NAME_BYTES {
            return Err(Error::invalid("name", format!("has more than {MAX_NAME_BYTES} bytes")));
        }
        if self.labels.len() > MAX_LABELS {
            return Err(Error::invalid("labels", format!("are more than {MAX_LABELS}")));
        }
        if self.labels.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > MAX_LABEL_BYTES {
            return Err(Error::invalid("labels", format!("have more than {MAX_LABEL_BYTES} bytes")));
        }
        if !(SHORTEST_HEARTBEAT..=LONGEST_HEARTBEAT).contains(&self.heartbeat) {
            return Err(Error::invalid("heartbeat", "must be 1 second to 5 minutes"));
        }
        if self.queue.events == 0 {
            return Err(Error::invalid("queue_events", "must be positive"));
        }
        if self.queue.bytes == 0 {
            return Err(Error::invalid("queue_bytes", "must be positive"));
        }
        Ok(())
    }
}

fn read(path: &std::path::Path) -> Result<Token, crate::token::TokenError> {
    let value = credential::read_file(path).map_err(|error| format!("{error:#}"))?;
    Ok(Token::new(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn builder() -> Builder {
        Client::builder(["127.0.0.1:1"])
    }

    #[test]
    fn settings_at_their_limits_are_taken_and_one_past_them_is_not() {
        let labels = |count: usize, bytes: usize| {
            (0..count).fold(builder(), |builder, n| builder.label(format!("{n:02}"), "x".repeat(bytes)))
        };
        let good = [
            builder(),
            builder().name("x".repeat(256)),
            labels(32, 126),
            builder().heartbeat(Duration::from_secs(1)),
            builder().heartbeat(Duration::from_secs(300)),
            builder().queue_events(1).queue_bytes(1),
        ];
        for builder in good {
            builder.connect_lazy().expect("good");
        }
        let bad = [
            (Client::builder([""; 0]), "addresses"),
            (Client::builder(["127.0.0.1:1", "ftp://a"]), "addresses"),
            (builder().name("x".repeat(257)), "name"),
            (labels(33, 1), "labels"),
            (labels(32, 127), "labels"),
            (builder().heartbeat(Duration::from_millis(999)), "heartbeat"),
            (builder().heartbeat(Duration::from_millis(300_001)), "heartbeat"),
            (builder().queue_events(0), "queue_events"),
            (builder().queue_bytes(0), "queue_bytes"),
        ];
        for (builder, field) in bad {
            assert_eq!(builder.connect_lazy().expect_err("bad").field(), Some(field));
        }
    }

    #[test]
    fn a_target_may_name_several_hubs() {
        let target = Target { server: "hub-0:1, https://hub-1:2".into(), ..Target::default() };
        let builder = Client::builder([""; 0]).target(&target).expect("a target");
        assert_eq!(builder.addresses, ["hub-0:1", "https://hub-1:2"]);
    }
}
