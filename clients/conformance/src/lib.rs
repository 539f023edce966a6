//! The judge of clients of Switchyard, in whatever language they are written: [clients/SPEC.md](../../SPEC.md) says what a
//! client does, and this crate tries it out.
//!
//! `scenarios.yaml` says what happens (`scenario`). The runner (`runner`, `stage`) has a real hub (`hub`), a network that can
//! fail (`proxy`, `frames`), and a driver, which is a small program around the client (`process`). They speak JSON lines
//! (`protocol`). All that happens is written down (`recorder`, `history`), what the hub has is asked of the hub (`truth`), and
//! the judge (`judge`, `rule`) says which rules were broken. It is pure, so it is tested on histories that somebody made up.
//!
//! README.md is for those who write a driver.

pub mod campaign;
pub mod frames;
pub mod history;
mod hub;
pub mod judge;
mod process;
pub mod protocol;
mod proxy;
mod recorder;
pub mod rule;
pub mod runner;
pub mod scenario;
mod stage;
mod truth;

pub use hub::Listener;
pub use stage::Options;
