//! What a user asks a subscription for: live events or those of a stream, from where, and how many at a time. Pure.

use std::{fmt, sync::Arc, time::SystemTime};

use prost::Message;

use crate::{
    error::Error,
    position::PositionStore,
    proto::v1::{
        AckMode, GapPolicy, OverflowPolicy, StartPosition, StartPreset, SubscriptionSpec, start_position::Position,
    },
};

/// Events that a subscription holds at most, unless told otherwise,
const WINDOW_EVENTS: u32 = 256;
/// and their bytes; one event may be larger.
const WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// No subscription that a hub takes is larger, in bytes: 256 filters of 256 bytes, and the rest.
const MAX_SPEC_BYTES: usize = 128 * 1024;

/// Where in a stream a subscription starts. A group that exists goes on where it is, whatever its members say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Start {
    /// With what is published from now on.
    #[default]
    New,
    /// With the earliest event that the stream has.
    Earliest,
    /// With the last event of every topic; then with what is published from now on.
    LastPerTopic,
    /// Strictly after this sequence; 0 is before the first event.
    After(i64),
    /// With the first event that was stored at this time or later.
    At(SystemTime),
    /// Strictly after the point of a resume token, such as that of [`Batch::token`](crate::Batch::token).
    Token(String),
}

impl From<Start> for StartPosition {
    fn from(start: Start) -> Self {
        let position = match start {
            Start::New => Position::Preset(StartPreset::New.into()),
            Start::Earliest => Position::Preset(StartPreset::Earliest.into()),
            Start::LastPerTopic => Position::Preset(StartPreset::LastPerTopic.into()),
            Start::After(sequence) => Position::AfterSequence(sequence),
            Start::At(time) => Position::AtTime(time.into()),
            Start::Token(token) => Position::ResumeToken(token),
        };
        Self { position: Some(position) }
    }
}

/// What happens when the stream no longer has the events where a subscription wants to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnGap {
    /// The subscription ends with an error.
    Fail,
    /// It gets a gap, then the earliest event there is.
    Earliest,
    /// It gets a gap, then what is published from now on.
    Latest,
}

/// What the hub does with events for a live subscription that does not keep up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overflow {
    /// It drops the oldest, and the subscription gets a gap.
    DropOldest,
    /// It keeps the latest of each topic, and the subscription gets a gap.
    Conflate,
    /// It ends the subscription; the client opens it again, with a gap.
    End,
}

/// A live subscription: what is published while it is open. What is published while the client has no session is lost to
/// it, and a gap says so.
#[derive(Debug, Clone)]
pub struct Live(Spec);

impl Live {
    /// One of the events whose topic matches any of these filters: `*` is one token, a final `>` is one or more.
    pub fn to<S: Into<String>>(filters: impl IntoIterator<Item = S>) -> Self {
        let filters = filters.into_iter().map(Into::into).collect();
        Self(Spec::new(SubscriptionSpec { filters, ..SubscriptionSpec::default() }))
    }

    /// Shares the events with the other members of this group.
    #[must_use]
    pub fn group(mut self, name: impl Into<String>) -> Self {
        self.0.wire.group = name.into();
        self
    }

    /// What the hub does when this client does not keep up. [`Overflow::DropOldest`] unless this is called.
    #[must_use]
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.0.wire.overflow = match overflow {
            Overflow::DropOldest => OverflowPolicy::DropOldest,
            Overflow::Conflate => OverflowPolicy::Conflate,
            Overflow::End => OverflowPolicy::End,
        }
        .into();
        self
    }

    /// Holds at most this many events that were not taken: 256 unless this is called.
    #[must_use]
    pub fn window(mut self, events: u32) -> Self {
        self.0.window.events = events.into();
        self
    }

    /// Holds at most this many bytes of events that were not taken: 4 MiB unless this is called. One event may be larger.
    #[must_use]
    pub fn window_bytes(mut self, bytes: u32) -> Self {
        self.0.window.bytes = bytes.into();
        self
    }

    /// Ends after this many events.
    #[must_use]
    pub fn limit(mut self, events: u32) -> Self {
        self.0.wire.max_events = events.into();
        self
    }
}

/// A subscription that reads a stream, by itself or as a member of a group.
#[derive(Debug, Clone)]
pub struct Stream(Spec);

impl Stream {
    /// One that reads the stream of this name, all of it, from now on.
    pub fn named(name: impl Into<String>) -> Self {
        Self(Spec::new(SubscriptionSpec { stream: name.into(), ..SubscriptionSpec::default() }))
    }

    /// Only events whose topic matches this filter, or another one that was given.
    #[must_use]
    pub fn filter(mut self, filter: impl Into<String>) -> Self {
        self.0.wire.filters.push(filter.into());
        self
    }

    /// Where to start, if there is no position to go on from.
    #[must_use]
    pub fn from(mut self, start: Start) -> Self {
        self.0.wire.start = Some(start.into());
        self
    }

