//! What the hub tells about itself: metrics, one function per fact, the set-up of logs, and traces.
//!
//! A leaf: every room may count here, and this room knows no other. Labels come from closed lists, and the names of
//! streams and groups up to a limit, so that no client can make the number of series grow. Events are counted per
//! batch, never one by one.

mod connections;
mod gauges;
mod logs;
mod metrics;
mod secrets;
mod set;
mod traces;
mod wire;

pub use gauges::{Gauges, GroupGauges, MemoryGauges, StreamGauges, StreamsGauges};
pub use logs::{AUDIT, LogFormat, log_filter, set_log_filter, set_up_logs};
pub use metrics::Metrics;
pub use secrets::warn_if_open;
pub use traces::{PublishSpan, TraceOptions, TraceParent, Traces};
pub use wire::{ConnectionEnd, ConnectionRefusal, HandshakeFailure, StreamCut};
