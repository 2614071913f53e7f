//! Values behind Confluent's frame, each read by the schema that its id names: [`Framed`].
//!
//! Owns the plans made of the schemas met so far. Always: nothing is asked of the registry here; an id that nobody has
//! asked for yet is handed to the caller, who asks and comes again. Called by the decoder, once a record.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use super::column::Column;
use super::json::Fault;
use super::schema::RegistryRule;
use super::{avro, protobuf};
use crate::registry::{Known, Schema, SchemaKind};

/// So many plans are kept.
const MAX_PLANS: usize = 256;
/// The zero and the id.
const FRAME: usize = 5;

/// Why a value was not read.
#[derive(Debug)]
pub(super) enum Stop {
    /// It is broken.
    Fault(Box<Fault>),
    /// Its schema does not fit the stream, or is not there.
    Schema(Arc<str>),
    /// Nobody knows this schema yet.
    Wants(u32),
}

impl From<Box<Fault>> for Stop {
    fn from(fault: Box<Fault>) -> Self {
        Self::Fault(fault)
    }
}

#[derive(Debug)]
enum Plan {
    Avro(avro::Plan),
    Protobuf(protobuf::Plan),
    /// Nothing of this schema can be read.
    Unfit(Arc<str>),
}

/// Reads framed values of one stream.
#[derive(Debug)]
pub(super) struct Framed {
    rule: RegistryRule,
    kind: SchemaKind,
    /// By the whole frame: of a Protobuf schema it also names the message.
    plans: HashMap<Box<[u8]>, Plan>,
    /// Schemas of Protobuf by id: a frame that names another message of one compiles nothing again.
    compiled: HashMap<u32, Result<protobuf::Compiled, String>>,
}

impl Framed {
    pub(super) fn new(rule: RegistryRule, kind: SchemaKind) -> Self {
        Self { rule, kind, plans: HashMap::new(), compiled: HashMap::new() }
    }

    /// Reads one value as row `row`. On a stop the columns may be uneven.
    pub(super) fn read(&mut self, value: &[u8], columns: &mut [Column], row: usize) -> Result<(), Stop> {
        let (id, after) = match value {
            [0, a, b, c, d, rest @ ..] => (u32::from_be_bytes([*a, *b, *c, *d]), rest),
            _ => return Err(Fault::new(0, "expected a zero and a schema's id in four bytes").into()),
        };
        let len = match self.kind {
            SchemaKind::Protobuf => protobuf::frame_len(after).ok_or_else(|| Fault::new(FRAME, "expected which message it is"))?,
            SchemaKind::Avro | SchemaKind::Json => 0,
        };
        let (frame, rest) = value.split_at(FRAME + len);
        if !self.plans.contains_key(frame) {
            let plan = match self.rule.registry.known(id) {
                None => return Err(Stop::Wants(id)),
                // It may come to be there: what is missing is not kept here.
                Some(Known::Missing) => {
                    return Err(Stop::Schema(format!("the schema registry {} has no schema {id}", self.rule.registry.url()).into()));
                }
                Some(Known::Schema(schema)) => self.plan(id, &schema, &frame[FRAME..], columns),
            };
            keep(&mut self.plans, frame.into(), plan);
        }
        match self.plans.get_mut(frame).expect("it was there or was just put there") {
            Plan::Avro(plan) => Ok(plan.read(rest, frame.len(), columns, row)?),
            Plan::Protobuf(plan) => Ok(plan.read(rest, frame.len(), columns, row)?),
            Plan::Unfit(why) => Err(Stop::Schema(Arc::clone(why))),
        }
    }

    fn plan(&mut self, id: u32, schema: &Schema, which: &[u8], columns: &[Column]) -> Plan {
        let registry = &self.rule.registry;
        let unfit = |why: String| Plan::Unfit(format!("schema {id} of the registry {}: {why}", registry.url()).into());
        if schema.kind != self.kind {
            return unfit(format!("it is {}, and the stream's format is {}", schema.kind.word(), self.kind.word()));
        }
        match self.kind {
            SchemaKind::Avro => avro::Plan::new(&schema.text, &schema.references, columns).map_or_else(unfit, Plan::Avro),
            SchemaKind::Protobuf => {
                if !self.compiled.contains_key(&id) {
                    keep(&mut self.compiled, id, protobuf::Compiled::new(&schema.text, &schema.references));
                }
                let plan = self.compiled[&id].as_ref().map_err(String::clone);
                plan.and_then(|schema| protobuf::Plan::new(schema, which, columns)).map_or_else(unfit, Plan::Protobuf)
            }
            SchemaKind::Json => unfit("no stream reads it".to_owned()),
        }
    }
}

/// Keeps a value. A full map starts again: what is gone is made once more.
fn keep<K: Eq + Hash, V>(map: &mut HashMap<K, V>, key: K, value: V) {
    if map.len() >= MAX_PLANS {
        map.clear();
    }
    map.insert(key, value);
}
