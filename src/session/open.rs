//! Opening a subscription: live, from a stream, or as a member of a group; where one begins that reads a stream, and whether
//! it can.

use std::{sync::Arc, time::SystemTime};

use super::{
    Session,
    feed::{Feed, Feeds},
    membership::Membership,
};
use crate::{
    engine::{EventStream, ReadError},
    hub::{Identity, Newcomer, TokenKey},
    model::{
        CommandError, Filter, Group, OnGap, Position, Start, StreamError, StreamSpec, StreamState, SubscriptionSpec,
    },
    outbox::{Closed, GapReason, Opened, ResumeOutcome, Returned, Wanted},
    tasks::Turn,
};

/// Where a subscription begins.
struct Beginning {
    /// Behind this sequence.
    after: u64,
    outcome: ResumeOutcome,
    /// What it has lost before it begins: up to where it then goes on.
    lost: Option<(u64, GapReason)>,
    /// With whatever is there: what is deleted before it has begun is no loss.
    with_what_is_there: bool,
    /// Up to this sequence only the last event of each topic comes.
    last_up_to: u64,
    /// It begins with what is stored at this time, which is not yet, or later.
    at: Option<SystemTime>,
}

impl Beginning {
    fn after(after: u64) -> Self {
        Self { after, outcome: ResumeOutcome::Fresh, lost: None, with_what_is_there: false, last_up_to: 0, at: None }
    }

    fn with_what_is_there(after: u64) -> Self {
        Self { with_what_is_there: true, ..Self::after(after) }
    }
}

impl Session {
    /// Routed first and confirmed second, so that whatever is published after the client has seen `subscribed` reaches
    /// it. What is published in between waits behind that frame.
    pub(super) async fn open_subscription(
        &mut self,
        request_id: i64,
        id: i64,
        spec: &SubscriptionSpec,
    ) -> Result<(), CommandError> {
        // Those that have ended count no more.
        let attention = self.desk.take_attention();
        if !attention.is_empty() {
            self.note(attention).await;
        }
        let spec = self.guard.admitted(spec, self.hub.engine())?;
        Turn::default().spend(spec.steps()).await;
        let id = match &spec.stream {
            Some(from) => self.open_stream(request_id, id, &spec, from).await?,
            None => self.open_live(request_id, id, &spec).await?,
        };
        self.guard.hold(id, &spec, &self.desk);
        Ok(())
    }

    async fn open_live(&mut self, request_id: i64, id: i64, spec: &SubscriptionSpec) -> Result<i64, CommandError> {
        let (key, id) = self.desk.reserve(id, spec)?;
        match self.hub.router().subscribe(self.outbox_id, key, &spec.filters, spec.group.as_ref()).await {
            Ok(route) => {
                if let Err(route) = self.desk.open(key, route, request_id) {
                    self.forget(vec![Closed { key, route }]).await;
                }
                Ok(id)
            }
            Err(error) => {
                self.desk.release(key);
                Err(error)
            }
        }
    }

    /// Opens a subscription that reads a stream, and answers with `subscribed`. Its id comes back.
    async fn open_stream(
        &mut self,
        request_id: i64,
        id: i64,
        spec: &SubscriptionSpec,
        from: &StreamSpec,
    ) -> Result<i64, CommandError> {
        let engine = self.hub.engine().ok_or(StreamError::None)?;
        let name = from.name.as_str();
        let stream = engine.stream(name).ok_or_else(|| StreamError::NotFound(name.to_owned()))?;
        if let Some(group) = &spec.group {
            return self.open_member(request_id, id, spec, (&stream, from, group)).await;
        }
        let state = stream.state().await.map_err(|error| error.about(stream.name()))?;
        let filters: Arc<[Filter]> = spec.filters.as_slice().into();
        self.feeds().check(&filters)?;
        let beginning = beginning(self.hub.tokens(), &stream, &state, &filters, from).await?;
        let (key, id) = self.desk.reserve(id, spec)?;
        let origin = Arc::new(stream.origin());
        let opened = Opened {
            position: Position { origin, sequence: beginning.after },
            earliest: state.earliest,
            latest: state.latest,
            outcome: beginning.outcome,
            ack_deadline: None,
            returned: Returned::default(),
        };
        if !self.desk.open_stored(key, opened, Wanted::new(Arc::clone(&filters)), request_id) {
            return Ok(id);
        }
        let start = beginning.with_what_is_there.then_some(beginning.after);
        let feed = Feed::new(stream, filters, from.on_gap, start, beginning.last_up_to, beginning.at);
        self.feeds().add(key, feed, beginning.lost);
        Ok(id)
    }

