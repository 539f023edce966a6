//! Looking for events that the stream has lost, and telling the members of the group.

use super::active::Active;
use crate::model::{End, StreamError};

impl Active {
    /// Looks for events that the stream has lost; true when there is more to look at.
    pub(super) async fn look_for_removed(&mut self) -> bool {
        let now = self.now();
        self.removed.looks(now);
        self.look_at_front();
        self.removed.tell_log(&self.source, now);
        self.removed.may_ask(now) && self.ask_for_some(now).await
    }

    /// The same without a pause, until all was looked at.
    pub(super) async fn look_for_all_removed(&mut self) {
        self.look_at_front();
        let now = self.now();
        while self.ask_for_some(now).await {}
    }

    /// What comes before the first event of the stream is done.
    pub(super) fn look_at_front(&mut self) {
        let Some(gap) = self.removed.look_at_front(&self.source, &mut self.state) else { return };
        let (after, earliest) = (gap.sequences.0 - 1, gap.sequences.1 + 1);
        let latest = self.source.latest();
        for seat in self.seats.those_who_end_with_gaps() {
            let error = StreamError::Lost { stream: self.source.key.stream.clone(), after, earliest, latest };
            seat.outbox.close_key(seat.key, End::Stream(error));
        }
        self.tell(Some(gap));
    }

    async fn ask_for_some(&mut self, now: u64) -> bool {
        let (gap, more) = self.removed.ask_for_some(&mut self.source, &mut self.state, now).await;
        self.tell(gap);
        more
    }
}
