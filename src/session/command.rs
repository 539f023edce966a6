//! What a client can ask of its session, as checked values; and how they come.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio_stream::Stream;

use crate::{
    event::Event,
    hub::{Outcome, Precondition},
    memory::Held,
    model::{CommandError, EventError, Filter, Grant, Labels, SubscriptionSpec},
};

/// One command, or why it is none, and the request id that its answer bears.
#[derive(Debug)]
pub struct Request {
    /// The client's number; 0 asks to hear only of failure.
    pub request_id: i64,
    /// What stands before the fields of the command in an error, such as `update.`; empty where there is no command.
    pub field_path: &'static str,
    /// What to do.
    pub command: Result<Command, CommandError>,
}

/// What to do.
#[derive(Debug)]
pub enum Command {
    /// Who the client is.
    Hello {
        /// For logs and lists.
        client_name: String,
        /// For lists.
        labels: Labels,
        /// Which session it had before.
        previous_session: Option<Arc<str>>,
        /// How often an idle client wants to hear from the hub.
        heartbeat_interval: Option<Duration>,
    },
    /// Open a subscription.
    Subscribe {
        /// 0: the hub chooses.
        subscription_id: i64,
        /// What it wants, or why it cannot have it.
        spec: Result<SubscriptionSpec, CommandError>,
    },
    /// Change what a subscription matches.
    Update {
        /// Which one.
        subscription_id: i64,
        /// In place of all the old ones; at least one.
        filters: Vec<Filter>,
    },
    /// End a subscription.
    Unsubscribe {
        /// Which one.
        subscription_id: i64,
    },
    /// Let the hub send more.
    Credit {
        /// Which subscription.
        subscription_id: i64,
        /// How much more.
        grant: Grant,
    },
    /// Say what became of events.
    Acknowledge {
        /// Which subscription.
        subscription_id: i64,
        /// Which; none with `up_to`.
        sequences: Vec<u64>,
        /// All up to this one.
        up_to: Option<u64>,
        /// What became of them.
        outcome: Outcome,
    },
    /// Publish events.
    Publish {
        /// In order.
        events: Vec<Result<Event, EventError>>,
        /// What must hold for them to be published.
        precondition: Option<Precondition>,
        /// Held for them until they are stored; `None` when none of them is to be.
        memory: Option<Held>,
    },
    /// Take on a fresh credential.
    Authenticate {
        /// What it is.
        token: Secret,
    },
    /// Ask for a pong.
    Ping {
        /// Comes back.
        nonce: Box<str>,
    },
}

/// A text that is never shown.
pub struct Secret(pub Box<str>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// The commands of a client.
pub trait Requests: Stream<Item = Result<Request, CommandError>> + Unpin {
    /// Takes in what has come, while no commands are applied; it comes back as an item later. Flow control bounds it.
    /// Nothing needs to be done where only what is read waits in the transport.
    fn poll_ahead(&mut self, _context: &mut Context<'_>) {}
}

/// Of a call that has none.
#[derive(Debug, Clone, Copy)]
pub struct NoRequests;

impl Stream for NoRequests {
    type Item = Result<Request, CommandError>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(None)
    }
}

impl Requests for NoRequests {}
