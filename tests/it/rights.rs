//! Every way in which the bytes of an event can reach a caller, each with a topic that the caller may not read:
//!
//! | way | test |
//! |---|---|
//! | live, in a session and by `Subscribe`, alone and in a group; new filters of a subscription that runs | `a_live_subscription_has_no_denied_topic` |
//! | a stream, from its start, after a sequence, at a time, the last of each topic, what is new | `a_stream_gives_no_denied_topic_from_wherever_it_is_read` |
//! | the resume token of somebody who may read more | the same |
//! | a group on a stream: what is new to it, and what others have had | `a_group_gives_its_members_no_denied_topic` |
//! | dead letters that are given back | `what_is_given_back_goes_to_no_member_that_may_not_read_it` |
//! | what another member of a group has left | `what_a_member_leaves_goes_to_no_other_that_may_not_read_it` |
//! | GetEvent by sequence, and the last of a topic | `no_event_of_a_denied_topic_is_shown` |
//! | ListEvents from either end, from anywhere, through a filter, in pages; as dead letters | `no_page_has_an_event_of_a_denied_topic` |
//! | ListTopics, and where its pages end | `no_page_has_a_denied_topic` |
//! | dead letters: listed, and read as events of their stream | `dead_letters_of_a_denied_topic_are_not_shown` |
//! | `sub` and `stream event` of the command line | `the_program_prints_nothing_of_a_denied_topic` |
//!
//! And what somebody else can do to events on topics that are not theirs: forge them as dead letters, take their topics
//! into a stream, take their ids.

use std::{net::SocketAddr, process::Output};

use prost::Message;
use switchyard::proto::v1::{
    self, AckMode, AckOutcome, Acknowledge, Event, Stream, Subscribe, SubscribeRequest, SubscriptionSpec,
    get_event_request::Which, group_service_client::GroupServiceClient, list_events_request::Begin,
    session_request::Command as Wire, session_response::Frame, start_position::Position,
    stream_service_client::StreamServiceClient, subscribe_response,
};
use tokio_stream::StreamExt;
use tonic::{Code, Request, Status, transport::Channel};

use crate::{
    auth_harness::{Guarded, POLICY, bear, token},
    harness::{
        Folder, Session, channel, client, event, program, publish, reason, reason_of_call, soon, spec, texts, until,
    },
    stored::{from, preset},
};

const ROLES: &str = r#"
[roles.alice.allow]
subscribe = ["s.open", "lost.>"]
streams = ["s", "lost"]
groups = ["s/*", "/*"]

[roles.mallory.allow]
publish = ["lost.>", "s.mallory"]
manage = ["streams:mine*", "topics:mine.>", "groups"]
"#;

/// A hub with the stream `s`, which has a secret, an open event, and both once more, and the stream `lost`.
struct Place {
    hub: Guarded,
    address: SocketAddr,
    root: String,
    alice: String,
    mallory: String,
}

impl Place {
    async fn new(folder: &Folder) -> Self {
        let write = |config: &mut switchyard::config::Config| {
            std::fs::write(&config.auth.policy_file, format!("{POLICY}{ROLES}")).expect("written");
        };
        let hub = Guarded::start(folder, write).await;
        let address = hub.server.address;
        let [root, alice, mallory] = ["admin", "alice", "mallory"].map(|role| token(role, &[role]));
        let place = Self { hub, address, root, alice, mallory };
        for name in ["s", "lost"] {
            place.create(&place.root, name, &format!("{name}.>")).await.expect("created");
        }
        for _ in 0..2 {
            place.publish("s.secret", "secret").await;
            place.publish("s.open", "open").await;
        }
        place
    }

    async fn create(&self, token: &str, name: &str, filter: &str) -> Result<Stream, Status> {
        let stream = Stream { name: name.into(), filters: vec![filter.into()], ..Stream::default() };
        let request = bearing(token, v1::CreateStreamRequest { stream: Some(stream) });
        let response = self.streams().await.create_stream(request).await?;
        Ok(response.into_inner().stream.expect("a stream"))
    }

    async fn publish(&self, topic: &str, text: &str) {
        self.hub.publish("admin", topic, text).await;
    }

    async fn streams(&self) -> StreamServiceClient<Channel> {
        StreamServiceClient::new(channel(self.address).await)
    }

    async fn groups(&self) -> GroupServiceClient<Channel> {
        GroupServiceClient::new(channel(self.address).await)
    }

