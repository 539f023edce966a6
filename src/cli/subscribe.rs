//! `switchyard sub`.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use anyhow::{Context, bail};

use super::{
    lasting::{Hub, Lasting},
    news, show,
    stop::Stop,
    value,
    worker::Worker,
};
use crate::client::{Batch, Delivery, FilePosition, Gap, GapReason, Item, Spec, Subscription};
use crate::proto::v1::{AckMode, Credit, GapPolicy, OverflowPolicy, SubscriptionSpec, start_position::Position};

/// Events that are on their way here, or wait to be printed, at most;
const WINDOW_EVENTS: i64 = 8_192;
/// events of a group, which are leased to this member;
const MEMBER_WINDOW_EVENTS: i64 = 1_000;
/// and their bytes.
const WINDOW_BYTES: i64 = 8 * 1024 * 1024;
/// No event is larger, in bytes: a command that runs counts as much.
const MAX_EVENT_BYTES: i64 = 4 * 1024 * 1024;

/// Subscribe and print events.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Without --stream a subscription is live: it gets what is published while it is open. A member of a group on a stream
acknowledges what it prints.

On a terminal an event is one line, and control characters are shown as \\u001b and the like.

If the session with the hub is lost, the program reconnects and continues: behind what it printed, or as a member of
its group. What is published meanwhile is lost to a live subscription; a gap says so, with --json also as an object on
standard output. With --no-reconnect the program ends instead.

With --exec nothing is printed: each event goes to a command, with its payload on standard input and
SWITCHYARD_TOPIC, SWITCHYARD_SEQUENCE, SWITCHYARD_ATTEMPT and others in the environment. Exit status 0 acknowledges
the event; any other causes a retry. Ctrl-C lets running commands finish. Commands get the address of the hub and
--token-file in the environment, but never a --token.

Examples:
  switchyard sub 'orders.>'
  switchyard sub 'stocks.*' 'rates.eur' --json
  switchyard sub jobs --group workers --max-events 10
  switchyard sub --stream orders --from earliest
  switchyard sub 'orders.eu.*' --stream orders --from 2026-01-31T12:00:00Z --json
  switchyard sub --stream orders --from last-per-topic --resume-file orders.token
  switchyard sub --stream orders --group billing --from earliest
  switchyard sub --stream orders --group billing --exec './bill.sh' --jobs 4
  switchyard sub 'orders.>' --server http://hub-0:50051,http://hub-1:50051
  switchyard sub 'orders.>' --no-reconnect --heartbeat 5s")]
