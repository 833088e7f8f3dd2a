//! What can go wrong: when memory is made, and when it is received.

mod attach;
mod create;

pub use attach::AttachError;
pub use create::{CreateError, Said};
