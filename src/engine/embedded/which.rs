//! Which of some sequences a stream keeps: like reading them, without the events.

use super::{batch::Records, read::read_error, store::Trouble, stream::Shared};
use crate::engine::ReadError;

/// Those of these sequences, which ascend, that readers can get.
pub(super) fn kept(stream: &Shared, sequences: &[u64]) -> Result<Vec<u64>, ReadError> {
    stream.check(ReadError::Closed)?;
    let bounds = stream.bounds();
    let now = stream.link.now();
    let found = stream.store().read(|batches| {
        let mut kept = Vec::new();
        let mut rest = sequences.iter().copied().filter(|sequence| (bounds.floor..=bounds.latest).contains(sequence));
        let mut next = rest.next();
        while let Some(sequence) = next {
            let Some(loaded) = batches.covering(stream.id, sequence)? else {
                next = rest.next();
                continue;
            };
            let damaged = Trouble::batch(stream.id, loaded.head.first);
            let topics = stream.topics.read();
            for record in Records::new(&loaded.head, &loaded.value) {
                let record = record.map_err(&damaged)?;
                while next.is_some_and(|wanted| wanted < record.sequence) {
                    next = rest.next();
                }
                if next == Some(record.sequence) {
                    if record.ends(&stream.warp) > now && topics.keeps(record.topic(&loaded.value), record.sequence) {
                        kept.push(record.sequence);
                    }
                    next = rest.next();
                }
            }
            while next.is_some_and(|wanted| wanted <= loaded.head.last) {
                next = rest.next();
            }
        }
        Ok(kept)
    });
    found.map_err(|trouble| read_error(stream, &trouble))
}
