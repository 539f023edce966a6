// The client of Switchyard for browsers and Node. See README.md.

export { Client, connect, type PublishOptions } from "./client.js";
export type { Logger } from "./core.js";
export type { Batch, CaughtUp, Delivery, Gap, Item } from "./delivery.js";
export { type Code, type ErrorKind, SwitchyardError } from "./error.js";
export type { NewEvent, Received, TraceContext } from "./event.js";
export type { GapReason } from "./machine/incoming.js";
export type { Opened } from "./machine/row.js";
export type { Transport } from "./link.js";
export type { Options } from "./options.js";
export { MemoryPosition, type PositionStore, StoragePosition } from "./position.js";
export type { Spec, Start } from "./spec.js";
export type { DrainMode, Left, Published, State, Stats, Status } from "./state.js";
export type { Subscription } from "./subscription.js";
export type { Token, TokenSource } from "./token.js";
export type { WebSocketConstructor, WebSocketLike } from "./websocket.js";
export { type Handler, Reject, RetryLater, type WorkerSpec } from "./worker.js";
