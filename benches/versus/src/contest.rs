//! The contest: which rows and series there are, and the runs behind each, contender after contender in every
//! repetition, so that whatever else the machine does falls on all of them.

use std::time::{Duration, Instant};

use switchyard::bench::{
    Pace, Plan,
    workload::{self, Times},
};

use crate::{
    contender::{Contender, Cost, Ground},
    durable::{self, Figure, Store, beside, group},
    idle,
    report::{Report, Series, figure},
    stalled, subscriptions,
    web::{self, Way},
};

const USUAL_PAYLOAD_BYTES: usize = 128;
const PAYLOADS_BYTES: [usize; 4] = [16, 128, 1_024, 16_384];
const LATENCY_RATE: u64 = 10_000;
/// The topics and subscribers of `wildcard_zipf`.
const ZIPF_TOPICS: usize = 10_000;
const ZIPF_SUBSCRIBERS: usize = 40;
const SUBSCRIBER_STEPS: [usize; 7] = [1, 3, 10, 30, 100, 300, 1_000];
/// The step of the idle series that is a row, too.
const IDLE_CONNECTIONS: usize = 2_000;
const MOST_IDLE_CONNECTIONS: usize = 8_000;
const EVENT_STREAMS: usize = 1_000;

/// Everything there is to do.
pub(crate) struct Contest {
    pub(crate) ground: Ground,
    pub(crate) times: Times,
    pub(crate) repetitions: usize,
    /// Rows and series whose names begin like one of these; all when there are none.
    pub(crate) only: Vec<String>,
    pub(crate) begin: Instant,
    pub(crate) report: Report,
}

