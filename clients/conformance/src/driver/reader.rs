//! One subscription: takes what the judge wants, keeps it, and says of it what the judge says.

use std::{collections::BTreeMap, time::Duration};

use switchyard_client::{
    Batch, Client, Delivery, Error, FilePosition, GapReason, Item, Live, OnGap, ReceivedRef, Spec, Start, Stream,
    Subscription,
};
use switchyard_conformance::protocol::{self, Command, Event, Report, Subscribe, Take, Then};
use tokio::{sync::mpsc, task::JoinSet, time::sleep};

use crate::{mutant::Mutant, out::Out, saying::failure};

/// After as many events the one that is stuck stops.
const STUCK_AFTER: u64 = 10;

struct Reader {
    name: String,
    is_member: bool,
    subscription: Subscription,
    /// What the judge wants; how many events more.
    take: Option<(Take, u64)>,
    taken: u64,
    /// Batches that are not done, each with its last sequence,
    batches: Vec<(Batch, i64)>,
    /// and events of a group that are not settled.
    held: BTreeMap<i64, Delivery>,
    /// What takes its time.
    work: JoinSet<()>,
    is_over: bool,
    out: Out,
    mutant: Option<Mutant>,
}

pub(crate) async fn serve(
    client: Client,
    order: Subscribe,
    mut orders: mpsc::Receiver<Command>,
    out: Out,
    mutant: Option<Mutant>,
) {
    let name = order.sub.clone();
    let ended = |error: &Error| out.say(&Report::Ended { sub: name.clone(), error: Some(failure(error)) });
    let mut subscription = match client.subscribe_soon(spec(&order, mutant)).await {
        Ok(subscription) => subscription,
        Err(error) => return ended(&error),
    };
    // Handles of it are none of this task, which must not keep it from ending.
    drop(client);
    if let Err(error) = subscription.ready().await {
        return ended(&error);
    }
    out.say(&Report::Subscribed { sub: name.clone() });
    let mut reader = Reader {
        name,
        is_member: !order.group.is_empty(),
        subscription,
        take: None,
        taken: 0,
        batches: Vec::new(),
        held: BTreeMap::new(),
        work: JoinSet::new(),
        is_over: false,
        out,
        mutant,
    };
    loop {
        let wants = reader.wants();
        tokio::select! {
            order = orders.recv() => match order {
                None | Some(Command::Unsubscribe { .. }) => return,
                Some(order) => reader.obey(order).await,
            },
            item = reader.subscription.next(), if wants => reader.came(item).await,
            Some(_) = reader.work.join_next(), if !reader.work.is_empty() => {}
        }
    }
}

fn spec(order: &Subscribe, mutant: Option<Mutant>) -> Spec {
    let factor = if mutant == Some(Mutant::BigWindow) { 2 } else { 1 };
    let window = if order.window == 0 { 256 } else { order.window } * factor;
    if order.stream.is_empty() {
        return Live::to(order.filters.iter().cloned()).window(window).into();
    }
    let mut stream = Stream::named(order.stream.as_str()).window(window);
    for filter in &order.filters {
        stream = stream.filter(filter.as_str());
    }
    if order.from == protocol::From::Earliest {
        stream = stream.from(Start::Earliest);
    }
    if !order.group.is_empty() {
        stream = stream.group(order.group.as_str());
    }
    stream = match order.on_gap {
        protocol::OnGap::Fail => stream,
        protocol::OnGap::Earliest => stream.on_gap(OnGap::Earliest),
        protocol::OnGap::Latest => stream.on_gap(OnGap::Latest),
    };
    if !order.position.is_empty() {
        stream = stream.position(FilePosition::new(order.position.as_str()));
    }
    stream.into()
}

impl Reader {
    fn wants(&self) -> bool {
        let is_stuck = self.mutant == Some(Mutant::Stuck) && self.taken >= STUCK_AFTER;
        !self.is_over && !is_stuck && self.take.as_ref().is_some_and(|(_, left)| *left > 0)
    }

    async fn obey(&mut self, order: Command) {
        match order {
            Command::Take(take) => {
                let left = take.count.unwrap_or(u64::MAX);
                self.take = Some((take, left));
            }
            Command::Done { .. } => {
                for (batch, last) in std::mem::take(&mut self.batches) {
                    self.done(batch, last).await;
                }
            }
            Command::Ack { sequences, .. } => {
                for (sequence, event) in self.take_out(&sequences) {
                    self.ack(sequence, event, 0, 0);
                }
            }
            Command::Nack { sequences, delay_ms, .. } => {
                for (_, event) in self.take_out(&sequences) {
                    event.nack_after(Duration::from_millis(delay_ms), "the judge said so");
                }
            }
            Command::Reject { sequences, .. } => {
                for (_, event) in self.take_out(&sequences) {
                    event.reject("the judge said so");
                }
            }
            Command::Extend { sequences, .. } => {
                let wanted = |sequence: &i64| sequences.is_empty() || sequences.contains(sequence);
                self.held.iter().filter(|(sequence, _)| wanted(sequence)).for_each(|(_, event)| event.extend());
            }
            _ => {}
        }
    }

