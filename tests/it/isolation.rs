//! Slowness of one costs the others nothing: on the same stream, and on other connections.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader},
    process::Stdio,
    time::Duration,
};

use switchyard::proto::v1::{AddCredit, Subscribe, session_request::Command as Wire, session_response::Frame};

use crate::harness::{Process, Session, client, credit, event, exit, http_get, program, publish, signal, spec, texts};

const MIB: usize = 1024 * 1024;

/// Publishes `count` events of about `bytes` to one topic, and asserts that every one is accepted and matched.
async fn flood(process: &Process, topic: &str, count: usize, bytes: usize, matched: i64) {
    let mut publisher = Session::open(process.address).await;
    let payload = "x".repeat(bytes);
    for _ in 0..count / 500 {
        let results = publisher.publish(vec![event(topic, payload.clone()); 500]).await.results;
        assert!(results.iter().all(|result| result.status.is_none() && result.matched == matched));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_a_thousand_subscriptions_without_credit_costs_the_others_nothing() {
    const OTHERS: i64 = 999;
    const EACH: usize = 50;
    let process = Process::start(&[]);
    let mut session = Session::open(process.address).await;
    let mut starved = spec(&["flood"]);
    starved.credit = credit(0, 0);
    session.subscribe(1_000, starved).await;
    for id in 1..=OTHERS {
        let command = Subscribe { subscription_id: id, spec: Some(spec(&[&format!("t.{id}")])) };
        session.send(0, Wire::Subscribe(command)).await;
        assert!(matches!(session.frame().await.frame, Some(Frame::Subscribed(_))));
    }
    // The ring of the starved one is filled before memory is looked at.
    flood(&process, "flood", 40_000, 128, 1).await;
    let before = process.resident_bytes();

    let others = async {
        let publisher = Session::open(process.address).await;
        for round in 0..EACH {
            let events = (1..=OTHERS).map(|id| event(&format!("t.{id}"), round.to_string())).collect();
            publisher.send(0, Wire::Publish(publish(events))).await;
        }
        // Kept until all is delivered: dropping it would cancel what is still on its way.
        publisher
    };
    let wanted: HashMap<i64, usize> = (1..=OTHERS).map(|id| (id, EACH)).collect();
    let ((), _publisher, got) =
        tokio::join!(flood(&process, "flood", 200_000, 128, 1), others, session.collect(&wanted));
    let expected: Vec<String> = (0..EACH).map(|round| round.to_string()).collect();
    assert!(got.values().all(|texts| *texts == expected), "all of them, in order, without a gap");

    let grown = process.resident_bytes().saturating_sub(before);
    assert!(grown < 32 * MIB, "the hub grew by {grown} bytes");
    let metrics = http_get(process.ops_address, "/metrics").await;
    assert!(metrics.contains("switchyard_open_subscriptions 1000"), "{metrics}");

    // The starved one is told what it lost as soon as it may hear anything.
    session.send(0, Wire::Credit(AddCredit { subscription_id: 1_000, credit: credit(1, 0) })).await;
    let Some(Frame::Gap(gap)) = session.frame().await.frame else { panic!("no gap") };
    let Some(Frame::Events(events)) = session.frame().await.frame else { panic!("no events") };
    assert_eq!(events.events.len(), 1);
    assert!(gap.count > 200_000 && gap.count < 240_000, "{}", gap.count);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_reader_is_told_of_its_gap_and_hurts_nobody() {
    let process = Process::start(&[]);
    let server = format!("http://{}", process.address);
    let mut stopped = program()
        .args(["sub", "flood", "last", "--no-reconnect", "--server", &server])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a subscriber");
    let mut errors = BufReader::new(stopped.stderr.take().expect("piped")).lines();
    assert_eq!(errors.next().expect("a line").expect("text"), "subscribed");
    // Its output is read throughout: only the signal may stop it.
    let output = BufReader::new(stopped.stdout.take().expect("piped"));
    let lines = std::thread::spawn(move || output.lines().map_while(Result::ok).collect::<Vec<_>>());
    signal(stopped.id(), "STOP");

    let mut healthy = Session::open(process.address).await;
    healthy.subscribe(1, spec(&["other"])).await;
    flood(&process, "flood", 40_000, 1_024, 1).await;
    let before = process.resident_bytes();
    flood(&process, "flood", 60_000, 1_024, 1).await;
    let grown = process.resident_bytes().saturating_sub(before);
    assert!(grown < 32 * MIB, "the hub grew by {grown} bytes");
    let mut publisher = client(process.address).await;
    for n in 0..100 {
        publisher.publish(publish(vec![event("other", n.to_string())])).await.expect("published");
        assert_eq!(texts(&healthy.events().await), [n.to_string()]);
    }

    signal(stopped.id(), "CONT");
    publisher.publish(publish(vec![event("last", "the end")])).await.expect("published");
    let gap = errors.next().expect("a line").expect("text");
    assert!(gap.starts_with("gap: ") && gap.ends_with("events lost (GAP_REASON_OVERFLOW)"), "{gap}");
    let lost: usize = gap.split(' ').nth(1).and_then(|n| n.parse().ok()).expect("a count");
    crate::harness::until("everything is sent", async || {
        let metrics = http_get(process.ops_address, "/metrics").await;
        metrics.contains("switchyard_queue_bytes 0")
    })
    .await;
    // What is sent is not yet printed: that comes before the end.
    drop(healthy);
    process.signal("TERM");
    let end = errors.next().expect("a line").expect("text");
    assert!(end.contains(&process.address.to_string()) && end.contains("DRAINING"), "{end}");
    assert!(!exit(&mut stopped, Duration::from_secs(30)).success(), "an end that was not asked for");
    let lines = lines.join().expect("lines");
    assert_eq!(lines.len() + lost, 100_001, "every event came or was told as lost");
    assert_eq!(lines.last().expect("a line"), "last the end");
}