impl Contest {
    /// Runs everything. What fails is in the report.
    pub(crate) async fn run(&mut self) {
        for payload_bytes in PAYLOADS_BYTES {
            self.fan("fanout_1_1", 1, 1, payload_bytes).await;
        }
        for payload_bytes in PAYLOADS_BYTES {
            self.fan("fanout_1_10", 1, 10, payload_bytes).await;
        }
        self.fan("fanout_1_100", 1, 100, USUAL_PAYLOAD_BYTES).await;
        self.fan("fanin_10_1", 10, 1, USUAL_PAYLOAD_BYTES).await;
        let zipf = Plan {
            pace: workload::window(USUAL_PAYLOAD_BYTES, 1),
            ..workload::topics(ZIPF_TOPICS, ZIPF_SUBSCRIBERS, USUAL_PAYLOAD_BYTES, self.times)
        };
        // Bare tonic knows no topics.
        self.throughput("wildcard_zipf", &zipf, &[Contender::Hub, Contender::Nats]).await;
        self.latency().await;
        self.subscriptions().await;
        self.idle().await;
        self.websocket().await;
        self.event_streams().await;
        self.idle_web().await;
        self.stalled().await;
        self.durable().await;
        self.group().await;
        self.beside().await;
        self.subscribers().await;
    }

    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| name.starts_with(only.as_str()))
    }

    /// Tells what is found while it is found.
    fn tell(&self, text: &str) {
        eprintln!("[{:>4.0} s] {text}", self.begin.elapsed().as_secs_f64());
    }

    /// Takes note of a failure, which fails the whole program in the end.
    fn passed<T>(&mut self, what: &str, result: anyhow::Result<T>) -> Option<T> {
        match result {
            Ok(passed) => Some(passed),
            Err(error) => {
                let failure = format!("{what}: {error:#}");
                self.tell(&format!("FAILED: {failure}"));
                self.report.failures.push(failure);
                None
            }
        }
    }

    async fn fan(&mut self, name: &'static str, publishers: usize, subscribers: usize, payload_bytes: usize) {
        let window = workload::window(payload_bytes, publishers);
        let plan = workload::fan(publishers, subscribers, payload_bytes, window, self.times);
        self.throughput(name, &plan, &Contender::ALL).await;
    }

    async fn throughput(&mut self, name: &'static str, plan: &Plan, contenders: &[Contender]) {
        if !self.wants(name) {
            return;
        }
        for repetition in 1..=self.repetitions {
            for contender in contenders.iter().copied() {
                let result = self.ground.load(contender, plan).await;
                let what = format!("{name}, {} B, {}, run {repetition}", plan.payload_bytes, contender.name());
                let Some(run) = self.passed(&what, result) else { continue };
                let rate = run.outcome.delivered_per_second;
                self.tell(&format!("{what}: {} deliveries/s, {}", figure(rate), cost_text(run.cost)));
                let payload_bytes = Some(plan.payload_bytes);
                self.report.add(name, payload_bytes, "deliveries/s", contender, rate, Some(run.cost));
            }
        }
    }

    async fn latency(&mut self) {
        if !self.wants("latency_10k") {
            return;
        }
        let payload_bytes = USUAL_PAYLOAD_BYTES;
        let plan = workload::fan(1, 1, payload_bytes, Pace::Rate(LATENCY_RATE), self.times);
        // The tail differs more from run to run than from one contender to another.
        for repetition in 1..=2 * self.repetitions {
            for contender in Contender::ALL {
                let result = self.ground.load(contender, &plan).await;
                let what = format!("latency_10k, {}, run {repetition}", contender.name());
                let Some(run) = self.passed(&what, result) else { continue };
                let Some(latency) = run.outcome.latency else { continue };
                let found = [
                    ("latency_10k_p50", latency.p50_us),
                    ("latency_10k_p99", latency.p99_us),
                    ("latency_10k_p999", latency.p999_us),
                ];
                let [p50, p99, p999] = found.map(|(_, micros)| figure(micros));
                self.tell(&format!("{what}: p50 {p50} us, p99 {p99} us, p99.9 {p999} us, {}", cost_text(run.cost)));
                for (name, micros) in found {
                    self.report.add(name, Some(payload_bytes), "us", contender, micros, Some(run.cost));
                }
            }
        }
    }

    async fn subscriptions(&mut self) {
        if !["bytes_per_subscription", "publish_cost_growth_1k_1m"].into_iter().any(|name| self.wants(name)) {
            return;
        }
        let mut bytes = Series {
            name: "bytes_per_subscription",
            title: "Memory of the hub for each subscription of one session",
            x: "subscriptions",
            unit: "bytes",
            lines: Vec::new(),
        };
        let mut cost = Series {
            name: "publish_cost",
            title: "Publishing to one of many subscriptions",
            x: "subscriptions",
            unit: "ns for each event",
            lines: Vec::new(),
        };
        for repetition in 1..=self.repetitions {
            let what = format!("subscriptions, hub, run {repetition}");
            let result = subscriptions::measure(&self.ground, self.times.measure).await;
            let Some(steps) = self.passed(&what, result) else { continue };
            // Enough to be drawn: the series of the last repetition.
            (bytes.lines, cost.lines) = (Vec::new(), Vec::new());
            for step in &steps {
                let x = step.subscriptions as f64;
                bytes.add("hub", x, step.bytes_each);
                cost.add("time passed", x, step.publish_ns);
                cost.add("hub's core", x, step.publish_server_ns);
                self.tell(&format!(
                    "{what}: {x} of {:.0} B each, {} subscribes/s, a publish takes {:.0} ns, {:.0} ns of the hub's core",
                    step.bytes_each,
                    figure(step.subscribed_per_second),
                    step.publish_ns,
                    step.publish_server_ns
                ));
            }
            let (Some(first), Some(last)) = (steps.first(), steps.last()) else { continue };
            let found = [
                ("bytes_per_subscription", "bytes", last.bytes_each),
                ("subscribe_rate", "subscriptions/s", last.subscribed_per_second),
                ("publish_cost_growth_1k_1m", "ratio", last.publish_ns / first.publish_ns),
                ("publish_core_growth_1k_1m", "ratio", last.publish_server_ns / first.publish_server_ns),
            ];
            for (name, unit, value) in found {
                self.report.add(name, None, unit, Contender::Hub, value, None);
            }
        }
        self.report.series.extend([bytes, cost]);
    }

    async fn idle(&mut self) {
        let name = "idle_session_bytes";
        if !self.wants(name) {
            return;
        }
        let mut series = Series {
            name: "idle_session_bytes",
            title: "Memory of the server for each idle connection",
            x: "connections",
            unit: "bytes",
            lines: Vec::new(),
        };
        for repetition in 1..=self.repetitions {
            // The long series once is enough.
            let most = if repetition == 1 { MOST_IDLE_CONNECTIONS } else { IDLE_CONNECTIONS };
            for contender in Contender::ALL {
                let what = format!("{name}, {}, run {repetition}", contender.name());
                let result = idle::measure(&self.ground, contender, most).await;
                let Some(steps) = self.passed(&what, result) else { continue };
                for (connections, bytes) in steps {
                    if repetition == 1 {
                        series.add(contender.name(), connections as f64, bytes);
                    }
                    if connections == IDLE_CONNECTIONS {
                        self.report.add(name, None, "bytes", contender, bytes, None);
                        self.tell(&format!("{what}: {bytes:.0} B with {connections} connections"));
                    }
                }
            }
        }
        self.report.series.push(series);
    }

    /// A hundred subscribers over WebSocket, beside as many over gRPC.
    async fn websocket(&mut self) {
        let (websocket, json) = ("websocket_1_100", "websocket_json_1_100");
        if ![websocket, json].into_iter().any(|name| self.wants(name)) {
            return;
        }
        let window = workload::window(USUAL_PAYLOAD_BYTES, 1);
        let plan = workload::fan(1, 100, USUAL_PAYLOAD_BYTES, window, self.times);
        for repetition in 1..=self.repetitions {
            let grpc = self.way("grpc_1_100", Way::Grpc, &plan, repetition).await;
            let in_protobuf = self.way(websocket, Way::WebSocket, &plan, repetition).await;
            self.way(websocket, Way::NatsWebSocket, &plan, repetition).await;
            let in_json = self.way(json, Way::Json, &plan, repetition).await;
            let ratios = [("websocket_of_grpc", in_protobuf, grpc), ("json_of_protobuf", in_json, in_protobuf)];
            for (name, one, other) in ratios {
                let Some(ratio) = one.zip(other).map(|(one, other)| one / other) else { continue };
                self.report.add(name, Some(USUAL_PAYLOAD_BYTES), "ratio", Contender::Hub, ratio, None);
            }
        }
    }

    async fn event_streams(&mut self) {
        let name = "sse_1_1000";
        if !self.wants(name) {
            return;
        }
        let window = workload::window(USUAL_PAYLOAD_BYTES, 1);
        let plan = workload::fan(1, EVENT_STREAMS, USUAL_PAYLOAD_BYTES, window, self.times);
        for repetition in 1..=self.repetitions {
            self.way(name, Way::Events, &plan, repetition).await;
        }
    }

    /// Puts a load on a server with subscribers of one kind. Gives the deliveries a second.
    async fn way(&mut self, name: &'static str, way: Way, plan: &Plan, repetition: usize) -> Option<f64> {
        let what = format!("{name}, {}, run {repetition}", way.name());
        let result = web::measure(&self.ground, way, plan).await;
        let run = self.passed(&what, result)?;
        let rate = run.outcome.delivered_per_second;
        self.tell(&format!("{what}: {} deliveries/s, {}", figure(rate), cost_text(run.cost)));
        let payload_bytes = Some(plan.payload_bytes);
        self.report.add(name, payload_bytes, "deliveries/s", way.contender(), rate, Some(run.cost));
        Some(rate)
    }

    /// WebSockets and event streams that do nothing.
    async fn idle_web(&mut self) {
        let (websockets, event_streams) = ("idle_websocket_bytes", "idle_sse_http2_bytes");
        for repetition in 1..=self.repetitions {
            for contender in [Contender::Hub, Contender::Nats] {
                if self.wants(websockets) {
                    let result = web::idle::websockets(&self.ground, contender).await;
                    self.bytes(websockets, contender, repetition, result);
                }
            }
            if self.wants(event_streams) {
                let result = web::idle::event_streams(&self.ground).await;
                self.bytes(event_streams, Contender::Hub, repetition, result);
            }
        }
    }

    fn bytes(&mut self, name: &'static str, contender: Contender, repetition: usize, found: anyhow::Result<f64>) {
        let what = format!("{name}, {}, run {repetition}", contender.name());
        let Some(bytes) = self.passed(&what, found) else { return };
        self.tell(&format!("{what}: {bytes:.0} B"));
        self.report.add(name, None, "bytes", contender, bytes, None);
    }

    async fn stalled(&mut self) {
        let name = "stalled_one_of_ten";
        if !self.wants(name) {
            return;
        }
        for repetition in 1..=self.repetitions {
            for contender in [Contender::Hub, Contender::Nats] {
                let mut rates = [0.0; 2];
                for (rate, stalled) in rates.iter_mut().zip([false, true]) {
                    let with = if stalled { "with" } else { "without" };
                    let what = format!("{name}, {}, {with} it, run {repetition}", contender.name());
                    let result = stalled::measure(&self.ground, contender, stalled, self.times).await;
                    let Some(run) = self.passed(&what, result) else { continue };
                    *rate = run.outcome.delivered_per_second;
                    self.tell(&format!("{what}: {} deliveries/s, {}", figure(*rate), cost_text(run.cost)));
                }
                let [without, with] = rates;
                if without > 0.0 && with > 0.0 {
                    self.report.add(name, Some(USUAL_PAYLOAD_BYTES), "ratio", contender, with / without, None);
                }
            }
        }
    }

    async fn durable(&mut self) {
        if !durable::ROWS.into_iter().any(|name| self.wants(name)) {
            return;
        }
        for repetition in 1..=self.repetitions {
            for store in Store::ALL {
                let what = format!("durable, {}, run {repetition}", store.name());
                let result = durable::measure(&self.ground, store, self.times.measure).await;
                self.found(&what, store, result);
            }
        }
    }

    /// Adds what a repetition found of a store.
    fn found(&mut self, what: &str, store: Store, result: anyhow::Result<Vec<Figure>>) {
        for Figure { name, unit, value, cost } in self.passed(what, result).into_iter().flatten() {
            let cost_told = cost.map_or_else(String::new, |cost| format!(", {}", cost_text(cost)));
            self.tell(&format!("{what}: {name} {} {unit}{cost_told}", figure(value)));
            self.report.add(name, Some(durable::PAYLOAD_BYTES), unit, store.contender(), value, cost);
        }
    }

    async fn group(&mut self) {
        if !group::ROWS.into_iter().any(|name| self.wants(name)) {
            return;
        }
        for repetition in 1..=self.repetitions {
            for store in [Store::Hub, Store::JetStream] {
                let what = format!("group, {}, run {repetition}", store.name());
                let result = group::measure(&self.ground, store).await;
                self.found(&what, store, result);
            }
        }
    }

    async fn beside(&mut self) {
        let name = beside::ROW;
        if !self.wants(name) {
            return;
        }
        for repetition in 1..=self.repetitions {
            let what = format!("{name}, hub, run {repetition}");
            let result = beside::measure(&self.ground, self.times.measure).await;
            let Some(beside::Found { alone, beside, behind }) = self.passed(&what, result) else { continue };
            let [alone_told, beside_told, behind_told] = [alone, beside, behind as f64].map(figure);
            self.tell(&format!(
                "{what}: {alone_told}/s alone, {beside_told}/s with a reader {behind_told} events behind"
            ));
            self.report.add(name, Some(durable::PAYLOAD_BYTES), "ratio", Contender::Hub, beside / alone, None);
        }
    }

    /// The series of deliveries by subscribers.
    async fn subscribers(&mut self) {
        let name = "deliveries_by_subscribers";
        if !self.wants(name) {
            return;
        }
        let mut series = Series {
            name,
            title: "Deliveries, one publisher, 128 B",
            x: "subscribers",
            unit: "deliveries/s",
            lines: Vec::new(),
        };
        let measure = self.times.measure.min(Duration::from_secs(2));
        for subscribers in SUBSCRIBER_STEPS {
            let window = workload::window(USUAL_PAYLOAD_BYTES, 1);
            let times = Times { measure, ..self.times };
            let plan = workload::fan(1, subscribers, USUAL_PAYLOAD_BYTES, window, times);
            for contender in Contender::ALL {
                let what = format!("{name}, {subscribers}, {}", contender.name());
                let result = self.ground.load(contender, &plan).await;
                let Some(run) = self.passed(&what, result) else { continue };
                let rate = run.outcome.delivered_per_second;
                self.tell(&format!("{what}: {} deliveries/s, {}", figure(rate), cost_text(run.cost)));
                series.add(contender.name(), subscribers as f64, rate);
            }
        }
        self.report.series.push(series);
    }
}

fn cost_text(cost: Cost) -> String {
    format!(
        "server {:.0} % busy, {:.0} ns each, load {:.0} %, {:.0} ns each, others {:.0} %",
        cost.server_percent, cost.server_ns, cost.load_percent, cost.load_ns, cost.others_percent
    )
}
