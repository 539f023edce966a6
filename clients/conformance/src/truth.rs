//! What the hub has, asked of the hub itself with plain calls; and what others do there. The client that is judged has no
//! part in this.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context;
use switchyard_client::proto::v1::{
    CreateGroupRequest, CreateStreamRequest, DeleteStreamRequest, Event, GetGroupRequest, GetSessionRequest, Group,
    GroupState, ListEventsRequest, ListSessionsRequest, ListUnackedRequest, PublishRequest, PurgeStreamRequest,
    StartPosition, StartPreset, Stream, SubscriptionState, UnackedState, event::Payload,
    group_service_client::GroupServiceClient, hub_service_client::HubServiceClient,
    session_service_client::SessionServiceClient, start_position::Position, stream_service_client::StreamServiceClient,
};
use tonic::{
    Request,
    transport::{Channel, Endpoint},
};

use crate::{
    history::{Fact, Kept},
    scenario::{GroupSetup, Seed},
};

const TIMEOUT: Duration = Duration::from_secs(10);
/// The largest page that a hub gives is far smaller.
const MAX_PAGE_BYTES: usize = 16 * 1024 * 1024;

/// A connection to the hub beside that of the client.
#[derive(Debug, Clone)]
pub(crate) struct Truth {
    channel: Channel,
    token: Option<String>,
}

