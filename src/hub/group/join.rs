//! Members that come.

use super::{active::Active, command::Newcomer};
use crate::{
    groups::MemberId,
    model::{AckMode, StreamError},
    outbox::Wanted,
};

impl Active {
    /// Takes in a member, or refuses it, and tells it that it is subscribed.
    pub(super) fn seat(&mut self, newcomer: Newcomer) -> Result<(), StreamError> {
        if self.seats.agree_on(&newcomer.filters, self.state.counts().members == 0)? {
            self.read_again();
        }
        let acknowledges = newcomer.ack_mode != AckMode::None;
        let ack_deadline = acknowledges.then(|| self.state.settings().ack_deadline);
        let opened = self.source.opened(self.state.floor(), ack_deadline);
        let Newcomer { member, key, request_id, .. } = newcomer;
        // Those of all members, which share them.
        let filters = self.seats.filters().cloned().unwrap_or_default();
        let of = (Wanted::new(filters), self.source.key.group.clone());
        newcomer.outbox.open_member(key, opened, of, request_id);
        self.state.join(member);
        if acknowledges && newcomer.automatic_credit {
            self.state.pace(member);
        }
        if let Some(before) = newcomer.previous.as_ref().and_then(|previous| self.seats.come_back(previous)) {
            self.go_on(before, member);
        }
        self.seats.take(newcomer);
        Ok(())
    }

    /// A member came back as another.
    fn go_on(&mut self, before: MemberId, now: MemberId) {
        if self.state.has_member(before) {
            self.state.succeed(before, now);
            let key = &self.source.key;
            tracing::debug!(group = key.group.as_str(), stream = %key.stream, "a member came back");
        }
    }

    /// What was read ahead was read with other filters. Nobody has any of it.
    fn read_again(&mut self) {
        self.ready.clear();
        self.state.rewind();
        self.saves.look_for_unread();
    }
}
