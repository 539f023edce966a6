//! What tests of streams share: data directories, management calls, and a reader that checks what it gets.

#![allow(dead_code)]

use std::{net::SocketAddr, time::Duration};

use switchyard::{
    config::Config,
    proto::v1::{
        CreateStreamRequest, Ended, Event, GetStreamRequest, Progress, PublishResult, ReceivedEvent, StartPosition,
        StartPreset, Stream, StreamState, Subscribe, Subscribed, SubscriptionSpec, event::Payload,
        session_request::Command as Wire, session_response::Frame, start_position::Position,
        stream_service_client::StreamServiceClient,
    },
    server::Server,
};
use tonic::transport::Channel;

pub use crate::harness::Folder;
use crate::harness::{Session, client, event, hub_with, publish, soon};

/// A hub in this process that keeps its streams in a folder.
pub async fn hub_on(folder: &Folder) -> Server {
    hub_on_with(folder, |_| {}).await
}

/// The same with other options.
pub async fn hub_on_with(folder: &Folder, change: impl FnOnce(&mut Config)) -> Server {
    hub_with(|config| {
        config.data_dir = folder.path().into();
        config.drain.spread_ms = 0;
        change(config);
    })
    .await
}

/// Stops a hub that nobody is connected to.
pub async fn stop(hub: Server) {
    soon("the stop", hub.stop(Duration::ZERO)).await;
}

/// A client for streams, of its own connection.
pub async fn streams(address: SocketAddr) -> StreamServiceClient<Channel> {
    let channel = Channel::from_shared(format!("http://{address}")).expect("a URL").connect().await;
    StreamServiceClient::new(channel.expect("a hub answers")).max_decoding_message_size(8 * 1024 * 1024)
}

/// A stream with defaults.
pub fn stream(name: &str, filters: &[&str]) -> Stream {
    Stream { name: name.into(), filters: filters.iter().map(|f| (*f).to_owned()).collect(), ..Stream::default() }
}

/// Creates a stream.
pub async fn create(address: SocketAddr, stream: Stream) -> Stream {
    let request = CreateStreamRequest { stream: Some(stream) };
    let response = streams(address).await.create_stream(request).await.expect("created");
    response.into_inner().stream.expect("a stream")
}

/// How a stream stands.
pub async fn state(address: SocketAddr, name: &str) -> StreamState {
    let response = streams(address).await.get_stream(GetStreamRequest { name: name.into() }).await.expect("a stream");
    response.into_inner().stream.and_then(|stream| stream.state).expect("a state")
}

/// Publishes in one call.
pub async fn store(address: SocketAddr, events: Vec<Event>) -> Vec<PublishResult> {
    let results = client(address).await.publish(publish(events)).await.expect("published").into_inner().results;
    assert!(results.iter().all(|result| result.status.is_none()), "{results:?}");
    results
}

/// So many events of a topic, numbered.
pub fn numbered(topic: &str, numbers: std::ops::Range<usize>) -> Vec<Event> {
    numbers.map(|n| event(topic, n.to_string())).collect()
}

/// A start at a point with a name.
pub fn preset(preset: StartPreset) -> Option<StartPosition> {
    Some(StartPosition { position: Some(Position::Preset(preset.into())) })
}

/// A start behind a sequence.
pub fn after(sequence: i64) -> Option<StartPosition> {
    Some(StartPosition { position: Some(Position::AfterSequence(sequence)) })
}

/// A start where a token says.
pub fn resume(token: &str) -> Option<StartPosition> {
    Some(StartPosition { position: Some(Position::ResumeToken(token.into())) })
}

/// A wish for all of a stream.
pub fn from(stream: &str, start: Option<StartPosition>) -> SubscriptionSpec {
    SubscriptionSpec { stream: stream.into(), start, ..SubscriptionSpec::default() }
}

/// The text of an event that was received.
pub fn text(received: &ReceivedEvent) -> &str {
    match received.event.as_ref().and_then(|event| event.payload.as_ref()) {
        Some(Payload::Text(text)) => text,
        other => panic!("not a text: {other:?}"),
    }
}

