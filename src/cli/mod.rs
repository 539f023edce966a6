//! The command line: one file per command. Commands talk to a hub through the crate `switchyard-client` and nothing else, so
//! everything they do any client can do: those that live as long as their hub through its `Client`, the others through
//! generated code. Only `restore` works on a data directory that no hub has open.

mod access;
mod backup;
mod browse;
mod copy;
mod dead_letters;
mod group;
mod health;
mod hub;
mod lasting;
mod lines;
mod members;
mod named;
mod new_file;
mod news;
mod pages;
mod publish;
mod reach;
mod restore;
mod session;
mod show;
mod stop;
mod stream;
mod subscribe;
mod tally;
mod token;
mod value;
mod worker;

pub use show::visible;

use crate::{bench::Bench, config::Flags};

/// An event hub that speaks plain gRPC.
#[derive(Debug, clap::Parser)]
#[command(name = "switchyard", version, about, after_help = EXAMPLES, arg_required_else_help = true)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  switchyard serve
  switchyard sub 'orders.>'
  switchyard pub orders.eu.created 'hello'
  switchyard stream create orders 'orders.>'
  switchyard group list orders
  switchyard session list
  switchyard hub
  switchyard check publish orders.eu.created
  switchyard backup orders.backup
  switchyard health

Each command has its own examples: switchyard pub --help";

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Run a hub
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(Box<Flags>),
    /// Everything that talks to a hub.
    #[command(flatten)]
    Client(Box<ClientCommand>),
}

const SERVE_EXAMPLES: &str = "\
Options come from the defaults, the file, SWITCHYARD_... variables and flags; later sources win. Every key of the
file has a variable: sessions.max is SWITCHYARD_SESSIONS_MAX. docs/operations.md lists all options.

Examples:
  switchyard serve
  switchyard serve --listen 0.0.0.0:50051 --ops-listen 0.0.0.0:8080
  switchyard serve --listen 0.0.0.0:50051 --set tls.cert_file=tls.crt --set tls.key_file=tls.key
  switchyard serve --config hub.toml --set sessions.max_subscriptions=1000000
  SWITCHYARD_LOG=debug switchyard serve";

/// Commands that talk to a hub.
#[derive(Debug, clap::Subcommand)]
pub enum ClientCommand {
    /// Publish an event, or one for every line of standard input
    Pub(publish::Publish),
    /// Subscribe and print events
    Sub(subscribe::Subscribe),
    /// Create, show, change and delete streams
    Stream(stream::StreamCommand),
    /// Create, show, change and delete groups on streams, and handle their dead letters
    Group(group::GroupCommand),
    /// Show the clients connected to a hub, and end sessions
    Session(session::SessionCommand),
    /// Show a hub: its version, its limits, what it can do, and what goes on in it
    Hub(hub::HubCommand),
    /// Show as whom a hub knows the caller: principal, roles, and when the credential expires
    #[command(name = "whoami")]
    WhoAmI(access::WhoAmI),
    /// Check whether the caller may do something, without doing it; exit code 0 if it may
    Check(access::Check),
    /// Back up everything that a hub stores, while it runs
    Backup(backup::Backup),
    /// Restore a backup, or give the streams of a data directory new epochs
    Restore(restore::Restore),
    /// Check whether a hub serves; exit code 0 if it does
    Health(health::Health),
    /// Make a token for development
    Token(token::Token),
    /// Put load on a hub and check every event
    Bench(Bench),
}

impl ClientCommand {
    /// Runs the command to its end.
    pub async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Pub(command) => command.run().await,
            Self::Sub(command) => command.run().await,
            Self::Stream(command) => command.run().await,
            Self::Group(command) => command.run().await,
            Self::Session(command) => command.run().await,
            Self::Hub(command) => command.run().await,
            Self::WhoAmI(command) => command.run().await,
            Self::Check(command) => command.run().await,
            Self::Backup(command) => command.run().await,
            Self::Restore(command) => command.run(),
            Self::Health(command) => command.run().await,
            Self::Token(command) => command.run(),
            Self::Bench(command) => command.run().await,
        }
    }
}
