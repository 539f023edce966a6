//! `/v1/poll`: streams by cursors, live topics by sessions that are set aside.

use std::{net::SocketAddr, time::Duration};

use serde_json::Value;
use switchyard::{proto::v1::PurgeStreamRequest, server::Server};

use super::{Answer, address, any_port, ask, hub};
use crate::{
    auth_harness::{Guarded, token},
    harness::{Folder, client, event, metric, publish, soon, until},
    stored::{create, hub_on_with, numbered, stop, store, stream, streams},
};

async fn hub_on(folder: &Folder) -> Server {
    hub_on_with(folder, |config| config.web.listen = any_port()).await
}

/// A hub on which one poll waits at a time.
fn one_poll(config: &mut switchyard::config::Config) {
    config.web.listen = any_port();
    config.web.max_polls = 1;
}

async fn get(at: SocketAddr, query: &str) -> Answer {
    ask(at, "GET", &format!("/v1/poll?{query}"), &[], "").await
}

/// The answer to a poll that works.
async fn poll(at: SocketAddr, query: &str) -> Value {
    let answer = get(at, query).await;
    assert_eq!(answer.status, 200, "{query}: {}", answer.body);
    answer.json()
}

/// The same for one that waits, and may have to try again until it may.
fn wait(at: SocketAddr, query: String) -> tokio::task::JoinHandle<Value> {
    tokio::spawn(async move {
        loop {
            let answer = get(at, &query).await;
            if answer.status != 429 {
                assert_eq!(answer.status, 200, "{query}: {}", answer.body);
                return answer.json();
            }
        }
    })
}

fn texts(answer: &Value) -> Vec<&str> {
    let events = answer["events"].as_array().expect("events");
    events.iter().map(|received| received["event"]["text"].as_str().expect("a text")).collect()
}

fn cursor(answer: &Value) -> &str {
    answer["cursor"].as_str().expect("a cursor")
}

fn reason(answer: &Answer) -> String {
    answer.json()["details"][0]["reason"].as_str().expect("a reason").to_owned()
}

#[tokio::test]
async fn a_stream_is_polled_from_cursor_to_cursor_also_after_a_restart() {
    let folder = Folder::new();
    let mut hub = hub_on(&folder).await;
    create(hub.address, stream("s", &["s.>"])).await;
    store(hub.address, numbered("s.x", 0..5)).await;
    let first = poll(address(&hub), "stream=s&start=earliest&limit=2").await;
    assert_eq!((texts(&first), &first["caughtUp"]), (vec!["0", "1"], &false.into()));
    assert_eq!(first["events"][1]["sequence"], "2");
    stop(hub).await;
    hub = hub_on(&folder).await;
    let rest = poll(address(&hub), &format!("stream=s&cursor={}", cursor(&first))).await;
    assert_eq!((texts(&rest), &rest["caughtUp"]), (vec!["2", "3", "4"], &true.into()));
    let again = poll(address(&hub), &format!("stream=s&cursor={}", cursor(&first))).await;
    assert_eq!(again, rest, "an answer that got lost is asked for again");

    // From here on: there is nothing, and then there is.
    let now = poll(address(&hub), "stream=s&wait=0").await;
    assert_eq!((texts(&now), cursor(&now), &now["caughtUp"]), (vec![], cursor(&rest), &true.into()));
    let waiting = wait(address(&hub), format!("stream=s&filter=s.y&cursor={}", cursor(&now)));
    store(hub.address, vec![event("s.x", "other"), event("s.y", "mine")]).await;
    let answer = soon("an answer", waiting).await.expect("no panic");
    assert_eq!((texts(&answer), &answer["caughtUp"]), (vec!["mine"], &true.into()));
    let none = poll(address(&hub), &format!("stream=s&filter=s.z&cursor={}&wait=0", cursor(&now))).await;
    assert_eq!((texts(&none), cursor(&none)), (vec![], cursor(&answer)), "what does not match is passed over");
}

#[tokio::test]
async fn what_is_lost_is_told_or_refused() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, stream("s", &["s.>"])).await;
    store(hub.address, numbered("s.x", 0..10)).await;
    let first = poll(address(&hub), "stream=s&start=earliest&limit=2").await;
    let request = PurgeStreamRequest { name: "s".into(), up_to_sequence: 5, filter: String::new() };
    streams(hub.address).await.purge_stream(request).await.expect("purged");
    let query = |on_gap: &str| format!("stream=s&cursor={}&limit=1&on_gap={on_gap}", cursor(&first));
    let earliest = poll(address(&hub), &query("earliest")).await;
    assert_eq!(texts(&earliest), ["5"]);
    let gap = &earliest["gap"];
    assert_eq!(
        (&gap["count"], &gap["fromSequence"], &gap["toSequence"], &gap["reason"]),
        (&"3".into(), &"3".into(), &"5".into(), &"GAP_REASON_RETENTION".into())
    );
    let latest = poll(address(&hub), &query("latest")).await;
    assert_eq!(
        (texts(&latest), &latest["gap"]["toSequence"], &latest["caughtUp"]),
        (vec![], &"10".into(), &true.into())
    );
    let refused = get(address(&hub), &query("fail")).await;
    assert_eq!((refused.status, reason(&refused)), (400, "RESUME_POINT_LOST".to_owned()));
}

