//! The messages of the contract as tables: what JSON calls each field, and what is written for it. Pure.
//!
//! The tables are made once of the descriptors that are compiled in, and both directions read them. They know the kinds of
//! fields that the contract has; a test fails when the contract gets another one.

use std::{collections::HashMap, sync::LazyLock};

use prost::Message as _;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type as Wire},
};

/// Every message and enum of the contract, without comments and services.
pub(super) const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/messages.bin"));

static SCHEMA: LazyLock<Schema> =
    LazyLock::new(|| FileDescriptorSet::decode(DESCRIPTORS).map(|set| Schema::new(&set)).unwrap_or_default());

/// The tables.
pub(super) fn schema() -> &'static Schema {
    &SCHEMA
}

/// All messages and enums.
#[derive(Debug, Default)]
pub(super) struct Schema {
    types: Vec<Type>,
    choices: Vec<Choices>,
    names: HashMap<String, usize>,
}

/// A message.
#[derive(Debug)]
pub(super) struct Type {
    /// With its package, such as `switchyard.v1.Event`.
    pub(super) name: String,
    pub(super) shape: Shape,
    /// In the order of the contract; at most [`MOST_FIELDS`].
    pub(super) fields: Vec<Field>,
    /// One more than the index of a field, by its number.
    numbers: Vec<u8>,
}

/// Each has a bit.
pub(super) const MOST_FIELDS: usize = 64;
/// Higher numbers are not looked up.
const MOST_NUMBER: u32 = 255;

/// How a message is written in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// An object with a member for each field.
    Object,
    /// `google.protobuf.Timestamp`: RFC 3339.
    Timestamp,
    /// `google.protobuf.Duration`: seconds, such as `1.5s`.
    Duration,
    /// `google.protobuf.FieldMask`: paths with commas between them.
    FieldMask,
    /// `google.protobuf.Any`: an object whose `@type` says what it is.
    Any,
}

/// A field.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) number: u32,
    /// As the contract has it, such as `subscription_id`.
    pub(super) name: String,
    /// As JSON has it, such as `subscriptionId`.
    json: String,
    /// The same, ready to be written: `"subscriptionId":`.
    pub(super) member: String,
    pub(super) kind: Kind,
    pub(super) form: Form,
    /// The oneof that it belongs to.
    pub(super) oneof: Option<u8>,
    /// Whether a default value differs from none, in a field of one value.
    pub(super) presence: bool,
}

/// How many values a field has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    One,
    List,
    /// By texts; [`Field::kind`] is that of the values.
    Map,
}

/// What the values of a field are. Those with an index are in the tables of the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Int32,
    Int64,
    Uint32,
    Uint64,
    Bool,
    Float,
    Double,
    Text,
    Bytes,
    Enum(usize),
    Message(usize),
}

impl Kind {
    /// The wire type of one value.
    pub(super) fn wire_type(self) -> u32 {
        match self {
            Self::Int32 | Self::Int64 | Self::Uint32 | Self::Uint64 | Self::Bool | Self::Enum(_) => 0,
            Self::Double => 1,
            Self::Text | Self::Bytes | Self::Message(_) => 2,
            Self::Float => 5,
        }
    }

    /// Whether the values of a list stand together, behind one key.
    pub(super) fn is_packed(self) -> bool {
        self.wire_type() != 2
    }
}

/// An enum.
#[derive(Debug)]
pub(super) struct Choices {
    /// Without its package.
    pub(super) name: String,
    values: Vec<(String, i32)>,
}

impl Choices {
    /// The number of a name.
    pub(super) fn number(&self, name: &[u8]) -> Option<i32> {
        self.values.iter().find(|(known, _)| known.as_bytes() == name).map(|(_, number)| *number)
    }

    /// The first name of a number.
    pub(super) fn name_of(&self, number: i32) -> Option<&str> {
        self.values.iter().find(|(_, known)| *known == number).map(|(name, _)| name.as_str())
    }
}

impl Schema {
    fn new(set: &FileDescriptorSet) -> Self {
        let mut found = Found::default();
        for file in &set.file {
            let package = format!(".{}", file.package());
            file.enum_type
                .iter()
                .for_each(|choices| found.choices.push((format!("{package}.{}", choices.name()), choices)));
            file.message_type.iter().for_each(|message| found.message(&package, message));
        }
        let types = found.types.iter().map(|(name, message)| found.table(name, message)).collect();
        let choices = found.choices.iter().map(|(_, choices)| choices_of(choices)).collect();
        let names = found.types.iter().enumerate().map(|(at, (name, _))| (name[1..].to_owned(), at)).collect();
        Self { types, choices, names }
    }

    /// The message of a full name, such as `switchyard.v1.Event`.
    pub(super) fn find(&self, full_name: &str) -> Option<&Type> {
        self.types.get(*self.names.get(full_name)?)
    }

    /// The message of a [`Kind`].
    pub(super) fn message(&self, at: usize) -> &Type {
        &self.types[at]
    }

    /// The enum of a [`Kind`].
    pub(super) fn choices(&self, at: usize) -> &Choices {
        &self.choices[at]
    }
}

