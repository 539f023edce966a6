//! What a client shows of itself: a bearer token, with every call.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};

/// The longest file of a token that is read, in bytes.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// The variable that has a token. Programs that are started must not get it: whoever can look at them, or writes what they
/// do, would have it.
pub const TOKEN_VARIABLE: &str = "SWITCHYARD_TOKEN";

/// A connection over which every call shows a credential, if there is one.
pub type Link = InterceptedService<Channel, Bearer>;

/// Which credential to show.
#[derive(Clone, Default)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
pub struct Credential {
    /// Send this token to the hub
    #[cfg_attr(feature = "clap", arg(long, global = true, value_name = "TOKEN", env = TOKEN_VARIABLE, hide_env_values = true))]
    pub token: Option<String>,
    /// Send the token in this file to the hub
    #[cfg_attr(feature = "clap", arg(long, global = true, value_name = "FILE", env = "SWITCHYARD_TOKEN_FILE"))]
    pub token_file: Option<PathBuf>,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential").field("token_file", &self.token_file).finish_non_exhaustive()
    }
}

impl Credential {
    /// What says the same to a program that is started, but for a token itself: see [`TOKEN_VARIABLE`].
    pub(crate) fn variables(&self) -> impl Iterator<Item = (&'static str, OsString)> {
        self.token_file.as_ref().map(|file| ("SWITCHYARD_TOKEN_FILE", file.into())).into_iter()
    }

    /// What to put before every call. `--token` counts more than a file.
    pub fn bearer(&self) -> anyhow::Result<Bearer> {
        let token = match (&self.token, &self.token_file) {
            (Some(token), _) if !token.is_empty() => token.clone(),
            (_, Some(path)) => read_file(path)?,
            _ => return Ok(Bearer(None)),
        };
        let mut value: MetadataValue<Ascii> = format!("Bearer {}", token.trim())
            .parse()
            .map_err(|_| anyhow!("the token has characters that are not allowed in a header"))?;
        value.set_sensitive(true);
        Ok(Bearer(Some(value)))
    }
}

/// The token in a file, as it is now.
pub(crate) fn read_file(path: &Path) -> anyhow::Result<String> {
    let size = std::fs::metadata(path).with_context(|| format!("--token-file {}", path.display()))?.len();
    anyhow::ensure!(size <= MAX_FILE_BYTES, "--token-file {}: it is too large", path.display());
    std::fs::read_to_string(path).with_context(|| format!("--token-file {}", path.display()))
}

/// Puts a token before every call.
#[derive(Debug, Clone)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}
