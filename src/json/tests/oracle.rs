//! Every message of the contract, with anything in it, is read and written as prost-reflect reads and writes it.

use std::{collections::HashMap, sync::LazyLock};

use fastrand::Rng;
use proptest::prelude::*;
use prost::Message as _;
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor,
    SerializeOptions, Value,
};

use super::super::{
    EncodeError, JsonError,
    decode::{Machine, Together},
    message,
    schema::{DESCRIPTORS, Form, Shape, schema},
};

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| DescriptorPool::decode(DESCRIPTORS).expect("descriptors"));

/// All messages that can be the whole of a text.
static MESSAGES: LazyLock<Vec<MessageDescriptor>> = LazyLock::new(|| {
    let all = POOL.all_messages().filter(|of| !of.is_map_entry() && !of.full_name().starts_with("google.protobuf."));
    all.collect()
});

/// Whether an `Any` is anywhere in a message; such messages are only ever written.
fn has_any(of: &MessageDescriptor) -> bool {
    of.full_name() == "google.protobuf.Any"
        || of.fields().any(|field| matches!(field.kind(), Kind::Message(inner) if has_any(&inner)))
}

/// A message of anything.
fn made(of: &MessageDescriptor, seed: u64, tame: bool) -> DynamicMessage {
    let made = Maker { rng: Rng::with_seed(seed), tame }.message(of);
    // A list or a map that was set to nothing is not the same as one that was not set.
    DynamicMessage::decode(of.clone(), &*made.encode_to_vec()).expect("a message")
}

/// Makes messages.
struct Maker {
    rng: Rng,
    /// No unknown numbers of enums, and no NaN, which is not the same as itself.
    tame: bool,
}

impl Maker {
    fn message(&mut self, of: &MessageDescriptor) -> DynamicMessage {
        let mut made = DynamicMessage::new(of.clone());
        let set = |made: &mut DynamicMessage, values: &[(&str, Value)]| {
            for (name, value) in values {
                made.set_field_by_name(name, value.clone());
            }
        };
        match of.full_name() {
            "google.protobuf.Timestamp" => {
                let seconds = self.rng.i64(-62_135_596_800..=253_402_300_799);
                set(&mut made, &[("seconds", Value::I64(seconds)), ("nanos", Value::I32(self.nanos()))]);
            }
            "google.protobuf.Duration" => {
                let (seconds, nanos) = (self.rng.i64(0..315_576_000_000), self.nanos());
                let sign = if self.rng.bool() { 1 } else { -1 };
                set(&mut made, &[("seconds", Value::I64(seconds * sign)), ("nanos", Value::I32(nanos * sign as i32))]);
            }
            "google.protobuf.FieldMask" => {
                let all = ["filters", "max_age", "state.create_time", "a.b.c_d", "a1"];
                let paths =
                    all.iter().filter(|_| self.rng.bool()).map(|path| Value::String((*path).to_owned())).collect();
                set(&mut made, &[("paths", Value::List(paths))]);
            }
            "google.protobuf.Any" => {
                let names =
                    ["ErrorInfo", "BadRequest", "RetryInfo", "QuotaFailure", "Help"].map(|n| format!("google.rpc.{n}"));
                let mut names = names.to_vec();
                names.push("google.protobuf.Duration".to_owned());
                let name = names.swap_remove(self.rng.usize(..names.len()));
                let inner = self.message(&POOL.get_message_by_name(&name).expect("a detail"));
                let url = Value::String(format!("type.googleapis.com/{name}"));
                set(&mut made, &[("type_url", url), ("value", Value::Bytes(inner.encode_to_vec().into()))]);
            }
            _ => {
                let oneofs: HashMap<String, u32> = of
                    .oneofs()
                    .map(|oneof| {
                        let fields: Vec<_> = oneof.fields().collect();
                        (oneof.full_name().to_owned(), fields[self.rng.usize(..fields.len())].number())
                    })
                    .collect();
                for field in of.fields() {
                    let chosen =
                        field.containing_oneof().is_none_or(|oneof| oneofs[oneof.full_name()] == field.number());
                    if chosen && self.rng.u8(..) < 160 {
                        let value = self.field(&field);
                        made.set_field(&field, value);
                    }
                }
            }
        }
        made
    }

