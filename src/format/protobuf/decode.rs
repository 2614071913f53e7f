//! Messages of one schema into the columns of a stream: [`Plan`].
//!
//! A message is looked through once for the fields that columns want, and then each column takes its own: fields come in
//! any order, the last of a plain field and of a oneof counts, the parts of a message that comes several times are one.
//! Always: on a fault the columns may be uneven, and the caller cuts them back; nothing is allocated beyond what the bytes
//! hold. A field that is not there is its type's zero where the schema gives it no presence, else NULL. A number that its
//! field's type cannot hold, which Protobuf's own readers cut to fit, is a fault: no writer of that schema has written it.
//! Called by the decoder.

use protox::prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

use super::super::MAX_DEPTH;
use super::super::avro::{double, whole_number};
use super::super::column::{Column, Values};
use super::super::json::{Fault, Read};
use super::super::{temporal, text};
use super::schema::{Compiled, read_indexes};
use super::wire::{EIGHT, FOUR, LENGTH, VARINT, Wire};

const FULL: &str = "too much data in one batch";
const RANGE: &str = "number out of range";

/// How messages of one schema become rows.
#[derive(Debug)]
pub(in crate::format) struct Plan {
    root: Message,
    /// Where the wanted fields of the messages that are being read lie; empty between two values.
    found: Vec<Found>,
}

#[derive(Debug)]
struct Message {
    /// One a column, in their order; `None` where the schema does not have it.
    fields: Vec<Option<Field>>,
    /// The numbers of the fields and their columns, by number.
    numbers: Vec<(u32, usize)>,
    /// The numbers of a oneof's fields, by number, each with the columns of the others: what it takes the place of.
    rivals: Vec<(u32, Vec<usize>)>,
}

#[derive(Debug)]
struct Field {
    number: u32,
    way: Way,
    /// Whether it is NULL where it is not there.
    presence: bool,
}

#[derive(Debug)]
enum Way {
    Plain(Plain),
    Enum(Vec<(i32, String)>),
    Struct(Message),
    Timestamp,
    /// A message that is there to be absent, around the plain field 1.
    Wrapper(Box<Field>),
    List(Box<Way>),
}

/// How a plain value stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plain {
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Sint64,
    Boolean,
    Fixed32,
    Fixed32Signed,
    Fixed64,
    Fixed64Signed,
    Float,
    Double,
    Text,
    Bytes,
}

/// Where a wanted field lies.
#[derive(Clone, Copy, Debug, Default)]
struct Found {
    /// Its wire type and the place of its value: the last one's.
    last: Option<(u8, usize, usize)>,
    count: usize,
}

impl Plan {
    /// Finds the ways of a message's fields into columns, or says which column cannot hold its field.
    pub(in crate::format) fn new(schema: &Compiled, frame: &[u8], columns: &[Column]) -> Result<Self, String> {
        let indexes = read_indexes(frame, &mut 0).ok_or("the frame does not name a message")?;
        let root = plan(&schema.message(&indexes)?, columns, 0)?;
        Ok(Self { root, found: Vec::new() })
    }

    /// Reads one message as row `row`; `bytes` begin `skipped` bytes into the record's value.
    pub(in crate::format) fn read(&mut self, bytes: &[u8], skipped: usize, columns: &mut [Column], row: usize) -> Read<()> {
        self.found.clear();
        fields(&self.root, bytes, skipped, columns, row, &mut self.found, 0)
    }
}

