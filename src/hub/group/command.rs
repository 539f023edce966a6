//! What a group is asked to do, and who is told what came of it.

use std::{fmt, sync::Arc};

use tokio::sync::oneshot;

use super::{
    shown::{MemberStatus, UnackedEvent},
    status::GroupStatus,
};
use crate::{
    engine::EventStream,
    event::Event,
    groups::{MemberId, Outcome},
    model::{AckError, AckMode, CommandError, Filter, GroupSettings, Start, StreamError},
    outbox::{Acked, Filler, Frame, Reply, SubscriptionKey},
};

/// Where an answer goes.
pub(super) type Answer<T> = oneshot::Sender<Result<T, StreamError>>;

/// How sure what is told of a group has to be. Whichever it is, what is told when that takes too long is how it was stored
/// last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AsOf {
    /// As it is now: a crash may undo the last of it. Does not wait for that to be stored.
    Now,
    /// Told once it is stored, so that no crash undoes it, or could not be.
    Stored,
}

/// What became of dead letters that were given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redriven {
    /// This many are delivered again.
    pub redriven: usize,
    /// This many are nothing for the members there are, and stay.
    pub unmatched: usize,
    /// For the others there was no room: too many wait to be delivered.
    pub full: bool,
}

/// Names one member, for its client to name it when it comes back on another transport. A name that a client gives itself
/// would not do: those of one service are called the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    /// Whose it is.
    pub(crate) principal: Arc<str>,
    /// Its session.
    pub(crate) session: Arc<str>,
    /// Its subscription there.
    pub(crate) subscription_id: i64,
}

/// Who wants to be a member.
#[derive(Debug)]
pub(crate) struct Newcomer {
    /// The number it has from then on.
    pub(crate) member: MemberId,
    /// Where what it gets is put.
    pub(crate) outbox: Filler,
    /// Its subscription there, which is reserved.
    pub(crate) key: SubscriptionKey,
    /// What `subscribed` answers.
    pub(crate) request_id: i64,
    /// By which it is known when it comes back.
    pub(crate) identity: Identity,
    /// The one that it was before.
    pub(crate) previous: Option<Identity>,
    /// It is waited for when its transport is lost.
    pub(crate) may_return: bool,
    /// The name that its client gave itself.
    pub(crate) client_name: Option<Arc<str>>,
    /// What it wants of the stream; none: everything.
    pub(crate) filters: Arc<[Filter]>,
    /// Where a group begins that does not exist yet.
    pub(crate) start: Start,
    /// How it acknowledges.
    pub(crate) ack_mode: AckMode,
    /// If it comes back: the events that it has in its hands, ascending; `None` if it does not say.
    pub(crate) held: Option<Arc<[u64]>>,
    /// It grants no credit: it is sent as much as it acknowledges.
    pub(crate) automatic_credit: bool,
    /// It ends when the stream has removed what the group has yet to do, instead of going on behind that.
    pub(crate) ends_with_gap: bool,
    /// It wants this many events and no more; `None` is no limit.
    pub(crate) max_events: Option<u64>,
}

/// What stands before the fields of the command that acknowledges, in an error.
const FIELD_PATH: &str = "acknowledge.";

/// Who acknowledges: it is told what became of that, whatever became of its membership.
#[derive(Debug)]
pub(crate) struct Speaker {
    /// Where it is told.
    pub(crate) outbox: Filler,
    /// Its subscription there.
    pub(crate) key: SubscriptionKey,
    /// The id of the subscription.
    pub(crate) subscription_id: i64,
    /// What the answer bears.
    pub(crate) request_id: i64,
}

