//! Many subscriptions on one session: what each costs in memory, and what they cost each publish.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use switchyard::proto::v1::{
    Event, PublishRequest, SessionRequest, SessionResponse, Subscribe, SubscriptionSpec, event::Payload,
    hub_service_client::HubServiceClient, session_request::Command, session_response::Frame,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Endpoint};

use crate::{
    child::Server,
    contender::{Contender, Ground, WITHOUT_STREAMS, hub},
};

/// So many subscriptions at each step.
const STEPS: [u64; 4] = [1_000, 10_000, 100_000, 1_000_000];
/// So that the hub takes the last step.
const MOST: [&str; 4] = ["--set", "sessions.max_subscriptions=1000000", "--set", "memory.filters_bytes=2147483648"];
/// So many events go out together, and may be undelivered at a time: as in the loads.
const EVENTS_TOGETHER: u64 = 128;
const WINDOW_EVENTS: u64 = 4096;
const PAYLOAD_BYTES: usize = 128;
/// What this program takes in before it has read it, in bytes.
const WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// So many commands may wait for the transport.
const COMMANDS_IN_FLIGHT: usize = 4;
/// Takes the steps through all subscriptions in an order that no cache can foresee: prime to every step.
const STRIDE: u64 = 7_368_787;
/// After the last event is sent, all must have arrived within this time.
const PATIENCE: Duration = Duration::from_secs(10);
/// What a burst leaves to be done is done after this.
const SETTLE: Duration = Duration::from_millis(300);

/// What was found with so many subscriptions.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) subscriptions: u64,
    /// The growth of the hub's memory for each.
    pub(crate) bytes_each: f64,
    /// How many were added a second since the step before.
    pub(crate) subscribed_per_second: f64,
    /// Time passed for each event, pipelined, and processor time of the hub.
    pub(crate) publish_ns: f64,
    pub(crate) publish_server_ns: f64,
}

/// One session.
struct Client {
    commands: mpsc::Sender<SessionRequest>,
    frames: Streaming<SessionResponse>,
    subscriptions: u64,
}

/// Goes through all steps on a fresh hub.
pub(crate) async fn measure(ground: &Ground, time: Duration) -> anyhow::Result<Vec<Step>> {
    let server = ground.start_with(Contender::Hub, &[&WITHOUT_STREAMS[..], &MOST].concat()).await?;
    let mut client = Client::connect(&server).await?;
    // The buffers of a busy session are no part of what subscriptions cost.
    client.subscribe(1).await?;
    client.publish(&server, time.min(Duration::from_secs(1))).await?;
    tokio::time::sleep(SETTLE).await;
    let before = server.resident_bytes()?;

    let mut steps = Vec::new();
    for subscriptions in STEPS {
        let (begin, known) = (Instant::now(), client.subscriptions);
        client.subscribe(subscriptions).await?;
        let subscribed_per_second = (subscriptions - known) as f64 / begin.elapsed().as_secs_f64();
        tokio::time::sleep(SETTLE).await;
        let grown = server.resident_bytes()?.saturating_sub(before);
        let (publish_ns, publish_server_ns) = client.publish(&server, time).await?;
        let bytes_each = grown as f64 / subscriptions as f64;
        steps.push(Step { subscriptions, bytes_each, subscribed_per_second, publish_ns, publish_server_ns });
    }
    Ok(steps)
}

/// The topic, and filter, of one subscription: three tokens, made and not kept, so that it costs this program the same
/// however many there are.
fn topic(number: u64) -> String {
    format!("many.{}.{}", number / 1000, number % 1000)
}

impl Client {
    async fn connect(server: &Server) -> anyhow::Result<Self> {
        let windows = |endpoint: Endpoint| {
            endpoint.initial_stream_window_size(WINDOW_BYTES).initial_connection_window_size(2 * WINDOW_BYTES)
        };
        let channel = hub(server).target.channel_with(windows).await?;
        let (commands, receiver) = mpsc::channel(COMMANDS_IN_FLIGHT);
        let frames = HubServiceClient::new(channel).session(ReceiverStream::new(receiver)).await.context("Session")?;
        Ok(Self { commands, frames: frames.into_inner(), subscriptions: 0 })
    }

    /// Adds subscriptions until there are so many.
    async fn subscribe(&mut self, until: u64) -> anyhow::Result<()> {
        let from = self.subscriptions;
        let commands = &self.commands;
        let send = async {
            for number in from..until {
                let spec = SubscriptionSpec { filters: vec![topic(number)], ..Default::default() };
                let subscribe = Subscribe { subscription_id: number.cast_signed() + 1, spec: Some(spec) };
                let command = Some(Command::Subscribe(subscribe));
                commands.send(SessionRequest { request_id: 1, command }).await.context("the session ended")?;
            }
            anyhow::Ok(())
        };
        let frames = &mut self.frames;
        let confirm = async {
            let mut left = until - from;
            while left > 0 {
                match frames.message().await?.context("the session ended")?.frame {
                    Some(Frame::Subscribed(_)) => left -= 1,
                    Some(Frame::Ended(ended)) => bail!("subscribe refused: {:?}", ended.status),
                    Some(Frame::Error(status)) => bail!("subscribe refused: {status:?}"),
                    _ => {}
                }
            }
            Ok(())
        };
        tokio::try_join!(send, confirm)?;
        self.subscriptions = until;
        Ok(())
    }

