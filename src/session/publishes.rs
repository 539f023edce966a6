//! The publishes of one session that are not done: one at most whose events have no sequences yet, and those that wait to be
//! stored. They are answered in order, and the session does not wait for them.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use crate::{
    auth::Caller,
    hub::{Hub, Publisher, Publishing, Sequenced},
    model::CommandError,
    outbox::Published,
};

/// The first half of a publish to streams, with its request id.
type Placing = Pin<Box<dyn Future<Output = (i64, Result<Sequenced, CommandError>)> + Send>>;
/// The second half.
type Storing = Pin<Box<dyn Future<Output = (i64, Vec<Published>)> + Send>>;

/// So many publishes of one session may wait to be stored; it reads no more commands meanwhile.
const MOST_STORING: usize = 256;

/// All of one session.
#[derive(Default)]
pub(super) struct Publishes {
    /// Made with the first publish.
    publisher: Option<Box<Publisher>>,
    /// A publish whose events have no sequences yet.
    placing: Option<Placing>,
    /// Publishes that wait to be stored, in order.
    storing: VecDeque<Storing>,
}

/// What became of a publish, with its request id.
pub(super) enum Progress {
    /// Its events have their sequences; now they are to be stored, and the next publish may begin.
    Sequenced,
    Stored(i64, Vec<Published>),
    Refused(i64, CommandError),
}

impl Publishes {
    /// True when all that was begun is done.
    pub(super) fn is_empty(&self) -> bool {
        self.placing.is_none() && self.storing.is_empty()
    }

    /// True when another one may begin.
    pub(super) fn has_room(&self) -> bool {
        self.placing.is_none() && self.storing.len() < MOST_STORING
    }

    /// What publishes for the client. Not across a change of its principal.
    pub(super) fn publisher(&mut self, hub: &Arc<Hub>, caller: &Caller) -> &mut Publisher {
        self.publisher.get_or_insert_with(|| Box::new(hub.publisher(caller)))
    }

    /// Sees to what a publish came to. The results come back of one that is done.
    pub(super) fn begin(&mut self, request_id: i64, publishing: Publishing) -> Option<Vec<Published>> {
        match publishing {
            Publishing::Done(results) => Some(results),
            Publishing::Storing(placing) => {
                self.placing = Some(Box::pin(async move { (request_id, placing.await) }));
                None
            }
        }
    }

    /// What becomes of those that were begun, one at a time; with none it stays pending.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Progress> {
        if let Some(placing) = &mut self.placing
            && let Poll::Ready((request_id, sequenced)) = placing.as_mut().poll(context)
        {
            self.placing = None;
            return Poll::Ready(match sequenced {
                Ok(sequenced) => {
                    self.storing.push_back(Box::pin(async move { (request_id, sequenced.stored().await) }));
                    Progress::Sequenced
                }
                Err(error) => Progress::Refused(request_id, error),
            });
        }
        if let Some(storing) = self.storing.front_mut()
            && let Poll::Ready((request_id, results)) = storing.as_mut().poll(context)
        {
            self.storing.pop_front();
            return Poll::Ready(Progress::Stored(request_id, results));
        }
        Poll::Pending
    }
}
