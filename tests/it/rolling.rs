//! Two hubs, restarted in turn under clients that check: behind each proxy, and without one when clients balance by
//! themselves.
//!
//! The hubs share no events: each has a data directory and a stream of its own. So publishers go to whichever hub there
//! is, followers and members of groups to that of their stream; and what must hold is that nothing is lost from either
//! stream.

use std::{net::SocketAddr, time::Duration};

use switchyard::proto::v1::DeleteStreamRequest;
use tokio::{sync::watch, task::JoinSet};

use crate::{
    harness::{Process, soon, until},
    proxy::{Kind, Proxy},
    stored::{Folder, create, state, stream, streams},
    verifying::{
        Door, Farewell, Followed, Follower, Ledger, Manner, Member, Publisher, Work, check, create_group, free_address,
        until_worked_off,
    },
};

const NAME: &str = "orders";
const GROUP: &str = "workers";
/// How often each hub is restarted.
const ROUNDS: usize = 2;
/// So many events must a hub have stored since its last restart before it is restarted again.
const BETWEEN: usize = 100;

/// One hub over its lives.
struct Home {
    folder: Folder,
    address: SocketAddr,
    ops_address: SocketAddr,
    epoch: i64,
    work: Work,
}

impl Home {
    fn new() -> Self {
        let (folder, work) = (Folder::new(), Work::default());
        Self { folder, address: free_address(), ops_address: free_address(), epoch: 0, work }
    }

    /// A hub that serves; the runtime goes on while it starts.
    async fn start(&self) -> Process {
        let mut flags = vec!["--data-dir".to_owned(), self.folder.text().to_owned()];
        let settings = [
            format!("listen={}", self.address),
            format!("ops_listen={}", self.ops_address),
            // Longer than proxies need to see that a hub is not ready.
            "drain.propagation_delay_ms=2500".to_owned(),
            "drain.spread_ms=500".to_owned(),
        ];
        flags.extend(settings.into_iter().flat_map(|setting| ["--set".to_owned(), setting]));
        let start = move || Process::start(&flags.iter().map(String::as_str).collect::<Vec<_>>());
        tokio::task::spawn_blocking(start).await.expect("a hub")
    }

    /// Makes the stream and the group. The epoch of a stream is a time, or one more than the last of its hub: so with
    /// another `number` it is another one, and answers tell whose they are.
    async fn furnish(&mut self, number: i64) {
        for _ in 1..number {
            create(self.address, stream("other", &["other"])).await;
            let delete = DeleteStreamRequest { name: "other".into() };
            streams(self.address).await.delete_stream(delete).await.expect("deleted");
        }
        self.epoch = create(self.address, stream(NAME, &["orders.>"])).await.state.expect("a state").epoch;
        create_group(self.address, NAME, GROUP).await;
    }
}

async fn stop(mut hub: Process) {
    hub.signal("TERM");
    let exit = tokio::task::spawn_blocking(move || hub.exit(Duration::from_secs(25))).await.expect("joined");
    assert_eq!(exit.code(), Some(0));
}

/// Everybody who works while the hubs restart.
struct Crew {
    finish_publishing: watch::Sender<bool>,
    finish: watch::Sender<bool>,
    ledger: Ledger,
    publishers: JoinSet<(u64, Vec<Farewell>)>,
    followers: [JoinSet<Followed>; 2],
    members: JoinSet<Vec<Farewell>>,
}

impl Crew {
    /// `any` leads to either hub, `doors` to each.
    fn new(any: &Door, doors: &[Door; 2], homes: &[Home; 2]) -> Self {
        let (finish_publishing, stop_publishing) = watch::channel(false);
        let (finish, stop) = watch::channel(false);
        let ledger = Ledger::default();
        let mut publishers = JoinSet::new();
        let manner = Manner { session: true, window: 4, publishes: 40, polite: true, pause: Duration::from_millis(4) };
        let manners = [manner, Manner { polite: false, ..manner }, Manner { session: false, ..manner }];
        for (number, manner) in manners.into_iter().enumerate() {
            publishers.spawn(Publisher::new(number, NAME, any.clone(), manner, &ledger, &stop_publishing).work());
        }
        let (mut followers, mut members) = ([JoinSet::new(), JoinSet::new()], JoinSet::new());
        for at in 0..2 {
            for _ in 0..2 {
                followers[at].spawn(Follower::new(doors[at].clone(), NAME, homes[at].epoch, &stop).work());
                let (door, work, finish) = (doors[at].clone(), homes[at].work.clone(), stop.clone());
                members.spawn(Member { door, stream: NAME, group: GROUP, work, finish }.work());
            }
        }
        Self { finish_publishing, finish, ledger, publishers, followers, members }
    }

