//! Files that are read again when they change: policy, keys, static tokens.
//!
//! They are read every other second and compared with what was read before. That finds every way in which a file can be
//! replaced, such as the swapped links of Kubernetes, and asks nothing of the file system. What cannot be read or used
//! is refused, with one line in the log, and what was in force before stays.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::Duration,
};

use super::{Auth, Options, keys::KeySet, policy::Policy, tokens::StaticTokens};
use crate::tasks::Tasks;

/// How often files are read.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The largest of these files, in bytes.
pub(super) const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// The texts of all files; `None` for those that are not set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Texts {
    policy: Option<String>,
    key: Option<String>,
    jwks: Option<String>,
    tokens: Option<String>,
}

/// What the files say.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) policy: Policy,
    pub(super) keys: Arc<KeySet>,
    pub(super) tokens: StaticTokens,
}

/// Which files there are, and what was read of them last.
#[derive(Debug, Clone)]
pub(super) struct Files {
    policy: PathBuf,
    key: PathBuf,
    jwks: PathBuf,
    tokens: PathBuf,
    last: Result<Texts, String>,
}

impl Files {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            policy: options.policy_file.clone(),
            key: options.jwt_key_file.clone(),
            jwks: options.jwks_file.clone(),
            tokens: options.token_file.clone(),
            last: Ok(Texts::default()),
        }
    }

    /// What the files say, if they say something else than before.
    pub(super) fn read(&mut self) -> Option<Result<Contents, String>> {
        let texts = self.texts();
        if texts == self.last {
            return None;
        }
        self.last.clone_from(&texts);
        Some(texts.and_then(|texts| self.contents(&texts)))
    }

    fn texts(&self) -> Result<Texts, String> {
        Ok(Texts {
            policy: text("policy_file", &self.policy)?,
            key: text("jwt_key_file", &self.key)?,
            jwks: text("jwks_file", &self.jwks)?,
            tokens: text("token_file", &self.tokens)?,
        })
    }

    fn contents(&self, texts: &Texts) -> Result<Contents, String> {
        fn parsed<T: Default>(
            (key, path): (&str, &Path),
            text: Option<&String>,
            parse: impl FnOnce(&str) -> Result<T, String>,
        ) -> Result<T, String> {
            let result = text.map_or_else(|| Ok(T::default()), |text| parse(text));
            result.map_err(|error| format!("auth.{key}: {}: {error}", path.display()))
        }
        let key = parsed(("jwt_key_file", &self.key), texts.key.as_ref(), KeySet::of_key_file)?;
        let jwks = parsed(("jwks_file", &self.jwks), texts.jwks.as_ref(), |text| KeySet::of_jwks(text, true))?;
        Ok(Contents {
            policy: parsed(("policy_file", &self.policy), texts.policy.as_ref(), Policy::parse)?,
            keys: Arc::new(key.and(&jwks)),
            tokens: parsed(("token_file", &self.tokens), texts.tokens.as_ref(), StaticTokens::parse)?,
        })
    }

    /// Looks at the files for as long as somebody needs what they say.
    pub(super) async fn watch(mut self, auth: Weak<Auth>, tasks: Tasks) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let look = move || {
                let found = self.read();
                (self, found)
            };
            // A panic in there would be a bug, and is logged as one.
            let Some((files, found)) = tasks.block(look).await else { return };
            self = files;
            let Some(auth) = auth.upgrade() else { return };
            match found {
                None => {}
                Some(Ok(contents)) => auth.replace(contents),
                Some(Err(error)) => tracing::error!(error, "refused: what was in force before stays"),
            }
        }
    }
}

fn text(key: &str, path: &Path) -> Result<Option<String>, String> {
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    let failed = |error: String| format!("auth.{key}: {}: {error}", path.display());
    let file = File::open(path).map_err(|error| failed(error.to_string()))?;
    let mut text = String::new();
    file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(|error| failed(error.to_string()))?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(failed(format!("has more than {MAX_FILE_BYTES} bytes")));
    }
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_limited_in_size() {
        let path = std::env::temp_dir().join(format!("switchyard-policy-{}", std::process::id()));
        let read = |bytes: u64| {
            std::fs::write(&path, "#".repeat(bytes as usize)).expect("written");
            let options = Options { policy_file: path.clone(), ..Options::default() };
            Files::new(&options).read().expect("new")
        };
        assert!(read(MAX_FILE_BYTES).is_ok());
        let error = read(MAX_FILE_BYTES + 1).expect_err("refused");
        assert!(error.contains("auth.policy_file") && error.contains("more than"), "{error}");
        std::fs::remove_file(&path).expect("removed");
        let gone = Files::new(&Options { policy_file: path, ..Options::default() }).read().expect("new");
        assert!(gone.expect_err("refused").contains("auth.policy_file"));
    }
}