#[tokio::test]
async fn an_answer_is_bounded_in_bytes_and_nothing_is_left_out() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, stream("s", &["s.>"])).await;
    for n in 0..5 {
        // Each is twice as large in JSON.
        store(hub.address, vec![event("s.x", format!("{n}{}", "\"".repeat(300 * 1024)))]).await;
    }
    let (mut seen, mut at, mut answers) = (Vec::new(), "start=earliest".to_owned(), 0);
    loop {
        let answer = get(address(&hub), &format!("stream=s&{at}&wait=0")).await;
        assert!(answer.body.len() < 2 * 1024 * 1024, "{} bytes", answer.body.len());
        let answer = answer.json();
        seen.extend(texts(&answer).iter().map(|text| text[..1].to_owned()));
        (at, answers) = (format!("cursor={}", cursor(&answer)), answers + 1);
        if answer["caughtUp"] == true {
            break;
        }
    }
    assert_eq!((seen.concat().as_str(), answers > 1), ("01234", true));
}

#[tokio::test]
async fn so_many_polls_wait_and_no_more() {
    let folder = Folder::new();
    let hub = hub_on_with(&folder, one_poll).await;
    create(hub.address, stream("s", &["s.>"])).await;
    let at = address(&hub);
    let waiting = wait(at, "stream=s".to_owned());
    until("one past the limit", async || {
        let answer = get(at, "stream=s&wait=1ms").await;
        answer.status == 429 && answer.header("retry-after") == Some("1") && reason(&answer) == "QUOTA_EXCEEDED"
    })
    .await;
    assert_eq!(poll(at, "stream=s&wait=0").await["caughtUp"], true, "one that does not wait");
    store(hub.address, numbered("s.x", 0..1)).await;
    assert_eq!(texts(&soon("an answer", waiting).await.expect("no panic")), ["0"]);
    until("room again", async || get(at, "stream=s&wait=1ms").await.status == 200).await;
}

#[tokio::test]
async fn a_hub_that_shuts_down_answers_at_once_with_the_cursor_it_was_given() {
    let folder = Folder::new();
    let hub = hub_on_with(&folder, one_poll).await;
    create(hub.address, stream("s", &["s.>"])).await;
    store(hub.address, numbered("s.x", 0..3)).await;
    let at = address(&hub);
    let all = poll(at, "stream=s&start=earliest").await;
    let waiting = wait(at, format!("stream=s&cursor={}&wait=60s", cursor(&all)));
    until("it waits", async || get(at, "stream=s&wait=1ms").await.status == 429).await;
    soon("it stops", hub.stop(Duration::ZERO)).await;
    let answer = soon("an answer", waiting).await.expect("no panic");
    assert_eq!((texts(&answer), cursor(&answer)), (vec![], cursor(&all)));
}

#[tokio::test]
async fn what_a_poll_cannot_have_is_refused() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    create(hub.address, stream("s", &["s.>"])).await;
    for (query, status, problem) in [
        ("filter=a", 400, "stream needs a value"),
        ("stream=s&start=last_per_topic", 400, "start needs a subscription"),
        ("stream=s&limit=1001", 400, "limit must be 1 to 1000"),
        ("stream=s&wait=61s", 400, "wait must be 0 to 60s"),
        ("stream=nothing", 404, "there is no stream nothing"),
        ("stream=s&cursor=c1.other.1.1", 400, "is for stream other"),
        ("stream=s&after=7", 400, "is beyond the end of the stream"),
        ("session=nothing", 404, "has no session"),
        ("session=a&stream=s", 400, "\"stream\""),
    ] {
        let answer = get(address(&hub), query).await;
        assert_eq!(answer.status, status, "{query}: {}", answer.body);
        assert!(
            answer.json()["message"].as_str().is_some_and(|text| text.contains(problem)),
            "{query}: {}",
            answer.body
        );
    }
}

