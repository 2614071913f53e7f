//! Columns of a stream's own types, ready to be written value by value: [`Cells`]. Used by the binary formats.

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Decimal128Array, Float32Array, Float64Array, Int64Array, ListArray, StringArray,
};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Float32Type, Float64Type, Int64Type, TimeUnit};

/// One column.
pub(in crate::format) enum Cells {
    Boolean(BooleanArray),
    /// Whole numbers; dates as days; times of day as counts of the column's unit.
    Whole(Int64Array),
    Single(Float32Array),
    Double(Float64Array),
    Text(StringArray),
    Bytes(BinaryArray),
    Timestamp(Int64Array, TimeUnit),
    Decimal(Decimal128Array),
    Struct(Vec<(String, Self)>, Option<NullBuffer>),
    List(ListArray, Box<Self>),
}

impl Cells {
    pub(in crate::format) fn of(array: &ArrayRef) -> Self {
        match array.data_type() {
            DataType::Boolean => Self::Boolean(array.as_boolean().clone()),
            DataType::Float32 => Self::Single(array.as_primitive::<Float32Type>().clone()),
            DataType::Float64 => Self::Double(array.as_primitive::<Float64Type>().clone()),
            DataType::Utf8 => Self::Text(array.as_string::<i32>().clone()),
            DataType::Binary => Self::Bytes(array.as_binary::<i32>().clone()),
            DataType::Timestamp(unit, _) => Self::Timestamp(counts(array), *unit),
            DataType::Decimal128(..) => Self::Decimal(array.as_primitive::<Decimal128Type>().clone()),
            DataType::Struct(fields) => {
                let parts = array.as_struct();
                let columns = fields.iter().zip(parts.columns()).map(|(field, column)| (field.name().clone(), Self::of(column)));
                Self::Struct(columns.collect(), parts.nulls().cloned())
            }
            DataType::List(_) => {
                let lists = array.as_list::<i32>();
                Self::List(lists.clone(), Box::new(Self::of(lists.values())))
            }
            _ => Self::Whole(counts(array)),
        }
    }

    #[inline]
    pub(in crate::format) fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Boolean(v) => v.is_null(row),
            Self::Whole(v) | Self::Timestamp(v, _) => v.is_null(row),
            Self::Single(v) => v.is_null(row),
            Self::Double(v) => v.is_null(row),
            Self::Text(v) => v.is_null(row),
            Self::Bytes(v) => v.is_null(row),
            Self::Decimal(v) => v.is_null(row),
            Self::Struct(_, nulls) => nulls.as_ref().is_some_and(|n| n.is_null(row)),
            Self::List(lists, _) => lists.is_null(row),
        }
    }

    /// Where the items of a list's row lie among its items.
    pub(in crate::format) fn items(lists: &ListArray, row: usize) -> std::ops::Range<usize> {
        lists.value_offsets()[row] as usize..lists.value_offsets()[row + 1] as usize
    }
}

/// What a column of whole numbers or times counts.
fn counts(array: &ArrayRef) -> Int64Array {
    let step = match array.data_type() {
        // Arrow has no cast from these to 64 bits.
        DataType::Date32 | DataType::Time32(_) => cast(array, &DataType::Int32).expect("a date or time is a number of 32 bits"),
        _ => array.clone(),
    };
    let wide = cast(&step, &DataType::Int64).expect("whole numbers and times widen to 64 bits");
    wide.as_primitive::<Int64Type>().clone()
}
