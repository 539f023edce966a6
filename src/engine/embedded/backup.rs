//! Backups: everything that is in the store at one moment, as bytes, and a store made of them.
//!
//! `SWYB` and the version of the form; then rows: the number of the table, how long key and value are, key and value; at the
//! end table 0, how many rows there are, and a CRC-32C of all before it. Versions and lengths are four bytes, the count eight,
//! the lowest first; keys are as they are ordered.
//!
//! Reading trusts nothing: whatever is not exactly what was written is no backup.

use std::{
    io::{ErrorKind, Read},
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::{Bytes, BytesMut};
use redb::{Database, ReadTransaction, ReadableTable, StorageBackend, WriteTransaction};
use tokio::sync::OwnedSemaphorePermit;

use super::{
    batch::{self, micros},
    disk::{Disk, Folder, Watched},
    link::Link,
    rows::{BATCHES, Definition, GROUP_STATES, GROUPS, META, PROGRESS, REPEATS, STREAMS, checked, from_row, to_row},
    store::{Store, Trouble, make_tables, next_epoch, note_clean},
};
use crate::engine::{Backup, BackupError, NextPiece, RestoreError, Restored};

const MAGIC: &[u8; 4] = b"SWYB";
const VERSION: u32 = 1;
/// A piece has as many bytes, unless it is the last.
const PIECE_BYTES: usize = 64 * 1024;
/// No key is longer,
const MAX_KEY_BYTES: u32 = 4096;
/// and no value.
const MAX_VALUE_BYTES: u32 = 64 * 1024 * 1024;
/// So many bytes of rows are put into a store in one transaction.
const AT_ONCE_BYTES: usize = 16 * 1024 * 1024;
/// How much of a store that is being made is kept in memory.
const CACHE_BYTES: usize = 64 * 1024 * 1024;

/// The tables by their numbers. 0 is the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Table {
    Meta = 1,
    Streams,
    Progress,
    Batches,
    Repeats,
    Groups,
    GroupStates,
}

impl Table {
    const ALL: [Self; 7] =
        [Self::Meta, Self::Streams, Self::Progress, Self::Batches, Self::Repeats, Self::Groups, Self::GroupStates];
}

struct Row {
    table: Table,
    key: Vec<u8>,
    value: Vec<u8>,
}

type Rows = Box<dyn Iterator<Item = Result<Row, Trouble>> + Send>;

/// Every row there is, each looked at as it goes by: damage is not passed on.
fn rows(read: &ReadTransaction) -> Result<Rows, Trouble> {
    macro_rules! rows_of {
        ($table:ident, $definition:ident, $any:ty, $check:expr) => {{
            let check = $check;
            read.open_table($definition)?.range::<$any>(..)?.map(move |entry| -> Result<Row, Trouble> {
                let (key, value) = entry?;
                let (key, value) = (bytes_of_key(&key.value()), bytes_of_value(&value.value()));
                check(&key, &value)?;
                Ok(Row { table: Table::$table, key, value })
            })
        }};
    }
    let small = |what: &'static str| move |_: &[u8], value: &[u8]| checked(value).map(drop).map_err(Trouble::row(what));
    let of_batch = |key: &[u8], value: &[u8]| {
        let (stream, first) = two_numbers(key).ok_or_else(|| Trouble::Damaged("a key is short".to_owned()))?;
        batch::head(stream, first, value).map(drop).map_err(Trouble::batch(stream, first))
    };
    let all = rows_of!(Meta, META, &str, small("meta"))
        .chain(rows_of!(Streams, STREAMS, u64, small("streams")))
        .chain(rows_of!(Progress, PROGRESS, u64, small("progress")))
        .chain(rows_of!(Batches, BATCHES, (u64, u64), of_batch))
        .chain(rows_of!(Repeats, REPEATS, (u64, u64), |_: &[u8], _: &[u8]| Ok::<_, Trouble>(())))
        .chain(rows_of!(Groups, GROUPS, (u64, &str), small("groups")))
        .chain(rows_of!(GroupStates, GROUP_STATES, (u64, &str), small("groups")));
    Ok(Box::new(all))
}

/// What is a key of some table.
trait Key {
    fn put(&self, out: &mut Vec<u8>);
}

impl Key for &str {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }
}

impl Key for u64 {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_be_bytes());
    }
}

impl<T: Key> Key for (u64, T) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }
}

