//! JSON of the whole contract, compared with that of an implementation that builds messages.

mod attacks;
mod kept;
mod oracle;
mod refused;

use super::{Message, message};

/// The message of a name in the package of the contract.
fn of(name: &str) -> Message {
    message(&format!("switchyard.v1.{name}")).unwrap_or_else(|| panic!("no message {name}"))
}
