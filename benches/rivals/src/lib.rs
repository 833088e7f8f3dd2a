//! polyproc beside what else there is: in the same rounds of one run, checked by the same rules.
//!
//! A subject, such as one way of a message, is a file of its own ([`lock`], [`rwlock`], [`channel`], [`token`], [`pool`],
//! [`kills`]), and knows nobody. Who is measured is a family of [`adapters`]. A bench puts both together in a [`Rivals`] table, ours first: it is the reference.

pub mod adapters;
pub mod channel;
pub mod each;
pub mod kills;
pub mod lock;
pub mod pool;
pub mod rwlock;
mod shared;
mod table;
pub mod token;

pub use shared::Shared;
pub use table::{Fairness, Rivals, chosen, finish, skip};

/// Adds a rival to a table, or says that it is skipped, because this was built without the feature.
#[macro_export]
macro_rules! rival {
    ($table:expr, $feature:tt, $name:expr, $run:expr) => {{
        #[cfg(feature = $feature)]
        let table = $table.rival($name, $run);
        #[cfg(not(feature = $feature))]
        let table = {
            $crate::skip($feature, "built without it");
            $table
        };
        table
    }};
}
