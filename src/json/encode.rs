//! From protobuf to JSON: the fields of a message in the order of the contract, those without a value left out. Pure.
//!
//! A message is walked once to find where its fields are, and then written. It may be one of the hub's own or one that a
//! client encoded in any way that protobuf allows: fields in any order, or twice. Unknown fields are not visible in JSON.

use smallvec::{SmallVec, smallvec};

use super::{
    error::EncodeError,
    escape::{put_base64, put_long, put_number, put_text},
    protobuf::{Value, next, next_packed},
    schema::{Field, Form, Kind, Shape, Type, schema},
    well_known::{self, Seconds},
};

/// An `Any` may hold one that holds one, and no message of the contract is deeper.
const MOST_LEVELS: usize = 32;

/// Where the values of a field are.
#[derive(Debug, Clone, Copy, Default)]
struct Found<'a> {
    times: u32,
    /// The last of them,
    last: Value<'a>,
    /// and what the message has from the first of them on.
    from: &'a [u8],
}

type Places<'a> = SmallVec<[Found<'a>; 16]>;

/// Puts a message.
pub(super) fn put_message(of: &'static Type, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
    Writer { out, levels: 0 }.message(of, bytes)
}

struct Writer<'o> {
    out: &'o mut Vec<u8>,
    levels: usize,
}

