//! Going on where one was: resume tokens, points that are lost, and streams that are not what they were.

use std::{net::SocketAddr, time::Duration};

use switchyard::proto::v1::{
    AddCredit, DeleteStreamRequest, EndReason, Ended, Gap, GapPolicy, GapReason, PurgeStreamRequest, ResumeOutcome,
    StartPosition, StartPreset, Storage, Stream, SubscriptionSpec, session_request::Command as Wire,
    session_response::Frame,
};
use tonic::Code;

use crate::{
    harness::{credit, reason},
    stored::{
        Folder, Reader, after, create, from, hub_on, numbered, preset, refused, resume, state, stop, store, stream,
        streams, told,
    },
};

async fn delete(address: SocketAddr, name: &str) {
    streams(address).await.delete_stream(DeleteStreamRequest { name: name.into() }).await.expect("deleted");
}

async fn purge(address: SocketAddr, up_to_sequence: i64) {
    let request = PurgeStreamRequest { name: "s".into(), up_to_sequence, filter: String::new() };
    streams(address).await.purge_stream(request).await.expect("purged");
}

fn on_gap(start: Option<StartPosition>, policy: GapPolicy) -> SubscriptionSpec {
    SubscriptionSpec { on_gap: policy.into(), ..from("s", start) }
}

/// Code, reason, and what is told of the stream.
fn lost(ended: &Ended) -> (Code, String, Option<i64>, Option<i64>) {
    let status = ended.status.as_ref().expect("a status");
    (Code::from_i32(status.code), reason(status), told(status, "earliest"), told(status, "latest"))
}

async fn gap(reader: &mut Reader) -> Gap {
    match reader.step().await {
        Frame::Gap(gap) => gap,
        other => panic!("not a gap: {other:?}"),
    }
}

#[tokio::test]
async fn a_token_is_good_after_a_restart() {
    let folder = Folder::new();
    let mut hub = hub_on(&folder).await;
    let epoch = create(hub.address, stream("s", &["s.>"])).await.state.expect("a state").epoch;
    let mut start = preset(StartPreset::Earliest);
    let mut got = Vec::new();
    for round in 0..5 {
        store(hub.address, numbered("s.x", 0..100)).await;
        let mut wish = from("s", start);
        wish.credit = credit(90, 0);
        let mut reader = Reader::open(hub.address, wish).await;
        let expected = if round == 0 { ResumeOutcome::Fresh } else { ResumeOutcome::Resumed };
        assert_eq!((reader.subscribed.resume_outcome(), reader.subscribed.epoch), (expected, epoch));
        reader.until(round * 90 + 90).await;
        got.extend(reader.sequences());
        start = resume(&reader.token);
        drop(reader);
        stop(hub).await;
        hub = hub_on(&folder).await;
    }
    assert_eq!(got, (1..=450).collect::<Vec<_>>());
    assert_eq!(state(hub.address, "s").await.epoch, epoch);
}

#[tokio::test]
async fn tokens_that_were_changed_or_are_of_another_hub_are_refused() {
    let (folder, other_folder) = (Folder::new(), Folder::new());
    let (hub, other) = (hub_on(&folder).await, hub_on(&other_folder).await);
    for hub in [&hub, &other] {
        create(hub.address, stream("s", &["s.>"])).await;
        store(hub.address, numbered("s.x", 0..10)).await;
    }
    let mut foreign = Reader::open(other.address, from("s", preset(StartPreset::Earliest))).await;
    foreign.until_caught_up().await;
    let mut reader = Reader::open(hub.address, from("s", preset(StartPreset::Earliest))).await;
    reader.until_caught_up().await;
    let own = reader.token.clone();
    let mut bad = vec![foreign.token, "x".into(), format!("{own}A"), own[1..].into(), own[..own.len() - 4].into()];
    for at in (0..own.len()).step_by(5) {
        let with = if own.as_bytes()[at] == b'A' { "B" } else { "A" };
        bad.push(format!("{}{with}{}", &own[..at], &own[at + 1..]));
    }
    for token in bad {
        for policy in [GapPolicy::Fail, GapPolicy::Earliest] {
            let ended = refused(hub.address, on_gap(resume(&token), policy)).await;
            assert_eq!(ended.reason(), EndReason::MalformedToken, "{token}");
            assert_eq!(ended.status.expect("a status").code, Code::InvalidArgument as i32);
        }
    }
    create(hub.address, stream("t", &["t.>"])).await;
    let ended = refused(hub.address, from("t", resume(&own))).await;
    assert_eq!(ended.reason(), EndReason::ConfigMismatch, "of another stream");
}

