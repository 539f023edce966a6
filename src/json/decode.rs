//! From JSON to protobuf: a machine that reads token after token and writes what each is on the wire. Pure.
//!
//! Nothing is built in between. What is kept is the protobuf that was written so far, which is no longer than the text (but for
//! [`MOST_LONGER`]), and a few levels, which are as deep as the contract. The machine stops after some steps, wherever it
//! is, so that others can work while a large message is read.

use smallvec::SmallVec;

use super::{
    error::{JsonError, shown},
    levels::{Inside, Level, Map, Object, Place, put_name},
    protobuf::{close, open, put_key, put_varint},
    scalars,
    scan::{MOST_NUMBER, Next, Problem, Scan},
    schema::{Form, Kind, Shape, Type, schema},
    well_known::{self, MOST_TEXT, Seconds},
};

/// How much is read together: some 50 µs.
pub(super) const TOGETHER: Together = Together { tokens: 1024, bytes: 32 * 1024 };
/// Tokens that are read in a step of `tasks::Turn`,
const TOKENS_A_STEP: usize = 4;
/// bytes that are read in one,
const BYTES_A_STEP: usize = 64;
/// and bytes that are moved while one is read.
const MOVED_A_BYTE: usize = 8;
/// Nearly all is shorter in protobuf. A negative number, which has ten bytes there, is not, and so there are not many of them.
const MOST_LONGER: usize = 64 * 1024;
/// No field and no value of an enum has a longer name.
const MOST_NAME: usize = 128;
/// The longest text of a field mask.
const MOST_MASK: usize = 4096;
/// No message of the contract is deeper.
const MOST_LEVELS: usize = 32;

/// How much is read before others can work.
#[derive(Debug, Clone, Copy)]
pub(super) struct Together {
    /// At most this many tokens,
    pub(super) tokens: usize,
    /// and about this many bytes, more than three; of a long text, too.
    pub(super) bytes: usize,
}

/// A message that is being read.
#[derive(Debug)]
pub(super) struct Machine {
    together: Together,
    /// How far the text was read.
    at: usize,
    out: Vec<u8>,
    /// The innermost level,
    top: Level,
    /// and those around it.
    around: SmallVec<[Level; 4]>,
    expect: Expect,
    /// A name or a text that had to be put together.
    scratch: Vec<u8>,
    /// A name that is no field.
    stray: Option<String>,
}

/// What must come next.
#[derive(Debug, Clone, Copy)]
enum Expect {
    /// The object that is the message.
    Message,
    /// A name, or the end of the object.
    FirstName,
    Name,
    Colon,
    Value,
    /// A value, or the end of the list.
    FirstElement,
    /// A comma, or the end of the level.
    Comma,
    /// More of a text.
    Text(Text),
    /// Nothing but white space.
    Nothing,
}

/// A text that is read in parts.
#[derive(Debug, Clone, Copy)]
struct Text {
    /// Where its field begins in what is written, and where its content does.
    start: usize,
    at: usize,
    bare: bool,
    /// What it is for.
    what: What,
}

#[derive(Debug, Clone, Copy)]
enum What {
    Text,
    /// Base64, of which the machine keeps what is not decoded yet.
    Bytes,
    /// The name of a pair.
    Name,
}

impl Machine {
    /// For a message of a text of this length.
    pub(super) fn new(of: &'static Type, text_len: usize, together: Together) -> Self {
        let top = Level { inside: Inside::Object(Object::new(of)), start: 0, at: 0 };
        let (out, around) = (Vec::with_capacity(text_len), SmallVec::new());
        Self { together, at: 0, out, top, around, expect: Expect::Message, scratch: Vec::new(), stray: None }
    }

    /// Whether all of the text was read.
    pub(super) fn is_whole(&self, text: &[u8]) -> bool {
        matches!(self.expect, Expect::Nothing) && self.at == text.len()
    }

    /// What was written so far, with the room for more, in bytes.
    pub(super) fn made_bytes(&self) -> usize {
        self.out.capacity()
    }

