//! The one task of a client: it owns the connection and the timers, and does what the machine says.
//!
//! It decides nothing: not when to connect, not what to write, not when to stop. It spawns nothing.

use std::{
    future::pending,
    pin::pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};

use crate::{
    call::Frames,
    error::{Error, ErrorKind},
    link::{Links, Opened},
    machine::{Loss, Machine, Plan, refresh::Fresh, wire::Heard},
    shared::Shared,
};

/// Frames that are on their way into the transport.
const FRAMES_IN_FLIGHT: usize = 16;

/// The driver of one client.
#[derive(Debug)]
pub(crate) struct Driver {
    shared: Arc<Shared>,
    links: Arc<Links>,
}

/// How long a call that takes no more commands may go on.
const LAST_FRAMES: Duration = Duration::from_secs(1);

/// What a turn of the driver began with.
enum Event {
    Frame(Option<Result<Heard, tonic::Status>>),
    Token(u64, Result<Option<Fresh>, Error>),
    /// The call takes no more commands.
    Closed,
    /// It is time for something.
    Time,
    /// Something was written, or a handle rang.
    Other,
}

impl Driver {
    pub(crate) fn new(shared: Arc<Shared>, links: Arc<Links>) -> Self {
        Self { shared, links }
    }

    /// Runs the client until it is over.
    pub(crate) async fn run(self) -> Result<(), Error> {
        loop {
            match self.shared.with(Machine::plan) {
                Plan::Stop(result) => return result,
                Plan::Open(address) => self.session(&address).await,
                Plan::Rest(until) => tokio::select! {
                    () = sleep_until(self.shared.at(until)) => {}
                    () = self.shared.rung() => {}
                },
            }
            // Whatever there is to do, others may work.
            tokio::task::yield_now().await;
        }
    }

    /// One session, from the attempt to its end.
    async fn session(&self, address: &str) {
        let (commands, receiver) = mpsc::channel(FRAMES_IN_FLIGHT);
        let mut opening = pin!(self.links.open(address, receiver));
        let opened = loop {
            let Some(due) = self.shared.with(Machine::opening) else { return };
            tokio::select! {
                opened = &mut opening => break opened,
                () = sleep_until(self.shared.at(due)) => {}
                () = self.shared.rung() => {}
            }
        };
        let loss = match opened {
            Ok(Opened { frames, life, took }) => {
                self.shared.with(|machine, now| machine.connected(now, life, took));
                self.shared.set_outlet(Some(commands.clone()));
                self.serve(frames, commands).await
            }
            Err(error) => Loss::Failed(error),
        };
        self.shared.set_outlet(None);
        self.shared.with(|machine, now| machine.lost(now, loss));
    }

    /// Passes frames between the hub and the machine, until one of them has had enough.
    async fn serve(&self, mut frames: Frames, commands: mpsc::Sender<Bytes>) -> Loss {
        let mut commands = Some(commands);
        let mut fetching = pin!(None);
        let mut timer = pin!(sleep_until(Instant::now()));
        let mut turn = self.shared.with(Machine::turn);
        loop {
            if let Some(loss) = turn.cut {
                return loss;
            }
            if turn.half_closes {
                commands = None;
                self.shared.set_outlet(None);
            }
            if let Some(session) = turn.fetch {
                fetching.set(Some(async move { (session, self.links.fetch().await) }));
            }
            let wake_at = self.shared.at(turn.wake_at);
            // One that rings too early does no harm, and most are never needed.
            if timer.deadline() > wake_at || timer.is_elapsed() {
                timer.as_mut().reset(wake_at);
            }
            let waits_for_room = turn.writes && commands.is_some() && self.shared.write();
            let event = tokio::select! {
                biased;
                frame = frames.next() => Event::Frame(frame),
                has_room = has_room(commands.as_ref()), if waits_for_room => {
                    if has_room { Event::Other } else { Event::Closed }
                }
                (session, token) = async {
                    match fetching.as_mut().as_pin_mut() {
                        Some(fetching) => fetching.await,
                        None => pending().await,
                    }
                } => Event::Token(session, token),
                () = &mut timer => Event::Time,
                () = self.shared.rung() => Event::Other,
            };
            let event = match event {
                // Nothing is silent of which a frame is there.
                Event::Time => match frames.next().now_or_never() {
                    Some(frame) => Event::Frame(frame),
                    None if self.shared.with(Machine::is_silent) => return Loss::Silent,
                    None => Event::Other,
                },
                other => other,
            };
            turn = match event {
                Event::Frame(Some(Ok(frame))) => self.shared.with(|machine, now| {
                    machine.frame(now, SystemTime::now(), frame);
                    machine.turn(now)
                }),
                Event::Frame(Some(Err(status))) => return Loss::Failed(Error::of_status(ErrorKind::Lost, &status)),
                Event::Frame(None) => return Loss::Ended,
                Event::Token(session, token) => {
                    fetching.set(None);
                    self.fetched(session, token);
                    self.shared.with(Machine::turn)
                }
                Event::Closed => return self.last_frames(frames).await,
                Event::Time | Event::Other => self.shared.with(Machine::turn),
            };
            tokio::task::consume_budget().await;
        }
    }

    /// The call takes no more commands. Why, its end says, which is near; a session that only hears is none.
    async fn last_frames(&self, mut frames: Frames) -> Loss {
        let until_the_end = async {
            loop {
                match frames.next().await {
                    Some(Ok(frame)) => {
                        self.shared.with(|machine, now| machine.frame(now, SystemTime::now(), frame));
                    }
                    Some(Err(status)) => return Loss::Failed(Error::of_status(ErrorKind::Lost, &status)),
                    None => return Loss::Ended,
                }
            }
        };
        timeout(LAST_FRAMES, until_the_end).await.unwrap_or(Loss::Ended)
    }

    fn fetched(&self, session: u64, token: Result<Option<Fresh>, Error>) {
        let token = match token {
            Ok(token) => token,
            Err(error) => {
                tracing::warn!(%error, "no fresh token");
                None
            }
        };
        if !self.shared.with(|machine, now| machine.fetched(now, session, token)) {
            tracing::warn!("the source gave no token that a hub takes; it is asked again");
        }
    }
}

impl Drop for Driver {
    /// Without a driver nothing comes and goes: whoever waits is told.
    fn drop(&mut self) {
        self.shared.set_outlet(None);
        self.shared.with(|machine, _| machine.abandon());
    }
}

/// Waits until there is room for a frame; false when the call takes no more.
async fn has_room(commands: Option<&mpsc::Sender<Bytes>>) -> bool {
    match commands {
        Some(commands) => commands.reserve().await.is_ok(),
        None => false,
    }
}
