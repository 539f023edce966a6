//! HTTP that is not gRPC: so far the operator's port.

mod ops;
mod options;

pub use ops::{Ops, router};
pub use options::{LogChanges, Options};
