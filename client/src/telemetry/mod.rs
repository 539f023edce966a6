//! Spans and metrics by the messaging conventions of OpenTelemetry, for providers that the caller hands in.
//!
//! Without the feature `opentelemetry`, what stands here is empty and does nothing. Nothing of it runs under the lock of
//! the client, since what a provider does is not ours.

#[cfg(feature = "opentelemetry")]
mod meters;
#[cfg(not(feature = "opentelemetry"))]
mod off;
#[cfg(feature = "opentelemetry")]
mod on;
#[cfg(feature = "opentelemetry")]
mod process;
#[cfg(feature = "opentelemetry")]
mod send;
#[cfg(feature = "opentelemetry")]
mod stats;
#[cfg(test)]
#[cfg(feature = "opentelemetry")]
mod tests;
#[cfg(feature = "opentelemetry")]
pub(crate) mod w3c;

#[cfg(not(feature = "opentelemetry"))]
pub(crate) use off::{Consuming, Processing, Sending, Telemetry};
#[cfg(feature = "opentelemetry")]
pub(crate) use {
    on::Telemetry,
    process::{Consuming, Processing},
    send::Sending,
};