fn bytes_of_key(key: &impl Key) -> Vec<u8> {
    let mut out = Vec::new();
    key.put(&mut out);
    out
}

/// What is a value of some table.
trait Value {
    fn bytes(&self) -> Vec<u8>;
}

impl Value for &[u8] {
    fn bytes(&self) -> Vec<u8> {
        self.to_vec()
    }
}

impl Value for (u64, u128) {
    fn bytes(&self) -> Vec<u8> {
        [&self.0.to_be_bytes()[..], &self.1.to_be_bytes()].concat()
    }
}

fn bytes_of_value(value: &impl Value) -> Vec<u8> {
    value.bytes()
}

fn number(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_be_bytes)
}

fn two_numbers(bytes: &[u8]) -> Option<(u64, u64)> {
    let (one, two) = bytes.split_at_checked(8)?;
    Some((number(one)?, number(two)?))
}

fn name(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

fn number_and_name(bytes: &[u8]) -> Option<(u64, &str)> {
    let (one, two) = bytes.split_at_checked(8)?;
    Some((number(one)?, name(two)?))
}

/// Puts a row into a store; `None` when its key or value is none of its table.
fn put(transaction: &WriteTransaction, row: &Row) -> Result<Option<()>, Trouble> {
    let Row { table, key, value } = row;
    macro_rules! put {
        ($table:ident, $key:expr, $value:expr) => {{
            let (Some(key), Some(value)) = ($key, $value) else { return Ok(None) };
            transaction.open_table($table)?.insert(key, value)?;
        }};
    }
    match table {
        Table::Meta => put!(META, name(key), Some(&**value)),
        Table::Streams => put!(STREAMS, number(key), Some(&**value)),
        Table::Progress => put!(PROGRESS, number(key), Some(&**value)),
        Table::Batches => put!(BATCHES, two_numbers(key), Some(&**value)),
        Table::Repeats => put!(REPEATS, two_numbers(key), repeat(value)),
        Table::Groups => put!(GROUPS, number_and_name(key), Some(&**value)),
        Table::GroupStates => put!(GROUP_STATES, number_and_name(key), Some(&**value)),
    }
    Ok(Some(()))
}

fn repeat(value: &[u8]) -> Option<(u64, u128)> {
    let (time, dedupe) = value.split_at_checked(8)?;
    Some((number(time)?, dedupe.try_into().ok().map(u128::from_be_bytes)?))
}

/// The bytes of a backup, a piece at a time. The rows are those of one moment, however long it takes.
struct Writer {
    rows: Option<Rows>,
    count: u64,
    sum: u32,
    ready: BytesMut,
}

impl Writer {
    fn new(rows: Rows) -> Self {
        let mut writer = Self { rows: Some(rows), count: 0, sum: 0, ready: BytesMut::new() };
        writer.add(MAGIC);
        writer.add(&VERSION.to_le_bytes());
        writer
    }

    fn add(&mut self, bytes: &[u8]) {
        self.sum = crc32c::crc32c_append(self.sum, bytes);
        self.ready.extend_from_slice(bytes);
    }

    fn next(&mut self) -> Result<Option<Bytes>, Trouble> {
        while self.ready.len() < PIECE_BYTES
            && let Some(rows) = &mut self.rows
        {
            match rows.next().transpose()? {
                Some(Row { table, key, value }) => {
                    self.count += 1;
                    self.add(&[table as u8]);
                    self.add(&(key.len() as u32).to_le_bytes());
                    self.add(&(value.len() as u32).to_le_bytes());
                    self.add(&key);
                    self.add(&value);
                }
                None => {
                    self.rows = None;
                    self.add(&[0]);
                    self.add(&self.count.to_le_bytes());
                    let sum = self.sum.to_le_bytes();
                    self.ready.extend_from_slice(&sum);
                }
            }
        }
        let len = self.ready.len().min(PIECE_BYTES);
        Ok((len > 0).then(|| self.ready.split_to(len).freeze()))
    }
}

/// A backup under way.
struct UnderWay {
    writer: Writer,
    link: Arc<Link>,
    until: Instant,
    limit: Duration,
    total: u64,
    _turn: OwnedSemaphorePermit,
}

impl std::fmt::Debug for UnderWay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UnderWay").field("until", &self.until).finish_non_exhaustive()
    }
}

impl Backup for UnderWay {
    fn store_bytes(&self) -> u64 {
        self.total
    }

