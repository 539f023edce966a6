// The client of Switchyard for browsers, in one file: clients/typescript. Made by scripts/bundle.mjs; do not edit.

// wire.ts

function commandFrame(requestId, command) {
    return JSON.stringify({ requestId: String(requestId), ...command });
}
function publishFrame(requestId, events, precondition) {
    const only = precondition === undefined ? "" : `,"precondition":${JSON.stringify(precondition)}`;
    return `{"requestId":"${requestId}","publish":{"events":[${events.join(",")}]${only}}}`;
}
function count(value) {
    return value === undefined ? 0 : Number(value);
}
function exact(value) {
    return value === undefined ? 0n : BigInt(value);
}
function millis(duration) {
    const seconds = duration?.endsWith("s") === true ? Number(duration.slice(0, -1)) : Number.NaN;
    return Number.isFinite(seconds) ? seconds * 1000 : undefined;
}
function duration(milliseconds) {
    const whole = Math.round(milliseconds);
    const rest = whole % 1000;
    return `${Math.trunc(whole / 1000)}${rest === 0 ? "" : `.${String(Math.abs(rest)).padStart(3, "0")}`}s`;
}
function utf8Length(text) {
    let bytes = text.length;
    for (let at = 0; at < text.length; at += 1) {
        const unit = text.charCodeAt(at);
        if (unit > 0x7ff) {
            bytes += 2;
            if (unit >= 0xd800 && unit < 0xdc00 && isLow(text.charCodeAt(at + 1))) {
                at += 1;
            }
        }
        else if (unit > 0x7f) {
            bytes += 1;
        }
    }
    return bytes;
}
function isLow(unit) {
    return unit >= 0xdc00 && unit < 0xe000;
}

// error.ts

const CODES = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];
class SwitchyardError extends Error {
    name = "SwitchyardError";
    kind;
    code;
    reason;
    text;
    field;
    retryAfterMs;
    facts;
    constructor(facts) {
        super(worded(facts));
        this.facts = facts;
        this.kind = facts.kind;
        this.code = facts.code;
        this.reason = facts.reason;
        this.text = facts.text;
        this.field = facts.field;
        this.retryAfterMs = facts.retryAfterMs;
    }
    get retryable() {
        return this.retryAfterMs !== undefined || this.code === "UNAVAILABLE";
    }
    ofKind(kind) {
        return kind === this.kind ? this : new SwitchyardError({ ...this.facts, kind });
    }
    at(place) {
        return this.facts.place === undefined ? new SwitchyardError({ ...this.facts, place }) : this;
    }
}
function worded({ code, reason, text, field, place }) {
    const where = place === undefined || place === "" ? "" : `${place}: `;
    const why = reason === "" ? "" : ` ${reason}`;
    const which = field === undefined || text.startsWith(field) ? "" : ` (field ${field})`;
    return `${where}${code}${why}: ${text}${which}`;
}
function failure(kind, code, reason, text) {
    return new SwitchyardError({ kind, code, reason, text });
}
function invalid(field, problem) {
    const text = `${field} ${problem}`;
    return new SwitchyardError({ kind: "invalid", code: "INVALID_ARGUMENT", reason: "INVALID_ARGUMENT", text, field });
}
function closed() {
    return failure("closed", "CANCELLED", "CLIENT_CLOSED", "the client is closing or closed");
}
function ofStatus(kind, status) {
    let reason = "";
    let field;
    let retryAfterMs;
    for (const detail of status.details ?? []) {
        const type = detail["@type"]?.split("/").at(-1);
        if (type === "google.rpc.ErrorInfo") {
            reason ||= detail.reason ?? "";
        }
        else if (type === "google.rpc.RetryInfo") {
            retryAfterMs ??= millis(detail.retryDelay) ?? 0;
        }
        else if (type === "google.rpc.BadRequest") {
            field ??= detail.fieldViolations?.[0]?.field;
        }
    }
    const code = CODES[status.code ?? 0] ?? "UNKNOWN";
    return new SwitchyardError({ kind, code, reason, text: status.message ?? "", field, retryAfterMs });
}

// machine/entry.ts

function amountOf(events) {
    return { events: events.length, bytes: events.reduce((sum, event) => sum + event.bytes, 0) };
}
class Entry {
    amount;
    precondition;
    deadline;
    isInFlight = false;
    isTold = false;
    items;
    retryLive;
    wasRefused = false;
    isLost = false;
    constructor(call) {
        this.amount = amountOf(call.events);
        this.items = call.events.map((event) => ({ event, known: "nothing", result: undefined }));
        this.precondition = call.precondition;
        this.deadline = call.deadline;
        this.retryLive = call.retryLive;
    }
    isAlone() {
        return this.wasRefused || this.precondition !== undefined;
    }
    setAlone() {
        this.wasRefused = true;
    }
    keyOf(at) {
        return this.item(at).event.key;
    }
    pending() {
        return this.items.filter((item) => item.result === undefined).map((item) => item.event);
    }
    isComplete() {
        return this.items.every((item) => item.result !== undefined);
    }
    isDoubtful() {
        return this.isLost || this.isInFlight;
    }
    question() {
        if (!this.isLost || this.retryLive || this.precondition !== undefined) {
            return undefined;
        }
        const at = this.items.findIndex((item) => item.result === undefined && item.known === "nothing");
        return at < 0 ? undefined : at;
    }
    know(at, known) {
        this.item(at).known = known;
    }
    set(at, result) {
        this.item(at).result = result;
    }
    item(at) {
        return this.items[at];
    }
    sessionLost() {
        this.isLost = true;
        this.isInFlight = false;
        for (const item of this.items) {
            if (item.known === "asked") {
                item.known = "nothing";
            }
        }
    }
    takeResults(next, renews) {
        let pause;
        for (const item of this.items) {
            if (item.result !== undefined) {
                continue;
            }
            const result = outcomeOf(next());
            if (isFailure(result) && isTransient(result, renews)) {
                if (result.code === "UNAVAILABLE") {
                    item.known = "inStream";
                }
                pause = Math.max(pause ?? 0, result.retryAfterMs ?? 0);
            }
            else {
                item.result = result;
            }
        }
        return pause;
    }
    fill(error) {
        for (const item of this.items) {
            item.result ??= error;
        }
    }
    giveUp(error) {
        this.fill(error.ofKind(this.isDoubtful() ? "unknown" : error.kind));
    }
    resultsAtDeadline() {
        const error = this.isDoubtful()
            ? deadlinePassed("unknown", "the deadline has passed, and the hub has not said what became of the event")
            : deadlinePassed("refused", "the deadline has passed before the event could be sent: it was not published");
        return this.items.map((item) => item.result ?? error);
    }
    results() {
        return this.items.map((item) => item.result ?? noAnswer());
    }
    excess(mostEvents, mostBytes) {
        const { events, bytes } = amountOf(this.pending());
        if (events <= mostEvents && bytes <= mostBytes) {
            return undefined;
        }
        const text = `${events} events of ${bytes} bytes are too much for one publish: this hub takes ${mostEvents} of ` +
            `${mostBytes} bytes in JSON`;
        return failure("refused", "INVALID_ARGUMENT", "EVENT_TOO_LARGE", text);
    }
}
function isFailure(outcome) {
    return outcome instanceof Error;
}
function outcomeOf(result) {
    if (result === undefined) {
        return noAnswer();
    }
    return result.status === undefined ? publishedOf(result) : ofStatus("refused", result.status);
}
function publishedOf(result) {
    const matched = count(result.matched);
    if (result.stream === undefined || result.stream === "") {
        return { kind: "live", matched };
    }
    return {
        kind: "stored",
        stream: result.stream,
        sequence: exact(result.sequence),
        epoch: exact(result.epoch),
        duplicate: result.duplicate === true,
        durability: result.durability ?? "DURABILITY_UNSPECIFIED",
        matched,
    };
}
function isTransient(error, renews) {
    return error.code === "UNAVAILABLE" || (renews && error.code === "UNAUTHENTICATED");
}
function noAnswer() {
    return failure("unknown", "UNKNOWN", "NO_ANSWER", "the hub did not say what became of the event");
}
function deadlinePassed(kind, text) {
    return failure(kind, "DEADLINE_EXCEEDED", "DEADLINE_PASSED", text);
}

// state.ts

function isOver(state) {
    return state === "closed" || state === "failed";
}

// core.ts

const MOST_TIMER = 2 ** 31 - 1;
class Core {
    machine;
    logger;
    ring = () => undefined;
    began = performance.now();
    bells = new Map();
    publishers = new Map();
    settlers = new Map();
    listeners = new Set();
    line = [];
    untold = [];
    isTelling = false;
    constructor(machine, logger) {
        this.machine = machine;
        this.logger = logger;
    }
    now() {
        return performance.now() - this.began;
    }
    with(act) {
        try {
            return act(this.machine, this.now());
        }
        finally {
            this.spread();
        }
    }
    call(act) {
        const done = this.with(act);
        this.ring();
        return done;
    }
    spread() {
        const { news } = this.machine;
        if (news.length === 0) {
            return;
        }
        let hasRoom = false;
        for (const one of news.splice(0)) {
            switch (one.of) {
                case "subscription":
                    this.ringBell(one.id);
                    break;
                case "published":
                    this.publishers.get(one.ticket)?.(one.results);
                    this.publishers.delete(one.ticket);
                    break;
                case "settled":
                    this.settlers.get(one.ticket)?.(one.error);
                    this.settlers.delete(one.ticket);
                    break;
                case "room":
                    hasRoom = true;
                    break;
                case "state":
                    hasRoom ||= isOver(one.status.state);
                    this.untold.push(one.status);
            }
        }
        if (hasRoom) {
            this.admit();
        }
        this.tellStates();
    }
    tellStates() {
        if (this.isTelling) {
            return;
        }
        this.isTelling = true;
        for (let status = this.untold.shift(); status !== undefined; status = this.untold.shift()) {
            this.log(status);
            for (const hears of [...this.listeners]) {
                try {
                    hears(status);
                }
                catch (error) {
                    this.warn(`one that hears of states has failed: ${String(error)}`);
                }
            }
        }
        this.isTelling = false;
    }
    log({ state, address, sessionId, attempt, reason }) {
        const why = reason === undefined ? "" : `: ${reason.message}`;
        const text = `switchyard: ${state} ${address} session=${sessionId} attempt=${attempt}${why}`;
        if (state === "failed") {
            this.logger?.error(text);
        }
        else if (state === "waiting") {
            this.logger?.warn(text);
        }
        else {
            this.logger?.info(text);
        }
    }
    warn(text) {
        this.logger?.warn(`switchyard: ${text}`);
    }
    onState(hears) {
        this.listeners.add(hears);
        return () => this.listeners.delete(hears);
    }
    ringBell(id) {
        const waiting = this.bells.get(id);
        if (waiting !== undefined) {
            this.bells.delete(id);
            for (const wake of waiting) {
                wake();
            }
        }
    }
    changed(id) {
        return new Promise((resolve) => {
            const waiting = this.bells.get(id) ?? new Set();
            waiting.add(resolve);
            this.bells.set(id, waiting);
        });
    }
    subscribe(spec, token) {
        return this.call((machine) => machine.subscribe(spec, token));
    }
    publish(call) {
        if (this.line.length > 0) {
            return undefined;
        }
        return this.enqueue(call);
    }
    enqueue(call) {
        const ticket = this.call((machine) => machine.publish(call));
        if (ticket === undefined) {
            return undefined;
        }
        return new Promise((resolve) => this.publishers.set(ticket, resolve));
    }
    publishSoon(call) {
        const answer = this.publish(call);
        if (answer !== undefined) {
            return Promise.resolve({ answer });
        }
        return new Promise((resolve, reject) => {
            const waiting = { call, resolve: (taken) => resolve({ answer: taken }), reject, timer: undefined };
            this.line.push(waiting);
            this.watch(waiting);
        });
    }
    watch(waiting) {
        const left = waiting.call.deadline - this.now();
        if (left <= 0) {
            this.line = this.line.filter((other) => other !== waiting);
            const text = "the queue of publishes was full until the deadline: the event was not published";
            waiting.reject(deadlinePassed("refused", text));
        }
        else {
            waiting.timer = setTimeout(() => this.watch(waiting), Math.min(left, MOST_TIMER));
        }
    }
    admit() {
        for (let first = this.line[0]; first !== undefined; first = this.line[0]) {
            try {
                const answer = this.enqueue(first.call);
                if (answer === undefined) {
                    return;
                }
                first.resolve(answer);
            }
            catch (error) {
                first.reject(error);
            }
            clearTimeout(first.timer);
            this.line.shift();
        }
    }
    settle(hold, verdict) {
        this.call((machine, now) => machine.table.settleEvent(now, hold, verdict, undefined));
    }
    settleAndTell(hold, verdict) {
        return this.call((machine, now) => {
            const ticket = machine.ticket();
            if (!machine.table.settleEvent(now, hold, verdict, ticket)) {
                return undefined;
            }
            return new Promise((resolve) => this.settlers.set(ticket, resolve));
        });
    }
    over() {
        const { status } = this.machine;
        if (isOver(status.state)) {
            return Promise.resolve(status.state === "failed" ? (status.reason ?? closed()) : undefined);
        }
        return new Promise((resolve) => {
            const stop = this.onState(({ state, reason }) => {
                if (isOver(state)) {
                    stop();
                    resolve(state === "failed" ? (reason ?? closed()) : undefined);
                }
            });
        });
    }
}

// driver.ts

const DRAIN_POLL = 10;
class Driver {
    core;
    links;
    finished;
    over;
    link;
    opening;
    timer;
    timerAt = Infinity;
    willLook = false;
    doubts = false;
    isOver = false;
    constructor(core, links) {
        this.core = core;
        this.links = links;
        let finished = () => undefined;
        this.over = new Promise((resolve) => {
            finished = resolve;
        });
        this.finished = finished;
        core.with((machine) => machine.drive());
        core.ring = () => this.lookSoon();
        this.lookSoon();
    }
    lookSoon() {
        if (!this.willLook && !this.isOver) {
            this.willLook = true;
            queueMicrotask(() => {
                this.willLook = false;
                this.look();
            });
        }
    }
    look() {
        if (this.isOver) {
            return;
        }
        if (this.link !== undefined) {
            this.serve(this.link);
        }
        else if (this.opening !== undefined) {
            this.watch(this.opening);
        }
        else {
            this.follow();
        }
    }
    follow() {
        const plan = this.core.with((machine, now) => machine.plan(now));
        if (plan.to === "rest") {
            this.wakeAt(plan.until);
        }
        else if (plan.to === "open") {
            this.open(plan.address);
        }
        else {
            this.isOver = true;
            clearTimeout(this.timer);
            this.core.ring = () => undefined;
            this.finished(plan.error);
        }
    }
    open(address) {
        const opening = new AbortController();
        this.opening = opening;
        const opened = this.links.open(address, opening.signal);
        opened.then(({ link, life, took }) => {
            if (this.opening !== opening) {
                link.abort();
                return;
            }
            this.opening = undefined;
            this.link = link;
            this.core.with((machine, now) => machine.connected(now, life, took));
            link.start({ frame: (response) => this.frame(link, response), lost: (loss) => this.lost(link, loss) });
            this.lookSoon();
        }, (error) => {
            if (this.opening === opening) {
                this.opening = undefined;
                this.core.with((machine, now) => machine.lost(now, { failed: asError(error) }));
                this.lookSoon();
            }
        });
        this.watch(opening);
    }
    watch(opening) {
        const due = this.core.with((machine, now) => machine.opening(now));
        if (due === undefined) {
            this.opening = undefined;
            opening.abort();
            this.follow();
        }
        else {
            this.wakeAt(due);
        }
    }
    serve(link) {
        const turn = this.core.with((machine, now) => machine.turn(now));
        if (turn.cut !== undefined) {
            this.lost(link, turn.cut);
            return;
        }
        if (turn.fetch !== undefined) {
            this.fetch(turn.fetch);
        }
        if (turn.writes) {
            this.core.with((machine, now) => {
                while (!link.isFull()) {
                    const frame = machine.write(now);
                    if (frame === undefined) {
                        return;
                    }
                    link.write(frame);
                }
            });
        }
        if (turn.halfCloses) {
            link.halfClose();
        }
        const isHeldUp = link.isFull();
        this.wakeAt(isHeldUp ? Math.min(turn.wakeAt, this.core.now() + DRAIN_POLL) : turn.wakeAt);
    }
    frame(link, response) {
        if (this.link === link) {
            this.core.with((machine, now) => machine.frame(now, Date.now(), response));
            this.lookSoon();
        }
    }
    lost(link, loss) {
        if (this.link === link) {
            this.link = undefined;
            link.abort();
            this.core.with((machine, now) => machine.lost(now, loss));
            this.lookSoon();
        }
    }
    fetch(session) {
        const fetched = this.links.fetchToken().catch((error) => {
            this.core.warn(`no fresh token: ${asError(error).message}`);
            return undefined;
        });
        void fetched.then((token) => {
            if (!this.core.with((machine, now) => machine.fetched(now, session, token))) {
                this.core.warn("the source gave no token that a hub takes; it is asked again");
            }
            this.lookSoon();
        });
    }
    wakeAt(at) {
        if (at >= this.timerAt || at === Infinity) {
            return;
        }
        clearTimeout(this.timer);
        this.timerAt = at;
        const wait = Math.min(Math.max(Math.ceil(at - this.core.now()), 0), MOST_TIMER);
        this.timer = setTimeout(() => this.rang(), wait);
    }
    rang() {
        this.timerAt = Infinity;
        const { link } = this;
        if (link !== undefined && !this.doubts && this.core.machine.turnsSilent() <= this.core.now()) {
            this.doubts = true;
            setTimeout(() => this.judge(link), 0);
        }
        this.look();
    }
    judge(link) {
        this.doubts = false;
        if (this.link === link && this.core.with((machine, now) => machine.isSilent(now))) {
            this.lost(link, "silent");
        }
        this.lookSoon();
    }
}
function asError(error) {
    return error instanceof SwitchyardError ? error : failure("lost", "UNAVAILABLE", "NOT_CONNECTED", String(error));
}

