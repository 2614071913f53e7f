//! A writer's schema: [`Schema`], an arena of types that refer to one another by place.
//!
//! Always: every reference leads to a type, a type is at most so deep in JSON and there are at most so many. Read from
//! the registry's text once a schema id, by `decode`.

use std::collections::HashMap;

use arrow::datatypes::TimeUnit;
use serde_json::{Map, Value};

use super::super::MAX_DEPTH;

/// So many types may a schema have.
pub(super) const MAX_TYPES: usize = 20_000;

/// Where a type stands in its schema.
pub(super) type TypeId = usize;

/// A type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Null,
    Boolean,
    Int(Logical),
    Long(Logical),
    Float,
    Double,
    Bytes(Logical),
    String,
    Fixed(usize, Logical),
    Enum(Vec<String>),
    Array(TypeId),
    Map(TypeId),
    Union(Vec<TypeId>),
    Record(Vec<(String, TypeId)>),
    /// A name that was used before what it stands for; none is left in a schema that was read.
    Unknown,
}

/// What a value of a plain type stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Logical {
    None,
    Date,
    Time(TimeUnit),
    Timestamp(TimeUnit),
    /// Of so many digits behind the point.
    Decimal(i64),
}

/// A writer's schema.
#[derive(Debug)]
pub(super) struct Schema {
    types: Vec<Type>,
    pub(super) root: TypeId,
}

impl Schema {
    /// Reads a schema's text; `before` are those it leans on.
    pub(super) fn read(text: &str, before: &[(String, String)]) -> Result<Self, String> {
        let mut reader = Reader { types: Vec::new(), names: HashMap::new() };
        let json = |text: &str| match serde_json::from_str(text) {
            Ok(value) => value,
            // A type's bare name is a schema too.
            Err(_) => Value::String(text.trim().to_owned()),
        };
        for (_, earlier) in before {
            reader.of(&json(earlier), "", 0)?;
        }
        let root = reader.of(&json(text), "", 0)?;
        Ok(Self { types: reader.types, root })
    }

    pub(super) fn of(&self, id: TypeId) -> &Type {
        &self.types[id]
    }
}

struct Reader {
    types: Vec<Type>,
    names: HashMap<String, TypeId>,
}

impl Reader {
    fn add(&mut self, new: Type) -> Result<TypeId, String> {
        if self.types.len() >= MAX_TYPES {
            return Err(format!("its schema has more than {MAX_TYPES} types"));
        }
        self.types.push(new);
        Ok(self.types.len() - 1)
    }

    fn of(&mut self, json: &Value, space: &str, depth: u32) -> Result<TypeId, String> {
        if depth > MAX_DEPTH {
            return Err("its schema is nested too deep".to_owned());
        }
        match json {
            Value::String(name) => self.named(name, space),
            Value::Array(branches) => {
                let branches: Vec<TypeId> = branches.iter().map(|branch| self.of(branch, space, depth + 1)).collect::<Result<_, _>>()?;
                if branches.iter().any(|branch| matches!(self.types[*branch], Type::Union(_))) {
                    return Err("its schema has a union directly within a union".to_owned());
                }
                self.add(Type::Union(branches))
            }
            Value::Object(object) => self.object(object, space, depth),
            _ => Err("its schema has a type that is neither a name, a list nor an object".to_owned()),
        }
    }

    fn named(&mut self, name: &str, space: &str) -> Result<TypeId, String> {
        if let Some(plain) = plain(name, Logical::None) {
            return self.add(plain);
        }
        let known = self.names.get(&full(name, space)).or_else(|| self.names.get(name));
        known.copied().ok_or_else(|| "its schema uses a name before it says what that is".to_owned())
    }