    /// Shares the events with the other members of this group, which remembers what is done. Each event is to be
    /// acknowledged.
    #[must_use]
    pub fn group(mut self, name: impl Into<String>) -> Self {
        self.0.wire.group = name.into();
        self.0.wire.ack_mode = AckMode::Explicit.into();
        self
    }

    /// As a member of a group: an event is done as soon as the hub has sent it. What is on its way when a session is lost is
    /// lost, and a gap says so.
    #[must_use]
    pub fn done_when_sent(mut self) -> Self {
        self.0.wire.ack_mode = AckMode::None.into();
        self
    }

    /// What happens when the stream no longer has the events where this wants to go on. [`OnGap::Fail`] unless this is
    /// called; for a member of a group [`OnGap::Earliest`].
    #[must_use]
    pub fn on_gap(mut self, policy: OnGap) -> Self {
        self.0.wire.on_gap = match policy {
            OnGap::Fail => GapPolicy::Fail,
            OnGap::Earliest => GapPolicy::Earliest,
            OnGap::Latest => GapPolicy::Latest,
        }
        .into();
        self
    }

    /// Where the place is kept between two runs of the program. Not for members of groups, whose place the hub keeps.
    #[must_use]
    pub fn position(mut self, store: impl PositionStore) -> Self {
        self.0.position = Some(Arc::new(store));
        self
    }

    /// The same with a store that is used elsewhere too.
    #[must_use]
    pub fn shared_position(mut self, store: Arc<dyn PositionStore>) -> Self {
        self.0.position = Some(store);
        self
    }

    /// Takes at most this many events in one batch: about 64 KiB unless this is called.
    #[must_use]
    pub fn max_batch(mut self, events: u16) -> Self {
        self.0.wire.max_batch = events.into();
        self
    }

    /// Holds at most this many events: those that were not taken or, for a member of a group, that were not settled. 256
    /// unless this is called.
    #[must_use]
    pub fn window(mut self, events: u32) -> Self {
        self.0.window.events = events.into();
        self
    }

    /// The same limit in bytes: 4 MiB unless this is called. One event may be larger.
    #[must_use]
    pub fn window_bytes(mut self, bytes: u32) -> Self {
        self.0.window.bytes = bytes.into();
        self
    }

    /// Ends after this many events. Not for members of groups that acknowledge, who stop taking events instead.
    #[must_use]
    pub fn limit(mut self, events: u32) -> Self {
        self.0.wire.max_events = events.into();
        self
    }
}

/// How much one subscription may hold: events, and their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) events: i64,
    pub(crate) bytes: i64,
}

/// What a subscription asks for, whichever kind it is: [`Live`], [`Stream`], or what the contract has.
#[derive(Clone)]
pub struct Spec {
    /// Without its credit, which the window makes.
    pub(crate) wire: SubscriptionSpec,
    pub(crate) window: Window,
    pub(crate) position: Option<Arc<dyn PositionStore>>,
}

impl From<SubscriptionSpec> for Spec {
    /// Whatever the contract has. Its credit is the window: a unit that it does not name has the usual one.
    fn from(mut wire: SubscriptionSpec) -> Self {
        let credit = wire.credit.take().unwrap_or_default();
        // What a member holds is for this client to say.
        wire.reattach = None;
        let mut spec = Self::new(wire);
        let named = |value: i64, usual: i64| if value > 0 { value } else { usual };
        spec.window.events = named(credit.events, spec.window.events);
        spec.window.bytes = named(credit.bytes, spec.window.bytes);
        spec
    }
}

impl From<Live> for Spec {
    fn from(live: Live) -> Self {
        live.0
    }
}

impl From<Stream> for Spec {
    fn from(stream: Stream) -> Self {
        stream.0
    }
}

impl fmt::Debug for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spec").field("wire", &self.wire).field("window", &self.window).finish_non_exhaustive()
    }
}

impl fmt::Display for Spec {
    /// What it is, in the words of an error.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SubscriptionSpec { stream, group, filters, .. } = &self.wire;
        if !group.is_empty() {
            write!(f, "group {group} of ")?;
        }
        match filters.first() {
            _ if !stream.is_empty() => write!(f, "stream {stream}"),
            Some(first) if filters.len() > 1 => write!(f, "live {first} and {} more", filters.len() - 1),
            Some(first) => write!(f, "live {first}"),
            None => write!(f, "live events"),
        }
    }
}

impl Spec {
    fn new(wire: SubscriptionSpec) -> Self {
        let window = Window { events: WINDOW_EVENTS.into(), bytes: WINDOW_BYTES.into() };
        Self { wire, window, position: None }
    }

    /// Where the place is kept between two runs of the program: as [`Stream::position`].
    #[must_use]
    pub fn position(self, store: impl PositionStore) -> Self {
        Self { position: Some(Arc::new(store)), ..self }
    }

    /// Whether its events are acknowledged.
    pub(crate) fn acknowledges(&self) -> bool {
        !matches!(self.wire.ack_mode(), AckMode::Unspecified | AckMode::None)
    }

