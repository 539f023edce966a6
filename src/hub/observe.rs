//! What operators want to know of streams and groups whenever they look: how large, how far behind, how old.

use super::{AsOf, Groups, Hub};
use crate::{
    engine::Health,
    event::Event,
    memory::Use,
    telemetry::{Gauges, GroupGauges, MemoryGauges, StreamGauges, StreamsGauges},
};

/// No more streams, and no more groups, are told of one by one: each is a time series for as long as somebody keeps them.
const MOST_TOLD: usize = 1000;

impl Hub {
    /// How sessions, streams and groups stand.
    pub async fn observe(&self) -> Gauges {
        let (subscriptions, counts) = self.count_subscriptions().await;
        Gauges {
            sessions: self.session_count(),
            subscriptions,
            credit_blocked: counts.credit_blocked,
            behind: counts.behind,
            queue_bytes: self.waiting_bytes(),
            memory: Use::ALL.map(|of| self.observe_memory(of)).into(),
            streams: self.observe_streams().await,
        }
    }

    fn observe_memory(&self, of: Use) -> MemoryGauges {
        let memory = self.memory();
        let (held_bytes, limit_bytes) = (memory.held_bytes(of), memory.limit_bytes(of));
        MemoryGauges { of: of.name(), held_bytes, limit_bytes, refused: memory.refusals(of) }
    }

    /// Streams that cannot be read just now, and their groups, are left out. Nothing here waits for what is being written.
    async fn observe_streams(&self) -> StreamsGauges {
        let Some(engine) = self.engine() else { return StreamsGauges::default() };
        let streams = engine.streams();
        let mut gauges = StreamsGauges {
            streams: streams.len(),
            store_bytes: engine.store_bytes(),
            store_writable: engine.health() == Health::Good,
            ..StreamsGauges::default()
        };
        let clock = engine.clock();
        (gauges.clock_offset_seconds, gauges.clock_ahead_seconds) = (clock.offset_seconds, clock.ahead_seconds);
        let by = Groups::patience();
        for stream in streams.iter().take(MOST_TOLD) {
            let Ok(state) = stream.state().await else { continue };
            gauges.each_stream.push(StreamGauges {
                stream: stream.name().to_string(),
                events: state.events,
                bytes: state.bytes,
                latest: state.latest,
            });
            let left = MOST_TOLD - gauges.each_group.len();
            let Some(groups) = self.groups().filter(|_| left > 0) else { continue };
            let (statuses, _) = groups.list(stream, "", left, AsOf::Now, by).await.unwrap_or_default();
            for status in statuses {
                let since = status.oldest.as_ref().and_then(Event::append_time);
                let age = since.map(|since| stream.age(since));
                gauges.each_group.push(GroupGauges {
                    stream: status.stream.to_string(),
                    group: status.group.as_str().to_owned(),
                    members: status.members,
                    lag: status.pending + status.unacked,
                    unacked: status.unacked,
                    blocked: status.blocked,
                    lost: status.lost,
                    oldest_seconds: age.unwrap_or_default().as_secs_f64(),
                });
            }
        }
        gauges
    }
}
