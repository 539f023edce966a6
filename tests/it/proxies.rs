//! Sessions through nginx, HAProxy and Envoy, with the files of `examples/proxies`: what they carry, what keeps an idle
//! session alive, and what each setting there is needed for.

use std::time::{Duration, Instant};

use switchyard::proto::v1::{Hello, Subscribe, session_request::Command as Wire, session_response::Frame};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::Code;

use crate::{
    harness::{Process, Session, event, publish, soon, spec, texts},
    proxy::{AUTHORITIES, Kind, Ports, Proxy},
};

/// How long a session is idle: several times what the proxy allows, and longer than Envoy lets a call last unless it is
/// told otherwise.
const IDLE: Duration = Duration::from_secs(16);

const HEARTBEATS: i64 = 1;
/// The hub's own idea of "never", for a test.
const NO_HEARTBEATS: i64 = 300;

fn hubs() -> [Process; 2] {
    [Process::start(&[]), Process::start(&[])]
}

fn ports(hubs: &[Process; 2]) -> [Ports; 2] {
    [0, 1].map(|at| (hubs[at].address, hubs[at].ops_address))
}

/// A session through the proxy that wants a heartbeat every so many seconds, has one subscription, and says no more.
async fn idle(proxy: &Proxy, seconds: i64) -> Session {
    let mut session = Session::open_on(&mut proxy.client("hub-0.example").await).await;
    let interval = Some(prost_types::Duration { seconds, nanos: 0 });
    session.send(0, Wire::Hello(Hello { heartbeat_interval: interval, ..Hello::default() })).await;
    session.send(1, Wire::Subscribe(Subscribe { subscription_id: 1, spec: Some(spec(&["idle"])) })).await;
    assert!(matches!(session.frame().await.frame, Some(Frame::Subscribed(_))));
    session
}

/// Reads nothing but heartbeats for a time; false when the session ends before.
async fn stays(session: &mut Session, time: Duration) -> bool {
    let start = Instant::now();
    while start.elapsed() < time {
        match soon("a heartbeat or the end", session.frames.next()).await {
            Some(Ok(frame)) => assert!(matches!(frame.frame, Some(Frame::Heartbeat(_))), "{frame:?}"),
            _ => return false,
        }
    }
    true
}

async fn heartbeats_keep_an_idle_session_alive(kind: Kind) {
    let hubs = hubs();
    let proxy = Proxy::start_short(kind, ports(&hubs), &[]).await;
    let (mut heard, mut silent) = (idle(&proxy, HEARTBEATS).await, idle(&proxy, NO_HEARTBEATS).await);
    let mut half_closed = idle(&proxy, HEARTBEATS).await;
    half_closed.half_close();
    let (heard_stays, silent_stays, half_closed_stays) =
        tokio::join!(stays(&mut heard, IDLE), stays(&mut silent, IDLE), stays(&mut half_closed, IDLE));
    assert!(!silent_stays, "{kind:?} cuts what is idle, so the others show something");
    assert!(heard_stays && half_closed_stays, "heartbeats keep them alive through {kind:?}");
    proxy.client("hub-0.example").await.publish(publish(vec![event("idle", "still here")])).await.expect("published");
    loop {
        match heard.frame().await.frame {
            Some(Frame::Heartbeat(_)) => {}
            Some(Frame::Events(events)) => break assert_eq!(texts(&events), ["still here"]),
            other => panic!("unexpected: {other:?}"),
        }
    }
}

/// Longer than what nginx and HAProxy allow, in their files as they are.
const IDLE_AS_SHIPPED: Duration = Duration::from_secs(65);