    fn object(&mut self, object: &Map<String, Value>, space: &str, depth: u32) -> Result<TypeId, String> {
        let lacks = |what: &str| format!("its schema has a type without \"{what}\"");
        let kind = match object.get("type") {
            Some(Value::String(kind)) => kind.as_str(),
            Some(inner) => return self.of(inner, space, depth + 1),
            None => return Err(lacks("type")),
        };
        let logical = logical(object);
        match kind {
            "array" => {
                let items = self.of(object.get("items").ok_or_else(|| lacks("items"))?, space, depth + 1)?;
                self.add(Type::Array(items))
            }
            "map" => {
                let values = self.of(object.get("values").ok_or_else(|| lacks("values"))?, space, depth + 1)?;
                self.add(Type::Map(values))
            }
            "record" | "error" | "enum" | "fixed" => {
                let name = object.get("name").and_then(Value::as_str).ok_or_else(|| lacks("name"))?;
                let own = object.get("namespace").and_then(Value::as_str).unwrap_or(space);
                let name = full(name, own);
                let inside = name.rsplit_once('.').map_or("", |(space, _)| space).to_owned();
                let id = self.add(Type::Unknown)?;
                if self.names.insert(name, id).is_some() {
                    return Err("its schema gives one name to two types".to_owned());
                }
                self.types[id] = match kind {
                    "enum" => {
                        let symbols = object.get("symbols").and_then(Value::as_array).ok_or_else(|| lacks("symbols"))?;
                        Type::Enum(
                            symbols.iter().map(|s| s.as_str().map(str::to_owned)).collect::<Option<_>>().ok_or_else(|| lacks("symbols"))?,
                        )
                    }
                    "fixed" => {
                        let size = object.get("size").and_then(Value::as_u64).ok_or_else(|| lacks("size"))?;
                        let logical = if matches!(logical, Logical::Decimal(_)) { logical } else { Logical::None };
                        Type::Fixed(usize::try_from(size).map_err(|_| lacks("size"))?, logical)
                    }
                    _ => {
                        let fields = object.get("fields").and_then(Value::as_array).ok_or_else(|| lacks("fields"))?;
                        let mut found = Vec::with_capacity(fields.len());
                        for field in fields {
                            let name = field.get("name").and_then(Value::as_str).ok_or_else(|| lacks("name"))?;
                            let of = field.get("type").ok_or_else(|| lacks("type"))?;
                            // A logical type is sometimes written beside the field's type instead of within it.
                            let beside = field.get("logicalType").and(field.as_object());
                            let of = match (of, beside) {
                                (Value::String(_), Some(field)) => self.object(field, &inside, depth + 1)?,
                                _ => self.of(of, &inside, depth + 1)?,
                            };
                            found.push((name.to_owned(), of));
                        }
                        Type::Record(found)
                    }
                };
                Ok(id)
            }
            plain_name => match plain(plain_name, logical) {
                Some(plain) => self.add(plain),
                None => self.named(plain_name, space),
            },
        }
    }
}

/// A plain type. A logical type that does not suit it is passed over, as the specification asks.
fn plain(name: &str, logical: Logical) -> Option<Type> {
    let only = |suits: bool| if suits { logical } else { Logical::None };
    Some(match name {
        "null" => Type::Null,
        "boolean" => Type::Boolean,
        "int" => Type::Int(only(matches!(logical, Logical::Date | Logical::Time(TimeUnit::Millisecond)))),
        "long" => Type::Long(only(matches!(logical, Logical::Timestamp(_) | Logical::Time(TimeUnit::Microsecond)))),
        "float" => Type::Float,
        "double" => Type::Double,
        "bytes" => Type::Bytes(only(matches!(logical, Logical::Decimal(_)))),
        "string" => Type::String,
        _ => return None,
    })
}

fn logical(object: &Map<String, Value>) -> Logical {
    match object.get("logicalType").and_then(Value::as_str) {
        Some("date") => Logical::Date,
        Some("time-millis") => Logical::Time(TimeUnit::Millisecond),
        Some("time-micros") => Logical::Time(TimeUnit::Microsecond),
        Some("timestamp-millis" | "local-timestamp-millis") => Logical::Timestamp(TimeUnit::Millisecond),
        Some("timestamp-micros" | "local-timestamp-micros") => Logical::Timestamp(TimeUnit::Microsecond),
        Some("timestamp-nanos" | "local-timestamp-nanos") => Logical::Timestamp(TimeUnit::Nanosecond),
        Some("decimal") => {
            let number = |name: &str| object.get(name).and_then(Value::as_i64);
            let (precision, scale) = (number("precision").unwrap_or(0), number("scale").unwrap_or(0));
            // One without a precision, or with more digits behind the point than at all, is none.
            if precision > 0 && (0..=precision).contains(&scale) { Logical::Decimal(scale) } else { Logical::None }
        }
        _ => Logical::None,
    }
}

fn full(name: &str, space: &str) -> String {
    if space.is_empty() || name.contains('.') { name.to_owned() } else { format!("{space}.{name}") }
}
