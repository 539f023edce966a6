//! The same without the feature: nothing, for the compiler to leave out. Pure.

// As the others have it.
#![allow(clippy::unused_self)]

use std::{collections::HashMap, future::Future};

use crate::{
    error::Error, event::Event, machine::verdict::Verdict, outcome::Receipt, received::Received, state::Stats,
};

/// Measures nothing.
#[derive(Debug, Default)]
pub(crate) struct Telemetry {}

/// A publish that nobody looks at.
#[derive(Debug)]
pub(crate) struct Sending;

/// A subscription that nobody looks at.
#[derive(Debug)]
pub(crate) struct Consuming;

/// An event that is worked on, at which nobody looks.
#[derive(Debug)]
pub(crate) struct Processing;

impl Telemetry {
    pub(crate) fn observe(&self, _client: &str, _stats: impl Fn() -> Option<Stats> + Send + Sync + 'static) {}

    pub(crate) fn is_on(&self) -> bool {
        false
    }

    pub(crate) fn send(&self, _events: &[Event<'_>]) -> Sending {
        Sending
    }

    pub(crate) fn consume(&self, _group: &str) -> Consuming {
        Consuming
    }
}

impl Sending {
    pub(crate) fn none() -> Self {
        Self
    }

    pub(crate) fn inject(&mut self, _attributes: &mut HashMap<String, String>) {}

    pub(crate) fn queued(&mut self) {}

    pub(crate) fn answered(&mut self, _receipt: &Receipt) {}

    pub(crate) fn failed(&mut self, _error: &Error) {}
}

impl Consuming {
    pub(crate) fn received(&self, _events: usize) {}

    pub(crate) fn process(&self, _event: &Received) -> Processing {
        Processing
    }
}

impl Processing {
    pub(crate) fn run<F: Future>(&self, begin: impl FnOnce() -> F) -> F {
        begin()
    }

    pub(crate) fn ended(self, _verdict: &Verdict) {}
}
