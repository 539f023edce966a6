//! The batches that writers take into. A writer turns what it took into bytes at once, so a batch is for as long as that, and
//! the next writer of the same thread gets it: an idle session has none, and a busy one need not make its own.

use std::cell::Cell;

use crate::outbox::Batch;

/// One with room for more events or frames than this is not kept.
const KEEP: usize = 16_384;

thread_local! {
    static BATCH: Cell<Batch> = Cell::default();
}

/// Lends an empty batch.
pub(in crate::edge) fn lend<T>(take: impl FnOnce(&mut Batch) -> T) -> T {
    // Taken out meanwhile: whatever goes wrong, nobody finds the events of another in it.
    let mut batch = BATCH.take();
    let taken = take(&mut batch);
    batch.clear();
    if batch.events.capacity().max(batch.items.capacity()) <= KEEP {
        BATCH.set(batch);
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::{Frame, Item, Reply};

    fn put(batch: &mut Batch) -> usize {
        batch.items.push(Item::Reply(Reply { request_id: 1, frame: Frame::Pong("a".into()) }));
        batch.items.len()
    }

    #[test]
    fn nobody_finds_what_another_has_left() {
        assert_eq!(lend(put), 1);
        assert_eq!(lend(|batch| (put(batch), lend(put))), (1, 1), "amid another");
        let panicked = std::thread::spawn(|| {
            let amid = std::panic::catch_unwind(|| lend(|batch| assert_eq!(put(batch), 2)));
            (amid.is_err(), lend(put))
        });
        assert_eq!(panicked.join().expect("a thread"), (true, 1));
    }

    #[test]
    fn room_is_kept_but_not_any_amount_of_it() {
        lend(|batch| batch.items.reserve_exact(100));
        assert!(lend(|batch| batch.items.capacity()) >= 100);
        lend(|batch| batch.items.reserve_exact(KEEP + 1));
        assert_eq!(lend(|batch| batch.items.capacity()), 0);
    }
}
