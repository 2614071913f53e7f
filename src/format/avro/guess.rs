//! An Avro record's fields as columns.

use arrow::datatypes::{DataType, Field, TimeUnit};

use super::super::guess::{FieldGuess, MAX_FIELDS, MAX_RECORDS, TOO_DEEP};
use super::schema::{Logical, Schema, Type, TypeId};

/// The columns of a writer's schema.
pub(in crate::format) fn columns(text: &str, before: &[(String, String)]) -> Result<Vec<FieldGuess>, String> {
    let schema = Schema::read(text, before)?;
    let Type::Record(fields) = schema.of(schema.root) else { return Err("it is not a record".to_owned()) };
    let mut guesser = Guesser { schema: &schema, open: vec![schema.root], left: MAX_FIELDS };
    let guess = |(name, of): &(String, TypeId)| match guesser.column(*of) {
        Ok((data_type, nullable)) => FieldGuess { name: name.clone(), data_type: Ok(data_type), nullable },
        Err(why) => FieldGuess { name: name.clone(), data_type: Err(why.to_owned()), nullable: true },
    };
    Ok(fields.iter().map(guess).collect())
}

struct Guesser<'a> {
    schema: &'a Schema,
    /// The records that lead here.
    open: Vec<TypeId>,
    /// How many fields may still be looked at.
    left: usize,
}

impl Guesser<'_> {
    /// The type that holds a field's values, and whether one may be NULL.
    fn column(&mut self, of: TypeId) -> Result<(DataType, bool), &'static str> {
        self.left = self.left.checked_sub(1).ok_or(TOO_DEEP)?;
        let schema = self.schema;
        let plain = match schema.of(of) {
            Type::Null | Type::Unknown => return Err("null alone"),
            Type::Map(_) => return Err("a map"),
            Type::Union(branches) => {
                let mut others = branches.iter().filter(|branch| *schema.of(**branch) != Type::Null);
                return match (others.next(), others.next()) {
                    (Some(only), None) => self.column(*only).map(|(data_type, _)| (data_type, true)),
                    _ => Err("a union of several types"),
                };
            }
            Type::Record(fields) => {
                if self.open.contains(&of) {
                    return Err("a record within itself");
                }
                if self.open.len() > MAX_RECORDS {
                    return Err(TOO_DEEP);
                }
                self.open.push(of);
                let fields = fields.iter().filter_map(|(name, of)| Some(Field::new(name, self.column(*of).ok()?.0, true)));
                let fields: Vec<Field> = fields.collect();
                self.open.pop();
                if fields.is_empty() {
                    return Err("a record without fields that a column could hold");
                }
                DataType::Struct(fields.into())
            }
            Type::Array(item) => DataType::List(Field::new_list_field(self.column(*item)?.0, true).into()),
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
}
