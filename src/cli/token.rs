//! `switchyard token`: tokens for development. In production an issuer makes them.

use std::{fs::OpenOptions, io::Write, os::unix::fs::OpenOptionsExt, path::PathBuf, time::Duration, time::SystemTime};

use anyhow::{Context, anyhow};

use super::value;
use crate::auth::{Mint, new_key};

/// Make a token for development, signed with a secret that the hub shares.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The hub accepts these tokens when auth.jwt_key_file names the same file; see docs/security.md.

Examples:
  switchyard token --new-key hub.key
  switchyard token --key hub.key --sub alice --role writer
  switchyard token --key hub.key --sub ci --role writer --role reader --ttl 12h
  switchyard pub orders.eu.created hello --token-file alice.token")]
pub struct Token {
    /// Write a new secret to this file, which must not exist, and make no token
    #[arg(long, value_name = "FILE", conflicts_with_all = ["sub", "role"])]
    new_key: Option<PathBuf>,
    /// Sign with the secret in this file
    #[arg(long, value_name = "FILE", env = "SWITCHYARD_AUTH_JWT_KEY_FILE", required_unless_present = "new_key")]
    key: Option<PathBuf>,
    /// The principal (`sub` claim)
    #[arg(long, value_name = "NAME", required_unless_present = "new_key")]
    sub: Option<String>,
    /// Add a role; may be repeated
    #[arg(long, value_name = "ROLE")]
    role: Vec<String>,
    /// Audience (`aud` claim); must equal auth.jwt_audience
    #[arg(long, value_name = "AUDIENCE", env = "SWITCHYARD_AUTH_JWT_AUDIENCE", default_value = "switchyard")]
    audience: String,
    /// Issuer (`iss` claim); must equal auth.jwt_issuer
    #[arg(
        long,
        value_name = "ISSUER",
        env = "SWITCHYARD_AUTH_JWT_ISSUER",
        default_value = "",
        hide_default_value = true
    )]
    issuer: String,
    /// How long the token is valid: 30s, 5m, 12h, 7d
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = value::duration)]
    ttl: Duration,
}

impl Token {
    pub(super) fn run(self) -> anyhow::Result<()> {
        if let Some(path) = &self.new_key {
            let secret = new_key().map_err(|error| anyhow!("no random bytes: {error}"))?;
            // For the eyes of its owner alone, from the first moment.
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
            let told = || path.display().to_string();
            return writeln!(file.with_context(told)?, "{secret}").with_context(told);
        }
        let path = self.key.context("--key is missing")?;
        let key = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let mint = Mint {
            name: self.sub.context("--sub is missing")?,
            roles: self.role,
            audience: self.audience,
            issuer: self.issuer,
            life: self.ttl,
        };
        let token = mint.sign(&key, SystemTime::now()).map_err(|error| anyhow!("{}: {error}", path.display()))?;
        println!("{token}");
        Ok(())
    }
}