    fn field(&mut self, field: &FieldDescriptor) -> Value {
        let count = self.rng.usize(..4);
        if field.is_list() {
            return Value::List((0..count).map(|_| self.value(&field.kind())).collect());
        }
        if let Kind::Message(pair) = field.kind()
            && field.is_map()
        {
            let kind = pair.map_entry_value_field().kind();
            let pairs = (0..count).map(|_| (MapKey::String(self.text()), self.value(&kind)));
            return Value::Map(pairs.collect());
        }
        self.value(&field.kind())
    }

    fn value(&mut self, kind: &Kind) -> Value {
        let rng = &mut self.rng;
        let pick = rng.usize(..6);
        match kind {
            Kind::Int32 => Value::I32([0, 1, -1, i32::MIN, i32::MAX, rng.i32(..)][pick]),
            Kind::Int64 => Value::I64([0, 1, -1, i64::MIN, i64::MAX, rng.i64(..)][pick]),
            Kind::Uint32 => Value::U32([0, 1, 9, u32::MAX, 77, rng.u32(..)][pick]),
            Kind::Uint64 => Value::U64([0, 1, 9, u64::MAX, 77, rng.u64(..)][pick]),
            Kind::Bool => Value::Bool(rng.bool()),
            Kind::Float => Value::F32([0.0, -0.0, 1.5, f32::MAX, f32::INFINITY, 0.1][pick]),
            Kind::Double => {
                let special = if self.tame { 2.0 } else { f64::NAN };
                Value::F64([0.0, -0.0, 1e300, f64::NEG_INFINITY, 0.1, special][pick])
            }
            Kind::Enum(of) => {
                let values: Vec<_> = of.values().collect();
                let unknown = !self.tame && pick == 0;
                Value::EnumNumber(if unknown { 1000 } else { values[rng.usize(..values.len())].number() })
            }
            Kind::String => Value::String(self.text()),
            Kind::Bytes => Value::Bytes(std::iter::repeat_with(|| rng.u8(..)).take(pick * 7).collect()),
            Kind::Message(of) => Value::Message(self.message(of)),
            kind => panic!("the contract has no {kind:?}"),
        }
    }

    fn text(&mut self) -> String {
        let long = "long and plain ".repeat(self.rng.usize(..30));
        let texts =
            ["", "a", "orders.eu.created", "\"\\/\u{8}\u{c}\n\r\t\0\u{1f}\u{7f}", "h\u{e9}\u{20ac}\u{1d11e}", &long];
        let one = texts[self.rng.usize(..texts.len())];
        format!("{one}{}", texts[self.rng.usize(..texts.len())])
    }

    fn nanos(&mut self) -> i32 {
        [0, 5_000_000, 7_000, 1, 999_999_999, self.rng.i32(0..1_000_000_000)][self.rng.usize(..6)]
    }
}

fn written(of: &MessageDescriptor, protobuf: &[u8]) -> String {
    let mut out = b"before".to_vec();
    message(of.full_name()).expect("a message").encode(protobuf, &mut out).expect("JSON");
    String::from_utf8(out.split_off(6)).expect("UTF-8")
}

fn to_json(message: &DynamicMessage, options: &SerializeOptions) -> String {
    let mut out = Vec::new();
    let mut serializer = serde_json::Serializer::new(&mut out);
    message.serialize_with_options(&mut serializer, options).expect("JSON");
    String::from_utf8(out).expect("UTF-8")
}

fn from_json(of: &MessageDescriptor, json: &[u8]) -> Result<DynamicMessage, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    let message = DynamicMessage::deserialize_with_options(of.clone(), &mut deserializer, &options)?;
    deserializer.end()?;
    Ok(message)
}

