//! Makes the stream and the group, leads from phase to phase once nothing fails any more, and judges at the end.

use std::{collections::BTreeMap, future::Future, rc::Rc};

use switchyard::{
    model::{Filter, Topic},
    proto::v1::{
        CreateGroupRequest, CreateStreamRequest, GetGroupRequest, Group, GroupState, ReceivedEvent, StartPosition,
        StartPreset, Stream, SubscriptionSpec, group_service_client::GroupServiceClient, session_response::Frame,
        start_position::Position, stream_service_client::StreamServiceClient,
    },
};
use tokio::time::timeout;
use tonic::transport::Channel;

use crate::{
    put_back,
    session::{Next, PATIENCE, Session, connect},
    squeezed::{LETTERS, SMALL, TEAM},
    world::{Books, GROUP, KEPT, LOCKS, Phase, STREAM, World, content, pause, text, words},
};

/// A call, again and again until it is answered.
pub async fn ask<T, F: Future<Output = Result<T, tonic::Status>>>(
    call: impl Fn(Channel) -> F,
) -> Result<T, tonic::Status> {
    loop {
        if let Some(channel) = connect().await
            && let Ok(answer) = timeout(PATIENCE, call(channel)).await
        {
            match answer {
                Err(status) if crate::session::is_lost(status.code()) => {}
                answer => return answer,
            }
        }
        pause(50).await;
    }
}

fn earliest() -> Option<StartPosition> {
    Some(StartPosition { position: Some(Position::Preset(StartPreset::Earliest.into())) })
}

/// The stream and the group, which a hub may have made before it could say so.
pub async fn prepare(world: &World) {
    let stream = Stream { name: STREAM.into(), filters: vec!["sim.>".into()], ..Stream::default() };
    let create = |channel| {
        let stream = Some(stream.clone());
        async move { StreamServiceClient::new(channel).create_stream(CreateStreamRequest { stream }).await }
    };
    let created = ask(create).await.expect("nothing fails yet").into_inner().stream.and_then(|stream| stream.state);
    let locks = Stream { name: LOCKS.into(), filters: vec!["lock.>".into()], max_events: 3, ..Stream::default() };
    let create = |channel| {
        let stream = Some(locks.clone());
        async move { StreamServiceClient::new(channel).create_stream(CreateStreamRequest { stream }).await }
    };
    ask(create).await.expect("nothing fails yet");
    let group = Group {
        stream: STREAM.into(),
        name: GROUP.into(),
        // Longer than it takes until a hub gives up a client, and one that comes back finds what never reached it.
        ack_deadline: Some(prost_types::Duration { seconds: 30, nanos: 0 }),
        max_attempts: Some(0),
        backoff: vec![prost_types::Duration { seconds: 0, nanos: 20_000_000 }],
        ..Group::default()
    };
    let create = |channel| {
        let request = CreateGroupRequest { group: Some(group.clone()), start: earliest() };
        async move { GroupServiceClient::new(channel).create_group(request).await }
    };
    ask(create).await.expect("nothing fails yet");
    prepare_small().await;
    world.books.borrow_mut().epoch = created.map(|state| state.epoch);
}

/// A stream that is too small for its group, and one for the dead letters of that.
async fn prepare_small() {
    for (name, filter, max_events) in [(SMALL, "small.>", 40), (LETTERS, "letters.>", 0)] {
        let stream = Stream { name: name.into(), filters: vec![filter.into()], max_events, ..Stream::default() };
        let create = |channel| {
            let stream = Some(stream.clone());
            async move { StreamServiceClient::new(channel).create_stream(CreateStreamRequest { stream }).await }
        };
        ask(create).await.expect("nothing fails yet");
    }
    let group = Group {
        stream: SMALL.into(),
        name: TEAM.into(),
        max_unacked: 8,
        dead_letter_stream: LETTERS.into(),
        ..Group::default()
    };
    let create = |channel| {
        let request = CreateGroupRequest { group: Some(group.clone()), start: earliest() };
        async move { GroupServiceClient::new(channel).create_group(request).await }
    };
    ask(create).await.expect("nothing fails yet");
}

/// How a group stands.
pub async fn state_of(stream: &str, group: &str) -> GroupState {
    let get = |channel| {
        let request = GetGroupRequest { stream: stream.into(), name: group.into() };
        async move { GroupServiceClient::new(channel).get_group(request).await }
    };
    let response = ask(get).await.expect("the group is there");
    response.into_inner().group.and_then(|group| group.state).expect("a state")
}