#[tokio::test]
async fn a_caller_polls_what_it_may_read_and_nothing_else() {
    let folder = Folder::new();
    let hub = Guarded::start(&folder, |config| config.web.listen = any_port()).await;
    let at = address(&hub.server);
    let bearer = |roles: &[&str]| format!("Bearer {}", token("ann", roles));
    let admin = bearer(&["admin"]);
    let mut request =
        tonic::Request::new(switchyard::proto::v1::CreateStreamRequest { stream: Some(stream("vault", &["vault.>"])) });
    crate::auth_harness::bear(&mut request, &token("ann", &["admin"]));
    streams(hub.server.address).await.create_stream(request).await.expect("created");
    for topic in ["vault.secret", "vault.open"] {
        hub.publish("admin", topic, topic).await;
    }
    let ask = async |query: &str, roles: &[&str]| {
        ask(
            at,
            "GET",
            &format!("/v1/poll?stream=vault&start=earliest&wait=0{query}"),
            &[("authorization", &bearer(roles))],
            "",
        )
        .await
    };
    assert_eq!(texts(&ask("", &["admin"]).await.json()), ["vault.secret", "vault.open"]);
    assert_eq!(texts(&ask("", &["reads-secret"]).await.json()), ["vault.secret"]);
    assert_eq!(ask("&filter=vault.open", &["reads-secret"]).await.status, 403);
    assert_eq!(ask("", &["other"]).await.status, 403);
    drop(admin);
}

/// Opens a session of polls.
async fn session(at: SocketAddr, body: &str, headers: &[(&str, &str)]) -> Answer {
    let headers = [&[("content-type", "application/json")], headers].concat();
    ask(at, "POST", "/v1/poll", &headers, body).await
}

async fn live(at: SocketAddr, filter: &str) -> String {
    let answer = session(at, &format!("{{\"spec\":{{\"filters\":[\"{filter}\"]}}}}"), &[]).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()["session"].as_str().expect("a session").to_owned()
}

#[tokio::test]
async fn a_session_of_polls_keeps_live_events_between_two_of_them() {
    let hub = hub(|_| {}).await;
    let (at, mut publisher) = (address(&hub), client(hub.address).await);
    let id = live(at, "a.>").await;
    publisher.publish(publish(vec![event("a.b", "1"), event("c", "no"), event("a.c", "2")])).await.expect("published");
    let first = poll(at, &format!("session={id}")).await;
    assert_eq!((texts(&first), cursor(&first)), (vec!["1", "2"], "1"));
    let waiting = wait(at, format!("session={id}&cursor=1"));
    publisher.publish(publish(vec![event("a.b", "3")])).await.expect("published");
    let second = soon("an answer", waiting).await.expect("no panic");
    assert_eq!((texts(&second), cursor(&second)), (vec!["3"], "2"));
    let lost = poll(at, &format!("session={id}&cursor=1")).await;
    assert_eq!(lost, second, "an answer that got lost comes again");
    assert_eq!(texts(&poll(at, &format!("session={id}&cursor=2&wait=0")).await), [""; 0]);
    let foreign = get(at, &format!("session={id}&cursor=7&wait=0")).await;
    assert_eq!(foreign.status, 400, "{}", foreign.body);

    let ended = ask(at, "DELETE", &format!("/v1/poll?session={id}"), &[], "").await;
    assert_eq!(ended.status, 204);
    until("it is gone", async || metric(&hub, "switchyard_open_sessions").await == 0).await;
    assert_eq!(get(at, &format!("session={id}")).await.status, 404);
    assert_eq!(ask(at, "DELETE", &format!("/v1/poll?session={id}"), &[], "").await.status, 404);
}

#[tokio::test]
async fn what_does_not_fit_while_nobody_polls_is_lost_and_told() {
    let hub = hub(|config| config.web.parked_bytes = 8 * 1024).await;
    let (at, mut publisher) = (address(&hub), client(hub.address).await);
    let id = live(at, "a").await;
    for _ in 0..64 {
        publisher.publish(publish(vec![event("a", "x".repeat(1024))])).await.expect("published");
    }
    let answer = poll(at, &format!("session={id}")).await;
    let (got, lost) = (texts(&answer).len(), answer["gap"]["count"].as_str().expect("a gap"));
    assert_eq!((got as u64 + lost.parse::<u64>().expect("a number"), got < 8), (64, true), "{got} and {lost}");
    assert_eq!(answer["gap"]["reason"], "GAP_REASON_OVERFLOW");
}

#[tokio::test]
async fn an_answer_that_is_too_large_to_be_kept_is_lost_with_a_word() {
    let hub = hub(|_| {}).await;
    let (at, mut publisher) = (address(&hub), client(hub.address).await);
    let id = live(at, "a").await;
    publisher.publish(publish(vec![event("a", "x".repeat(300 * 1024))])).await.expect("published");
    assert_eq!(poll(at, &format!("session={id}&cursor=0")).await["events"].as_array().map(Vec::len), Some(1));
    let again = poll(at, &format!("session={id}&cursor=0&wait=0")).await;
    assert_eq!((texts(&again), &again["gap"]["count"]), (vec![], &"1".into()));
}

