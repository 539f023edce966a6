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

use anyhow::Context;
use futures_util::future::try_join_all;
use tokio::time::{sleep, timeout};

use super::{
    folder::Folder,
    hub::HubStore,
    jetstream::{self, JetStream},
    load::{Length, Load, PATIENCE},
    store::{Figure, Member, Shared, Store, Tally},
};
use crate::{
    child::Server,
    contender::{Contender, Ground, Meter},
};

/// The rows.
pub(crate) const ROWS: [&str; 2] = ["group_4_acks", "group_4_redelivered"];
const MEMBERS: usize = 4;
const EVENTS: u64 = 500_000;
/// How often a server is asked whether it has heard of everything.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);

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
