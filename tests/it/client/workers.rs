//! Members of groups: acknowledgements, leases, windows, and the worker that does all of that by itself.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use switchyard::{
    client::{Delivery, Drain, ErrorKind, Failure, Received, Stream},
    proto::v1::Group,
};

use super::{Running, all_of, deliveries, next_batch, numbers};
use crate::{
    harness::{Folder, pause, soon, until},
    workplace::{Place, ms},
};

/// A hub with a stream `jobs` and a group `g` on it.
async fn place(folder: &Folder, change: impl FnOnce(&mut Group)) -> (Place, Running) {
    let mut place = Place::new(folder).await;
    place.group(change).await;
    let client = Running::of(place.server.address);
    (place, client)
}

fn member() -> Stream {
    all_of("jobs").group("g")
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_is_settled_as_its_member_says() {
    let folder = Folder::new();
    let (mut place, client) = place(&folder, |group| group.dead_letter_stream = "lost".into()).await;
    place.publish(&["ack", "nack", "reject"]).await;
    let mut member = client.subscribe(member()).await.expect("open");
    for event in deliveries(&mut member, 3).await {
        match event.text() {
            Some("ack") => soon("an answer", event.acked()).await.expect("stored"),
            Some("nack") => event.nack_after(Duration::from_millis(50), "no paper"),
            _ => event.reject("never"),
        }
    }
    soon("the answers", member.settled()).await.expect("stored");
    let letters = place.until_letters(1).await;
    assert_eq!((letters[0].origin_sequence, letters[0].reason.as_str()), (3, "never"));
    let event = deliveries(&mut member, 1).await.remove(0);
    assert_eq!((event.text(), event.attempt(), event.last_failure()), (Some("nack"), 2, "no paper"));
    event.ack();
    soon("the answers", member.settled()).await.expect("stored");
    assert_eq!(place.state().await.unacked, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_than_the_window_is_held() {
    let folder = Folder::new();
    let (mut place, client) = place(&folder, |_| {}).await;
    place.publish(&numbers(0..20)).await;
    let mut member = client.subscribe(member().window(3)).await.expect("open");
    let mut done = Vec::new();
    while done.len() < 20 {
        let events: Vec<Delivery> = next_batch(&mut member).await.into_iter().collect();
        assert!(events.len() <= 3);
        assert!(client.stats().events_in_hand <= 3);
        assert!(place.state().await.unacked <= 3);
        for event in events {
            done.push(event.text().expect("a text").to_owned());
            event.ack();
        }
    }
    assert_eq!(done, numbers(0..20));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_a_batch_that_is_dropped_are_out_of_hand_whether_or_not_they_were_taken_out() {
    let folder = Folder::new();
    let (mut place, client) = place(&folder, |_| {}).await;
    place.publish(&numbers(0..20)).await;
    let mut member = client.subscribe(member().window(4)).await.expect("open");
    let mut in_hand: Vec<Delivery> = Vec::new();
    for takes_all in [true, false] {
        let mut batch = next_batch(&mut member).await;
        assert!(!batch.is_empty() && batch.iter().all(|event| event.attempt() == 1));
        if takes_all {
            in_hand.extend(batch.take_events().into_iter().next());
        } else {
            in_hand.extend(batch.into_iter().next());
        }
    }
    drop(next_batch(&mut member).await);
    assert_eq!(in_hand.len(), 2);
    // What came since and was not taken is in hand too.
    drop(member);
    assert_eq!(client.stats().events_in_hand, 2);
    in_hand.clear();
    assert_eq!(client.stats().events_in_hand, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledgement_that_comes_too_late_says_so() {
    let folder = Folder::new();
    let (mut place, client) = place(&folder, |group| {
        group.ack_deadline = Some(ms(100));
        group.backoff = vec![ms(3_600_000)];
    })
    .await;
    place.publish(&["1"]).await;
    let mut member = client.subscribe(member()).await.expect("open");
    let event = deliveries(&mut member, 1).await.remove(0);
    until("the lease runs out", async || place.state().await.expired == 1).await;
    let error = soon("an answer", event.acked()).await.expect_err("too late");
    assert_eq!((error.kind(), error.reason()), (ErrorKind::LeaseLost, "LEASE_EXPIRED"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_keeps_the_leases_of_what_takes_long() {
    let folder = Folder::new();
    let (mut place, client) = place(&folder, |group| {
        group.ack_deadline = Some(ms(3_000));
        group.dead_letter_stream = "lost".into();
    })
    .await;
    place.publish(&["slow", "reject", "fails once"]).await;
    let (most, now, attempts) =
        (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (worker, counts) = (client.clone(), (Arc::clone(&most), Arc::clone(&now), Arc::clone(&attempts)));
    let working = tokio::spawn(async move {
        let handler = |event: Received| {
            let (most, now, attempts) = counts.clone();
            async move {
                attempts.fetch_add(1, SeqCst);
                most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
                let result = match event.text() {
                    Some("slow") => {
                        pause(Duration::from_secs(6)).await;
                        Ok(())
                    }
                    Some("reject") => Err(Failure::reject("never")),
                    _ if event.attempt() == 1 => Err(Failure::retry_after(Duration::from_millis(50), "once")),
                    _ => Ok(()),
                };
                now.fetch_sub(1, SeqCst);
                result
            }
        };
        worker.run_worker(member(), 2, handler).await
    });
    place.until_letters(1).await;
    until("all is done", async || {
        let state = place.state().await;
        state.unacked == 0 && state.pending == 0
    })
    .await;
    let state = place.state().await;
    assert_eq!(state.expired, 0, "no lease ran out");
    assert_eq!((most.load(SeqCst), attempts.load(SeqCst)), (2, 4), "two at a time; one of three was tried twice");
    let left = soon("the end", client.drain(Duration::from_secs(20), Drain::Finish)).await.expect("drained");
    assert!(left.is_nothing(), "{left:?}");
    soon("the worker", working).await.expect("no panic").expect("drained");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_a_member_of_a_group_that_acknowledges_and_of_a_size() {
    let folder = Folder::new();
    let (_place, client) = place(&folder, |_| {}).await;
    let work = async |stream: Stream, at_once: usize| {
        let worker = client.run_worker(stream, at_once, |_| async { Ok(()) });
        soon("an answer", worker).await.expect_err("refused")
    };
    assert_eq!(work(Stream::named("jobs"), 1).await.field(), Some("group"));
    assert_eq!(work(member().done_when_sent(), 1).await.field(), Some("group"));
    assert_eq!(work(member(), 0).await.field(), Some("concurrency"));
    assert_eq!(work(member(), 10_001).await.field(), Some("concurrency"));
    assert_eq!(work(Stream::named("none").group("g"), 1).await.reason(), "STREAM_NOT_FOUND");
}
