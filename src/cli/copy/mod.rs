//! `switchyard stream copy`: one stream from one hub to another, as a client of both.
//!
//! Owns the order in which it is done, which is what makes it safe to run again: the target says how far the copy is, the
//! state file which event of the source is which there ([`map`]), and nothing is written behind what cannot be explained.

mod align;
mod definition;
mod end;
mod hubs;
mod map;
mod positions;
mod progress;
mod reader;
mod state_file;
mod verify;
mod writer;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use prost_types::FieldMask;
use serde_json::json;

use self::{
    align::Ends,
    end::End,
    hubs::Hubs,
    map::Map,
    progress::Progress,
    state_file::{Kept, Side, Sides, StateFile},
    verify::{Pair, Verified},
    writer::Writer,
};
use super::{show, stop::Stop};
use crate::proto::v1::{CreateStreamRequest, Stream, StreamState, UpdateStreamRequest};

/// So many of the last events are compared before more are added.
const TAIL: i64 = 1000;

/// Copy a stream to another hub.
#[derive(Debug, clap::Args)]
pub(super) struct CopyStream {
    /// Which stream
    name: String,
    /// Its name at the hub to copy to [default: the same]
    #[arg(long = "as", value_name = "NAME")]
    as_name: Option<String>,
    /// Where to keep what a later run needs to know [default: NAME.copy, with the name at the hub to copy to]
    #[arg(long, value_name = "FILE")]
    state_file: Option<PathBuf>,
    /// Compare what both hubs have, and change nothing
    #[arg(long)]
    verify_only: bool,
    #[command(flatten)]
    hubs: Hubs,
}

/// What came of it.
#[derive(Debug, Default)]
struct Report {
    copied: u64,
    verified: Verified,
    groups: Option<usize>,
    /// The last sequence at the target.
    last: i64,
    /// Sequences of the source behind the copy.
    behind: i64,
}

/// Both streams, as they were when this began.
struct Streams {
    source: End,
    target: End,
    from: Stream,
    to: Stream,
}

/// How far the target is.
struct Place {
    map: Map,
    /// Up to which sequence the target was verified, by this run or one before,
    verified: i64,
    /// and how many events by this run.
    compared: u64,
    is_known: bool,
}

impl CopyStream {
    /// Copies, or compares, until it is done or somebody stops it.
    pub(super) async fn run(&self, json: bool, timeout: Duration) -> anyhow::Result<()> {
        let mut stop = Stop::listen()?;
        let report = tokio::select! {
            report = Box::pin(self.work(timeout)) => report?,
            () = stop.requested() => bail!("stopped; the same command goes on where it was"),
        };
        let shown = if json { report.as_json(self.target_name()) } else { report.line(self.target_name()) };
        show::print(&shown).map(drop)
    }

    fn target_name(&self) -> &str {
        self.as_name.as_deref().unwrap_or(&self.name)
    }

    fn state_path(&self) -> PathBuf {
        self.state_file.clone().unwrap_or_else(|| format!("{}.copy", self.target_name()).into())
    }

    /// Refuses the state file of another copy, before anything is done.
    fn check_names(&self, kept: &Kept, path: &Path) -> anyhow::Result<()> {
        let Some(Sides { source, target }) = &kept.sides else { return Ok(()) };
        let is_ours = source.name == self.name && target.name == self.target_name();
        ensure!(
            is_ours,
            "{} is of another copy, of {} as {}: name another with --state-file",
            path.display(),
            source.name,
            target.name
        );
        Ok(())
    }

