//! What members of several groups have, asked of the tasks of those groups.

use std::{collections::HashMap, sync::Arc};

use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use super::{
    Groups,
    command::{Command, Identity, View},
    key::Key,
};
use crate::model::{Group, Origin};

impl Groups {
    /// How many events each of these members was sent and has yet to acknowledge: `None` for one that is no member, and for
    /// one whose group has too much to do to say so before `by`. All groups are asked before the first is waited for.
    pub(in crate::hub) async fn unacked(
        self: &Arc<Self>,
        members: Vec<(Arc<Origin>, Group, Identity)>,
        by: Instant,
    ) -> Vec<Option<u64>> {
        let mut found = vec![None; members.len()];
        let mut by_group: HashMap<Key, (Vec<usize>, Vec<Identity>)> = HashMap::new();
        for (at, (origin, group, identity)) in members.into_iter().enumerate() {
            let key = Key { stream: origin.stream.clone(), epoch: origin.epoch, group };
            let (places, of) = by_group.entry(key).or_default();
            places.push(at);
            of.push(identity);
        }
        let mut asked = Vec::with_capacity(by_group.len());
        for (key, (places, of)) in by_group {
            let Some(handle) = self.in_use.find(&key) else { continue };
            let (answer, told) = oneshot::channel();
            if handle.try_send(Command::View(View::Unacked { of, answer })) {
                asked.push((places, handle, told));
            }
        }
        for (places, _handle, told) in asked {
            let Ok(Ok(unacked)) = timeout_at(by, told).await else { continue };
            for (at, unacked) in places.into_iter().zip(unacked) {
                found[at] = unacked;
            }
        }
        found
    }
}
