//! Moving a group, and telling how it stands.

use super::{
    active::Active,
    command::{Answer, AsOf},
    start::sequence_at,
    status::{self, GroupStatus, Tally},
};
use crate::model::Start;

impl Active {
    pub(super) async fn seek(&mut self, to: &Start, answer: Answer<()>) {
        match sequence_at(&self.source.stream, to, "position").await {
            Ok((sequence, begins)) => {
                self.state.seek(sequence);
                self.state.begin_at(begins);
                self.ready.clear();
                self.seats.recall();
                self.when_stored(move |stored| _ = answer.send(stored));
            }
            Err(error) => _ = answer.send(Err(error)),
        }
    }

    pub(super) async fn status(&mut self, base: Tally, as_of: AsOf, answer: Answer<GroupStatus>) {
        match as_of {
            AsOf::Now => self.look_at_front(),
            AsOf::Stored => self.look_for_all_removed().await,
        }
        let (in_hands, tally) = (self.in_hands(), self.tally(base));
        let status = status::of_state(&self.source.stream, &self.source.key, &self.state, in_hands, tally).await;
        let tell = move |_| _ = answer.send(status);
        match as_of {
            AsOf::Now => tell(Ok(())),
            AsOf::Stored => self.when_stored(tell),
        }
    }
}
