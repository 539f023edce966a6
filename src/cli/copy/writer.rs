//! Publishes the events of the source to the target, unit by unit, each only if the one before it is the last that the
//! target has.
//!
//! One unit is unanswered at a time, while the next is read. With more of them, a unit could find the right last sequence
//! behind a unit of somebody else that was stored in place of the one before.

use anyhow::{Context, bail, ensure};

use super::{
    definition,
    end::End,
    map::Map,
    progress::Progress,
    reader::{PATIENCE, Reader},
    state_file::StateFile,
    verify::Pair,
};
use crate::{
    client::{Event, Published, PublishingAll, Received},
    proto::v1::Stream,
};

/// Events of a unit, at most: as many as any engine stores in one step,
const UNIT_EVENTS: usize = 1000;
/// and their bytes; one event may be larger.
const UNIT_BYTES: usize = 1024 * 1024;
/// What an event may take besides itself, in bytes.
const OVERHEAD_BYTES: usize = 64;
/// What every dead letter has, and nothing that a client may publish.
const OF_A_LETTER: &str = "deadletterstream";

/// What writes the target.
pub(super) struct Writer<'a> {
    pub(super) source: &'a End,
    pub(super) target: &'a mut End,
    pub(super) epochs: (i64, i64),
    pub(super) map: &'a mut Map,
    pub(super) state: &'a mut StateFile,
    /// The last sequence of the target, once all that was sent is stored.
    pub(super) last: i64,
    filters: Vec<String>,
    unit_bytes: usize,
    /// An event that was read, and did not fit into its unit.
    next: Option<Received>,
}

/// A unit that is not answered.
struct Sent {
    publishing: PublishingAll,
    /// The last sequence of the target before it,
    before: i64,
    /// and with it.
    last: i64,
    /// How many sessions there were when it was sent.
    sessions: u64,
}

impl<'a> Writer<'a> {
    /// Goes on behind `last`, with the definition of the source.
    pub(super) fn new(
        (source, target): (&'a End, &'a mut End),
        epochs: (i64, i64),
        (map, state): (&'a mut Map, &'a mut StateFile),
        last: i64,
        definition: &Stream,
    ) -> Self {
        // A stream refuses a unit that is larger than all that it keeps.
        let most = usize::try_from(definition.max_bytes / 2).ok().filter(|most| *most > 0);
        let unit_bytes = most.unwrap_or(UNIT_BYTES).min(UNIT_BYTES);
        let filters = definition.filters.clone();
        Self { source, target, epochs, map, state, last, filters, unit_bytes, next: None }
    }

    /// Copies everything up to a sequence of the source.
    pub(super) async fn copy(&mut self, bound: i64, progress: &mut Progress) -> anyhow::Result<()> {
        let behind = self.map.to_source(self.last).unwrap_or(0);
        let mut reader = Reader::open(self.source, behind, self.epochs.0).await?;
        let mut unanswered: Option<Sent> = None;
        loop {
            let unit = self.read(&mut reader, bound).await?;
            if let Some(sent) = unanswered.take() {
                let events = usize::try_from(sent.last - sent.before).unwrap_or_default();
                self.answered(sent).await?;
                progress.add(events);
            }
            if unit.is_empty() {
                return Ok(());
            }
            unanswered = Some(self.send(&unit).await?);
        }
    }

    async fn read(&mut self, reader: &mut Reader<'_>, bound: i64) -> anyhow::Result<Vec<Received>> {
        let (mut unit, mut bytes) = (Vec::new(), 0);
        while unit.len() < UNIT_EVENTS {
            let next = match self.next.take() {
                None => reader.next_up_to(bound).await?,
                next => next,
            };
            let Some(event) = next else { break };
            bytes += event.encoded().len() + OVERHEAD_BYTES;
            if bytes > self.unit_bytes && !unit.is_empty() {
                self.next = Some(event);
                break;
            }
            unit.push(event);
        }
        Ok(unit)
    }

    async fn send(&mut self, unit: &[Received]) -> anyhow::Result<Sent> {
        let (before, mut runs) = (self.last, Vec::new());
        for event in unit {
            self.check(event)?;
            self.last += 1;
            runs.extend(self.map.pair(event.sequence(), self.last));
        }
        self.state.plan(&runs)?;
        let sessions = self.target.hub.sessions();
        let events = unit.iter().map(|event| Event::from(event.as_ref()));
        let publish = self.target.hub.client.publish_all(events).if_last_sequence(before).deadline(PATIENCE);
        let publishing = publish.queued().await.map_err(|error| self.target.explain(&error))?;
        Ok(Sent { publishing, before, last: self.last, sessions })
    }

    /// Refuses what only a hub can store there: it would be stored elsewhere, or not at all.
    fn check(&self, event: &Received) -> anyhow::Result<()> {
        let (sequence, topic) = (event.sequence(), event.topic());
        ensure!(
            event.attribute(OF_A_LETTER).is_none(),
            "event {sequence} of the source is a dead letter, which only a hub can store: redrive it or purge it first"
        );
        ensure!(
            definition::takes(&self.filters, topic),
            "event {sequence} of the source has the topic {topic}, which no filter of the stream matches any more: \
             add one to the stream, or purge these events"
        );
        Ok(())
    }

    async fn answered(&mut self, sent: Sent) -> anyhow::Result<()> {
        let Sent { publishing, before, last, sessions } = sent;
        let receipt = publishing.await;
        match receipt.all() {
            Err(error) if error.reason() == "SEQUENCE_MISMATCH" => {
                return self.doubtful((before, last), sessions).await;
            }
            answer => answer.map_err(|error| self.target.explain(&error))?,
        }
        for (expected, published) in (before + 1..).zip(receipt) {
            match published {
                Ok(Published::Stored { stream, sequence, epoch, duplicate: false, .. })
                    if stream == self.target.name && sequence == expected && epoch == self.epochs.1 => {}
                other => bail!("{} did not store event {expected} as it should: {other:?}", self.target.place()),
            }
        }
        Ok(())
    }

    /// The target was not where it should be. If a session was lost, the unit may have been sent twice, and stored once.
    async fn doubtful(&mut self, (before, last): (i64, i64), sessions: u64) -> anyhow::Result<()> {
        let latest = self.target.state(self.epochs.1).await?.latest_sequence;
        let place = self.target.place();
        let foreign =
            || format!("another program publishes to {place}: its last sequence is {latest}, and not {before}");
        ensure!(latest == last && self.target.hub.sessions() != sessions, foreign());
        let pair = Pair { source: self.source, target: &*self.target, epochs: self.epochs, map: &*self.map, front: 0 };
        let mut progress = Progress::new("verified", 0);
        pair.verify((before, last), &mut progress, |_| Ok(())).await.map(drop).with_context(foreign)
    }
}