/// Reads a text some tokens or bytes at a time, and says in how many parts.
fn read(of: &MessageDescriptor, json: &[u8], together: Together) -> Result<(Vec<u8>, usize), JsonError> {
    let mut machine = Machine::new(schema().find(of.full_name()).expect("a message"), json.len(), together);
    let mut parts = 0;
    while !machine.is_whole(json) {
        machine.some(json)?;
        parts += 1;
    }
    Ok((machine.into_bytes(), parts))
}

fn together() -> impl Strategy<Value = Together> {
    prop_oneof![
        Just(Together { tokens: 1, bytes: 4 }),
        (1..20_usize, 4..200_usize).prop_map(|(tokens, bytes)| Together { tokens, bytes }),
        Just(Together { tokens: 1024, bytes: 32 * 1024 }),
    ]
}

fn value(json: &str) -> serde_json::Value {
    serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json}"))
}

#[test]
fn every_field_of_the_contract_is_known() {
    assert!(MESSAGES.len() > 100, "only {} messages", MESSAGES.len());
    for of in POOL.all_messages().filter(|of| !of.is_map_entry()) {
        let known = schema().find(of.full_name()).expect("a message");
        assert_eq!(known.fields.len(), of.fields().len(), "{}: a field of a kind that is not known", of.full_name());
        assert_eq!(known.shape != Shape::Object, of.full_name().starts_with("google.protobuf."), "{}", of.full_name());
        for field in of.fields() {
            let at = known.field(field.number()).expect("a field");
            let found = &known.fields[at];
            assert_eq!((found.number, found.name.as_str()), (field.number(), field.name()));
            assert_eq!(found.member, format!("\"{}\":", field.json_name()), "{}", field.full_name());
            assert_eq!(found.presence, field.supports_presence(), "{}", field.full_name());
            assert_eq!((found.form == Form::List, found.form == Form::Map), (field.is_list(), field.is_map()));
            assert_eq!(found.form == Form::List && found.kind.is_packed(), field.is_packed(), "{}", field.full_name());
            for name in [field.name(), field.json_name()] {
                assert_eq!(known.member(name.as_bytes(), 3), Some(at), "{name}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn messages_are_written_as_the_oracle_writes_them(of in 0..MESSAGES.len(), seed: u64) {
        let of = &MESSAGES[of];
        let made = made(of, seed, false);
        let json = written(of, &made.encode_to_vec());
        prop_assert!(!json.contains('\n'));
        prop_assert_eq!(value(&json), value(&to_json(&made, &SerializeOptions::new())), "{}", of.full_name());
    }

    #[test]
    fn messages_in_parts_are_written_as_one(of in 0..MESSAGES.len(), seed: u64, parts in 2..4_usize) {
        let of = &MESSAGES[of];
        let mut maker = Maker { rng: Rng::with_seed(seed), tame: true };
        let protobuf: Vec<u8> = (0..parts).flat_map(|_| maker.message(of).encode_to_vec()).collect();
        let whole = DynamicMessage::decode(of.clone(), &*protobuf).expect("a message");
        let mut out = Vec::new();
        let written = message(of.full_name()).expect("a message").encode(&protobuf, &mut out);
        let mut expected = Vec::new();
        let options = SerializeOptions::new();
        // Two halves of a duration or of an `Any` need not be one.
        match whole.serialize_with_options(&mut serde_json::Serializer::new(&mut expected), &options) {
            Ok(()) => {
                // Which the oracle makes one of.
                if written != Err(EncodeError::Malformed("google.protobuf.Duration")) {
                    prop_assert_eq!(written, Ok(()), "{}", String::from_utf8_lossy(&expected));
                    prop_assert_eq!(value(&String::from_utf8_lossy(&out)), value(&String::from_utf8_lossy(&expected)));
                }
            }
            Err(error) => prop_assert!(written.is_err() && out.is_empty(), "{}: {}", of.full_name(), error),
        }
    }

    #[test]
    fn what_the_oracle_writes_is_read(
        of in 0..MESSAGES.len(),
        seed: u64,
        together in together(),
        (names, numbers, longs, defaults, spaced) in any::<(bool, bool, bool, bool, bool)>(),
    ) {
        let of = &MESSAGES[of];
        prop_assume!(!has_any(of));
        let made = made(of, seed, true);
        let options = SerializeOptions::new()
            .use_proto_field_name(names)
            .use_enum_numbers(numbers)
            .stringify_64_bit_integers(!longs)
            .skip_default_fields(!defaults);
        let mut json = to_json(&made, &options);
        if spaced {
            json = serde_json::to_string_pretty(&value(&json)).expect("JSON");
        }
        let (protobuf, parts) = read(of, json.as_bytes(), together).map_err(|error| TestCaseError::fail(format!("{error}: {json}")))?;
        let read = DynamicMessage::decode(of.clone(), &*protobuf).expect("a message");
        prop_assert!(read == made, "{}: {}", of.full_name(), json);
        prop_assert!(protobuf.len() <= json.len() + 64 * 1024);
        prop_assert!(together.tokens > 1 || parts + 2 >= json.len() / 1000, "{} parts", parts);
    }

    #[test]
    fn what_is_written_is_read_again(of in 0..MESSAGES.len(), seed: u64) {
        let of = &MESSAGES[of];
        prop_assume!(!has_any(of));
        let made = made(of, seed, true);
        let json = written(of, &made.encode_to_vec());
        let read = message(of.full_name()).expect("a message").decode(json.as_bytes()).expect("read");
        prop_assert!(DynamicMessage::decode(of.clone(), &*read).expect("a message") == made, "{}", json);
    }

    #[test]
    fn what_is_read_of_a_damaged_text_is_what_the_oracle_reads(
        of in 0..MESSAGES.len(),
        seed: u64,
        together in together(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), 0..4_u8, any::<prop::sample::Index>()), 1..4),
    ) {
        const BYTES: &[u8] = b"{}[]:,\"\\0129-+.eEtfnu \n\x00\x1f\xc3\xa9\xffasAZ_";
        let of = &MESSAGES[of];
        prop_assume!(!has_any(of));
        let made = made(of, seed, true);
        let mut json = to_json(&made, &SerializeOptions::new()).into_bytes();
        for (at, how, byte) in damage {
            let (at, byte) = (at.index(json.len()), BYTES[byte.index(BYTES.len())]);
            match how {
                0 => json[at] = byte,
                1 => json.insert(at, byte),
                2 => { json.truncate(at + 1); }
                _ => { let piece = json[at..json.len().min(at + 9)].to_vec(); json.splice(at..at, piece); }
            }
        }
        if let Ok((protobuf, _)) = read(of, &json, together) {
            let read = DynamicMessage::decode(of.clone(), &*protobuf).expect("a message");
            let text = String::from_utf8(json).expect("UTF-8");
            match from_json(of, text.as_bytes()) {
                Ok(expected) => prop_assert!(read == expected, "{}", text),
                // It takes no number of 64 bits with an exponent.
                Err(error) => prop_assert!(text.contains(['e', 'E', '.']), "{}: {}", error, text),
            }
        }
    }

    #[test]
    fn no_text_makes_the_machine_fail(of in 0..MESSAGES.len(), json in "[{}\\[\\]:,\"\\\\a-z0-9 .e-]{0,40}", together in together()) {
        let of = &MESSAGES[of];
        if let Ok((protobuf, _)) = read(of, json.as_bytes(), together) {
            prop_assert!(DynamicMessage::decode(of.clone(), &*protobuf).is_ok());
        }
    }

    #[test]
    fn nothing_that_is_no_message_makes_the_writer_fail(of in 0..MESSAGES.len(), bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        let mut out = Vec::new();
        if message(MESSAGES[of].full_name()).expect("a message").encode(&bytes, &mut out).is_ok() {
            prop_assert!(serde_json::from_slice::<serde_json::Value>(&out).is_ok());
        } else {
            prop_assert_eq!(out, b"");
        }
    }
}
