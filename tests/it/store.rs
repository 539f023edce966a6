//! The data directory: one process at a time, all of it there after a restart, and refused when it is damaged.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
    path::Path,
    process::{Output, Stdio},
    time::Duration,
};

use switchyard::proto::v1::{
    AckMode, Acknowledge, GetGroupRequest, StartPreset, SubscriptionSpec, group_service_client::GroupServiceClient,
    session_request::Command,
};

use tonic::transport::Channel;

use crate::{
    harness::{Process, Session, channel, credit, exit, program, soon},
    stored::{Folder, Reader, all, create, from, numbered, preset, resume, state, store, stream, text},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// Starts a hub that must not come up, and gives what it said.
fn fails_to_start(folder: &Folder) -> Output {
    let mut child = program()
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--ops-listen",
            "127.0.0.1:0",
            "--web-listen",
            "127.0.0.1:0",
            "--data-dir",
            folder.text(),
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    assert!(!exit(&mut child, PATIENCE).success());
    child.wait_with_output().expect("its output")
}

fn last_line(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned()
}

/// The nice values of the threads with this name.
fn nice_values(process: u32, name: &str) -> Vec<i32> {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).expect("its threads");
    let stats = threads.filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("stat")).ok());
    let of_name = stats.filter_map(|stat| {
        let (head, fields) = stat.rsplit_once(')')?;
        let is_named = head.split_once('(')?.1 == name;
        // proc(5): the fields behind the name begin with the third; the nice value is the 19th.
        is_named.then(|| fields.split_whitespace().nth(16)?.parse().ok())?
    });
    of_name.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_commits_has_the_priority_of_what_serves() {
    let folder = Folder::new();
    let hub = Process::start(&["--data-dir", folder.text()]);
    create(hub.address, stream("s", &["s.>"])).await;
    let (workers, committer) =
        (nice_values(hub.child.id(), "tokio-rt-worker"), nice_values(hub.child.id(), "committer"));
    assert_eq!(committer, [*workers.iter().min().expect("a worker")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_directory_is_of_one_process() {
    let folder = Folder::new();
    let mut hub = Process::start(&["--data-dir", folder.text()]);
    let refused = last_line(&fails_to_start(&folder));
    assert!(refused.contains(folder.text()) && refused.contains("in use by another process"), "{refused}");
    create(hub.address, stream("s", &["s.>"])).await;
    assert_eq!(store(hub.address, numbered("s.x", 0..1)).await[0].sequence, 1, "the first one is not disturbed");
    hub.signal("KILL");
    hub.exit(PATIENCE);
    let hub = Process::start(&["--data-dir", folder.text()]);
    assert_eq!(all(hub.address, "s").await.len(), 1, "a dead process locks nobody out");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_there_after_a_stop() {
    let folder = Folder::new();
    let mut hub = Process::start(&["--data-dir", folder.text()]);
    let epoch = create(hub.address, stream("s", &["s.>"])).await.state.expect("a state").epoch;
    store(hub.address, numbered("s.x", 0..3000)).await;
    let mut reader = Reader::open(hub.address, from("s", preset(StartPreset::Earliest))).await;
    reader.until(1500).await;
    let (token, reached) = (reader.token.clone(), reader.last());
    drop(reader);
    hub.signal("TERM");
    assert!(hub.exit(PATIENCE).success());
    let hub = Process::start(&["--data-dir", folder.text()]);
    let state = state(hub.address, "s").await;
    assert_eq!((state.epoch, state.latest_sequence, state.events), (epoch, 3000, 3000));
    let events = all(hub.address, "s").await;
    assert!(
        events.iter().zip(1..).all(|(received, n)| received.sequence == n && text(received) == (n - 1).to_string())
    );
    let mut rest = Reader::open(hub.address, from("s", resume(&token))).await;
    rest.until(3000).await;
    assert_eq!(rest.sequences(), (reached + 1..=3000).collect::<Vec<_>>());
}

/// How far the group `g` of the stream `s` is.
async fn cursor(groups: &mut GroupServiceClient<Channel>) -> i64 {
    let request = GetGroupRequest { stream: "s".into(), name: "g".into() };
    let told = groups.get_group(request).await.expect("a group").into_inner();
    told.group.and_then(|group| group.state).expect("a state").cursor
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_group_is_told_to_have_done_is_done_after_a_kill() {
    let folder = Folder::new();
    let mut hub = Process::start(&["--data-dir", folder.text()]);
    create(hub.address, stream("s", &["s.>"])).await;
    for last in (1..=30).map(|round| 100 * round) {
        store(hub.address, numbered("s.x", 0..100)).await;
        let mut member = Session::open(hub.address).await;
        let place = from("s", preset(StartPreset::Earliest));
        member
            .subscribe(
                1,
                SubscriptionSpec {
                    group: "g".into(),
                    ack_mode: AckMode::Cumulative.into(),
                    credit: credit(100, 0),
                    ..place
                },
            )
            .await;
        while member.events().await.events.last().is_none_or(|received| received.sequence < last) {}
        let mut groups = GroupServiceClient::new(channel(hub.address).await);
        let done = Acknowledge { subscription_id: 1, up_to: last, ..Acknowledge::default() };
        member.send(2, Command::Acknowledge(done)).await;
        // Without a pause: the time between what is done and what is stored is short.
        soon("the group is done", async { while cursor(&mut groups).await < last {} }).await;
        hub.child.kill().expect("killed");
        hub.exit(PATIENCE);
        hub = Process::start(&["--data-dir", folder.text()]);
        assert_eq!(cursor(&mut GroupServiceClient::new(channel(hub.address).await)).await, last);
    }
}

/// Where a piece of an event is in the file: everywhere, since a page that was written anew may leave its old copy behind.
fn find(bytes: &[u8], piece: &[u8]) -> Vec<u64> {
    let places = bytes.windows(piece.len()).enumerate().filter(|(_, window)| *window == piece);
    places.map(|(place, _)| place as u64).collect()
}

/// Flips a bit at each of these places; a second time it is as it was.
fn flip(path: &Path, places: &[u64]) {
    let mut file = File::options().read(true).write(true).open(path).expect("the store");
    for &place in places {
        let mut byte = [0];
        file.seek(SeekFrom::Start(place)).and_then(|_| file.read_exact(&mut byte)).expect("read");
        file.seek(SeekFrom::Start(place)).and_then(|_| file.write_all(&[byte[0] ^ 1])).expect("written");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_store_is_refused_and_left_as_it_is() {
    let folder = Folder::new();
    let mut hub = Process::start(&["--data-dir", folder.text()]);
    create(hub.address, stream("s", &["s.>"])).await;
    for n in 0..50 {
        store(hub.address, numbered("s.x", n * 100..(n + 1) * 100)).await;
    }
    store(hub.address, vec![crate::harness::event("s.x", "a text that is easily found")]).await;
    store(hub.address, numbered("s.x", 0..100)).await;
    hub.signal("TERM");
    assert!(hub.exit(PATIENCE).success());

    let path = folder.path().join("streams.redb");
    let whole = std::fs::read(&path).expect("the store");
    let places = find(&whole, b"easily found");
    assert!(!places.is_empty(), "the event is in the file");
    flip(&path, &places);
    let refused = fails_to_start(&folder);
    let told = last_line(&refused);
    assert!(told.contains("is damaged") && told.contains(folder.text()), "{told}");
    assert!(told.contains("Restore it from a copy"), "it says what to do: {told}");
    assert_eq!(refused.status.code(), Some(3), "it says that starting it again will not help");
    assert!(!String::from_utf8_lossy(&refused.stderr).contains("panicked"), "{refused:?}");

    // With those bytes as they were everything is there again: nothing was cut off, moved or written over. (The database may have
    // given back a page at the end that it did not use.)
    flip(&path, &places);
    let hub = Process::start(&["--data-dir", folder.text()]);
    assert_eq!(all(hub.address, "s").await.len(), 5101);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_store_file_is_refused_and_no_new_store() {
    let folder = Folder::new();
    let path = folder.path().join("streams.redb");
    std::fs::write(&path, "").expect("written");
    let told = last_line(&fails_to_start(&folder));
    assert!(told.contains("is damaged") && told.contains("the file is empty"), "{told}");
    assert!(told.contains(folder.text()) && told.contains("move it away"), "it says what to do: {told}");
    assert_eq!(std::fs::metadata(&path).expect("the file").len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_was_killed_while_it_was_made_is_made_anew() {
    let folder = Folder::new();
    std::fs::write(folder.path().join("streams.new"), "the beginning of a store").expect("written");
    let mut hub = Process::start(&["--data-dir", folder.text()]);
    create(hub.address, stream("s", &["s.>"])).await;
    store(hub.address, numbered("s.x", 0..1)).await;
    hub.signal("KILL");
    hub.exit(PATIENCE);
    std::fs::write(folder.path().join("streams.new"), "what nobody should look at").expect("written");
    let hub = Process::start(&["--data-dir", folder.text()]);
    assert_eq!(all(hub.address, "s").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_was_cut_off_is_refused() {
    let folder = Folder::new();
    let mut hub = Process::start(&["--data-dir", folder.text()]);
    create(hub.address, stream("s", &["s.>"])).await;
    for n in 0..50 {
        store(hub.address, numbered("s.x", n * 100..(n + 1) * 100)).await;
    }
    hub.signal("TERM");
    assert!(hub.exit(PATIENCE).success());
    let path = folder.path().join("streams.redb");
    let whole = std::fs::read(&path).expect("the store");
    for length in [whole.len() / 2, 10_000, 100] {
        std::fs::write(&path, &whole[..length]).expect("written");
        let refused = fails_to_start(&folder);
        let told = last_line(&refused);
        assert!(told.contains(folder.text()) && told.contains("damaged"), "{length}: {told}");
    }
    std::fs::write(&path, &whole).expect("written");
    let hub = Process::start(&["--data-dir", folder.text()]);
    assert_eq!(state(hub.address, "s").await.latest_sequence, 5000);
}
