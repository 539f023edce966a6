//! One session with all the subscriptions.

use anyhow::{Context as _, bail, ensure};
use switchyard::proto::v1::{hub_service_client::HubServiceClient, session_response::Frame};
use tonic::Code;

use crate::{Args, Subscription};

const BROKEN: &str = "no session with the hub";

/// Opens the subscriptions; when the last one has ended the hub ends the session.
pub(crate) async fn follow(args: &Args, subscriptions: &mut [Subscription]) -> anyhow::Result<()> {
    let commands: Vec<_> = (1..).zip(&*subscriptions).map(|(id, s)| s.command(id, args.count)).collect();
    let (mut opening, mut running) = (commands.len(), commands.len());
    let mut hub = HubServiceClient::connect(format!("http://{}", args.server)).await.context(BROKEN)?;
    // After the last command the hub goes on delivering.
    let mut session = hub.session(tokio_stream::iter(commands)).await.context(BROKEN)?.into_inner();
    while let Some(response) = session.message().await.context(BROKEN)? {
        match response.frame {
            Some(Frame::Subscribed(_)) => {
                opening -= 1;
                if opening == 0 {
                    eprintln!("ready");
                }
            }
            Some(Frame::Events(events)) => {
                let subscription = &mut subscriptions[usize::try_from(events.subscription_id)? - 1];
                for event in events.events.into_iter().filter_map(|received| received.event) {
                    let line = subscription.take(event);
                    if !args.digest {
                        print!("{line}");
                    }
                }
            }
            Some(Frame::Gap(gap)) => {
                let subscription = &subscriptions[usize::try_from(gap.subscription_id)? - 1];
                bail!("{}: lost {} events", subscription.filter, gap.count)
            }
            Some(Frame::Draining(_)) => eprintln!("draining"),
            Some(Frame::Ended(ended)) => {
                let status = ended.status.unwrap_or_default();
                ensure!(status.code == 0, "ended: {:?}: {}", Code::from(status.code), status.message);
                running -= 1;
            }
            Some(Frame::Error(status)) => bail!("error: {:?}: {}", Code::from(status.code), status.message),
            _ => {} // welcome, heartbeat, and frames of a later version
        }
    }
    ensure!(running == 0, "the hub closed the session");
    Ok(())
}
