//! Backups of a hub that is about to be killed, each put back in a folder of its own beside the round.
//!
//! Whatever was answered before the backup began is in it, groups included; each dead letter is there or its event is with
//! the group; and no token of the hub that died leads into the history of the one that was put back.

use std::{
    collections::{HashSet, VecDeque},
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use switchyard::proto::v1::{
    GapPolicy, GapReason, PurgeStreamRequest, ReceivedEvent, ResumeOutcome, SubscriptionSpec, session_response::Frame,
    stream_service_client::StreamServiceClient,
};
use tokio::{process::Child, task::JoinSet};

use super::{
    Life, NAME, Truth, hubs, ledger, members,
    squeezed::{self, SMALL, Squeezed, TEAM},
};
use crate::{
    harness::{PATIENCE, Process, Session, channel, event, pause, program, reason, soon},
    stored::{Folder, Reader, after, all, from, refused, resume, state, store, text},
    workplace::{self, Member},
};

/// One of so many hubs is backed up before it is killed.
const EVERY: usize = 13;

/// All backups of a round.
pub(super) struct Copies {
    taken: usize,
    /// Each gives what the stream of the round has in it.
    work: JoinSet<Option<Vec<ReceivedEvent>>>,
}

/// A backup, perhaps under way, and what was known before it began.
pub(super) struct Copy {
    folder: Folder,
    backup: Child,
    finished: bool,
    epochs: Vec<(&'static str, i64, i64)>,
    cursors: Vec<(&'static str, i64)>,
    /// Events that the small group had done before, and that members may have said it has after.
    done: HashSet<i64>,
    said: HashSet<i64>,
    tokens: Vec<(String, i64)>,
}

impl Copies {
    pub(super) fn new() -> Self {
        Self { taken: 0, work: JoinSet::new() }
    }

    /// A backup of this hub, if it is its turn. It may still be under way: the hub is to be killed next.
    pub(super) async fn take(
        &mut self,
        kill: usize,
        life: Life,
        random: &mut fastrand::Rng,
        small: &Squeezed,
    ) -> Option<Copy> {
        if !kill.is_multiple_of(EVERY) {
            return None;
        }
        self.taken += 1;
        let mut copy = Copy::begin(life, small).await;
        // The kill may come into the second.
        if self.taken == 2 {
            pause(Duration::from_millis(random.u64(..200))).await;
        } else {
            copy.finish(life).await;
        }
        Some(copy)
    }

    /// The hub is dead.
    pub(super) fn put_back(&mut self, copy: Option<Copy>, small: &Squeezed) {
        if let Some(mut copy) = copy {
            copy.said = small.ledger.said();
            self.work.spawn(copy.put_back());
        }
    }

    /// Waits for what goes on beside the round; the history of each copy is the beginning of that of the hub.
    pub(super) async fn check(mut self, truth: &Truth) {
        let mut whole = 0;
        while let Some(ended) = soon("a copy", self.work.join_next()).await {
            let Some(events) = ended.expect("a copy") else { continue };
            whole += 1;
            for (copied, event) in events.iter().zip(&truth.events) {
                assert_eq!((copied.sequence, text(copied)), (event.sequence, text(event)));
            }
            assert!(events.len() <= truth.events.len(), "nothing else is in it");
        }
        println!("{} backups, {whole} of them whole and put back", self.taken);
    }
}

impl Copy {
    async fn begin(life: Life, small: &Squeezed) -> Self {
        let (address, folder) = (life.address, Folder::new());
        let mut epochs = Vec::new();
        for name in [NAME, SMALL] {
            let state = state(address, name).await;
            epochs.push((name, state.epoch, state.latest_sequence));
        }
        let mut cursors = Vec::new();
        for group in members::names() {
            cursors.push((group, members::state(address, group).await.cursor));
        }
        let tokens = vec![token(life, (epochs[0].2 - 1).max(0)).await];
        let done = small.ledger.done();
        let mut backup = tokio::process::Command::from(program());
        backup.arg("backup").arg(file(&folder)).args(["--server", &address.to_string()]);
        let backup = backup.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn().expect("it starts");
        Self { folder, backup, finished: false, epochs, cursors, done, said: HashSet::new(), tokens }
    }

    /// Waits until it is whole, and takes a token from behind it.
    async fn finish(&mut self, life: Life) {
        let ended = soon("the backup", self.backup.wait()).await.expect("an end");
        assert!(ended.success(), "the hub lives, and makes no backup");
        self.finished = true;
        self.tokens.push(token(life, state(life.address, NAME).await.latest_sequence).await);
    }

    /// `None` when the hub died before it was whole.
    async fn put_back(mut self) -> Option<Vec<ReceivedEvent>> {
        let ended = soon("the backup", self.backup.wait()).await.expect("an end");
        if !ended.success() {
            assert!(!self.finished && !file(&self.folder).exists(), "what is not whole does not have its name");
            return None;
        }
        let data = self.folder.path().join("data");
        let mut restore = tokio::process::Command::from(program());
        restore.arg("restore").arg(file(&self.folder)).arg("--data-dir").arg(&data).stdout(Stdio::null());
        assert!(soon("the store", restore.status()).await.expect("an end").success());
        let hub = hubs::start(vec!["--data-dir".to_owned(), data.to_str().expect("text").to_owned()]).await;
        for (name, epoch, latest) in &self.epochs {
            let state = state(hub.address, name).await;
            assert!(state.latest_sequence >= *latest, "{name} ends at {}, and had {latest}", state.latest_sequence);
            assert!(state.epoch > *epoch, "{name} has the epoch of the hub that died");
        }
        for (group, cursor) in &self.cursors {
            let found = members::state(hub.address, group).await.cursor;
            assert!(found >= *cursor, "{group} is at {found}, and was at {cursor}");
        }
        let events = all(hub.address, NAME).await;
        assert!(events.iter().map(|event| event.sequence).eq(1..=events.len() as i64), "it has gaps");
        self.check_group(&hub).await;
        self.check_tokens(&hub, &events).await;
        Some(events)
    }

    /// The small group gets what is neither done nor a dead letter, all of it and nothing else.
    async fn check_group(&self, hub: &Process) {
        let channel = channel(hub.address).await;
        // Members wait with these for longer than the test takes.
        let purge =
            PurgeStreamRequest { name: SMALL.into(), filter: ledger::POISON.into(), ..PurgeStreamRequest::default() };
        StreamServiceClient::new(channel.clone()).purge_stream(purge).await.expect("purged");
        let wish = SubscriptionSpec { stream: SMALL.into(), group: TEAM.into(), ..workplace::member() };
        let mut session = Session::open(hub.address).await;
        session.subscribe(1, wish).await;
        let mut member = Member { session, waiting: VecDeque::new(), gaps: Vec::new(), request: 100 };
        let (mut came, start) = (HashSet::new(), Instant::now());
        loop {
            tokio::select! {
                received = member.event() => {
                    assert!(came.insert(received.sequence), "{} came twice", received.sequence);
                    member.ack(&[received.sequence]).await;
                }
                () = pause(Duration::from_millis(10)) => {
                    let state = squeezed::state(channel.clone()).await.expect("told");
                    if (state.pending, state.unacked) == (0, 0) {
                        break;
                    }
                    assert!(start.elapsed() < PATIENCE, "the group does not come to its end: {state:?}");
                }
            }
        }
        let letters = ledger::check_letters(&squeezed::letters(channel.clone()).await.expect("told"));
        for received in squeezed::read_all(channel).await.expect("read") {
            let sequence = received.sequence;
            let is_done = self.said.contains(&sequence);
            assert!(came.contains(&sequence) || letters.contains(&sequence) || is_done, "{sequence} is lost");
        }
        assert!(came.is_disjoint(&letters), "{came:?} came, and are dead letters: {letters:?}");
        assert!(came.is_disjoint(&self.done), "{came:?} came, and were done: {:?}", self.done);
    }

    /// Once the stream has come further than the tokens, they would skip events if they were taken for good.
    async fn check_tokens(&self, hub: &Process, events: &[ReceivedEvent]) {
        let beyond = self.tokens.iter().map(|(_, last)| *last).max().expect("tokens").max(events.len() as i64) + 10;
        for n in events.len() as i64..beyond {
            store(hub.address, vec![event("kill.9.0", n.to_string())]).await;
        }
        for (token, last) in &self.tokens {
            let ended = refused(hub.address, from(NAME, resume(token))).await;
            assert_eq!(reason(ended.status.as_ref().expect("a status")), "EPOCH_CHANGED", "behind {last}");
            let wish = |on_gap: GapPolicy| SubscriptionSpec { on_gap: on_gap.into(), ..from(NAME, resume(token)) };
            let mut anew = after_gap(hub, wish(GapPolicy::Earliest)).await;
            anew.until_caught_up().await;
            assert_eq!(anew.sequences(), (1..=beyond).collect::<Vec<_>>());
            assert!(anew.events.iter().zip(events).all(|(one, two)| text(one) == text(two)));
            let mut on = after_gap(hub, wish(GapPolicy::Latest)).await;
            on.until_caught_up().await;
            assert!(on.events.is_empty());
        }
    }
}

/// A subscription that is told that the history is another.
async fn after_gap(hub: &Process, wish: SubscriptionSpec) -> Reader {
    let mut reader = Reader::open(hub.address, wish).await;
    assert_eq!(reader.subscribed.resume_outcome(), ResumeOutcome::Gap);
    match reader.step().await {
        Frame::Gap(gap) => assert_eq!(gap.reason(), GapReason::Epoch),
        other => panic!("not a gap: {other:?}"),
    }
    reader
}

/// A token for the place behind the first event after that sequence.
async fn token(life: Life, sequence: i64) -> (String, i64) {
    let mut reader = Reader::open(life.address, from(NAME, after(sequence))).await;
    reader.until(sequence + 1).await;
    let last = reader.last();
    (reader.token, last)
}

fn file(folder: &Folder) -> PathBuf {
    folder.path().join("hub.backup")
}
