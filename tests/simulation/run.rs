//! One run: a hub on a disk that loses power and fills up, clients on hosts of their own, and a network that fails.

use std::{
    cell::Cell,
    net::{Ipv4Addr, SocketAddr},
    rc::Rc,
    time::Duration,
};

use switchyard::{
    config::Config,
    engine::{Embedded, Engine, OpenError, Simulated, renew_simulated},
    model::Peer,
    server::{self, Ground},
    tasks::Tasks,
};
use tokio_stream::wrappers::ReceiverStream;
use turmoil::{Builder, Sim};

use crate::{
    judge,
    locks::Locker,
    members::Member,
    publishers::Publisher,
    readers::{Reader, Wanderer},
    squeezed::Squeezed,
    world::{PORT, Phase, Restart, World},
};

/// For so long things fail.
const WORK: Duration = Duration::from_secs(20);
/// By then everything must be over, however much failed.
const LIMIT: Duration = Duration::from_secs(300);
/// Of a run that fails so much of its trace is told.
const LAST_LINES: usize = 20;
const CLIENTS: [&str; 4] = ["one", "two", "three", "four"];

/// Runs a seed to its end, and tells what happened.
pub fn run(seed: u64) -> Vec<String> {
    let world = Rc::new(World::new(seed));
    let disk = Simulated::default();
    disk.set_delay(Duration::from_millis(12), world.random("disk"));
    let mut sim = Builder::new()
        .rng_seed(seed)
        .enable_random_order()
        .tick_duration(Duration::from_millis(2))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(20))
        .simulation_duration(LIMIT)
        .tcp_capacity(64 * 1024)
        .build();
    let was_put_back = Rc::default();
    add_hub(&mut sim, &disk, &was_put_back);
    add_clients(&mut sim, &world);
    let (random, later) = (world.random("faults"), Vec::new());
    let mut faults =
        Faults { random, world: Rc::clone(&world), disk, wall_ahead: 0.0, later, copy: None, was_put_back };
    loop {
        match sim.step() {
            Ok(true) => return world.take_trace(),
            Ok(false) => faults.step(&mut sim),
            Err(error) => {
                let trace = world.take_trace();
                trace.iter().skip(trace.len().saturating_sub(LAST_LINES)).for_each(|line| eprintln!("{line}"));
                panic!("at {:?}: {error}", sim.elapsed());
            }
        }
    }
}

fn config(life: u64) -> Config {
    let mut config = Config { node: format!("hub-{life}"), ..Config::default() };
    // Longer than a client waits for its hub.
    config.connections.keepalive_interval_ms = 4_000;
    config.connections.keepalive_timeout_ms = 4_000;
    // Little memory for the tail, so that those who come back read the disk.
    config.engine.tail_cache_bytes = 64 * 1024;
    config.engine.store_cache_bytes = 1024 * 1024;
    config
}

/// The hub. If `was_put_back` is set, its store is told so before it is opened.
fn add_hub(sim: &mut Sim<'_>, disk: &Simulated, was_put_back: &Rc<Cell<bool>>) {
    let (disk, lives, was_put_back) = (disk.clone(), Rc::new(Cell::new(0)), Rc::clone(was_put_back));
    sim.host("hub", move || {
        lives.set(lives.get() + 1);
        let (disk, config, was_put_back) = (disk.clone(), config(lives.get()), was_put_back.take());
        async move {
            if was_put_back {
                renew_simulated(&disk)?;
            }
            let (tasks, metrics, memory) =
                (Tasks::on_one_thread(), std::sync::Arc::default(), std::sync::Arc::default());
            let engine = match Embedded::open_simulated(&disk, &config.engine, &tasks, &metrics, &memory) {
                // Its disk failed already; the crash that follows starts the next one.
                Err(OpenError::Io { .. }) => std::future::pending().await,
                opened => opened?,
            };
            let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT));
            let listener = turmoil::net::TcpListener::bind(address).await?;
            let (sender, accepted) = tokio::sync::mpsc::channel(1);
            let accepted_from = |(stream, peer): (_, SocketAddr)| (stream, Peer::from(peer));
            let accept = async move { while sender.send(listener.accept().await.map(accepted_from)).await.is_ok() {} };
            let operators = tokio_stream::pending::<std::io::Result<(turmoil::net::TcpStream, Peer)>>();
            let operators = Box::pin(std::future::ready(Ok((address.into(), operators))));
            let engine: Option<std::sync::Arc<dyn Engine>> = Some(std::sync::Arc::new(engine));
            let ground = Ground {
                clients: (address.into(), ReceiverStream::new(accepted)),
                edges: Vec::new(),
                operators,
                engine: Box::pin(std::future::ready(Ok(engine))),
                auth: None,
                tls: None,
                metrics,
                memory,
                tasks,
            };
            let server = server::start_on(config, ground).await?;
            tokio::select! {
                biased;
                () = accept => {}
                () = server.failed() => {}
            }
            Err("the hub failed".into())
        }
    });
}

