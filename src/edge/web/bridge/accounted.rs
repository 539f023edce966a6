//! Bytes with the memory that is held for them, until the last who has them lets go.

use bytes::Bytes;

use crate::memory::Held;

struct Accounted {
    bytes: Bytes,
    _held: Option<Held>,
}

impl AsRef<[u8]> for Accounted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The bytes, for which this is held.
pub(super) fn accounted(bytes: impl Into<Bytes>, held: Option<Held>) -> Bytes {
    Bytes::from_owner(Accounted { bytes: bytes.into(), _held: held })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::memory::{Memory, Use};

    #[test]
    fn memory_is_held_as_long_as_anybody_has_a_part_of_the_bytes() {
        let memory = Arc::<Memory>::default();
        let mut bytes = accounted(vec![7; 1000], memory.client().hold(Use::Frames, 1000).ok());
        let part = bytes.split_to(10);
        drop(bytes);
        assert_eq!((memory.held_bytes(Use::Frames), part.len()), (1000, 10));
        drop(part);
        assert_eq!(memory.held_bytes(Use::Frames), 0);
    }
}
