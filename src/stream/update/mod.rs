//! Results that are kept up to date: aggregates of groups that do not end, or whose windows speak before their end or
//! once more behind it, and the first rows of each key.

mod again;
#[cfg(test)]
mod again_tests;
mod behind;
mod cold;
#[cfg(test)]
mod cold_tests;
mod groups;
mod operator;
mod saved;
mod shown;
mod states;
mod tell;
#[cfg(test)]
mod tests;
mod top;
mod top_saved;
#[cfg(test)]
mod top_tests;

pub use again::{Regroup, RegroupSpec};
pub use operator::{GroupEmit, GroupLife, UpdateAggregate, UpdateSpec};
pub use shown::Shown;
pub use top::{Top, TopSpec};
