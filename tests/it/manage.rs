//! Managing a hub with no wire between: what every edge calls, whatever it speaks.

use std::{future::poll_fn, sync::Arc, time::Duration};

use switchyard::{
    auth::{Auth, Caller, Shown},
    engine::{Embedded, Options},
    hub::{Hub, Setup, Streams},
    manage::{
        backups, dead_letters,
        events::{Begin, EventsAsked},
        groups::{self, GroupSetting},
        sessions::Sessions,
        streams::{self, StreamSetting},
        topics::TopicsPageAsked,
    },
    model::{CommandError, Filter, Group, GroupSettings, Start, StreamError, StreamName, StreamSettings, Topic},
    tasks::Tasks,
};

use crate::{
    auth_harness::{Guarded, token},
    harness::Folder,
};

struct Place {
    hub: Arc<Hub>,
    auth: Arc<Auth>,
}

impl Place {
    /// A hub with the stream `there` and the group `g` on it.
    async fn new(folder: &Folder) -> Self {
        let (config, tasks) = (Guarded::config(folder), Tasks::default());
        let auth = Auth::open(&config.auth, &tasks, &Arc::default()).await.expect("opened").expect("enabled");
        let engine = Embedded::open(&config.data_dir, &Options::default(), &tasks, &Arc::default(), &Arc::default());
        let streams = Streams { engine: Arc::new(engine.expect("a new store")), tasks };
        let place = Self { hub: Arc::new(Hub::new(Setup { streams: Some(streams), ..Setup::default() })), auth };
        let admin = place.caller(&["admin"]).await;
        streams::create(&place.hub, &admin, settings("there")).await.expect("created");
        let group = groups::to_manage(&place.hub, &admin, &name("there"), group()).expect("may");
        group.create(GroupSettings::default(), Start::Earliest).await.expect("created");
        place
    }

    async fn caller(&self, roles: &[&str]) -> Caller {
        let header = format!("Bearer {}", token("alice", roles));
        let shown = Shown { header: Some(header.as_bytes()), ..Shown::default() };
        self.auth.authenticate("test", shown).await.expect("known")
    }

    /// How a caller is refused everything that there is to do with a stream of that name and its group.
    async fn refusals(&self, caller: &Caller, stream: &str) -> Vec<CommandError> {
        fn refused<T>(answer: Result<T, impl Into<CommandError>>) -> CommandError {
            match answer {
                Ok(_) => panic!("nothing is refused"),
                Err(error) => error.into(),
            }
        }
        let (hub, of) = (&self.hub, &name(stream));
        vec![
            refused(streams::create(hub, caller, settings(stream)).await),
            refused(streams::see(hub, caller, of).await),
            refused(streams::to_manage(hub, caller, of)),
            refused(streams::to_read(hub, caller, of)),
            refused(streams::delete(hub, caller, of).await),
            refused(groups::see(hub, caller, of, group()).await),
            refused(groups::to_manage(hub, caller, of, group())),
            refused(dead_letters::to_read(hub, caller, of, group()).await),
            refused(dead_letters::to_manage(hub, caller, of, group()).await),
            refused(Sessions::to_manage(hub, caller)),
            refused(backups::begin(Arc::clone(hub), caller).await),
        ]
    }
}

fn name(text: &str) -> StreamName {
    StreamName::parse(text).expect("a name")
}

fn group() -> Group {
    Group::parse("g").expect("a name")
}