    /// Whether it reads a stream by itself, so that its place is its own.
    pub(crate) fn has_place(&self) -> bool {
        !self.wire.stream.is_empty() && self.wire.group.is_empty()
    }

    /// Whether events are lost to it while it has no session: nobody keeps them for it.
    pub(crate) fn loses_when_away(&self) -> bool {
        !self.has_place() && !self.acknowledges()
    }

    /// Whether it starts with what is published from now on.
    pub(crate) fn starts_new(&self) -> bool {
        match self.wire.start.as_ref().and_then(|start| start.position.as_ref()) {
            None => true,
            Some(Position::Preset(preset)) => {
                matches!(StartPreset::try_from(*preset), Ok(StartPreset::Unspecified | StartPreset::New))
            }
            Some(_) => false,
        }
    }

    /// Finds what can never work here, before a hub has to. What only the hub can judge is its to refuse.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.window.events < 1 {
            return Err(Error::invalid("window", "must be positive"));
        }
        if self.window.bytes < 1 {
            return Err(Error::invalid("window_bytes", "must be positive"));
        }
        if self.wire.encoded_len() > MAX_SPEC_BYTES {
            return Err(Error::invalid("filters", format!("have more than {MAX_SPEC_BYTES} bytes")));
        }
        if self.position.is_some() && !self.has_place() {
            return Err(Error::invalid("position", "is not for members of groups, whose place the hub keeps"));
        }
        // The hub would count events that come again.
        if self.acknowledges() && self.wire.max_events > 0 {
            return Err(Error::invalid(
                "limit",
                "is not for members that acknowledge: they stop taking events instead",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{error::ErrorKind, position::MemoryPosition};

    #[test]
    fn each_kind_knows_what_it_loses_and_what_it_acknowledges() {
        let facts = |spec: Spec| (spec.has_place(), spec.acknowledges(), spec.loses_when_away());
        assert_eq!(facts(Live::to(["a.>"]).into()), (false, false, true));
        assert_eq!(facts(Live::to(["a.>"]).group("g").into()), (false, false, true));
        assert_eq!(facts(Stream::named("s").into()), (true, false, false));
        assert_eq!(facts(Stream::named("s").group("g").into()), (false, true, false));
        assert_eq!(facts(Stream::named("s").group("g").done_when_sent().into()), (false, false, true));
    }

    #[test]
    fn only_a_start_with_what_is_new_depends_on_when_it_is_made() {
        let starts = |stream: Stream| Spec::from(stream).starts_new();
        assert!(starts(Stream::named("s")) && starts(Stream::named("s").from(Start::New)));
        for start in [Start::Earliest, Start::LastPerTopic, Start::After(0), Start::At(SystemTime::UNIX_EPOCH)] {
            assert!(!starts(Stream::named("s").from(start.clone())), "{start:?}");
        }
    }

    #[test]
    fn what_can_never_work_is_refused_before_it_is_sent() {
        let good = Spec::from(Stream::named("s").window(1).window_bytes(1).position(MemoryPosition::new()));
        good.check().expect("good");
        let filters = |count: usize| Spec::from(Live::to(vec!["x".repeat(256); count]));
        filters(256).check().expect("as many as a hub takes");
        for (bad, field) in [
            (Stream::named("s").window(0).into(), "window"),
            (Stream::named("s").window_bytes(0).into(), "window_bytes"),
            (Stream::named("s").group("g").position(MemoryPosition::new()).into(), "position"),
            (Stream::named("s").group("g").limit(1).into(), "limit"),
            (filters(1024), "filters"),
        ] {
            let error = Spec::check(&bad).expect_err("refused");
            assert_eq!((error.kind(), error.field()), (ErrorKind::Invalid, Some(field)));
        }
    }

    #[test]
    fn a_spec_of_the_contract_is_taken_as_it_is_and_its_credit_is_the_window() {
        use crate::proto::v1::Credit;
        let credit = Some(Credit { events: 5, bytes: 0 });
        let spec =
            Spec::from(SubscriptionSpec { filters: vec!["a".into()], max_batch: 3, credit, ..Default::default() });
        assert_eq!(spec.window, Window { events: 5, bytes: WINDOW_BYTES.into() });
        assert_eq!((spec.wire.max_batch, spec.wire.credit), (3, None));
        let usual = Spec::from(SubscriptionSpec::default()).window;
        assert_eq!(usual, Window { events: WINDOW_EVENTS.into(), bytes: WINDOW_BYTES.into() });
    }

    #[test]
    fn an_error_says_which_subscription_it_is_of() {
        let told = |spec: Spec| spec.to_string();
        assert_eq!(told(Stream::named("orders").group("billing").into()), "group billing of stream orders");
        assert_eq!(told(Stream::named("orders").into()), "stream orders");
        assert_eq!(told(Live::to(["a.>", "b"]).into()), "live a.> and 1 more");
    }
}
