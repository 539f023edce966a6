//! `switchyard sub`.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use anyhow::Context;

use super::{
    feed::{self, Feed},
    resume_file::ResumeFile,
    show,
    stop::Stop,
    value,
    worker::Worker,
};
use crate::client::Target;
use crate::proto::v1::{
    AckMode, AckOutcome, Credit, Events, GapPolicy, OverflowPolicy, Progress, SubscriptionSpec,
    session_response::Frame, start_position::Position,
};

/// Subscribe and print events.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Without --stream a subscription is live: it gets what is published while it is open. A member of a group on a stream
acknowledges what it prints.

On a terminal an event is one line, and control characters are shown as \\u001b and the like.

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
  switchyard sub --stream orders --group billing --exec './bill.sh' --jobs 4")]
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
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 0, hide_default_value = true)]
    max_events: i64,
    /// What to do when this program cannot keep up
    #[arg(long, value_enum, default_value_t = Overflow::DropOldest, conflicts_with = "stream")]
    overflow: Overflow,
    /// Print one JSON object per event
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
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
        let resume_file = self.resume_file.as_deref().map(ResumeFile::open).transpose()?;
        let spec = self.spec(resume_file.as_ref().and_then(ResumeFile::token));
        if let Some(command) = self.exec {
            return Worker::new(command, self.jobs, self.max_events).run(&self.target, spec, &mut stop).await;
        }
        let acks = self.acks();
        let feed = Feed::open(&self.target, spec, acks.is_some() || self.group.is_some()).await?;
        let left = if acks.is_some() && self.max_events > 0 { self.max_events } else { i64::MAX };
        let mut printer = Printer { json: self.json, events: 0, left, acks, resume_file, caught_up: false };
        printer.run(feed, &mut stop).await?;
        eprintln!("{} events", printer.events);
        Ok(())
    }

    /// What this program has to say about each event, if anything.
    fn acks(&self) -> Option<Acks> {
        let of_a_group = self.stream.is_some() && self.group.is_some();
        Some(self.ack_mode.unwrap_or(Acks::Explicit)).filter(|acks| of_a_group && *acks != Acks::None)
    }

    fn spec(&self, token: Option<&str>) -> SubscriptionSpec {
        let acks = self.acks();
        // A hub that ended the subscription after its last event would give the lease on it to another member.
        let counted_here = acks.is_some() && self.max_events > 0;
        let from = token.map(|token| Position::ResumeToken(token.to_owned())).or_else(|| self.from.clone());
        SubscriptionSpec {
            filters: self.filters.clone(),
            stream: self.stream.clone().unwrap_or_default(),
            start: from.map(value::position),
            group: self.group.clone().unwrap_or_default(),
            ack_mode: match acks {
                None | Some(Acks::None) => AckMode::None,
                Some(Acks::Explicit) => AckMode::Explicit,
                Some(Acks::Cumulative) => AckMode::Cumulative,
            }
            .into(),
            credit: counted_here.then_some(Credit { events: self.max_events, bytes: 0 }),
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
            max_events: if counted_here { 0 } else { self.max_events },
            ..Default::default()
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Next {
    GoOn,
    /// All is printed that was asked for, or nobody reads it any more.
    Leave,
    /// The hub has ended the subscription.
    Over,
}

struct Printer {
    json: bool,
    events: u64,
    /// How many more to print.
    left: i64,
    acks: Option<Acks>,
    resume_file: Option<ResumeFile>,
    caught_up: bool,
}

impl Printer {
    async fn run(&mut self, mut feed: Feed, stop: &mut Stop) -> anyhow::Result<()> {
        loop {
            let frame = tokio::select! {
                () = stop.requested() => break,
                frame = feed.next() => frame?,
            };
            let Some(frame) = frame else { return Ok(()) };
            match self.frame(frame, &mut feed)? {
                Next::GoOn => {}
                Next::Leave => break,
                Next::Over => return Ok(()),
            }
        }
        // A member that says goodbye gives back at once what it was sent and did not acknowledge.
        if feed.takes_commands() { feed.leave().await } else { Ok(()) }
    }

    fn frame(&mut self, frame: Frame, feed: &mut Feed) -> anyhow::Result<Next> {
        match frame {
            Frame::Events(events) => self.events(&events, feed),
            Frame::Progress(progress) => self.progress(&progress).map(|()| Next::GoOn),
            Frame::Ended(ended) => self.keep(&ended.resume_token).map(|()| Next::Over),
            other => {
                feed::tell(&other);
                Ok(Next::GoOn)
            }
        }
    }

    fn events(&mut self, events: &Events, feed: &mut Feed) -> anyhow::Result<Next> {
        let mut out = io::stdout().lock();
        for received in &events.events {
            let Some(event) = &received.event else { continue };
            self.events += 1;
            let line = if self.json { show::event_json(received).to_string() } else { show::event_line(event) };
            let line = if show::to_terminal() { show::one_line(&line) } else { line.as_str().into() };
            if let Err(error) = writeln!(out, "{line}").and_then(|()| out.flush()) {
                // The reader of a pipe has had enough.
                let closed = error.kind() == io::ErrorKind::BrokenPipe;
                return if closed { Ok(Next::Leave) } else { Err(error).context("cannot write") };
            }
        }
        match self.acks {
            Some(Acks::Explicit) => {
                let sequences = events.events.iter().map(|received| received.sequence).collect();
                feed.acknowledge(AckOutcome::Ack, sequences, String::new());
            }
            Some(Acks::Cumulative) => {
                // The last one sent, which need not have the highest sequence.
                feed.acknowledge_up_to(events.events.last().map_or(0, |received| received.sequence));
            }
            None | Some(Acks::None) => {}
        }
        self.keep(&events.resume_token)?;
        self.left = self.left.saturating_sub_unsigned(events.events.len() as u64);
        Ok(if self.left > 0 { Next::GoOn } else { Next::Leave })
    }

    fn progress(&mut self, progress: &Progress) -> anyhow::Result<()> {
        if progress.caught_up && !self.caught_up {
            eprintln!("caught up");
        }
        self.caught_up = progress.caught_up;
        self.keep(&progress.resume_token)
    }

    fn keep(&mut self, token: &str) -> anyhow::Result<()> {
        self.resume_file.as_mut().map_or(Ok(()), |file| file.keep(token))
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

    fn spec(arguments: &str, token: Option<&str>) -> SubscriptionSpec {
        parsed(arguments).unwrap().spec(token)
    }

    #[test]
    fn a_live_subscription_says_nothing_of_streams() {
        let spec = spec("a.> b --group g --max-events 3", None);
        assert_eq!(spec.filters, ["a.>", "b"]);
        assert_eq!((spec.stream.as_str(), spec.group.as_str(), spec.max_events), ("", "g", 3));
        assert_eq!(spec.ack_mode(), AckMode::None);
        assert_eq!(spec.start, None);
    }

    #[test]
    fn a_token_that_was_kept_comes_before_the_first_start() {
        let first = Position::Preset(StartPreset::Earliest.into());
        assert_eq!(spec("--stream s --from earliest", None).start, Some(value::position(first)));
        let kept = Position::ResumeToken("t".to_owned());
        assert_eq!(spec("--stream s --from earliest", Some("t")).start, Some(value::position(kept)));
    }

    #[test]
    fn a_member_acknowledges_unless_told_otherwise() {
        assert_eq!(spec("--stream s --group g", None).ack_mode(), AckMode::Explicit);
        assert_eq!(spec("--stream s --group g --ack-mode cumulative", None).ack_mode(), AckMode::Cumulative);
        assert_eq!(spec("--stream s --group g --ack-mode none", None).ack_mode(), AckMode::None);
        assert_eq!(spec("--stream s", None).ack_mode(), AckMode::None);
    }

    #[test]
    fn a_member_counts_for_itself() {
        let counted = spec("--stream s --group g -n 5", None);
        assert_eq!((counted.max_events, counted.credit), (0, Some(Credit { events: 5, bytes: 0 })));
        let counted = spec("--stream s -n 5", None);
        assert_eq!((counted.max_events, counted.credit), (5, None));
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
        ] {
            assert!(parsed(arguments).is_err(), "{arguments}");
        }
    }
}
