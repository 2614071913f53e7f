//! Functions that look at one row's values at a time and answer one value or a struct of several.
//!
//! Owns [`RowFunction`], the bridge from Arrow columns to plain values and back, for functions of room `clinical`
//! that are clearer a row at a time. Always: each argument arrives as its declared kind or as [`Cell::Null`], never as a
//! default; the answer has one cell a field.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, BooleanBuilder, Float64Builder, Int32Builder, ListBuilder, StringArray, StringBuilder,
    StructArray,
};
use arrow::datatypes::{DataType, Field, Fields, Float64Type};
use datafusion::common::{Result as DfResult, exec_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility};

/// A value on its way in or out.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    /// None.
    Null,
    /// A measured number.
    Number(f64),
    /// A count of points.
    Points(i32),
    /// Yes or no.
    Flag(bool),
    /// A word.
    Text(String),
    /// Words.
    Texts(Vec<String>),
}

impl Cell {
    /// The number, where it is one.
    pub(super) const fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// The flag, where it is one.
    pub(super) const fn flag(&self) -> Option<bool> {
        match self {
            Self::Flag(flag) => Some(*flag),
            _ => None,
        }
    }

    /// The text, where it is one.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Points, or none.
    pub(super) fn points(points: Option<impl Into<i32>>) -> Self {
        points.map_or(Self::Null, |points| Self::Points(points.into()))
    }

    /// A flag, or none.
    pub(super) fn maybe(flag: Option<bool>) -> Self {
        flag.map_or(Self::Null, Self::Flag)
    }
}

/// What the function answers.
#[derive(Clone, Copy, Debug)]
pub(super) enum Answer {
    /// One value.
    One(Kind),
    /// A struct of these.
    Struct(&'static [(&'static str, Kind)]),
}

/// The kinds of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// DOUBLE.
    Number,
    /// INT.
    Points,
    /// BOOLEAN.
    Flag,
    /// VARCHAR.
    Text,
    /// ARRAY of VARCHAR.
    Texts,
}

impl Kind {
    fn data_type(self) -> DataType {
        match self {
            Self::Number => DataType::Float64,
            Self::Points => DataType::Int32,
            Self::Flag => DataType::Boolean,
            Self::Text => DataType::Utf8,
            Self::Texts => DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true))),
        }
    }
}

/// A function over the values of one row. Its name tells it from others.
#[derive(Debug)]
pub(super) struct RowFunction {
    name: &'static str,
    signature: Signature,
    arguments: &'static [Kind],
    answer: Answer,
    of: Of,
}

/// What computes it: one cell an argument in, one a field out, or why it takes none of this.
pub(super) type Of = fn(&[Cell]) -> Result<Vec<Cell>, &'static str>;

impl RowFunction {
    /// The function for DataFusion's registry. Arguments from `required` on may be left out.
    pub(super) fn udf(name: &'static str, arguments: &'static [Kind], required: usize, answer: Answer, of: Of) -> Arc<ScalarUDF> {
        let types: Vec<DataType> = arguments.iter().map(|kind| kind.data_type()).collect();
        let forms = (required..=types.len()).map(|n| TypeSignature::Exact(types[..n].to_vec()));
        let signature = Signature::one_of(forms.collect(), Volatility::Immutable);
        Arc::new(ScalarUDF::new_from_impl(Self { name, signature, arguments, answer, of }))
    }

    fn fields(&self) -> Option<Fields> {
        match self.answer {
            Answer::One(_) => None,
            Answer::Struct(fields) => Some(fields.iter().map(|(name, kind)| Field::new(*name, kind.data_type(), true)).collect()),
        }
    }
}

