//! A Protobuf message's fields as columns.

use arrow::datatypes::{DataType, Field, TimeUnit};
use protox::prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

use super::super::guess::{FieldGuess, MAX_FIELDS, MAX_RECORDS, TOO_DEEP};
use super::schema::{Compiled, read_indexes};

/// The columns of the message that a frame names.
pub(in crate::format) fn columns(text: &str, imports: &[(String, String)], frame: &[u8]) -> Result<Vec<FieldGuess>, String> {
    let indexes = read_indexes(frame, &mut 0).ok_or("the frame does not name a message")?;
    let message = Compiled::new(text, imports)?.message(&indexes)?;
    let mut guesser = Guesser { open: vec![message.full_name().to_owned()], left: MAX_FIELDS };
    let guess = |field: FieldDescriptor| FieldGuess {
        name: field.name().to_owned(),
        data_type: guesser.column(&field).map_err(str::to_owned),
        nullable: field.supports_presence(),
    };
    Ok(message.fields().map(guess).collect())
}

struct Guesser {
    /// The messages that lead here.
    open: Vec<String>,
    /// How many fields may still be looked at.
    left: usize,
}

impl Guesser {
    /// The type that holds a field's values.
    fn column(&mut self, field: &FieldDescriptor) -> Result<DataType, &'static str> {
        self.left = self.left.checked_sub(1).ok_or(TOO_DEEP)?;
        if field.is_map() {
            return Err("a map");
        }
        let of = match field.kind() {
            Kind::Message(inner) => self.message(&inner)?,
            Kind::Double => DataType::Float64,
            Kind::Float => DataType::Float32,
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => DataType::Int32,
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 | Kind::Uint32 | Kind::Uint64 | Kind::Fixed32 | Kind::Fixed64 => DataType::Int64,
            Kind::Bool => DataType::Boolean,
            Kind::String | Kind::Enum(_) => DataType::Utf8,
            Kind::Bytes => DataType::Binary,
        };
        Ok(if field.is_list() { DataType::List(Field::new_list_field(of, true).into()) } else { of })
    }

    fn message(&mut self, of: &MessageDescriptor) -> Result<DataType, &'static str> {
        let name = of.full_name();
        if name == "google.protobuf.Timestamp" {
            return Ok(DataType::Timestamp(TimeUnit::Millisecond, None));
        }
        if let Some(value) = of.get_field_by_name("value").filter(|_| name.starts_with("google.protobuf.") && name.ends_with("Value")) {
            return match value.kind() {
                Kind::Message(_) => Err("a value of any type"),
                _ => self.column(&value),
            };
        }
        if self.open.iter().any(|known| known == name) {
            return Err("a message within itself");
        }
        if self.open.len() > MAX_RECORDS {
            return Err(TOO_DEEP);
        }
        self.open.push(name.to_owned());
        let fields = of.fields().filter_map(|field| Some(Field::new(field.name(), self.column(&field).ok()?, true)));
        let fields: Vec<Field> = fields.collect();
        self.open.pop();
        if fields.is_empty() { Err("a message without fields that a column could hold") } else { Ok(DataType::Struct(fields.into())) }
    }
}