impl Writer<'_> {
    fn message(&mut self, of: &'static Type, bytes: &[u8]) -> Result<(), EncodeError> {
        if self.levels >= MOST_LEVELS {
            return Err(malformed(of));
        }
        self.levels += 1;
        let places = find(of, bytes).ok_or_else(|| malformed(of))?;
        match of.shape {
            Shape::Object => {
                self.out.push(b'{');
                self.members(of, &places, true)?;
                self.out.push(b'}');
            }
            Shape::Any => self.any(&places)?,
            shape => {
                let written = match shape {
                    Shape::Timestamp => well_known::put_time(seconds(&places), self.out),
                    Shape::Duration => well_known::put_duration(seconds(&places), self.out),
                    _ => self.mask(&places),
                };
                if !written {
                    return Err(malformed(of));
                }
            }
        }
        self.levels -= 1;
        Ok(())
    }

    /// The fields of a message that have a value.
    fn members(&mut self, of: &'static Type, places: &Places<'_>, mut first: bool) -> Result<(), EncodeError> {
        for (field, found) in of.fields.iter().zip(places).filter(|(_, found)| found.times > 0) {
            if field.form == Form::One && !field.presence && is_default(found.last) {
                continue;
            }
            if field.form == Form::List && is_empty(field, found) {
                continue;
            }
            if !first {
                self.out.push(b',');
            }
            first = false;
            self.out.extend_from_slice(field.member.as_bytes());
            match field.form {
                Form::One => self.one(of, field, found)?,
                Form::List => self.list(of, field, found)?,
                Form::Map => self.map(of, field, found)?,
            }
        }
        Ok(())
    }

    fn one(&mut self, of: &'static Type, field: &Field, found: &Found<'_>) -> Result<(), EncodeError> {
        match field.kind {
            // A message that comes in parts is all of them together.
            Kind::Message(at) if found.times > 1 => {
                let parts: Option<Vec<_>> = found.all(field).map(Value::bytes).collect();
                self.message(schema().message(at), &parts.ok_or_else(|| malformed(of))?.concat())
            }
            kind => self.value(of, kind, found.last),
        }
    }

    fn list(&mut self, of: &'static Type, field: &Field, found: &Found<'_>) -> Result<(), EncodeError> {
        self.out.push(b'[');
        let mut first = true;
        for value in found.all(field) {
            let packed = value.bytes().filter(|_| field.kind.is_packed());
            let mut rest = packed.unwrap_or_default();
            let mut value = Some(value).filter(|_| packed.is_none());
            while value.is_some() || !rest.is_empty() {
                if !first {
                    self.out.push(b',');
                }
                first = false;
                let next = value.take().or_else(|| next_packed(&mut rest, field.kind.wire_type()));
                self.value(of, field.kind, next.ok_or_else(|| malformed(of))?)?;
            }
        }
        self.out.push(b']');
        Ok(())
    }

    /// Pairs in the order in which they are; of those with the same name the last one counts. Their number is limited
    /// wherever clients choose it.
    fn map(&mut self, of: &'static Type, field: &Field, found: &Found<'_>) -> Result<(), EncodeError> {
        let pairs: Option<SmallVec<[_; 8]>> = found.all(field).map(|value| pair(value.bytes()?)).collect();
        let pairs = pairs.ok_or_else(|| malformed(of))?;
        self.out.push(b'{');
        let mut first = true;
        for (at, (name, value)) in pairs.iter().enumerate() {
            if pairs[at + 1..].iter().any(|(later, _)| later == name) {
                continue;
            }
            if !first {
                self.out.push(b',');
            }
            first = false;
            put_text(std::str::from_utf8(name).map_err(|_| malformed(of))?, self.out);
            self.out.push(b':');
            self.value(of, field.kind, *value)?;
        }
        self.out.push(b'}');
        Ok(())
    }

    /// One value of a field of `of`. One that a pair does not have is the default.
    fn value(&mut self, of: &'static Type, kind: Kind, value: Value<'_>) -> Result<(), EncodeError> {
        let value = match (value, kind.wire_type()) {
            (Value::None, 0) => Value::Number(0),
            (Value::None, 1) => Value::Eight(0),
            (Value::None, 5) => Value::Four(0),
            (Value::None, _) => Value::Bytes(&[]),
            (value, _) => value,
        };
        match (kind, value) {
            (Kind::Text, Value::Bytes(text)) => {
                put_text(std::str::from_utf8(text).map_err(|_| malformed(of))?, self.out);
            }
            (Kind::Bytes, Value::Bytes(bytes)) => put_base64(bytes, self.out),
            (Kind::Message(at), Value::Bytes(bytes)) => self.message(schema().message(at), bytes)?,
            (Kind::Bool, Value::Number(number)) => {
                self.out.extend_from_slice(if number == 0 { b"false" } else { b"true" });
            }
            // As protobuf has it, what is too long for the field is cut off.
            (Kind::Int32, Value::Number(number)) => put_number(number as i32, self.out),
            (Kind::Uint32, Value::Number(number)) => put_number(number as u32, self.out),
            (Kind::Int64, Value::Number(number)) => put_long(number.cast_signed(), self.out),
            (Kind::Uint64, Value::Number(number)) => put_long(number, self.out),
            (Kind::Enum(at), Value::Number(number)) => match schema().choices(at).name_of(number as i32) {
                Some(name) => put_text(name, self.out),
                None => put_number(number as i32, self.out),
            },
            (Kind::Double, Value::Eight(bits)) => self.float(f64::from_bits(bits), None),
            (Kind::Float, Value::Four(bits)) => {
                let float = f32::from_bits(bits);
                self.float(float.into(), Some(float));
            }
            _ => return Err(malformed(of)),
        }
        Ok(())
    }

    /// A float; one of 32 bits has fewer digits.
    fn float(&mut self, double: f64, float: Option<f32>) {
        if double.is_finite() {
            // Numbers and vectors do not fail.
            let _ = match float {
                Some(float) => serde_json::to_writer(&mut *self.out, &float),
                None => serde_json::to_writer(&mut *self.out, &double),
            };
            return;
        }
        let special: &[u8] = match double {
            double if double.is_nan() => b"\"NaN\"",
            double if double > 0.0 => b"\"Infinity\"",
            _ => b"\"-Infinity\"",
        };
        self.out.extend_from_slice(special);
    }

    /// A message of any type, with that type.
    fn any(&mut self, places: &Places<'_>) -> Result<(), EncodeError> {
        let [url, value] = [0, 1].map(|at| places.get(at).and_then(|found| found.last.bytes()).unwrap_or_default());
        let url = std::str::from_utf8(url).map_err(|_| EncodeError::UnknownType)?;
        let of = url.rsplit('/').next().and_then(|name| schema().find(name)).ok_or(EncodeError::UnknownType)?;
        self.out.extend_from_slice(b"{\"@type\":");
        put_text(url, self.out);
        if of.shape == Shape::Object {
            let places = find(of, value).ok_or_else(|| malformed(of))?;
            self.members(of, &places, false)?;
        } else {
            self.out.extend_from_slice(b",\"value\":");
            self.message(of, value)?;
        }
        self.out.push(b'}');
        Ok(())
    }

    /// The paths of a field mask; false if one of them could not be read again.
    fn mask(&mut self, places: &Places<'_>) -> bool {
        self.out.push(b'"');
        let paths = places.first().zip(schema().find("google.protobuf.FieldMask").and_then(|mask| mask.fields.first()));
        let mut first = true;
        for path in paths.into_iter().flat_map(|(found, field)| found.all(field)) {
            if !first {
                self.out.push(b',');
            }
            first = false;
            if !path.bytes().is_some_and(|path| well_known::put_path(path, self.out)) {
                return false;
            }
        }
        self.out.push(b'"');
        true
    }
}

