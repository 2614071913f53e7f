//! Transactions: who may write under a transactional id, what is in its transaction, and how that ends.
//!
//! [`Transaction`] decides, as a pure state machine; [`Transactions`] keeps one for each transactional id, stores it in
//! `__transaction_state`, and ends a transaction: its markers, the offsets it committed, what it was and the index of what
//! was aborted are one append group, so that no crash leaves a transaction half ended. [`Stability`] is what
//! a partition knows of it: how far its records are decided. Called by `Broker` and `server`.

pub(in crate::broker) mod claims;
mod coordinator;
mod ending;
mod machine;
mod stability;
mod stored;
#[cfg(test)]
mod tests;
mod upkeep;

pub use claims::{is_transactional, stumbles};
pub(super) use coordinator::Parts;
pub use coordinator::{ListedTransaction, Transactions, TxnConfig};
pub use machine::{Identity, Transaction, TxnState};
pub use stability::{Aborted, Stability, is_aborted};
