//! The whole engine from outside: one binary, one module a story.

mod cluster;
mod dashboards;
mod golden;
mod house;
mod queries;
mod read;
mod replaced_alert;
mod savepoints;
mod spilled_state;