#[tokio::test]
async fn a_session_ends_when_nobody_polls_it_any_more() {
    let hub = hub(|config| config.web.parked_timeout_ms = 100).await;
    let id = live(address(&hub), "a").await;
    until("it ends", async || metric(&hub, "switchyard_open_sessions").await == 0).await;
    assert_eq!(get(address(&hub), &format!("session={id}")).await.status, 404);
}

#[tokio::test]
async fn there_are_so_many_sessions_of_polls_and_no_more() {
    let hub = hub(|config| config.web.max_parked = 1).await;
    let at = address(&hub);
    let id = live(at, "a").await;
    let refused = session(at, "{\"spec\":{\"filters\":[\"a\"]}}", &[]).await;
    assert_eq!((refused.status, reason(&refused)), (429, "QUOTA_EXCEEDED".to_owned()), "one past");
    assert_eq!(ask(at, "DELETE", &format!("/v1/poll?session={id}"), &[], "").await.status, 204);
    live(at, "a").await;
}

#[tokio::test]
async fn a_session_is_for_the_principal_that_opened_it() {
    let folder = Folder::new();
    let hub = Guarded::start(&folder, |config| config.web.listen = any_port()).await;
    let at = address(&hub.server);
    let bearer = |name: &str| format!("Bearer {}", token(name, &["reader"]));
    let (ann, ben) = (bearer("ann"), bearer("ben"));
    let opened = session(at, "{\"spec\":{\"filters\":[\"open.>\"]}}", &[("authorization", &ann)]).await;
    let id = opened.json()["session"].as_str().expect("a session").to_owned();
    let path = format!("/v1/poll?session={id}&wait=0");
    assert_eq!(ask(at, "GET", &path, &[("authorization", &ben)], "").await.status, 404);
    assert_eq!(ask(at, "DELETE", &path.replace("&wait=0", ""), &[("authorization", &ben)], "").await.status, 404);
    assert_eq!(ask(at, "GET", &path, &[("authorization", &ann)], "").await.status, 200);
    let denied = session(at, "{\"spec\":{\"filters\":[\"closed\"]}}", &[("authorization", &ann)]).await;
    assert_eq!((denied.status, reason(&denied)), (403, "TOPIC_DENIED".to_owned()));
}

#[tokio::test]
async fn of_two_polls_of_a_session_the_later_one_waits() {
    let hub = hub(|_| {}).await;
    let (at, mut publisher) = (address(&hub), client(hub.address).await);
    let id = live(at, "a").await;
    let (first, second) = (wait(at, format!("session={id}&wait=60s")), wait(at, format!("session={id}&wait=60s")));
    // Whichever came first gives way to the other, which gets what comes.
    let (early, late) = {
        let (mut first, mut second) = (first, second);
        tokio::select! {
            answer = &mut first => (answer, second),
            answer = &mut second => (answer, first),
        }
    };
    assert_eq!(texts(&early.expect("no panic")), [""; 0]);
    publisher.publish(publish(vec![event("a", "x")])).await.expect("published");
    assert_eq!(texts(&soon("an answer", late).await.expect("no panic")), ["x"]);
}

#[tokio::test]
async fn a_session_of_polls_hears_that_the_hub_shuts_down() {
    let hub = hub(|config| {
        one_poll(config);
        config.drain.spread_ms = 0;
    })
    .await;
    let at = address(&hub);
    let (id, other) = (live(at, "a").await, live(at, "a").await);
    let waiting = wait(at, format!("session={id}&wait=60s"));
    until("it waits", async || get(at, &format!("session={other}&wait=1ms")).await.status == 429).await;
    soon("it stops", hub.stop(Duration::ZERO)).await;
    let answer = soon("an answer", waiting).await.expect("no panic");
    assert!(answer["draining"].is_object() || answer["ended"].is_object(), "{answer}");
}

#[tokio::test]
async fn what_is_wrong_with_a_session_of_polls_is_named() {
    let hub = hub(|_| {}).await;
    let at = address(&hub);
    for (body, status, problem) in [
        ("{\"spec\":{\"filterz\":[]}}", 400, "spec.filterz"),
        ("{}", 400, "it is missing"),
        ("{\"spec\":{}}", 400, "needs at least one filter"),
        ("{\"spec\":{\"filters\":[\"a..b\"]}}", 400, "filter 0 is invalid"),
        ("nonsense", 400, ""),
    ] {
        let answer = session(at, body, &[]).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.body);
        assert!(answer.body.contains(problem), "{body}: {}", answer.body);
    }
    let wrong = ask(at, "POST", "/v1/poll", &[("content-type", "text/plain")], "{}").await;
    assert_eq!(wrong.status, 415);
    until("nothing is left", async || metric(&hub, "switchyard_open_sessions").await == 0).await;
}