    /// The message.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.out
    }

    /// Reads some of the text, which is always the same one. Says how many steps that took.
    pub(super) fn some(&mut self, text: &[u8]) -> Result<usize, JsonError> {
        let mut scan = Scan::new(text, self.at);
        let (mut tokens, mut moved) = (0, 0);
        while tokens < self.together.tokens && scan.at - self.at + moved < self.together.bytes {
            tokens += 1;
            let next = if matches!(self.expect, Expect::Text(_)) { Next::Blanks } else { scan.next() };
            let done = match (self.expect, next) {
                (Expect::Text(text), _) => self.text_some(&mut scan, text),
                (_, Next::Blanks) => Ok(0),
                (Expect::Nothing, Next::End) => {
                    break;
                }
                (_, Next::End) => Err(scan.not_json(self.expect.name())),
                (_, Next::Byte(byte)) => self.token(&mut scan, byte),
            };
            match done {
                Ok(_) if self.out.len() > text.len() + MOST_LONGER => {
                    return Err(self.error("is one of too many negative numbers".into()));
                }
                Ok(bytes) => moved += bytes / MOVED_A_BYTE,
                Err(problem) => return Err(self.error(problem)),
            }
        }
        let bytes = scan.at - self.at + moved;
        self.at = scan.at;
        Ok(tokens / TOKENS_A_STEP + bytes / BYTES_A_STEP)
    }

    /// Takes the token that begins with a byte. Says how many bytes it moved.
    fn token(&mut self, scan: &mut Scan<'_>, byte: u8) -> Result<usize, Problem> {
        match (self.expect, byte) {
            (Expect::Message, b'{') => {
                scan.at += 1;
                self.expect = Expect::FirstName;
            }
            (Expect::Message, b'[' | b'"' | b'n' | b't' | b'f' | b'-' | b'0'..=b'9') => {
                return Err("must be an object".into());
            }
            (Expect::FirstName | Expect::Name, b'"') => {
                scan.at += 1;
                return self.name(scan);
            }
            (Expect::Colon, b':') => {
                scan.at += 1;
                self.expect = Expect::Value;
            }
            (Expect::Value | Expect::FirstElement, b'{' | b'[' | b'"' | b'n' | b't' | b'f' | b'-' | b'0'..=b'9') => {
                return self.value(scan, byte);
            }
            (Expect::Comma, b',') => {
                scan.at += 1;
                self.expect = Expect::Name;
                if let Inside::List { index, .. } = &mut self.top.inside {
                    *index += 1;
                    self.expect = Expect::Value;
                }
            }
            (Expect::FirstName, b'}') | (Expect::FirstElement, b']') => return self.end(scan),
            (Expect::Comma, b'}') if !matches!(self.top.inside, Inside::List { .. }) => return self.end(scan),
            (Expect::Comma, b']') if matches!(self.top.inside, Inside::List { .. }) => return self.end(scan),
            _ => return Err(scan.not_json(self.expect.name())),
        }
        Ok(0)
    }

    /// The name of a member, behind its quote.
    fn name(&mut self, scan: &mut Scan<'_>) -> Result<usize, Problem> {
        self.expect = Expect::Colon;
        let object = match &mut self.top.inside {
            Inside::Object(object) => object,
            Inside::Map(map) => {
                put_key(map.of.number, 2, &mut self.out);
                map.pair = open(&mut self.out);
                let name =
                    Place { number: 1, kind: Kind::Text, form: Form::One, bare: false, keyed: true, nullable: false };
                return self.begin_text(scan, name, What::Name);
            }
            Inside::List { .. } => return Err(scan.not_json("an element")),
        };
        let likely = object.field.take().map_or(0, |field| field + 1);
        let Some(name) = scan.short_text(&mut self.scratch, MOST_NAME)? else {
            return Err(format!("has a name that is not a field of {}", object.of.name).into());
        };
        object.field = object.of.member(name, likely);
        let Some(field) = object.field else {
            self.stray = Some(shown(name));
            return Err(format!("is not a field of {}", object.of.name).into());
        };
        if object.seen >> field & 1 == 1 {
            return Err("is there twice".into());
        }
        object.seen |= 1 << field;
        Ok(0)
    }

    fn value(&mut self, scan: &mut Scan<'_>, byte: u8) -> Result<usize, Problem> {
        let place = self.top.place().ok_or("has no name")?;
        if byte == b'n' {
            scan.word("null")?;
            self.expect = Expect::Comma;
            return if place.nullable { Ok(0) } else { Err("must not be null".into()) };
        }
        if let Inside::Object(object) = &mut self.top.inside
            && let Some(field) = object.field
        {
            if let Some(rival) = object.rival(field) {
                return Err(format!("cannot be set together with {}", rival.name).into());
            }
            object.set |= 1 << field;
        }
        match place.form {
            Form::List if byte == b'[' => return self.begin_list(scan, place),
            Form::Map if byte == b'{' => return self.begin_map(scan),
            Form::List => return Err("must be a list".into()),
            Form::Map => return Err("must be an object".into()),
            Form::One => {}
        }
        match place.kind {
            Kind::Text if byte == b'"' => {
                scan.at += 1;
                return self.begin_text(scan, place, What::Text);
            }
            Kind::Bytes if byte == b'"' => {
                scan.at += 1;
                self.scratch.clear();
                return self.begin_text(scan, place, What::Bytes);
            }
            Kind::Text => return Err("must be a string".into()),
            Kind::Bytes => return Err("must be a string in base64".into()),
            Kind::Message(at) => {
                let of = schema().message(at);
                match of.shape {
                    Shape::Object if byte == b'{' => return self.begin_message(scan, place, of),
                    Shape::Object => return Err("must be an object".into()),
                    Shape::Any => return Err("cannot be read from JSON".into()),
                    shape => self.well_known(scan, byte, place, shape)?,
                }
            }
            Kind::Float | Kind::Double => self.float(scan, byte, place)?,
            _ => self.varint(scan, byte, place)?,
        }
        self.done()
    }

    fn enter(&mut self, scan: &mut Scan<'_>, level: Level, expect: Expect) -> Result<usize, Problem> {
        if self.around.len() >= MOST_LEVELS {
            return Err("is nested too deeply".into());
        }
        scan.at += 1;
        self.around.push(std::mem::replace(&mut self.top, level));
        self.expect = expect;
        Ok(0)
    }

    fn begin_message(&mut self, scan: &mut Scan<'_>, place: Place, of: &'static Type) -> Result<usize, Problem> {
        let start = self.out.len();
        put_key(place.number, 2, &mut self.out);
        let at = open(&mut self.out);
        self.enter(scan, Level { inside: Inside::Object(Object::new(of)), start, at }, Expect::FirstName)
    }

    fn begin_list(&mut self, scan: &mut Scan<'_>, place: Place) -> Result<usize, Problem> {
        let Inside::Object(Object { of, field: Some(field), .. }) = self.top.inside else {
            return Err("is no list".into());
        };
        let start = self.out.len();
        let at = if place.kind.is_packed() {
            put_key(place.number, 2, &mut self.out);
            open(&mut self.out)
        } else {
            start
        };
        let inside = Inside::List { of: &of.fields[field], index: 0 };
        self.enter(scan, Level { inside, start, at }, Expect::FirstElement)
    }

    fn begin_map(&mut self, scan: &mut Scan<'_>) -> Result<usize, Problem> {
        let Inside::Object(Object { of, field: Some(field), .. }) = self.top.inside else {
            return Err("is no map".into());
        };
        let start = self.out.len();
        let inside = Inside::Map(Map::new(&of.fields[field]));
        self.enter(scan, Level { inside, start, at: start }, Expect::FirstName)
    }

    /// The innermost level has ended.
    fn end(&mut self, scan: &mut Scan<'_>) -> Result<usize, Problem> {
        scan.at += 1;
        let Some(around) = self.around.pop() else {
            self.expect = Expect::Nothing;
            return Ok(0);
        };
        let level = std::mem::replace(&mut self.top, around);
        let moved = match level.inside {
            Inside::List { of, .. } if !of.kind.is_packed() => 0,
            // A packed list that is empty is none.
            Inside::List { .. } if self.out.len() == level.at => {
                self.out.truncate(level.start);
                0
            }
            Inside::Object(_) | Inside::List { .. } => self.close(level.at),
            Inside::Map(_) => 0,
        };
        self.done().map(|more| moved + more)
    }

    /// A value has ended.
    fn done(&mut self) -> Result<usize, Problem> {
        self.expect = Expect::Comma;
        let Inside::Map(map) = &mut self.top.inside else { return Ok(0) };
        let len = self.out.len() - map.pair;
        close(map.pair, &mut self.out);
        // Its length may have moved it.
        map.pair = self.out.len() - len;
        if map.note(&self.out) { Ok(len) } else { Err("is there twice".into()) }
    }

    /// Closes what was opened. Says how many bytes that moved.
    fn close(&mut self, at: usize) -> usize {
        close(at, &mut self.out);
        self.out.len() - at
    }

    fn begin_text(&mut self, scan: &mut Scan<'_>, place: Place, what: What) -> Result<usize, Problem> {
        let start = self.out.len();
        if !matches!(what, What::Bytes)
            && let Some(text) = scan.whole_text(self.together.bytes)?
        {
            if !(place.bare && text.is_empty()) {
                put_key(place.number, 2, &mut self.out);
                put_varint(text.len() as u64, &mut self.out);
                self.out.extend_from_slice(text.as_bytes());
            }
            return if matches!(what, What::Name) { Ok(0) } else { self.done() };
        }
        put_key(place.number, 2, &mut self.out);
        let at = open(&mut self.out);
        let text = Text { start, at, bare: place.bare, what };
        self.expect = Expect::Text(text);
        self.text_some(scan, text)
    }

    /// Reads more of a text.
    fn text_some(&mut self, scan: &mut Scan<'_>, text: Text) -> Result<usize, Problem> {
        let whole = if matches!(text.what, What::Bytes) {
            let whole = scan.text_some(&mut self.scratch, self.together.bytes)?;
            scalars::put_decoded(&mut self.scratch, whole, &mut self.out).ok_or("must be a string in base64")?;
            whole
        } else {
            scan.text_some(&mut self.out, self.together.bytes)?
        };
        if !whole {
            return Ok(0);
        }
        let mut moved = 0;
        if text.bare && self.out.len() == text.at {
            self.out.truncate(text.start);
        } else {
            moved = self.close(text.at);
        }
        if matches!(text.what, What::Name) {
            self.expect = Expect::Colon;
            return Ok(moved);
        }
        self.done().map(|more| moved + more)
    }

    /// Puts a number, unless it is a default that is the same as none.
    fn put_varint(&mut self, place: Place, value: u64) {
        if !(place.bare && value == 0) {
            if place.keyed {
                put_key(place.number, 0, &mut self.out);
            }
            put_varint(value, &mut self.out);
        }
    }

    /// A value that is a varint on the wire.
    fn varint(&mut self, scan: &mut Scan<'_>, byte: u8, place: Place) -> Result<(), Problem> {
        if place.kind == Kind::Bool {
            let (word, value) = match byte {
                b't' => ("true", 1),
                b'f' => ("false", 0),
                _ => return Err("must be true or false".into()),
            };
            scan.word(word)?;
            self.put_varint(place, value);
            return Ok(());
        }
        let value = match (place.kind, byte) {
            (_, b'-' | b'0'..=b'9') => {
                scalars::whole(scan.number()?).and_then(|value| scalars::varint(place.kind, value))
            }
            (Kind::Enum(at), b'"') => {
                scan.at += 1;
                let name = scan.short_text(&mut self.scratch, MOST_NAME)?.unwrap_or_default();
                let known = schema().choices(at).number(name);
                Some(i64::from(known.ok_or_else(|| not_a_value(at))?).cast_unsigned())
            }
            (_, b'"') => {
                scan.at += 1;
                let text = scan.short_text(&mut self.scratch, MOST_NUMBER)?.unwrap_or_default();
                let value = if scalars::is_number(text) { scalars::whole(text) } else { None };
                value.and_then(|value| scalars::varint(place.kind, value))
            }
            _ => None,
        };
        let value = value.ok_or_else(|| match place.kind {
            Kind::Enum(at) => not_a_value(at),
            Kind::Int32 => "must be a whole number of 32 bits".into(),
            Kind::Uint32 => "must be a whole number of 32 bits that is not negative".into(),
            Kind::Uint64 => "must be a whole number of 64 bits that is not negative".into(),
            _ => "must be a whole number of 64 bits".into(),
        })?;
        self.put_varint(place, value);
        Ok(())
    }

    fn float(&mut self, scan: &mut Scan<'_>, byte: u8, place: Place) -> Result<(), Problem> {
        let text = match byte {
            b'-' | b'0'..=b'9' => scan.number()?,
            b'"' => {
                scan.at += 1;
                scan.short_text(&mut self.scratch, MOST_NUMBER)?.unwrap_or_default()
            }
            _ => return Err("must be a number".into()),
        };
        let special = scalars::special_float(text);
        let number = Some(text).filter(|text| special.is_some() || scalars::is_number(text));
        let number = number.ok_or("must be a number, NaN, Infinity or -Infinity")?;
        let bits = if place.kind == Kind::Double {
            special.or_else(|| scalars::double(number)).map(f64::to_bits)
        } else {
            special.map(|special| special as f32).or_else(|| scalars::float(number)).map(|float| float.to_bits().into())
        };
        let bits = bits.ok_or("is out of range")?;
        // Zero has no bits, and the zero that is negative is not the default.
        if place.bare && bits == 0 {
            return Ok(());
        }
        if place.keyed {
            put_key(place.number, place.kind.wire_type(), &mut self.out);
        }
        let len = if place.kind == Kind::Double { 8 } else { 4 };
        self.out.extend_from_slice(&bits.to_le_bytes()[..len]);
        Ok(())
    }

    /// A message that JSON has as a text.
    fn well_known(&mut self, scan: &mut Scan<'_>, byte: u8, place: Place, shape: Shape) -> Result<(), Problem> {
        let problem = match shape {
            Shape::Timestamp => "must be a time such as 2026-11-28T10:00:00.5Z",
            Shape::Duration => "must be a duration such as 1.5s",
            _ => "must be names of fields in camel case, with commas between them",
        };
        if byte != b'"' {
            return Err(problem.into());
        }
        scan.at += 1;
        let is_mask = shape == Shape::FieldMask;
        let most = if is_mask { MOST_MASK } else { MOST_TEXT };
        let text = scan.short_text(&mut self.scratch, most)?.ok_or(problem)?;
        put_key(place.number, 2, &mut self.out);
        let at = open(&mut self.out);
        if is_mask {
            for path in well_known::paths(text) {
                let path = path.ok_or(problem)?;
                put_key(1, 2, &mut self.out);
                put_varint(path.len() as u64, &mut self.out);
                self.out.extend_from_slice(&path);
            }
        } else {
            let read = if shape == Shape::Timestamp { well_known::time } else { well_known::duration };
            let Seconds { seconds, nanos } = read(text).ok_or(problem)?;
            for (number, value) in [(1, seconds), (2, nanos.into())].into_iter().filter(|(_, value)| *value != 0) {
                put_key(number, 0, &mut self.out);
                put_varint(value.cast_unsigned(), &mut self.out);
            }
        }
        close(at, &mut self.out);
        Ok(())
    }

    /// A problem with what the machine is at.
    fn error(&mut self, problem: Problem) -> JsonError {
        let mut path = String::new();
        self.around.iter().chain([&self.top]).for_each(|level| level.put_path(&self.out, &mut path));
        if let Some(stray) = self.stray.take() {
            put_name(&stray, &mut path);
        }
        JsonError { path, problem: problem.into() }
    }
}

fn not_a_value(at: usize) -> Problem {
    format!("is not a value of {}", schema().choices(at).name).into()
}

impl Expect {
    /// As it is named where it is missing.
    fn name(self) -> &'static str {
        match self {
            Self::Message => "an object",
            Self::FirstName => "a name or the end of the object",
            Self::Name => "a name",
            Self::Colon => "a colon",
            Self::Value => "a value",
            Self::FirstElement => "a value or the end of the list",
            Self::Comma => "a comma or the end",
            Self::Text(_) => "the end of a string",
            Self::Nothing => "nothing",
        }
    }
}