fn add_clients(sim: &mut Sim<'_>, world: &Rc<World>) {
    let [one, two, three, four] = CLIENTS;
    let (first, second) = (Publisher::new(world, 0), Publisher::new(world, 1));
    let all = Reader::new(world, "reader >", &[], None);
    let some = Reader::new(world, "reader sim.*.1", &["sim.*.1"], None);
    let slow = Reader::new(world, "reader sim.1.*", &["sim.1.*"], Some(7));
    let members = ["steady", "named"].map(|who| Member::new(world, who, who == "named"));
    let [steady, named] = members;
    let other = Member::new(world, "other", false);
    let wanderer = Wanderer::new(world);
    let lockers = ["locker", "other locker"].map(|who| Locker::new(world, who));
    let [locker, other_locker] = lockers;
    let squeezed = Squeezed::new(world);
    sim.client(one, async move {
        tokio::join!(first.work(), slow.work(), locker.work());
        Ok(())
    });
    sim.client(two, async move {
        tokio::join!(second.work(), steady.work(), all.work());
        Ok(())
    });
    sim.client(three, async move {
        tokio::join!(named.work(), some.work());
        Ok(())
    });
    sim.client(four, async move {
        tokio::join!(other.work(), wanderer.work(), other_locker.work(), squeezed.work());
        Ok(())
    });
    let world = Rc::clone(world);
    sim.client("judge", async move {
        judge::prepare(&world).await;
        judge::judge(world).await;
        Ok(())
    });
}

/// What fails, and when it is mended.
struct Faults {
    random: fastrand::Rng,
    world: Rc<World>,
    disk: Simulated,
    wall_ahead: f64,
    /// What is still to happen, in no order.
    later: Vec<(Duration, Change)>,
    /// The disk as it was when the hub was dead.
    copy: Option<Simulated>,
    was_put_back: Rc<Cell<bool>>,
}

#[derive(Debug, Clone, Copy)]
enum Change {
    /// Something else fails.
    Next,
    Crash,
    Start,
    Repair(&'static str),
    Release(&'static str),
    /// The wall clock is right again.
    Clock,
    /// The disk has room again.
    Room,
}

impl Faults {
    fn step(&mut self, sim: &mut Sim<'_>) {
        let now = sim.elapsed();
        self.start_again(sim);
        if self.world.phase() != Phase::Work || self.world.books.borrow().epoch.is_none() {
            return;
        }
        if self.later.is_empty() {
            if now >= WORK {
                self.world.enter(Phase::Finish);
                return;
            }
            self.later.push((now, Change::Next));
        }
        while let Some(at) = self.later.iter().position(|(at, _)| *at <= now) {
            let (_, change) = self.later.swap_remove(at);
            self.world.note("world", &change);
            match change {
                Change::Next if now < WORK => self.fail(now, sim),
                Change::Next => {}
                Change::Crash => {
                    self.disk.lose_power(&mut self.random);
                    sim.crash("hub");
                    if now < WORK * 2 / 3 {
                        self.copy = Some(self.disk.copy());
                        self.world.has_copy.set(true);
                    }
                    self.after(now, 1..1500, Change::Start);
                }
                Change::Start => {
                    // A hub believes the clock that it starts with: one that is ahead would end what ids are known for.
                    if self.wall_ahead > 0.0 {
                        self.set_clock(0.0);
                    }
                    sim.bounce("hub");
                }
                Change::Clock => self.set_clock(0.0),
                Change::Repair(host) => sim.repair(host, "hub"),
                Change::Release(host) => sim.release(host, "hub"),
                Change::Room => self.disk.set_capacity(None),
            }
        }
    }

    /// Does with the hub what the judge wants.
    fn start_again(&mut self, sim: &mut Sim<'_>) {
        let Some(how) = self.world.restart.take() else { return };
        self.world.note("world", &how);
        self.disk.lose_power(&mut self.random);
        sim.crash("hub");
        match (how, &self.copy) {
            (Restart::OnCopy, Some(copy)) => self.disk.put_back(copy),
            (Restart::OnCopy, None) => panic!("there is no copy"),
            (Restart::Told, _) => self.was_put_back.set(true),
        }
        sim.bounce("hub");
    }

    fn set_clock(&mut self, seconds: f64) {
        self.wall_ahead = seconds;
        self.disk.set_wall_ahead(seconds);
    }

    fn after(&mut self, now: Duration, ms: std::ops::Range<u64>, change: Change) {
        self.later.push((now + Duration::from_millis(self.random.u64(ms)), change));
    }

    /// Something fails, unless the same does already.
    fn fail(&mut self, now: Duration, sim: &mut Sim<'_>) {
        self.after(now, 100..1500, Change::Next);
        let host = CLIENTS[self.random.usize(..CLIENTS.len())];
        let which = self.random.u32(..14);
        let busy = self.later.iter().any(|(_, change)| match change {
            Change::Crash | Change::Start => which < 4,
            Change::Repair(other) | Change::Release(other) => (4..10).contains(&which) && *other == host,
            Change::Clock => (10..12).contains(&which),
            Change::Room => which >= 12,
            Change::Next => false,
        });
        if busy {
            return;
        }
        self.world.note("world", &("fails", which, host));
        match which {
            // The hub dies at once; or its disk fails in the middle of something, and then it does.
            0 | 1 => self.after(now, 0..1, Change::Crash),
            2 | 3 => {
                self.disk.set_fuse(self.random.u32(..60));
                self.after(now, 1..400, Change::Crash);
            }
            4 | 5 => {
                sim.partition(host, "hub");
                self.after(now, 50..6000, Change::Repair(host));
            }
            6 => {
                sim.partition_oneway(host, "hub");
                self.after(now, 50..6000, Change::Repair(host));
            }
            7 => {
                sim.partition_oneway("hub", host);
                self.after(now, 50..6000, Change::Repair(host));
            }
            10 | 11 => {
                let hours = self.random.f64() * 2.0 - 1.0;
                self.set_clock(hours * 3_600.0);
                self.after(now, 50..3000, Change::Clock);
            }
            // Its disk fills up; it may die while it is full.
            12 | 13 => {
                let room = self.disk.used() + self.random.u64(..256 * 1024);
                self.disk.set_capacity(Some(room));
                self.after(now, 100..5000, Change::Room);
            }
            _ => {
                sim.hold(host, "hub");
                self.after(now, 20..4000, Change::Release(host));
            }
        }
    }
}