impl PartialEq for RowFunction {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for RowFunction {}

impl Hash for RowFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for RowFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> DfResult<DataType> {
        Ok(match self.answer {
            Answer::One(kind) => kind.data_type(),
            Answer::Struct(_) => DataType::Struct(self.fields().unwrap_or_default()),
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let rows = args.number_rows;
        let arrays = args.args.iter().map(|arg| arg.to_array(rows)).collect::<DfResult<Vec<_>>>()?;
        let columns = arrays.iter().zip(self.arguments).map(|(array, kind)| Input::of(array, *kind)).collect::<Option<Vec<_>>>();
        let Some(columns) = columns else { return exec_err!("{} was given another type", self.name) };
        let kinds: Vec<Kind> = match self.answer {
            Answer::One(kind) => vec![kind],
            Answer::Struct(fields) => fields.iter().map(|(_, kind)| *kind).collect(),
        };
        let mut outputs: Vec<Output> = kinds.into_iter().map(Output::new).collect();
        let mut cells = Vec::with_capacity(columns.len());
        for row in 0..rows {
            cells.clear();
            cells.extend(columns.iter().map(|column| column.cell(row)));
            let mut answers = match (self.of)(&cells) {
                Ok(answers) => answers.into_iter(),
                Err(why) => return exec_err!("{why}"),
            };
            for output in &mut outputs {
                output.push(answers.next().unwrap_or(Cell::Null));
            }
        }
        let mut arrays: Vec<ArrayRef> = outputs.into_iter().map(Output::finish).collect();
        Ok(ColumnarValue::Array(match self.fields() {
            None => arrays.swap_remove(0),
            Some(fields) => Arc::new(StructArray::try_new(fields, arrays, None)?),
        }))
    }
}

/// A column of arguments.
enum Input<'a> {
    Numbers(&'a arrow::array::Float64Array),
    Flags(&'a BooleanArray),
    Texts(&'a StringArray),
}

impl<'a> Input<'a> {
    fn of(array: &'a ArrayRef, kind: Kind) -> Option<Self> {
        match kind {
            Kind::Number => array.as_primitive_opt::<Float64Type>().map(Self::Numbers),
            Kind::Flag => array.as_boolean_opt().map(Self::Flags),
            Kind::Text => array.as_string_opt().map(Self::Texts),
            Kind::Points | Kind::Texts => None,
        }
    }

    fn cell(&self, row: usize) -> Cell {
        match self {
            // A device's "not a number" is no number.
            Self::Numbers(column) if column.is_valid(row) && !column.value(row).is_nan() => Cell::Number(column.value(row)),
            Self::Flags(column) if column.is_valid(row) => Cell::Flag(column.value(row)),
            Self::Texts(column) if column.is_valid(row) => Cell::Text(column.value(row).to_owned()),
            _ => Cell::Null,
        }
    }
}

/// A column of answers.
enum Output {
    Numbers(Float64Builder),
    Points(Int32Builder),
    Flags(BooleanBuilder),
    Texts(StringBuilder),
    Lists(ListBuilder<StringBuilder>),
}

impl Output {
    fn new(kind: Kind) -> Self {
        match kind {
            Kind::Number => Self::Numbers(Float64Builder::new()),
            Kind::Points => Self::Points(Int32Builder::new()),
            Kind::Flag => Self::Flags(BooleanBuilder::new()),
            Kind::Text => Self::Texts(StringBuilder::new()),
            Kind::Texts => Self::Lists(ListBuilder::new(StringBuilder::new())),
        }
    }

    fn push(&mut self, cell: Cell) {
        match (self, cell) {
            (Self::Numbers(column), cell) => column.append_option(cell.number()),
            (Self::Points(column), Cell::Points(points)) => column.append_value(points),
            (Self::Points(column), _) => column.append_null(),
            (Self::Flags(column), cell) => column.append_option(cell.flag()),
            (Self::Texts(column), cell) => column.append_option(cell.text()),
            (Self::Lists(column), Cell::Texts(texts)) => column.append_value(texts.into_iter().map(Some)),
            (Self::Lists(column), _) => column.append_null(),
        }
    }

    fn finish(self) -> ArrayRef {
        match self {
            Self::Numbers(mut column) => Arc::new(column.finish()),
            Self::Points(mut column) => Arc::new(column.finish()),
            Self::Flags(mut column) => Arc::new(column.finish()),
            Self::Texts(mut column) => Arc::new(column.finish()),
            Self::Lists(mut column) => Arc::new(column.finish()),
        }
    }
}
