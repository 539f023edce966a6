//! The hub as a side over generated code, in which events are bytes: for what is measured of single sessions, and beside
//! `client` for what that costs.

use anyhow::{Context, bail};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::Streaming;

use super::{
    opaque,
    side::{Check, Outgoing, Publish, Receive, Side},
};
use crate::{
    client::{Link, Target, explain, explain_message},
    proto::load::{
        SessionRequest, SessionResponse, Subscribe, SubscriptionSpec, hub_service_client::HubServiceClient,
        session_request::Command, session_response::Frame,
    },
};

/// So many commands may wait for the transport of a publisher.
const COMMANDS_IN_FLIGHT: usize = 4;
/// What a client takes in before it has read it, in bytes: a stream has its connection to itself.
const WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// A hub at an address.
#[derive(Debug, Clone)]
pub struct HubSide {
    /// Which one.
    pub target: Target,
    /// One subscription for each filter of a subscriber, instead of one for all.
    pub subscription_per_filter: bool,
}

/// A session that publishes.
#[derive(Debug)]
pub struct HubPublisher {
    commands: mpsc::Sender<SessionRequest>,
    /// Kept open: dropping it would cancel the call, and what is still under way.
    _frames: Streaming<SessionResponse>,
}

/// A session with one subscription.
#[derive(Debug)]
pub struct HubSubscriber {
    frames: Streaming<SessionResponse>,
    /// Kept open, as a client would that may want to do more.
    _commands: mpsc::Sender<SessionRequest>,
}

impl HubSide {
    /// Connects with windows that do not limit a load.
    pub async fn connect(&self) -> anyhow::Result<HubServiceClient<Link>> {
        let channel = self.target.channel_with(|endpoint| {
            endpoint.initial_stream_window_size(WINDOW_BYTES).initial_connection_window_size(2 * WINDOW_BYTES)
        });
        Ok(HubServiceClient::new(self.target.link(channel.await?)?))
    }

    /// Opens a session.
    pub async fn session(&self) -> anyhow::Result<(mpsc::Sender<SessionRequest>, Streaming<SessionResponse>)> {
        let (commands, receiver) = mpsc::channel(COMMANDS_IN_FLIGHT);
        let session = self.connect().await?.session(ReceiverStream::new(receiver)).await;
        Ok((commands, session.map_err(|status| explain(&status))?.into_inner()))
    }
}

impl Side for HubSide {
    type Publisher = HubPublisher;
    type Subscriber = HubSubscriber;

    async fn publisher(&self) -> anyhow::Result<HubPublisher> {
        let (commands, frames) = self.session().await?;
        Ok(HubPublisher { commands, _frames: frames })
    }

    async fn subscriber(&self, filters: &[String]) -> anyhow::Result<HubSubscriber> {
        let (commands, mut frames) = self.session().await?;
        let at_once = if self.subscription_per_filter { 1 } else { filters.len().max(1) };
        let wanted = filters.chunks(at_once).len();
        let send = async {
            for (subscription_id, some) in (1..).zip(filters.chunks(at_once)) {
                let spec = SubscriptionSpec { filters: some.to_vec(), ..Default::default() };
                let subscribe = Command::Subscribe(Subscribe { subscription_id, spec: Some(spec) });
                commands.send(SessionRequest { request_id: 1, command: Some(subscribe) }).await?;
            }
            anyhow::Ok(())
        };
        let confirm = async {
            let mut confirmed = 0;
            while confirmed < wanted {
                let frame = frames.next().await.context("the session ended")?;
                match frame.map_err(|status| explain(&status))?.frame {
                    Some(Frame::Subscribed(_)) => confirmed += 1,
                    Some(Frame::Ended(ended)) => return Err(explain_message(&ended.status.unwrap_or_default())),
                    _ => {}
                }
            }
            Ok(())
        };
        tokio::try_join!(send, confirm)?;
        Ok(HubSubscriber { frames, _commands: commands })
    }
}

impl Publish for HubPublisher {
    async fn publish(&mut self, batch: &mut Vec<Outgoing>) -> anyhow::Result<()> {
        let publish = Command::Publish(opaque::publish(batch));
        batch.clear();
        self.commands.send(SessionRequest { request_id: 0, command: Some(publish) }).await.context("the session ended")
    }
}

impl Receive for HubSubscriber {
    async fn receive(&mut self, check: &mut impl Check) -> anyhow::Result<()> {
        loop {
            let frame = self.frames.next().await.context("the session ended")?;
            match frame.map_err(|status| explain(&status))?.frame {
                Some(Frame::Events(events)) => {
                    return opaque::each_delivered(&events, check).context("an `events` frame does not decode");
                }
                Some(Frame::Heartbeat(_)) => {}
                other => bail!("not expected in a load: {other:?}"),
            }
        }
    }
}
