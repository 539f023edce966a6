//! The two hubs on the command line: each has an address, a credential and TLS of its own, so that no token reaches a hub it
//! is not meant for.
//!
//! The options of the other commands are not for this one. They are known here only to be refused where somebody gives them;
//! variables such as `SWITCHYARD_SERVER` name the usual hub, and are passed over.

use std::path::PathBuf;

use clap::{
    Arg, ArgMatches, Args, Command, FromArgMatches, builder::ValueParser, error::ErrorKind, parser::ValueSource,
};

use crate::client::{Credential, Target, TlsFiles};

/// The hub that is read, and the one that is written.
#[derive(Debug)]
pub(super) struct Hubs {
    pub(super) from: Target,
    pub(super) to: Target,
}

/// One option of a side.
struct Wanted {
    id: &'static str,
    variable: Option<&'static str>,
    value: &'static str,
    help: &'static str,
}

/// In the order of [`target`].
type OfSide = [Wanted; 7];

const fn wanted(id: &'static str, value: &'static str, help: &'static str) -> Wanted {
    Wanted { id, variable: None, value, help }
}

const fn secret(id: &'static str, variable: &'static str, value: &'static str, help: &'static str) -> Wanted {
    Wanted { id, variable: Some(variable), value, help }
}

const FROM: OfSide = [
    wanted("from", "URL", "The hub to copy from, as --server of other commands"),
    secret("from-token", "SWITCHYARD_FROM_TOKEN", "TOKEN", "Send this token to the hub to copy from"),
    secret(
        "from-token-file",
        "SWITCHYARD_FROM_TOKEN_FILE",
        "FILE",
        "Send the token in this file to the hub to copy from",
    ),
    wanted("from-tls-ca", "FILE", "Trust the hub to copy from if an authority in this PEM file signed its certificate"),
    wanted("from-tls-cert", "FILE", "Present the certificate in this PEM file to the hub to copy from"),
    wanted("from-tls-key", "FILE", "The private key of --from-tls-cert, in PEM"),
    wanted("from-tls-server-name", "NAME", "The name in the certificate of the hub to copy from, if not its host"),
];

const TO: OfSide = [
    wanted("to", "URL", "The hub to copy to"),
    secret("to-token", "SWITCHYARD_TO_TOKEN", "TOKEN", "Send this token to the hub to copy to"),
    secret("to-token-file", "SWITCHYARD_TO_TOKEN_FILE", "FILE", "Send the token in this file to the hub to copy to"),
    wanted("to-tls-ca", "FILE", "Trust the hub to copy to if an authority in this PEM file signed its certificate"),
    wanted("to-tls-cert", "FILE", "Present the certificate in this PEM file to the hub to copy to"),
    wanted("to-tls-key", "FILE", "The private key of --to-tls-cert, in PEM"),
    wanted("to-tls-server-name", "NAME", "The name in the certificate of the hub to copy to, if not its host"),
];

/// What names the hub of every other command: id, and option.
const OTHERS: [(&str, &str); 7] = [
    ("server", "server"),
    ("token", "token"),
    ("token_file", "token-file"),
    ("tls_ca", "tls-ca"),
    ("tls_cert", "tls-cert"),
    ("tls_key", "tls-key"),
    ("tls_server_name", "tls-server-name"),
];

/// How the value of an option is read: of the same type on every side, and as other commands read it.
fn parser(option: &str) -> ValueParser {
    if ["token-file", "tls-ca", "tls-cert", "tls-key"].iter().any(|path| option.ends_with(path)) {
        ValueParser::path_buf()
    } else {
        ValueParser::string()
    }
}

fn arguments(side: &OfSide) -> impl Iterator<Item = Arg> {
    side.iter().map(|wanted| {
        let arg = Arg::new(wanted.id).long(wanted.id).value_name(wanted.value).help(wanted.help);
        let arg = arg.value_parser(parser(wanted.id)).required(wanted.value == "URL");
        let partner = match wanted.id {
            "from-tls-cert" => Some("from-tls-key"),
            "from-tls-key" => Some("from-tls-cert"),
            "to-tls-cert" => Some("to-tls-key"),
            "to-tls-key" => Some("to-tls-cert"),
            _ => None,
        };
        let arg = if let Some(partner) = partner { arg.requires(partner) } else { arg };
        match wanted.variable {
            Some(variable) => arg.env(variable).hide_env_values(true),
            None => arg,
        }
    })
}

fn target(side: &OfSide, matches: &ArgMatches) -> Target {
    let [server, token, token_file, ca, cert, key, server_name] = side.each_ref().map(|wanted| wanted.id);
    let text = |id| matches.get_one::<String>(id).cloned();
    let path = |id| matches.get_one::<PathBuf>(id).cloned();
    Target {
        server: text(server).unwrap_or_default(),
        tls: TlsFiles { ca: path(ca), cert: path(cert), key: path(key), server_name: text(server_name) },
        credential: Credential { token: text(token), token_file: path(token_file) },
    }
}

impl Args for Hubs {
    fn augment_args(command: Command) -> Command {
        let others = OTHERS.map(|(id, option)| Arg::new(id).long(option).value_parser(parser(option)).hide(true));
        command.args(arguments(&FROM)).args(arguments(&TO)).args(others)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Hubs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |(id, _): &&(&str, &str)| matches.value_source(id) == Some(ValueSource::CommandLine);
        if let Some((_, option)) = OTHERS.iter().find(given) {
            let (from, to) = if *option == "server" {
                ("--from".to_owned(), "--to".to_owned())
            } else {
                (format!("--from-{option}"), format!("--to-{option}"))
            };
            let text = format!("--{option} is not for a copy, which has two hubs: use {from} and {to}\n");
            return Err(clap::Error::raw(ErrorKind::ArgumentConflict, text));
        }
        Ok(Self { from: target(&FROM, matches), to: target(&TO, matches) })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
