//! Members that come.

use super::{active::Active, command::Newcomer};
use crate::{
    model::{AckMode, StreamError},
    outbox::{Opened, Returned, Wanted},
};

impl Active {
    /// Takes in a member, or refuses it, and tells it that it is subscribed.
    pub(super) fn seat(&mut self, newcomer: Newcomer) -> Result<(), StreamError> {
        if self.seats.agree_on(&newcomer.filters, self.state.counts().members == 0)? {
            self.read_again();
        }
        let acknowledges = newcomer.ack_mode != AckMode::None;
        let ack_deadline = acknowledges.then(|| self.state.settings().ack_deadline);
        let Newcomer { member, key, request_id, .. } = newcomer;
        self.state.join(member);
        if acknowledges && newcomer.automatic_credit {
            self.state.pace(member);
        }
        let returned = self.bring_back(&newcomer, acknowledges);
        let opened = Opened { returned, ..self.source.opened(self.state.floor(), ack_deadline) };
        // Those of all members, which share them.
        let filters = self.seats.filters().cloned().unwrap_or_default();
        let of = (Wanted::new(filters), self.source.key.group.clone());
        newcomer.outbox.open_member(key, opened, of, request_id);
        self.seats.take(newcomer);
        Ok(())
    }

    /// One that was a member before goes on for that one: it has what it says that it holds. Anybody else holds nothing.
    fn bring_back(&mut self, newcomer: &Newcomer, acknowledges: bool) -> Returned {
        let Newcomer { member, previous, .. } = newcomer;
        // What it could not acknowledge is delivered again.
        let held = if acknowledges { newcomer.held.as_deref() } else { Some(&[][..]) };
        let before = previous.as_ref().and_then(|previous| self.seats.come_back(previous, *member, &self.state));
        let reattached =
            before.is_some_and(|before| self.state.succeed(before, *member, held, self.source.clock.now()));
        if reattached {
            let key = &self.source.key;
            tracing::debug!(group = key.group.as_str(), stream = %key.stream, "a member came back");
        }
        let lost = |sequence: &u64| !self.state.may_acknowledge(*member, *sequence);
        Returned { reattached, lost: held.unwrap_or_default().iter().copied().filter(lost).collect() }
    }

    /// What was read ahead was read with other filters. Nobody has any of it.
    fn read_again(&mut self) {
        self.ready.clear();
        self.state.rewind();
        self.saves.look_for_unread();
    }
}