    /// Waits until a hub has stored more events than it had.
    async fn until_more(&mut self, home: &Home, had: usize) {
        until("the hub is published to again", async || self.ledger.of(home.epoch) >= had + BETWEEN).await;
        let ended = self.publishers.try_join_next().is_some()
            || self.members.try_join_next().is_some()
            || self.followers.iter_mut().any(|set| set.try_join_next().is_some());
        assert!(!ended, "somebody ended before being told to");
    }

    /// Lets all finish, and checks what they were told against what the hubs have.
    async fn check(mut self, homes: &[Home; 2]) {
        self.finish_publishing.send_replace(true);
        let mut published = 0;
        while let Some(ended) = soon("a publisher", self.publishers.join_next()).await {
            published += ended.expect("it went on").0 as usize;
        }
        assert_eq!(self.ledger.entries().len(), published, "every event was answered OK once");
        for home in homes {
            until_worked_off(home.address, NAME, GROUP).await;
        }
        self.finish.send_replace(true);
        while let Some(ended) = soon("a member", self.members.join_next()).await {
            ended.expect("it went on");
        }
        for (home, followers) in homes.iter().zip(&mut self.followers) {
            let mut read = Vec::new();
            while let Some(ended) = soon("a follower", followers.join_next()).await {
                read.push(ended.expect("it went on"));
            }
            for followed in &read {
                assert!(followed.resumed >= ROUNDS, "{} times resumed", followed.resumed);
                for farewell in &followed.farewells {
                    farewell.check(true, true);
                }
            }
            let events = check(home.address, NAME, home.epoch, &self.ledger, &read.iter().collect::<Vec<_>>()).await;
            assert_eq!(state(home.address, NAME).await.epoch, home.epoch);
            assert_eq!(home.work.done().delivered.len(), events, "the group got every event");
            println!("{events} events, {} answered", self.ledger.of(home.epoch));
        }
    }
}

async fn nothing_is_lost(homes: [Home; 2], hubs: [Process; 2], mut crew: Crew) {
    let mut hubs = hubs.map(Some);
    for _ in 0..ROUNDS {
        for at in 0..2 {
            let had = crew.ledger.of(homes[at].epoch);
            crew.until_more(&homes[at], had).await;
            stop(hubs[at].take().expect("a hub")).await;
            // The other one has it all for a while.
            let had = crew.ledger.of(homes[1 - at].epoch);
            crew.until_more(&homes[1 - at], had).await;
            hubs[at] = Some(homes[at].start().await);
        }
    }
    crew.check(&homes).await;
}

async fn two_hubs() -> ([Home; 2], [Process; 2]) {
    let mut homes = [Home::new(), Home::new()];
    let hubs = [homes[0].start().await, homes[1].start().await];
    for (home, number) in homes.iter_mut().zip(1..) {
        home.furnish(number).await;
    }
    assert_ne!(homes[0].epoch, homes[1].epoch);
    (homes, hubs)
}

async fn behind(kind: Kind) {
    let (homes, hubs) = two_hubs().await;
    let ports = [0, 1].map(|at: usize| (homes[at].address, homes[at].ops_address));
    let proxy = Proxy::start(kind, ports, &[]).await;
    let doors = [proxy.door("hub-0.example"), proxy.door("hub-1.example")];
    let crew = Crew::new(&proxy.door("hubs.example"), &doors, &homes);
    nothing_is_lost(homes, hubs, crew).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_behind_nginx_loses_nothing() {
    behind(Kind::Nginx).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_behind_haproxy_loses_nothing() {
    behind(Kind::Haproxy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_behind_envoy_loses_nothing() {
    behind(Kind::Envoy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_under_clients_that_balance_loses_nothing() {
    let (homes, hubs) = two_hubs().await;
    let addresses = [homes[0].address, homes[1].address];
    let crew = Crew::new(&Door::any(&addresses), &addresses.map(Door::to), &homes);
    nothing_is_lost(homes, hubs, crew).await;
}
