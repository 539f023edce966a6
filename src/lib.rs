//! Switchyard: an event hub that speaks plain gRPC.
//!
//! The rooms, in the order in which they are best read, and which rooms each may use:
//!
//! | room | owns | uses |
//! |---|---|---|
//! | [`model`] | the words as checked values: topic, filter, reasons, limits | nothing |
//! | [`event`] | the one encoded form of an event: checked, built, read, stored | model, field_numbers, proto |
//! | [`engine`] | streams: storing events, reading them again, what groups keep | event, model, memory, tasks, telemetry |
//! | [`json`] | the contract as JSON, both ways, and the JSON of events, made once | event, proto |
//! | [`auth`] | who a caller is and what it may do | event, model, tasks, telemetry |
//! | [`outbox`] | what waits for one client: queues, credit, the fair writer | event, model, memory, cut |
//! | [`router`] | who gets what: trie, groups, delivery | outbox, event, model, tasks |
//! | [`groups`] | one group on one stream: who gets what next, leases, retries, key order. Pure | model |
//! | [`hub`] | the shared middle: publishing, open sessions, quotas, tokens, running groups | router, groups, outbox, engine, auth, event, model, memory, cut, tasks, telemetry |
//! | [`session`] | one client: commands in, outbox out | hub, router, groups, outbox, engine, auth, event, model, memory, cut, tasks, telemetry |
//! | [`manage`] | managing streams, groups, dead letters, sessions: caller and values in, values out | hub, outbox, engine, auth, event, model |
//! | [`net`] | listeners, TLS, HTTP/2, connections and their limits | model, memory, cut, tasks, telemetry |
//! | [`edge`] | what every edge does; the edges, each a room below | session, hub, auth, net, model, memory, cut, readiness |
//! | [`edge::wire`] | the contract as messages, for every edge: conversion, statuses; protobuf messages stop here | session, manage, hub, auth, outbox, event, model, field_numbers, memory, tasks, telemetry, proto |
//! | [`edge::grpc`] | gRPC: services, access to calls, framing | edge, edge::wire, session, manage, hub, auth, net, outbox, event, model, field_numbers, memory, cut, readiness, tasks, telemetry, proto |
//! | [`edge::http`] | the operator's port | edge, net, model, readiness, telemetry |
//! | [`edge::web`] | the web listener: what browsers and plain HTTP clients use | edge, edge::wire, session, manage, hub, auth, net, outbox, json, event, model, memory, cut, tasks, telemetry |
//! | [`server`] | starts and stops it all | edge, edge::grpc, edge::http, edge::web, hub, auth, engine, event, model, net, config, memory, readiness, tasks, telemetry |
//! | [`bench`] | the load generator | proto, model, field_numbers |
//! | [`cli`] | the commands that talk to a hub | bench, auth, engine, proto, config |
//!
//! Leaves, usable from everywhere: [`tasks`] (the one place that spawns), [`memory`] (what clients make the hub keep), [`cut`] (ending a stream from outside), [`telemetry`] (metrics and logs),
//! [`readiness`] (whether the hub serves), [`field_numbers`] (those of the contract). [`config`] puts the options of the rooms
//! together; [`proto`] is the contract as clients see it. [`client`] is a crate of its own: reaching a hub.
//!
//! Nine words have one meaning each, here and everywhere: event, topic, filter, stream, position, subscription, group,
//! session, principal. They are defined in docs/architecture.md.

pub mod auth;
pub mod bench;
pub mod cli;
pub mod config;
pub mod cut;
pub mod edge;
pub mod engine;
pub mod event;
mod field_numbers;
pub mod groups;
pub mod hub;
pub mod json;
pub mod manage;
pub mod memory;
pub mod model;
pub mod net;
pub mod outbox;
pub mod proto;
pub mod readiness;
pub mod router;
pub mod server;
pub mod session;
pub mod tasks;
pub mod telemetry;

pub use switchyard_client as client;
