//! Switchyard: an event hub that speaks plain gRPC.
//!
//! The rooms, in the order in which they are best read, and which rooms each may use:
//!
//! | room | owns | uses |
//! |---|---|---|
//! | [`model`] | the words as checked values: event, topic, filter, reasons, limits | nothing |
//! | [`engine`] | streams: storing events, reading them again, what groups keep | model, memory, tasks, telemetry |
//! | [`auth`] | who a caller is and what it may do | model, tasks, telemetry |
//! | [`outbox`] | what waits for one client: queues, credit, the fair writer | model, memory, tasks |
//! | [`router`] | who gets what: trie, groups, delivery | outbox, model, tasks |
//! | [`groups`] | one group on one stream: who gets what next, leases, retries, key order. Pure | model |
//! | [`session`] | one client: commands in, outbox out; all sessions of the hub | router, groups, outbox, engine, auth, model, memory, tasks, telemetry |
//! | [`net`] | listeners, TLS, HTTP/2, connections and their limits | model, memory, tasks, telemetry |
//! | [`grpc`] | the wire: services, conversion, statuses; protobuf stops here | session, auth, net, outbox, model, leaves |
//! | [`ops`] | the operator's port | net, session, model, leaves |
//! | [`server`] | starts and stops it all | everything but cli, client, bench |
//! | [`client`] | reaching a hub as any client does | proto |
//! | [`bench`] | the load generator | client, proto, model |
//! | [`cli`] | the commands that talk to a hub | client, bench, auth, proto, config |
//!
//! Leaves, usable from everywhere: [`tasks`] (the one place that spawns), [`memory`] (what clients make the hub keep), [`telemetry`] (metrics and logs),
//! [`readiness`] (whether the hub serves). [`config`] puts the options of the rooms together; [`proto`] is the contract
//! as clients see it.
//!
//! Nine words have one meaning each, here and everywhere: event, topic, filter, stream, position, subscription, group,
//! session, principal. They are defined in docs/architecture.md.

pub mod auth;
pub mod bench;
pub mod cli;
pub mod client;
pub mod config;
pub mod engine;
pub mod groups;
pub mod grpc;
pub mod memory;
pub mod model;
pub mod net;
pub mod ops;
pub mod outbox;
pub mod proto;
pub mod readiness;
pub mod router;
pub mod server;
pub mod session;
pub mod tasks;
pub mod telemetry;