    /// The events in hand with these sequences; all, where there are none.
    fn take_out(&mut self, sequences: &[i64]) -> Vec<(i64, Delivery)> {
        if sequences.is_empty() {
            return std::mem::take(&mut self.held).into_iter().collect();
        }
        sequences.iter().filter_map(|sequence| self.held.remove_entry(sequence)).collect()
    }

    async fn came(&mut self, item: Option<Result<Item, Error>>) {
        let sub = self.name.clone();
        match item {
            Some(Ok(Item::Events(batch))) => self.events(batch).await,
            Some(Ok(Item::Gap(gap))) => {
                let reason = match gap.reason {
                    GapReason::Overflow => "overflow",
                    GapReason::Conflated => "conflated",
                    GapReason::Retention => "retention",
                    GapReason::Epoch => "epoch",
                    GapReason::Away => "away",
                    _ => "other",
                };
                if self.mutant != Some(Mutant::HideGap) {
                    let (reason, count) = (reason.to_owned(), gap.count);
                    self.out.say(&Report::Gap(protocol::Gap { sub, reason, count, from: gap.from, to: gap.to }));
                }
            }
            Some(Ok(Item::CaughtUp)) => self.out.say(&Report::CaughtUp { sub }),
            Some(Err(error)) => self.end(Some(&error)),
            None => self.end(None),
        }
    }

    fn end(&mut self, error: Option<&Error>) {
        // What comes behind an error is the end without one, which is the same end.
        self.is_over = true;
        let report = Report::Ended { sub: self.name.clone(), error: error.map(failure) };
        self.out.say(&report);
        if self.mutant == Some(Mutant::EndedTwice) {
            self.out.say(&report);
        }
    }

    async fn events(&mut self, mut batch: Batch) {
        self.report(&batch);
        let count = batch.len() as u64;
        self.taken += count;
        let Some((take, left)) = &mut self.take else { return };
        *left = left.saturating_sub(count);
        let take = take.clone();
        let last = batch.iter().last().map_or(0, switchyard_client::ReceivedRef::sequence);
        if self.is_member {
            let acks = take.then == Then::Ack || self.mutant == Some(Mutant::EarlyAck);
            for event in batch.take_events() {
                let sequence = event.sequence();
                if acks {
                    self.ack(sequence, event, take.work_ms, take.extend_ms);
                } else {
                    self.held.insert(sequence, event);
                }
            }
        } else if take.then == Then::Done || self.mutant == Some(Mutant::EarlyDone) {
            sleep(Duration::from_millis(take.work_ms)).await;
            self.done(batch, last).await;
        } else {
            self.batches.push((batch, last));
        }
    }

    /// Says which events came, or something else.
    fn report(&self, batch: &Batch) {
        let report = |event: ReceivedRef<'_>| {
            Report::Event(Event {
                sub: self.name.clone(),
                sequence: event.sequence(),
                topic: event.topic().to_owned(),
                text: event.text().unwrap_or_default().to_owned(),
                attempt: event.attempt(),
            })
        };
        let mut reports: Vec<Report> = batch.iter().map(report).collect();
        match self.mutant {
            Some(Mutant::Swap) => reports.reverse(),
            // One in the middle of the first that came.
            Some(Mutant::Drop) if self.taken < 5 && reports.len() > 1 => {
                reports.remove(reports.len() / 2);
            }
            Some(Mutant::Twice) => reports.extend(reports.last().cloned()),
            _ => {}
        }
        for report in &reports {
            self.out.say(report);
        }
    }

    async fn done(&self, batch: Batch, last: i64) {
        match batch.done().await {
            Ok(()) => self.out.say(&Report::Done { sub: self.name.clone(), sequence: last }),
            Err(error) => self.out.say(&Report::Failed { text: format!("done: {error}") }),
        }
    }

    /// Acknowledges an event when the work is done, and says when the hub has stored that.
    fn ack(&mut self, sequence: i64, event: Delivery, work_ms: u64, extend_ms: u64) {
        let (out, sub) = (self.out.clone(), self.name.clone());
        self.work.spawn(async move {
            let mut left = work_ms;
            while left > 0 {
                let step = if extend_ms == 0 { left } else { extend_ms.min(left) };
                sleep(Duration::from_millis(step)).await;
                left -= step;
                if left > 0 {
                    event.extend();
                }
            }
            let error = event.acked().await.err();
            out.say(&Report::Settled { sub, sequence, error: error.as_ref().map(failure) });
        });
    }
}
