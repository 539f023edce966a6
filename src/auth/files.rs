//! Files that are read again when they change: policy, keys, static tokens.
//!
//! They are read every other second and compared with what was read before. That finds every way in which a file can be
//! replaced, such as the swapped links of Kubernetes, and asks nothing of the file system. A file that cannot be read or used
//! is refused, with one line in the log, and what it said before stays in force; the others count all the same, or a slip
//! in the policy would keep a token good that was taken away.

use std::{
    fs::File,
    io::Read,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{Options, keys::KeySet, policy::Policy, tokens::StaticTokens};
use crate::{tasks::Tasks, telemetry::warn_if_open};

/// How often files are read.
const POLL_INTERVAL: Duration = Duration::from_secs(2);
/// The largest of these files, in bytes.
pub(super) const MAX_FILE_BYTES: u64 = 1024 * 1024;

const KEY_FILE: &str = "jwt_key_file";
const JWKS_FILE: &str = "jwks_file";
const TOKEN_FILE: &str = "token_file";

/// What the files say.
#[derive(Debug, Clone, Default)]
pub(super) struct Contents {
    pub(super) policy: Arc<Policy>,
    pub(super) keys: Arc<KeySet>,
    pub(super) tokens: Arc<StaticTokens>,
}

/// Which files there are, and what counts of them.
#[derive(Debug)]
pub(super) struct Files {
    policy: Watched<Policy>,
    key: Watched<KeySet>,
    jwks: Watched<KeySet>,
    tokens: Watched<StaticTokens>,
}

/// One file, what was read of it last, and what it last said that could be used.
#[derive(Debug)]
struct Watched<T> {
    key: &'static str,
    path: PathBuf,
    last: Result<Option<String>, String>,
    good: Arc<T>,
}

/// What a look at the files found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Some of them say something else than before.
    pub(super) changed: bool,
    /// Why others are refused.
    pub(super) refused: Vec<String>,
}

impl<T: Default> Watched<T> {
    fn new(key: &'static str, path: &Path) -> Self {
        Self { key, path: path.to_owned(), last: Ok(None), good: Arc::default() }
    }

    /// Reads it, and takes on what it says if that is something else than before.
    fn look(&mut self, parse: impl FnOnce(&str) -> Result<T, String>, found: &mut Found) {
        let text = text(self.key, &self.path);
        if text == self.last {
            return;
        }
        self.last.clone_from(&text);
        if let Ok(Some(text)) = &text {
            warn_if_open(&format!("auth.{}", self.key), &self.path, is_secret(self.key, text));
        }
        let failed = |error: String| format!("auth.{}: {}: {error}", self.key, self.path.display());
        let parsed = text.and_then(|text| text.map_or_else(|| Ok(T::default()), |text| parse(&text).map_err(failed)));
        match parsed {
            Ok(good) => (self.good, found.changed) = (Arc::new(good), true),
            Err(error) => found.refused.push(error),
        }
    }
}

impl Files {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            policy: Watched::new("policy_file", &options.policy_file),
            key: Watched::new(KEY_FILE, &options.jwt_key_file),
            jwks: Watched::new(JWKS_FILE, &options.jwks_file),
            tokens: Watched::new(TOKEN_FILE, &options.token_file),
        }
    }

    /// Looks at all of them.
    pub(super) fn read(&mut self) -> Found {
        let mut found = Found::default();
        self.policy.look(Policy::parse, &mut found);
        self.key.look(KeySet::of_key_file, &mut found);
        self.jwks.look(|text| KeySet::of_jwks(text, true), &mut found);
        self.tokens.look(StaticTokens::parse, &mut found);
        found
    }

    /// What is in force.
    pub(super) fn contents(&self) -> Contents {
        Contents {
            policy: Arc::clone(&self.policy.good),
            keys: Arc::new((*self.key.good).clone().and(&self.jwks.good)),
            tokens: Arc::clone(&self.tokens.good),
        }
    }

    /// Polls the files for as long as `take` wants what they say: it gets that when it has changed, and is asked whether or
    /// not it has.
    pub(super) async fn watch(mut self, tasks: Tasks, take: impl Fn(Option<Contents>) -> bool + Send) {
        let look = move || {
            let found = self.read();
            (found.refused, found.changed.then(|| self.contents()))
        };
        let take = move |(refused, contents): (Vec<String>, _)| {
            for error in refused {
                tracing::error!(error, "refused; the previous content stays in force");
            }
            if take(contents) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        tasks.poll(POLL_INTERVAL, look, take).await;
    }
}

/// True for a file that gives its readers the rights of others: not for a policy, nor for public keys.
fn is_secret(key: &str, text: &str) -> bool {
    match key {
        TOKEN_FILE => true,
        KEY_FILE => !text.contains("-----BEGIN PUBLIC KEY"),
        JWKS_FILE => text.contains("\"oct\""),
        _ => false,
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

    /// Options whose policy is a file of the test, which goes with it.
    struct Policies(Options);

    impl Policies {
        fn new(test: &str) -> Self {
            let policy_file = std::env::temp_dir().join(format!("switchyard-{test}-{}", std::process::id()));
            Self(Options { policy_file, ..Options::default() })
        }

        fn write(&self, text: &str) {
            std::fs::write(&self.0.policy_file, text).expect("written");
        }
    }

    impl Drop for Policies {
        fn drop(&mut self) {
            std::fs::remove_file(&self.0.policy_file).ok();
        }
    }

    #[test]
    fn files_are_limited_in_size() {
        let policies = Policies::new("limited");
        let read = |bytes: u64| {
            policies.write(&"#".repeat(bytes as usize));
            Files::new(&policies.0).read()
        };
        let found = read(MAX_FILE_BYTES);
        assert!(found.changed && found.refused.is_empty(), "{found:?}");
        let found = read(MAX_FILE_BYTES + 1);
        assert!(!found.changed && found.refused[0].contains("auth.policy_file"), "{found:?}");
        assert!(found.refused[0].contains("more than"), "{found:?}");
        std::fs::remove_file(&policies.0.policy_file).expect("removed");
        assert!(Files::new(&policies.0).read().refused[0].contains("auth.policy_file"));
    }

    #[test]
    fn what_is_refused_is_told_once_and_what_was_good_stays() {
        let policies = Policies::new("stays");
        policies.write("[roles.a]");
        let mut files = Files::new(&policies.0);
        assert!(files.read().changed);
        let good = files.contents().policy;
        policies.write("[roles.a");
        assert_eq!(files.read().refused.len(), 1);
        let again = files.read();
        assert!(!again.changed && again.refused.is_empty(), "{again:?}");
        assert_eq!(files.contents().policy, good);
        policies.write("");
        assert!(files.read().changed && files.contents().policy != good);
    }
}