impl<'a> Found<'a> {
    /// All values of the field.
    fn all(&self, field: &Field) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let (mut rest, number) = (self.from, field.number);
        let mut left = self.times;
        std::iter::from_fn(move || {
            while left > 0 {
                let (of, value) = next(&mut rest)?;
                if of == number {
                    left -= 1;
                    return Some(value);
                }
            }
            None
        })
    }
}

/// Where the fields of a message are; `None` if it is none.
fn find<'a>(of: &Type, bytes: &'a [u8]) -> Option<Places<'a>> {
    let mut places: Places<'a> = smallvec![Found::default(); of.fields.len()];
    let mut rest = bytes;
    while !rest.is_empty() {
        let from = rest;
        let (number, value) = next(&mut rest)?;
        let Some(at) = of.field(number) else { continue };
        if let oneof @ Some(_) = of.fields[at].oneof {
            // Of a oneof the last one counts.
            for (other, found) in of.fields.iter().zip(&mut places).filter(|(other, _)| other.oneof == oneof) {
                if other.number != number {
                    found.times = 0;
                }
            }
        }
        let found = &mut places[at];
        if found.times == 0 {
            found.from = from;
        }
        found.times += 1;
        found.last = value;
    }
    Some(places)
}

/// The name and the value of a pair.
fn pair(mut rest: &[u8]) -> Option<(&[u8], Value<'_>)> {
    let (mut name, mut value) = (&[][..], Value::None);
    while !rest.is_empty() {
        match next(&mut rest)? {
            (1, found) => name = found.bytes()?,
            (2, found) => value = found,
            _ => {}
        }
    }
    Some((name, value))
}

/// Seconds and nanos, the first two fields of a time and of a duration.
fn seconds(places: &Places<'_>) -> Seconds {
    let number = |at: usize| match places.get(at).map(|found| found.last) {
        Some(Value::Number(number)) => number.cast_signed(),
        _ => 0,
    };
    Seconds { seconds: number(0), nanos: number(1) as i32 }
}

fn is_default(value: Value<'_>) -> bool {
    match value {
        Value::None => true,
        Value::Number(number) | Value::Eight(number) => number == 0,
        Value::Four(number) => number == 0,
        Value::Bytes(bytes) => bytes.is_empty(),
    }
}

/// Whether a packed list has no value.
fn is_empty(field: &Field, found: &Found<'_>) -> bool {
    field.kind.is_packed() && found.all(field).all(|value| value.bytes().is_some_and(<[u8]>::is_empty))
}

fn malformed(of: &'static Type) -> EncodeError {
    EncodeError::Malformed(of.name.as_str())
}
