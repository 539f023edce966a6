//! The end of a stream: what the next event gets, and the batch that it goes to. Drafts are written behind it, and become
//! part of it once they are committed. Pure.

use redb::Table;

use super::{
    batch::{self, HEAD_BYTES, Head, MOST_RECORD_HEAD_BYTES, Record},
    draft::{Draft, DraftPiece, Sealer},
    rows::Progress,
    store::Trouble,
};
use crate::event::Event;

/// The last batch of a stream is written again with every commit until it has these bytes, so that lone events do not make a
/// key each. With its key it just fits a page of the database.
pub(super) const OPEN_BATCH_BYTES: usize = 16 * 1024 - 256;
/// No batch is larger, unless one event alone is. With its key it just fits a page of the database.
pub(super) const BATCH_BYTES: usize = 64 * 1024 - 256;

/// Where a stream goes on.
#[derive(Debug)]
pub(super) struct End {
    /// The number of the stream.
    id: u64,
    /// The sequence of the next event.
    pub(super) next: u64,
    /// When the last event was appended, in microseconds since 1970.
    pub(super) time: u64,
    open: Option<OpenBatch>,
}

/// The last batch of a stream, to which more is added.
#[derive(Debug)]
struct OpenBatch {
    head: Head,
    /// Its records, without the head.
    records: Vec<u8>,
}

impl End {
    /// Of a stream that is whole at `progress`; nothing is added to the batches it has.
    pub(super) fn new(id: u64, progress: Progress) -> Self {
        Self { id, next: progress.next, time: progress.time, open: None }
    }

    /// What the next event gets.
    pub(super) fn place(&self) -> (u64, u64) {
        (self.next, self.time)
    }

    /// How far the stream comes with a draft.
    pub(super) fn progress(&self, floor: u64, draft: Option<&Draft>) -> Progress {
        let (next, time) = draft.map_or(self.place(), Draft::place);
        Progress { next, floor, time }
    }

    /// The first sequence of the batch to which more is added, if there is one.
    pub(super) fn open(&self) -> Option<u64> {
        self.open.as_ref().map(|open| open.head.first)
    }

    /// More may be added to a batch that is in the store.
    pub(super) fn set_open(&mut self, head: Head, records: Vec<u8>) {
        self.open = Some(OpenBatch { head, records });
    }

    /// Nothing is added to the last batch any more; gives back which that was.
    pub(super) fn close(&mut self) -> Option<u64> {
        self.open.take().map(|open| open.head.first)
    }

    /// Puts one event into a draft.
    pub(super) fn put(&self, draft: &mut Draft, event: &Event, sealer: Sealer<'_>, scratch: &mut Vec<u8>) -> u64 {
        let (sequence, time) = draft.place();
        let spans = sealer.stamp(event, (sequence, time), scratch);
        let need = scratch.len() + MOST_RECORD_HEAD_BYTES;
        let open_bytes = self.open.as_ref().map_or(OPEN_BATCH_BYTES, |open| HEAD_BYTES + open.records.len());
        let fits = match draft.pieces.last() {
            None => open_bytes + need <= OPEN_BATCH_BYTES,
            Some(piece) if piece.continues => open_bytes + piece.buffer.len() - HEAD_BYTES + need <= OPEN_BATCH_BYTES,
            Some(piece) => piece.buffer.len() + need <= BATCH_BYTES,
        };
        if !fits || draft.pieces.is_empty() {
            let open = self.open.as_ref().filter(|_| fits && draft.pieces.is_empty());
            // After a full piece there is likely another one.
            let bytes = if draft.pieces.is_empty() { HEAD_BYTES + need } else { BATCH_BYTES.max(HEAD_BYTES + need) };
            let mut buffer = Vec::with_capacity(bytes);
            buffer.resize(HEAD_BYTES, 0);
            let before = open.map_or((sequence - 1, time), |open| (open.head.last, open.head.last_time));
            draft.pieces.push(DraftPiece {
                continues: open.is_some(),
                first: open.map_or(sequence, |open| open.head.first),
                base_time: open.map_or(time, |open| open.head.base_time),
                before,
                last: before,
                buffer,
                records: Vec::with_capacity(bytes / need),
            });
        }
        if let Some(piece) = draft.pieces.last_mut() {
            let start = batch::put(&mut piece.buffer, piece.last, (sequence, time), &spans, scratch);
            piece.last = (sequence, time);
            piece.records.push(Record { sequence, time, spans, start, len: scratch.len() as u32 });
        }
        draft.added(event, scratch.len());
        sequence
    }

    /// Writes a draft, whose heads are filled in.
    pub(super) fn write(
        &self,
        draft: &mut Draft,
        batches: &mut Table<'_, (u64, u64), &'static [u8]>,
    ) -> Result<(), Trouble> {
        for piece in &mut draft.pieces {
            let (key, head) = ((self.id, piece.first), self.head_of(piece));
            match self.open.as_ref().filter(|_| piece.continues) {
                Some(open) => {
                    let mut value = Vec::with_capacity(open.records.len() + piece.buffer.len());
                    value.resize(HEAD_BYTES, 0);
                    value.extend_from_slice(&open.records);
                    value.extend_from_slice(piece.records());
                    batch::finish(&mut value, self.id, &head);
                    batches.insert(key, &*value)?;
                }
                None => {
                    batch::finish(&mut piece.buffer, self.id, &head);
                    batches.insert(key, &*piece.buffer)?;
                }
            }
        }
        Ok(())
    }

    fn head_of(&self, piece: &DraftPiece) -> Head {
        let before = self.open.as_ref().filter(|_| piece.continues).map_or(0, |open| open.head.count);
        Head {
            first: piece.first,
            last: piece.last.0,
            base_time: piece.base_time,
            last_time: piece.last.1,
            count: before + piece.records.len() as u32,
        }
    }

    /// A piece of a draft is in the store. What there is to know of its batch.
    pub(super) fn add(&mut self, piece: &DraftPiece) -> Added {
        let head = self.head_of(piece);
        // Nothing is ever added to one that is as large: its records need not be kept for that.
        let is_full = !piece.continues && piece.buffer.len() >= OPEN_BATCH_BYTES;
        let mut closed = None;
        if !piece.continues {
            closed = self.close();
            self.set_open(head, Vec::new());
        }
        if let Some(open) = self.open.as_mut().filter(|_| !is_full) {
            open.head = head;
            open.records.extend_from_slice(piece.records());
        }
        let open = self.open.as_ref().map(|open| HEAD_BYTES + open.records.len());
        let bytes = open.filter(|_| piece.continues).unwrap_or(piece.buffer.len());
        let is_full = is_full || open.is_some_and(|bytes| bytes >= OPEN_BATCH_BYTES);
        Added { closed, records: head.count, bytes, is_full }
    }
}

/// What a piece of a draft made of its batch.
#[derive(Debug)]
pub(super) struct Added {
    /// The batch that was the last before, unless it is still.
    pub(super) closed: Option<u64>,
    /// How many records it has,
    pub(super) records: u32,
    /// and how many bytes.
    pub(super) bytes: usize,
    /// Nothing can be added to it.
    pub(super) is_full: bool,
}
