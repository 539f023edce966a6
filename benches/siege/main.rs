//! A hub with its defaults under siege: one client does everything that used to pass the memory of a pod or to freeze a
//! hub, each attack in turn and then all at once, beside a healthy publisher and subscriber.
//!
//! `make siege`, or `cargo bench --bench siege -- [SECONDS_EACH] [SECONDS_TOGETHER] [NAME...]`, with names for some of the
//! attacks only. It prints a table and fails when the
//! hub holds more than 1.5 GiB, when the healthy pair loses an event, or when its p99 under siege is more than three times
//! that beside a neighbour that is merely busy. Probes are asked all the while.

mod attacks;
mod hub;
mod pair;

use std::time::Duration;

use attacks::{ATTACKS, Attack};
use hub::Hub;
use pair::Measured;

/// A hub may hold this much, whatever its clients do.
const MOST_RESIDENT_BYTES: u64 = 1536 * 1024 * 1024;
/// The p99 of the healthy pair may be this much of what it is beside a busy neighbour.
const MOST_SLOWDOWN: f64 = 3.0;
/// Below this a p99 says nothing but that the machine has two cores.
const LEAST_P99: Duration = Duration::from_millis(5);

fn main() -> anyhow::Result<()> {
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let seconds = |at: usize, default| Duration::from_secs(numbers.get(at).copied().unwrap_or(default));
    let names: Vec<String> = std::env::args()
        .skip(1)
        .filter(|name| !name.starts_with(|first: char| first == '-' || first.is_ascii_digit()))
        .collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let held = runtime.block_on(siege(seconds(0, 15), seconds(1, 60), &chosen(&names)))?;
    runtime.shutdown_background();
    anyhow::ensure!(held, "the hub did not hold");
    Ok(())
}

/// The attacks whose names begin like one of these, or all.
fn chosen(names: &[String]) -> Vec<Attack> {
    let wanted = |attack: &&Attack| names.is_empty() || names.iter().any(|name| attack.name.starts_with(name.as_str()));
    ATTACKS.iter().filter(wanted).copied().collect()
}

/// True when the hub held.
async fn siege(each: Duration, together: Duration, attacks: &[Attack]) -> anyhow::Result<bool> {
    println!(
        "{:<22} {:>7} {:>9} {:>9} {:>6} {:>8} {:>9}",
        "", "events", "p50 ms", "p99 ms", "lost", "RSS MiB", "probe ms"
    );
    let mut held = true;
    let busy = {
        let hub = Hub::start()?;
        measure(&hub, "alone", each, &[]).await?;
        let busy = measure(&hub, "beside a busy one", each, &[attacks::BUSY]).await?;
        for attack in attacks {
            let hub = Hub::start()?;
            held &= judge(&measure(&hub, attack.name, each, &[*attack]).await?, &busy);
        }
        busy
    };
    let hub = Hub::start()?;
    held &= judge(&measure(&hub, "all at once", together, attacks).await?, &busy);
    Ok(held)
}

/// What the healthy pair saw while these attacks went on.
async fn measure(hub: &Hub, name: &str, time: Duration, attacks: &[Attack]) -> anyhow::Result<Measured> {
    // In threads of their own, so that what the pair sees is the hub, and not what attacking costs.
    let attackers = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    for attack in attacks {
        let attack = (attack.begin)(hub.address);
        attackers.spawn(attack);
    }
    let measured = pair::measure(hub, time).await;
    attackers.shutdown_background();
    let measured = measured?;
    println!(
        "{name:<22} {:>7} {:>9.2} {:>9.2} {:>6} {:>8} {:>9.1}",
        measured.events,
        measured.p50.as_secs_f64() * 1e3,
        measured.p99.as_secs_f64() * 1e3,
        measured.lost,
        measured.most_resident_bytes / 1024 / 1024,
        measured.slowest_probe.as_secs_f64() * 1e3,
    );
    Ok(measured)
}

fn judge(measured: &Measured, busy: &Measured) -> bool {
    let most_p99 = busy.p99.max(LEAST_P99).mul_f64(MOST_SLOWDOWN);
    let faults = [
        (measured.most_resident_bytes > MOST_RESIDENT_BYTES, "the hub holds more than 1.5 GiB"),
        (measured.lost > 0, "the healthy pair lost events"),
        (measured.p99 > most_p99, "the healthy pair is slowed down more than three times"),
        (measured.probes_failed > 0, "a probe was not answered"),
    ];
    for (_, fault) in faults.iter().filter(|(is_so, _)| *is_so) {
        println!("    FAULT: {fault}");
    }
    faults.iter().all(|(is_so, _)| !is_so)
}
