//! What is looked up whenever metrics are read, rather than counted as it happens: how many sessions there are, how long
//! streams are, how far groups are behind.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};

use super::set::metric_set;

/// How sessions, streams and groups stand.
#[derive(Debug, Clone, Default)]
pub struct Gauges {
    /// How many sessions are open.
    pub sessions: usize,
    /// How many subscriptions they have.
    pub subscriptions: usize,
    /// Of how many events wait for credit.
    pub credit_blocked: usize,
    /// How many read a stream and do not have all that it has.
    pub behind: usize,
    /// What waits in their queues, in bytes.
    pub queue_bytes: usize,
    /// What clients make the hub keep.
    pub memory: Vec<MemoryGauges>,
    /// Streams and groups.
    pub streams: StreamsGauges,
}

/// How one use of the memory that clients make the hub keep stands.
#[derive(Debug, Clone)]
pub struct MemoryGauges {
    /// Which use, as in the configuration.
    pub of: &'static str,
    /// How much is held, in bytes.
    pub held_bytes: usize,
    /// How much may be, in bytes.
    pub limit_bytes: usize,
    /// How often something did not fit since the start.
    pub refused: u64,
}

/// How streams and groups stand.
#[derive(Debug, Clone, Default)]
pub struct StreamsGauges {
    /// How many streams there are.
    pub streams: usize,
    /// How much room the store takes on the disk, in bytes.
    pub store_bytes: u64,
    /// Whether it can be written to.
    pub store_writable: bool,
    /// How far the wall clock is ahead of the time of streams, in seconds.
    pub clock_offset_seconds: f64,
    /// How far what is stamped on events of the most advanced stream is ahead of that time, in seconds.
    pub clock_ahead_seconds: f64,
    /// Each stream, up to a limit.
    pub each_stream: Vec<StreamGauges>,
    /// Each group, up to a limit.
    pub each_group: Vec<GroupGauges>,
}

/// How one stream stands.
#[derive(Debug, Clone)]
pub struct StreamGauges {
    /// Its name.
    pub stream: String,
    /// How many events it keeps.
    pub events: u64,
    /// How large they are, in bytes.
    pub bytes: u64,
    /// The sequence of the last one.
    pub latest: u64,
}

