//! What was found: rows of medians, series, failures; as JSON and as a table.

use std::fmt::Write;

use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    contender::{Contender, Cost},
    machine::Machine,
};

/// Everything a run of this program found.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    rows: Vec<Row>,
    pub(crate) series: Vec<Series>,
    /// What went wrong, one line each. A report with failures is a failed run.
    pub(crate) failures: Vec<String>,
}

/// One thing that was measured.
#[derive(Debug)]
struct Row {
    name: &'static str,
    payload_bytes: Option<usize>,
    unit: &'static str,
    /// One for each repetition, by contender.
    samples: [Vec<f64>; 3],
    costs: [Vec<Cost>; 3],
}

/// How something grows.
#[derive(Debug, Serialize)]
pub(crate) struct Series {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) x: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) lines: Vec<Line>,
}

/// One line of a plot.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

impl Series {
    /// Adds a point to the line of that name, which begins with it if there is none.
    pub(crate) fn add(&mut self, line: &str, x: f64, y: f64) {
        match self.lines.iter_mut().find(|known| known.name == line) {
            Some(known) => known.points.push((x, y)),
            None => self.lines.push(Line { name: line.to_owned(), points: vec![(x, y)] }),
        }
    }
}

impl Report {
    pub(crate) fn new(machine: Machine) -> Self {
        Self { machine, rows: Vec::new(), series: Vec::new(), failures: Vec::new() }
    }

    /// Adds what one repetition found to its row.
    pub(crate) fn add(
        &mut self,
        name: &'static str,
        payload_bytes: Option<usize>,
        unit: &'static str,
        contender: Contender,
        value: f64,
        cost: Option<Cost>,
    ) {
        let known = self.rows.iter().position(|row| row.name == name && row.payload_bytes == payload_bytes);
        let at = known.unwrap_or_else(|| {
            let (samples, costs) = Default::default();
            self.rows.push(Row { name, payload_bytes, unit, samples, costs });
            self.rows.len() - 1
        });
        let row = &mut self.rows[at];
        row.samples[contender as usize].push(value);
        row.costs[contender as usize].extend(cost);
    }

    /// All of it.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "machine": self.machine,
            "rows": self.rows.iter().map(Row::to_json).collect::<Vec<_>>(),
            "series": self.series,
            "failures": self.failures,
        })
    }

    /// The rows, to be read.
    pub(crate) fn to_table(&self) -> String {
        let mut table = String::new();
        write!(table, "{:<26} {:>7} {:<15}", "row", "payload", "unit").ok();
        let widths = [("hub", 11), ("nats", 11), ("roofline", 11), ("hub/nats", 9), ("hub/roof", 9)];
        let of_each = ["spread %", "server %", "load %", "others %", "server ns", "load ns"].map(|name| (name, 14));
        for (column, width) in widths.into_iter().chain(of_each) {
            write!(table, " {column:>width$}").ok();
        }
        table.push('\n');
        for row in &self.rows {
            row.write_line(&mut table);
        }
        table.push_str(
            "\nEach for hub/nats/roofline: spread is (max - min) / median; server and load are how busy their cores were,\n\
             and processor time for each delivery; others is what other programs took of both cores: above a few\n\
             percent the rates and times are of little worth.\n",
        );
        table
    }
}

impl Row {
    fn median(&self, contender: Contender) -> Option<f64> {
        median(&self.samples[contender as usize])
    }

    fn spread_percent(&self, contender: Contender) -> Option<f64> {
        let samples = &self.samples[contender as usize];
        let most = samples.iter().copied().reduce(f64::max)?;
        let least = samples.iter().copied().reduce(f64::min)?;
        Some((most - least) * 100.0 / median(samples)?)
    }

    fn cost(&self, contender: Contender, of: impl Fn(&Cost) -> f64) -> Option<f64> {
        median(&self.costs[contender as usize].iter().map(of).collect::<Vec<_>>())
    }