pub struct Subscribe {
    /// Patterns over topics: * is one token, a final > one or more; an event that several match is delivered once
    #[arg(required_unless_present = "stream", value_name = "FILTER")]
    filters: Vec<String>,
    /// Read from this stream; without filters, all of it
    #[arg(long, value_name = "NAME")]
    stream: Option<String>,
    /// Where to start: new, earliest, last-per-topic, a sequence, an RFC 3339 time, or token:... [default: new]
    #[arg(long, value_name = "PLACE", requires = "stream", value_parser = value::start)]
    from: Option<Position>,
    /// Store a resume token in this file after each batch, and start from it if the file exists
    #[arg(long, value_name = "FILE", requires = "stream", conflicts_with = "group")]
    resume_file: Option<PathBuf>,
    /// What to do when the events at this position are gone [default: fail; of a group: earliest]
    #[arg(long, value_enum, requires = "stream")]
    on_gap: Option<OnGap>,
    /// Share the events with the other members of this group
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// How a member of a group on a stream acknowledges [default: explicit]
    #[arg(long, value_enum, requires_all = ["group", "stream"], conflicts_with = "exec")]
    ack_mode: Option<Acks>,
    /// Give each event to this shell command
    #[arg(long, value_name = "COMMAND", requires_all = ["group", "stream"], conflicts_with = "json")]
    exec: Option<String>,
    /// Limit on commands that run at once
    #[arg(long, value_name = "COUNT", requires = "exec", default_value_t = 1,
        value_parser = clap::value_parser!(u16).range(1..=1000))]
    jobs: u16,
    /// End after this many events
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 0, hide_default_value = true,
        value_parser = clap::value_parser!(i64).range(0..))]
    max_events: i64,
    /// What to do when this program cannot keep up
    #[arg(long, value_enum, default_value_t = Overflow::DropOldest, conflicts_with = "stream")]
    overflow: Overflow,
    /// Print one JSON object per event
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    lasting: Lasting,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Overflow {
    /// Drop the oldest waiting events, and report how many
    DropOldest,
    /// Keep only the latest of each topic
    Conflate,
    /// End the subscription
    End,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum OnGap {
    /// Fail, and say what the stream has
    Fail,
    /// Continue with the earliest event there is
    Earliest,
    /// Continue with what is published from now on
    Latest,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Acks {
    /// An event is done as soon as it is sent
    None,
    /// Every event once it is printed
    Explicit,
    /// Everything printed so far at once
    Cumulative,
}

impl Subscribe {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let mut stop = Stop::listen()?;
        let hub = self.lasting.connect("sub")?;
        let mut spec = Spec::from(self.spec());
        if let Some(path) = &self.resume_file {
            spec = spec.position(FilePosition::new(path));
        }
        let subscription = hub.client.subscribe_soon(spec).await.map_err(|error| hub.explain(&error))?;
        if let Some(command) = self.exec {
            let worker = Worker::new(command, self.lasting.target, self.max_events);
            return worker.run(&hub, subscription, &mut stop).await;
        }
        let acks = self.acks();
        let counts = acks.is_some() && self.max_events > 0;
        let mut printer = Printer {
            json: self.json,
            events: 0,
            left: if counts { usize::try_from(self.max_events)? } else { usize::MAX },
            acknowledges: acks.is_some(),
            is_member: self.group.is_some(),
            ends_when_slow: matches!(self.overflow, Overflow::End),
            caught_up: false,
        };
        printer.run(&hub, subscription, &mut stop).await?;
        eprintln!("{} events", printer.events);
        Ok(())
    }

    /// What this program has to say about each event, if anything.
    fn acks(&self) -> Option<Acks> {
        let of_a_group = self.stream.is_some() && self.group.is_some();
        Some(self.ack_mode.unwrap_or(Acks::Explicit)).filter(|acks| of_a_group && *acks != Acks::None)
    }

    /// What may be on its way here. A member takes no more than it is to print: what it leaves behind others get late.
    fn window(&self) -> Credit {
        let most = if self.max_events > 0 { self.max_events } else { i64::MAX };
        if self.exec.is_some() {
            // As many as commands may run, so that no event waits here while its lease runs out.
            let events = most.min(self.jobs.into());
            return Credit { events, bytes: events * MAX_EVENT_BYTES };
        }
        let events = if self.acks().is_some() { most.min(MEMBER_WINDOW_EVENTS) } else { WINDOW_EVENTS };
        Credit { events, bytes: WINDOW_BYTES }
    }

    fn spec(&self) -> SubscriptionSpec {
        let acks = self.acks();
        SubscriptionSpec {
            filters: self.filters.clone(),
            stream: self.stream.clone().unwrap_or_default(),
            start: self.from.clone().map(value::position),
            group: self.group.clone().unwrap_or_default(),
            ack_mode: match acks {
                None | Some(Acks::None) => AckMode::None,
                Some(Acks::Explicit) => AckMode::Explicit,
                Some(Acks::Cumulative) => AckMode::Cumulative,
            }
            .into(),
            credit: Some(self.window()),
            overflow: match self.overflow {
                Overflow::DropOldest => OverflowPolicy::DropOldest,
                Overflow::Conflate => OverflowPolicy::Conflate,
                Overflow::End => OverflowPolicy::End,
            }
            .into(),
            on_gap: match self.on_gap {
                None => GapPolicy::Unspecified,
                Some(OnGap::Fail) => GapPolicy::Fail,
                Some(OnGap::Earliest) => GapPolicy::Earliest,
                Some(OnGap::Latest) => GapPolicy::Latest,
            }
            .into(),
            // A hub that ended the subscription after its last event would give the lease on it to another member.
            max_events: if acks.is_some() { 0 } else { self.max_events },
            ..Default::default()
        }
    }
}

/// Prints what comes.
// Each is true or not by itself: none follows from the others.
#[allow(clippy::struct_excessive_bools)]
struct Printer {
    json: bool,
    events: u64,
    /// How many more to print.
    left: usize,
    /// It says of each event that it is done, once it is printed.
    acknowledges: bool,
    /// It says goodbye, so that others get at once what it was sent and did not print.
    is_member: bool,
    /// Its subscription is to end if this program does not keep up.
    ends_when_slow: bool,
    caught_up: bool,
}

impl Printer {
    async fn run(&mut self, hub: &Hub, mut subscription: Subscription, stop: &mut Stop) -> anyhow::Result<()> {
        tokio::select! {
            () = stop.requested() => return self.leave(hub).await,
            ready = subscription.ready() => ready.map_err(|error| hub.explain(&error))?,
        }
        eprintln!("{}", news::opened(&subscription.opened().unwrap_or_default()));
        let mut sessions = hub.sessions();
        let last = loop {
            let item = tokio::select! {
                () = stop.requested() => break Vec::new(),
                item = subscription.next() => item,
            };
            match item {
                // All that it wanted.
                None => return Ok(()),
                Some(Err(error)) => return Err(hub.explain(&error)),
                Some(Ok(Item::Events(batch))) => {
                    if subscription.lag() > 0 {
                        self.caught_up = false;
                    }
                    if let Some(last) = self.batch(hub, batch).await? {
                        break last;
                    }
                }
                Some(Ok(Item::Gap(gap))) => {
                    let is_same = std::mem::replace(&mut sessions, hub.sessions()) == sessions;
                    if self.ends_when_slow && is_same && gap.reason == GapReason::Away {
                        bail!("SLOW_CONSUMER: this program did not keep up, and the subscription has ended");
                    }
                    if !self.gap(&gap)? {
                        break Vec::new();
                    }
                }
                Some(Ok(Item::CaughtUp)) if !self.caught_up => {
                    self.caught_up = true;
                    eprintln!("caught up");
                }
                Some(Ok(Item::CaughtUp)) => {}
            }
        };
        // From here on it takes no more, also when there is room again.
        drop(subscription);
        last.into_iter().for_each(Delivery::ack);
        self.leave(hub).await
    }

    async fn leave(&self, hub: &Hub) -> anyhow::Result<()> {
        if self.is_member { hub.leave().await } else { Ok(()) }
    }

    /// Prints events, which are done then. The last ones, still to be acknowledged, when nothing more is to be printed.
    async fn batch(&mut self, hub: &Hub, mut batch: Batch) -> anyhow::Result<Option<Vec<Delivery>>> {
        let mut events = batch.take_events();
        // What is too much goes back as this member leaves.
        events.truncate(self.left);
        if !self.print(&events)? {
            return Ok(Some(Vec::new()));
        }
        self.left -= events.len();
        batch.done().await.map_err(|error| hub.explain(&error))?;
        if self.left == 0 {
            return Ok(Some(events));
        }
        if self.acknowledges {
            events.into_iter().for_each(Delivery::ack);
        }
        Ok(None)
    }

    /// False when the reader of a pipe has had enough.
    fn print(&mut self, events: &[Delivery]) -> anyhow::Result<bool> {
        for event in events {
            let received = event.to_wire();
            let Some(event) = &received.event else { continue };
            self.events += 1;
            let line = if self.json { show::event_json(&received).to_string() } else { show::event_line(event) };
            if !print_line(&line)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The same of events that do not come.
    fn gap(&self, gap: &Gap) -> anyhow::Result<bool> {
        eprintln!("{}", news::gap(gap));
        if self.json { print_line(&news::gap_json(gap).to_string()) } else { Ok(true) }
    }
}

fn print_line(line: &str) -> anyhow::Result<bool> {
    let line = if show::to_terminal() { show::one_line(line) } else { line.into() };
    let mut out = io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        written => written.map(|()| true).context("cannot write"),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::proto::v1::StartPreset;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        subscribe: Subscribe,
    }

    fn parsed(arguments: &str) -> Result<Subscribe, clap::Error> {
        let words = ["sub"].into_iter().chain(arguments.split_whitespace());
        Line::try_parse_from(words).map(|line| line.subscribe)
    }

    fn spec(arguments: &str) -> SubscriptionSpec {
        parsed(arguments).unwrap().spec()
    }

    #[test]
    fn a_live_subscription_says_nothing_of_streams() {
        let spec = spec("a.> b --group g --max-events 3");
        assert_eq!(spec.filters, ["a.>", "b"]);
        assert_eq!((spec.stream.as_str(), spec.group.as_str(), spec.max_events), ("", "g", 3));
        assert_eq!(spec.ack_mode(), AckMode::None);
        assert_eq!(spec.start, None);
    }

    #[test]
    fn one_that_reads_a_stream_begins_where_it_is_asked_to() {
        let first = Position::Preset(StartPreset::Earliest.into());
        assert_eq!(spec("--stream s --from earliest").start, Some(value::position(first)));
    }

    #[test]
    fn a_member_acknowledges_unless_told_otherwise() {
        assert_eq!(spec("--stream s --group g").ack_mode(), AckMode::Explicit);
        assert_eq!(spec("--stream s --group g --ack-mode cumulative").ack_mode(), AckMode::Cumulative);
        assert_eq!(spec("--stream s --group g --ack-mode none").ack_mode(), AckMode::None);
        assert_eq!(spec("--stream s").ack_mode(), AckMode::None);
    }

    #[test]
    fn a_member_counts_for_itself_and_takes_no_more_than_it_is_to_have() {
        let window = |arguments: &str| {
            let spec = spec(arguments);
            (spec.max_events, spec.credit.unwrap().events)
        };
        assert_eq!(window("--stream s -n 5"), (5, WINDOW_EVENTS));
        assert_eq!(window("--stream s --group g -n 5"), (0, 5));
        assert_eq!(window("--stream s --group g"), (0, MEMBER_WINDOW_EVENTS));
        assert_eq!(window("--stream s --group g --exec c --jobs 4"), (0, 4));
        assert_eq!(window("--stream s --group g --exec c --jobs 4 -n 3"), (0, 3));
    }

    #[test]
    fn the_window_of_a_worker_has_room_for_the_largest_events() {
        let window = parsed("--stream s --group g --exec c --jobs 1000").unwrap().window();
        assert_eq!(window, Credit { events: 1000, bytes: 1000 * MAX_EVENT_BYTES });
    }

    #[test]
    fn options_that_make_no_sense_together_are_refused() {
        for arguments in [
            "",
            "a --from earliest",
            "a --on-gap latest",
            "a --ack-mode explicit --group g",
            "--stream s --exec c",
            "a --group g --exec c",
            "--stream s --group g --exec c --json",
            "--stream s --group g --exec c --ack-mode none",
            "--stream s --group g --resume-file f",
            "--stream s --group g --jobs 2",
            "--stream s --group g --exec c --jobs 0",
            "--stream s --overflow end",
            "a -n -1",
        ] {
            assert!(parsed(arguments).is_err(), "{arguments}");
        }
    }
}
