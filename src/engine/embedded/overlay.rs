//! A file on a disk that has no room at all: it is read, and what is to be written to it is kept in memory, and forgotten.
//!
//! Opening a database writes a little, and reading it needs it open. So that it can be read all the same, it is opened over
//! this. Nothing that anybody is answered for may be written to it.

use std::{
    collections::BTreeMap,
    io::{Error, ErrorKind},
};

use parking_lot::RwLock;
use redb::StorageBackend;

const PAGE_BYTES: usize = 4096;
/// Much more than opening a database writes: 64 MiB.
const MOST_PAGES: usize = 16 * 1024;

#[derive(Debug)]
pub(super) struct Overlay {
    base: Box<dyn StorageBackend>,
    state: RwLock<State>,
}

#[derive(Debug)]
struct State {
    len: u64,
    /// What is behind this is not that of the base.
    base_len: u64,
    /// What was written, by the number of its page.
    pages: BTreeMap<u64, Box<[u8]>>,
}

impl Overlay {
    pub(super) fn new(base: Box<dyn StorageBackend>) -> Result<Self, Error> {
        let len = base.len()?;
        Ok(Self { base, state: RwLock::new(State { len, base_len: len, pages: BTreeMap::new() }) })
    }

    fn read_base(&self, state: &State, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        let there = (state.base_len.saturating_sub(offset) as usize).min(out.len());
        out[there..].fill(0);
        if there > 0 { self.base.read(offset, &mut out[..there]) } else { Ok(()) }
    }
}

/// The pages that `len` bytes from `offset` are in.
fn pages(offset: u64, len: usize) -> std::ops::Range<u64> {
    offset / PAGE_BYTES as u64..(offset + len as u64).div_ceil(PAGE_BYTES as u64)
}

/// Where what a page and some bytes from `offset` have in common begins, in both, and how long it is.
fn common(page: u64, offset: u64, len: usize) -> (usize, usize, usize) {
    let begin = page * PAGE_BYTES as u64;
    let (from, to) = (begin.max(offset), (begin + PAGE_BYTES as u64).min(offset + len as u64));
    ((from - begin) as usize, (from - offset) as usize, (to - from) as usize)
}

impl StorageBackend for Overlay {
    fn len(&self) -> Result<u64, Error> {
        Ok(self.state.read().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        let state = self.state.read();
        if offset + out.len() as u64 > state.len {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.read_base(&state, offset, out)?;
        for (page, bytes) in state.pages.range(pages(offset, out.len())) {
            let (there, here, len) = common(*page, offset, out.len());
            out[here..here + len].copy_from_slice(&bytes[there..there + len]);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), Error> {
        let mut state = self.state.write();
        (state.len, state.base_len) = (len, state.base_len.min(len));
        state.pages.split_off(&len.div_ceil(PAGE_BYTES as u64));
        let left = len as usize % PAGE_BYTES;
        if left > 0
            && let Some(last) = state.pages.get_mut(&(len / PAGE_BYTES as u64))
        {
            last[left..].fill(0);
        }
        Ok(())
    }

    fn sync_data(&self) -> Result<(), Error> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), Error> {
        let mut state = self.state.write();
        state.len = state.len.max(offset + data.len() as u64);
        for page in pages(offset, data.len()) {
            if !state.pages.contains_key(&page) {
                if state.pages.len() >= MOST_PAGES {
                    return Err(ErrorKind::StorageFull.into());
                }
                let mut bytes = vec![0; PAGE_BYTES].into_boxed_slice();
                self.read_base(&state, page * PAGE_BYTES as u64, &mut bytes)?;
                state.pages.insert(page, bytes);
            }
            let (there, here, len) = common(page, offset, data.len());
            if let Some(bytes) = state.pages.get_mut(&page) {
                bytes[there..there + len].copy_from_slice(&data[here..here + len]);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use redb::backends::InMemoryBackend;

    use super::*;
    use crate::engine::embedded::disk::tests::step_and_compare;

    proptest! {
        #[test]
        fn it_is_the_file_with_what_was_written_and_the_file_stays_as_it_was(
            before in prop::collection::vec(any::<u8>(), 1..30_000),
            steps in prop::collection::vec((0..5_u8, 0..40_000_usize, 0..20_000_usize, any::<u8>()), 1..20),
        ) {
            let base = InMemoryBackend::new();
            base.set_len(before.len() as u64).expect("set");
            base.write(0, &before).expect("written");
            let (file, mut expected) = (Overlay::new(Box::new(base)).expect("a file"), before.clone());
            for step in steps {
                step_and_compare(&file, &mut expected, step)?;
                let from = step.1.min(expected.len());
                let mut part = vec![1; expected.len() - from];
                file.read(from as u64, &mut part).expect("read");
                prop_assert!(part == expected[from..]);
            }
            let mut kept = vec![1; before.len()];
            file.base.read(0, &mut kept).expect("read");
            prop_assert!(kept == before);
        }
    }

    #[test]
    fn it_keeps_so_much_and_no_more() {
        let file = Overlay::new(Box::new(InMemoryBackend::new())).expect("a file");
        file.write(0, &vec![1; MOST_PAGES * PAGE_BYTES]).expect("it fits");
        assert_eq!(
            file.write((MOST_PAGES * PAGE_BYTES) as u64, &[1]).map_err(|e| e.kind()),
            Err(ErrorKind::StorageFull)
        );
        file.write(7, &[2; 100]).expect("no more than there was");
    }
}