    async fn work(&self, timeout: Duration) -> anyhow::Result<Report> {
        let path = self.state_path();
        self.check_names(&StateFile::read(&path)?, &path)?;
        let mut source = End::connect("from", &self.hubs.from, &self.name, timeout).await?;
        let mut target = End::connect("to", &self.hubs.to, self.target_name(), timeout).await?;
        let from = source.find().await?.with_context(|| format!("there is no {}", source.place()))?;
        if !source.shows_everything().await? {
            eprintln!(
                "this caller may not read every topic: events of topics that the stream no longer takes are left out"
            );
        }
        if !self.verify_only {
            positions::check(&mut source, &mut target).await?;
        }
        let to = match target.find().await? {
            Some(there) => there,
            None if self.verify_only => bail!("there is no {}", target.place()),
            None => created(&mut target, &from).await?,
        };
        let differences = definition::differences(&from, &to);
        ensure!(
            differences.is_empty(),
            "{} has other settings than the source: {}; copy to another name with --as, or make them equal with \
             `switchyard stream update`",
            target.place(),
            differences.join(", ")
        );
        let streams = Streams { source, target, from, to };
        if self.verify_only { streams.compare(&path).await } else { streams.copy(&path).await }
    }
}

/// Creates the stream at the target.
async fn created(target: &mut End, from: &Stream) -> anyhow::Result<Stream> {
    let request = CreateStreamRequest { stream: Some(definition::of_copy(from, &target.name)) };
    let created = target.calls.change("CreateStream", target.calls.streams().create_stream(request)).await;
    created.with_context(|| target.place())?;
    target.find().await?.with_context(|| target.changed())
}

fn state(stream: &Stream) -> StreamState {
    stream.state.unwrap_or_default()
}

impl Streams {
    fn epochs(&self) -> (i64, i64) {
        (state(&self.from).epoch, state(&self.to).epoch)
    }

    fn sides(&self) -> Sides {
        let side = |stream: &Stream| Side { name: stream.name.clone(), epoch: state(stream).epoch };
        Sides { source: side(&self.from), target: side(&self.to) }
    }

    /// How far the target is: from the state file if that is of these streams, and otherwise from its events.
    async fn place(&self, kept: Kept, path: &Path) -> anyhow::Result<Place> {
        let (from, last) = (state(&self.from), state(&self.to).latest_sequence);
        if let Some(sides) = &kept.sides {
            let mut map = kept.map;
            map.cut(last);
            if *sides == self.sides() && (last == 0 || !map.is_empty()) {
                return Ok(Place { map, verified: kept.verified.min(last), compared: 0, is_known: true });
            }
            eprintln!("{} is of streams that were there before: comparing from the start", path.display());
        }
        if last == 0 {
            return Ok(Place { map: Map::default(), verified: 0, compared: 0, is_known: false });
        }
        let ends = Ends {
            source: &self.source,
            target: &self.target,
            epochs: self.epochs(),
            last: (from.latest_sequence, last),
            lost_front: from.earliest_sequence > 1,
        };
        let (map, compared) = align::align(&ends).await?;
        Ok(Place { map, verified: last, compared, is_known: false })
    }

    fn pair<'a>(&'a self, map: &'a Map, to: &StreamState) -> Pair<'a> {
        let front = if definition::has_limits(&self.to) { to.earliest_sequence } else { 0 };
        Pair { source: &self.source, target: &self.target, epochs: self.epochs(), map, front }
    }

    /// Changes nothing.
    async fn compare(self, path: &Path) -> anyhow::Result<Report> {
        let to = state(&self.to);
        let last = to.latest_sequence;
        let place = self.place(StateFile::read(path)?, path).await?;
        let verified = if place.is_known {
            let mut progress = Progress::new("verified", u64::try_from(to.events).unwrap_or_default());
            self.pair(&place.map, &to).verify((0, last), &mut progress, |_| Ok(())).await?
        } else {
            Verified { events: place.compared, ..Verified::default() }
        };
        let reached = place.map.to_source(last).unwrap_or(0);
        let behind = state(&self.from).latest_sequence.saturating_sub(reached).max(0);
        Ok(Report { verified, last, behind, ..Report::default() })
    }