/// Nothing is shortened: the heartbeats are those of the hub, every 15 s, and the times those of the proxy. Nothing else is
/// sent: nginx counts a hub's HTTP/2 pings too, of which clients behind another proxy know nothing.
async fn heartbeats_outlast(kind: Kind) {
    let hubs = [0; 2].map(|_| Process::start(&["--set", "connections.keepalive_interval_ms=600000"]));
    let proxy = Proxy::start(kind, ports(&hubs), &[]).await;
    let mut session = Session::open_on(&mut proxy.client("hub-0.example").await).await;
    session.subscribe(1, spec(&["idle"])).await;
    let mut half_closed = Session::open_on(&mut proxy.client("hub-0.example").await).await;
    half_closed.subscribe(1, spec(&["idle"])).await;
    half_closed.half_close();
    let mut silent = idle(&proxy, NO_HEARTBEATS).await;
    let (stay, half_closed_stays, silent_ends) = tokio::join!(
        stays(&mut session, IDLE_AS_SHIPPED),
        stays(&mut half_closed, IDLE_AS_SHIPPED),
        // Long before the hub would say something of its own.
        tokio::time::timeout(IDLE_AS_SHIPPED, silent.frames.next()),
    );
    assert!(stay && half_closed_stays, "idle sessions live through {kind:?}");
    let cut = silent_ends.is_ok_and(|next| !matches!(next, Some(Ok(_))));
    assert!(cut, "{kind:?} cuts what is idle, so the others show something");
    proxy.client("hub-0.example").await.publish(publish(vec![event("idle", "still here")])).await.expect("published");
    for session in [&mut session, &mut half_closed] {
        loop {
            match session.frame().await.frame {
                Some(Frame::Heartbeat(_)) => {}
                Some(Frame::Events(events)) => break assert_eq!(texts(&events), ["still here"]),
                other => panic!("unexpected: {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn an_idle_session_outlives_what_nginx_and_haproxy_allow_as_shipped() {
    tokio::join!(heartbeats_outlast(Kind::Nginx), heartbeats_outlast(Kind::Haproxy));
}

/// With a setting of the file changed, a session that has heartbeats, and whose client says no more, ends all the same.
async fn without_it_an_idle_session_ends(kind: Kind, from: &str, to: &str) {
    let hubs = hubs();
    let proxy = Proxy::start(kind, ports(&hubs), &[(from, to)]).await;
    let mut session = idle(&proxy, HEARTBEATS).await;
    session.half_close();
    assert!(!stays(&mut session, IDLE).await, "{from} is needed");
}

/// So many events of so many bytes: 8 MiB, more than any buffer or default limit on the way.
const EVENTS: usize = 1_024;
const BYTES: usize = 8 * 1024;

/// Publishes over one session until all is answered; how many were.
async fn publish_much(proxy: &Proxy) -> usize {
    let mut session = Session::open_on(&mut proxy.client("hub-0.example").await).await;
    let filler = "x".repeat(BYTES);
    let mut answered = 0;
    for at in 0..EVENTS {
        let events = vec![event("much", format!("{at} {filler}"))];
        let request =
            switchyard::proto::v1::SessionRequest { request_id: 1, command: Some(Wire::Publish(publish(events))) };
        let commands = session.commands.as_ref().expect("open");
        if soon("room", commands.send(request)).await.is_err() {
            return answered;
        }
        match soon("an answer", session.frames.next()).await {
            Some(Ok(frame)) => assert!(matches!(frame.frame, Some(Frame::Published(_))), "{frame:?}"),
            _ => return answered,
        }
        answered += 1;
    }
    answered
}

async fn events_go_both_ways(kind: Kind) {
    let hubs = hubs();
    let proxy = Proxy::start(kind, ports(&hubs), &[]).await;
    let mut subscriber = Session::open_on(&mut proxy.client("hub-0.example").await).await;
    subscriber.subscribe(1, spec(&["much"])).await;
    let read = async {
        let mut got = 0;
        while got < EVENTS {
            match subscriber.frame().await.frame {
                Some(Frame::Events(events)) => {
                    for text in texts(&events) {
                        assert_eq!(
                            (text.len(), text.split(' ').next()),
                            (got.to_string().len() + 1 + BYTES, Some(&*got.to_string()))
                        );
                        got += 1;
                    }
                }
                Some(Frame::Heartbeat(_)) => {}
                other => panic!("unexpected: {other:?}"),
            }
        }
    };
    let (published, ()) = tokio::join!(publish_much(&proxy), read);
    assert_eq!(published, EVENTS);
}

/// All three at a time, since nearly all of it is waiting.
#[tokio::test]
async fn heartbeats_keep_an_idle_session_alive_through_every_proxy() {
    tokio::join!(
        heartbeats_keep_an_idle_session_alive(Kind::Nginx),
        heartbeats_keep_an_idle_session_alive(Kind::Haproxy),
        heartbeats_keep_an_idle_session_alive(Kind::Envoy),
    );
}

#[tokio::test]
async fn events_go_both_ways_through_nginx() {
    events_go_both_ways(Kind::Nginx).await;
}

#[tokio::test]
async fn events_go_both_ways_through_haproxy() {
    events_go_both_ways(Kind::Haproxy).await;
}

#[tokio::test]
async fn events_go_both_ways_through_envoy() {
    events_go_both_ways(Kind::Envoy).await;
}

/// Whatever the proxy would say itself when there is no hub, a client can read it.
async fn without_a_hub_calls_are_unavailable(kind: Kind) {
    let hubs = hubs();
    let proxy = Proxy::start(kind, ports(&hubs), &[]).await;
    drop(hubs);
    for authority in AUTHORITIES {
        let refused = proxy.client(authority).await.publish(publish(vec![event("nobody", "hears")])).await;
        assert_eq!(refused.expect_err("no hub").code(), Code::Unavailable, "{authority}");
        let (_commands, receiver) = tokio::sync::mpsc::channel(1);
        let refused = proxy.client(authority).await.session(ReceiverStream::new(receiver)).await;
        assert_eq!(refused.expect_err("no hub").code(), Code::Unavailable, "{authority}");
    }
}

#[tokio::test]
async fn without_a_hub_calls_are_unavailable_through_nginx() {
    without_a_hub_calls_are_unavailable(Kind::Nginx).await;
}

#[tokio::test]
async fn without_a_hub_calls_are_unavailable_through_haproxy() {
    without_a_hub_calls_are_unavailable(Kind::Haproxy).await;
}

#[tokio::test]
async fn without_a_hub_calls_are_unavailable_through_envoy() {
    without_a_hub_calls_are_unavailable(Kind::Envoy).await;
}

#[tokio::test]
async fn nginx_cuts_a_publisher_after_a_megabyte_unless_told_otherwise() {
    let hubs = hubs();
    let limit = ("client_max_body_size 0", "client_max_body_size 1m");
    let proxy = Proxy::start(Kind::Nginx, ports(&hubs), &[limit]).await;
    let answered = publish_much(&proxy).await;
    assert!(answered < EVENTS, "client_max_body_size 0 is needed");
}

#[tokio::test]
async fn envoy_ends_a_call_after_its_timeout_unless_told_otherwise() {
    without_it_an_idle_session_ends(Kind::Envoy, "timeout: 0s", "timeout: 4s").await;
}