    fn next(mut self: Box<Self>) -> NextPiece {
        Box::pin(async move {
            if Instant::now() >= self.until {
                return Err(BackupError::TooLong { limit: self.limit });
            }
            let link = Arc::clone(&self.link);
            let work = move || self.writer.next().map(|piece| piece.map(|piece| (piece, self)));
            let piece = link.beside(work).await?.map_err(|trouble| trouble.error())?;
            Ok(piece.map(|(piece, rest)| (piece, rest as Box<dyn Backup>)))
        })
    }
}

/// Begins a backup of everything that was answered before. It may take so long.
pub(super) fn begin(link: &Arc<Link>, limit: Duration) -> Result<Box<dyn Backup>, BackupError> {
    let turn = Arc::clone(&link.backups).try_acquire_owned().map_err(|_| BackupError::UnderWay)?;
    let rows = link.stores.file.look(rows).map_err(|trouble| trouble.error())?;
    let (writer, total) = (Writer::new(rows), link.stores.file.bytes());
    Ok(Box::new(UnderWay { writer, link: Arc::clone(link), until: Instant::now() + limit, limit, total, _turn: turn }))
}

/// What is wrong with bytes that are to be a backup.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error("cannot be read: {0}")]
    Io(#[from] std::io::Error),
    #[error("is not a backup of a hub")]
    Foreign,
    #[error("is a backup of format {0}; this program supports {VERSION}")]
    Version(u32),
    #[error("is truncated: the backup was not finished")]
    Short,
    #[error("is damaged: {0}")]
    Damaged(&'static str),
}

/// The rows of a backup, in order.
struct Reader<R> {
    from: R,
    sum: u32,
    count: u64,
}

impl<R: Read> Reader<R> {
    fn new(from: R) -> Result<Self, Unreadable> {
        let mut reader = Self { from, sum: 0, count: 0 };
        match reader.array::<4>() {
            Ok(magic) if magic == *MAGIC => {}
            Ok(_) | Err(Unreadable::Short) => return Err(Unreadable::Foreign),
            Err(error) => return Err(error),
        }
        match u32::from_le_bytes(reader.array()?) {
            VERSION => Ok(reader),
            other => Err(Unreadable::Version(other)),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Unreadable> {
        let mut bytes = [0; N];
        self.from.read_exact(&mut bytes).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => Unreadable::Short,
            _ => error.into(),
        })?;
        self.sum = crc32c::crc32c_append(self.sum, &bytes);
        Ok(bytes)
    }

    fn bytes(&mut self, len: u32) -> Result<Vec<u8>, Unreadable> {
        let mut bytes = Vec::new();
        // No more memory than there are bytes, whatever the length says.
        if self.from.by_ref().take(len.into()).read_to_end(&mut bytes)? < len as usize {
            return Err(Unreadable::Short);
        }
        self.sum = crc32c::crc32c_append(self.sum, &bytes);
        Ok(bytes)
    }

    /// The next row; `None` when all of them were read, and were those that were written.
    fn next(&mut self) -> Result<Option<Row>, Unreadable> {
        let [number] = self.array()?;
        if number == 0 {
            return self.end().map(|()| None);
        }
        let table = Table::ALL.into_iter().find(|table| *table as u8 == number);
        let table = table.ok_or(Unreadable::Damaged("it has an unknown table"))?;
        let (key, value) = (u32::from_le_bytes(self.array()?), u32::from_le_bytes(self.array()?));
        if key > MAX_KEY_BYTES || value > MAX_VALUE_BYTES {
            return Err(Unreadable::Damaged("a row is too large"));
        }
        self.count += 1;
        Ok(Some(Row { table, key: self.bytes(key)?, value: self.bytes(value)? }))
    }

    fn end(&mut self) -> Result<(), Unreadable> {
        let count = u64::from_le_bytes(self.array()?);
        let sum = self.sum;
        if u32::from_le_bytes(self.array()?) != sum || count != self.count {
            return Err(Unreadable::Damaged("its count or checksum is wrong"));
        }
        match self.array::<1>() {
            Err(Unreadable::Short) => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Err(Unreadable::Damaged("it has data after its end")),
        }
    }
}

impl Unreadable {
    fn told(self) -> RestoreError {
        RestoreError::Backup { what: self.to_string() }
    }
}

fn told(trouble: &Trouble) -> RestoreError {
    RestoreError::Failed { what: trouble.to_string() }
}

/// Reads a backup to its end, and gives how many streams are in it.
pub(super) fn check(backup: impl Read) -> Result<usize, RestoreError> {
    let mut reader = Reader::new(backup).map_err(Unreadable::told)?;
    let mut streams = 0;
    while let Some(row) = reader.next().map_err(Unreadable::told)? {
        streams += usize::from(row.table == Table::Streams);
    }
    Ok(streams)
}

/// Makes a store of a backup, in a folder that has none. It is there once all of it is.
pub(super) fn restore(backup: impl Read, path: &Path) -> Result<Restored, RestoreError> {
    let mut reader = Reader::new(backup).map_err(Unreadable::told)?;
    let folder = Folder::lock(path)?;
    if folder.has_store() {
        return Err(RestoreError::InTheWay { folder: folder.folder() });
    }
    restore_to(&mut reader, &folder).inspect_err(|_| folder.give_up())
}

fn restore_to(reader: &mut Reader<impl Read>, disk: &dyn Disk) -> Result<Restored, RestoreError> {
    let failed = |error: std::io::Error| RestoreError::Failed { what: error.to_string() };
    let database = empty(disk.open().map_err(failed)?).map_err(|trouble| told(&trouble))?;
    let mut more = true;
    while more {
        let (mut some, mut bytes) = (Vec::new(), 0);
        while more && bytes < AT_ONCE_BYTES {
            match reader.next().map_err(Unreadable::told)? {
                Some(row) => {
                    bytes += row.key.len() + row.value.len();
                    some.push(row);
                }
                None => more = false,
            }
        }
        let foreign = || Unreadable::Damaged("a row does not belong to its table").told();
        put_all(&database, &some).map_err(|trouble| told(&trouble))?.ok_or_else(foreign)?;
    }
    let restored = finish(&database).map_err(|trouble| told(&trouble))?;
    drop(database);
    disk.keep().map_err(failed)?;
    Ok(restored)
}

fn empty(backend: Box<dyn StorageBackend>) -> Result<Database, Trouble> {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    let database = builder.create_with_backend(Watched::new(backend).0)?;
    let transaction = database.begin_write()?;
    make_tables(&transaction)?;
    transaction.commit()?;
    Ok(database)
}

fn put_all(database: &Database, rows: &[Row]) -> Result<Option<()>, Trouble> {
    let transaction = database.begin_write()?;
    for row in rows {
        if put(&transaction, row)?.is_none() {
            return Ok(None);
        }
    }
    transaction.commit()?;
    Ok(Some(()))
}

fn finish(database: &Database) -> Result<Restored, Trouble> {
    let transaction = database.begin_write()?;
    let streams = renew_all(&transaction)?;
    note_clean(&transaction, true)?;
    transaction.commit()?;
    Ok(Restored { streams })
}

/// Gives every stream of a store a new epoch: what is in it now is not what those who were further have seen.
pub(super) fn renew(path: &Path) -> Result<Restored, RestoreError> {
    if !path.is_dir() {
        return Err(RestoreError::NoStore { folder: path.display().to_string() });
    }
    let folder = Folder::lock(path)?;
    if !folder.has_store() {
        return Err(RestoreError::NoStore { folder: folder.folder() });
    }
    renew_on(Arc::new(folder))
}

/// The same on any disk that has a store.
pub(super) fn renew_on(disk: Arc<dyn Disk>) -> Result<Restored, RestoreError> {
    let renew = || -> Result<usize, Trouble> {
        let store = Store::open(disk, CACHE_BYTES, true, false)?;
        let transaction = store.write()?;
        let streams = renew_all(&transaction)?;
        transaction.commit()?;
        store.leave();
        Ok(streams)
    };
    renew().map(|streams| Restored { streams }).map_err(|trouble| told(&trouble))
}

fn renew_all(transaction: &WriteTransaction) -> Result<usize, Trouble> {
    let mut streams = transaction.open_table(STREAMS)?;
    let mut all = Vec::new();
    for entry in streams.iter()? {
        let (id, found) = entry?;
        let definition: Definition = from_row(found.value()).map_err(Trouble::row("streams"))?;
        all.push((id.value(), definition));
    }
    for (id, definition) in &mut all {
        definition.epoch = next_epoch(transaction, micros(SystemTime::now()))?;
        streams.insert(*id, &*to_row(definition))?;
    }
    Ok(all.len())
}
