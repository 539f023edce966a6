//! What a group is asked to do.

use std::{fmt, sync::Arc};

use tokio::sync::oneshot;

use super::manage::Standing;
use crate::{
    groups::{MemberId, Outcome},
    model::{AckMode, Event, Filter, GroupSettings, Start, StreamError},
    outbox::{Outbox, SubscriptionKey},
};

/// Where an answer goes.
pub(super) type Answer<T> = oneshot::Sender<Result<T, StreamError>>;

/// Names a client that may come back on another transport: the name it gave itself, and the subscription.
pub(in crate::session) type Identity = (Arc<str>, i64);

/// Who wants to be a member.
#[derive(Debug)]
pub(in crate::session) struct Newcomer {
    /// Where what it gets is put.
    pub(in crate::session) outbox: Arc<Outbox>,
    /// Its subscription there, which is reserved.
    pub(in crate::session) key: SubscriptionKey,
    /// The id of the subscription.
    pub(in crate::session) subscription_id: i64,
    /// What `subscribed` answers.
    pub(in crate::session) request_id: i64,
    /// By which it is known when it comes back.
    pub(in crate::session) identity: Option<Identity>,
    /// What it wants of the stream; none: everything.
    pub(in crate::session) filters: Arc<[Filter]>,
    /// Where a group begins that does not exist yet.
    pub(in crate::session) start: Start,
    /// How it acknowledges.
    pub(in crate::session) ack_mode: AckMode,
}

/// How a member went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::session) enum Departure {
    /// In good order.
    Left,
    /// Its transport is lost.
    Lost,
}

/// What to do.
pub(in crate::session) enum Command {
    /// Take in a member, and tell it that it is subscribed. Tells the number it has from then on.
    Join {
        /// Who.
        newcomer: Box<Newcomer>,
        /// Where its number goes.
        answer: Answer<MemberId>,
    },
    /// Note what became of what a member was handed.
    Handed {
        /// Which member.
        member: MemberId,
        /// The writer took these, in order.
        sent: Vec<u64>,
        /// These will not be sent.
        dropped: Vec<u64>,
        /// There is room for more.
        hungry: bool,
    },
    /// Apply what a member says about events.
    Acknowledge {
        /// Which member.
        member: MemberId,
        /// What the answer bears.
        request_id: i64,
        /// Which events; none with `up_to`.
        sequences: Vec<u64>,
        /// All up to this one.
        up_to: Option<u64>,
        /// What became of them.
        outcome: Outcome,
    },
    /// Say when all acknowledgements that came before are answered.
    Settle(oneshot::Sender<()>),
    /// Make the group.
    Create {
        /// How it is set up.
        settings: GroupSettings,
        /// Where it begins.
        start: Start,
        /// Where the answer goes.
        answer: Answer<()>,
    },
    /// Tell how it stands.
    Standing(Answer<Standing>),
    /// Change its settings.
    Update {
        /// What to change.
        change: Box<dyn FnOnce(&mut GroupSettings) + Send>,
        /// Where the answer goes.
        answer: Answer<()>,
    },
    /// Move its cursor.
    Seek {
        /// Where to.
        to: Start,
        /// Where the answer goes.
        answer: Answer<()>,
    },
    /// Delete it.
    Delete(Answer<()>),
    /// Deliver these again, as if they never had been.
    Reopen {
        /// Which.
        events: Vec<Arc<Event>>,
        /// Where the number of those goes for which there was room.
        answer: Answer<usize>,
    },
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Command")
    }
}
