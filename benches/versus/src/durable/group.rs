//! A group of four that shares what a stream holds, and acknowledges every event by itself.
//!
//! The stream holds all events before the group begins, so that nothing but the group is measured: how fast a server
//! hands out, hears of what is done and keeps that. Both servers let as many events go unacknowledged, to all members and
//! to each; each member has a connection of its own. The hub is told of all the events of a frame in one command, the
//! client of NATS tells of each by itself, for there is no other way to acknowledge them one by one. The hub answers when
//! it has stored that on the disk, and the time goes on until it has answered for all; JetStream is told without being
//! asked for an answer, which is the fastest, and the time goes on until it says that all are acknowledged.
//!
//! Every event must have been acknowledged, whoever got it; those that came more than once are counted.

use std::{
    cell::RefCell,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use futures_util::future::try_join_all;
use switchyard::bench::Record;
use tokio::time::{sleep, timeout};

use super::{EventStore, Figure, Folder, HubStore, JetStream, Length, Load, PATIENCE, Store, jetstream};
use crate::{
    child::Server,
    contender::{Contender, Ground, Meter},
};

/// The rows.
pub(crate) const ROWS: [&str; 2] = ["group_4_acks", "group_4_redelivered"];
/// The group.
pub(super) const NAME: &str = "workers";
/// So many events may be with all members together,
pub(super) const MOST_UNACKED: u32 = 4096;
/// and so many does one of them ask for at a time.
pub(super) const MOST_OF_MEMBER: u32 = 1024;
const MEMBERS: usize = 4;
const EVENTS: u64 = 500_000;
/// How often a server is asked whether it has heard of everything.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// A store whose events a group can share.
pub(super) trait Shared: EventStore {
    type Member: Member;

    /// Makes the group. It begins at the earliest event.
    async fn group(&self) -> anyhow::Result<()>;
    /// Connects a member, which gets nothing yet.
    async fn member(&self) -> anyhow::Result<Self::Member>;
    /// Whether everything up to this sequence is acknowledged and nothing is left, as the server says.
    async fn is_done(&self, sequence: u64) -> anyhow::Result<bool>;
}

/// One member of a group.
pub(super) trait Member {
    /// Takes events and acknowledges each, until the tally is full.
    async fn work(&mut self, tally: &RefCell<Tally>) -> anyhow::Result<()>;
}

/// What all members did together.
pub(super) struct Tally {
    /// How often each event came, by its place in the stream.
    came: Vec<u8>,
    /// Which of them are acknowledged.
    acknowledged: Vec<bool>,
    left: u64,
}

impl Tally {
    fn new(events: u64) -> Self {
        Self { came: vec![0; events as usize], acknowledged: vec![false; events as usize], left: events }
    }

    /// An event came. Tells its sequence, which must be `sequence` if that is known.
    pub(super) fn came(&mut self, payload: &[u8], sequence: Option<u64>) -> anyhow::Result<u64> {
        let record = Record::read(payload).context("an event is damaged")?;
        let place = record.sequence as usize;
        let told = u64::from(record.sequence) + 1;
        ensure!(sequence.is_none_or(|sequence| sequence == told), "event {place} came as {sequence:?}");
        let times = self.came.get_mut(place).with_context(|| format!("there is no event {place}"))?;
        *times = times.saturating_add(1);
        Ok(told)
    }

    /// An event is acknowledged.
    pub(super) fn acknowledged(&mut self, sequence: u64) -> anyhow::Result<()> {
        let place = sequence as usize - 1;
        ensure!(self.came.get(place).is_some_and(|times| *times > 0), "{sequence} never came");
        if !std::mem::replace(&mut self.acknowledged[place], true) {
            self.left -= 1;
        }
        Ok(())
    }

    pub(super) fn is_full(&self) -> bool {
        self.left == 0
    }

    /// How many events came again.
    fn again(&self) -> u64 {
        self.came.iter().map(|times| u64::from(*times).saturating_sub(1)).sum()
    }
}

/// Measures one store.
pub(crate) async fn measure(ground: &Ground, store: Store) -> anyhow::Result<Vec<Figure>> {
    let folder = Folder::make(&ground.data)?;
    match store {
        Store::Hub => {
            let path = folder.0.display().to_string();
            let server = ground.start_with(Contender::Hub, &["--data-dir", &path]).await?;
            run(&server, &HubStore::at(&server)).await
        }
        Store::JetStream | Store::JetStreamAlways => {
            let path = jetstream::configure(&folder.0, store == Store::JetStreamAlways)?.display().to_string();
            let server = ground.start_with(Contender::Nats, &["--config", &path]).await?;
            run(&server, &JetStream::at(&server)).await
        }
    }
}

async fn run<S: Shared>(server: &Server, store: &S) -> anyhow::Result<Vec<Figure>> {
    store.create().await.context("cannot create the stream")?;
    let mut load = Load::new(store.publisher().await?);
    timeout(PATIENCE, load.pipelined(Length::Events(EVENTS))).await.context("publishing took too long")??;
    drop(load);
    store.group().await.context("cannot create the group")?;
    let mut members = try_join_all((0..MEMBERS).map(|_| store.member())).await?;
    let tally = RefCell::new(Tally::new(EVENTS));

    let meter = Meter::start(server)?;
    let begin = Instant::now();
    let work = try_join_all(members.iter_mut().map(|member| member.work(&tally)));
    let done = async {
        while !tally.borrow().is_full() || !store.is_done(EVENTS).await? {
            sleep(LOOK_INTERVAL).await;
        }
        anyhow::Ok(())
    };
    let all = async {
        tokio::pin!(work);
        tokio::select! {
            result = &mut work => result.map(drop)?,
            result = done => return result,
        }
        anyhow::bail!("the members ended before everything was done")
    };
    timeout(PATIENCE, all)
        .await
        .with_context(|| format!("{} of {EVENTS} events are not acknowledged", tally.borrow().left))??;
    let rate = EVENTS as f64 / begin.elapsed().as_secs_f64();
    let cost = meter.read(server, EVENTS)?;
    let [acks, redelivered] = ROWS;
    let again = tally.borrow().again() as f64;
    Ok(vec![
        Figure { name: acks, unit: "events/s", value: rate, cost: Some(cost) },
        Figure { name: redelivered, unit: "events", value: again, cost: None },
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(sequence: u32) -> Vec<u8> {
        let mut payload = vec![0; 32];
        Record { publisher: 0, topic: 0, sequence, intended: 0 }.write(&mut payload);
        payload
    }

    #[test]
    fn a_tally_is_full_when_every_event_is_acknowledged_and_counts_those_that_came_again() {
        let mut tally = Tally::new(2);
        for (place, sequence) in [(1, Some(2)), (0, None), (1, Some(2))] {
            assert!(!tally.is_full());
            let sequence = tally.came(&payload(place), sequence).expect("it fits");
            tally.acknowledged(sequence).expect("it came");
        }
        assert!(tally.is_full());
        assert_eq!(tally.again(), 1);
    }

    #[test]
    fn what_cannot_be_is_an_error() {
        let mut tally = Tally::new(1);
        assert!(tally.came(&payload(0), Some(7)).is_err());
        assert!(tally.came(&payload(1), None).is_err());
        assert!(tally.came(b"damaged", None).is_err());
        assert!(tally.acknowledged(1).is_err());
    }
}
