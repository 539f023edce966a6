//! Stores as hubs before this one wrote them.

use redb::{ReadableTable, TableError};

use super::*;
use crate::engine::embedded::{
    rows::{OLD_REPEATS, REPEATS},
    store::Store,
};

fn raw(disk: &Simulated) -> Store {
    Store::open(Arc::new(disk.clone()), 1024 * 1024, true, false).expect("a store")
}

/// Turns what a store knows of deleted events into what it knew of them before the topic was part of keys.
fn make_old(disk: &Simulated, events: &[Event]) {
    let store = raw(disk);
    let transaction = store.write().expect("a transaction");
    {
        let mut new = transaction.open_table(REPEATS).expect("a table");
        let mut old = transaction.open_table(OLD_REPEATS).expect("a table");
        let mut count = 0;
        for entry in new.iter().expect("rows") {
            let (key, value) = entry.expect("a row");
            let event = &events[key.value().1 as usize - 1];
            assert_eq!(Some(value.value().1), event.dedupe_key());
            old.insert(key.value(), (value.value().0, event.old_dedupe_key().expect("an id"))).expect("a row");
            count += 1;
        }
        assert_eq!(count, events.len());
        new.retain(|_, _| false).expect("emptied");
    }
    transaction.commit().expect("committed");
}

fn has_old_keys(store: &Store) -> bool {
    let transaction = store.read_transaction().expect("a transaction");
    !matches!(transaction.open_table(OLD_REPEATS), Err(TableError::TableDoesNotExist(_)))
}

#[test]
fn ids_of_deleted_events_from_before_the_topic_counted_are_known_for_their_window() {
    let disk = Simulated::default();
    disk.stop_clock();
    let events = [event_with("a", "1", "", 0), event_with("a", "2", "", 0)];
    let again = async |stream: &Arc<dyn EventStream>, topic: &str, id: &str| {
        let results = append_all(stream, vec![event_with(topic, id, "", 0)], None).await.expect("stored");
        (results[0].sequence, results[0].duplicate)
    };
    runtime().block_on(async {
        let engine = open(&disk, &options()).expect("a new store");
        let stream = engine.create_stream(settings("s", &[">"])).await.expect("made");
        append_all(&stream, events.to_vec(), None).await.expect("stored");
        assert_eq!(stream.purge(u64::MAX, None).await, Ok(2));
        engine.close().await.expect("closed");
        drop((engine, stream));

        make_old(&disk, &events);
        let engine = open(&disk, &options()).expect("the store");
        let stream = engine.stream("s").expect("the stream");
        assert_eq!(again(&stream, "a", "1").await, (1, true));
        assert_eq!(again(&stream, "a", "3").await, (3, false));
        engine.close().await.expect("closed");
        drop((engine, stream));

        assert!(has_old_keys(&raw(&disk)));
        let engine = open(&disk, &options()).expect("the store");
        let stream = engine.stream("s").expect("the stream");
        assert_eq!(again(&stream, "a", "2").await, (2, true));
        let short = StreamSettings { dedupe_window: Duration::from_millis(1), ..settings("s", &[">"]) };
        engine.update_stream(short, None).await.expect("updated");
        disk.pass(Duration::from_secs(1));
        assert_eq!(again(&stream, "a", "2").await, (4, false));
        engine.close().await.expect("closed");
        drop((engine, stream));

        let opened = Embedded::open_simulated(&disk, &options(), &Tasks::default(), &Arc::default(), &Arc::default());
        let engine = opened.expect("the store");
        let swept = async {
            while has_old_keys(&engine.link.stores.file) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), swept).await.expect("keys of no use are deleted");
        engine.close().await.expect("closed");
    });
}
