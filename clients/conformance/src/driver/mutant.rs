//! Drivers that break a rule on purpose. Each does what a faulty client would do, or reports what one would.

use std::time::{Duration, Instant};

use clap::ValueEnum;
use switchyard_conformance::protocol::{Phase, Report, State};
use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::out::Out;

/// What the driver does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mutant {
    /// It says nothing of some states.
    SkipConnecting,
    /// It ends with its first session.
    GivesUp,
    /// It connects without a pause.
    Spin,
    /// It waits as long as it may, always.
    NoJitter,
    /// It waits too long for a silent hub.
    SlowHeartbeat,
    /// The token of its source is never another one.
    StaleToken,
    /// Two events change places.
    Swap,
    /// An event is lost.
    Drop,
    /// An event comes twice.
    Twice,
    /// Its window is twice as large.
    BigWindow,
    /// It keeps gaps to itself.
    HideGap,
    /// It says that events are stored where they are not.
    Lie,
    /// It publishes again, as if it were another event.
    Republish,
    /// It publishes in another order.
    Reverse,
    /// Its queue has no limit.
    BigQueue,
    /// It acknowledges what it takes by itself.
    EarlyAck,
    /// It gives back as if it had failed.
    ReleaseNacks,
    /// What it takes is done at once.
    EarlyDone,
    /// It ends twice.
    EndedTwice,
    /// It does not end.
    Lingers,
    /// It opens more and more.
    Leak,
    /// It stops taking events.
    Stuck,
}

/// What some do before there is a client.
pub(crate) async fn before_connect(mutant: Mutant, addresses: &[String], out: &Out, work: &mut JoinSet<()>) {
    let Some(address) = addresses.first().map(|address| address.trim_start_matches("http://").to_owned()) else {
        return;
    };
    match mutant {
        Mutant::Spin => {
            work.spawn(async move {
                loop {
                    drop(TcpStream::connect(&address).await);
                    sleep(Duration::from_millis(10)).await;
                }
            });
        }
        Mutant::NoJitter => wait_without_jitter(&address, out).await,
        _ => {}
    }
}

/// Tries until there is a hub, always after the longest wait.
async fn wait_without_jitter(address: &str, out: &Out) {
    let say = |state| {
        let (reason, address, session) = (String::new(), address.to_owned(), String::new());
        out.say(&Report::State(State { state, reason, address, session }));
    };
    let mut wait = Duration::from_millis(100);
    loop {
        say(Phase::Connecting);
        let is_there = answers(address).await;
        say(Phase::Waiting);
        if is_there {
            return;
        }
        let until = Instant::now() + wait;
        tokio::time::sleep_until(until.into()).await;
        wait = (wait * 2).min(Duration::from_secs(5));
    }
}

/// Whether there is a hub: the connection does not end at once.
async fn answers(address: &str) -> bool {
    let Ok(mut stream) = TcpStream::connect(address).await else { return false };
    match timeout(Duration::from_millis(300), stream.read(&mut [0; 1])).await {
        Ok(read) => matches!(read, Ok(1)),
        // It waits for what a client says.
        Err(_) => true,
    }
}