/// How one group stands.
#[derive(Debug, Clone)]
pub struct GroupGauges {
    /// Its stream.
    pub stream: String,
    /// Its name.
    pub group: String,
    /// How many members it has.
    pub members: usize,
    /// How many events are not done.
    pub lag: u64,
    /// How many of them are with members, or wait for a further attempt.
    pub unacked: u64,
    /// How many wait behind an earlier one of their key.
    pub blocked: u64,
    /// How many the stream removed before they were done, since the start.
    pub lost: u64,
    /// How long ago the oldest of them was appended, in seconds; 0 when there is none.
    pub oldest_seconds: f64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StreamLabel {
    stream: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GroupLabel {
    stream: String,
    group: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UseLabel {
    r#use: &'static str,
}

type Seconds = Gauge<f64, AtomicU64>;

metric_set! {
    /// The metrics that [`Gauges`] are shown as.
    pub(super) struct GaugeSet {
        open_sessions: Gauge = "open_sessions", "Sessions open now";
        open_subscriptions: Gauge = "open_subscriptions", "Subscriptions open now";
        credit_blocked: Gauge = "credit_blocked_subscriptions", "Subscriptions with waiting events and no credit";
        behind: Gauge = "behind_subscriptions", "Subscriptions that have not caught up with their stream";
        queue_bytes: Gauge = "queue_bytes", "Bytes that wait in queues, overhead included";
        streams: Gauge = "streams", "Number of streams";
        store_bytes: Gauge = "store_bytes", "Disk space of the store in bytes";
        store_writable: Gauge = "store_writable", "1 while streams can be written to";
        clock_offset: Seconds =
            "clock_offset_seconds", "How far the wall clock is ahead of the time of streams, in seconds";
        clock_ahead: Seconds =
            "clock_ahead_seconds", "How far the times in the most advanced stream are ahead, in seconds";
        memory_bytes: Family<UseLabel, Gauge> = "memory_bytes", "Memory that clients make the hub keep, by use";
        memory_limit: Family<UseLabel, Gauge> = "memory_limit_bytes", "Limit on that memory, by use";
        memory_refused: Family<UseLabel, Counter> =
            "memory_refused", "How often something did not fit and was refused or dropped, by use";
        stream_events: Family<StreamLabel, Gauge> = "stream_events", "Events that a stream keeps";
        stream_bytes: Family<StreamLabel, Gauge> = "stream_bytes", "Their encoded size in bytes";
        stream_last_sequence: Family<StreamLabel, Gauge> = "stream_last_sequence", "The last sequence of a stream";
        group_members: Family<GroupLabel, Gauge> = "group_members", "Members of a group";
        group_lag: Family<GroupLabel, Gauge> = "group_lag", "Events of its stream that a group is not done with";
        group_unacked: Family<GroupLabel, Gauge> =
            "group_unacked", "Of these, those that are with members or wait for a retry";
        group_blocked: Family<GroupLabel, Gauge> =
            "group_blocked", "Events that wait behind an earlier one of their key";
        group_lost: Family<GroupLabel, Counter> =
            "group_lost", "Events that the stream removed before the group was done with them";
        group_oldest: Family<GroupLabel, Seconds> =
            "group_oldest_unacked_seconds", "Age of the oldest event that a group is not done with, in seconds";
    }
}

impl GaugeSet {
    /// Takes over what was found. What is gone is not shown any more.
    pub(super) fn set(&self, found: &Gauges) {
        let count = |gauge: &Gauge, value: usize| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        let number = |gauge: &Gauge, value: u64| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        let streams = &found.streams;
        count(&self.open_sessions, found.sessions);
        count(&self.open_subscriptions, found.subscriptions);
        count(&self.credit_blocked, found.credit_blocked);
        count(&self.behind, found.behind);
        count(&self.queue_bytes, found.queue_bytes);
        for one in &found.memory {
            let label = UseLabel { r#use: one.of };
            count(&self.memory_bytes.get_or_create(&label), one.held_bytes);
            count(&self.memory_limit.get_or_create(&label), one.limit_bytes);
            self.memory_refused.get_or_create(&label).inner().store(one.refused, Relaxed);
        }
        count(&self.streams, streams.streams);
        number(&self.store_bytes, streams.store_bytes);
        count(&self.store_writable, usize::from(streams.store_writable));
        self.clock_offset.set(streams.clock_offset_seconds);
        self.clock_ahead.set(streams.clock_ahead_seconds);

        let of_streams = [&self.stream_events, &self.stream_bytes, &self.stream_last_sequence];
        for family in of_streams {
            family.clear();
        }
        for one in &streams.each_stream {
            let label = StreamLabel { stream: one.stream.clone() };
            for (family, value) in of_streams.iter().zip([one.events, one.bytes, one.latest]) {
                number(&family.get_or_create(&label), value);
            }
        }
        let of_groups = [&self.group_members, &self.group_lag, &self.group_unacked, &self.group_blocked];
        for family in of_groups {
            family.clear();
        }
        self.group_oldest.clear();
        self.group_lost.clear();
        for one in &streams.each_group {
            let label = GroupLabel { stream: one.stream.clone(), group: one.group.clone() };
            for (family, value) in of_groups.iter().zip([one.members as u64, one.lag, one.unacked, one.blocked]) {
                number(&family.get_or_create(&label), value);
            }
            self.group_lost.get_or_create(&label).inner().store(one.lost, Relaxed);
            self.group_oldest.get_or_create(&label).set(one.oldest_seconds);
        }
    }
}