    /// Opens a subscription that is a member of a group; the group answers with `subscribed`. Its id comes back.
    async fn open_member(
        &mut self,
        request_id: i64,
        id: i64,
        spec: &SubscriptionSpec,
        (stream, from, group): (&Arc<dyn EventStream>, &StreamSpec, &Group),
    ) -> Result<i64, CommandError> {
        let groups = self.hub.groups().ok_or(StreamError::None)?;
        let (key, id) = self.desk.reserve(id, spec)?;
        let identity = |session: &Arc<str>| Identity {
            principal: Arc::clone(self.guard.caller().principal().id()),
            session: Arc::clone(session),
            subscription_id: id,
        };
        let newcomer = Box::new(Newcomer {
            member: groups.next_member(),
            outbox: self.desk.filler(),
            key,
            request_id,
            identity: identity(&self.entry.id),
            previous: self.before.as_ref().map(identity),
            may_return: self.entry.client_name().is_some(),
            client_name: self.entry.client_name().cloned(),
            filters: spec.filters.as_slice().into(),
            start: from.start.clone(),
            ack_mode: from.ack_mode,
            held: from.held.clone(),
            automatic_credit: spec.credit.is_none(),
            ends_with_gap: from.on_gap == OnGap::Fail,
            max_events: spec.max_events,
        });
        let membership = Membership::new(groups.handle(stream, group), &newcomer);
        match membership.join(newcomer).await {
            Ok(()) => {
                self.memberships.get_or_insert_default().add(key, membership);
                Ok(id)
            }
            Err(error) => {
                self.desk.release(key);
                Err(error.into())
            }
        }
    }

    fn feeds(&mut self) -> &mut Feeds {
        self.feeds.get_or_insert_with(|| {
            let options = self.hub.options();
            let feeds = Feeds::new(self.desk.filler(), options.heartbeat_interval(), options.max_filter_shapes);
            Box::new(feeds)
        })
    }
}

/// Where a subscription begins that was asked for so.
async fn beginning(
    tokens: &TokenKey,
    stream: &Arc<dyn EventStream>,
    state: &StreamState,
    filters: &Arc<[Filter]>,
    from: &StreamSpec,
) -> Result<Beginning, StreamError> {
    Ok(match &from.start {
        Start::New => Beginning::after(state.latest),
        Start::Earliest => Beginning::with_what_is_there(state.earliest - 1),
        Start::LastPerTopic => {
            let first = stream.last_per_topic(filters, 0, state.latest, 1).await;
            let first = first.map_err(|error| error.about(stream.name()))?;
            let after = first.first().map_or(state.latest, |sequence| sequence - 1);
            Beginning { last_up_to: state.latest, ..Beginning::after(after) }
        }
        Start::After(sequence) => resume(state, *sequence, from.on_gap)?,
        Start::At(time) if *time > stream.now() => Beginning { at: Some(*time), ..Beginning::after(state.latest) },
        Start::At(time) => match stream.first_at(*time).await {
            Ok(sequence) => Beginning::with_what_is_there(sequence.max(state.earliest) - 1),
            Err(ReadError::Lost { earliest, .. }) => Beginning::with_what_is_there(earliest - 1),
            Err(error) => return Err(error.about(stream.name())),
        },
        Start::Token(token) => {
            let position = tokens.open(token)?;
            if position.origin.stream != state.settings.name {
                let problem = format!("is for stream {}", position.origin.stream);
                return Err(StreamError::Mismatch { field: "start.resume_token", problem });
            }
            // One that is further than the stream has seen a tail that is lost: the store was put back from a copy.
            let beginning = if position.origin.epoch == state.epoch && position.sequence <= state.latest {
                resume(state, position.sequence, from.on_gap)?
            } else {
                anew(state, from.on_gap)?
            };
            let resumed = beginning.outcome == ResumeOutcome::Fresh;
            Beginning { outcome: if resumed { ResumeOutcome::Resumed } else { beginning.outcome }, ..beginning }
        }
    })
}

/// Behind a sequence of the stream as it is.
fn resume(state: &StreamState, after: u64, on_gap: OnGap) -> Result<Beginning, StreamError> {
    let (earliest, latest) = (state.earliest, state.latest);
    if after > latest {
        let problem = format!("is beyond the end of the stream, which is {latest}");
        return Err(StreamError::Mismatch { field: "start.after_sequence", problem });
    }
    if after + 1 >= earliest {
        return Ok(Beginning::after(after));
    }
    let to = match on_gap {
        OnGap::Fail => {
            return Err(StreamError::Lost { stream: state.settings.name.clone(), after, earliest, latest });
        }
        OnGap::Earliest => earliest - 1,
        OnGap::Latest => latest,
    };
    let lost = Some((to, GapReason::Retention));
    Ok(Beginning { outcome: ResumeOutcome::Gap, lost, ..Beginning::after(after) })
}

/// In a stream that is not the one the position is from.
fn anew(state: &StreamState, on_gap: OnGap) -> Result<Beginning, StreamError> {
    let (earliest, latest) = (state.earliest, state.latest);
    let after = match on_gap {
        OnGap::Fail => return Err(StreamError::Epoch { stream: state.settings.name.clone(), earliest, latest }),
        OnGap::Earliest => earliest - 1,
        OnGap::Latest => latest,
    };
    Ok(Beginning { outcome: ResumeOutcome::Gap, lost: Some((after, GapReason::Epoch)), ..Beginning::after(after) })
}