/// Which column takes which field: by its name, by its JSON name, else by a name that differs in case alone.
fn plan(of: &MessageDescriptor, columns: &[Column], depth: u32) -> Result<Message, String> {
    if depth > MAX_DEPTH {
        return Err("its schema is nested too deep".to_owned());
    }
    let find = |name: &str| {
        of.get_field_by_name(name).or_else(|| of.get_field_by_json_name(name)).or_else(|| {
            let mut alike = of.fields().filter(|f| f.name().eq_ignore_ascii_case(name) || f.json_name().eq_ignore_ascii_case(name));
            alike.next().filter(|_| alike.next().is_none())
        })
    };
    let mut fields = Vec::with_capacity(columns.len());
    for column in columns {
        let field = find(&column.name).map(|found| field(&found, &column.values, depth + 1));
        fields.push(field.transpose().map_err(|why| format!("{}: {why}", column.name))?);
    }
    let mut numbers: Vec<(u32, usize)> = fields.iter().enumerate().filter_map(|(at, f)| Some((f.as_ref()?.number, at))).collect();
    numbers.sort_unstable();
    if let Some(pair) = numbers.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(format!("columns \"{}\" and \"{}\" read the same field", columns[pair[0].1].name, columns[pair[1].1].name));
    }
    let rivals = of.oneofs().flat_map(|one| {
        let wanted: Vec<(u32, usize)> = numbers.iter().copied().filter(|(number, _)| one.fields().any(|f| f.number() == *number)).collect();
        let others = |number: u32| wanted.iter().filter(|(other, _)| *other != number).map(|(_, column)| *column).collect::<Vec<_>>();
        let rivals: Vec<_> = one.fields().map(|f| (f.number(), others(f.number()))).filter(|(_, others)| !others.is_empty()).collect();
        rivals
    });
    let mut rivals: Vec<_> = rivals.collect();
    rivals.sort_unstable();
    Ok(Message { fields, numbers, rivals })
}

fn field(of: &FieldDescriptor, values: &Values, depth: u32) -> Result<Field, String> {
    let number = of.number();
    if of.is_map() {
        return Err("a map is not what a column holds".to_owned());
    }
    if of.is_list() {
        let Values::List(items) = values else { return Err("the writer's field is repeated, which the column is not".to_owned()) };
        return Ok(Field { number, way: Way::List(Box::new(way(&of.kind(), &items.item.values, depth)?)), presence: false });
    }
    Ok(Field { number, way: way(&of.kind(), values, depth)?, presence: of.supports_presence() })
}

fn way(kind: &Kind, values: &Values, depth: u32) -> Result<Way, String> {
    use Values as V;
    let number = matches!(values, V::Int8(_) | V::Int16(_) | V::Int32(_) | V::Int64(_) | V::Float32(_) | V::Float64(_) | V::Decimal128(..));
    let whole = number || matches!(values, V::Timestamp(..) | V::Date32(_) | V::Time32(..) | V::Time64(..));
    let float = matches!(values, V::Float32(_) | V::Float64(_));
    let texts = matches!(values, V::Utf8(_) | V::Timestamp(..) | V::Date32(_) | V::Time32(..) | V::Time64(..) | V::Decimal128(..));
    let (fits, plain) = match kind {
        Kind::Message(inner) => return message_way(inner, values, depth),
        Kind::Enum(names) => {
            return match values {
                V::Utf8(_) => Ok(Way::Enum(names.values().map(|v| (v.number(), v.name().to_owned())).collect())),
                V::Int32(_) | V::Int64(_) => Ok(Way::Plain(Plain::Int32)),
                _ => Err("the writer's enum is not what the column holds".to_owned()),
            };
        }
        Kind::Int32 => (whole, Plain::Int32),
        Kind::Int64 => (whole, Plain::Int64),
        Kind::Uint32 => (whole, Plain::Uint32),
        Kind::Uint64 => (whole, Plain::Uint64),
        Kind::Sint32 => (whole, Plain::Sint32),
        Kind::Sint64 => (whole, Plain::Sint64),
        Kind::Fixed32 => (whole, Plain::Fixed32),
        Kind::Sfixed32 => (whole, Plain::Fixed32Signed),
        Kind::Fixed64 => (whole, Plain::Fixed64),
        Kind::Sfixed64 => (whole, Plain::Fixed64Signed),
        Kind::Float => (float, Plain::Float),
        Kind::Double => (float, Plain::Double),
        Kind::Bool => (matches!(values, V::Boolean(_)), Plain::Boolean),
        Kind::String => (texts, Plain::Text),
        Kind::Bytes => (matches!(values, V::Binary(_)), Plain::Bytes),
    };
    if fits { Ok(Way::Plain(plain)) } else { Err(format!("the writer's {kind:?} is not what the column holds").to_lowercase()) }
}

