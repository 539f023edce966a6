//! A hub with a group at work, for the tests of groups on streams.

use std::{collections::VecDeque, time::Duration};

use switchyard::{
    proto::v1::{
        AckMode, AckOutcome, Acknowledge, CreateGroupRequest, CreateStreamRequest, DeadLetter, Event, Gap,
        GetGroupRequest, Group, GroupState, ListDeadLettersRequest, ReceivedEvent, StartPosition, StartPreset, Stream,
        SubscriptionSpec, Unsubscribe, event::Payload, group_service_client::GroupServiceClient,
        hub_service_client::HubServiceClient, session_request::Command as Wire, session_response::Frame,
        start_position::Position, stream_service_client::StreamServiceClient,
    },
    server::Server,
};
use tonic::transport::Channel;

use crate::harness::{Folder, Session, channel, event, publish, reason, until};

/// A hub with a stream `jobs` of `jobs.>` and a stream `lost` for dead letters.
pub struct Place {
    pub server: Server,
    pub groups: GroupServiceClient<Channel>,
    pub streams: StreamServiceClient<Channel>,
    pub hub: HubServiceClient<Channel>,
}

impl Place {
    pub async fn new(folder: &Folder) -> Self {
        let mut place = Self::again(folder).await;
        place.stream("jobs", "jobs.>").await;
        place.stream("lost", "lost.>").await;
        place
    }

    /// With the streams it had.
    pub async fn again(folder: &Folder) -> Self {
        let server = folder.hub().await;
        let channel = channel(server.address).await;
        Self {
            server,
            groups: GroupServiceClient::new(channel.clone()),
            streams: StreamServiceClient::new(channel.clone()),
            hub: HubServiceClient::new(channel),
        }
    }

    pub async fn stream(&mut self, name: &str, filter: &str) {
        let stream = Stream { name: name.into(), filters: vec![filter.into()], ..Stream::default() };
        self.streams.create_stream(CreateStreamRequest { stream: Some(stream) }).await.expect("created");
    }

    pub async fn group(&mut self, change: impl FnOnce(&mut Group)) -> Group {
        let mut group = Group { stream: "jobs".into(), name: "g".into(), ..Group::default() };
        group.backoff = vec![ms(20)];
        change(&mut group);
        let request = CreateGroupRequest { group: Some(group), start: preset(StartPreset::Earliest) };
        self.groups.create_group(request).await.expect("created").into_inner().group.expect("told")
    }

    pub async fn publish(&mut self, texts: &[impl AsRef<str>]) {
        self.publish_keyed(&texts.iter().map(|text| (text.as_ref(), "")).collect::<Vec<_>>()).await;
    }

    pub async fn publish_keyed(&mut self, events: &[(&str, &str)]) {
        let events =
            events.iter().map(|(text, key)| Event { key: (*key).to_owned(), ..event("jobs.a", *text) }).collect();
        self.hub.publish(publish(events)).await.expect("published");
    }

    pub async fn state(&mut self) -> GroupState {
        let request = GetGroupRequest { stream: "jobs".into(), name: "g".into() };
        let group = self.groups.get_group(request).await.expect("told").into_inner().group.expect("a group");
        group.state.expect("a state")
    }

    pub async fn letters(&mut self) -> Vec<DeadLetter> {
        let request = ListDeadLettersRequest { stream: "jobs".into(), group: "g".into(), ..Default::default() };
        self.groups.list_dead_letters(request).await.expect("told").into_inner().dead_letters
    }

    pub async fn until_letters(&mut self, count: usize) -> Vec<DeadLetter> {
        let mut letters = Vec::new();
        until("every dead letter is there", async || {
            letters = self.letters().await;
            letters.len() == count
        })
        .await;
        letters
    }

    pub async fn member(&self) -> Member {
        self.member_with(|_| {}).await
    }

    pub async fn member_with(&self, change: impl FnOnce(&mut SubscriptionSpec)) -> Member {
        let mut session = Session::open(self.server.address).await;
        let mut spec = member();
        change(&mut spec);
        session.subscribe(1, spec).await;
        Member { session, waiting: VecDeque::new(), gaps: Vec::new(), request: 100 }
    }

