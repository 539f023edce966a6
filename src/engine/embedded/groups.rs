//! Groups as they are stored, for whoever asks: read beside what is being written.

use redb::{ReadTransaction, ReadableTable};

use super::{
    rows::{GROUP_STATES, GROUPS, GroupDefinition, checked, from_row},
    store::{Store, Trouble},
    stream::Shared,
};
use crate::{
    engine::{GroupStoreError, StoredGroup},
    model::{Group, Storage, StreamName},
};

/// Whether a stream has a group.
pub(super) fn knows(stream: &Shared, group: &Group) -> Result<bool, GroupStoreError> {
    let known = || -> Result<bool, Trouble> {
        let read = stream.stores.file.read_transaction()?;
        let groups = read.open_table(GROUPS)?;
        Ok(groups.get((stream.id, group.as_str()))?.is_some())
    };
    known().map_err(|trouble| trouble.error().into())
}

/// How many groups a stream has.
pub(super) fn count(stream: &Shared) -> Result<usize, GroupStoreError> {
    let count = || -> Result<usize, Trouble> {
        let groups = stream.stores.file.read_transaction()?.open_table(GROUPS)?;
        Ok(groups.range((stream.id, "")..(stream.id + 1, ""))?.count())
    };
    count().map_err(|trouble| trouble.error().into())
}

/// Every group of a stream, by name.
pub(super) fn all(stream: &Shared) -> Result<Vec<StoredGroup>, Trouble> {
    with_states(stream, |definitions, states| {
        let groups = definitions.open_table(GROUPS)?;
        let mut all = Vec::new();
        for entry in groups.range((stream.id, "")..(stream.id + 1, ""))? {
            let (key, value) = entry?;
            all.push(stored(states, key.value(), value.value())?);
        }
        Ok(all)
    })
}

/// One group of a stream.
pub(super) fn one(stream: &Shared, group: &Group) -> Result<Option<StoredGroup>, Trouble> {
    with_states(stream, |definitions, states| {
        let key = (stream.id, group.as_str());
        let Some(found) = definitions.open_table(GROUPS)?.get(key)? else { return Ok(None) };
        stored(states, key, found.value()).map(Some)
    })
}

/// Reads from where definitions are, and from where states are.
fn with_states<T>(
    stream: &Shared,
    read: impl Fn(&ReadTransaction, &ReadTransaction) -> Result<T, Trouble>,
) -> Result<T, Trouble> {
    stream.stores.file.look(|definitions| match stream.storage {
        Storage::File => read(definitions, definitions),
        Storage::Memory => stream.stores.memory.look(|states| read(definitions, states)),
    })
}

fn stored(states: &ReadTransaction, key: (u64, &str), row: &[u8]) -> Result<StoredGroup, Trouble> {
    let damaged = Trouble::row("groups");
    let definition: GroupDefinition = from_row(row).map_err(&damaged)?;
    let state = states.open_table(GROUP_STATES)?.get(key)?;
    let state = state.as_ref().map(|state| checked(state.value())).transpose().map_err(&damaged)?;
    Ok(StoredGroup {
        group: named(key.1)?,
        settings: definition.settings().map_err(&damaged)?,
        state: state.map(bytes::Bytes::copy_from_slice).unwrap_or_default(),
    })
}

fn named(name: &str) -> Result<Group, Trouble> {
    Group::parse(name).map_err(|_| Trouble::Damaged("a group has no name".to_owned()))
}

/// The first group that has its dead letters stored in a stream of that name, of those whose streams have a name still. Looks
/// at all groups there are.
pub(super) fn that_buries_in(
    store: &Store,
    letters: &StreamName,
    name_of: impl Fn(u64) -> Option<StreamName>,
) -> Result<Option<(StreamName, Group)>, Trouble> {
    store.look(|transaction| {
        let groups = transaction.open_table(GROUPS)?;
        for entry in groups.iter()? {
            let (key, value) = entry?;
            let (id, group) = key.value();
            let definition: GroupDefinition = from_row(value.value()).map_err(Trouble::row("groups"))?;
            if definition.dead_letter_stream() == Some(letters.as_str())
                && let Some(stream) = name_of(id)
            {
                return Ok(Some((stream, named(group)?)));
            }
        }
        Ok(None)
    })
}
