//! SIGTERM in the middle of the work: publishers without pause, followers of the stream and members of a group. Nothing
//! that was answered is lost, everybody is told how to go on, and the process ends in time.

use std::time::Duration;

use tokio::{sync::watch, task::JoinSet};

use crate::{
    harness::{Process, soon, until},
    stored::{Folder, create, stream},
    verifying::{
        Door, Follower, Ledger, Manner, Member, Publisher, Work, check, create_group, free_address, until_worked_off,
    },
};

const NAME: &str = "load";
const PUBLISHERS: usize = 4;
const FOLLOWERS: usize = 4;
const MEMBERS: usize = 3;
/// The hub is told to stop when it has stored so many events, and again when so many more.
const EVENTS: usize = 20_000;
const STOPS: usize = 2;
/// From the signal to the exit, of which a third is the spread.
const DEADLINE: Duration = Duration::from_secs(20);

async fn start(flags: &[String]) -> Process {
    let flags = flags.to_vec();
    let start = move || Process::start(&flags.iter().map(String::as_str).collect::<Vec<_>>());
    tokio::task::spawn_blocking(start).await.expect("a hub")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_full_load_loses_nothing_and_tells_everyone_how_to_go_on() {
    let (folder, address) = (Folder::new(), free_address());
    let settings = [
        format!("listen={address}"),
        format!("data_dir={}", folder.text()),
        "drain.spread_ms=1000".to_owned(),
        format!("drain.deadline_ms={}", DEADLINE.as_millis()),
    ];
    let flags: Vec<String> = settings.into_iter().flat_map(|setting| ["--set".to_owned(), setting]).collect();
    let mut hub = start(&flags).await;
    let epoch = create(address, stream(NAME, &["load.>"])).await.state.expect("a state").epoch;
    create_group(address, NAME, "g").await;

    let (finish_publishing, stop_publishing) = watch::channel(false);
    let (finish, stop) = watch::channel(false);
    let (ledger, work, door) = (Ledger::default(), Work::default(), Door::to(address));
    let (mut publishers, mut followers, mut members) = (JoinSet::new(), JoinSet::new(), JoinSet::new());
    let manner = Manner { session: true, window: 64, publishes: usize::MAX, polite: false, pause: Duration::ZERO };
    for number in 0..PUBLISHERS {
        publishers.spawn(Publisher::new(number, NAME, door.clone(), manner, &ledger, &stop_publishing).work());
    }
    for _ in 0..FOLLOWERS {
        followers.spawn(Follower::new(door.clone(), NAME, epoch, &stop).work());
    }
    for _ in 0..MEMBERS {
        let (door, work, finish) = (door.clone(), work.clone(), stop.clone());
        members.spawn(Member { door, stream: NAME, group: "g", work, finish }.work());
    }
    for _ in 0..STOPS {
        let had = ledger.of(epoch);
        until("the hub is under load", async || ledger.of(epoch) >= had + EVENTS).await;
        until("the group works", async || !work.done().confirmed.is_empty()).await;
        hub.signal("TERM");
        let exit = tokio::task::spawn_blocking(move || hub.exit(DEADLINE)).await.expect("joined");
        assert_eq!(exit.code(), Some(0));
        hub = start(&flags).await;
    }

    finish_publishing.send_replace(true);
    let mut published = 0;
    while let Some(ended) = soon("a publisher", publishers.join_next()).await {
        let (events, farewells) = ended.expect("it went on");
        published += events as usize;
        assert_eq!(farewells.len(), STOPS);
        for farewell in &farewells {
            farewell.check(false, false);
        }
    }
    until_worked_off(address, NAME, "g").await;
    finish.send_replace(true);
    while let Some(ended) = soon("a member", members.join_next()).await {
        let farewells = ended.expect("it went on");
        assert_eq!(farewells.len(), STOPS);
        for farewell in &farewells {
            farewell.check(true, false);
        }
    }
    let mut read = Vec::new();
    while let Some(ended) = soon("a follower", followers.join_next()).await {
        let followed = ended.expect("it went on");
        assert_eq!(followed.farewells.len(), STOPS);
        for farewell in &followed.farewells {
            farewell.check(true, true);
        }
        read.push(followed);
    }
    let events = check(address, NAME, epoch, &ledger, &read.iter().collect::<Vec<_>>()).await;
    // One hub only: what was published again after an answer got lost is known by its id.
    assert_eq!((events, ledger.entries().len()), (published, published), "every event is there once");
    assert_eq!(work.done().delivered.len(), events, "the group got every event");
}