/// Leads the run to its end, and judges it.
pub async fn judge(world: Rc<World>) {
    world.until(Phase::Finish).await;
    while world.books.borrow().publishing > 0 {
        pause(10).await;
    }
    world.enter(Phase::Read);
    let events = read_all(&world, STREAM).await;
    let locks = read_all(&world, LOCKS).await;
    assert!(locks.first().is_some_and(|first| topic(first) == KEPT), "{} locks pushed it out", locks.len());
    while world.books.borrow().reading > 0 {
        pause(10).await;
    }
    until_done(events.len() as i64).await;
    world.enter(Phase::Over);
    {
        let books = world.books.borrow();
        check_stream(&books, &events);
        check_readers(&books, &events);
        check_group(&books, &events);
    }
    put_back::judge(&world, &events).await;
}

/// All that a stream has.
pub async fn read_all(world: &Rc<World>, stream: &str) -> Vec<ReceivedEvent> {
    loop {
        pause(10).await;
        let Some(mut session) = Session::open(world, "judge", "").await else { continue };
        let wish = SubscriptionSpec { stream: stream.into(), start: earliest(), ..SubscriptionSpec::default() };
        let mut events = Vec::new();
        if !session.subscribe(1, wish).await {
            continue;
        }
        loop {
            match session.next(PATIENCE).await {
                Next::Frame(_, Frame::Events(more)) => events.extend(more.events),
                Next::Frame(_, Frame::Progress(progress)) if progress.caught_up => return events,
                Next::Frame(..) => {}
                Next::Idle | Next::Lost => break,
            }
        }
    }
}

async fn until_done(latest: i64) {
    loop {
        let state = state_of(STREAM, GROUP).await;
        if (state.cursor, state.pending, state.unacked) == (latest, 0, 0) {
            return;
        }
        pause(100).await;
    }
}

/// No gap, nothing that was never published, everything once, in the order of its publisher, and where it was answered.
fn check_stream(books: &Books, events: &[ReceivedEvent]) {
    let mut next: BTreeMap<usize, u64> = BTreeMap::new();
    let mut time = None;
    for (received, sequence) in events.iter().zip(1..) {
        let before = time.replace(received.append_time.map(|time| (time.seconds, time.nanos)));
        assert!(before.is_none_or(|before| before <= time.flatten()), "time went back before {sequence}");
        assert_eq!(received.sequence, sequence, "a gap, or one too many");
        let (publisher, number) = words(text(received));
        assert_eq!(text(received), content(publisher, number), "{sequence} is torn");
        let expected = next.entry(publisher).or_default();
        assert_eq!(number, *expected, "{sequence} of publisher {publisher} is not the next one");
        *expected += 1;
    }
    for (publisher, (count, answers)) in &books.published {
        assert_eq!(next.get(publisher).copied().unwrap_or_default(), *count, "all of publisher {publisher}");
        assert_eq!(answers.len() as u64, *count, "every event was answered in the end");
        for (number, answer) in (0..).zip(answers) {
            let event = &events[answer.sequence as usize - 1];
            assert_eq!(text(event), content(*publisher, number), "answered at {}", answer.sequence);
        }
    }
}

pub fn topic(received: &ReceivedEvent) -> &str {
    &received.event.as_ref().expect("an event").topic
}

/// Each has got exactly what matches it, whatever happened.
fn check_readers(books: &Books, events: &[ReceivedEvent]) {
    for (who, read) in &books.read {
        let (_, filter) = who.split_once(' ').expect("a reader is named by its filter");
        let filter = Filter::parse(filter.as_bytes()).expect("a filter");
        let matches =
            events.iter().filter(|received| filter.matches(Topic::parse(topic(received).as_bytes()).expect("a topic")));
        let expected: Vec<_> = matches.map(|received| (received.sequence, text(received).to_owned())).collect();
        assert_eq!(*read, expected, "{who}");
    }
}

/// Every event was brought to a member until one said that it is done.
fn check_group(books: &Books, events: &[ReceivedEvent]) {
    for event in events {
        assert!(books.said.contains(&event.sequence), "the group never got its word on {}", event.sequence);
        assert_eq!(books.brought[&event.sequence], text(event));
    }
    assert_eq!(books.brought.len(), events.len(), "nothing else came");
}
