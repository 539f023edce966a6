//! What storing and reading events costs on this machine's disk: `cargo bench --bench store`.
//!
//! Events are as large as the hub's own form of an event with 128 bytes of payload. Every publish is fsynced. The store is
//! in the directory for temporary files, or where `SWITCHYARD_BENCH_DIR` says.

use std::{
    hint::black_box,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use divan::{Bencher, counter::ItemsCount};
use switchyard::{
    engine::{Append, Embedded, Engine, EventStream, Options, ReadLimits},
    event::{Draft, Event, EventIds, Payload},
    model::{Filter, Storage, StreamName, StreamSettings, Topic},
    tasks::Tasks,
};
use tokio::runtime::Runtime;

const PAYLOAD_BYTES: usize = 128;
/// How many events are published at once, and how many such batches are on their way.
const BATCH: usize = 1_000;
const IN_FLIGHT: usize = 64;
const TOTAL: usize = 1_000_000;

fn main() {
    divan::main();
}

/// An event with an id of its publisher's, or of the hub's, which is about as long.
fn event(number: usize, with_id: bool) -> Event {
    let id = if with_id { format!("{number:016x}") } else { String::new() };
    let payload = Payload::Data(&[7; PAYLOAD_BYTES]);
    let draft = Draft { id: &id, topic: "orders.eu.created", payload, ..Draft::default() };
    draft.build(usize::MAX, &mut EventIds::new("00000000bench")).expect("an event")
}

/// A store in a directory of its own.
struct Bed {
    runtime: Runtime,
    engine: Arc<Embedded>,
    path: PathBuf,
}

impl Bed {
    fn new(options: &Options) -> Self {
        let base = std::env::var_os("SWITCHYARD_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        let path = base.join(format!("switchyard-bench-{:x}", fastrand::u64(..)));
        let runtime = Runtime::new().expect("a runtime");
        let engine =
            Embedded::open(&path, options, &Tasks::default(), &Arc::default(), &Arc::default()).expect("a new store");
        Self { runtime, engine: Arc::new(engine), path }
    }

    fn stream(&self, storage: Storage) -> Arc<dyn EventStream> {
        let name = StreamName::parse("s").expect("a name");
        let filters = vec![Filter::parse(b">").expect("a filter")];
        let settings = StreamSettings { storage, ..StreamSettings::new(name, filters) };
        self.runtime.block_on(self.engine.create_stream(settings)).expect("made")
    }

    /// Publishes everything with so many batches on their way at any time.
    fn publish(&self, stream: &Arc<dyn EventStream>, batches: &[Vec<Event>]) {
        self.runtime.block_on(async {
            let mut receipts = std::collections::VecDeque::new();
            for events in batches {
                let append = Append { events: events.clone(), precondition: None };
                receipts.push_back(stream.append(append).await.expect("queued"));
                if receipts.len() >= IN_FLIGHT {
                    receipts.pop_front().expect("one").await.expect("stored");
                }
            }
            for receipt in receipts {
                receipt.await.expect("stored");
            }
        });
    }

    /// Reads everything after a sequence.
    fn replay(&self, stream: &Arc<dyn EventStream>, after: u64) -> usize {
        let filters: Arc<[Filter]> = Arc::from([]);
        let limits = ReadLimits { events: 4_096, bytes: 512 * 1024 };
        self.runtime.block_on(async {
            let (mut at, mut count) = (after, 0);
            loop {
                let chunk = stream.read(at, &filters, limits).await.expect("readable");
                count += chunk.events.len();
                at = chunk.through;
                black_box(&chunk.events);
                if at >= chunk.latest {
                    return count;
                }
            }
        })
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.runtime.block_on(self.engine.close()).expect("closed");
        std::fs::remove_dir_all(&self.path).expect("removed");
    }
}

fn batches(total: usize, with_id: bool) -> Vec<Vec<Event>> {
    (0..total / BATCH).map(|batch| (0..BATCH).map(|n| event(batch * BATCH + n, with_id)).collect()).collect()
}

#[divan::bench(sample_count = 3, sample_size = 1, args = [false, true])]
fn publish_pipelined_fsynced(bencher: Bencher<'_, '_>, with_id: bool) {
    let batches = batches(TOTAL, with_id);
    bencher
        .counter(ItemsCount::new(TOTAL))
        .with_inputs(|| {
            let bed = Bed::new(&Options::default());
            let stream = bed.stream(Storage::File);
            (bed, stream)
        })
        .bench_local_refs(|(bed, stream)| bed.publish(stream, &batches));
}

#[divan::bench(sample_count = 3, sample_size = 1)]
fn publish_pipelined_memory(bencher: Bencher<'_, '_>) {
    let batches = batches(TOTAL, false);
    bencher
        .counter(ItemsCount::new(TOTAL))
        .with_inputs(|| {
            let bed = Bed::new(&Options::default());
            let stream = bed.stream(Storage::Memory);
            (bed, stream)
        })
        .bench_local_refs(|(bed, stream)| bed.publish(stream, &batches));
}

#[divan::bench(sample_count = 2_000, sample_size = 1)]
fn publish_alone_fsynced(bencher: Bencher<'_, '_>) {
    let bed = Bed::new(&Options::default());
    let stream = bed.stream(Storage::File);
    let one = event(0, false);
    bencher.bench_local(|| {
        bed.runtime.block_on(async {
            let append = Append { events: vec![one.clone()], precondition: None };
            stream.append(append).await.expect("queued").await.expect("stored")
        })
    });
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn replay_from_the_store(bencher: Bencher<'_, '_>) {
    let bed = Bed::new(&Options { tail_cache_bytes: 0, ..Options::default() });
    let stream = bed.stream(Storage::File);
    bed.publish(&stream, &batches(TOTAL, false));
    bencher.counter(ItemsCount::new(TOTAL)).bench_local(|| assert_eq!(bed.replay(&stream, 0), TOTAL));
}

#[divan::bench(sample_count = 20, sample_size = 1)]
fn replay_from_the_tail(bencher: Bencher<'_, '_>) {
    let bed = Bed::new(&Options { tail_cache_bytes: 1 << 30, ..Options::default() });
    let stream = bed.stream(Storage::File);
    bed.publish(&stream, &batches(TOTAL, false));
    bencher.counter(ItemsCount::new(TOTAL)).bench_local(|| assert_eq!(bed.replay(&stream, 0), TOTAL));
}

#[divan::bench(sample_count = 3, sample_size = 1)]
fn open_after_a_crash(bencher: Bencher<'_, '_>) {
    let bed = Bed::new(&Options::default());
    let stream = bed.stream(Storage::File);
    bed.publish(&stream, &batches(TOTAL, false));
    let copies = std::cell::Cell::new(0);
    bencher
        .counter(ItemsCount::new(TOTAL))
        .with_inputs(|| {
            copies.set(copies.get() + 1);
            let copy = bed.path.join(format!("copy-{}", copies.get()));
            std::fs::create_dir(&copy).expect("made");
            std::fs::copy(bed.path.join("streams.redb"), copy.join("streams.redb")).expect("copied");
            copy
        })
        .bench_local_refs(|path| {
            Embedded::open(path, &Options::default(), &Tasks::default(), &Arc::default(), &Arc::default())
                .expect("whole")
        });
}

#[divan::bench(args = [0, 1, 1_000])]
fn stream_of(bencher: Bencher<'_, '_>, streams: usize) {
    let bed = Bed::new(&Options::default());
    bed.runtime.block_on(async {
        for n in 0..streams {
            let name = StreamName::parse(&format!("s{n}")).expect("a name");
            let filters = vec![Filter::parse(format!("orders.e{n}.>").as_bytes()).expect("a filter")];
            bed.engine.create_stream(StreamSettings::new(name, filters)).await.expect("made");
        }
    });
    let topic = Topic::parse(b"orders.e0.created").expect("a topic");
    bencher.bench_local(|| bed.engine.stream_of(black_box(topic)));
}

/// A hundred publishers that each wait for their own result.
#[divan::bench(sample_count = 3, sample_size = 1)]
fn publish_by_a_hundred_fsynced(bencher: Bencher<'_, '_>) {
    let bed = Bed::new(&Options::default());
    let stream = bed.stream(Storage::File);
    let each = 200;
    bencher.counter(ItemsCount::new(100_usize * each)).bench_local(|| {
        bed.runtime.block_on(async {
            let start = Instant::now();
            let mut publishers = tokio::task::JoinSet::new();
            for n in 0..100 {
                let stream = Arc::clone(&stream);
                publishers.spawn(async move {
                    for m in 0..each {
                        let append = Append { events: vec![event(n * each + m, false)], precondition: None };
                        stream.append(append).await.expect("queued").await.expect("stored");
                    }
                });
            }
            publishers.join_all().await;
            assert!(start.elapsed() < Duration::from_secs(60));
        });
    });
}