/// A value told in the metadata of a status.
pub fn told(status: &tonic_types::pb::Status, key: &str) -> Option<i64> {
    use tonic_types::StatusExt;
    let details = prost::Message::encode_to_vec(status);
    let status = tonic::Status::with_details(tonic::Code::from_i32(status.code), "", details.into());
    status.get_details_error_info()?.metadata.get(key)?.parse().ok()
}

/// A session with one subscription from a stream, numbered 1, and all that came for it.
pub struct Reader {
    pub session: Session,
    pub subscribed: Subscribed,
    pub events: Vec<ReceivedEvent>,
    /// The latest that came.
    pub token: String,
}

impl Reader {
    /// Subscribes, which must work.
    pub async fn open(address: SocketAddr, spec: SubscriptionSpec) -> Self {
        let mut session = Session::open(address).await;
        session.send(1, Wire::Subscribe(Subscribe { subscription_id: 1, spec: Some(spec) })).await;
        let subscribed = match session.frame().await.frame {
            Some(Frame::Subscribed(subscribed)) => subscribed,
            other => panic!("not subscribed: {other:?}"),
        };
        Self { session, subscribed, events: Vec::new(), token: String::new() }
    }

    /// The next frame that is no heartbeat. Events must follow those before in their stream, and are kept.
    pub async fn step(&mut self) -> Frame {
        let next = async {
            loop {
                match self.session.frame().await.frame.expect("a frame") {
                    Frame::Heartbeat(_) => {}
                    frame => return frame,
                }
            }
        };
        // Heartbeats are no sign that what is waited for will come.
        let frame = soon("a frame but heartbeats", next).await;
        self.note(&frame);
        frame
    }

    fn note(&mut self, frame: &Frame) {
        match frame {
            Frame::Events(events) => {
                assert!(!events.events.is_empty() && !events.resume_token.is_empty());
                for received in &events.events {
                    let before = self.last();
                    assert!(received.sequence > before, "{} came behind {before}", received.sequence);
                    self.events.push(received.clone());
                }
                self.token.clone_from(&events.resume_token);
            }
            Frame::Progress(progress) => self.token.clone_from(&progress.resume_token),
            _ => {}
        }
    }

    /// The sequence of the last event that came; 0 before the first.
    pub fn last(&self) -> i64 {
        self.events.last().map_or(0, |received| received.sequence)
    }

    /// Reads until the event of a sequence has come. Progress is passed over, everything else is a failure.
    pub async fn until(&mut self, sequence: i64) {
        while self.last() < sequence {
            match self.step().await {
                Frame::Events(_) | Frame::Progress(_) => {}
                other => panic!("unexpected before {sequence}: {other:?}"),
            }
        }
    }

    /// Reads until the hub says that there is no more.
    pub async fn until_caught_up(&mut self) -> Progress {
        loop {
            match self.step().await {
                Frame::Progress(progress) if progress.caught_up => return progress,
                Frame::Events(_) | Frame::Progress(_) => {}
                other => panic!("unexpected: {other:?}"),
            }
        }
    }

    /// Reads until the subscription is over.
    pub async fn until_ended(&mut self) -> Ended {
        loop {
            match self.step().await {
                Frame::Ended(ended) => return ended,
                Frame::Events(_) | Frame::Progress(_) => {}
                other => panic!("unexpected: {other:?}"),
            }
        }
    }

    pub fn sequences(&self) -> Vec<i64> {
        self.events.iter().map(|received| received.sequence).collect()
    }

    pub fn texts(&self) -> Vec<&str> {
        self.events.iter().map(text).collect()
    }
}

/// Subscribes, which must be refused.
pub async fn refused(address: SocketAddr, spec: SubscriptionSpec) -> Ended {
    let mut session = Session::open(address).await;
    session.send(1, Wire::Subscribe(Subscribe { subscription_id: 1, spec: Some(spec) })).await;
    session.ended().await
}

/// Everything a stream has, read to its end.
pub async fn all(address: SocketAddr, stream: &str) -> Vec<ReceivedEvent> {
    let mut reader = Reader::open(address, from(stream, preset(StartPreset::Earliest))).await;
    reader.until_caught_up().await;
    reader.events
}
