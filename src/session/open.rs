//! Opening a subscription: live, from a stream, or as a member of a group.

use std::sync::Arc;

use super::{
    Session,
    feed::{Feed, Feeds},
    membership::Membership,
};
use crate::{
    engine::EventStream,
    hub::{Beginning, Identity, Newcomer},
    model::{CommandError, Filter, Group, OnGap, Position, StreamError, StreamSpec, SubscriptionSpec},
    outbox::{Closed, Opened, Returned, Wanted},
    tasks::Turn,
};

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
        let mut attention = self.desk.take_attention();
        if !attention.is_empty() {
            self.note(&mut attention).await;
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
        let at = (&from.start, from.on_gap);
        let beginning = Beginning::find(self.hub.tokens(), &stream, &state, &filters, at).await?;
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