/// Twenty events of which the first ten are gone, and a token from in front of them.
async fn with_a_lost_point(address: SocketAddr) -> String {
    create(address, stream("s", &["s.>"])).await;
    store(address, numbered("s.x", 0..20)).await;
    let mut wish = from("s", preset(StartPreset::Earliest));
    wish.credit = credit(3, 0);
    let mut reader = Reader::open(address, wish).await;
    reader.until(3).await;
    purge(address, 10).await;
    reader.token
}

#[tokio::test]
async fn a_lost_point_is_told_or_passed_over_as_asked() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    let token = with_a_lost_point(hub.address).await;
    for start in [resume(&token), after(3)] {
        let ended = refused(hub.address, on_gap(start.clone(), GapPolicy::Fail)).await;
        assert_eq!(ended.reason(), EndReason::ResumePointLost);
        assert_eq!(lost(&ended), (Code::OutOfRange, "RESUME_POINT_LOST".into(), Some(11), Some(20)));

        let mut reader = Reader::open(hub.address, on_gap(start.clone(), GapPolicy::Earliest)).await;
        assert_eq!(reader.subscribed.resume_outcome(), ResumeOutcome::Gap);
        let told = gap(&mut reader).await;
        assert_eq!((told.count, told.from_sequence, told.to_sequence), (7, 4, 10));
        assert_eq!(told.reason(), GapReason::Retention);
        reader.until_caught_up().await;
        assert_eq!(reader.sequences(), (11..=20).collect::<Vec<_>>());

        let mut reader = Reader::open(hub.address, on_gap(start, GapPolicy::Latest)).await;
        let told = gap(&mut reader).await;
        assert_eq!((told.count, told.from_sequence, told.to_sequence), (17, 4, 20));
        let progress = reader.until_caught_up().await;
        let resumed = Reader::open(hub.address, from("s", resume(&progress.resume_token))).await;
        assert_eq!((reader.events.len(), resumed.subscribed.start_sequence), (0, 21));
    }
}

#[tokio::test]
async fn a_stream_made_anew_is_told_or_read_from_its_new_beginning() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    let token = with_a_lost_point(hub.address).await;
    let old = state(hub.address, "s").await.epoch;
    delete(hub.address, "s").await;
    let ended = refused(hub.address, from("s", resume(&token))).await;
    assert_eq!(ended.reason(), EndReason::StreamNotFound);
    let new = create(hub.address, stream("s", &["s.>"])).await.state.expect("a state").epoch;
    assert_ne!(old, new);
    store(hub.address, numbered("s.x", 0..30)).await;

    let ended = refused(hub.address, on_gap(resume(&token), GapPolicy::Fail)).await;
    assert_eq!(ended.reason(), EndReason::EpochChanged);
    assert_eq!(lost(&ended), (Code::OutOfRange, "EPOCH_CHANGED".into(), Some(1), Some(30)));
    for (policy, begins) in [(GapPolicy::Earliest, 1), (GapPolicy::Latest, 31)] {
        let mut reader = Reader::open(hub.address, on_gap(resume(&token), policy)).await;
        let subscribed = &reader.subscribed;
        assert_eq!((subscribed.resume_outcome(), subscribed.epoch), (ResumeOutcome::Gap, new));
        assert_eq!(subscribed.start_sequence, begins);
        let told = gap(&mut reader).await;
        assert_eq!((told.count, told.reason()), (0, GapReason::Epoch), "nobody knows how many");
        reader.until_caught_up().await;
        assert_eq!(reader.sequences(), (begins..=30).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_stream_in_memory_is_another_one_after_a_restart() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, Stream { storage: Storage::Memory.into(), ..stream("s", &["s.>"]) }).await;
    store(hub.address, numbered("s.x", 0..10)).await;
    let mut reader = Reader::open(hub.address, from("s", preset(StartPreset::Earliest))).await;
    reader.until(10).await;
    let token = reader.token.clone();
    drop(reader);
    stop(hub).await;
    let hub = hub_on(&folder).await;
    let ended = refused(hub.address, from("s", resume(&token))).await;
    assert_eq!(lost(&ended), (Code::OutOfRange, "EPOCH_CHANGED".into(), Some(1), Some(0)));
    assert_eq!(store(hub.address, numbered("s.x", 0..1)).await[0].sequence, 1);
}