impl Type {
    /// The field that JSON calls so, by either of its names; the one at `likely` is tried first.
    #[inline]
    pub(super) fn member(&self, name: &[u8], likely: usize) -> Option<usize> {
        let is_it = |field: &Field| field.json.as_bytes() == name || field.name.as_bytes() == name;
        let (before, from) = self.fields.split_at(likely.min(self.fields.len()));
        let found = from.iter().position(is_it).map(|at| before.len() + at);
        found.or_else(|| before.iter().position(is_it))
    }

    /// The field with a number.
    #[inline]
    pub(super) fn field(&self, number: u32) -> Option<usize> {
        let at = self.numbers.get(number as usize).copied().unwrap_or_default();
        usize::from(at).checked_sub(1)
    }
}

/// The descriptors that tables are made of, by names that begin with a dot.
#[derive(Default)]
struct Found<'a> {
    types: Vec<(String, &'a DescriptorProto)>,
    choices: Vec<(String, &'a EnumDescriptorProto)>,
    pairs: Vec<(String, &'a DescriptorProto)>,
}

impl<'a> Found<'a> {
    fn message(&mut self, parent: &str, message: &'a DescriptorProto) {
        let name = format!("{parent}.{}", message.name());
        message.enum_type.iter().for_each(|choices| self.choices.push((format!("{name}.{}", choices.name()), choices)));
        message.nested_type.iter().for_each(|nested| self.message(&name, nested));
        let is_pair = message.options.as_ref().is_some_and(prost_types::MessageOptions::map_entry);
        if is_pair { self.pairs.push((name, message)) } else { self.types.push((name, message)) }
    }

    fn table(&self, name: &str, message: &DescriptorProto) -> Type {
        let fields: Vec<_> = message.field.iter().filter_map(|field| self.field(field)).take(MOST_FIELDS).collect();
        let mut numbers = vec![0; fields.iter().map(|field| field.number as usize + 1).max().unwrap_or_default()];
        for (at, field) in fields.iter().enumerate() {
            numbers[field.number as usize] = at as u8 + 1;
        }
        let shape = match name {
            ".google.protobuf.Timestamp" => Shape::Timestamp,
            ".google.protobuf.Duration" => Shape::Duration,
            ".google.protobuf.FieldMask" => Shape::FieldMask,
            ".google.protobuf.Any" => Shape::Any,
            _ => Shape::Object,
        };
        Type { name: name[1..].to_owned(), shape, fields, numbers }
    }

    /// `None` for one of a kind that is not known here.
    fn field(&self, field: &FieldDescriptorProto) -> Option<Field> {
        let (name, number) = (field.name().to_owned(), u32::try_from(field.number()).ok()?);
        let pair = self.pairs.iter().find(|(name, _)| name == field.type_name());
        let (form, kind) = match pair {
            Some((_, pair)) => {
                let of = |number| pair.field.iter().find(|field| field.number() == number);
                if of(1)?.r#type() != Wire::String {
                    return None;
                }
                (Form::Map, self.kind(of(2)?)?)
            }
            None if field.label() == Label::Repeated => (Form::List, self.kind(field)?),
            None => (Form::One, self.kind(field)?),
        };
        let json = field.json_name.clone().unwrap_or_else(|| camel_case(&name));
        let oneof = field.oneof_index.filter(|_| !field.proto3_optional()).and_then(|at| u8::try_from(at).ok());
        let is_told = oneof.is_some() || field.proto3_optional() || matches!(kind, Kind::Message(_));
        let presence = form == Form::One && is_told;
        let member = format!("\"{json}\":");
        (number <= MOST_NUMBER).then_some(Field { number, name, json, member, kind, form, oneof, presence })
    }

    fn kind(&self, field: &FieldDescriptorProto) -> Option<Kind> {
        Some(match field.r#type() {
            Wire::Int32 => Kind::Int32,
            Wire::Int64 => Kind::Int64,
            Wire::Uint32 => Kind::Uint32,
            Wire::Uint64 => Kind::Uint64,
            Wire::Bool => Kind::Bool,
            Wire::Float => Kind::Float,
            Wire::Double => Kind::Double,
            Wire::String => Kind::Text,
            Wire::Bytes => Kind::Bytes,
            Wire::Enum => Kind::Enum(self.choices.iter().position(|(name, _)| name == field.type_name())?),
            Wire::Message => Kind::Message(self.types.iter().position(|(name, _)| name == field.type_name())?),
            Wire::Group
            | Wire::Fixed32
            | Wire::Fixed64
            | Wire::Sfixed32
            | Wire::Sfixed64
            | Wire::Sint32
            | Wire::Sint64 => {
                return None;
            }
        })
    }
}

fn choices_of(choices: &EnumDescriptorProto) -> Choices {
    let values = choices.value.iter().map(|value| (value.name().to_owned(), value.number())).collect();
    Choices { name: choices.name().to_owned(), values }
}

/// The name that JSON has for a field, by the rule of protobuf.
fn camel_case(name: &str) -> String {
    let mut camel = String::with_capacity(name.len());
    let mut upper = false;
    for letter in name.chars() {
        match letter {
            '_' => upper = true,
            letter if upper => {
                camel.extend(letter.to_uppercase());
                upper = false;
            }
            letter => camel.push(letter),
        }
    }
    camel
}
