//! The dialect, between text and sqlparser: cutting a script into statements (`tokens`), what is rewritten before
//! parsing (`reserved`, `prepass`, `asof`, `pattern`), the EMIT clause (`emit`), columns of a stream (`columns`), what is rewritten after parsing
//! (`windows`), and what is refused by name (`refuse`).
//!
//! Always: a token that is made up carries the place of the one it stands for, so that every error points into the
//! user's text; and what is cut out is kept, never lost. Called by `parse` only.

pub(super) mod asof;
pub(super) mod columns;
pub(super) mod emit;
pub(super) mod pattern;
pub(super) mod prepass;
pub(super) mod refuse;
pub(super) mod reserved;
pub(super) mod tokens;
pub(super) mod windows;

pub use tokens::{Piece, split_script};
