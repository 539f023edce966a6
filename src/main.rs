//! The `switchyard` program: arguments, then the hub or one command against it, then an exit code.

use std::{process::ExitCode, time::Duration};

use anyhow::Context;
use clap::Parser;
use switchyard::{
    cli::{Arguments, Command},
    config::{Config, Flags},
    server, telemetry,
};
use tokio::signal::unix::{Signal, SignalKind, signal};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
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

fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("switchyard: {error:#}");
    ExitCode::FAILURE
}

async fn serve(flags: &Flags) -> anyhow::Result<()> {
    let config = Config::load(flags, |name| std::env::var(name).ok())?;
    telemetry::set_up_logs(&config.log, config.log_format).map_err(anyhow::Error::msg)?;
    raise_file_limit(config.connections.max);
    let propagation_delay = config.drain.propagation_delay();

    // From here on a signal is heard, however early it comes.
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let server = server::start(config).await?;
    let (wait, failed) = tokio::select! {
        _ = terminate.recv() => (propagation_delay, false),
        _ = interrupt.recv() => (Duration::ZERO, false),
        () = server.failed() => (Duration::ZERO, true),
    };
    tokio::select! {
        () = server.stop(wait) => {}
        () = again(&mut terminate, &mut interrupt) => tracing::warn!("asked twice: stopping at once"),
    }
    anyhow::ensure!(!failed, "a task that the hub cannot live without failed");
    Ok(())
}

async fn again(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Raises the limit on open files as far as it goes, and says so when that is not far enough.
fn raise_file_limit(connections: usize) {
    match rlimit::increase_nofile_limit(rlimit::INFINITY) {
        Ok(limit) if limit < connections as u64 => tracing::warn!(
            limit,
            connections,
            "fewer files may be open than connections are allowed: raise `ulimit -n` or lower connections.max"
        ),
        Ok(limit) => tracing::debug!(limit, "open files"),
        Err(error) => tracing::warn!(%error, "cannot raise the limit on open files"),
    }
}