// event.ts

function encode(event, sender) {
    const wire = wireEvent(event);
    if (wire.id === undefined) {
        wire.id = sender.newId();
        if (wire.source === undefined && sender.name !== "") {
            wire.source = sender.name;
        }
    }
    if (sender.traceContext !== undefined) {
        const attributes = { ...wire.attributes };
        sender.traceContext(attributes);
        if (Object.keys(attributes).length > 0) {
            wire.attributes = attributes;
        }
    }
    const { id, topic, source } = wire;
    const json = JSON.stringify(wire);
    return { json, bytes: utf8Length(json) + 1, key: JSON.stringify({ id, topic, source }) };
}
function wireEvent(event) {
    const payloads = [event.text, event.data, event.json].filter((payload) => payload !== undefined);
    if (payloads.length > 1) {
        throw invalid("event", "has more than one of text, data and json");
    }
    const wire = { topic: event.topic };
    for (const name of ["id", "source", "type", "key", "contentType"]) {
        const value = event[name];
        if (value !== undefined && value !== "") {
            wire[name] = value;
        }
    }
    if (event.time !== undefined) {
        wire.time = event.time.toISOString();
    }
    if (event.ttlMs !== undefined) {
        wire.ttl = duration(event.ttlMs);
    }
    if (event.attributes !== undefined) {
        wire.attributes = { ...event.attributes };
    }
    if (event.text !== undefined) {
        wire.text = event.text;
    }
    else if (event.data !== undefined) {
        wire.data = toBase64(event.data);
    }
    else if (event.json !== undefined) {
        wire.text = JSON.stringify(event.json);
        wire.contentType ??= "application/json";
    }
    return wire;
}
class Received {
    wire;
    event;
    constructor(wire) {
        this.wire = wire;
        this.event = wire.event ?? {};
    }
    get topic() {
        return this.event.topic ?? "";
    }
    get id() {
        return this.event.id ?? "";
    }
    get source() {
        return this.event.source ?? "";
    }
    get type() {
        return this.event.type ?? "";
    }
    get key() {
        return this.event.key ?? "";
    }
    get contentType() {
        return this.event.contentType ?? "";
    }
    get time() {
        return dateOf(this.event.time);
    }
    get attributes() {
        return this.event.attributes ?? {};
    }
    get text() {
        return this.event.text;
    }
    get data() {
        const { text, data } = this.event;
        return text !== undefined ? new TextEncoder().encode(text) : fromBase64(data ?? "");
    }
    json() {
        return JSON.parse(this.event.text ?? new TextDecoder().decode(this.data));
    }
    get stream() {
        return this.wire.stream ?? "";
    }
    get sequence() {
        return exact(this.wire.sequence);
    }
    get appendTime() {
        return dateOf(this.wire.appendTime);
    }
    get attempt() {
        return this.wire.attempt ?? 0;
    }
    get isRedelivered() {
        return this.wire.redelivered === true;
    }
    get lastFailure() {
        return this.wire.lastFailure ?? "";
    }
}
function dateOf(time) {
    return time === undefined ? undefined : new Date(time);
}
const CHUNK = 8192;
function toBase64(bytes) {
    let text = "";
    for (let at = 0; at < bytes.length; at += CHUNK) {
        text += String.fromCharCode(...bytes.subarray(at, at + CHUNK));
    }
    return btoa(text);
}
function toBase64Url(text) {
    return toBase64(new TextEncoder().encode(text)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}
function fromBase64(text) {
    return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

// ids.ts

function uuid7(at, random) {
    const bytes = random.slice(0, 16);
    for (let byte = 0; byte < 6; byte += 1) {
        bytes[byte] = Math.floor(at / 2 ** (8 * (5 - byte))) % 256;
    }
    bytes[6] = 0x70 | (bytes[6] & 0x0f);
    bytes[8] = 0x80 | (bytes[8] & 0x3f);
    const text = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
    return `${text.slice(0, 8)}-${text.slice(8, 12)}-${text.slice(12, 16)}-${text.slice(16, 20)}-${text.slice(20)}`;
}
function newId() {
    return uuid7(Date.now(), crypto.getRandomValues(new Uint8Array(16)));
}

// event-stream.ts

const MOST_TEXT = 16 * 1024 * 1024;
class StreamParser {
    decoder = new TextDecoder();
    rest = "";
    name = "";
    data = [];
    id = "";
    take(bytes) {
        const lines = (this.rest + this.decoder.decode(bytes, { stream: true })).split(/\r\n|\n|\r(?!$)/);
        this.rest = lines.pop() ?? "";
        if (this.rest.length > MOST_TEXT) {
            throw new Error("a message has no end");
        }
        return lines.map((line) => this.line(line)).filter((message) => message !== undefined);
    }
    line(line) {
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
        }
        else if (field === "event") {
            this.name = value;
        }
        else if (field === "id" && !value.includes("\0")) {
            this.id = value;
        }
        return undefined;
    }
}

// http.ts

function errorOfAnswer(httpStatus, body) {
    const status = statusOfAnswer(body);
    return status === undefined ? notConnected(`the answer has the status ${httpStatus}`) : ofStatus("lost", status);
}
function statusOfAnswer(body) {
    try {
        const status = JSON.parse(body);
        return typeof status?.code === "number" && status.code > 0 ? status : undefined;
    }
    catch {
        return undefined;
    }
}
function notConnected(why) {
    return failure("lost", "UNAVAILABLE", "NOT_CONNECTED", why);
}

// size.ts

function sizesOf(frame) {
    const sizes = (frame.events ?? []).map(sizeOf);
    const told = count(frame.creditBytes);
    if (told > 0 && sizes.length > 0) {
        const counted = sizes.reduce((sum, size) => sum + size, 0);
        sizes[sizes.length - 1] = Math.max(sizes.at(-1) + told - counted, 0);
    }
    return sizes;
}
function sizeOf(received) {
    const body = field(eventSize(received.event ?? {})) +
        textField(received.stream) +
        integerField(received.sequence) +
        timeField(received.appendTime) +
        integerField(received.attempt) +
        textField(received.lastFailure) +
        (received.redelivered === true ? 2 : 0);
    return field(body);
}
function eventSize(event) {
    let size = textField(event.id) +
        textField(event.topic) +
        textField(event.type) +
        textField(event.source) +
        timeField(event.time) +
        textField(event.key) +
        textField(event.contentType) +
        durationField(event.ttl);
    for (const name in event.attributes) {
        size += field(field(utf8Length(name)) + field(utf8Length(event.attributes[name] ?? "")));
    }
    if (event.text !== undefined) {
        size += field(utf8Length(event.text));
    }
    else if (event.data !== undefined) {
        size += field(base64Length(event.data));
    }
    return size;
}
function field(length) {
    return 1 + varint(length) + length;
}
function textField(text) {
    return text === undefined || text === "" ? 0 : field(utf8Length(text));
}
function integerField(value) {
    const number = Number(value ?? 0);
    return number === 0 ? 0 : 1 + varint(number);
}
function timeField(time) {
    if (time === undefined) {
        return 0;
    }
    const fraction = /\.(\d+)/.exec(time)?.[1] ?? "";
    const seconds = Math.floor(Date.parse(time) / 1000);
    return field(integerField(seconds) + integerField(Number(fraction.padEnd(9, "0"))));
}
function durationField(duration) {
    if (duration === undefined) {
        return 0;
    }
    const [seconds = "0", fraction = ""] = duration.slice(0, -1).split(".");
    return field(integerField(seconds) + integerField(Number(fraction.padEnd(9, "0"))));
}
function base64Length(text) {
    const padding = text.endsWith("==") ? 2 : text.endsWith("=") ? 1 : 0;
    return Math.floor((text.length * 3) / 4) - padding;
}
function varint(value) {
    if (value < 0) {
        return 10;
    }
    let bytes = 1;
    for (let rest = value; rest >= 128; rest = Math.floor(rest / 128)) {
        bytes += 1;
    }
    return bytes;
}

// events-link.ts

const LONGEST_WITHOUT_WEBSOCKET = 5 * 60_000;
const MOST_POSTS = 2;
const ASKS_AGAIN = "30s";
const USUAL_HEARTBEAT = 15_000;
const PUBLISH = /^\{"requestId":"(\d+)","publish":(.*)\}$/s;
const STARTS = {
    START_PRESET_NEW: "new",
    START_PRESET_EARLIEST: "earliest",
    START_PRESET_LAST_PER_TOPIC: "last_per_topic",
};
const GAP_CHOICES = {
    GAP_POLICY_FAIL: "fail",
    GAP_POLICY_EARLIEST: "earliest",
    GAP_POLICY_LATEST: "latest",
};
const OVERFLOW_CHOICES = {
    OVERFLOW_POLICY_DROP_OLDEST: "drop_oldest",
    OVERFLOW_POLICY_CONFLATE: "conflate",
    OVERFLOW_POLICY_END: "end",
};
function queryOf(spec) {
    const { preset, afterSequence, resumeToken, atTime } = spec.start ?? {};
    if (spec.group !== undefined || atTime !== undefined) {
        return undefined;
    }
    const query = new URLSearchParams();
    const add = (name, value) => {
        if (value !== undefined) {
            query.append(name, value);
        }
    };
    add("stream", spec.stream);
    spec.filters?.forEach((filter) => add("filter", filter));
    add("start", STARTS[preset ?? ""]);
    add("after", afterSequence === undefined ? undefined : String(afterSequence));
    add("on_gap", GAP_CHOICES[spec.onGap ?? ""]);
    add("overflow", OVERFLOW_CHOICES[spec.overflow ?? ""]);
    add("limit", spec.maxEvents === undefined ? undefined : String(spec.maxEvents));
    return { query, cursor: resumeToken };
}
class EventsLink {
    endpoint;
    hears;
    readers = new Map();
    stop = new AbortController();
    posts = 0;
    lastPost = Promise.resolve();
    timer;
    heartbeat = USUAL_HEARTBEAT;
    began = Date.now();
    isDraining = false;
    constructor(endpoint) {
        this.endpoint = endpoint;
    }
    start(hears) {
        this.hears = hears;
        this.beat();
        const sessionId = `requests-${crypto.getRandomValues(new Uint32Array(2)).join("-")}`;
        this.soon({ welcome: { sessionId } });
    }
    beat() {
        this.timer = setTimeout(() => {
            if (this.posts === 0 && this.readers.size === 0) {
                this.tell({ heartbeat: {} });
            }
            if (!this.isDraining && Date.now() - this.began >= LONGEST_WITHOUT_WEBSOCKET) {
                this.isDraining = true;
                this.tell({ draining: { reconnectDelay: "0s" } });
            }
            this.beat();
        }, this.heartbeat);
    }
    isFull() {
        return this.posts >= MOST_POSTS;
    }
    write(frame) {
        const publish = PUBLISH.exec(frame);
        if (publish !== null) {
            this.post(publish[1], publish[2]);
            return;
        }
        const command = JSON.parse(frame);
        if (command.hello !== undefined) {
            this.heartbeat = millis(command.hello.heartbeatInterval) ?? USUAL_HEARTBEAT;
        }
        else if (command.authenticate !== undefined) {
            this.endpoint.token = command.authenticate.token;
        }
        else if (command.subscribe !== undefined) {
            this.subscribe(count(command.subscribe.subscriptionId), command.subscribe.spec);
        }
        else if (command.credit !== undefined) {
            this.readers.get(count(command.credit.subscriptionId))?.grant(command.credit.credit);
        }
        else if (command.unsubscribe !== undefined) {
            this.unsubscribe(count(command.unsubscribe.subscriptionId));
        }
        else if (command.acknowledge !== undefined) {
            this.soon({ requestId: command.requestId ?? 0, error: needsWebSocket() });
        }
    }
    halfClose() {
        void this.lastPost.then(() => this.hears?.lost("ended"));
    }
    abort() {
        this.hears = undefined;
        clearTimeout(this.timer);
        this.stop.abort();
    }
    tell(response) {
        this.hears?.frame(response);
    }
    soon(response) {
        queueMicrotask(() => this.tell(response));
    }
    lose(error) {
        const why = error instanceof Error ? error.message : String(error);
        this.hears?.lost({ failed: failure("lost", "UNAVAILABLE", "NOT_CONNECTED", why) });
    }
    subscribe(id, spec) {
        const asked = queryOf(spec);
        if (asked === undefined) {
            const retry = { retry: true, delay: ASKS_AGAIN };
            this.soon({ ended: { subscriptionId: id, status: needsWebSocket(), reason: "END_REASON_CONFIG_MISMATCH", retry } });
            return;
        }
        const reader = new StreamReader(id, spec.credit ?? {}, (response) => this.tell(response));
        this.readers.set(id, reader);
        const headers = { accept: "text/event-stream", ...(asked.cursor !== undefined && { "last-event-id": asked.cursor }) };
        const signal = AbortSignal.any([this.stop.signal, reader.stop.signal]);
        this.request(`/v1/events?${asked.query}`, { headers, signal }).then((response) => this.read(id, reader, response), (error) => this.readFailed(reader, error));
    }
    async read(id, reader, response) {
        try {
            if (response.status !== 200 || response.body === null) {
                const other = { code: 14, message: `an event stream was answered with ${response.status}` };
                this.refused(id, statusOfAnswer(await response.text()) ?? other);
                return;
            }
            await reader.read(response.body);
            if (reader.hasEnded) {
                this.readers.delete(id);
            }
            else {
                throw new Error("an event stream has ended without saying why");
            }
        }
        catch (error) {
            this.readFailed(reader, error);
        }
    }
    refused(id, status) {
        this.readers.delete(id);
        const { reason, retryable, retryAfterMs = 0 } = ofStatus("ended", status);
        const retry = { retry: retryable, delay: duration(retryAfterMs) };
        this.tell({ ended: { subscriptionId: id, status, reason: `END_REASON_${reason}`, retry } });
    }
    readFailed(reader, error) {
        if (!reader.stop.signal.aborted && !reader.hasEnded) {
            this.lose(error);
        }
    }
    unsubscribe(id) {
        this.readers.get(id)?.stop.abort();
        this.readers.delete(id);
        this.soon({ ended: { subscriptionId: id, reason: "END_REASON_CLIENT_UNSUBSCRIBED" } });
    }
    post(requestId, body) {
        this.posts += 1;
        this.lastPost = this.lastPost.then(async () => {
            try {
                const headers = { "content-type": "application/json" };
                const answer = await this.request("/v1/publish", { method: "POST", headers, body, signal: this.stop.signal });
                const text = await answer.text();
                this.posts -= 1;
                if (answer.status === 200) {
                    this.tell({ requestId, published: JSON.parse(text) });
                    return;
                }
                const status = statusOfAnswer(text);
                if (status === undefined) {
                    throw new Error(`a publish was answered with ${answer.status}`);
                }
                this.tell({ requestId, error: status });
            }
            catch (error) {
                this.lose(error);
            }
        });
    }
    request(path, init) {
        const { fetch: send, address, token } = this.endpoint;
        const headers = token === undefined ? init.headers : { ...init.headers, authorization: `Bearer ${token}` };
        return send(`${address}${path}`, { ...init, headers, cache: "no-store", redirect: "error" });
    }
}
function needsWebSocket() {
    const reason = { "@type": "type.googleapis.com/google.rpc.ErrorInfo", reason: "NEEDS_WEBSOCKET" };
    const message = "groups and starts at a time need a WebSocket, and none comes through to the hub";
    return { code: 9, message, details: [reason] };
}
class StreamReader {
    id;
    tell;
    stop = new AbortController();
    hasEnded = false;
    events;
    bytes;
    resume = () => undefined;
    constructor(id, credit, tell) {
        this.id = id;
        this.tell = tell;
        this.events = count(credit.events);
        this.bytes = count(credit.bytes);
    }
    grant(credit) {
        this.events += count(credit.events);
        this.bytes += count(credit.bytes);
        this.resume();
    }
    async read(body) {
        const parser = new StreamParser();
        const source = body.getReader();
        try {
            for (;;) {
                const { done, value } = await source.read();
                if (done) {
                    return;
                }
                const messages = parser.take(value);
                if (messages.length === 0) {
                    this.tell({ heartbeat: {} });
                }
                await this.pass(messages);
            }
        }
        finally {
            source.cancel().catch(() => undefined);
        }
    }
    async pass(messages) {
        let some = [];
        let token = "";
        const flush = () => {
            if (some.length > 0) {
                this.tell({ events: { subscriptionId: this.id, events: some, resumeToken: token } });
                some = [];
            }
        };
        for (const { name, data, id } of messages) {
            if (name !== "") {
                flush();
                this.named(name, data, id);
                continue;
            }
            while (this.events <= 0 || this.bytes <= 0) {
                flush();
                await new Promise((resolve) => {
                    this.resume = resolve;
                });
            }
            const event = JSON.parse(data);
            this.events -= 1;
            this.bytes -= sizesOf({ events: [event] })[0] ?? 0;
            some.push(event);
            token = id;
        }
        flush();
    }
    named(name, data, id) {
        if (name === "welcome") {
            return;
        }
        const frame = { ...JSON.parse(data), subscriptionId: this.id };
        if (name === "ended") {
            this.hasEnded = true;
        }
        const isPlaced = name === "progress" && id !== "";
        this.tell({ [name]: isPlaced ? { ...frame, resumeToken: id } : frame });
    }
}

// machine/backoff.ts

const MOST_DOUBLINGS = 31;
class Backoff {
    shortest;
    longest;
    random;
    tries = 0;
    constructor(shortest, longest, random) {
        this.shortest = shortest;
        this.longest = longest;
        this.random = random;
    }
    next(longest = this.longest) {
        const ceiling = Math.min(this.shortest * 2 ** Math.min(this.tries, MOST_DOUBLINGS), longest);
        this.tries += 1;
        return ceiling * this.random();
    }
    reset() {
        this.tries = 0;
    }
}
function shuffle(all, random) {
    for (let at = all.length - 1; at > 0; at -= 1) {
        const other = Math.floor(random() * (at + 1));
        [all[at], all[other]] = [all[other], all[at]];
    }
}

// machine/addresses.ts

const MOST_LEARNED = 64;
const MAX_NAMED_BYTES = 256;
class Addresses {
    random;
    all;
    given;
    at = 0;
    constructor(given, random) {
        this.random = random;
        this.all = [...given];
        shuffle(this.all, random);
        this.given = this.all.length;
    }
    current() {
        return this.all[this.at] ?? "";
    }
    get count() {
        return this.all.length;
    }
    next() {
        this.at = (this.at + 1) % Math.max(this.all.length, 1);
    }
    learn(others) {
        const named = others.filter((other) => this.mayFollow(other));
        shuffle(named, this.random);
        for (const other of named) {
            if (!this.all.includes(other)) {
                this.makeRoom();
                this.all.push(other);
            }
        }
    }
    mayFollow(other) {
        const needsSafety = isOfTls(this.current());
        const isSafe = other.startsWith("https://");
        return other.length <= MAX_NAMED_BYTES && (isSafe || (other.startsWith("http://") && !needsSafety));
    }
    makeRoom() {
        if (this.all.length - this.given < MOST_LEARNED) {
            return;
        }
        const oldest = this.at === this.given ? this.given + 1 : this.given;
        this.all.splice(oldest, 1);
        if (this.at > oldest) {
            this.at -= 1;
        }
    }
}
function isOfTls(address) {
    return address.startsWith("https://") || address.startsWith("wss://");
}

// machine/losses.ts

const MOST_REASONS = 64;
class Losses {
    counts = new Map();
    count(error) {
        let reason = error.reason === "" ? error.code : error.reason;
        if (!this.counts.has(reason) && this.counts.size >= MOST_REASONS) {
            reason = "OTHER";
        }
        this.counts.set(reason, (this.counts.get(reason) ?? 0) + 1);
    }
    all() {
        return Object.fromEntries(this.counts);
    }
}

// machine/heap.ts

class Heap {
    all = [];
    get size() {
        return this.all.length;
    }
    first() {
        return this.all[0];
    }
    push(at, id) {
        const { all } = this;
        let hole = all.length;
        all.push({ at, id });
        while (hole > 0) {
            const parent = (hole - 1) >> 1;
            if (all[parent].at <= at) {
                break;
            }
            all[hole] = all[parent];
            hole = parent;
        }
        all[hole] = { at, id };
    }
    pop() {
        const { all } = this;
        const first = all[0];
        const last = all.pop();
        if (first === undefined || last === undefined || all.length === 0) {
            return first;
        }
        let hole = 0;
        for (;;) {
            let child = 2 * hole + 1;
            if (child >= all.length) {
                break;
            }
            if (child + 1 < all.length && all[child + 1].at < all[child].at) {
                child += 1;
            }
            if (all[child].at >= last.at) {
                break;
            }
            all[hole] = all[child];
            hole = child;
        }
        all[hole] = last;
        return first;
    }
    retain(keeps) {
        const kept = this.all.filter(({ at, id }) => keeps(id, at));
        this.all = kept.sort((one, other) => one.at - other.at);
    }
    clear() {
        this.all = [];
    }
}

// machine/tickets.ts

class Tickets {
    all = [];
    head = 0;
    first() {
        return this.all[this.head];
    }
    add(ticket) {
        const last = this.all.at(-1);
        if (last === undefined || last < ticket || this.head === this.all.length) {
            this.all.push(ticket);
            return;
        }
        const at = this.find(ticket);
        if (this.all[at] === ticket) {
            return;
        }
        if (at === this.head && at > 0) {
            this.head -= 1;
            this.all[this.head] = ticket;
        }
        else {
            this.all.splice(at, 0, ticket);
        }
    }
    remove(ticket) {
        const at = this.find(ticket);
        if (this.all[at] !== ticket) {
            return;
        }
        if (at !== this.head) {
            this.all.splice(at, 1);
            return;
        }
        this.head += 1;
        if (this.head === this.all.length || this.head >= 1024) {
            this.all = this.all.slice(this.head);
            this.head = 0;
        }
    }
    *[Symbol.iterator]() {
        for (let at = this.head; at < this.all.length; at += 1) {
            yield this.all[at];
        }
    }
    find(ticket) {
        let [low, high] = [this.head, this.all.length];
        while (low < high) {
            const middle = (low + high) >> 1;
            if (this.all[middle] < ticket) {
                low = middle + 1;
            }
            else {
                high = middle;
            }
        }
        return low;
    }
}

// machine/publishes.ts

const MOST_REQUESTS = 64;
const MOST_TOGETHER = { events: 500, bytes: 512 * 1024 };
const FRAME_OVERHEAD = 160;
const USUAL_LIMITS = { frameBytes: 4 * 1024 * 1024, events: 10_000 };
const REWRITE_WAITS = { shortest: 100, longest: 5000 };
const NEVER = { lastSequence: "9223372036854775807" };
class Publishes {
    most;
    renews;
    heldEvents = 0;
    heldBytes = 0;
    all = new Map();
    queue = new Tickets();
    questions = new Map();
    sent = new Map();
    deadlines = new Heap();
    next = 1;
    notBefore = 0;
    backoff;
    isEnding = false;
    mostFrameBytes = USUAL_LIMITS.frameBytes;
    mostEvents = USUAL_LIMITS.events;
    constructor(most, renews, random) {
        this.most = most;
        this.renews = renews;
        this.backoff = new Backoff(REWRITE_WAITS.shortest, REWRITE_WAITS.longest, random);
    }
    fits(amount) {
        return amount.events <= this.most.events && amount.bytes <= this.most.bytes;
    }
    hasRoom(amount) {
        const { events, bytes } = this.most;
        return this.heldEvents + amount.events <= events && this.heldBytes + amount.bytes <= bytes;
    }
    add(call) {
        const ticket = this.next;
        this.next += 1;
        const entry = new Entry(call);
        this.heldEvents += entry.amount.events;
        this.heldBytes += entry.amount.bytes;
        this.all.set(ticket, entry);
        this.queue.add(ticket);
        this.deadlines.push(entry.deadline, ticket);
        return ticket;
    }
    sessionBegins(limits) {
        this.mostFrameBytes = count(limits?.maxFrameBytes) || USUAL_LIMITS.frameBytes;
        this.mostEvents = count(limits?.maxPublishEvents) || USUAL_LIMITS.events;
        this.isEnding = false;
    }
    sessionLost(news) {
        const again = new Set(this.questions.keys());
        this.questions.clear();
        for (const sent of this.sent.values()) {
            for (const ticket of "calls" in sent ? sent.calls : [sent.call]) {
                again.add(ticket);
            }
        }
        this.sent.clear();
        this.notBefore = 0;
        this.isEnding = false;
        for (const ticket of again) {
            const entry = this.all.get(ticket);
            if (entry !== undefined) {
                entry.sessionLost();
                this.queueAgain(ticket, entry, news);
            }
        }
    }
    beQuiet(isQuiet) {
        this.isEnding = isQuiet;
    }
    isQuiet() {
        return this.sent.size === 0;
    }
    hasWrites(now) {
        const first = this.first();
        if (first === undefined || this.isEnding || now < this.notBefore || this.sent.size >= MOST_REQUESTS) {
            return false;
        }
        return first.question() !== undefined || this.questions.size === 0;
    }
    first() {
        const ticket = this.queue.first();
        return ticket === undefined ? undefined : this.all.get(ticket);
    }
    write(now, requests, news) {
        while (this.hasWrites(now)) {
            const ticket = this.queue.first();
            const entry = this.all.get(ticket);
            const at = entry.question();
            if (at !== undefined) {
                return this.ask(ticket, entry, at, requests);
            }
            const excess = entry.excess(this.mostEvents, this.mostFrameBytes - FRAME_OVERHEAD);
            if (excess === undefined) {
                return this.writeCalls(requests);
            }
            entry.fill(excess);
            this.finish(ticket, entry, news);
        }
        return undefined;
    }
    ask(ticket, entry, at, requests) {
        const request = requests.open({ to: "publish" });
        this.sent.set(request, { call: ticket, at });
        this.questions.set(ticket, (this.questions.get(ticket) ?? 0) + 1);
        entry.know(at, "asked");
        if (entry.question() === undefined) {
            this.queue.remove(ticket);
        }
        return publishFrame(request, [entry.keyOf(at)], NEVER);
    }
    writeCalls(requests) {
        const mostEvents = Math.min(MOST_TOGETHER.events, this.mostEvents);
        const mostBytes = Math.min(MOST_TOGETHER.bytes, this.mostFrameBytes - FRAME_OVERHEAD);
        const calls = [];
        const events = [];
        let bytes = 0;
        for (const ticket of this.queue) {
            const entry = this.all.get(ticket);
            const pending = entry.pending();
            const amount = amountOf(pending);
            const fits = events.length + amount.events <= mostEvents && bytes + amount.bytes <= mostBytes;
            if (calls.length > 0 && (!fits || entry.isAlone() || entry.question() !== undefined)) {
                break;
            }
            calls.push(ticket);
            events.push(...pending.map((event) => event.json));
            bytes += amount.bytes;
            if (entry.isAlone()) {
                break;
            }
        }
        const request = requests.open({ to: "publish" });
        const precondition = this.all.get(calls[0])?.precondition;
        for (const ticket of calls) {
            this.queue.remove(ticket);
            this.all.get(ticket).isInFlight = true;
        }
        this.sent.set(request, { calls });
        return publishFrame(request, events, precondition);
    }
    answered(now, request, results, news) {
        const sent = this.sent.get(request);
        this.sent.delete(request);
        if (sent === undefined) {
            return;
        }
        if ("call" in sent) {
            this.learned(now, sent.call, sent.at, outcomeOf(results[0]), news);
            return;
        }
        let [at, pause] = [0, undefined];
        const next = () => {
            at += 1;
            return results[at - 1];
        };
        for (const ticket of sent.calls) {
            const entry = this.all.get(ticket);
            if (entry === undefined) {
                continue;
            }
            entry.isInFlight = false;
            const told = entry.takeResults(next, this.renews);
            pause = told === undefined ? pause : Math.max(pause ?? 0, told);
            this.queueAgain(ticket, entry, news);
        }
        if (pause === undefined) {
            this.backoff.reset();
        }
        else {
            this.pause(now, pause);
        }
    }
    refused(now, request, error, news) {
        const sent = this.sent.get(request);
        this.sent.delete(request);
        if (sent === undefined) {
            return;
        }
        if ("call" in sent) {
            this.learned(now, sent.call, sent.at, error, news);
            return;
        }
        const again = isTransient(error, this.renews);
        for (const ticket of sent.calls) {
            const entry = this.all.get(ticket);
            if (entry === undefined) {
                continue;
            }
            entry.isInFlight = false;
            if (!again && sent.calls.length > 1) {
                entry.setAlone();
            }
            else if (!again) {
                entry.fill(error);
            }
            this.queueAgain(ticket, entry, news);
        }
        if (again) {
            this.pause(now, error.retryAfterMs ?? 0);
        }
    }
    learned(now, ticket, at, answer, news) {
        const left = (this.questions.get(ticket) ?? 1) - 1;
        if (left > 0) {
            this.questions.set(ticket, left);
        }
        else {
            this.questions.delete(ticket);
        }
        const entry = this.all.get(ticket);
        if (entry === undefined) {
            return;
        }
        if (!isFailure(answer)) {
            entry.set(at, answer);
        }
        else if (answer.reason === "SEQUENCE_MISMATCH") {
            entry.know(at, "inStream");
        }
        else if (answer.reason === "CONFIG_MISMATCH") {
            entry.set(at, noStream());
        }
        else if (isTransient(answer, this.renews)) {
            entry.know(at, "nothing");
            this.pause(now, answer.retryAfterMs ?? 0);
        }
        else {
            entry.set(at, answer.ofKind("unknown"));
        }
        if (left <= 0) {
            this.queueAgain(ticket, entry, news);
        }
    }
    queueAgain(ticket, entry, news) {
        if (entry.isTold || entry.isComplete()) {
            this.finish(ticket, entry, news);
        }
        else {
            this.queue.add(ticket);
        }
    }
    pause(now, told) {
        this.notBefore = Math.max(this.notBefore, now + Math.max(told, this.backoff.next()));
    }
    due(now) {
        const write = this.notBefore > now && this.queue.first() !== undefined ? this.notBefore : Infinity;
        const due = Math.min(this.deadlines.first()?.at ?? Infinity, write);
        return due < Infinity ? due : undefined;
    }
    tick(now, news) {
        for (let first = this.deadlines.first(); first !== undefined && first.at <= now; first = this.deadlines.first()) {
            this.deadlines.pop();
            const entry = this.all.get(first.id);
            if (entry === undefined) {
                continue;
            }
            const results = entry.resultsAtDeadline();
            const isOpen = entry.isInFlight || this.questions.has(first.id);
            entry.isTold = true;
            news.push({ of: "published", ticket: first.id, results });
            if (!isOpen) {
                this.finish(first.id, entry, news);
            }
        }
    }
    finish(ticket, entry, news) {
        this.queue.remove(ticket);
        this.all.delete(ticket);
        this.heldEvents -= entry.amount.events;
        this.heldBytes -= entry.amount.bytes;
        if (!entry.isTold) {
            news.push({ of: "published", ticket, results: entry.results() });
        }
        news.push({ of: "room" });
        if (this.deadlines.size > 2 * this.all.size + 64) {
            this.deadlines.retain((id) => this.all.has(id));
        }
    }
    giveUp(error, news) {
        for (const [ticket, entry] of this.all) {
            entry.giveUp(error);
            this.finish(ticket, entry, news);
        }
        this.sent.clear();
        this.questions.clear();
    }
    isEmpty() {
        return this.all.size === 0;
    }
    held() {
        return { events: this.heldEvents, bytes: this.heldBytes };
    }
    left() {
        let [unknown, unsent] = [0, 0];
        for (const entry of this.all.values()) {
            const events = entry.isTold ? 0 : entry.pending().length;
            if (entry.isDoubtful()) {
                unknown += events;
            }
            else {
                unsent += events;
            }
        }
        return { unknown, unsent };
    }
}
function noStream() {
    const text = "the session was lost before the answer came, and no stream holds the topic: published again, the event could be " +
        "delivered twice";
    return failure("unknown", "UNKNOWN", "NO_STREAM", text);
}

// machine/refresh.ts

const REFRESH_WAITS = { shortest: 500, longest: 30_000 };
const MAX_TOKEN_BYTES = 12_288;
class Refresh {
    hasSource;
    session = 0;
    at;
    isFetching = false;
    fresh;
    knowsLife = false;
    backoff;
    constructor(hasSource, random) {
        this.hasSource = hasSource;
        this.backoff = new Backoff(REFRESH_WAITS.shortest, REFRESH_WAITS.longest, random);
    }
    sessionBegins(now, session, life) {
        this.session = session;
        this.isFetching = false;
        this.fresh = undefined;
        this.knowsLife = life !== undefined;
        this.at = life === undefined ? undefined : now + fourFifths(life);
        this.backoff.reset();
    }
    hubSays(now, life) {
        if (!this.knowsLife) {
            this.at = now + fourFifths(life);
        }
    }
    expiring(now) {
        this.at = Math.min(this.at ?? now, now);
    }
    fetch(now) {
        const due = this.due();
        if (due === undefined || due > now) {
            return undefined;
        }
        this.isFetching = true;
        return this.session;
    }
    fetched(now, session, token) {
        if (session !== this.session || !this.isFetching) {
            return true;
        }
        this.isFetching = false;
        if (token === undefined || token.value === "" || token.value.length > MAX_TOKEN_BYTES) {
            this.refused(now);
            return false;
        }
        this.knowsLife = token.life !== undefined;
        this.at = undefined;
        if (token.life !== undefined) {
            const wait = fourFifths(token.life);
            this.at = now + (wait >= REFRESH_WAITS.shortest ? wait : this.backoff.next());
        }
        this.fresh = token;
        return true;
    }
    hasFresh() {
        return this.fresh !== undefined;
    }
    take() {
        const value = this.fresh?.value;
        this.fresh = undefined;
        return value;
    }
    refused(now) {
        this.at = now + this.backoff.next();
    }
    sessionLost() {
        this.at = undefined;
        this.isFetching = false;
        this.fresh = undefined;
    }
    due() {
        return this.hasSource && !this.isFetching && this.fresh === undefined ? this.at : undefined;
    }
}
function fourFifths(life) {
    return (Math.max(life, 0) / 5) * 4;
}

// machine/requests.ts

const FIRST_REQUEST = 16;
const FIXED_IDS = { hello: 1, authenticate: 2, unsubscribe: 3, credit: 4 };
class Requests {
    upcoming = FIRST_REQUEST;
    all = new Map();
    next() {
        return this.upcoming;
    }
    open(asked) {
        const request = this.upcoming;
        this.upcoming += 1;
        this.all.set(request, asked);
        return request;
    }
    close(request) {
        const asked = this.all.get(request);
        this.all.delete(request);
        return asked;
    }
    clear() {
        this.all.clear();
    }
}

// machine/home.ts

class Home {
    wasAsked = false;
    isAway = false;
    isNew = false;
    found(isBack) {
        this.isAway = false;
        this.isNew = !isBack;
    }
    left() {
        this.isAway = false;
        this.isNew = false;
    }
    lost() {
        this.isAway = true;
        this.isNew = false;
    }
    static isHere(all) {
        let isAnyAway = false;
        for (const one of all) {
            if (one.isNew) {
                return true;
            }
            isAnyAway ||= one.isAway;
        }
        return !isAnyAway;
    }
}

// machine/credit.ts

const NOTHING = { events: 0, bytes: 0 };
class Ledger {
    window;
    heldEvents = 0;
    heldBytes = 0;
    grantedEvents = 0;
    grantedBytes = 0;
    isCounted = false;
    constructor(window) {
        this.window = window;
    }
    begin() {
        this.grantedEvents = 0;
        this.grantedBytes = 0;
        this.isCounted = false;
        return this.grant() ?? NOTHING;
    }
    grant() {
        const events = Math.max(this.window.events - this.heldEvents - this.grantedEvents, 0);
        const bytes = Math.max(this.window.bytes - this.heldBytes - this.grantedBytes, 0);
        const isDue = this.isCounted
            ? (events > 0 && events >= this.grantedEvents) || (bytes > 0 && bytes >= this.grantedBytes)
            : events > 0 && bytes > 0;
        if (!isDue) {
            return undefined;
        }
        this.grantedEvents += events;
        this.grantedBytes += bytes;
        this.isCounted = true;
        return { events, bytes };
    }
    arrived(events, bytes) {
        this.grantedEvents -= events;
        this.grantedBytes -= bytes;
        this.heldEvents += events;
        this.heldBytes += bytes;
    }
    returned(events, bytes) {
        this.heldEvents -= events;
        this.heldBytes -= bytes;
    }
    held() {
        return { events: this.heldEvents, bytes: this.heldBytes };
    }
    isFull() {
        return this.heldEvents >= this.window.events || this.heldBytes >= this.window.bytes;
    }
}

// machine/incoming.ts

const MOST_GAPS = 64;
class Queue {
    all = [];
    head = 0;
    gaps = 0;
    get gapCount() {
        return this.gaps;
    }
    pushEvents(events, batch, token, size) {
        this.all.push({ is: "events", events, batch, token, size });
    }
    pushCaughtUp() {
        if (this.last()?.is !== "caughtUp") {
            this.all.push({ is: "caughtUp" });
        }
    }
    pushGap(missing) {
        const isFull = this.gaps >= MOST_GAPS;
        let last = this.last();
        if (isFull && last?.is !== "gap") {
            last = this.all.findLast((incoming) => incoming.is === "gap");
        }
        if (last?.is === "gap" && (isFull || last.missing.reason === missing.reason)) {
            last.missing = merged(last.missing, missing);
            return;
        }
        this.gaps += 1;
        this.all.push({ is: "gap", missing });
    }
    pop() {
        const incoming = this.all[this.head];
        if (incoming === undefined) {
            return undefined;
        }
        this.head += 1;
        if (this.head === this.all.length) {
            this.all = [];
            this.head = 0;
        }
        else if (this.head >= 64) {
            this.all = this.all.slice(this.head);
            this.head = 0;
        }
        if (incoming.is === "gap") {
            this.gaps -= 1;
        }
        return incoming;
    }
    forgetEvents() {
        this.all = this.all.slice(this.head).filter((incoming) => incoming.is !== "events");
        this.head = 0;
    }
    clear() {
        let size = NOTHING;
        for (const incoming of this.all.slice(this.head)) {
            if (incoming.is === "events") {
                size = { events: size.events + incoming.size.events, bytes: size.bytes + incoming.size.bytes };
            }
        }
        this.all = [];
        this.head = 0;
        this.gaps = 0;
        return size;
    }
    last() {
        return this.all.at(-1);
    }
}
function merged(first, next) {
    const isKnown = first.count !== undefined && next.count !== undefined;
    return {
        reason: first.reason === next.reason ? first.reason : "other",
        count: isKnown ? first.count + next.count : undefined,
        from: first.from ?? next.from,
        to: next.to ?? first.to,
    };
}
function unknownGap(reason) {
    return { reason, count: undefined, from: undefined, to: undefined };
}
const GAP_REASONS = {
    GAP_REASON_OVERFLOW: "overflow",
    GAP_REASON_CONFLATED: "conflated",
    GAP_REASON_RETENTION: "retention",
    GAP_REASON_EPOCH: "epoch",
};
function gapOf(gap) {
    const known = (sequence) => (sequence > 0n ? sequence : undefined);
    const lost = count(gap.count);
    return {
        reason: GAP_REASONS[gap.reason ?? ""] ?? "other",
        count: lost > 0 ? lost : undefined,
        from: known(exact(gap.fromSequence)),
        to: known(exact(gap.toSequence)),
    };
}

// machine/owed.ts

const MOST_OWED = 4096;
class Owed {
    verdicts = new Map();
    get size() {
        return this.verdicts.size;
    }
    put(sequence, verdict) {
        this.verdicts.set(sequence, verdict);
        if (this.verdicts.size > MOST_OWED) {
            const [oldest] = this.verdicts.keys();
            this.verdicts.delete(oldest);
        }
    }
    take(sequence) {
        const verdict = this.verdicts.get(sequence);
        this.verdicts.delete(sequence);
        return verdict;
    }
    clear() {
        this.verdicts.clear();
    }
}

// machine/verdict.ts

const MAX_REASON_BYTES = 1024;
const ACK = { is: "ack" };
function isFinal(verdict) {
    return verdict.is !== "nack";
}
function isAlike(one, other) {
    if (one.is !== other.is || one.is === "ack" || other.is === "ack") {
        return one.is === other.is;
    }
    const delays = one.is === "nack" && other.is === "nack" ? one.delay === other.delay : true;
    return delays && one.reason === other.reason;
}
function acknowledgement(verdict) {
    if (verdict.is === "ack") {
        return { outcome: "ACK_OUTCOME_ACK" };
    }
    const told = {
        outcome: verdict.is === "nack" ? "ACK_OUTCOME_NACK" : "ACK_OUTCOME_REJECT",
        reason: cut(verdict.reason),
    };
    if (verdict.is === "nack" && verdict.delay !== undefined) {
        told.delay = duration(verdict.delay);
    }
    return told;
}
function cut(reason) {
    if (utf8Length(reason) <= MAX_REASON_BYTES) {
        return reason;
    }
    let [kept, bytes] = ["", 0];
    for (const character of reason) {
        bytes += utf8Length(character);
        if (bytes > MAX_REASON_BYTES) {
            break;
        }
        kept += character;
    }
    return kept;
}

// machine/hands.ts

const MOST_SEQUENCES = 1000;
const MOST_NAMED = 100_000;
const MOST_EXTENDING = 64;
const MOST_LOST = 1000;
const REPEAT_DELAY = 1000;
class Hands {
    held = new Map();
    waiting = [];
    written = new Map();
    numbers = new Set();
    settling = new Map();
    cameAgain = new Set();
    extends = new Map();
    extending = new Map();
    owed = new Owed();
    lost = [];
    lostCount = 0;
    next = 0;
    notBefore = 0;
    arrive(sequence, bytes) {
        if (this.held.has(sequence)) {
            return undefined;
        }
        if (this.settling.has(sequence)) {
            this.cameAgain.add(sequence);
            return undefined;
        }
        const verdict = this.owed.take(sequence);
        if (verdict !== undefined) {
            this.say(sequence, verdict, undefined);
            return undefined;
        }
        if (this.waiting.some((word) => word.sequence === sequence)) {
            this.waiting = this.waiting.filter((word) => word.sequence !== sequence || !this.numbers.delete(word.number));
        }
        this.next += 1;
        this.held.set(sequence, { copy: this.next, bytes, isTaken: false });
        return this.next;
    }
    taken(sequence) {
        const hand = this.held.get(sequence);
        if (hand !== undefined) {
            hand.isTaken = true;
        }
    }
    settle(sequence, copy, verdict, ticket) {
        const bytes = this.letGo(sequence, copy);
        if (bytes !== undefined) {
            this.say(sequence, verdict, ticket);
        }
        return bytes;
    }
    letGo(sequence, copy) {
        const hand = this.held.get(sequence);
        if (hand?.copy !== copy) {
            return undefined;
        }
        this.extends.delete(sequence);
        this.held.delete(sequence);
        return hand.bytes;
    }
    extend(sequence, copy, time) {
        if (this.held.get(sequence)?.copy === copy) {
            this.extends.set(sequence, time);
        }
    }
    say(sequence, verdict, ticket) {
        this.next += 1;
        this.numbers.add(this.next);
        if (isFinal(verdict)) {
            this.settling.set(sequence, (this.settling.get(sequence) ?? 0) + 1);
        }
        this.waiting.push({ number: this.next, sequence, verdict, ticket });
    }
    write(now, request) {
        if (now < this.notBefore) {
            return undefined;
        }
        const first = this.waiting[0];
        if (first !== undefined) {
            let alike = 1;
            const most = Math.min(this.waiting.length, MOST_SEQUENCES);
            while (alike < most && isAlike(this.waiting[alike].verdict, first.verdict)) {
                alike += 1;
            }
            const words = this.waiting.splice(0, alike);
            this.written.set(request, words);
            return { sequences: words.map((word) => String(word.sequence)), ...acknowledgement(first.verdict) };
        }
        return this.writeExtension(request);
    }
    writeExtension(request) {
        if (this.extends.size === 0 || this.extending.size >= MOST_EXTENDING) {
            return undefined;
        }
        const [time] = this.extends.values();
        const sequences = [];
        for (const [sequence, other] of this.extends) {
            if (other === time && sequences.length < MOST_SEQUENCES) {
                sequences.push(sequence);
                this.extends.delete(sequence);
            }
        }
        this.extending.set(request, { sequences, time });
        const told = { sequences: sequences.map(String), outcome: "ACK_OUTCOME_EXTEND" };
        return time === undefined ? told : { ...told, delay: duration(time) };
    }
    hasWaitingWords() {
        return this.waiting.length > 0;
    }
    due(now) {
        const waits = this.notBefore > now && (this.waiting.length > 0 || this.extends.size > 0);
        return waits ? this.notBefore : undefined;
    }
    answered(now, request, results, news) {
        if (this.extending.delete(request)) {
            return;
        }
        const words = this.written.get(request);
        if (words === undefined) {
            return;
        }
        this.written.delete(request);
        const answers = new Map(results.map((result) => [exact(result.sequence), result]));
        const later = [];
        const atOnce = [];
        for (const word of words) {
            const answer = answers.get(word.sequence);
            answers.delete(word.sequence);
            if (answer === undefined) {
                later.push(word);
            }
            else if (answer.status === undefined) {
                this.stored(word, news);
            }
            else {
                const error = ofStatus("leaseLost", answer.status);
                if (error.retryable) {
                    later.push(word);
                }
                else if (isFinal(word.verdict) && this.cameAgain.delete(word.sequence)) {
                    atOnce.push(word);
                }
                else {
                    this.fail(word, error, news);
                }
            }
        }
        this.waiting = [...atOnce, ...this.waiting];
        this.repeat(now, later);
    }
    refused(now, request, error, news) {
        this.extending.delete(request);
        const words = this.written.get(request) ?? [];
        this.written.delete(request);
        if (error.retryable || error.reason === "SUBSCRIPTION_NOT_FOUND") {
            this.repeat(now, words);
            return;
        }
        for (const word of words) {
            this.fail(word, error, news);
        }
    }
    repeat(now, words) {
        if (words.length > 0) {
            this.notBefore = now + REPEAT_DELAY;
            this.waiting = [...words, ...this.waiting];
        }
    }
    stored(word, news) {
        this.resolve(word);
        if (word.ticket !== undefined) {
            news.push({ of: "settled", ticket: word.ticket, error: undefined });
        }
    }
    fail(word, error, news) {
        this.resolve(word);
        if (word.ticket !== undefined) {
            news.push({ of: "settled", ticket: word.ticket, error });
            return;
        }
        if (!isFinal(word.verdict)) {
            return;
        }
        this.lostCount += 1;
        if (this.lost.length < MOST_LOST) {
            this.lost.push(word.sequence);
        }
        this.owed.put(word.sequence, word.verdict);
    }
    resolve(word) {
        this.numbers.delete(word.number);
        const left = this.settling.get(word.sequence);
        if (left === undefined || !isFinal(word.verdict)) {
            return;
        }
        if (left > 1) {
            this.settling.set(word.sequence, left - 1);
        }
        else {
            this.settling.delete(word.sequence);
            this.cameAgain.delete(word.sequence);
        }
    }
    sessionLost(news) {
        const words = [...this.written.values()].flat().sort((one, other) => other.number - one.number);
        this.written.clear();
        const later = new Set([...this.held.keys(), ...this.waiting.map((word) => word.sequence)]);
        const again = [];
        for (const word of words) {
            const isLater = later.has(word.sequence);
            later.add(word.sequence);
            if (isLater && !isFinal(word.verdict)) {
                this.stored(word, news);
            }
            else {
                again.push(word);
            }
        }
        this.waiting = [...again.reverse(), ...this.waiting];
        const extensions = [...this.extending.entries()].sort(([one], [other]) => other - one);
        this.extending.clear();
        for (const [, { sequences, time }] of extensions) {
            for (const sequence of sequences) {
                if (this.held.get(sequence)?.isTaken === true && !this.extends.has(sequence)) {
                    this.extends.set(sequence, time);
                }
            }
        }
        this.cameAgain.clear();
        this.notBefore = 0;
        return this.forgetUntaken();
    }
    forgetUntaken() {
        let [events, bytes] = [0, 0];
        for (const [sequence, hand] of this.held) {
            if (!hand.isTaken) {
                events += 1;
                bytes += hand.bytes;
                this.held.delete(sequence);
            }
        }
        return { events, bytes };
    }
    release() {
        this.extends.clear();
        let size = NOTHING;
        for (const hand of this.held.values()) {
            size = { events: size.events + 1, bytes: size.bytes + hand.bytes };
        }
        this.held.clear();
        return size;
    }
    leasesLost(sequences, news) {
        if (sequences.length === 0) {
            return;
        }
        const lost = new Set(sequences);
        for (const sequence of sequences) {
            this.extends.delete(sequence);
        }
        const gone = this.waiting.filter((word) => lost.has(word.sequence));
        this.waiting = this.waiting.filter((word) => !lost.has(word.sequence));
        for (const word of gone) {
            this.fail(word, leaseLost(), news);
        }
    }
    giveUp(error, news) {
        this.sessionLost(news);
        const words = this.waiting;
        this.waiting = [];
        for (const word of words) {
            this.fail(word, error, news);
        }
        this.held.clear();
        this.extends.clear();
    }
    heldSequences() {
        const held = [...this.held].filter(([, hand]) => hand.isTaken).map(([sequence]) => sequence);
        const named = new Set();
        for (const sequence of [...this.waiting.map((word) => word.sequence), ...ascending(held)]) {
            if (named.size === MOST_NAMED) {
                break;
            }
            named.add(sequence);
        }
        return ascending([...named]);
    }
    get inHand() {
        return this.held.size;
    }
    get unanswered() {
        return this.numbers.size;
    }
    mark() {
        return this.next;
    }
    isSettled(mark) {
        const [first] = this.numbers;
        return first === undefined || first > mark;
    }
    takeLost() {
        const lost = { sequences: this.lost, count: this.lostCount };
        this.lost = [];
        this.lostCount = 0;
        if (lost.count > 0) {
            this.owed.clear();
        }
        return lost;
    }
}
function ascending(sequences) {
    return sequences.sort((one, other) => (one < other ? -1 : one > other ? 1 : 0));
}
function leaseLost() {
    const text = "the session was lost, and with it the lease: the group delivers the event again";
    return failure("leaseLost", "FAILED_PRECONDITION", "LEASE_EXPIRED", text);
}

// machine/place.ts

const MOST_OPEN = 4096;
class Place {
    reached;
    done;
    open = [];
    next = 0;
    isStuck = false;
    constructor(token) {
        this.reached = token;
        this.done = token;
    }
    get openCount() {
        return this.open.length;
    }
    arrived(token) {
        const number = this.next;
        this.next += 1;
        this.reached = token;
        if (this.isStuck) {
            return number;
        }
        const last = this.open.at(-1);
        if (last !== undefined && this.open.length >= MOST_OPEN) {
            last.last = number;
            last.left += 1;
            last.token = token;
        }
        else {
            this.open.push({ first: number, last: number, left: 1, token });
        }
        return number;
    }
    passed(token) {
        if (token === "") {
            return;
        }
        this.reached = token;
        if (this.isStuck) {
            return;
        }
        const last = this.open.at(-1);
        if (last !== undefined) {
            last.token = token;
        }
        else {
            this.done = token;
        }
    }
    finish(number) {
        const at = this.find(number);
        const open = this.open[at];
        if (open === undefined) {
            return;
        }
        open.left = Math.max(open.left - 1, 0);
        if (open.left > 0) {
            return;
        }
        if (this.open[at + 1]?.left === 0) {
            this.open.splice(at, 1);
        }
        if (this.open[at - 1]?.left === 0) {
            this.open.splice(at - 1, 1);
        }
        while (this.open[0]?.left === 0) {
            this.done = this.open.shift().token;
        }
    }
    dropBatch(number) {
        const at = this.find(number);
        const open = this.open[at];
        if (open !== undefined && open.left > 0) {
            this.open.length = at;
            this.isStuck = true;
        }
    }
    find(number) {
        let [low, high] = [0, this.open.length];
        while (low < high) {
            const middle = (low + high) >> 1;
            if (this.open[middle].last < number) {
                low = middle + 1;
            }
            else {
                high = middle;
            }
        }
        return (this.open[low]?.first ?? Infinity) <= number ? low : -1;
    }
}

// machine/row.ts

const REOPEN_WAITS = { shortest: 100, longest: 5000, longestWhenExhausted: 30_000 };
const REOPEN_WORKED_AFTER = 10_000;
const FREE_WORDS = 1000;
class Row {
    id;
    spec;
    phase = { is: "idle" };
    hands;
    home = new Home();
    fullWindows = 0;
    opened;
    lag = 0;
    isListed = false;
    timerAt = Infinity;
    isDropped = false;
    ledger;
    incoming = new Queue();
    place;
    backoff;
    openSince = 0;
    pinned;
    isCaughtUp = false;
    left;
    end;
    batches = new Set();
    tracksBatches;
    isDeaf = false;
    wasFull = false;
    constructor(id, spec, token, random) {
        this.id = id;
        this.spec = spec;
        this.ledger = new Ledger(spec.window);
        this.place = spec.hasPlace ? new Place(token) : undefined;
        this.tracksBatches = spec.keepsPlace;
        this.hands = spec.acknowledges ? new Hands() : undefined;
        this.backoff = new Backoff(REOPEN_WAITS.shortest, REOPEN_WAITS.longest, random);
        this.left = spec.wire.maxEvents === undefined ? undefined : count(spec.wire.maxEvents);
    }
    write(now, requests, isQuiet) {
        const { phase, hands, id } = this;
        if (phase.is === "idle") {
            if (this.staysClosed(isQuiet)) {
                return undefined;
            }
            const spec = this.subscribe();
            this.home.wasAsked = true;
            this.phase = { is: "asked" };
            return [requests.open({ to: "subscribe", id }), { subscribe: { subscriptionId: id, spec } }];
        }
        const isLeaving = phase.is === "leaving" && !phase.isWritten;
        if (hands !== undefined && (phase.is === "open" || isLeaving)) {
            const acknowledge = hands.write(now, requests.next());
            if (acknowledge !== undefined) {
                const command = { acknowledge: { subscriptionId: id, ...acknowledge } };
                return [requests.open({ to: "acknowledge", id }), command];
            }
        }
        if (isLeaving) {
            if (hands?.hasWaitingWords() === true) {
                return undefined;
            }
            phase.isWritten = true;
            return [FIXED_IDS.unsubscribe, { unsubscribe: { subscriptionId: id } }];
        }
        if (phase.is !== "open" || this.isDeaf || this.withholds(isQuiet)) {
            return undefined;
        }
        const grant = this.ledger.grant();
        if (grant === undefined) {
            return undefined;
        }
        this.wasFull = false;
        return [FIXED_IDS.credit, { credit: { subscriptionId: id, credit: wireCredit(grant) } }];
    }
    staysClosed(isQuiet) {
        return this.hands !== undefined ? isQuiet : this.isDeaf;
    }
    withholds(isQuiet) {
        const most = Math.max(FREE_WORDS, this.spec.window.events);
        return this.hands !== undefined && (isQuiet || this.hands.unanswered > most);
    }
    subscribe() {
        const spec = { ...this.spec.wire };
        const start = this.start();
        if (start !== undefined) {
            spec.start = start;
        }
        if (this.left !== undefined) {
            spec.maxEvents = String(this.left);
        }
        spec.credit = this.isDeaf ? {} : wireCredit(this.ledger.begin());
        if (this.hands !== undefined && this.home.wasAsked) {
            spec.reattach = { heldSequences: this.hands.heldSequences().map(String) };
        }
        return spec;
    }
    start() {
        const reached = this.place?.reached;
        if (reached !== undefined) {
            return { resumeToken: reached };
        }
        return this.pinned === undefined ? undefined : { afterSequence: String(this.pinned) };
    }
    subscribed(now, subscribed, news) {
        this.home.found(subscribed.reattached === true);
        this.hands?.leasesLost((subscribed.lostSequences ?? []).map(exact), news);
        if (this.phase.is !== "asked") {
            return;
        }
        this.phase = { is: "open" };
        this.openSince = now;
        const before = this.opened;
        this.opened = {
            epoch: exact(subscribed.epoch),
            startSequence: exact(subscribed.startSequence),
            earliestSequence: exact(subscribed.earliestSequence),
            latestSequence: exact(subscribed.latestSequence),
            ackDeadlineMs: millis(subscribed.ackDeadline),
        };
        const hasNoToken = this.place !== undefined && this.place.reached === undefined;
        if (before !== undefined) {
            if (!this.spec.hasPlace && !this.spec.acknowledges) {
                this.gap(unknownGap("away"));
            }
            else if (hasNoToken && before.epoch !== this.opened.epoch) {
                this.gap(unknownGap("epoch"));
            }
        }
        if (hasNoToken && this.spec.startsNew) {
            const behind = this.opened.startSequence - 1n;
            this.pinned = behind > 0n ? behind : 0n;
        }
    }
    events(events, news) {
        const sizes = sizesOf(events);
        const refuses = this.isDeaf || (this.hands !== undefined && this.phase.is === "leaving");
        const arrived = [];
        let bytesTaken = 0;
        (events.events ?? []).forEach((event, at) => {
            const bytes = sizes[at] ?? 0;
            this.ledger.arrived(1, bytes);
            const sequence = exact(event.sequence);
            const copy = refuses ? undefined : this.hands === undefined ? 0 : this.hands.arrive(sequence, bytes);
            if (copy === undefined) {
                this.ledger.returned(1, bytes);
            }
            else {
                bytesTaken += bytes;
                arrived.push({ event, sequence, copy });
            }
        });
        this.isCaughtUp = false;
        if (this.left !== undefined) {
            this.left = Math.max(this.left - arrived.length, 0);
        }
        if (arrived.length === 0) {
            return;
        }
        if (this.ledger.isFull() && !this.wasFull) {
            this.wasFull = true;
            this.fullWindows += 1;
        }
        const token = events.resumeToken ?? "";
        const batch = this.place?.arrived(token) ?? 0;
        this.incoming.pushEvents(arrived, batch, token, { events: arrived.length, bytes: bytesTaken });
        news.push({ of: "subscription", id: this.id });
    }
    progress(progress, news) {
        if (!this.isDeaf) {
            this.place?.passed(progress.resumeToken ?? "");
        }
        this.lag = count(progress.lag);
        const isCaughtUp = progress.caughtUp === true;
        if (isCaughtUp && !this.isCaughtUp && !this.isDeaf) {
            this.incoming.pushCaughtUp();
        }
        this.isCaughtUp = isCaughtUp;
        news.push({ of: "subscription", id: this.id });
    }
    gap(missing) {
        if (!this.isDeaf) {
            this.incoming.pushGap(missing);
        }
    }
    ended(now, ended, address, renews, news) {
        const { reason } = ended;
        const status = ended.status ?? {};
        const error = ofStatus("ended", status).at(`${this.spec.name} at ${address}`);
        if (!this.isDeaf) {
            this.place?.passed(ended.resumeToken ?? "");
        }
        this.forgetUntaken(news);
        if (this.phase.is !== "asked") {
            this.home.left();
        }
        if (now - this.openSince >= REOPEN_WORKED_AFTER) {
            this.backoff.reset();
        }
        const expired = reason === "END_REASON_CREDENTIAL_EXPIRED" || reason === "END_REASON_CREDENTIAL_MISSING";
        const isOk = (status.code ?? 0) === 0 && reason !== "END_REASON_CLIENT_UNSUBSCRIBED";
        if (this.phase.is === "leaving" && this.phase.returns) {
            this.phase = { is: "waiting", until: Infinity, withSession: true };
        }
        else if (this.phase.is === "leaving" || this.phase.is === "over" || this.left === 0 || isOk) {
            this.finish({ error: undefined }, news);
        }
        else if (ended.retry?.retry === true || (renews && expired)) {
            const told = ended.retry?.retry === true ? (millis(ended.retry.delay) ?? 0) : 0;
            const isExhausted = error.code === "RESOURCE_EXHAUSTED";
            const longest = isExhausted ? REOPEN_WAITS.longestWhenExhausted : REOPEN_WAITS.longest;
            const until = now + Math.max(told, this.backoff.next(longest));
            this.phase = { is: "waiting", until, withSession: reason === "END_REASON_DRAINING" };
        }
        else {
            this.finish({ error }, news);
        }
    }
    refused(error, address, news) {
        this.finish({ error: error.ofKind("ended").at(`${this.spec.name} at ${address}`) }, news);
    }
    due(now) {
        switch (this.phase.is) {
            case "waiting":
                return this.phase.until < Infinity ? this.phase.until : undefined;
            case "open":
            case "leaving":
                return this.hands?.due(now);
            default:
                return undefined;
        }
    }
    tick(now) {
        if (this.phase.is === "waiting" && now >= this.phase.until) {
            this.phase = { is: "idle" };
        }
    }
    sessionLost(now, news) {
        this.forgetUntaken(news);
        const { phase } = this;
        if (this.isInSession()) {
            this.home.lost();
        }
        if (phase.is === "open" && now - this.openSince >= REOPEN_WORKED_AFTER) {
            this.backoff.reset();
        }
        if (phase.is === "asked" || phase.is === "open") {
            if (this.left === 0) {
                this.finish({ error: undefined }, news);
            }
            else {
                this.phase = { is: "idle" };
            }
        }
        else if (phase.is === "leaving" && !phase.returns) {
            this.finish({ error: undefined }, news);
        }
        else if (phase.is === "leaving" || (phase.is === "waiting" && phase.withSession)) {
            this.phase = { is: "idle" };
        }
    }
    forgetUntaken(news) {
        if (this.hands === undefined) {
            return;
        }
        const { events, bytes } = this.hands.sessionLost(news);
        if (events > 0) {
            this.incoming.forgetEvents();
            this.ledger.returned(events, bytes);
        }
        news.push({ of: "subscription", id: this.id });
    }
    finish(end, news) {
        if (this.phase.is !== "over") {
            this.phase = { is: "over" };
            this.end = end;
        }
        this.hands?.giveUp(leaseLost(), news);
        news.push({ of: "subscription", id: this.id });
    }
    fail(error, news) {
        if (error === undefined) {
            this.hush();
        }
        this.finish({ error }, news);
    }
    take() {
        const incoming = this.isDeaf ? undefined : this.incoming.pop();
        if (incoming?.is === "events") {
            if (this.hands !== undefined) {
                for (const { sequence } of incoming.events) {
                    this.hands.taken(sequence);
                }
            }
            else {
                this.ledger.returned(incoming.size.events, incoming.size.bytes);
            }
            if (this.tracksBatches) {
                this.batches.add(incoming.batch);
            }
        }
        return incoming;
    }
    takeEnd() {
        if (this.phase.is !== "over" && !this.isDeaf) {
            return undefined;
        }
        const end = this.isDropped ? undefined : this.end;
        this.end = undefined;
        return end ?? { error: undefined };
    }
    returned(bytes) {
        this.ledger.returned(1, bytes);
    }
    finishBatch(batch) {
        this.place?.finish(batch);
        this.tracksBatches = this.place !== undefined;
        this.batches.delete(batch);
    }
    dropBatch(batch) {
        this.place?.dropBatch(batch);
        this.batches.delete(batch);
    }
    hush() {
        this.isDeaf = true;
        const { events, bytes } = this.incoming.clear();
        this.ledger.returned(events, bytes);
        this.hands?.forgetUntaken();
    }
    release() {
        this.batches.clear();
        if (this.hands !== undefined) {
            const { events, bytes } = this.hands.release();
            this.ledger.returned(events, bytes);
        }
    }
    abandon() {
        this.isDropped = true;
        this.hush();
    }
    leave(returns, news) {
        const { phase } = this;
        if (phase.is === "asked" || phase.is === "open") {
            this.phase = { is: "leaving", isWritten: false, returns };
        }
        else if (phase.is === "leaving") {
            this.phase = { ...phase, returns: returns && !this.isDeaf };
        }
        else if (phase.is !== "over" && !returns) {
            this.finish({ error: undefined }, news);
        }
    }
    isOpen() {
        return this.phase.is === "open";
    }
    isInSession() {
        return this.phase.is === "asked" || this.phase.is === "open" || this.phase.is === "leaving";
    }
    isOver() {
        return this.phase.is === "over";
    }
    isForgotten() {
        return this.isDropped && this.isOver() && !this.isInUse();
    }
    isInUse() {
        return this.hands === undefined ? this.batches.size > 0 : !this.isQuiet();
    }
    isQuiet() {
        return this.hands === undefined || this.hands.inHand + this.hands.unanswered === 0;
    }
    hasCaughtUp() {
        return this.isCaughtUp && this.isOpen();
    }
    done() {
        return this.place?.done;
    }
    held() {
        return this.ledger.held();
    }
    get withApplication() {
        return this.hands === undefined ? this.batches.size : this.hands.inHand;
    }
}
function wireCredit({ events, bytes }) {
    return { ...(events > 0 && { events: String(events) }), ...(bytes > 0 && { bytes: String(bytes) }) };
}

// machine/table.ts

const MOST_SUBSCRIPTIONS = 1_000_000;
class Table {
    random;
    all = new Map();
    nextId = 1;
    list = [];
    head = 0;
    timers = new Heap();
    isUp = false;
    isEnding = false;
    constructor(random) {
        this.random = random;
    }
    add(spec, token) {
        if (this.all.size >= MOST_SUBSCRIPTIONS) {
            throw invalid("subscriptions", `are at the limit of ${MOST_SUBSCRIPTIONS}`);
        }
        const id = this.nextId;
        this.nextId += 1;
        this.all.set(id, new Row(id, spec, token, this.random));
        this.touch(id, 0);
        return id;
    }
    get(id) {
        return this.all.get(id);
    }
    sessionBegins(now) {
        this.isUp = true;
        this.isEnding = false;
        for (const id of this.all.keys()) {
            this.touch(id, now);
        }
    }
    sessionLost(now, news) {
        const members = [...this.all.values()].filter((one) => one.hands !== undefined && !one.isOver());
        const isHome = Home.isHere(members.map((one) => one.home));
        this.isUp = false;
        this.list = [];
        this.head = 0;
        this.timers.clear();
        for (const [id, one] of this.all) {
            one.isListed = false;
            one.timerAt = Infinity;
            one.sessionLost(now, news);
            if (one.isForgotten()) {
                this.all.delete(id);
            }
            else {
                this.touch(id, now);
            }
        }
        return isHome;
    }
    beQuiet() {
        this.isEnding = true;
    }
    isQuiet() {
        for (const one of this.all.values()) {
            if (!one.isQuiet()) {
                return false;
            }
        }
        return true;
    }
    membersLeave(now, news) {
        let areLeft = false;
        for (const [id, one] of this.all) {
            if (one.hands !== undefined && one.isInSession()) {
                areLeft = true;
                one.leave(true, news);
                this.touch(id, now);
            }
        }
        return areLeft;
    }
    hasWrites() {
        return this.isUp && this.head < this.list.length;
    }
    write(now, requests) {
        while (this.hasWrites()) {
            const id = this.list[this.head];
            this.head += 1;
            if (this.head === this.list.length || this.head >= 1024) {
                this.list = this.list.slice(this.head);
                this.head = 0;
            }
            const one = this.all.get(id);
            if (one === undefined) {
                continue;
            }
            one.isListed = false;
            const written = one.write(now, requests, this.isEnding);
            if (written !== undefined) {
                this.touch(id, now);
                return written;
            }
        }
        return undefined;
    }
    due() {
        return this.timers.first()?.at;
    }
    tick(now) {
        for (let first = this.timers.first(); first !== undefined && first.at <= now; first = this.timers.first()) {
            this.timers.pop();
            const one = this.all.get(first.id);
            if (one !== undefined) {
                one.timerAt = Infinity;
                one.tick(now);
                this.touch(first.id, now);
            }
        }
    }
    subscribed(now, subscribed, news) {
        const id = count(subscribed.subscriptionId);
        this.with(id, now, (one) => one.subscribed(now, subscribed, news));
        this.answered(now, id, news);
    }
    events(now, events, news) {
        this.with(count(events.subscriptionId), now, (one) => one.events(events, news));
    }
    progress(now, progress, news) {
        this.with(count(progress.subscriptionId), now, (one) => one.progress(progress, news));
    }
    gap(now, gap, news) {
        const id = count(gap.subscriptionId);
        this.with(id, now, (one) => one.gap(gapOf(gap)));
        news.push({ of: "subscription", id });
    }
    ended(now, ended, address, renews, news) {
        const id = count(ended.subscriptionId);
        this.with(id, now, (one) => one.ended(now, ended, address, renews, news));
        this.forgetIfOver(id);
    }
    acknowledged(now, request, acknowledged, news) {
        const id = count(acknowledged.subscriptionId);
        this.with(id, now, (one) => one.hands?.answered(now, request, acknowledged.results ?? [], news));
        this.answered(now, id, news);
    }
    acknowledgeRefused(now, id, request, error, news) {
        this.with(id, now, (one) => one.hands?.refused(now, request, error, news));
        this.answered(now, id, news);
    }
    subscribeRefused(now, id, address, error, news) {
        this.with(id, now, (one) => one.refused(error, address, news));
        this.forgetIfOver(id);
    }
    answered(now, id, news) {
        news.push({ of: "subscription", id });
        this.leaveIfDropped(now, id, news);
    }
    take(now, id) {
        return this.with(id, now, (one) => one.take());
    }
    takeEnd(id) {
        const one = this.all.get(id);
        return one === undefined ? { error: undefined } : one.takeEnd();
    }
    settleEvent(now, { id, sequence, copy }, verdict, ticket) {
        const isSettled = this.with(id, now, (one) => {
            const bytes = one.hands?.settle(sequence, copy, verdict, ticket);
            if (bytes !== undefined) {
                one.returned(bytes);
            }
            return bytes !== undefined;
        });
        return isSettled === true;
    }
    letGo(now, { id, sequence, copy }, news) {
        this.with(id, now, (one) => {
            const bytes = one.hands?.letGo(sequence, copy);
            if (bytes !== undefined) {
                one.returned(bytes);
            }
        });
        this.leaveIfDropped(now, id, news);
    }
    extend(now, { id, sequence, copy }, time) {
        this.with(id, now, (one) => one.hands?.extend(sequence, copy, time));
    }
    finishBatch(now, id, batch, news) {
        this.with(id, now, (one) => one.finishBatch(batch));
        this.leaveIfDropped(now, id, news);
    }
    dropBatch(now, id, batch, news) {
        this.with(id, now, (one) => one.dropBatch(batch));
        this.leaveIfDropped(now, id, news);
    }
    abandon(now, id, news) {
        this.with(id, now, (one) => one.abandon());
        this.leaveIfDropped(now, id, news);
    }
    leaveIfDropped(now, id, news) {
        const one = this.all.get(id);
        if (one?.isDropped === true && !one.isInUse()) {
            one.leave(false, news);
            this.touch(id, now);
        }
        this.forgetIfOver(id);
    }
    forgetIfOver(id) {
        if (this.all.get(id)?.isForgotten() === true) {
            this.all.delete(id);
        }
    }
    hush(now, news) {
        for (const id of this.all.keys()) {
            this.with(id, now, (one) => one.hush());
            news.push({ of: "subscription", id });
        }
    }
    release(now) {
        for (const id of this.all.keys()) {
            this.with(id, now, (one) => one.release());
        }
    }
    leave(now, news) {
        let areLeft = false;
        for (const [id, one] of this.all) {
            if (!one.isInUse()) {
                one.leave(false, news);
            }
            areLeft ||= !one.isOver();
            this.touch(id, now);
        }
        return areLeft;
    }
    fail(error, news) {
        this.isUp = false;
        for (const one of this.all.values()) {
            one.fail(error, news);
        }
    }
    totals() {
        let [events, bytes, unanswered, fullWindows] = [0, 0, 0, 0];
        for (const one of this.all.values()) {
            const held = one.held();
            events += held.events;
            bytes += held.bytes;
            unanswered += one.hands?.unanswered ?? 0;
            fullWindows += one.fullWindows;
        }
        return { subscriptions: this.all.size, events, bytes, unanswered, fullWindows };
    }
    left() {
        let [events, acknowledgements] = [0, 0];
        for (const one of this.all.values()) {
            events += one.withApplication;
            acknowledgements += one.hands?.unanswered ?? 0;
        }
        return { events, acknowledgements };
    }
    isOver(id) {
        return this.all.get(id)?.isOver() ?? true;
    }
    mark(id) {
        return this.all.get(id)?.hands?.mark() ?? 0;
    }
    settled(id, mark) {
        const hands = this.all.get(id)?.hands;
        if (hands === undefined) {
            return { sequences: [], count: 0 };
        }
        return hands.isSettled(mark) ? hands.takeLost() : undefined;
    }
    with(id, now, act) {
        const one = this.all.get(id);
        if (one === undefined) {
            return undefined;
        }
        const done = act(one);
        this.touch(id, now);
        return done;
    }
    touch(id, now) {
        const one = this.all.get(id);
        if (one === undefined) {
            return;
        }
        if (this.isUp && !one.isListed) {
            one.isListed = true;
            this.list.push(id);
        }
        const at = one.due(now);
        if (at !== undefined && at < one.timerAt) {
            one.timerAt = at;
            this.timers.push(at, id);
        }
    }
}

// machine/machine.ts

const SESSION_WAITS = { shortest: 100, longest: 5000, longestWhenExhausted: 30_000 };
const SESSION_WORKED_AFTER = 10_000;
const OPEN_TIMEOUT = 10_000;
const PATIENCE = 5000;
const ASLEEP = 1000;
const CHECK_INTERVAL = 20;
const LAST_PATIENCE = 1000;
class Machine {
    setup;
    table;
    news = [];
    status = { state: "idle", reason: undefined, address: "", sessionId: "", attempt: 0 };
    left = { clean: true, events: 0, acknowledgements: 0, unknownPublishes: 0, unsentPublishes: 0 };
    phase = { is: "idle" };
    addresses;
    publishes;
    requests = new Requests();
    refresh;
    backoff;
    session = 0;
    owesHello = false;
    previous = "";
    lastFrame = 0;
    draining;
    closing;
    checkAt = 0;
    lastWords;
    sessions = 0;
    losses = new Losses();
    tickets = 0;
    constructor(setup) {
        this.setup = setup;
        const { random } = setup;
        this.addresses = new Addresses(setup.addresses, random);
        this.table = new Table(random);
        this.publishes = new Publishes(setup.most, setup.hasSource, random);
        this.refresh = new Refresh(setup.hasSource, random);
        this.backoff = new Backoff(SESSION_WAITS.shortest, SESSION_WAITS.longest, random);
    }
    drive() {
        if (this.phase.is === "idle") {
            this.phase = { is: "waiting", until: 0 };
        }
        else if (this.phase.is !== "over") {
            throw invalid("run", "is called while the client runs");
        }
    }
    plan(now) {
        this.tick(now);
        this.closeWithoutSession(now);
        const { phase } = this;
        if (phase.is === "over") {
            return { to: "stop", error: phase.error };
        }
        if (phase.is === "waiting" && phase.until > now) {
            const closing = this.closing?.until ?? Infinity;
            return { to: "rest", until: Math.min(phase.until, closing, this.publishes.due(now) ?? Infinity) };
        }
        this.phase = { is: "opening" };
        this.session += 1;
        const address = this.addresses.current();
        this.status = { ...this.status, attempt: this.status.attempt + 1, address };
        this.enter("connecting", this.status.reason);
        return { to: "open", address };
    }
    opening(now) {
        this.tick(now);
        this.closeWithoutSession(now);
        if (this.phase.is === "over") {
            return undefined;
        }
        return Math.min(this.closing?.until ?? Infinity, this.publishes.due(now) ?? Infinity);
    }
    connected(now, life, took) {
        this.phase = { is: "greeting" };
        this.owesHello = true;
        this.lastWords = undefined;
        this.lastFrame = now - took;
        this.refresh.sessionBegins(now, this.session, life);
    }
    lost(now, loss) {
        const { phase } = this;
        if (phase.is === "over") {
            return;
        }
        const wasUp = phase.is === "up";
        const hasWorked = wasUp && now - phase.since >= SESSION_WORKED_AFTER;
        if (hasWorked) {
            this.backoff.reset();
        }
        const error = this.reasonOf(loss);
        this.losses.count(error);
        if (wasUp) {
            if (this.table.sessionLost(now, this.news)) {
                this.previous = this.status.sessionId;
            }
            this.publishes.sessionLost(this.news);
        }
        this.requests.clear();
        this.refresh.sessionLost();
        const told = this.draining?.delay ?? error.retryAfterMs;
        this.draining = undefined;
        if (this.closing?.halfClosed !== undefined) {
            this.finish();
            return;
        }
        if (this.isFatal(error)) {
            this.fail(error);
            return;
        }
        this.addresses.next();
        const isExhausted = error.code === "RESOURCE_EXHAUSTED";
        const longest = isExhausted ? SESSION_WAITS.longestWhenExhausted : SESSION_WAITS.longest;
        const wait = told !== undefined && hasWorked ? told : Math.max(told ?? 0, this.backoff.next(longest));
        this.phase = { is: "waiting", until: now + wait };
        this.enter("waiting", error);
    }
    reasonOf(loss) {
        const own = (reason, text) => failure("lost", "UNAVAILABLE", reason, text);
        let error;
        if (loss === "silent") {
            error = own("NOTHING_HEARD", `nothing came from the hub for ${duration(this.patience())}`);
        }
        else if (loss === "left") {
            error = own("DRAINING", "the hub asked to go elsewhere");
        }
        else if (this.lastWords !== undefined) {
            error = this.lastWords;
        }
        else {
            error = loss === "ended" ? own("", "the hub ended the session") : loss.failed.ofKind("lost");
        }
        this.lastWords = undefined;
        return error.at(this.status.address);
    }
    isFatal(error) {
        if (error.code === "UNAUTHENTICATED") {
            return !this.refresh.hasSource;
        }
        const isTerminated = error.reason === "SESSION_TERMINATED" && !this.setup.returnsWhenTerminated;
        return error.code === "PERMISSION_DENIED" || error.code === "UNIMPLEMENTED" || (isTerminated && this.sessions > 0);
    }
    turn(now) {
        this.tick(now);
        let halfCloses = false;
        let cut;
        if (this.closing !== undefined) {
            const step = this.closeInSession(now, this.closing);
            halfCloses = step === "halfCloses";
            cut = step === "isOver" ? "ended" : undefined;
        }
        else if (this.leavesHub(now)) {
            cut = "left";
        }
        const fetch = this.refresh.fetch(now);
        return { cut, writes: this.hasWrites(now), fetch, halfCloses, wakeAt: this.wakeAt(now) };
    }
    isSilent(now) {
        const over = now - this.turnsSilent();
        if (over < 0) {
            return false;
        }
        if (over < ASLEEP) {
            return true;
        }
        this.lastFrame = now + PATIENCE - this.patience();
        return false;
    }
    turnsSilent() {
        return this.lastFrame + this.patience();
    }
    patience() {
        return this.phase.is === "up" ? 2 * this.setup.heartbeat + PATIENCE : OPEN_TIMEOUT;
    }
    wakeAt(now) {
        const { closing } = this;
        const checks = closing === undefined ? this.draining !== undefined : closing.halfClosed === undefined;
        return Math.min(this.turnsSilent(), checks ? Math.max(this.checkAt, now) : Infinity, closing === undefined ? Infinity : overAt(closing), this.refresh.due() ?? Infinity, this.table.due() ?? Infinity, this.publishes.due(now) ?? Infinity);
    }
    tick(now) {
        this.table.tick(now);
        this.publishes.tick(now, this.news);
    }
    leavesHub(now) {
        if (this.draining === undefined || now < this.checkAt) {
            return false;
        }
        this.checkAt = now + CHECK_INTERVAL;
        const isQuiet = this.table.isQuiet();
        this.publishes.beQuiet(isQuiet);
        return isQuiet && this.publishes.isQuiet() && !this.table.membersLeave(now, this.news);
    }
    hasWrites(now) {
        if (this.phase.is === "up") {
            const isHeard = this.owesHello || this.refresh.hasFresh();
            return isHeard || this.table.hasWrites() || this.publishes.hasWrites(now);
        }
        return this.phase.is === "greeting" && this.owesHello;
    }
    write(now) {
        if (this.owesHello) {
            this.owesHello = false;
            return commandFrame(FIXED_IDS.hello, { hello: this.hello() });
        }
        if (this.phase.is !== "up") {
            return undefined;
        }
        const token = this.refresh.take();
        if (token !== undefined) {
            return commandFrame(FIXED_IDS.authenticate, { authenticate: { token } });
        }
        const written = this.table.write(now, this.requests);
        if (written !== undefined) {
            return commandFrame(...written);
        }
        return this.publishes.write(now, this.requests, this.news);
    }
    hello() {
        const { name, labels, heartbeat } = this.setup;
        return {
            ...(name !== "" && { clientName: name }),
            ...(Object.keys(labels).length > 0 && { labels }),
            heartbeatInterval: duration(heartbeat),
            ...(this.previous !== "" && { previousSessionId: this.previous }),
        };
    }
    fetched(now, session, token) {
        return this.refresh.fetched(now, session, token);
    }
    frame(now, wall, response) {
        if (this.phase.is === "over") {
            return;
        }
        this.lastFrame = now;
        const request = count(response.requestId);
        const { table, news } = this;
        if (response.events !== undefined) {
            table.events(now, response.events, news);
            return;
        }
        if (response.error !== undefined) {
            this.refused(now, request, response.error);
            return;
        }
        if (request !== 0) {
            this.requests.close(request);
        }
        if (response.published !== undefined) {
            this.publishes.answered(now, request, response.published.results ?? [], news);
        }
        else if (response.acknowledged !== undefined) {
            table.acknowledged(now, request, response.acknowledged, news);
        }
        else if (response.progress !== undefined) {
            table.progress(now, response.progress, news);
        }
        else if (response.subscribed !== undefined) {
            table.subscribed(now, response.subscribed, news);
        }
        else if (response.gap !== undefined) {
            table.gap(now, response.gap, news);
        }
        else if (response.ended !== undefined) {
            table.ended(now, response.ended, this.status.address, this.refresh.hasSource, news);
        }
        else if (response.welcome !== undefined) {
            this.welcome(now, wall, response.welcome);
        }
        else if (response.credentialExpiring !== undefined) {
            this.refresh.expiring(now);
        }
        else if (response.draining !== undefined) {
            this.drains(now, millis(response.draining.reconnectDelay), response.draining.alternatives ?? []);
        }
    }
    welcome(now, wall, welcome) {
        if (this.phase.is !== "greeting") {
            return;
        }
        this.phase = { is: "up", since: now };
        this.sessions += 1;
        this.addresses.learn(welcome.alternatives ?? []);
        const expiry = Date.parse(welcome.credentialExpiry ?? "");
        if (Number.isFinite(expiry)) {
            this.refresh.hubSays(now, Math.max(expiry - wall, 0));
        }
        this.status = { ...this.status, sessionId: welcome.sessionId ?? "", attempt: 0 };
        this.publishes.sessionBegins(welcome.limits);
        this.table.sessionBegins(now);
        this.enter("up", undefined);
    }
    refused(now, request, status) {
        const error = ofStatus("refused", status).at(this.status.address);
        const asked = this.requests.close(request);
        switch (asked?.to) {
            case "subscribe":
                this.table.subscribeRefused(now, asked.id, this.status.address, error, this.news);
                break;
            case "acknowledge":
                this.table.acknowledgeRefused(now, asked.id, request, error, this.news);
                break;
            case "publish":
                this.publishes.refused(now, request, error, this.news);
                break;
            default:
                if (request === FIXED_IDS.authenticate) {
                    this.refresh.refused(now);
                }
                else if (request === 0) {
                    this.lastWords = error.ofKind("lost");
                }
        }
    }
    drains(now, delay, alternatives) {
        this.addresses.learn(alternatives);
        this.draining = { delay };
        this.checkAt = now + CHECK_INTERVAL;
        this.table.beQuiet();
        this.enter("draining", undefined);
    }
    drain(now, mode, timeout) {
        if (this.phase.is === "over") {
            return;
        }
        const until = now + timeout;
        if (this.closing === undefined) {
            this.closing = { until, halfClosed: undefined };
        }
        else {
            this.closing.until = Math.min(this.closing.until, until);
        }
        this.table.hush(now, this.news);
        if (mode === "release") {
            this.table.release(now);
        }
        this.checkAt = now;
        this.enter("closing", undefined);
        if (this.phase.is === "idle") {
            this.finish();
        }
    }
    closeWithoutSession(now) {
        if (this.closing === undefined || this.phase.is === "over") {
            return;
        }
        const areLeft = this.table.leave(now, this.news);
        if (now >= this.closing.until || (!areLeft && this.publishes.isEmpty())) {
            this.finish();
        }
    }
    closeInSession(now, closing) {
        if (now >= overAt(closing)) {
            this.finish();
            return "isOver";
        }
        if (now < this.checkAt || closing.halfClosed !== undefined) {
            return undefined;
        }
        this.checkAt = now + CHECK_INTERVAL;
        if (this.table.leave(now, this.news) || !this.publishes.isEmpty()) {
            return undefined;
        }
        closing.halfClosed = now;
        return "halfCloses";
    }
    finish() {
        const { events, acknowledgements } = this.table.left();
        const { unknown, unsent } = this.publishes.left();
        const clean = events + acknowledgements + unknown + unsent === 0;
        this.left = { clean, events, acknowledgements, unknownPublishes: unknown, unsentPublishes: unsent };
        this.publishes.giveUp(closed(), this.news);
        this.table.fail(undefined, this.news);
        this.phase = { is: "over", error: undefined };
        this.enter("closed", undefined);
    }
    fail(error) {
        this.publishes.giveUp(error, this.news);
        this.table.fail(error, this.news);
        this.phase = { is: "over", error };
        this.enter("failed", error);
    }
    checkOpen() {
        if (this.phase.is === "over" && this.phase.error !== undefined) {
            throw this.phase.error.ofKind("closed");
        }
        if (this.phase.is === "over" || this.closing !== undefined) {
            throw closed();
        }
    }
    subscribe(spec, token) {
        this.checkOpen();
        return this.table.add(spec, token);
    }
    publish(call) {
        this.checkOpen();
        const amount = amountOf(call.events);
        if (!this.publishes.fits(amount)) {
            throw invalid("events", `are ${amount.events} of ${amount.bytes} bytes, more than the queue ever holds`);
        }
        return this.publishes.hasRoom(amount) ? this.publishes.add(call) : undefined;
    }
    ticket() {
        this.tickets += 1;
        return this.tickets;
    }
    stats(now) {
        const totals = this.table.totals();
        return {
            sessions: this.sessions,
            losses: this.losses.all(),
            sinceLastFrameMs: this.phase.is === "up" ? now - this.lastFrame : undefined,
            subscriptions: totals.subscriptions,
            eventsInHand: totals.events,
            bytesInHand: totals.bytes,
            unansweredAcknowledgements: totals.unanswered,
            queuedPublishes: this.publishes.held().events,
            unansweredPublishes: this.publishes.left().unknown,
            fullWindows: totals.fullWindows,
        };
    }
    enter(state, reason) {
        const shown = this.closing !== undefined && !isOver(state) ? "closing" : state;
        this.status = { ...this.status, state: shown, reason };
        this.news.push({ of: "state", status: this.status });
    }
}
function overAt({ until, halfClosed }) {
    return halfClosed === undefined ? until : Math.min(until, halfClosed + LAST_PATIENCE);
}

// reasons.ts

const REASONS = {
    1: "CLIENT_UNSUBSCRIBED",
    2: "LIMIT_REACHED",
    3: "CREDIT_EXHAUSTED",
    10: "INVALID_TOPIC",
    11: "INVALID_FILTER",
    12: "INVALID_EXPRESSION",
    13: "EVENT_TOO_LARGE",
    14: "MALFORMED_TOKEN",
    15: "MALFORMED_COMMAND",
    20: "SUBSCRIPTION_ID_IN_USE",
    21: "STREAM_EXISTS",
    22: "GROUP_EXISTS",
    30: "STREAM_NOT_FOUND",
    31: "GROUP_NOT_FOUND",
    32: "SUBSCRIPTION_NOT_FOUND",
    33: "SESSION_NOT_FOUND",
    34: "EVENT_NOT_FOUND",
    40: "CREDENTIAL_MISSING",
    41: "CREDENTIAL_INVALID",
    42: "CREDENTIAL_EXPIRED",
    50: "TOPIC_DENIED",
    51: "PERMISSION_REVOKED",
    52: "ACTION_DENIED",
    60: "RESUME_POINT_LOST",
    61: "EPOCH_CHANGED",
    70: "SLOW_CONSUMER",
    71: "SESSION_STALLED",
    72: "QUOTA_EXCEEDED",
    73: "STREAM_FULL",
    74: "TOO_MANY_SUBSCRIPTIONS",
    75: "TOO_MANY_SESSIONS",
    80: "SEQUENCE_MISMATCH",
    81: "SESSION_TERMINATED",
    90: "FILTER_OVERLAP",
    91: "CONFIG_MISMATCH",
    92: "LEASE_EXPIRED",
    100: "DRAINING",
    101: "ENGINE_UNAVAILABLE",
    102: "ENGINE_RECOVERING",
    110: "STORE_CORRUPT",
    120: "INTERNAL",
};
const CODES_OF_TENS = [
    "OK",
    "INVALID_ARGUMENT",
    "ALREADY_EXISTS",
    "NOT_FOUND",
    "UNAUTHENTICATED",
    "PERMISSION_DENIED",
    "OUT_OF_RANGE",
    "RESOURCE_EXHAUSTED",
    "ABORTED",
    "FAILED_PRECONDITION",
    "UNAVAILABLE",
    "DATA_LOSS",
    "INTERNAL",
];
function codeOfReason(number) {
    return CODES_OF_TENS[Math.floor(number / 10)] ?? "UNKNOWN";
}

// websocket.ts

const MOST_BUFFERED = 1024 * 1024;
const MOST_ANSWER = 64 * 1024;
const CLOSE = { normal: 1000, goingAway: 1001, reasons: 4000 };
function openWebSocket(webSocket, address, protocols, timeout, signal) {
    return new Promise((resolve, reject) => {
        const socket = new webSocket(urlOf(address), protocols);
        const link = new WebSocketLink(socket);
        const settled = () => {
            clearTimeout(timer);
            signal.removeEventListener("abort", abort);
        };
        const fail = (error) => {
            settled();
            link.abort();
            reject(error);
        };
        const abort = () => fail(notConnected("it was not wanted any more"));
        const late = () => {
            const text = `the hub did not answer within ${timeout / 1000} s`;
            fail(failure("lost", "UNAVAILABLE", "NOTHING_HEARD", text));
        };
        const timer = setTimeout(late, timeout);
        signal.addEventListener("abort", abort);
        let why = "the connection could not be made";
        socket.onerror = (event) => {
            why = event.message ?? why;
        };
        socket.onclose = () => fail(notConnected(why));
        socket.onopen = () => {
            if (socket.protocol !== protocols[0]) {
                fail(notConnected(`what answers does not speak ${protocols[0]}`));
                return;
            }
            settled();
            link.opened();
            resolve(link);
        };
        socket.on?.("unexpected-response", (request, response) => {
            socket.onclose = null;
            refusal(response, (error) => {
                request.destroy();
                fail(error);
            });
        });
    });
}
function urlOf(address) {
    return `${address.replace(/^http/, "ws").replace(/\/+$/, "")}/v1/ws`;
}
function refusal(response, tell) {
    let body = "";
    response.setEncoding("utf8");
    response.on("data", (data) => {
        body = body.length < MOST_ANSWER ? body + data : body;
    });
    response.on("error", () => undefined);
    response.on("close", () => tell(errorOfAnswer(response.statusCode ?? 0, body)));
}
class WebSocketLink {
    socket;
    hears;
    early = [];
    isOver = false;
    constructor(socket) {
        this.socket = socket;
    }
    opened() {
        const { socket } = this;
        socket.onopen = null;
        socket.onerror = null;
        socket.onmessage = ({ data }) => this.message(data);
        socket.onclose = ({ code, reason }) => this.lost(lossOf(code, reason));
    }
    start(hears) {
        this.hears = hears;
        for (const one of this.early.splice(0)) {
            if (typeof one === "string" || "failed" in one) {
                this.lost(one);
            }
            else if (!this.isOver) {
                hears.frame(one);
            }
        }
    }
    isFull() {
        return this.socket.bufferedAmount >= MOST_BUFFERED;
    }
    write(frame) {
        this.socket.send(frame);
    }
    halfClose() {
        this.socket.close(CLOSE.normal);
    }
    abort() {
        this.isOver = true;
        const { socket } = this;
        socket.onopen = null;
        socket.onmessage = null;
        socket.onclose = null;
        socket.onerror = () => undefined;
        socket.close(CLOSE.normal);
        socket.terminate?.();
    }
    message(data) {
        let response;
        try {
            response = typeof data === "string" ? JSON.parse(data) : undefined;
        }
        catch {
            response = undefined;
        }
        if (typeof response !== "object" || response === null) {
            this.lost({ failed: failure("lost", "INTERNAL", "", "what came is no frame of a session") });
        }
        else if (this.hears === undefined) {
            this.early.push(response);
        }
        else if (!this.isOver) {
            this.hears.frame(response);
        }
    }
    lost(loss) {
        if (this.isOver) {
            return;
        }
        if (this.hears === undefined) {
            this.early.push(loss);
            return;
        }
        this.isOver = true;
        this.hears.lost(loss);
    }
}
function lossOf(code, text) {
    if (code === CLOSE.normal) {
        return "ended";
    }
    const named = Object.keys(REASONS).find((number) => REASONS[Number(number)] === text);
    const number = named === undefined ? code - CLOSE.reasons : Number(named);
    const reason = REASONS[number];
    if (reason !== undefined) {
        return { failed: failure("lost", codeOfReason(number), reason, "the hub ended the session") };
    }
    if (code === CLOSE.goingAway) {
        return { failed: failure("lost", "UNAVAILABLE", "DRAINING", "the hub is going away") };
    }
    return { failed: failure("lost", "UNAVAILABLE", "", `the connection was lost (close code ${code})`) };
}

// link.ts

const TOKEN_TIMEOUT = 30_000;
const FIRST_CHOICE_TIMEOUT = 5000;
const BLOCKED_AFTER = 2;
const UPGRADE_REQUIRED = 426;
class Links {
    webSocket;
    send;
    transport;
    source;
    blocked = 0;
    constructor(webSocket, send, transport, source) {
        this.webSocket = webSocket;
        this.send = send;
        this.transport = transport;
        this.source = source;
    }
    async open(address, signal) {
        const token = await this.fetchToken();
        signal.throwIfAborted();
        const began = performance.now();
        const link = await this.connect(address, token?.value, signal);
        return { link, life: token?.life, took: performance.now() - began };
    }
    async connect(address, token, signal) {
        if (this.webSocket === undefined || this.transport === "events") {
            await this.ask(address, token, OPEN_TIMEOUT, signal);
            return new EventsLink({ fetch: this.send, address, token });
        }
        const protocols = ["switchyard.v1.json"];
        if (token !== undefined) {
            protocols.push(`switchyard.bearer.${toBase64Url(token)}`);
        }
        const isOnly = this.transport === "websocket";
        try {
            const timeout = isOnly ? OPEN_TIMEOUT : FIRST_CHOICE_TIMEOUT;
            const link = await openWebSocket(this.webSocket, address, protocols, timeout, signal);
            this.blocked = 0;
            return link;
        }
        catch (error) {
            const isSaid = error instanceof SwitchyardError && error.reason !== "NOT_CONNECTED" && error.reason !== "NOTHING_HEARD";
            if (isOnly || isSaid || signal.aborted) {
                throw error;
            }
            await this.ask(address, token, OPEN_TIMEOUT - FIRST_CHOICE_TIMEOUT, signal);
            this.blocked += 1;
            if (this.blocked < BLOCKED_AFTER) {
                throw error;
            }
            return new EventsLink({ fetch: this.send, address, token });
        }
    }
    async ask(address, token, timeout, signal) {
        const answer = await this.send(`${address}/v1/ws`, {
            headers: token === undefined ? {} : { authorization: `Bearer ${token}` },
            cache: "no-store",
            redirect: "error",
            signal: AbortSignal.any([signal, AbortSignal.timeout(timeout)]),
        });
        const status = statusOfAnswer(await answer.text());
        if (answer.status !== UPGRADE_REQUIRED || status === undefined) {
            throw status === undefined
                ? notConnected(`what answers is no hub: its status is ${answer.status}`)
                : ofStatus("lost", status);
        }
    }
    async fetchToken() {
        if (this.source === undefined) {
            return undefined;
        }
        let timer;
        const late = new Promise((_, reject) => {
            timer = setTimeout(() => reject(noToken(`not after ${TOKEN_TIMEOUT / 1000} s`)), TOKEN_TIMEOUT);
        });
        try {
            const token = await Promise.race([this.source(), late]);
            const { value, expires } = typeof token === "string" ? { value: token, expires: undefined } : token;
            return { value: value.trim(), life: expires === undefined ? undefined : expires.getTime() - Date.now() };
        }
        catch (error) {
            throw noToken(error instanceof Error ? error.message : String(error));
        }
        finally {
            clearTimeout(timer);
        }
    }
}
function noToken(why) {
    return failure("source", "UNAVAILABLE", "TOKEN_SOURCE", `no token: ${why}`);
}

// options.ts

const LIMITS_OF_HELLO = { nameBytes: 256, labels: 32, labelBytes: 4096 };
const HEARTBEAT = { usual: 15_000, shortest: 1000, longest: 300_000 };
const QUEUE = { events: 8192, bytes: 16 * 1024 * 1024 };
const QUIET_CONSOLE = {
    info: () => undefined,
    warn: (text) => console.warn(text),
    error: (text) => console.error(text),
};
function checkedOptions(options) {
    const { name = "", labels = {}, token, heartbeatMs: heartbeat = HEARTBEAT.usual } = options;
    const queue = { events: options.queueEvents ?? QUEUE.events, bytes: options.queueBytes ?? QUEUE.bytes };
    const labelBytes = utf8Length(Object.entries(labels).flat().join(""));
    if (utf8Length(name) > LIMITS_OF_HELLO.nameBytes) {
        throw invalid("name", `has more than ${LIMITS_OF_HELLO.nameBytes} bytes`);
    }
    if (Object.keys(labels).length > LIMITS_OF_HELLO.labels) {
        throw invalid("labels", `are more than ${LIMITS_OF_HELLO.labels}`);
    }
    if (labelBytes > LIMITS_OF_HELLO.labelBytes) {
        throw invalid("labels", `have more than ${LIMITS_OF_HELLO.labelBytes} bytes`);
    }
    if (!(heartbeat >= HEARTBEAT.shortest && heartbeat <= HEARTBEAT.longest)) {
        throw invalid("heartbeatMs", "must be 1 second to 5 minutes");
    }
    if (!(queue.events >= 1)) {
        throw invalid("queueEvents", "must be positive");
    }
    if (!(queue.bytes >= 1)) {
        throw invalid("queueBytes", "must be positive");
    }
    const { transport = "auto" } = options;
    const webSocket = options.webSocket ?? globalThis.WebSocket;
    if (webSocket === undefined && transport !== "events") {
        throw invalid("webSocket", "is missing: before version 22 Node has none, so give that of the ws package");
    }
    return {
        addresses: checkedAddresses(options.addresses),
        name,
        labels,
        source: typeof token === "string" ? () => token : token,
        renews: typeof token === "function",
        heartbeat,
        queue,
        logger: options.logger === false ? undefined : (options.logger ?? QUIET_CONSOLE),
        webSocket,
        transport,
        fetch: options.fetch ?? ((...request) => globalThis.fetch(...request)),
    };
}
function checkedAddresses(given) {
    const here = globalThis.location?.origin;
    const addresses = given === undefined ? [here ?? ""].filter((address) => address !== "") : [given].flat();
    if (addresses.length === 0) {
        throw invalid("addresses", "are missing");
    }
    return addresses.map((address) => {
        const text = address.replace(/\/+$/, "");
        const url = URL.canParse(text) ? new URL(text) : undefined;
        if (url === undefined || !/^https?:$/.test(url.protocol) || url.search !== "" || url.hash !== "") {
            throw invalid("addresses", `has ${JSON.stringify(address)}: not a URL such as https://hub.example`);
        }
        return text;
    });
}

// delivery.ts

class Delivery extends Received {
    core;
    hold;
    constructor(wire, core, hold) {
        super(wire);
        this.core = core;
        this.hold = hold;
    }
    ack() {
        this.settle(ACK);
    }
    async acked() {
        if (this.hold !== undefined) {
            const answer = this.core.settleAndTell(this.hold, ACK);
            const error = answer === undefined ? leaseLost() : await answer;
            if (error !== undefined) {
                throw error;
            }
        }
    }
    nack(reason = "", delayMs) {
        this.settle({ is: "nack", delay: delayMs, reason });
    }
    reject(reason = "") {
        this.settle({ is: "reject", reason });
    }
    extend(timeMs) {
        const { hold } = this;
        if (hold !== undefined) {
            this.core.call((machine, now) => machine.table.extend(now, hold, timeMs));
        }
    }
    forget() {
        const { hold } = this;
        if (hold !== undefined) {
            this.core.call((machine, now) => machine.table.letGo(now, hold, machine.news));
        }
    }
    settle(verdict) {
        if (this.hold !== undefined) {
            this.core.settle(this.hold, verdict);
        }
    }
}
class Batch {
    core;
    subscription;
    keeper;
    kind = "events";
    events;
    token;
    number;
    isOver = false;
    constructor(incoming, core, subscription, keeper) {
        this.core = core;
        this.subscription = subscription;
        this.keeper = keeper;
        this.number = incoming.batch;
        this.token = incoming.token;
        this.events = incoming.events.map(({ event, sequence, copy }) => {
            return new Delivery(event, core, copy === 0 ? undefined : { id: subscription, sequence, copy });
        });
    }
    async done() {
        if (!this.isOver) {
            this.isOver = true;
            this.core.call((machine, now) => machine.table.finishBatch(now, this.subscription, this.number, machine.news));
        }
        await this.keeper?.keep(() => this.core.machine.table.get(this.subscription)?.done());
    }
    forget() {
        if (!this.isOver) {
            this.isOver = true;
            this.core.call((machine, now) => machine.table.dropBatch(now, this.subscription, this.number, machine.news));
        }
    }
}

// keeper.ts

class Keeper {
    store;
    kept;
    last = Promise.resolve();
    constructor(store) {
        this.store = store;
    }
    async load() {
        try {
            this.kept = await this.store.load();
            return this.kept;
        }
        catch (error) {
            throw failed("the position cannot be read", error);
        }
    }
    keep(place) {
        const keeping = this.last.then(async () => {
            const token = place();
            if (token === undefined || token === this.kept) {
                return;
            }
            try {
                await this.store.keep(token);
            }
            catch (error) {
                throw failed("the position is not kept", error);
            }
            this.kept = token;
        });
        this.last = keeping.catch(() => undefined);
        return keeping;
    }
}
function failed(what, error) {
    const why = error instanceof Error ? error.message : String(error);
    return failure("source", "INTERNAL", "POSITION_STORE", `${what}: ${why}`);
}

// spec.ts

const WINDOW = { events: 256, bytes: 4 * 1024 * 1024 };
const MAX_SPEC_BYTES = 128 * 1024;
const MOST_BATCH = 10_000;
const OVERFLOWS = {
    dropOldest: "OVERFLOW_POLICY_DROP_OLDEST",
    conflate: "OVERFLOW_POLICY_CONFLATE",
    end: "OVERFLOW_POLICY_END",
};
const GAP_POLICIES = { fail: "GAP_POLICY_FAIL", earliest: "GAP_POLICY_EARLIEST", latest: "GAP_POLICY_LATEST" };
const PRESETS = {
    new: "START_PRESET_NEW",
    earliest: "START_PRESET_EARLIEST",
    lastPerTopic: "START_PRESET_LAST_PER_TOPIC",
};
function checked(spec) {
    const window = { events: spec.window ?? WINDOW.events, bytes: spec.windowBytes ?? WINDOW.bytes };
    positive("window", window.events);
    positive("windowBytes", window.bytes);
    const wire = wireOf(spec);
    const acknowledges = wire.ackMode === "ACK_MODE_EXPLICIT";
    const hasPlace = wire.stream !== undefined && wire.group === undefined;
    if (utf8Length(JSON.stringify(wire)) > MAX_SPEC_BYTES) {
        throw invalid("filters", `have more than ${MAX_SPEC_BYTES} bytes`);
    }
    if (spec.position !== undefined && !hasPlace) {
        throw invalid("position", "is only for a subscription that reads a stream by itself");
    }
    if (acknowledges && spec.limit !== undefined) {
        throw invalid("limit", "is not for members that acknowledge: they stop taking events instead");
    }
    const startsNew = spec.from === undefined || spec.from === "new";
    const keepsPlace = spec.position !== undefined;
    return { wire, window, acknowledges, hasPlace, keepsPlace, startsNew, name: nameOf(wire) };
}
function positive(field, value, most = Number.MAX_SAFE_INTEGER) {
    if (!Number.isInteger(value) || value < 1 || value > most) {
        const range = most === Number.MAX_SAFE_INTEGER ? "a positive integer" : `an integer from 1 to ${most}`;
        throw invalid(field, `must be ${range}`);
    }
}
function wireOf(spec) {
    const wire = {};
    if (spec.filters !== undefined && spec.filters.length > 0) {
        wire.filters = [...spec.filters];
    }
    if (spec.stream !== undefined && spec.stream !== "") {
        wire.stream = spec.stream;
    }
    if (spec.group !== undefined && spec.group !== "") {
        wire.group = spec.group;
        if (wire.stream !== undefined && spec.doneWhenSent !== true) {
            wire.ackMode = "ACK_MODE_EXPLICIT";
        }
    }
    if (spec.from !== undefined) {
        wire.start = startOf(spec.from);
    }
    if (spec.overflow !== undefined) {
        wire.overflow = OVERFLOWS[spec.overflow];
    }
    if (spec.onGap !== undefined) {
        wire.onGap = GAP_POLICIES[spec.onGap];
    }
    if (spec.maxBatch !== undefined) {
        positive("maxBatch", spec.maxBatch, MOST_BATCH);
        wire.maxBatch = spec.maxBatch;
    }
    if (spec.limit !== undefined) {
        positive("limit", spec.limit);
        wire.maxEvents = String(spec.limit);
    }
    return wire;
}
function startOf(start) {
    if (typeof start === "string") {
        return { preset: PRESETS[start] };
    }
    if ("after" in start) {
        return { afterSequence: String(start.after) };
    }
    return "at" in start ? { atTime: start.at.toISOString() } : { resumeToken: start.token };
}
function nameOf({ stream, group, filters = [] }) {
    const of = group === undefined ? "" : `group ${group} of `;
    if (stream !== undefined) {
        return `${of}stream ${stream}`;
    }
    const more = filters.length > 1 ? ` and ${filters.length - 1} more` : "";
    return `${of}live ${filters[0] ?? "events"}${more}`;
}

// subscription.ts

const MOST_SEQUENCES_NAMED = 10;
class Subscription {
    core;
    spec;
    keeper;
    begun;
    number;
    isClosed = false;
    constructor(core, spec) {
        core.machine.checkOpen();
        this.core = core;
        this.spec = checked(spec);
        this.keeper = spec.position === undefined ? undefined : new Keeper(spec.position);
        if (this.keeper === undefined) {
            this.number = core.subscribe(this.spec, undefined);
            this.begun = Promise.resolve(this.number);
        }
        else {
            this.begun = this.begin(this.keeper);
            this.begun.catch(() => undefined);
        }
    }
    async begin(keeper) {
        const token = await keeper.load();
        if (this.isClosed) {
            return 0;
        }
        this.number = this.core.subscribe(this.spec, token);
        return this.number;
    }
    async next() {
        const id = await this.begun;
        for (;;) {
            await this.keepPosition();
            const incoming = this.take(id);
            if (incoming !== undefined) {
                return this.item(id, incoming);
            }
            const end = this.isClosed ? { error: undefined } : this.core.machine.table.takeEnd(id);
            if (end?.error !== undefined) {
                throw end.error;
            }
            if (end !== undefined) {
                return undefined;
            }
            await this.core.changed(id);
        }
    }
    async *[Symbol.asyncIterator]() {
        try {
            for (let item = await this.next(); item !== undefined; item = await this.next()) {
                yield item;
            }
        }
        finally {
            this.close();
        }
    }
    take(id) {
        if (this.isClosed) {
            return undefined;
        }
        const incoming = this.core.with((machine, now) => machine.table.take(now, id));
        if (incoming !== undefined) {
            this.core.ring();
        }
        return incoming;
    }
    item(id, incoming) {
        switch (incoming.is) {
            case "events":
                return new Batch(incoming, this.core, id, this.keeper);
            case "gap":
                return { kind: "gap", ...incoming.missing };
            default:
                return { kind: "caughtUp" };
        }
    }
    async ready() {
        const id = await this.begun;
        for (;;) {
            if (this.opened !== undefined) {
                return;
            }
            if (this.isClosed || this.core.machine.table.isOver(id)) {
                throw this.core.machine.table.takeEnd(id)?.error ?? closed();
            }
            await this.core.changed(id);
        }
    }
    async settled() {
        const id = await this.begun;
        const mark = this.core.machine.table.mark(id);
        for (;;) {
            const lost = this.core.machine.table.settled(id, mark);
            if (lost === undefined) {
                await this.core.changed(id);
            }
            else if (lost.count === 0) {
                return;
            }
            else {
                throw leasesLost(lost, this.spec.name);
            }
        }
    }
    async keepPosition() {
        await this.keeper?.keep(() => this.position);
    }
    close() {
        if (this.isClosed) {
            return;
        }
        this.isClosed = true;
        const id = this.number;
        if (id !== undefined) {
            this.core.call((machine, now) => {
                machine.table.abandon(now, id, machine.news);
                machine.news.push({ of: "subscription", id });
            });
        }
    }
    get opened() {
        return this.row?.opened;
    }
    get isOpen() {
        return this.row?.isOpen() ?? false;
    }
    get isCaughtUp() {
        return this.row?.hasCaughtUp() ?? false;
    }
    get lag() {
        return this.row?.lag ?? 0;
    }
    get position() {
        return this.row?.done();
    }
    get id() {
        return this.number ?? 0;
    }
    get row() {
        return this.number === undefined ? undefined : this.core.machine.table.get(this.number);
    }
}
function leasesLost({ sequences, count }, place) {
    const named = sequences.slice(0, MOST_SEQUENCES_NAMED);
    const more = count > named.length ? " and others" : "";
    const text = `${count} leases were lost before what was said of their events was stored; sequences ${named.join(", ")}${more} ` +
        "come again";
    return failure("leaseLost", "FAILED_PRECONDITION", "LEASE_EXPIRED", text).at(place);
}

// worker.ts

const MOST_AT_ONCE = 10_000;
const ACK_DEADLINE = 30_000;
const EXTENDS = 3;
class RetryLater extends Error {
    delayMs;
    name = "RetryLater";
    constructor(reason, delayMs) {
        super(reason);
        this.delayMs = delayMs;
    }
}
class Reject extends Error {
    name = "Reject";
}
async function work(subscribe, { concurrency = 1, ...spec }, handler) {
    if (!Number.isInteger(concurrency) || concurrency < 1 || concurrency > MOST_AT_ONCE) {
        throw invalid("concurrency", `must be an integer from 1 to ${MOST_AT_ONCE}`);
    }
    const subscription = subscribe({ ...spec, window: concurrency });
    const running = new Map();
    let timer;
    const extend = () => {
        for (const event of running.keys()) {
            event.extend();
        }
        timer = undefined;
        watch();
    };
    const watch = () => {
        if (timer === undefined && running.size > 0) {
            timer = setTimeout(extend, (subscription.opened?.ackDeadlineMs ?? ACK_DEADLINE) / EXTENDS);
        }
    };
    try {
        for (let item = await subscription.next(); item !== undefined; item = await subscription.next()) {
            for (const event of item.kind === "events" ? item.events : []) {
                const done = handle(event, handler).then(() => {
                    running.delete(event);
                });
                running.set(event, done);
            }
            watch();
        }
    }
    finally {
        await Promise.all(running.values());
        clearTimeout(timer);
        subscription.close();
    }
}
async function handle(event, handler) {
    try {
        await handler(event);
        event.ack();
    }
    catch (error) {
        const reason = error instanceof Error ? error.message : String(error);
        if (error instanceof Reject) {
            event.reject(reason);
        }
        else {
            event.nack(reason, error instanceof RetryLater ? error.delayMs : undefined);
        }
    }
}

// client.ts

const PUBLISH_DEADLINE = 30_000;
const LAST_FLUSH = 5000;
class Client {
    core;
    links;
    sender;
    constructor(options = {}) {
        const settings = checkedOptions(options);
        const { addresses, name, labels, source, renews, heartbeat, queue, logger } = settings;
        const machine = new Machine({
            name,
            labels,
            heartbeat,
            addresses,
            hasSource: renews,
            returnsWhenTerminated: options.returnsWhenTerminated === true,
            most: queue,
            random: Math.random,
        });
        this.core = new Core(machine, logger);
        this.links = new Links(settings.webSocket, settings.fetch, settings.transport, source);
        this.sender = { name, newId, traceContext: options.traceContext };
        if (options.onState !== undefined) {
            this.core.onState(options.onState);
        }
    }
    async run() {
        const error = await new Driver(this.core, this.links).over;
        if (error !== undefined) {
            throw error;
        }
    }
    get status() {
        return this.core.machine.status;
    }
    get stats() {
        return this.core.machine.stats(this.core.now());
    }
    on(event, hears) {
        if (event !== "state") {
            throw invalid("event", "must be state");
        }
        return this.core.onState(hears);
    }
    subscribe(spec) {
        return new Subscription(this.core, spec);
    }
    async publish(event, options = {}) {
        const { answer } = await this.enqueue(event, options);
        return answer;
    }
    async publishAll(events, options = {}) {
        const { answer } = await this.core.publishSoon(this.call(events, options));
        return answer;
    }
    async enqueue(event, options = {}) {
        const { answer } = await this.core.publishSoon(this.call([event], options));
        const outcome = one(answer);
        outcome.catch(() => undefined);
        return { answer: outcome };
    }
    async tryPublish(event, options = {}) {
        const answer = this.core.publish(this.call([event], options));
        if (answer === undefined) {
            throw failure("refused", "RESOURCE_EXHAUSTED", "QUEUE_FULL", "the queue of publishes is full");
        }
        return one(answer);
    }
    call(events, options) {
        if (events.length === 0) {
            throw invalid("events", "are missing");
        }
        return {
            events: events.map((event) => encode(event, this.sender)),
            precondition: preconditionOf(options),
            deadline: this.core.now() + (options.timeoutMs ?? PUBLISH_DEADLINE),
            retryLive: options.retryLive === true,
        };
    }
    runWorker(spec, handler) {
        return work((checked) => this.subscribe(checked), spec, handler);
    }
    async drain(options = {}) {
        const { timeoutMs = LAST_FLUSH, mode = "finish" } = options;
        const over = this.core.over();
        this.core.call((machine, now) => machine.drain(now, mode, timeoutMs));
        const error = await over;
        if (error !== undefined) {
            throw error;
        }
        return this.core.machine.left;
    }
    async close() {
        await this.drain({ mode: "release" }).catch(() => undefined);
    }
}
function connect(options = {}) {
    const client = new Client(options);
    client.run().catch(() => undefined);
    return client;
}
async function one(answer) {
    const [outcome] = await answer;
    if (outcome === undefined || outcome instanceof SwitchyardError) {
        throw outcome ?? failure("unknown", "UNKNOWN", "NO_ANSWER", "the hub did not answer");
    }
    return outcome;
}
function preconditionOf({ ifLastSequence, ifLastTopicSequence }) {
    if (ifLastSequence !== undefined && ifLastTopicSequence !== undefined) {
        throw invalid("ifLastSequence", "cannot go with ifLastTopicSequence");
    }
    if (ifLastSequence !== undefined) {
        return { lastSequence: String(ifLastSequence) };
    }
    return ifLastTopicSequence === undefined ? undefined : { lastTopicSequence: String(ifLastTopicSequence) };
}

// position.ts

class MemoryPosition {
    token;
    load() {
        return Promise.resolve(this.token);
    }
    keep(token) {
        this.token = token;
        return Promise.resolve();
    }
}
class StoragePosition {
    storage;
    name;
    constructor(storage, name) {
        this.storage = storage;
        this.name = name;
    }
    load() {
        return attempt(() => this.storage.getItem(this.name) ?? undefined);
    }
    keep(token) {
        return attempt(() => this.storage.setItem(this.name, token));
    }
}
async function attempt(act) {
    return act();
}

export { Client, MemoryPosition, Reject, RetryLater, StoragePosition, SwitchyardError, connect };