    /// Publishes for some time, each event to one of the subscriptions, and checks that each arrives once, where it
    /// belongs and as it was sent. Returns nanoseconds for each event: time passed, and processor time of the hub.
    async fn publish(&mut self, server: &Server, time: Duration) -> anyhow::Result<(f64, f64)> {
        let (begin, before) = (Instant::now(), server.processor_time()?);
        let mut ledger = Ledger { subscriptions: self.subscriptions, ..Ledger::default() };
        let mut sent = 0;
        while begin.elapsed() < time {
            while sent + EVENTS_TOGETHER <= ledger.arrived + WINDOW_EVENTS {
                let events = (sent..sent + EVENTS_TOGETHER).map(|count| ledger.event(count)).collect();
                let command = Some(Command::Publish(PublishRequest { events, precondition: None }));
                let request = SessionRequest { request_id: 0, command };
                self.commands.send(request).await.context("the session ended")?;
                sent += EVENTS_TOGETHER;
            }
            ledger.check_frame(self.frames.message().await?.context("the session ended")?)?;
        }
        while ledger.arrived < sent {
            let frame = tokio::time::timeout(PATIENCE, self.frames.message()).await;
            let frame = frame.with_context(|| format!("{} of {sent} events are lost", sent - ledger.arrived))?;
            ledger.check_frame(frame?.context("the session ended")?)?;
        }
        let server_time = server.processor_time()?.saturating_sub(before);
        let each = |time: Duration| time.as_secs_f64() * 1e9 / sent as f64;
        Ok((each(begin.elapsed()), each(server_time)))
    }
}

/// Which events have arrived.
#[derive(Debug, Default)]
struct Ledger {
    subscriptions: u64,
    arrived: u64,
    /// A bit for each event.
    seen: Vec<u64>,
}

impl Ledger {
    fn event(&self, count: u64) -> Event {
        let data = payload(count).to_vec().into();
        Event { topic: topic(self.subscription(count)), payload: Some(Payload::Data(data)), ..Event::default() }
    }

    /// Where the event of that count goes.
    fn subscription(&self, count: u64) -> u64 {
        count.wrapping_mul(STRIDE) % self.subscriptions
    }

    fn check_frame(&mut self, response: SessionResponse) -> anyhow::Result<()> {
        match response.frame {
            Some(Frame::Events(events)) => {
                for event in events.events.iter().filter_map(|received| received.event.as_ref()) {
                    let Some(Payload::Data(data)) = &event.payload else { bail!("an event without its payload") };
                    self.check(events.subscription_id, data)?;
                }
                Ok(())
            }
            Some(Frame::Heartbeat(_) | Frame::Welcome(_)) => Ok(()),
            other => bail!("not expected in a load: {other:?}"),
        }
    }

    fn check(&mut self, subscription_id: i64, data: &[u8]) -> anyhow::Result<()> {
        let count = data.first_chunk().map(|count| u64::from_be_bytes(*count)).context("an event was damaged")?;
        ensure!(data == payload(count), "an event was damaged");
        let belongs = self.subscription(count).cast_signed() + 1;
        ensure!(subscription_id == belongs, "an event for {belongs} came to {subscription_id}");
        let (word, bit) = ((count / 64) as usize, 1 << (count % 64));
        if self.seen.len() <= word {
            self.seen.resize(word + 1, 0);
        }
        ensure!(self.seen[word] & bit == 0, "an event came twice");
        self.seen[word] |= bit;
        self.arrived += 1;
        Ok(())
    }
}

/// The count, and a pattern that depends on it.
fn payload(count: u64) -> [u8; PAYLOAD_BYTES] {
    let mut payload = [count as u8; PAYLOAD_BYTES];
    payload[..8].copy_from_slice(&count.to_be_bytes());
    payload
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arrives_wrongly_is_seen() {
        let mut ledger = Ledger { subscriptions: 1_000, ..Ledger::default() };
        let at = |ledger: &Ledger, count| ledger.subscription(count).cast_signed() + 1;
        let (first, second) = (at(&ledger, 0), at(&ledger, 100));
        ledger.check(first, &payload(0)).unwrap();
        ledger.check(second, &payload(100)).unwrap();
        assert_eq!(ledger.arrived, 2);
        assert!(ledger.check(first, &payload(0)).is_err(), "twice");
        assert!(ledger.check(first, &payload(1)).is_err(), "to another");
        let mut damaged = payload(1_000);
        damaged[100] ^= 1;
        assert!(ledger.check(first, &damaged).is_err(), "damaged");
        assert!(ledger.check(first, b"short").is_err(), "short");
    }

    #[test]
    fn every_subscription_has_its_turn() {
        for subscriptions in STEPS {
            let ledger = Ledger { subscriptions, ..Ledger::default() };
            let mut had = vec![false; subscriptions as usize];
            (0..subscriptions).for_each(|count| had[ledger.subscription(count) as usize] = true);
            assert!(had.into_iter().all(|had| had));
        }
    }
}
