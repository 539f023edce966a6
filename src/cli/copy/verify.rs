//! Whether the target has what the source has: block by block, from the events of both as they are now.

use anyhow::{Context, bail, ensure};
use xxhash_rust::xxh3::Xxh3Default;

use super::{end::End, map::Map, progress::Progress, reader::Reader};
use crate::client::Received;

/// Sequences of the target in one block.
pub(super) const BLOCK: i64 = 10_000;

/// What is compared.
pub(super) struct Pair<'a> {
    pub(super) source: &'a End,
    pub(super) target: &'a End,
    pub(super) epochs: (i64, i64),
    pub(super) map: &'a Map,
    /// Before this sequence limits have removed the events of the target.
    pub(super) front: i64,
}

/// How much was compared, and what was not there to be compared any more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Verified {
    pub(super) events: u64,
    /// Events of the target that the source no longer has.
    pub(super) gone_at_source: u64,
    /// Events of the source that limits have removed from the target.
    pub(super) gone_at_target: u64,
}

/// The events of one side of a block.
#[derive(Default)]
struct Sum {
    events: usize,
    hash: Xxh3Default,
}

impl Sum {
    fn add(&mut self, target: i64, event: &Received) {
        let bytes = event.encoded();
        self.events += 1;
        self.hash.update(&target.to_le_bytes());
        self.hash.update(&(bytes.len() as u64).to_le_bytes());
        self.hash.update(bytes);
    }

    fn digest(&self) -> (usize, u64) {
        (self.events, self.hash.digest())
    }
}

impl Pair<'_> {
    /// Compares what the target has behind `after` up to `last`. `done` hears of the end of every block that is equal.
    pub(super) async fn verify(
        &self,
        (after, last): (i64, i64),
        progress: &mut Progress,
        mut done: impl FnMut(i64) -> anyhow::Result<()>,
    ) -> anyhow::Result<Verified> {
        let mut all = Verified::default();
        if after >= last {
            return Ok(all);
        }
        // What lies between two events of the target was never copied, and must still not be there.
        let behind = self.map.to_source(after).unwrap_or(0);
        let mut source = Reader::open(self.source, behind, self.epochs.0).await?;
        let mut target = Reader::open(self.target, after, self.epochs.1).await?;
        let mut begin = after + 1;
        while begin <= last {
            let end = last.min((begin + BLOCK - 1) / BLOCK * BLOCK);
            let block = self.block(&mut source, &mut target, (begin, end)).await;
            let block = block.with_context(|| block_name(begin, end))?;
            all.events += block.events;
            all.gone_at_source += block.gone_at_source;
            all.gone_at_target += block.gone_at_target;
            progress.add(usize::try_from(block.events).unwrap_or(usize::MAX));
            done(end)?;
            begin = end + 1;
        }
        Ok(all)
    }

    async fn block(
        &self,
        source: &mut Reader<'_>,
        target: &mut Reader<'_>,
        (begin, end): (i64, i64),
    ) -> anyhow::Result<Verified> {
        let mut found = Verified::default();
        let (mut wanted, mut there) = (Vec::new(), Vec::new());
        let (mut at_source, mut at_target) = (Sum::default(), Sum::default());
        // Of what was there before the first event that is known, the source has nothing any more.
        let bound = self.map.to_source(end).unwrap_or(0);
        while let Some(event) = source.next_up_to(bound).await? {
            let sequence = event.sequence();
            let place = self.map.to_target(sequence).filter(|place| (begin..=end).contains(place));
            let place = place.with_context(|| format!("event {sequence} of the source was not copied"))?;
            if place < self.front {
                found.gone_at_target += 1;
                continue;
            }
            wanted.push(place);
            at_source.add(place, &event);
        }
        while let Some(event) = target.next_up_to(end).await? {
            if wanted.binary_search(&event.sequence()).is_err() {
                found.gone_at_source += 1;
                continue;
            }
            there.push(event.sequence());
            at_target.add(event.sequence(), &event);
        }
        found.events = at_source.events as u64;
        if let Some(missing) = wanted.iter().find(|place| there.binary_search(place).is_err()) {
            let sequence = self.map.to_source(*missing).unwrap_or_default();
            bail!("the target has no event {missing}, which is event {sequence} of the source");
        }
        let (of_source, of_target) = (at_source.digest(), at_target.digest());
        ensure!(
            of_source == of_target,
            "the events differ: the source has {} of hash {:016x}, the target {} of hash {:016x}",
            of_source.0,
            of_source.1,
            of_target.0,
            of_target.1
        );
        Ok(found)
    }
}

fn block_name(begin: i64, end: i64) -> String {
    format!("block {} (sequences {begin} to {end} of the target)", (end - 1) / BLOCK + 1)
}
