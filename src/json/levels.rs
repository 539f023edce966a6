//! What a message that is being read is inside of: objects, lists and maps, and so the path of each field. Pure.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;
use prost::encoding::decode_varint;

use super::{
    error::shown,
    schema::{Field, Form, Kind, Type},
};

/// One level: an object, a list or a map that has not ended.
#[derive(Debug)]
pub(super) struct Level {
    pub(super) inside: Inside,
    /// Where it begins in what is written, with its key.
    pub(super) start: usize,
    /// Where its content begins.
    pub(super) at: usize,
}

#[derive(Debug)]
pub(super) enum Inside {
    Object(Object),
    List { of: &'static Field, index: usize },
    Map(Map),
}

/// An object that is a message.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) of: &'static Type,
    /// The member at hand.
    pub(super) field: Option<usize>,
    /// The fields that were there, and those of them that were not null. Each has a bit.
    pub(super) seen: u64,
    pub(super) set: u64,
}

/// An object that is a map.
#[derive(Debug)]
pub(super) struct Map {
    pub(super) of: &'static Field,
    /// Where the pair at hand begins in what is written.
    pub(super) pair: usize,
    /// Where the pairs before it begin, by their names.
    pairs: HashTable<usize>,
    hasher: RandomState,
}

/// Where the next value goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) number: u32,
    pub(super) kind: Kind,
    pub(super) form: Form,
    /// The default value is the same as none, and not written.
    pub(super) bare: bool,
    /// It has a key before it: it is not one of a packed list.
    pub(super) keyed: bool,
    /// It is that of a field, which may be null.
    pub(super) nullable: bool,
}

impl Object {
    pub(super) fn new(of: &'static Type) -> Self {
        Self { of, field: None, seen: 0, set: 0 }
    }

    /// Another field of the same oneof that was set.
    pub(super) fn rival(&self, field: usize) -> Option<&'static Field> {
        let of = self.of.fields.get(field)?;
        let oneof = of.oneof?;
        let is_rival = |at: usize, other: &Field| at != field && other.oneof == Some(oneof) && self.set >> at & 1 == 1;
        self.of.fields.iter().enumerate().find(|(at, other)| is_rival(*at, other)).map(|(_, other)| other)
    }
}

impl Map {
    pub(super) fn new(of: &'static Field) -> Self {
        Self { of, pair: 0, pairs: HashTable::new(), hasher: RandomState::new() }
    }

    /// Notes the name of the pair at hand, which has been written whole; false if a pair before it has the same.
    pub(super) fn note(&mut self, written: &[u8]) -> bool {
        let Self { pair, pairs, hasher, .. } = self;
        let (name, hash) = (name_at(written, *pair), |name: &[u8]| hasher.hash_one(name));
        if pairs.find(hash(name), |other| name_at(written, *other) == name).is_some() {
            return false;
        }
        pairs.insert_unique(hash(name), *pair, |other| hash(name_at(written, *other)));
        true
    }
}

/// The name in the pair whose content begins there: its first field.
fn name_at(written: &[u8], pair: usize) -> &[u8] {
    let mut rest = written.get(pair + 1..).unwrap_or_default();
    let len = decode_varint(&mut rest).unwrap_or_default() as usize;
    rest.get(..len).unwrap_or_default()
}

impl Level {
    /// Where the next value goes; `None` before there is a name.
    #[inline]
    pub(super) fn place(&self) -> Option<Place> {
        Some(match &self.inside {
            Inside::Object(object) => {
                let field = object.of.fields.get(object.field?)?;
                let Field { number, kind, form, presence, .. } = *field;
                Place { number, kind, form, bare: !presence, keyed: true, nullable: true }
            }
            Inside::List { of, .. } => Place {
                number: of.number,
                kind: of.kind,
                form: Form::One,
                bare: false,
                keyed: !of.kind.is_packed(),
                nullable: false,
            },
            Inside::Map(map) => {
                Place { number: 2, kind: map.of.kind, form: Form::One, bare: false, keyed: true, nullable: false }
            }
        })
    }

    /// Adds to a path what this level is at.
    pub(super) fn put_path(&self, written: &[u8], path: &mut String) {
        match &self.inside {
            Inside::Object(object) => {
                let field = object.field.and_then(|field| object.of.fields.get(field));
                if let Some(field) = field {
                    put_name(&field.name, path);
                }
            }
            Inside::List { index, .. } => path.extend(["[", &index.to_string(), "]"]),
            Inside::Map(map) if map.pair > 0 => path.extend(["[", &shown(name_at(written, map.pair)), "]"]),
            Inside::Map(_) => {}
        }
    }
}

/// Adds a name to a path.
pub(super) fn put_name(name: &str, path: &mut String) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(name);
}