    /// What alice gets of what she wishes for, up to an event that says `last`, and the reason for which she gets nothing.
    async fn read(&self, wish: SubscriptionSpec) -> Result<Vec<String>, String> {
        let mut session = self.hub.session(&self.alice).await;
        session.send(1, Wire::Subscribe(Subscribe { subscription_id: 1, spec: Some(wish) })).await;
        match session.frame().await.frame {
            Some(Frame::Subscribed(_)) => {}
            Some(Frame::Ended(ended)) => return Err(reason(&ended.status.expect("a status"))),
            other => panic!("neither subscribed nor ended: {other:?}"),
        }
        self.publish_the_last().await;
        Ok(until_last(&mut session).await)
    }

    /// The same by a call of its own.
    async fn call(&self, wish: SubscriptionSpec) -> Result<Vec<String>, String> {
        let request = bearing(&self.alice, SubscribeRequest { spec: Some(wish) });
        let mut frames = match client(self.address).await.subscribe(request).await {
            Ok(response) => response.into_inner(),
            Err(status) => return Err(reason_of_call(&status)),
        };
        let mut got = Vec::new();
        while got.last().is_none_or(|text| text != "last") {
            match soon("a frame", frames.next()).await.expect("a frame") {
                Ok(v1::SubscribeResponse { frame: Some(subscribe_response::Frame::Events(events)), .. }) => {
                    got.extend(texts(&events));
                }
                Ok(v1::SubscribeResponse { frame: Some(subscribe_response::Frame::Subscribed(_)), .. }) => {
                    self.publish_the_last().await;
                }
                Ok(_) => {}
                Err(status) => return Err(reason_of_call(&status)),
            }
        }
        Ok(got)
    }

    async fn publish_the_last(&self) {
        for (topic, text) in [("s.secret", "secret"), ("s.open", "last"), ("lost.a", "last")] {
            self.publish(topic, text).await;
        }
    }

    /// What she may read comes, and nothing else; what asks for more is refused.
    async fn check(&self, what: &str, wish: impl Fn(&[&str]) -> SubscriptionSpec, opens: usize) {
        let mut expected = vec!["open".to_owned(); opens];
        expected.push("last".to_owned());
        assert_eq!(self.read(wish(&["s.open"])).await.as_ref(), Ok(&expected), "{what}");
        for filters in [&["s.secret"][..], &["s.>"], &["s.*"], &[">"], &["s.open", "s.secret"], &[]] {
            if filters.is_empty() && wish(filters).stream.is_empty() {
                continue;
            }
            assert_eq!(self.read(wish(filters)).await, Err("TOPIC_DENIED".into()), "{what}: {filters:?}");
        }
    }

    /// Makes the group `g` on `s`, which gives up what fails once, with nothing done.
    async fn group(&self) {
        let group = v1::Group {
            stream: "s".into(),
            name: "g".into(),
            dead_letter_stream: "lost".into(),
            max_attempts: Some(1),
            ..v1::Group::default()
        };
        let start = preset(v1::StartPreset::Earliest);
        let request = bearing(&self.root, v1::CreateGroupRequest { group: Some(group), start });
        self.groups().await.create_group(request).await.expect("created");
    }

    /// A member of that group that may read everything, with the four events that there are.
    async fn member(&self) -> Session {
        let mut session = self.hub.session(&self.root).await;
        session.subscribe(1, of_group(&["s.>"])).await;
        assert_eq!(session.collect(&[(1, 4)].into()).await[&1], ["secret", "open", "secret", "open"]);
        session
    }

    async fn letters(&self, token: &str) -> Vec<v1::DeadLetter> {
        let asked = v1::ListDeadLettersRequest { stream: "s".into(), group: "g".into(), ..Default::default() };
        let listed = self.groups().await.list_dead_letters(bearing(token, asked)).await;
        listed.expect("listed").into_inner().dead_letters
    }

    /// Has the group give up all there is.
    async fn give_up(&self) {
        self.group().await;
        let mut session = self.member().await;
        let told = Acknowledge {
            subscription_id: 1,
            sequences: vec![1, 2, 3, 4],
            outcome: AckOutcome::Reject.into(),
            ..Acknowledge::default()
        };
        session.send(0, Wire::Acknowledge(told)).await;
        until("all is given up", async || self.letters(&self.root).await.len() == 4).await;
        // Whoever joins next may want other topics than this member.
        session.send(0, Wire::Unsubscribe(v1::Unsubscribe { subscription_id: 1 })).await;
        while !matches!(session.frame().await.frame, Some(Frame::Ended(_))) {}
    }