impl Truth {
    pub(crate) fn of(hub: SocketAddr, token: Option<String>) -> anyhow::Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{hub}"))?.connect_timeout(TIMEOUT).timeout(TIMEOUT);
        Ok(Self { channel: endpoint.connect_lazy(), token })
    }

    fn request<T>(&self, message: T) -> anyhow::Result<Request<T>> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("authorization", format!("Bearer {token}").parse()?);
        }
        Ok(request)
    }

    fn streams(&self) -> StreamServiceClient<Channel> {
        StreamServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_PAGE_BYTES)
    }

    fn groups(&self) -> GroupServiceClient<Channel> {
        GroupServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_PAGE_BYTES)
    }

    fn sessions(&self) -> SessionServiceClient<Channel> {
        SessionServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_PAGE_BYTES)
    }

    /// Makes a stream of everything below its name.
    pub(crate) async fn create_stream(&self, name: &str) -> anyhow::Result<()> {
        let stream = Stream { name: name.to_owned(), filters: vec![format!("{name}.>")], ..Stream::default() };
        let request = CreateStreamRequest { stream: Some(stream) };
        self.streams().create_stream(self.request(request)?).await?;
        Ok(())
    }

    pub(crate) async fn delete_stream(&self, name: &str) -> anyhow::Result<()> {
        self.streams().delete_stream(self.request(DeleteStreamRequest { name: name.to_owned() })?).await?;
        Ok(())
    }

    pub(crate) async fn purge(&self, name: &str, up_to: i64) -> anyhow::Result<()> {
        let request = PurgeStreamRequest { name: name.to_owned(), up_to_sequence: up_to, filter: String::new() };
        self.streams().purge_stream(self.request(request)?).await?;
        Ok(())
    }

    /// Makes a group that starts with the first event.
    pub(crate) async fn create_group(&self, setup: &GroupSetup) -> anyhow::Result<()> {
        let deadline = Duration::from_millis(u64::try_from(setup.ack_deadline_ms)?);
        let group = Group {
            stream: setup.stream.clone(),
            name: setup.name.clone(),
            ack_deadline: Some(deadline.try_into()?),
            backoff: vec![Duration::from_millis(50).try_into()?],
            ..Group::default()
        };
        let start = StartPosition { position: Some(Position::Preset(StartPreset::Earliest.into())) };
        let request = CreateGroupRequest { group: Some(group), start: Some(start) };
        self.groups().create_group(self.request(request)?).await?;
        Ok(())
    }

    /// Publishes as somebody else: what was stored where.
    pub(crate) async fn seed(&self, seed: &Seed) -> anyhow::Result<Vec<Fact>> {
        let mut hub = HubServiceClient::new(self.channel.clone());
        let numbers: Vec<u64> = (seed.first..seed.first + seed.count).collect();
        let mut facts = Vec::new();
        for numbers in numbers.chunks(usize::try_from(seed.batch.max(1))?) {
            let events = numbers.iter().map(|number| Event {
                topic: seed.topic.clone(),
                payload: Some(Payload::Text(number.to_string())),
                ..Event::default()
            });
            let request = PublishRequest { events: events.collect(), precondition: None };
            let results = hub.publish(self.request(request)?).await?.into_inner().results;
            for (number, result) in numbers.iter().zip(results) {
                let code = result.status.map_or(0, |status| status.code);
                anyhow::ensure!(code == 0, "{number} was refused with code {code}");
                facts.push(Fact::Seeded { topic: seed.topic.clone(), number: *number, sequence: result.sequence });
            }
        }
        Ok(facts)
    }

    /// All that a stream has; `None` if there is none.
    pub(crate) async fn stored(&self, stream: &str) -> anyhow::Result<Option<Vec<Kept>>> {
        let (mut all, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = ListEventsRequest {
                stream: stream.to_owned(),
                page_size: 1000,
                page_token: page_token.clone(),
                ..ListEventsRequest::default()
            };
            let page = match self.streams().list_events(self.request(request)?).await {
                Ok(page) => page.into_inner(),
                Err(status) if status.code() == tonic::Code::NotFound => return Ok(None),
                Err(status) => return Err(status.into()),
            };
            for received in page.events.into_iter().filter_map(|listed| listed.event) {
                let event = received.event.unwrap_or_default();
                let text = match event.payload {
                    Some(Payload::Text(text)) => text,
                    _ => String::new(),
                };
                all.push(Kept { sequence: received.sequence, topic: event.topic, text });
            }
            if page.next_page_token.is_empty() {
                return Ok(Some(all));
            }
            page_token = page.next_page_token;
        }
    }

    pub(crate) async fn group_state(&self, stream: &str, group: &str) -> anyhow::Result<GroupState> {
        let request = GetGroupRequest { stream: stream.to_owned(), name: group.to_owned() };
        let group = self.groups().get_group(self.request(request)?).await?.into_inner().group;
        group.and_then(|group| group.state).context("no state")
    }

    /// What a group has. Whatever it has as done by now, its member was told to acknowledge before.
    pub(crate) async fn group(&self, stream: &str, group: &str) -> anyhow::Result<Fact> {
        let cursor = self.group_state(stream, group).await?.cursor;
        let (mut unacked, mut sent, mut page_token) = (Vec::new(), 0, String::new());
        loop {
            let request = ListUnackedRequest {
                stream: stream.to_owned(),
                group: group.to_owned(),
                page_size: 1000,
                page_token: page_token.clone(),
            };
            let page = self.groups().list_unacked(self.request(request)?).await?.into_inner();
            for event in page.events {
                sent += u64::from(event.state() == UnackedState::Sent);
                unacked.push(event.sequence);
            }
            if page.next_page_token.is_empty() {
                break;
            }
            page_token = page.next_page_token;
        }
        Ok(Fact::Group { stream: stream.to_owned(), group: group.to_owned(), cursor, sent, unacked })
    }

    /// The sessions of the hub.
    pub(crate) async fn session_ids(&self) -> anyhow::Result<Vec<String>> {
        let request = ListSessionsRequest { page_size: 1000, page_token: String::new() };
        let sessions = self.sessions().list_sessions(self.request(request)?).await?.into_inner().sessions;
        Ok(sessions.into_iter().map(|session| session.session_id).collect())
    }

    /// The first subscriptions of a session.
    pub(crate) async fn subscriptions(&self, session_id: &str) -> anyhow::Result<Vec<SubscriptionState>> {
        let request = GetSessionRequest { session_id: session_id.to_owned(), page_size: 20, page_token: String::new() };
        Ok(self.sessions().get_session(self.request(request)?).await?.into_inner().subscriptions)
    }
}
