//! An Avro record's fields as columns.

use arrow::datatypes::{DataType, Field, TimeUnit};

use super::super::guess::FieldGuess;
use super::schema::{Logical, Schema, Type, TypeId};

/// The columns of a writer's schema.
pub(in crate::format) fn columns(text: &str, before: &[(String, String)]) -> Result<Vec<FieldGuess>, String> {
    let schema = Schema::read(text, before)?;
    let Type::Record(fields) = schema.of(schema.root) else { return Err("it is not a record".to_owned()) };
    let guess = |(name, of): &(String, TypeId)| match column(&schema, *of, &mut vec![schema.root]) {
        Ok((data_type, nullable)) => FieldGuess { name: name.clone(), data_type: Ok(data_type), nullable },
        Err(why) => FieldGuess { name: name.clone(), data_type: Err(why.to_owned()), nullable: true },
    };
    Ok(fields.iter().map(guess).collect())
}

/// The type that holds a field's values, and whether one may be NULL. `open` are the records that lead here.
fn column(schema: &Schema, of: TypeId, open: &mut Vec<TypeId>) -> Result<(DataType, bool), &'static str> {
    let plain = match schema.of(of) {
        Type::Null | Type::Unknown => return Err("null alone"),
        Type::Map(_) => return Err("a map"),
        Type::Union(branches) => {
            let mut others = branches.iter().filter(|branch| *schema.of(**branch) != Type::Null);
            return match (others.next(), others.next()) {
                (Some(only), None) => column(schema, *only, open).map(|(data_type, _)| (data_type, true)),
                _ => Err("a union of several types"),
            };
        }
        Type::Record(fields) => {
            if open.contains(&of) {
                return Err("a record within itself");
            }
            open.push(of);
            let fields = fields.iter().filter_map(|(name, of)| Some(Field::new(name, column(schema, *of, open).ok()?.0, true)));
            let fields: Vec<Field> = fields.collect();
            open.pop();
            if fields.is_empty() {
                return Err("a record without fields that a column could hold");
            }
            DataType::Struct(fields.into())
        }
        Type::Array(item) => DataType::List(Field::new_list_field(column(schema, *item, open)?.0, true).into()),
        Type::Boolean => DataType::Boolean,
        Type::Int(Logical::Date) => DataType::Date32,
        Type::Int(Logical::Time(_)) => DataType::Time32(TimeUnit::Millisecond),
        Type::Int(_) => DataType::Int32,
        Type::Long(Logical::Timestamp(unit)) => DataType::Timestamp(*unit, None),
        Type::Long(Logical::Time(_)) => DataType::Time64(TimeUnit::Microsecond),
        Type::Long(_) => DataType::Int64,
        Type::Float => DataType::Float32,
        Type::Double => DataType::Float64,
        Type::Bytes(Logical::Decimal(scale)) | Type::Fixed(_, Logical::Decimal(scale)) => match i8::try_from(*scale) {
            Ok(scale @ 0..=38) => DataType::Decimal128(38, scale),
            _ => return Err("a decimal of a scale that SQL does not have"),
        },
        Type::Bytes(_) | Type::Fixed(..) => DataType::Binary,
        Type::String | Type::Enum(_) => DataType::Utf8,
    };
    Ok((plain, false))
}
