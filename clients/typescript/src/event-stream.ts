// `text/event-stream`: takes it apart, however its bytes are cut. Pure.

/** One message of a stream. */
export interface StreamMessage {
  /** Its name; empty for one without, which is an event. */
  readonly name: string;
  readonly data: string;
  /** The id that was seen last, with this message or before it. */
  readonly id: string;
}

/** The most text that waits for the end of its message. No message of a hub is longer. */
const MOST_TEXT = 16 * 1024 * 1024;

/** Takes a stream apart, line by line. */
export class StreamParser {
  private readonly decoder = new TextDecoder();
  private rest = "";
  private name = "";
  private data: string[] = [];
  private id = "";

  /** The messages that these bytes complete. Fails if a message has no end. */
  take(bytes: Uint8Array): StreamMessage[] {
    const lines = (this.rest + this.decoder.decode(bytes, { stream: true })).split(/\r\n|\n|\r(?!$)/);
    this.rest = lines.pop() ?? "";
    if (this.rest.length > MOST_TEXT) {
      throw new Error("a message has no end");
    }
    return lines.map((line) => this.line(line)).filter((message) => message !== undefined);
  }

  private line(line: string): StreamMessage | undefined {
    if (line === "") {
      const message = { name: this.name, data: this.data.join("\n"), id: this.id };
      const isEmpty = this.data.length === 0;
      this.name = "";
      this.data = [];
      return isEmpty ? undefined : message;
    }
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "data") {
      this.data.push(value);
    } else if (field === "event") {
      this.name = value;
    } else if (field === "id" && !value.includes("\0")) {
      this.id = value;
    }
    return undefined;
  }
}
