//! The columns that a registry's schema suggests, for a stream that is made like a topic's records.

use arrow::datatypes::DataType;

use super::{avro, protobuf};

/// Records within records are columns down to here.
pub(super) const MAX_RECORDS: usize = 16;
/// So many fields of a schema are looked at: records that name one another multiply.
pub(super) const MAX_FIELDS: usize = 10_000;
/// What is said of fields behind these.
pub(super) const TOO_DEEP: &str = "records within records without end";
use crate::registry::{Schema, SchemaKind};

/// A field of a schema as a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldGuess {
    /// The field's name.
    pub name: String,
    /// The column's type, or why there is none.
    pub data_type: Result<DataType, String>,
    /// Whether it may be NULL.
    pub nullable: bool,
}

/// The columns of a schema; `frame` is what stands behind the schema's id in a record.
pub fn columns_of_schema(schema: &Schema, frame: &[u8]) -> Result<Vec<FieldGuess>, String> {
    match schema.kind {
        SchemaKind::Avro => avro::columns(&schema.text, &schema.references),
        SchemaKind::Protobuf => protobuf::columns(&schema.text, &schema.references, frame),
        SchemaKind::Json => Err("a JSON schema's records are read with 'format' = 'json' where they have no frame".to_owned()),
    }
}