fn settings(stream: &str) -> StreamSettings {
    let filter = Filter::parse(format!("{stream}.>").as_bytes()).expect("a filter");
    StreamSettings::new(name(stream), vec![filter])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_without_rights_is_refused_before_anything_is_looked_up() {
    let folder = Folder::new();
    let place = Place::new(&folder).await;
    let bare = place.caller(&[]).await;
    let refused = place.refusals(&bare, "there").await;
    assert!(refused.iter().all(|error| matches!(error, CommandError::Denied(_))), "{refused:?}");
    assert_eq!(refused, place.refusals(&bare, "nowhere").await);
    let (streams, groups) = (
        streams::list(&place.hub, &bare, "", 10, |_| (), |()| 0).await.expect("a list").items.len(),
        groups::list(&place.hub, &bare, None, ("", ""), 10, |_| ()).await.expect("a list").len(),
    );
    assert_eq!((streams, groups), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_managed_without_a_wire() {
    let folder = Folder::new();
    let place = Place::new(&folder).await;
    let (hub, admin) = (&place.hub, place.caller(&["admin"]).await);
    for stream in ["a", "b"] {
        streams::create(hub, &admin, settings(stream)).await.expect("created");
    }
    let page = streams::list(hub, &admin, "a", 1, |stream| stream, |_| 0).await.expect("a list");
    assert_eq!(page.next(|last| last.state.settings.name.clone()), Some(name("b")));
    let stream = streams::to_manage(hub, &admin, &name("a")).expect("may");
    let changes = [StreamSetting::MaxEvents(Some(7)), StreamSetting::MaxAge(Some(Duration::from_secs(60)))];
    let changed = stream.update(&changes).await.expect("changed").state.settings;
    let expected = StreamSettings { max_events: Some(7), max_age: Some(Duration::from_secs(60)), ..settings("a") };
    assert_eq!(changed, StreamSettings { owner: Arc::clone(admin.principal().id()), ..expected });
    let wrong = stream.update(&[StreamSetting::Filters(Vec::new())]).await.expect_err("no filter");
    assert!(matches!(wrong, CommandError::Stream(StreamError::Setting(_))), "{wrong:?}");
    assert_eq!(stream.purge(None, None).await, Ok(0));
    let readable = streams::to_read(hub, &admin, &name("a")).expect("may");
    let missing = readable.last_of(Topic::parse(b"a.x").expect("a topic")).await.expect_err("empty");
    assert!(matches!(missing, CommandError::Stream(StreamError::EventNotFound { .. })), "{missing:?}");
    let events = EventsAsked { begin: Begin::First, newest_first: true, filter: None, most: 1 };
    assert_eq!(readable.events(events, |event| (event.sequence(), 0)).await, Ok((Vec::new(), None)));
    let topics = TopicsPageAsked { prefix: "", filter: None, page_token: "", most: 1 };
    assert_eq!(readable.topics(topics).await, Ok((Vec::new(), None)));
    streams::delete(hub, &admin, &name("a")).await.expect("deleted");
    let gone = stream.update(&changes).await.expect_err("gone");
    assert_eq!(gone, CommandError::Stream(StreamError::NotFound("a".into())));
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_and_their_dead_letters_are_managed_without_a_wire() {
    let folder = Folder::new();
    let place = Place::new(&folder).await;
    let (hub, admin, there) = (&place.hub, place.caller(&["admin"]).await, name("there"));
    let managed = groups::to_manage(hub, &admin, &there, group()).expect("may");
    let none = dead_letters::to_read(hub, &admin, &there, group()).await.expect_err("none");
    assert!(matches!(none, CommandError::Stream(StreamError::Mismatch { field: "group", .. })), "{none:?}");
    streams::create(hub, &admin, settings("dead")).await.expect("created");
    let changes = vec![GroupSetting::DeadLetterStream(Some(name("dead"))), GroupSetting::MaxAttempts(9)];
    let changed = managed.update(changes).await.expect("changed").settings;
    assert_eq!((changed.dead_letter_stream, changed.max_attempts), (Some(name("dead")), 9));
    let short = managed.update(vec![GroupSetting::AckDeadline(Duration::from_millis(99))]).await.expect_err("short");
    assert!(matches!(short, CommandError::Field { field: "ack_deadline", .. }), "{short:?}");
    let letters = dead_letters::to_read(hub, &admin, &there, group()).await.expect("may");
    assert!(letters.page(0, 10).await.is_ok_and(|(page, next)| page.is_empty() && next.is_none()));
    let letters = dead_letters::to_manage(hub, &admin, &there, group()).await.expect("may");
    assert_eq!(letters.redrive(vec![2, 1, 2]).await, Ok(dead_letters::RedriveTotals::default()));
    assert_eq!(letters.purge(Vec::new()).await, Ok(0));
    assert!(letters.purge(vec![1; 10_001]).await.is_err());
    assert_eq!(managed.seek(Start::New).await.map(|status| status.cursor), Ok(0));
    let listed = groups::list(hub, &admin, None, ("", ""), 10, |status| status.group.clone()).await.expect("a list");
    assert_eq!(listed, [group()]);
    managed.delete().await.expect("deleted");
    groups::see(hub, &admin, &there, group()).await.expect_err("gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_and_backups_are_managed_without_a_wire() {
    let folder = Folder::new();
    let place = Place::new(&folder).await;
    let admin = place.caller(&["admin"]).await;
    let sessions = Sessions::to_manage(&place.hub, &admin).expect("may");
    assert!(sessions.list(0, 10, |_| (), |()| 0).0.is_empty());
    let missing = sessions.terminate("no-such", "").expect_err("none");
    assert_eq!(missing, CommandError::SessionNotFound { id: "no-such".into() });
    let mut backup = backups::begin(Arc::clone(&place.hub), &admin).await.expect("begun");
    let mut bytes = 0;
    while let Some(piece) = poll_fn(|context| backup.poll_next(context)).await {
        bytes += piece.expect("a piece").len();
    }
    assert!(bytes > 0 && backup.store_bytes() > 0, "{bytes} bytes");
}