    async fn copy(mut self, path: &Path) -> anyhow::Result<Report> {
        let (mut file, kept) = StateFile::open(path)?;
        let mut last = state(&self.to).latest_sequence;
        let Place { mut map, verified, compared, is_known } = self.place(kept, path).await?;
        if is_known {
            let tail = ((last - TAIL).max(0), last);
            let pair = self.pair(&map, &state(&self.to));
            pair.verify(tail, &mut Progress::new("verified", 0), |_| Ok(())).await?;
        } else {
            file.begin(&self.sides(), &map, verified)?;
        }
        let copied = self.write(&mut map, &mut file, &mut last).await?;
        let to = self.target.state(self.epochs().1).await?;
        let total = u64::try_from(last - verified).unwrap_or_default();
        let mut progress = Progress::new("verified", total);
        let pair = self.pair(&map, &to);
        let mut verified = pair.verify((verified, last), &mut progress, |end| file.verified(end)).await?;
        drop(progress);
        verified.events += compared;
        self.set_dedupe(self.from.dedupe_window).await?;
        let groups = positions::copy(&mut self.source, &mut self.target, &map, last).await?;
        Ok(Report { copied, verified, groups: Some(groups), last, behind: 0 })
    }

    /// Copies what the source had when this began. Says how many events that were.
    async fn write(&mut self, map: &mut Map, file: &mut StateFile, last: &mut i64) -> anyhow::Result<u64> {
        let from = state(&self.from);
        let behind = map.to_source(*last).unwrap_or(0);
        if behind >= from.latest_sequence {
            return Ok(0);
        }
        self.set_dedupe(Some(definition::NO_DEDUPE)).await?;
        let epochs = self.epochs();
        let most = (from.latest_sequence - behind).min(from.events);
        let mut progress = Progress::new("copied", u64::try_from(most).unwrap_or_default());
        let ends = (&self.source, &mut self.target);
        let mut writer = Writer::new(ends, epochs, (map, file), *last, &self.to);
        writer.copy(from.latest_sequence, &mut progress).await?;
        *last = writer.last;
        Ok(progress.done())
    }

    /// Gives the target this dedupe window, if it has another.
    async fn set_dedupe(&mut self, window: Option<prost_types::Duration>) -> anyhow::Result<()> {
        if self.to.dedupe_window == window {
            return Ok(());
        }
        self.to.dedupe_window = window;
        let stream = Stream { name: self.target.name.clone(), dedupe_window: window, ..Stream::default() };
        let mask = FieldMask { paths: vec!["dedupe_window".to_owned()] };
        let request = UpdateStreamRequest { stream: Some(stream), update_mask: Some(mask) };
        let calls = &mut self.target.calls;
        let changed = calls.change("UpdateStream", calls.streams().update_stream(request)).await;
        changed.map(drop).with_context(|| self.target.place())
    }
}

impl Report {
    fn line(&self, name: &str) -> String {
        let Verified { events, gone_at_source, gone_at_target } = self.verified;
        let mut parts = vec![format!("{events} events verified")];
        if let Some(groups) = self.groups {
            parts.insert(0, format!("{} events copied", self.copied));
            parts.push(format!("{groups} groups"));
        }
        parts.push(format!("last sequence {}", self.last));
        let more = [
            (gone_at_source, "no longer at the source"),
            (gone_at_target, "removed at the target by its limits"),
            (u64::try_from(self.behind).unwrap_or_default(), "sequences of the source not copied yet"),
        ];
        parts.extend(more.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")));
        format!("{name}: {}", parts.join(", "))
    }

    fn as_json(&self, name: &str) -> String {
        let mut object = json!({
            "stream": name,
            "verified": self.verified.events,
            "gone_at_source": self.verified.gone_at_source,
            "gone_at_target": self.verified.gone_at_target,
            "last_sequence": self.last,
        });
        match self.groups {
            Some(groups) => {
                object["copied"] = json!(self.copied);
                object["groups"] = json!(groups);
            }
            None => object["behind"] = json!(self.behind),
        }
        object.to_string()
    }
}