fn message_way(of: &MessageDescriptor, values: &Values, depth: u32) -> Result<Way, String> {
    match (of.full_name(), values) {
        ("google.protobuf.Timestamp", Values::Timestamp(..)) => Ok(Way::Timestamp),
        (_, Values::Struct(parts)) => Ok(Way::Struct(plan(of, &parts.columns, depth)?)),
        (name, _) if name.starts_with("google.protobuf.") && name.ends_with("Value") => {
            let inner = of.get_field_by_name("value").filter(|f| !matches!(f.kind(), Kind::Message(_)) && !f.is_list());
            let inner = inner.ok_or("the writer's message is not what the column holds")?;
            Ok(Way::Wrapper(Box::new(field(&inner, values, depth)?)))
        }
        _ => Err("the writer's message is not what the column holds".to_owned()),
    }
}

/// Reads one message into columns.
fn fields(of: &Message, bytes: &[u8], skipped: usize, columns: &mut [Column], row: usize, found: &mut Vec<Found>, depth: u32) -> Read<()> {
    if depth > MAX_DEPTH {
        return Err(Fault::new(skipped, "nested too deep"));
    }
    let base = found.len();
    found.resize(base + of.fields.len(), Found::default());
    let mut wire = Wire { bytes, pos: 0, skipped };
    while wire.pos < bytes.len() {
        let (number, kind) = wire.tag()?;
        let value = wire.value(kind, number)?;
        if let Ok(at) = of.numbers.binary_search_by_key(&number, |(number, _)| *number) {
            let found = &mut found[base + of.numbers[at].1];
            found.last = Some((kind, value.0, value.1));
            found.count += 1;
        }
        if let Ok(at) = of.rivals.binary_search_by_key(&number, |(number, _)| *number) {
            of.rivals[at].1.iter().for_each(|column| found[base + column] = Found::default());
        }
    }
    for (at, (column, field)) in columns.iter_mut().zip(&of.fields).enumerate() {
        debug_assert_eq!(column.len(), row, "one value a row");
        let place = found[base + at];
        let read = match field {
            Some(field) => wanted(field, place, &wire, column, found, depth),
            None if column.nullable => {
                column.push_null();
                Ok(())
            }
            None => Err(Fault::new(skipped, "missing in the writer's schema, and the column is NOT NULL")),
        };
        read.map_err(|fault| fault.of(&column.name))?;
    }
    found.truncate(base);
    Ok(())
}

fn wanted(field: &Field, place: Found, wire: &Wire<'_>, column: &mut Column, found: &mut Vec<Found>, depth: u32) -> Read<()> {
    let Some((kind, start, end)) = place.last else {
        return absent(field, wire, column);
    };
    let part = |start: usize, end: usize| Wire { bytes: &wire.bytes[start..end], pos: 0, skipped: wire.skipped + start };
    match &field.way {
        Way::List(way) => {
            each(way, field.number, wire, column, found, depth)?;
            column.valid();
            Ok(())
        }
        Way::Plain(_) | Way::Enum(_) => one(&field.way, kind, part(start, end), column, found, depth),
        _ if place.count == 1 => one(&field.way, kind, part(start, end), column, found, depth),
        // Parts of one message behind one another are that message.
        _ => {
            let mut whole = Vec::new();
            occurrences(wire, field.number, |kind, part| {
                if kind != LENGTH {
                    return part.fault("another wire type than the schema's");
                }
                whole.extend_from_slice(part.bytes);
                Ok(())
            })?;
            one(&field.way, LENGTH, Wire { bytes: &whole, pos: 0, skipped: wire.skipped + start }, column, found, depth)
        }
    }
}

/// A field that is not there.
fn absent(field: &Field, wire: &Wire<'_>, column: &mut Column) -> Read<()> {
    match &field.way {
        Way::List(_) => {
            if let Values::List(items) = &mut column.values
                && !items.close()
            {
                return wire.fault(FULL);
            }
            column.valid();
            Ok(())
        }
        Way::Plain(plain) if !field.presence => zero(*plain, column).map_err(|why| Fault::new(wire.skipped, why)),
        Way::Enum(names) if !field.presence => enum_name(0, names, wire, column),
        _ if column.nullable => {
            column.push_null();
            Ok(())
        }
        _ => wire.fault("missing, and the column is NOT NULL"),
    }
}

