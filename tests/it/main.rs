//! The whole engine from outside: one binary, one module a story.

mod house;
mod queries;
