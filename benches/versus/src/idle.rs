//! Connections that do nothing: what each costs its server in memory.

use std::time::Duration;

use anyhow::ensure;
use tokio_stream::StreamExt;

use crate::{
    contender::{Contender, Ground, hub},
    nats::NatsSide,
    relay::RelaySide,
};

/// So many connections at each step.
const STEPS: [usize; 6] = [100, 500, 1_000, 2_000, 4_000, 8_000];
/// Files this program and a server have open anyway.
const FILES_TO_SPARE: usize = 200;
/// What connecting leaves to be done is done after this.
const SETTLE: Duration = Duration::from_millis(500);

/// Bytes for each connection, with so many of them, up to `most`.
pub(crate) async fn measure(ground: &Ground, contender: Contender, most: usize) -> anyhow::Result<Vec<(usize, f64)>> {
    let files = rlimit::increase_nofile_limit(u64::MAX)? as usize;
    ensure!(files > STEPS[0] + FILES_TO_SPARE, "`ulimit -n` allows no more than {files} open files");
    let server = ground.start(contender).await?;
    // The first one brings what the server has once for all.
    let mut open = vec![connect(contender, &server).await?];
    tokio::time::sleep(SETTLE).await;
    let before = server.resident_bytes()?;

    let mut steps = Vec::new();
    for connections in STEPS.into_iter().filter(|step| *step <= most.min(files - FILES_TO_SPARE)) {
        while open.len() <= connections {
            open.push(connect(contender, &server).await?);
        }
        tokio::time::sleep(SETTLE).await;
        let grown = server.resident_bytes()?.saturating_sub(before);
        steps.push((connections, grown as f64 / connections as f64));
    }
    Ok(steps)
}

/// One connection, open as long as what is returned: with one stream for the hub and for bare tonic.
async fn connect(contender: Contender, server: &crate::child::Server) -> anyhow::Result<Box<dyn std::any::Any>> {
    Ok(match contender {
        Contender::Hub => {
            let (commands, mut frames) = hub(server).session().await?;
            ensure!(frames.next().await.is_some(), "no welcome");
            Box::new((commands, frames))
        }
        Contender::Nats => {
            let client = NatsSide { address: server.address }.connect().await?;
            client.flush().await?;
            Box::new(client)
        }
        Contender::Roofline => {
            use switchyard::bench::Side;
            Box::new(RelaySide { address: server.address }.subscriber(&[]).await?)
        }
    })
}