fn zero(plain: Plain, column: &mut Column) -> Result<(), &'static str> {
    match (plain, &mut column.values) {
        (Plain::Boolean, Values::Boolean(v)) => v.push(false),
        (Plain::Float | Plain::Double, values) => double(0.0, values)?,
        // An empty text is no time, date or decimal.
        (Plain::Text, Values::Utf8(run)) | (Plain::Bytes, Values::Binary(run)) => {
            if !run.push(b"") {
                return Err(FULL);
            }
        }
        (Plain::Text, _) if column.nullable => {
            column.push_null();
            return Ok(());
        }
        (Plain::Text | Plain::Bytes, _) => return Err("missing, and the column is NOT NULL"),
        (_, values) => whole_number(0, values)?,
    }
    column.valid();
    Ok(())
}

/// Every value of a repeated field, packed or not, as an item of the column's list.
fn each(way: &Way, number: u32, wire: &Wire<'_>, column: &mut Column, found: &mut Vec<Found>, depth: u32) -> Read<()> {
    let Values::List(items) = &mut column.values else { unreachable!("the plan was made for this column") };
    let packed = match way {
        Way::Plain(plain) => plain.wire(),
        Way::Enum(_) => VARINT,
        _ => LENGTH,
    };
    occurrences(wire, number, |kind, mut part| {
        if kind != LENGTH || packed == LENGTH {
            return one(way, kind, part, &mut items.item, found, depth).map_err(|fault| fault.of("item"));
        }
        while part.pos < part.bytes.len() {
            let (start, end) = part.value(packed, number)?;
            let item = Wire { bytes: &part.bytes[start..end], pos: 0, skipped: part.skipped + start };
            one(way, packed, item, &mut items.item, found, depth).map_err(|fault| fault.of("item"))?;
        }
        Ok(())
    })?;
    if items.close() { Ok(()) } else { wire.fault(FULL) }
}

/// Shows every value of a field.
fn occurrences(of: &Wire<'_>, wanted: u32, mut each: impl FnMut(u8, Wire<'_>) -> Read<()>) -> Read<()> {
    let mut wire = Wire { pos: 0, ..*of };
    while wire.pos < wire.bytes.len() {
        let (number, kind) = wire.tag()?;
        let (start, end) = wire.value(kind, number)?;
        if number == wanted {
            each(kind, Wire { bytes: &wire.bytes[start..end], pos: 0, skipped: wire.skipped + start })?;
        }
    }
    Ok(())
}

/// One value into a column; `wire` is that value alone.
fn one(way: &Way, kind: u8, mut wire: Wire<'_>, column: &mut Column, found: &mut Vec<Found>, depth: u32) -> Read<()> {
    let expected = match way {
        Way::Plain(plain) => plain.wire(),
        Way::Enum(_) => VARINT,
        _ => LENGTH,
    };
    if kind != expected {
        return wire.fault("another wire type than the schema's");
    }
    match way {
        Way::Plain(plain) => return plain_value(*plain, &mut wire, column),
        Way::Enum(names) => {
            let number = wire.varint()? as i32;
            return enum_name(number, names, &wire, column);
        }
        Way::Struct(inner) => {
            let row = column.len();
            let Values::Struct(parts) = &mut column.values else { unreachable!("the plan was made for this column") };
            fields(inner, wire.bytes, wire.skipped, &mut parts.columns, row, found, depth + 1)?;
        }
        Way::Timestamp => timestamp(&wire, column)?,
        Way::Wrapper(inner) => {
            let mut last = Found::default();
            while wire.pos < wire.bytes.len() {
                let (number, kind) = wire.tag()?;
                let (start, end) = wire.value(kind, number)?;
                if number == inner.number {
                    last = Found { last: Some((kind, start, end)), count: 1 };
                }
            }
            return wanted(inner, last, &wire, column, found, depth + 1);
        }
        Way::List(_) => unreachable!("a repeated field holds no lists"),
    }
    column.valid();
    Ok(())
}

fn enum_name(number: i32, names: &[(i32, String)], wire: &Wire<'_>, column: &mut Column) -> Read<()> {
    let name = names.iter().find(|(known, _)| *known == number);
    let Some((_, name)) = name else { return wire.fault("no such name of the enum") };
    if let Values::Utf8(run) = &mut column.values
        && !run.push(name.as_bytes())
    {
        return wire.fault(FULL);
    }
    column.valid();
    Ok(())
}