    async fn get(&self, stream: &str, which: Which) -> Result<String, (Code, String)> {
        let asked = v1::GetEventRequest { stream: stream.into(), which: Some(which) };
        let got = self.streams().await.get_event(bearing(&self.alice, asked)).await;
        let got = got.map_err(|status| (status.code(), reason_of_call(&status)))?;
        Ok(crate::stored::text(got.get_ref().event.as_ref().expect("an event")).to_owned())
    }

    /// The texts on each page of events that alice gets.
    async fn pages(&self, mut asked: v1::ListEventsRequest) -> Vec<Vec<String>> {
        let (mut client, mut pages) = (self.streams().await, Vec::new());
        loop {
            let page = client.list_events(bearing(&self.alice, asked.clone())).await.expect("a page").into_inner();
            assert!(!tells(&page, "secret"), "{page:?}");
            let events = page.events.iter().map(|listed| listed.event.as_ref().expect("an event"));
            pages.push(events.map(|event| crate::stored::text(event).to_owned()).collect());
            asked.page_token = page.next_page_token;
            if asked.page_token.is_empty() {
                return pages;
            }
        }
    }

    /// The names on each page of topics that alice gets.
    async fn topic_pages(&self, mut asked: v1::ListTopicsRequest) -> Vec<Vec<String>> {
        let (mut client, mut pages) = (self.streams().await, Vec::new());
        loop {
            let page = client.list_topics(bearing(&self.alice, asked.clone())).await.expect("a page").into_inner();
            assert!(!tells(&page, "secret") && !tells(&page, "s.d"), "{page:?}");
            pages.push(page.topics.into_iter().map(|state| state.topic).collect());
            asked.page_token = page.next_page_token;
            if asked.page_token.is_empty() {
                return pages;
            }
        }
    }

    /// Publishes many events at once.
    async fn publish_all(&self, events: Vec<Event>) {
        client(self.address).await.publish(bearing(&self.root, publish(events))).await.expect("published");
    }

    /// Runs the program as alice.
    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = program();
        command.args(arguments).args(["--server", &self.address.to_string()]).env("SWITCHYARD_TOKEN", &self.alice);
        tokio::task::block_in_place(|| command.output().expect("it runs"))
    }
}

fn bearing<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    bear(&mut request, token);
    request
}

/// Whether an answer has a word anywhere.
fn tells(answer: &impl Message, word: &str) -> bool {
    answer.encode_to_vec().windows(word.len()).any(|part| part == word.as_bytes())
}

async fn until_last(session: &mut Session) -> Vec<String> {
    let mut got = Vec::new();
    while got.last().is_none_or(|text| text != "last") {
        match session.frame().await.frame {
            Some(Frame::Events(events)) => got.extend(texts(&events)),
            Some(Frame::Progress(_) | Frame::Heartbeat(_)) => {}
            other => panic!("unexpected: {other:?}"),
        }
    }
    got
}

