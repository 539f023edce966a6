//! One session with one subscription, as `sub` and its worker mode use it: commands wait here until the transport takes
//! them, so that nobody who waits for a frame keeps the hub from reading.

use std::{collections::VecDeque, time::Duration};

use anyhow::{Context, bail};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::Streaming;

use super::show;
use crate::client::{Target, explain, explain_message};
use crate::proto::v1::{
    AckOutcome, Acknowledge, AddCredit, Credit, Ended, SessionRequest, SessionResponse, Subscribe, SubscriptionSpec,
    Unsubscribe, session_request::Command, session_response::Frame,
};

/// The one subscription.
const SUBSCRIPTION_ID: i64 = 1;
/// How many commands may be on their way into the transport.
const COMMANDS_IN_FLIGHT: usize = 16;
/// How long to wait for the answer to an `unsubscribe`.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// A session with one subscription.
#[derive(Debug)]
pub(super) struct Feed {
    /// `None` for a client that has half-closed.
    commands: Option<mpsc::Sender<SessionRequest>>,
    /// Commands that the transport has not taken yet. The hub bounds them: each answers events it sent.
    waiting: VecDeque<SessionRequest>,
    frames: Streaming<SessionResponse>,
}

impl Feed {
    /// Connects and subscribes. Without `more` commands to come, half-closes at once: deliveries go on.
    pub(super) async fn open(target: &Target, spec: SubscriptionSpec, more: bool) -> anyhow::Result<Self> {
        let (commands, receiver) = mpsc::channel(COMMANDS_IN_FLIGHT);
        let subscribe = Command::Subscribe(Subscribe { subscription_id: SUBSCRIPTION_ID, spec: Some(spec) });
        commands.try_send(request(subscribe)).context("no room for a command")?;
        let commands = more.then_some(commands);
        let response = target.hub().await?.session(ReceiverStream::new(receiver)).await;
        let frames = response.map_err(|status| explain(&status))?.into_inner();
        Ok(Self { commands, waiting: VecDeque::new(), frames })
    }

    /// Whether it was opened for more commands than the first.
    pub(super) fn takes_commands(&self) -> bool {
        self.commands.is_some()
    }

    /// Acknowledges events, or says what else became of them.
    pub(super) fn acknowledge(&mut self, outcome: AckOutcome, sequences: Vec<i64>, reason: String) {
        self.put(Command::Acknowledge(Acknowledge {
            subscription_id: SUBSCRIPTION_ID,
            sequences,
            outcome: outcome.into(),
            reason,
            ..Acknowledge::default()
        }));
    }

    /// Acknowledges everything up to and with a sequence.
    pub(super) fn acknowledge_up_to(&mut self, up_to: i64) {
        self.put(Command::Acknowledge(Acknowledge {
            subscription_id: SUBSCRIPTION_ID,
            up_to,
            outcome: AckOutcome::Ack.into(),
            ..Acknowledge::default()
        }));
    }

    /// Lets the hub send so many events more.
    pub(super) fn add_credit(&mut self, events: i64) {
        let credit = Some(Credit { events, bytes: 0 });
        self.put(Command::Credit(AddCredit { subscription_id: SUBSCRIPTION_ID, credit }));
    }

    /// The next frame; `None` at the end. A frame that tells of a failure is an error. Cancel-safe.
    pub(super) async fn next(&mut self) -> anyhow::Result<Option<Frame>> {
        loop {
            tokio::select! {
                biased;
                permit = permit(self.commands.as_ref()), if !self.waiting.is_empty() => {
                    if let (Some(permit), Some(command)) = (permit, self.waiting.pop_front()) {
                        permit.send(command);
                    } else {
                        // The call is over, as the next frame tells.
                        self.waiting.clear();
                    }
                }
                frame = self.frames.next() => match frame {
                    None => return Ok(None),
                    Some(Err(status)) => return Err(explain(&status)),
                    // A frame of a newer hub.
                    Some(Ok(SessionResponse { frame: None, .. })) => {}
                    Some(Ok(SessionResponse { frame: Some(frame), .. })) => return checked(frame).map(Some),
                }
            }
        }
    }

    /// Unsubscribes and waits until the hub has done all it was told before.
    pub(super) async fn leave(mut self) -> anyhow::Result<()> {
        self.put(Command::Unsubscribe(Unsubscribe { subscription_id: SUBSCRIPTION_ID }));
        let ended = async {
            while let Some(frame) = self.next().await? {
                match frame {
                    Frame::Ended(_) => break,
                    other => tell(&other),
                }
            }
            Ok(())
        };
        match timeout(LEAVE_TIMEOUT, ended).await {
            Ok(left) => left,
            Err(_) => bail!("the hub did not answer `unsubscribe` within {LEAVE_TIMEOUT:?}"),
        }
    }

    fn put(&mut self, command: Command) {
        // Without `commands` nobody is left to take it.
        if self.commands.is_some() {
            self.waiting.push_back(request(command));
        }
    }
}

fn request(command: Command) -> SessionRequest {
    SessionRequest { request_id: 1, command: Some(command) }
}

/// Room for a command; `None` when the call is over.
async fn permit(commands: Option<&mpsc::Sender<SessionRequest>>) -> Option<mpsc::Permit<'_, SessionRequest>> {
    commands?.reserve().await.ok()
}

/// The frame, unless it tells of a failure.
fn checked(frame: Frame) -> anyhow::Result<Frame> {
    match &frame {
        Frame::Error(status) => Err(explain_message(status)),
        Frame::Ended(Ended { status: Some(status), .. }) if status.code != 0 => Err(explain_message(status)),
        _ => Ok(frame),
    }
}

/// Tells a person what is not an event.
pub(super) fn tell(frame: &Frame) {
    match frame {
        Frame::Subscribed(subscribed) if subscribed.epoch != 0 => eprintln!(
            "subscribed from sequence {} (the stream has {} to {})",
            subscribed.start_sequence, subscribed.earliest_sequence, subscribed.latest_sequence
        ),
        Frame::Subscribed(_) => eprintln!("subscribed"),
        Frame::Gap(gap) => eprintln!("gap: {} events lost ({})", gap.count, gap.reason().as_str_name()),
        Frame::Draining(_) => eprintln!("the hub is draining: reconnect"),
        Frame::CredentialExpiring(_) => eprintln!("the token expires soon: the subscription ends shortly after that"),
        Frame::Acknowledged(acknowledged) => {
            for result in &acknowledged.results {
                if let Some(status) = &result.status {
                    let why = explain_message(status).to_string();
                    eprintln!("sequence {}: not acknowledged: {}", result.sequence, show::one_line(&why));
                }
            }
        }
        _ => {}
    }
}