impl Speaker {
    /// Tells what became of the events; with request id 0 a client hears of failures only. Where its subscription is gone it
    /// hears that, if it asked to hear anything.
    pub(super) fn tell(&self, results: Vec<Acked>) {
        let (id, request_id) = (self.subscription_id, self.request_id);
        if request_id == 0 && results.iter().all(|(_, result)| result.is_ok()) {
            return;
        }
        let reply = Reply { request_id, frame: Frame::Acknowledged { subscription_id: id, results } };
        self.outbox.reply_for(self.key, reply, || {
            let error = Box::new(CommandError::SubscriptionNotFound { id });
            (request_id != 0).then_some(Reply { request_id, frame: Frame::Error { field_path: FIELD_PATH, error } })
        });
    }

    /// The same, once that is stored or could not be.
    pub(super) fn tell_stored(&self, mut results: Vec<Acked>, stored: Result<(), StreamError>) {
        if let Err(error) = stored {
            results.iter_mut().filter(|(_, result)| result.is_ok()).for_each(|(_, result)| {
                *result = Err(error.clone().into());
            });
        }
        self.tell(results);
    }

    /// Tells one that is no member any more, and so has none of the events.
    pub(super) fn refuse(&self, sequences: &[u64], up_to: Option<u64>) {
        let all = sequences.iter().copied().chain(up_to);
        self.tell(all.map(|sequence| (sequence, Err(AckError::NotDelivered))).collect());
    }
}

/// How a member went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Departure {
    /// In good order.
    Left,
    /// Its transport is lost.
    Lost,
}

/// What to show of a group, of which nothing is changed by that.
#[derive(Debug)]
pub(crate) enum View {
    /// How many events each of these members was sent and has yet to acknowledge; `None` for one that is no member.
    Held {
        /// Which.
        of: Vec<Identity>,
        /// Where the answer goes; dropped where there is no such group.
        answer: oneshot::Sender<Vec<Option<u64>>>,
    },
    /// Some members, and where to go on if there are more.
    Members {
        /// Those with higher numbers.
        after: u64,
        /// At most so many.
        most: usize,
        /// Where the answer goes.
        answer: Answer<(Vec<MemberStatus>, Option<u64>)>,
    },
    /// Some events that were delivered and are not done, and where to go on if there may be more.
    Unacked {
        /// Those behind this sequence.
        after: u64,
        /// At most so many.
        most: usize,
        /// Where the answer goes.
        answer: Answer<(Vec<UnackedEvent>, Option<u64>)>,
    },
}

/// About how many things are looked at to show some of a group.
const VIEW_STEPS: usize = 2048;

/// What to do.
pub(crate) enum Command {
    /// Take in a member, and tell it that it is subscribed.
    Join {
        /// Who.
        newcomer: Box<Newcomer>,
        /// Where the answer goes.
        answer: Answer<()>,
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
        /// Where the answer goes.
        speaker: Speaker,
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
    GroupStatus {
        /// When.
        as_of: AsOf,
        /// Where the answer goes.
        answer: Answer<GroupStatus>,
    },
    /// Show something of it.
    View(View),
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
    /// Store what is given up.
    Bury(Answer<()>),
    /// Deliver events again, as if they never had been, and remove their dead letters.
    Redrive {
        /// Where the dead letters are.
        letters: Arc<dyn EventStream>,
        /// Each with the sequence of its dead letter.
        events: Vec<(u64, Event)>,
        /// Where it goes what became of them.
        answer: Answer<Redriven>,
    },
}

/// What it costs to look at one sequence, in steps.
const SEQUENCE_STEPS: usize = 4;

impl Command {
    /// About how many steps it takes, beside waiting.
    pub(super) fn steps(&self) -> usize {
        let sequences = match self {
            Self::Join { newcomer, .. } => newcomer.held.as_ref().map_or(1, |held| held.len()),
            Self::Handed { sent, dropped, .. } => sent.len() + dropped.len(),
            Self::Acknowledge { sequences, .. } => sequences.len(),
            Self::Redrive { events, .. } => events.len(),
            Self::View(View::Held { of, .. }) => of.len(),
            Self::View(_) => return VIEW_STEPS,
            _ => 1,
        };
        SEQUENCE_STEPS * sequences
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Command")
    }
}
