//! One subscriber of ten that stops reading: what is left of the rate of the other nine.

use switchyard::bench::{
    Side,
    workload::{self, Times},
};

use crate::{
    contender::{Contender, Ground, Run, client, hub, load},
    nats::NatsSide,
};

/// The others.
const HEALTHY: usize = 9;
const PAYLOAD_BYTES: usize = 128;

/// The nine with a tenth that takes nothing, or without it. Every event must reach each of the nine; what becomes of
/// those for the tenth is between it and its server.
pub(crate) async fn measure(ground: &Ground, contender: Contender, stalled: bool, times: Times) -> anyhow::Result<Run> {
    // The plan does not know the tenth, so that nobody waits for it.
    let plan = workload::fan(1, HEALTHY, PAYLOAD_BYTES, workload::window(PAYLOAD_BYTES, 1), times);
    let server = ground.start(contender).await?;
    let filter = plan.topics[0].to_string();
    match contender {
        Contender::Hub => {
            // A stream that is never polled: tonic stops reading it when its window is full. A client would read what it has
            // room for.
            let tenth = if stalled { Some(hub(&server).subscriber(&[filter]).await?) } else { None };
            let run = load(&client(&server), &server, &plan).await?;
            drop(tenth);
            Ok(run)
        }
        Contender::Nats => {
            let side = NatsSide { address: server.address };
            let tenth = if stalled { Some(side.stalled(&filter).await?) } else { None };
            let run = load(&side, &server, &plan).await?;
            drop(tenth);
            Ok(run)
        }
        // Bare tonic isolates nobody: the nine would stand still.
        Contender::Roofline => anyhow::bail!("the roofline waits for its slowest subscriber"),
    }
}
