//! VitalSQL: a medical stream analytics engine. One binary that is a durable, Kafka-compatible
//! partitioned broker, a streaming SQL engine on DataFusion, and an alarm desk.
//!
//! **Not a medical device.** For research, integration testing, retrospective and operational
//! analytics. It does not replace bedside alarms.
//!
//! # The house
//!
//! The crate is a house of rooms; a room names only rooms earlier in this list, so a reading travels one
//! way, from the producer to the alert.
//!
//! | room | what it holds |
//! |---|---|
//! | [`time`] | `Timestamp`, `Span`, the node's `Clock` |
//! | [`record`] | offsets, topic names, Kafka's record batch, compression |
//! | [`wire`] | Kafka messages to and from bytes, from one declarative table |
//! | [`clinical`] | vitals, units, plausibility, scores: pure functions, each beside its published table |
//! | [`metrics`] | every metric: name, unit, labels, help |
//! | [`log`] | the write-ahead log with its append groups, partition segments, recovery, retention, disks |
//! | [`broker`] | topics, partitions, idempotent producers, consumer groups |
//! | [`server`] | Kafka listeners: connections, dispatch, one file per group of APIs |
//! | [`bus`] | the one seam between engine and log |
//! | [`registry`] | Confluent's schema registry over HTTP |
//! | [`format`](mod@format) | bytes to Arrow rows and back; a bad record is one dead letter |
//! | [`stream`] | watermarks, windows, state, the operators and the task that runs them |
//! | [`sql`] | dialect, catalogue, planning on DataFusion, functions, history |
//! | [`alerts`] | rules, the life of an alert, the desk, notification |
//! | [`ingest`] | recordings, the simulated ward |
//! | [`http`] | API, metrics, health, live events, the page |
//! | [`config`] | flags over environment over file over default |
//! | [`node`] | opens, starts and stops every room in order |
//! | [`cli`] | one file per command |
//!
//! # A reading's way
//!
//! Producer bytes reach `server`, which cuts a frame and lets `wire` read the request; the batch stays as
//! bytes. `broker` gives it its offset and `log` makes it durable, together with whatever else is waiting,
//! in one append group. Only then is it visible: consumers wake, and the tasks of `stream` read it through
//! `bus`, decode it with `format` and carry it through the operators that `sql` planned. What comes out
//! is committed in one append group with the task's positions and state: results, alerts, dead letters.

pub mod alerts;
pub mod broker;
pub mod bus;
pub mod cli;
pub mod clinical;
pub mod config;
pub mod format;
pub mod http;
pub mod ingest;
pub mod log;
pub mod metrics;
pub mod node;
pub mod record;
pub mod registry;
pub mod server;
pub mod sql;
pub mod stream;
pub mod time;
pub mod wire;
