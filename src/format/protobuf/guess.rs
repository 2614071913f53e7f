//! A Protobuf message's fields as columns.

use arrow::datatypes::{DataType, Field, TimeUnit};
use protox::prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

use super::super::guess::FieldGuess;
use super::schema::{message, read_indexes};

/// The columns of the message that a frame names.
pub(in crate::format) fn columns(text: &str, imports: &[(String, String)], frame: &[u8]) -> Result<Vec<FieldGuess>, String> {
    let indexes = read_indexes(frame, &mut 0).ok_or("the frame does not name a message")?;
    let message = message(text, imports, &indexes)?;
    let mut open = vec![message.full_name().to_owned()];
    let guess = |field: FieldDescriptor, open: &mut Vec<String>| FieldGuess {
        name: field.name().to_owned(),
        data_type: column(&field, open).map_err(str::to_owned),
        nullable: field.supports_presence(),
    };
    Ok(message.fields().map(|field| guess(field, &mut open)).collect())
}

/// The type that holds a field's values. `open` are the messages that lead here.
fn column(field: &FieldDescriptor, open: &mut Vec<String>) -> Result<DataType, &'static str> {
    if field.is_map() {
        return Err("a map");
    }
    let of = match field.kind() {
        Kind::Message(inner) => of_message(&inner, open)?,
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

fn of_message(of: &MessageDescriptor, open: &mut Vec<String>) -> Result<DataType, &'static str> {
    let name = of.full_name();
    if name == "google.protobuf.Timestamp" {
        return Ok(DataType::Timestamp(TimeUnit::Millisecond, None));
    }
    if let Some(value) = of.get_field_by_name("value").filter(|_| name.starts_with("google.protobuf.") && name.ends_with("Value")) {
        return match value.kind() {
            Kind::Message(_) => Err("a value of any type"),
            _ => column(&value, open),
        };
    }
    if open.iter().any(|known| known == name) {
        return Err("a message within itself");
    }
    open.push(name.to_owned());
    let fields = of.fields().filter_map(|field| Some(Field::new(field.name(), column(&field, open).ok()?, true)));
    let fields: Vec<Field> = fields.collect();
    open.pop();
    if fields.is_empty() { Err("a message without fields that a column could hold") } else { Ok(DataType::Struct(fields.into())) }
}