    pub async fn stop(self) {
        drop((self.groups, self.streams, self.hub));
        self.server.stop(Duration::ZERO).await;
    }
}

/// One subscription, with the id 1, in a session of its own.
pub struct Member {
    pub session: Session,
    pub waiting: VecDeque<ReceivedEvent>,
    /// What it was told is lost.
    pub gaps: Vec<Gap>,
    pub request: i64,
}

impl Member {
    pub async fn event(&mut self) -> ReceivedEvent {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return event;
            }
            match self.session.frame().await.frame {
                Some(Frame::Events(events)) => {
                    assert_eq!(events.resume_token, "", "the hub keeps the place of a member");
                    self.waiting.extend(events.events);
                }
                Some(Frame::Gap(gap)) => self.gaps.push(gap),
                Some(Frame::Heartbeat(_)) => {}
                other => panic!("not events: {other:?}"),
            }
        }
    }

    pub async fn texts(&mut self, count: usize) -> Vec<String> {
        let mut texts = Vec::new();
        while texts.len() < count {
            texts.push(text(&self.event().await));
        }
        texts
    }

    /// Says something of events, and gives the sequences for which that failed, and why.
    pub async fn say(&mut self, sequences: &[i64], change: impl FnOnce(&mut Acknowledge)) -> Vec<(i64, String)> {
        let mut told = Acknowledge { subscription_id: 1, sequences: sequences.to_vec(), ..Acknowledge::default() };
        change(&mut told);
        self.request += 1;
        self.session.send(self.request, Wire::Acknowledge(told)).await;
        loop {
            let frame = self.session.frame().await;
            match frame.frame {
                Some(Frame::Events(events)) => self.waiting.extend(events.events),
                Some(Frame::Acknowledged(acknowledged)) => {
                    assert_eq!((frame.request_id, acknowledged.subscription_id), (self.request, 1));
                    assert_eq!(acknowledged.results.len(), sequences.len().max(1));
                    let failed = acknowledged
                        .results
                        .iter()
                        .filter_map(|result| Some((result.sequence, reason(result.status.as_ref()?))));
                    return failed.collect();
                }
                Some(Frame::Gap(gap)) => self.gaps.push(gap),
                Some(Frame::Heartbeat(_)) => {}
                other => panic!("not acknowledged: {other:?}"),
            }
        }
    }

    pub async fn ack(&mut self, sequences: &[i64]) {
        assert_eq!(self.say(sequences, |_| {}).await, []);
    }

    pub async fn nack(&mut self, sequence: i64, delay_ms: i64, why: &str) {
        let failed = self
            .say(&[sequence], |told| {
                told.set_outcome(AckOutcome::Nack);
                told.delay = Some(ms(delay_ms));
                told.reason = why.into();
            })
            .await;
        assert_eq!(failed, []);
    }

    pub async fn leave(mut self) {
        self.session.send(9, Wire::Unsubscribe(Unsubscribe { subscription_id: 1 })).await;
        while !matches!(self.session.frame().await.frame, Some(Frame::Ended(_))) {}
    }
}

pub fn member() -> SubscriptionSpec {
    SubscriptionSpec {
        stream: "jobs".into(),
        group: "g".into(),
        ack_mode: AckMode::Explicit.into(),
        ..SubscriptionSpec::default()
    }
}

pub fn text(received: &ReceivedEvent) -> String {
    match received.event.as_ref().and_then(|event| event.payload.as_ref()) {
        Some(Payload::Text(text)) => text.clone(),
        other => panic!("not a text: {other:?}"),
    }
}

pub fn ms(ms: i64) -> prost_types::Duration {
    prost_types::Duration { seconds: ms / 1000, nanos: (ms % 1000 * 1_000_000) as i32 }
}

pub fn preset(preset: StartPreset) -> Option<StartPosition> {
    Some(StartPosition { position: Some(Position::Preset(preset.into())) })
}
