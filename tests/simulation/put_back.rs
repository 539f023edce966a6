//! The disk of the hub is put back from a copy of when it was dead, some time before the end.
//!
//! A hub that is not told so has its old epoch, and knows tokens of what was lost by their place alone: as long as the stream
//! has not come that far again. One that is told has a new epoch, and takes none.

use std::rc::Rc;

use switchyard::{
    model::{Filter, Topic},
    proto::v1::{
        EndReason, GapPolicy, GapReason, PublishRequest, ReceivedEvent, ResumeOutcome, StartPosition, SubscriptionSpec,
        hub_service_client::HubServiceClient, session_response::Frame, start_position::Position,
    },
};

use crate::{
    judge::{ask, read_all, topic},
    session::{Next, PATIENCE, Session, is_unavailable},
    world::{Restart, STREAM, Token, World, numbered, pause, text},
};

/// So many tokens are tried.
const TOKENS: usize = 12;
/// By so many events the stream comes further than any token.
const FURTHER: u64 = 10;

/// What became of a subscription.
enum Outcome {
    Refused(EndReason),
    Read { outcome: ResumeOutcome, gap: Option<GapReason>, events: Vec<(i64, String)> },
}

/// `events` are all that the stream had in the end.
pub async fn judge(world: &Rc<World>, events: &[ReceivedEvent]) {
    if !world.has_copy.get() {
        return;
    }
    let tokens = some_tokens(world);
    world.start_again(Restart::OnCopy).await;
    let mut kept = read_all(world, STREAM).await;
    for (copied, event) in kept.iter().zip(events) {
        assert_eq!((copied.sequence, text(copied)), (event.sequence, text(event)), "the copy is of this hub");
    }
    assert!(kept.len() <= events.len(), "nothing else is in the copy");
    let latest = kept.len() as i64;
    for token in &tokens {
        match resume(world, token, GapPolicy::Unspecified).await {
            // Its place may be further than the last event that its reader got.
            Outcome::Refused(reason) => assert_eq!(reason, EndReason::EpochChanged, "{token:?}"),
            Outcome::Read { outcome, gap, events } => {
                assert_eq!((outcome, gap), (ResumeOutcome::Resumed, None));
                assert!(token.last <= latest, "{token:?} is from behind the end, {latest}");
                assert_eq!(events, matching(&kept, token, token.last), "{token:?}");
            }
        }
    }

    world.start_again(Restart::Told).await;
    kept.extend(publish_past(tokens.iter().map(|token| token.last).max(), latest).await);
    for token in &tokens {
        match resume(world, token, GapPolicy::Unspecified).await {
            Outcome::Refused(reason) => assert_eq!(reason, EndReason::EpochChanged, "{token:?}"),
            Outcome::Read { .. } => panic!("{token:?} is of another history"),
        }
        match resume(world, token, GapPolicy::Earliest).await {
            Outcome::Refused(reason) => panic!("{token:?}: {reason:?}"),
            Outcome::Read { outcome, gap, events } => {
                assert_eq!((outcome, gap), (ResumeOutcome::Gap, Some(GapReason::Epoch)), "{token:?}");
                assert_eq!(events, matching(&kept, token, 0), "{token:?}");
            }
        }
    }
}

/// Some of the tokens that readers were given, the last of them among them.
fn some_tokens(world: &World) -> Vec<Token> {
    let books = world.books.borrow();
    let step = (books.tokens.len() / TOKENS).max(1);
    books.tokens.iter().rev().step_by(step).cloned().collect()
}

/// What a reader with that token gets of these events, behind a sequence.
fn matching(events: &[ReceivedEvent], token: &Token, after: i64) -> Vec<(i64, String)> {
    let filters: Vec<Filter> =
        token.filters.iter().map(|filter| Filter::parse(filter.as_bytes()).expect("a filter")).collect();
    let matches = |received: &&ReceivedEvent| {
        let topic = Topic::parse(topic(received).as_bytes()).expect("a topic");
        filters.is_empty() || filters.iter().any(|filter| filter.matches(topic))
    };
    let behind = events.iter().filter(|received| received.sequence > after);
    behind.filter(matches).map(|received| (received.sequence, text(received).to_owned())).collect()
}

/// Publishes until the stream is further than any token, and gives what was published.
async fn publish_past(last: Option<i64>, latest: i64) -> Vec<ReceivedEvent> {
    let count = (last.unwrap_or_default() - latest).max(0) as u64 + FURTHER;
    // Of nobody who has published before.
    let events: Vec<_> = (0..count).map(|number| numbered(7, number)).collect();
    let publish = |channel| {
        let request = PublishRequest { events: events.clone(), precondition: None };
        async move { HubServiceClient::new(channel).publish(request).await }
    };
    let results = ask(publish).await.expect("nothing fails any more").into_inner().results;
    let stored = results.into_iter().zip(events.clone()).map(|(result, event)| {
        assert!(result.status.is_none(), "{result:?}");
        ReceivedEvent { sequence: result.sequence, event: Some(event), ..ReceivedEvent::default() }
    });
    stored.collect()
}

/// Comes back with a token, and reads to the end.
async fn resume(world: &Rc<World>, token: &Token, on_gap: GapPolicy) -> Outcome {
    let start = StartPosition { position: Some(Position::ResumeToken(token.text.clone())) };
    let (filters, stream) = (token.filters.clone(), STREAM.to_owned());
    let spec = SubscriptionSpec { stream, filters, start: Some(start), on_gap: on_gap.into(), ..Default::default() };
    loop {
        if let Some(mut session) = Session::open(world, "judge", "").await
            && session.subscribe(1, spec.clone()).await
            && let Some(outcome) = read(&mut session).await
        {
            return outcome;
        }
        pause(50).await;
    }
}

/// `None` when the session is lost.
async fn read(session: &mut Session) -> Option<Outcome> {
    let (mut resumed, mut lost, mut read) = (ResumeOutcome::Unspecified, None, Vec::new());
    loop {
        match session.next(PATIENCE).await {
            Next::Frame(_, Frame::Subscribed(subscribed)) => resumed = subscribed.resume_outcome(),
            Next::Frame(_, Frame::Gap(gap)) => {
                assert!(read.is_empty(), "a gap is told before what comes after it");
                lost = Some(gap.reason());
            }
            Next::Frame(_, Frame::Events(events)) => {
                read.extend(events.events.iter().map(|received| (received.sequence, text(received).to_owned())));
            }
            Next::Frame(_, Frame::Progress(progress)) if progress.caught_up => {
                return Some(Outcome::Read { outcome: resumed, gap: lost, events: read });
            }
            Next::Frame(_, Frame::Ended(ended)) => {
                let status = ended.status.clone().unwrap_or_default();
                return (!is_unavailable(status.code)).then(|| Outcome::Refused(ended.reason()));
            }
            Next::Frame(..) => {}
            Next::Idle | Next::Lost => return None,
        }
    }
}
