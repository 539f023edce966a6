// What the judge says.

import type { DrainMode } from "../src/index.js";

export interface Connect {
  readonly do: "connect";
  readonly addresses: string[];
  readonly heartbeat_ms?: number;
  readonly queue_events?: number;
  readonly token_source?: boolean;
}

export interface Subscribe {
  readonly do: "subscribe";
  readonly sub: string;
  readonly stream?: string;
  readonly group?: string;
  readonly filters?: string[];
  readonly from?: "new" | "earliest";
  readonly window?: number;
  readonly on_gap?: "fail" | "earliest" | "latest";
  readonly position?: string;
}

export interface Take {
  readonly do: "take";
  readonly sub: string;
  readonly count?: number | null;
  readonly then?: "hold" | "done" | "ack";
  readonly work_ms?: number;
  readonly extend_ms?: number;
}

/** What is said to one subscription. */
export type ReaderOrder =
  | Take
  | { readonly do: "done" | "unsubscribe"; readonly sub: string }
  | {
      readonly do: "ack" | "nack" | "reject" | "extend";
      readonly sub: string;
      readonly sequences?: number[];
      readonly delay_ms?: number;
    };

export interface Publish {
  readonly do: "publish";
  readonly topic: string;
  readonly first: number;
  readonly count: number;
  readonly deadline_ms?: number;
  readonly id?: string;
  readonly if_last_sequence?: number | null;
  readonly only_if_room?: boolean;
}

export type Order =
  | Connect
  | Subscribe
  | ReaderOrder
  | Publish
  | { readonly do: "token"; readonly value: string; readonly life_ms?: number | null }
  | { readonly do: "token_fails" | "stats" }
  | { readonly do: "drain"; readonly timeout_ms: number; readonly mode: DrainMode };
