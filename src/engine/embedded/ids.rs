//! The ids that streams know repetitions by, bounded together; and how many were forgotten too early.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::core::Core;
use crate::{
    memory::{Memory, Use},
    telemetry::Metrics,
};

/// Who holds too many ids gives up this part of them at least, so that it is not asked for each.
const IDS_PART: usize = 16;

/// The log is told of ids that are forgotten too early no more often.
const TELL_INTERVAL: Duration = Duration::from_secs(60);

/// When streams know more ids than fit, those that know most forget their oldest, so that whoever has few is not harmed.
pub(super) fn bound_ids(cores: &mut BTreeMap<u64, Core>, memory: &Memory) {
    let mut forgotten = 0;
    loop {
        let over = memory.held_bytes(Use::Ids).saturating_sub(memory.limit_bytes(Use::Ids));
        if over == 0 {
            break;
        }
        let most = cores.values_mut().max_by_key(|core| core.repeats.len());
        let Some(core) = most.filter(|core| core.repeats.len() > 0) else { break };
        let known = core.repeats.len();
        let too_many = over.div_ceil(core.ids_bytes() / known);
        forgotten += core.repeats.forget_oldest(too_many.max(known / IDS_PART)) as u64;
        core.weigh();
    }
    if forgotten > 0 {
        memory.gave_up(Use::Ids, forgotten);
    }
}

/// Ids that were forgotten before their time, as long as the log was not told.
#[derive(Debug, Default)]
pub(super) struct Forgotten {
    early: u64,
    told_at: Option<Instant>,
}

impl Forgotten {
    /// How many there are, if it is time to tell.
    fn take_due(&mut self, now: Instant) -> Option<u64> {
        if self.told_at.is_some_and(|told| now < told + TELL_INTERVAL) {
            return None;
        }
        self.told_at = Some(now);
        Some(std::mem::take(&mut self.early))
    }

    /// Counts the ids that streams had too many of, which may know so many each, and says so once a minute at most.
    pub(super) fn count(
        &mut self,
        cores: &mut BTreeMap<u64, Core>,
        limit: usize,
        memory: &Memory,
        metrics: &Metrics,
        now: Instant,
    ) {
        let mut of = None;
        for core in cores.values_mut() {
            let early = core.repeats.take_early();
            if early > 0 {
                metrics.dedupe_ids_forgotten(early);
                self.early += early;
                of = Some(core.shared.name.clone());
            }
        }
        if let Some((stream, early)) = of.zip(self.take_due(now)) {
            let memory = memory.limit_bytes(Use::Ids);
            tracing::warn!(%stream, early, limit, memory, "duplicates may be stored: ids are forgotten before the dedupe window ends");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_are_forgotten_early_are_told_once_a_minute_and_all_of_them() {
        let (mut forgotten, start) = (Forgotten::default(), Instant::now());
        let told = [0, 30, 59, 60, 119].map(|second| {
            forgotten.early += 5;
            forgotten.take_due(start + Duration::from_secs(second))
        });
        assert_eq!(told, [Some(5), None, None, Some(15), None]);
    }
}