    fn to_json(&self) -> Value {
        let each = |value: &dyn Fn(Contender) -> Value| -> Value {
            Contender::ALL.into_iter().map(|contender| (contender.name().to_owned(), value(contender))).collect()
        };
        let mut row = each(&|contender| json!(self.median(contender)));
        row["name"] = json!(self.name);
        row["payload"] = json!(self.payload_bytes);
        row["unit"] = json!(self.unit);
        row["spread"] = each(&|contender| json!(self.spread_percent(contender)));
        row["samples"] = each(&|contender| json!(self.samples[contender as usize]));
        row["server_busy_percent"] = each(&|contender| json!(self.cost(contender, |cost| cost.server_percent)));
        row["load_busy_percent"] = each(&|contender| json!(self.cost(contender, |cost| cost.load_percent)));
        row["others_busy_percent"] = each(&|contender| json!(self.cost(contender, |cost| cost.others_percent)));
        row["server_ns_per_delivery"] = each(&|contender| json!(self.cost(contender, |cost| cost.server_ns)));
        row["load_ns_per_delivery"] = each(&|contender| json!(self.cost(contender, |cost| cost.load_ns)));
        row
    }

    fn write_line(&self, table: &mut String) {
        let payload = self.payload_bytes.map_or_else(String::new, |bytes| bytes.to_string());
        write!(table, "{:<26} {payload:>7} {:<15}", self.name, self.unit).ok();
        for contender in Contender::ALL {
            write!(table, " {:>11}", self.median(contender).map_or_else(|| "-".to_owned(), figure)).ok();
        }
        for other in [Contender::Nats, Contender::Roofline] {
            let ratio = self.median(Contender::Hub).zip(self.median(other)).map(|(hub, other)| hub / other);
            let ratio = ratio.filter(|ratio| ratio.is_finite());
            write!(table, " {:>9}", ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"))).ok();
        }
        let all = |value: &dyn Fn(Contender) -> Option<f64>| {
            let texts = Contender::ALL
                .map(|contender| value(contender).map_or_else(|| "-".to_owned(), |percent| format!("{percent:.0}")));
            texts.join("/")
        };
        let spread = all(&|contender| self.spread_percent(contender));
        write!(table, " {spread:>14}").ok();
        let costs: [fn(&Cost) -> f64; 5] = [
            |cost| cost.server_percent,
            |cost| cost.load_percent,
            |cost| cost.others_percent,
            |cost| cost.server_ns,
            |cost| cost.load_ns,
        ];
        for of in costs {
            write!(table, " {:>14}", all(&|contender| self.cost(contender, of))).ok();
        }
        table.push('\n');
    }
}

fn median(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => None,
        length if length % 2 == 1 => Some(sorted[length / 2]),
        length => Some(f64::midpoint(sorted[length / 2 - 1], sorted[length / 2])),
    }
}

/// A figure as a person reads it.
pub(crate) fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 10_000_000.0 => format!("{:.1} M", value / 1e6),
        size if size >= 1_000_000.0 => format!("{:.2} M", value / 1e6),
        size if size >= 10_000.0 => format!("{:.0} k", value / 1e3),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(samples: [Vec<f64>; 3]) -> Row {
        Row { name: "row", payload_bytes: Some(128), unit: "deliveries/s", samples, costs: Default::default() }
    }

    #[test]
    fn medians_and_spreads_are_told_for_each_and_null_where_there_are_none() {
        let told = row([vec![3.0, 1.0, 2.0], vec![5.0, 4.0], vec![]]).to_json();
        assert_eq!(told["hub"], 2.0);
        assert_eq!(told["nats"], 4.5);
        assert_eq!(told["roofline"], Value::Null);
        assert_eq!(told["spread"]["hub"], 100.0);
        assert_eq!(told["spread"]["roofline"], Value::Null);
        assert_eq!((&told["name"], &told["payload"]), (&json!("row"), &json!(128)));
    }

    #[test]
    fn figures_are_short() {
        let figures = [1_234_567.0, 12_345.0, 123.4, 12.34, 0.987_65].map(figure);
        assert_eq!(figures, ["1.23 M", "12 k", "123", "12.3", "0.988"]);
    }
}
