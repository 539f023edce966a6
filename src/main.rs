//! The `switchyard` program: arguments, then the hub or one command against it, then an exit code.

use std::{process::ExitCode, time::Duration};

use anyhow::Context;
use clap::Parser;
use switchyard::{
    cli::{Arguments, Command, visible},
    config::{Config, Flags},
    engine::OpenError,
    server, telemetry,
};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The exit status of a hub whose store is damaged: starting it again will not help. 2 is for arguments that are wrong.
const STORE_CORRUPT: u8 = 3;

/// Sent when a write exceeds `ulimit -f`; unhandled, it kills the process.
const SIGXFSZ: i32 = 25;

/// See [`keep_freed_memory`].
const FREED_BLOCK_BYTES: usize = 4 * 1024 * 1024;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    keep_freed_memory();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    let result = runtime.block_on(async {
        match arguments.command {
            Command::Serve(flags) => serve(&flags).await,
            Command::Client(command) => command.run().await,
        }
    });
    // A read of standard input cannot be cancelled; nothing else is left to wait for.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

/// Frees one large block. From then on glibc keeps up to two such blocks at the end of each of its heaps (mallopt(3), "dynamic
/// mmap threshold"). Before, it gives back what the last freed batch took and takes it again for the next, page by page.
fn keep_freed_memory() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(FREED_BLOCK_BYTES)));
}

fn failed(error: &anyhow::Error) -> ExitCode {
    // What a hub says may have in it what its clients said.
    eprintln!("switchyard: {}", visible(&format!("{error:#}")));
    match error.downcast_ref() {
        Some(OpenError::Corrupt { .. }) => ExitCode::from(STORE_CORRUPT),
        _ => ExitCode::FAILURE,
    }
}

async fn serve(flags: &Flags) -> anyhow::Result<()> {
    let mut config = Config::load(flags, |name| std::env::var(name).ok())?;
    telemetry::set_up_logs(&config.log, config.log_format).map_err(anyhow::Error::msg)?;
    let (connections, of_operators) = affordable(config.connections.max, config.ops.max_connections);
    (config.connections.max, config.ops.max_connections) = (connections, of_operators);
    let propagation_delay = config.drain.propagation_delay();

    // From here on a signal is heard, however early it comes.
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    // Heard and passed over: a store that may grow no further is to say so, and not to take the hub with it.
    let _too_large = signal(SignalKind::from_raw(SIGXFSZ)).context("cannot listen for SIGXFSZ")?;
    let started = tokio::select! {
        started = server::start(config) => Some(started?),
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
    };
    // Nobody is served before, and a store that is only being read loses nothing.
    let Some(server) = started else {
        tracing::info!("stopped before the store was open");
        return Ok(());
    };
    let (wait, failed) = tokio::select! {
        _ = terminate.recv() => (propagation_delay, false),
        _ = interrupt.recv() => (Duration::ZERO, false),
        () = server.failed() => (Duration::ZERO, true),
    };
    tokio::select! {
        () = server.stop(wait) => {}
        () = again(&mut terminate, &mut interrupt) => tracing::warn!("second signal: stopping at once"),
    }
    anyhow::ensure!(!failed, "an essential task failed");
    Ok(())
}

async fn again(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Files that are open besides connections: the store, files of TLS.
const OTHER_FILES: u64 = 64;

/// Raises the limit on open files as far as it goes, and gives how many connections of clients and of operators there is
/// room for: with all files in use nobody could ask the hub how it is.
fn affordable(connections: usize, of_operators: usize) -> (usize, usize) {
    let limit = match rlimit::increase_nofile_limit(rlimit::INFINITY) {
        Ok(limit) => limit,
        Err(error) => {
            tracing::warn!(%error, "cannot raise the limit on open files");
            return (connections, of_operators);
        }
    };
    let least = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
    let of_operators = of_operators.min(least(limit / 8)).max(2);
    let room = least(limit - (OTHER_FILES + of_operators as u64).min(limit / 2));
    if room >= connections {
        tracing::debug!(limit, "open files");
        return (connections, of_operators);
    }
    tracing::warn!(
        limit,
        connections,
        accepted = room,
        "fewer files may be open than connections are allowed: raise `ulimit -n`"
    );
    (room, of_operators)
}