fn of_group(filters: &[&str]) -> SubscriptionSpec {
    SubscriptionSpec { group: "g".into(), ack_mode: AckMode::Explicit.into(), stream: "s".into(), ..spec(filters) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_subscription_has_no_denied_topic() {
    let folder = Folder::new();
    let place = Place::new(&folder).await;
    place.check("live", spec, 0).await;
    place.check("in a group", |filters| SubscriptionSpec { group: "g".into(), ..spec(filters) }, 0).await;
    assert_eq!(place.call(spec(&["s.open"])).await, Ok(vec!["last".to_owned()]));
    assert_eq!(place.call(spec(&["s.>"])).await, Err("TOPIC_DENIED".into()));
    // New filters are judged as the first ones, and the old ones stay.
    let mut session = place.hub.session(&place.alice).await;
    session.subscribe(1, spec(&["s.open"])).await;
    for filters in [&["s.secret"][..], &["s.>"]] {
        let filters = filters.iter().map(|filter| (*filter).to_owned()).collect();
        session.send(7, Wire::Update(v1::Update { subscription_id: 1, filters, expression: String::new() })).await;
        assert_eq!(reason(&session.error().await.1), "TOPIC_DENIED");
    }
    place.publish_the_last().await;
    assert_eq!(until_last(&mut session).await, ["last"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_gives_no_denied_topic_from_wherever_it_is_read() {
    let folder = Folder::new();
    let place = Place::new(&folder).await;
    // The token of somebody who has read the first of all events.
    let mut root = place.hub.session(&place.root).await;
    let all = SubscriptionSpec { max_batch: 1, max_events: 1, ..from("s", preset(v1::StartPreset::Earliest)) };
    root.subscribe(1, all).await;
    let foreign = root.events().await.resume_token;
    let starts = [
        ("what is new", Position::Preset(v1::StartPreset::New.into())),
        ("the last of each topic", Position::Preset(v1::StartPreset::LastPerTopic.into())),
        ("the start", Position::Preset(v1::StartPreset::Earliest.into())),
        ("a sequence", Position::AfterSequence(0)),
        ("a time", Position::AtTime(prost_types::Timestamp::default())),
        ("the token of somebody else", Position::ResumeToken(foreign)),
    ];
    let last = "last".to_owned();
    for (what, position) in starts {
        let start = Some(v1::StartPosition { position: Some(position) });
        let wish = |filters: &[&str]| SubscriptionSpec { stream: "s".into(), start: start.clone(), ..spec(filters) };
        let opens = place.read(wish(&["s.open"])).await.expect(what);
        assert!(opens.last() == Some(&last) && opens.iter().all(|text| *text != "secret"), "{what}: {opens:?}");
        for filters in [&["s.secret"][..], &["s.>"], &["s.*"], &[">"], &["s.open", "s.secret"], &[]] {
            assert_eq!(place.read(wish(filters)).await, Err("TOPIC_DENIED".into()), "{what}: {filters:?}");
            assert_eq!(place.call(wish(filters)).await, Err("TOPIC_DENIED".into()), "{what}: {filters:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_gives_its_members_no_denied_topic() {
    let folder = Folder::new();
    let place = Place::new(&folder).await;
    let start = preset(v1::StartPreset::Earliest);
    let wish = |filters: &[&str]| SubscriptionSpec {
        stream: "s".into(),
        group: "new".into(),
        start: start.clone(),
        ..spec(filters)
    };
    place.check("a group", wish, 2).await;
    // Who manages groups and may not read has nothing of a group either.
    let mut mallory = place.hub.session(&place.mallory).await;
    mallory.send(1, Wire::Subscribe(Subscribe { subscription_id: 1, spec: Some(of_group(&["s.open"])) })).await;
    assert_eq!(reason(&mallory.ended().await.status.expect("a status")), "TOPIC_DENIED");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_back_goes_to_no_member_that_may_not_read_it() {
    let folder = Folder::new();
    let place = Place::new(&folder).await;
    place.give_up().await;
    let mut alice = place.hub.session(&place.alice).await;
    alice.subscribe(1, of_group(&["s.open"])).await;
    let all = v1::RedriveDeadLettersRequest { stream: "s".into(), group: "g".into(), sequences: Vec::new() };
    place.groups().await.redrive_dead_letters(bearing(&place.root, all)).await.expect("redriven");
    place.publish_the_last().await;
    assert_eq!(until_last(&mut alice).await, ["open", "open", "last"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_member_leaves_goes_to_no_other_that_may_not_read_it() {
    let folder = Folder::new();
    let place = Place::new(&folder).await;
    place.group().await;
    let mut root = place.member().await;
    root.send(0, Wire::Unsubscribe(v1::Unsubscribe { subscription_id: 1 })).await;
    root.ended().await;
    let mut alice = place.hub.session(&place.alice).await;
    alice.subscribe(1, of_group(&["s.open"])).await;
    place.publish_the_last().await;
    let got = until_last(&mut alice).await;
    assert!(got.iter().all(|text| text != "secret"), "{got:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_event_of_a_denied_topic_is_shown() {
    let folder = Folder::new();
    let place = Place::new(&folder).await;
    assert_eq!(place.get("s", Which::Sequence(2)).await, Ok("open".into()));
    assert_eq!(place.get("s", Which::LastOfTopic("s.open".into())).await, Ok("open".into()));
    // One that she may not read is as if it were not there.
    let missing = Err((Code::NotFound, "EVENT_NOT_FOUND".to_owned()));
    assert_eq!(
        [place.get("s", Which::Sequence(1)).await, place.get("s", Which::Sequence(99)).await],
        [missing.clone(), missing]
    );
    for topic in ["s.secret", "s.nothing"] {
        let denied = Err((Code::PermissionDenied, "TOPIC_DENIED".to_owned()));
        assert_eq!(place.get("s", Which::LastOfTopic(topic.into())).await, denied, "{topic}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_page_has_an_event_of_a_denied_topic() {
    let folder = Folder::new();
    let place = Place::new(&folder).await;
    let of = |stream: &str| v1::ListEventsRequest { stream: stream.into(), ..Default::default() };
    for (page_size, newest_first) in [(0, false), (0, true), (1, false), (1, true)] {
        for (filter, begin, opens) in [
            ("", None, 2),
            ("s.>", None, 2),
            ("s.open", None, 2),
            ("s.secret", None, 0),
            ("", Some(Begin::FromSequence(3)), 1),
            ("", Some(Begin::FromTime(prost_types::Timestamp::default())), if newest_first { 0 } else { 2 }),
        ] {
            let asked = v1::ListEventsRequest { filter: filter.into(), begin, page_size, newest_first, ..of("s") };
            let got = place.pages(asked).await.concat();
            assert_eq!(got, vec!["open"; opens], "{page_size} {newest_first} {filter} {begin:?}");
        }
    }
    place.give_up().await;
    assert_eq!(place.pages(of("lost")).await, [["open", "open"]], "as dead letters");
    // What she may not read costs no more than a call may, and does not end her pages.
    let (secret, last) = (event("s.secret", "secret"), event("s.open", "last"));
    for _ in 0..2 {
        place.publish_all(vec![secret.clone(); 10_000]).await;
    }
    place.publish_all(vec![last]).await;
    let from = v1::ListEventsRequest { begin: Some(Begin::FromSequence(5)), page_size: 1, ..of("s") };
    assert_eq!(place.pages(from).await, [vec![], vec!["last"]]);
    let newest = v1::ListEventsRequest { newest_first: true, ..of("s") };
    assert_eq!(place.pages(newest).await.concat(), ["last", "open", "open"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_page_has_a_denied_topic() {
    let folder = Folder::new();
    let place = Place::new(&folder).await;
    let all = v1::ListTopicsRequest { stream: "s".into(), ..Default::default() };
    for (prefix, filter, expected) in [
        ("", "", vec!["s.open"]),
        ("s.", "s.*", vec!["s.open"]),
        ("s.o", "", vec!["s.open"]),
        ("s.s", "", vec![]),
        ("", "s.secret", vec![]),
    ] {
        let asked = v1::ListTopicsRequest { prefix: prefix.into(), filter: filter.into(), ..all.clone() };
        assert_eq!(place.topic_pages(asked).await, [expected], "{prefix} {filter}");
    }
    // Before the one that she may read are more than one call looks at; where its page ends, she does not learn.
    for batch in 0..7 {
        let topic = |n: usize| event(&format!("s.d{}", batch * 10_000 + n), "");
        place.publish_all((0..10_000).map(topic).collect()).await;
    }
    assert_eq!(place.topic_pages(all).await, [vec![], vec!["s.open"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_of_a_denied_topic_are_not_shown() {
    let folder = Folder::new();
    let place = Place::new(&folder).await;
    place.give_up().await;
    let listed = place.letters(&place.alice).await;
    let topics: Vec<_> =
        listed.iter().map(|letter| letter.event.clone().and_then(|e| e.event).expect("it").topic).collect();
    assert_eq!(topics, ["s.open", "s.open"]);
    // They lie in a stream that she may read.
    let start = preset(v1::StartPreset::Earliest);
    assert_eq!(place.read(from("lost", start.clone())).await, Ok(vec!["last".to_owned()]));
    let named = |filters: &[&str]| SubscriptionSpec { stream: "lost".into(), start: start.clone(), ..spec(filters) };
    assert_eq!(place.read(named(&["s.secret"])).await, Err("TOPIC_DENIED".into()));
    for letter in place.letters(&place.root).await {
        let got = place.get("lost", Which::Sequence(letter.sequence)).await;
        let is_open = letter.event.and_then(|event| event.event).expect("an event").topic == "s.open";
        assert_eq!(got.is_ok(), is_open, "{got:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_prints_nothing_of_a_denied_topic() {
    let folder = Folder::new();
    let place = Place::new(&folder).await;
    let stream = ["--stream", "s", "--from", "earliest", "-n", "2"];
    for (arguments, printed) in [
        ([&["sub", "s.open"], &stream[..]].concat(), Some("s.open open\ns.open open\n")),
        ([&["sub", "s.open", "--json"], &stream[..]].concat(), None),
        (vec!["stream", "event", "s", "2"], None),
    ] {
        let output = place.run(&arguments);
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && told.contains("open") && !told.contains("secret"),
            "{arguments:?}: {output:?}"
        );
        assert!(printed.is_none_or(|printed| told == printed), "{told}");
    }
    for arguments in [
        vec!["sub", "s.secret", "-n", "1"],
        [&["sub", "s.>"], &stream[..]].concat(),
        [&["sub"], &stream[..]].concat(),
        vec!["stream", "event", "s", "1"],
    ] {
        let output = place.run(&arguments);
        assert!(!output.status.success() && output.stdout.is_empty(), "{arguments:?}: {output:?}");
    }
}

/// The reason for which a publish of one event is refused, or its result.
async fn published(address: SocketAddr, token: &str, event: Event) -> Result<v1::PublishResult, String> {
    let answer = client(address).await.publish(bearing(token, publish(vec![event]))).await;
    answer.map(|response| response.into_inner().results.remove(0)).map_err(|status| reason_of_call(&status))
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_forges_a_dead_letter() {
    let folder = Folder::new();
    let place = Place::new(&folder).await;
    place.group().await;
    let marks = [
        ("deadletterstream", "s"),
        ("deadlettersequence", "1"),
        ("deadlettergroup", "g"),
        ("deadletterattempts", "1"),
        ("deadletterreason", "card declined"),
    ];
    let attributes = marks.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    for token in [&place.mallory, &place.root] {
        let forged = Event { attributes: Clone::clone(&attributes), ..event("lost.a", "forged") };
        assert_eq!(published(place.address, token, forged).await, Err("MALFORMED_COMMAND".into()));
    }
    published(place.address, &place.mallory, event("lost.a", "an event")).await.expect("published");
    assert_eq!(place.letters(&place.root).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_takes_ids_on_topics_of_others() {
    let folder = Folder::new();
    let place = Place::new(&folder).await;
    let paid = |topic: &str| Event { id: "pay-1001".into(), source: "checkout".into(), ..event(topic, "x") };
    published(place.address, &place.mallory, paid("s.mallory")).await.expect("published");
    let real = published(place.address, &place.root, paid("s.open")).await.expect("published");
    assert!(!real.duplicate && real.sequence == 6, "{real:?}");
    let again = published(place.address, &place.root, paid("s.open")).await.expect("published");
    assert!(again.duplicate && again.sequence == 6, "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_manages_some_streams_takes_no_topics_of_others_into_them() {
    let folder = Folder::new();
    let place = Place::new(&folder).await;
    for filter in ["pay.>", "mine.>.x", "*.a", ">", "mine"] {
        let refused = place.create(&place.mallory, "mine1", filter).await.expect_err(filter);
        let expected = if filter == "mine.>.x" { "INVALID_FILTER" } else { "ACTION_DENIED" };
        assert_eq!(reason_of_call(&refused), expected, "{filter}");
        assert!(expected != "ACTION_DENIED" || refused.message().contains("topics:FILTER"), "{}", refused.message());
    }
    place.create(&place.mallory, "mine1", "mine.a.>").await.expect("created");
    let update = async |filters: &[&str], max_events: i64, path: &str| {
        let filters = filters.iter().map(|filter| (*filter).to_owned()).collect();
        let stream = Some(Stream { name: "mine1".into(), filters, max_events, ..Stream::default() });
        let update_mask = Some(prost_types::FieldMask { paths: vec![path.into()] });
        let request = bearing(&place.mallory, v1::UpdateStreamRequest { stream, update_mask });
        place.streams().await.update_stream(request).await.map_err(|status| reason_of_call(&status)).map(drop)
    };
    assert_eq!(update(&["mine.a.>", "pay.>"], 0, "filters").await, Err("ACTION_DENIED".into()));
    assert_eq!(update(&["mine.>"], 0, "filters").await, Ok(()));
    // What it has already it may keep or give up, whoever gave it.
    let stream =
        Some(Stream { name: "mine1".into(), filters: vec!["mine.>".into(), "pay.>".into()], ..Stream::default() });
    let update_mask = Some(prost_types::FieldMask { paths: vec!["filters".into()] });
    let request = bearing(&place.root, v1::UpdateStreamRequest { stream, update_mask });
    place.streams().await.update_stream(request).await.expect("changed");
    assert_eq!(update(&["pay.>"], 0, "filters").await, Ok(()));
    assert_eq!(update(&[], 1, "max_events").await, Ok(()));
    assert_eq!(update(&["pay.>", "mine.b"], 0, "filters").await, Ok(()));
    assert_eq!(update(&["mine.b"], 0, "filters").await, Ok(()));
    assert_eq!(update(&["mine.b", "pay.>"], 0, "filters").await, Err("ACTION_DENIED".into()));
}