/// Seconds and nanoseconds since 1970, as the column counts.
fn timestamp(wire: &Wire<'_>, column: &mut Column) -> Read<()> {
    let (mut seconds, mut nanos) = (0_i64, 0_i64);
    let mut inside = Wire { pos: 0, ..*wire };
    while inside.pos < inside.bytes.len() {
        let (number, kind) = inside.tag()?;
        let (start, end) = inside.value(kind, number)?;
        if kind == VARINT && number <= 2 {
            let value = Wire { bytes: &inside.bytes[start..end], pos: 0, skipped: 0 }.varint()? as i64;
            *(if number == 1 { &mut seconds } else { &mut nanos }) = value;
        }
    }
    let Values::Timestamp(v, unit, _) = &mut column.values else { unreachable!("the plan was made for this column") };
    let per_second = temporal::per_second(*unit);
    let time =
        (0..1_000_000_000).contains(&nanos).then(|| seconds.checked_mul(per_second)?.checked_add(nanos / (1_000_000_000 / per_second)));
    match time.flatten().filter(|time| temporal::has_four_digit_year(*time, *unit)) {
        Some(time) => v.push(time),
        None => return wire.fault("time out of range"),
    }
    Ok(())
}

fn plain_value(plain: Plain, wire: &mut Wire<'_>, column: &mut Column) -> Read<()> {
    let skipped = wire.skipped;
    let wrong = |why| Fault::new(skipped, why);
    let four = |bytes: &[u8]| u32::from_le_bytes(*bytes.first_chunk().expect("a value of four bytes"));
    let eight = |bytes: &[u8]| u64::from_le_bytes(*bytes.first_chunk().expect("a value of eight bytes"));
    let narrow = |value: i64| i32::try_from(value).map(i64::from).map_err(|_| wrong(RANGE));
    let zigzag = |value: u64| (value >> 1) as i64 ^ -((value & 1) as i64);
    let whole = match plain {
        Plain::Int32 => narrow(wire.varint()? as i64)?,
        Plain::Int64 => wire.varint()? as i64,
        Plain::Sint32 => narrow(zigzag(wire.varint()?))?,
        Plain::Sint64 => zigzag(wire.varint()?),
        Plain::Uint32 => u32::try_from(wire.varint()?).map(i64::from).map_err(|_| wrong(RANGE))?,
        Plain::Uint64 => i64::try_from(wire.varint()?).map_err(|_| wrong(RANGE))?,
        Plain::Fixed32 => i64::from(four(wire.bytes)),
        Plain::Fixed32Signed => i64::from(four(wire.bytes) as i32),
        Plain::Fixed64 => i64::try_from(eight(wire.bytes)).map_err(|_| wrong(RANGE))?,
        Plain::Fixed64Signed => eight(wire.bytes) as i64,
        Plain::Boolean => {
            let value = wire.varint()? != 0;
            if let Values::Boolean(v) = &mut column.values {
                v.push(value);
            }
            column.valid();
            return Ok(());
        }
        Plain::Float | Plain::Double => {
            let value = if plain == Plain::Float { f64::from(f32::from_bits(four(wire.bytes))) } else { f64::from_bits(eight(wire.bytes)) };
            double(value, &mut column.values).map_err(wrong)?;
            column.valid();
            return Ok(());
        }
        Plain::Text => {
            if simdutf8::basic::from_utf8(wire.bytes).is_err() {
                return Err(wrong("expected UTF-8"));
            }
            return text::push(column, wire.bytes).map_err(wrong);
        }
        Plain::Bytes => {
            if let Values::Binary(run) = &mut column.values
                && !run.push(wire.bytes)
            {
                return Err(wrong(FULL));
            }
            column.valid();
            return Ok(());
        }
    };
    whole_number(whole, &mut column.values).map_err(wrong)?;
    column.valid();
    Ok(())
}

impl Plain {
    const fn wire(self) -> u8 {
        match self {
            Self::Int32 | Self::Int64 | Self::Uint32 | Self::Uint64 | Self::Sint32 | Self::Sint64 | Self::Boolean => VARINT,
            Self::Fixed32 | Self::Fixed32Signed | Self::Float => FOUR,
            Self::Fixed64 | Self::Fixed64Signed | Self::Double => EIGHT,
            Self::Text | Self::Bytes => LENGTH,
        }
    }
}