#[tokio::test]
async fn a_reader_that_retention_overtakes_is_told() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, Stream { max_events: 3_000, ..stream("s", &["s.>"]) }).await;
    store(hub.address, numbered("s.x", 0..2_000)).await;
    let mut readers = Vec::new();
    for policy in [GapPolicy::Fail, GapPolicy::Earliest, GapPolicy::Latest] {
        let mut wish = on_gap(preset(StartPreset::Earliest), policy);
        wish.credit = credit(3, 0);
        let mut reader = Reader::open(hub.address, wish).await;
        reader.until(3).await;
        readers.push((policy, reader));
    }
    // More than any of them has waiting for it.
    for _ in 0..5 {
        store(hub.address, numbered("s.x", 0..2_000)).await;
    }
    assert_eq!(state(hub.address, "s").await.earliest_sequence, 9_001);
    for (policy, mut reader) in readers {
        let command = AddCredit { subscription_id: 1, credit: credit(1_000_000, 0) };
        reader.session.send(0, Wire::Credit(command)).await;
        let frame = loop {
            match reader.step().await {
                Frame::Events(_) | Frame::Progress(_) => {}
                frame => break frame,
            }
        };
        let reached = reader.last();
        assert_eq!(reader.sequences(), (1..=reached).collect::<Vec<_>>(), "no gap before it is told");
        match (policy, frame) {
            (GapPolicy::Fail, Frame::Ended(ended)) => {
                assert_eq!(lost(&ended), (Code::OutOfRange, "RESUME_POINT_LOST".into(), Some(9_001), Some(12_000)));
            }
            (GapPolicy::Earliest, Frame::Gap(gap)) => {
                assert_eq!(
                    (gap.from_sequence, gap.to_sequence, gap.reason()),
                    (reached + 1, 9_000, GapReason::Retention)
                );
                reader.until(12_000).await;
                assert_eq!(reader.events.len() as i64, reached + 3_000);
            }
            (GapPolicy::Latest, Frame::Gap(gap)) => {
                assert_eq!((gap.from_sequence, gap.to_sequence), (reached + 1, 12_000));
                store(hub.address, numbered("s.x", 0..1)).await;
                reader.until(12_001).await;
                assert_eq!(reader.events.len() as i64, reached + 1);
            }
            (policy, frame) => panic!("{policy:?}: {frame:?}"),
        }
    }
}

#[tokio::test]
async fn a_place_in_the_future_is_refused() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, stream("s", &["s.>"])).await;
    store(hub.address, numbered("s.x", 0..10)).await;
    for sequence in [11, 12, i64::MAX] {
        let ended = refused(hub.address, from("s", after(sequence))).await;
        assert_eq!(ended.reason(), EndReason::ConfigMismatch, "{sequence}");
    }
    let ended = refused(hub.address, from("s", after(-1))).await;
    assert_eq!(ended.reason(), EndReason::MalformedCommand);
    let mut wish = from("s", preset(StartPreset::Earliest));
    wish.filters = vec!["other.>".into()];
    let mut none = Reader::open(hub.address, wish).await;
    tokio::time::timeout(Duration::from_secs(30), none.until_caught_up())
        .await
        .expect("no filter fits, and that is fine");
}
