// WebSockets that lead to a hub in memory, for tests of the client as a whole.

import type { WebSocketConstructor, WebSocketLike } from "../src/websocket.js";
import type { SessionRequest } from "../src/wire.js";
import { Hub } from "./world.js";

/** A network with one hub. */
export class Network {
  readonly hub = new Hub();
  /** Handshakes fail. */
  refuses = false;
  /** What the hub says does not arrive. */
  swallows = false;
  /** The last connection, which may be over. */
  socket: FakeSocket | undefined;
  /** What clients ask for: URL and subprotocols. */
  readonly asked: { readonly url: string; readonly protocols: string[] }[] = [];

  /** The constructor that a client gets. */
  readonly WebSocket: WebSocketConstructor = ((network: Network) =>
    class extends FakeSocket {
      constructor(url: string, protocols: string[]) {
        super(network, url, protocols);
      }
    })(this);
}

export class FakeSocket implements WebSocketLike {
  protocol = "";
  bufferedAmount = 0;
  onopen: WebSocketLike["onopen"] = null;
  onmessage: WebSocketLike["onmessage"] = null;
  onerror: WebSocketLike["onerror"] = null;
  onclose: WebSocketLike["onclose"] = null;
  isOpen = false;

  constructor(
    private readonly network: Network,
    url: string,
    protocols: string[],
  ) {
    network.asked.push({ url, protocols });
    network.socket = this;
    setImmediate(() => {
      if (network.refuses) {
        this.onerror?.({ message: "connect ECONNREFUSED" });
        this.onclose?.({ code: 1006, reason: "" });
        return;
      }
      this.isOpen = true;
      this.protocol = protocols[0] ?? "";
      this.onopen?.({});
      network.hub.open();
      this.flush();
    });
  }

  send(data: string): void {
    const { hub } = this.network;
    hub.hear(JSON.parse(data) as SessionRequest);
    setImmediate(() => this.flush());
  }

  /** The hub sends what there is. */
  flush(): void {
    const { hub } = this.network;
    if (!this.isOpen) {
      return;
    }
    hub.send();
    for (const frame of hub.out.splice(0)) {
      if (!this.network.swallows) {
        this.onmessage?.({ data: JSON.stringify(frame) });
      }
    }
  }

  close(): void {
    if (this.isOpen) {
      setImmediate(() => this.cut(1000));
    }
  }

  /** The connection ends. */
  cut(code = 1006, reason = ""): void {
    if (this.isOpen) {
      this.isOpen = false;
      this.network.hub.cut();
      this.onclose?.({ code, reason });
    }
  }
}
