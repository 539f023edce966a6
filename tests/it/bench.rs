//! The load generator against the real hub: what both count is the same.

use serde_json::Value;

use crate::harness::{Process, http_get, program};

/// Runs a short load and gives what it found.
fn load(hub: &Process, arguments: &[&str]) -> Value {
    let output = program()
        .arg("bench")
        .args(arguments)
        .args(["--server", &hub.address.to_string(), "--seconds", "0.3", "--warm-up", "0.1", "--json"])
        .output()
        .expect("the program runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let last = String::from_utf8(output.stdout).expect("text").lines().last().map(str::to_owned);
    serde_json::from_str(&last.expect("a line")).expect("JSON")
}

fn counter(metrics: &str, name: &str) -> u64 {
    let line = metrics.lines().find(|line| line.split(' ').next() == Some(name)).expect(name);
    line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a number")
}

#[tokio::test]
async fn the_hub_counts_what_the_load_counts() {
    let hub = Process::start(&[]);
    let (mut published, mut delivered) = (0, 0);
    for arguments in [
        &["fan-out", "--subscribers", "3"][..],
        &["fan-in", "--publishers", "3", "--payload", "1024"],
        &["fan-out", "--subscribers", "3", "--stubs"],
        &["topics", "--topics", "400", "--subscribers", "8"],
        &["topics", "--topics", "400", "--subscribers", "8", "--stubs"],
        &["subscriptions", "--count", "2000"],
        &["latency", "--rate", "2000"],
    ] {
        let found = load(&hub, arguments);
        let count = |name: &str| found[name].as_u64().expect("a count");
        assert!(count("published") > 0 && count("delivered") > 0, "{arguments:?}: {found}");
        assert_eq!(found["faults"], serde_json::json!({ "lost": 0, "repeated": 0, "damaged": 0 }), "{arguments:?}");
        published += count("published");
        delivered += count("delivered");
        let metrics = http_get(hub.ops_address, "/metrics").await;
        assert_eq!(counter(&metrics, "switchyard_events_in_total"), published, "{arguments:?}");
        assert_eq!(counter(&metrics, "switchyard_events_out_total"), delivered, "{arguments:?}");
    }
}

#[test]
fn idle_sessions_and_a_stalled_subscriber_are_loads_too() {
    let hub = Process::start(&[]);
    let process = hub.child.id().to_string();
    let idle = load(&hub, &["idle", "--sessions", "20", "--hub-process", &process]);
    assert_eq!(idle["count"], 20);
    assert!(idle["bytes_each"].is_u64(), "{idle}");
    let stalled = load(&hub, &["stalled", "--subscribers", "2"]);
    assert_eq!(stalled["faults"]["lost"], 0, "those who read lose nothing");
}
