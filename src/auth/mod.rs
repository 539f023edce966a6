//! Who a caller is and what it may do.
//!
//! The room turns what a caller shows, a token or the certificate of its connection, into a [`Principal`], and a
//! principal, by the policy of the moment, into rights. Whoever serves a caller asks [`Caller::authorize`] with an
//! [`Action`]: that is the only place that decides. Policy, keys and tokens are read again while the hub runs; running
//! sessions are told through [`Auth::changes`].
//!
//! What decides is pure (`acl`, `policy`, `principal`). The room knows no gRPC and no session. On a hub that asks nobody
//! there is no [`Auth`], and a caller costs nothing.

mod acl;
mod audit;
mod caller;
mod certificate;
mod files;
mod jwt;
mod keys;
mod mint;
mod options;
mod policy;
mod principal;
mod remote;
mod tokens;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use parking_lot::{Mutex, RwLock};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

pub use acl::{Action, Rights, Verb};
pub use caller::Caller;
pub use mint::{Mint, new_key};
pub use options::{Options, Reflection};
pub use policy::Policy;
pub use principal::{Principal, Source, deceives};

use crate::{
    model::{Denial, Peer},
    tasks::{OnPanic, Tasks},
    telemetry::Metrics,
};
use audit::{Audit, Entry};
use files::{Contents, Files};
use jwt::{Fault, Verifier};
use remote::Remote;

/// So many tokens, and so many sets of roles, are remembered with what they were found to be.
const MOST_REMEMBERED: usize = 4096;

/// Why somebody is refused, and why in words for the log.
type Denied = (Denial, &'static str);

/// What a caller shows of itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct Shown<'a> {
    /// The value of the header `authorization`.
    pub header: Option<&'a [u8]>,
    /// The verified certificate of its connection, in DER.
    pub certificate: Option<&'a [u8]>,
    /// Where it is.
    pub peer: Option<Peer>,
}

/// Decides who callers are and what they may do.
#[derive(Debug)]
pub struct Auth {
    options: Options,
    /// `None` where signed tokens are not taken.
    verifier: Option<Verifier>,
    remote: Option<Arc<Remote>>,
    contents: RwLock<Arc<Contents>>,
    generation: AtomicU64,
    changes: watch::Sender<u64>,
    remembered: Mutex<Remembered>,
    audit: Audit,
    metrics: Arc<Metrics>,
}

/// What need not be worked out again while nothing changes.
#[derive(Debug, Default)]
struct Remembered {
    /// The generation and the version of the remote keys that the rest is of.
    of: (u64, u64),
    /// By the digest of their tokens: tokens themselves are not kept.
    principals: HashMap<[u8; 32], Arc<Principal>>,
    /// By roles.
    rights: HashMap<Vec<usize>, Arc<Rights>>,
}

impl Auth {
    /// Reads the files and fetches the keys, and goes on doing so. `None` on a hub that asks nobody.
    pub async fn open(options: &Options, tasks: &Tasks, metrics: &Arc<Metrics>) -> Result<Option<Arc<Self>>, String> {
        if !options.enabled {
            return Ok(None);
        }
        let mut files = Files::new(options);
        if let Some(refused) = files.read().refused.into_iter().next() {
            return Err(refused);
        }
        let contents = files.contents();
        let remote = if options.is_remote() { Some(Arc::new(Remote::new(options, tasks)?)) } else { None };
        let auth = Arc::new(Self {
            options: options.clone(),
            verifier: options.wants_jwt().then(|| Verifier::new(options)),
            remote,
            contents: RwLock::new(Arc::new(contents)),
            generation: AtomicU64::new(1),
            changes: watch::Sender::new(1),
            remembered: Mutex::default(),
            audit: Audit::default(),
            metrics: Arc::clone(metrics),
        });
        let of = Arc::downgrade(&auth);
        let take = move |changed: Option<Contents>| {
            let auth = of.upgrade();
            if let (Some(auth), Some(contents)) = (&auth, changed) {
                auth.replace(contents);
            }
            auth.is_some()
        };
        tasks.spawn("auth files", OnPanic::Stop, files.watch(tasks.clone(), take));
        if let Some(remote) = &auth.remote {
            tasks.spawn("auth keys", OnPanic::Stop, Remote::run(Arc::downgrade(remote)));
            // Without keys nobody gets in, but who comes later may find that the address answers again.
            remote.until_tried().await;
        }
        Ok(Some(auth))
    }

    /// Who shows this.
    async fn identify(&self, call: &'static str, shown: Shown<'_>) -> Result<Arc<Principal>, Denial> {
        let found = match bearer(shown.header) {
            Ok(Some(token)) => self.by_token(token).await,
            Ok(None) => self.by_certificate(shown.certificate),
            Err(denied) => Err(denied),
        };
        found.map_err(|(denial, why)| {
            self.metrics.denied(denial.reason().name());
            self.audit.denied(Entry { principal: "", peer: shown.peer, call }, denial, why);
            denial
        })
    }

    /// Who a token is of.
    async fn by_token(&self, token: &str) -> Result<Arc<Principal>, Denied> {
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let (contents, of) = self.contents();
        if let Some(known) = self.remembered(of, |remembered| remembered.principals.get(&digest).cloned()) {
            // One that has expired meanwhile is looked at again.
            if known.expires().is_none_or(|expires| SystemTime::now() < expires) {
                return Ok(known);
            }
        }
        let principal = if let Some(principal) = contents.tokens.find(token) {
            principal
        } else {
            let verifier = self.verifier.as_ref().ok_or((Denial::Invalid, "not a token of the file"))?;
            let verify = |contents: &Contents| {
                let keys = match &self.remote {
                    None => Arc::clone(&contents.keys),
                    Some(remote) => Arc::new((*remote.keys()).clone().and(&contents.keys)),
                };
                verifier.verify(&keys, token)
            };
            let verified = match (verify(&contents), &self.remote) {
                (Err(Fault::UnknownKey), Some(remote)) if remote.look_again().await => verify(&contents),
                (verified, _) => verified,
            };
            verified.map_err(|fault| match fault {
                Fault::Expired => (Denial::Expired, "expired"),
                Fault::UnknownKey => (Denial::Invalid, "no key with that name"),
                Fault::Bad(why) => (Denial::Invalid, why),
            })?
        };
        let principal = Arc::new(principal);
        let remember = Arc::clone(&principal);
        self.remembered(of, |remembered| {
            if remembered.principals.len() >= MOST_REMEMBERED {
                remembered.principals.clear();
            }
            remembered.principals.insert(digest, remember);
            None::<()>
        });
        Ok(principal)
    }

    fn by_certificate(&self, certificate: Option<&[u8]>) -> Result<Arc<Principal>, Denied> {
        let shown = certificate.filter(|_| self.options.client_certificates);
        let certificate = shown.ok_or((Denial::Missing, "no credential was sent"))?;
        let principal = certificate::identity(certificate);
        let principal = principal.ok_or((Denial::Invalid, "the certificate names no principal"))?;
        if principal.expires().is_some_and(|expires| SystemTime::now() >= expires) {
            return Err((Denial::Expired, "the certificate has expired"));
        }
        Ok(Arc::new(principal))
    }

    /// What a principal may do, and of which generation that is.
    fn rights(&self, principal: &Principal) -> (Arc<Rights>, u64) {
        let (contents, of) = self.contents();
        let Some(roles) = roles_of(&contents, principal) else { return (Arc::default(), of.0) };
        if let Some(known) = self.remembered(of, |remembered| remembered.rights.get(&roles).cloned()) {
            return (known, of.0);
        }
        let rights = Arc::new(contents.policy.rights(&roles));
        let remember = Arc::clone(&rights);
        self.remembered(of, |remembered| {
            if remembered.rights.len() >= MOST_REMEMBERED {
                remembered.rights.clear();
            }
            remembered.rights.insert(roles, remember);
            None::<()>
        });
        (rights, of.0)
    }

    /// The names of the roles that a principal has, in order.
    fn roles(&self, principal: &Principal) -> Vec<Box<str>> {
        let (contents, _) = self.contents();
        let roles = roles_of(&contents, principal).unwrap_or_default();
        contents.policy.names(&roles)
    }

    /// What the files say, and of which generation and version of keys that is: read first, so that it is never newer
    /// than what comes with it.
    fn contents(&self) -> (Arc<Contents>, (u64, u64)) {
        let of = (self.generation(), self.remote.as_ref().map_or(0, |remote| remote.version()));
        (Arc::clone(&self.contents.read()), of)
    }

    /// Looks at what is remembered, if it is of this moment.
    fn remembered<T>(&self, of: (u64, u64), look: impl FnOnce(&mut Remembered) -> Option<T>) -> Option<T> {
        let mut remembered = self.remembered.lock();
        if remembered.of != of {
            if remembered.of > of {
                return None;
            }
            *remembered = Remembered { of, ..Remembered::default() };
        }
        let found = look(&mut remembered);
        drop(remembered);
        found
    }

    /// Other files are in force from now on.
    fn replace(&self, contents: Contents) {
        *self.contents.write() = Arc::new(contents);
        let generation = self.generation.fetch_add(1, Ordering::AcqRel) + 1;
        self.changes.send_replace(generation);
        tracing::info!(generation, "policy, keys and tokens reloaded");
    }

    /// Counts the policies that have been in force.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Tells of every new policy.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// What the operator set.
    pub fn options(&self) -> &Options {
        &self.options
    }

    fn audit(&self) -> &Audit {
        &self.audit
    }

    fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}

/// Which roles a principal has, by their places; `None` for one whose token is gone, and so is what it might do as anybody.
fn roles_of(contents: &Contents, principal: &Principal) -> Option<Vec<usize>> {
    let given = match principal.source() {
        Source::Token => contents.tokens.roles(principal.name())?,
        _ => &[],
    };
    Some(contents.policy.roles_of(principal, given))
}

/// The token of a header; `None` without one.
fn bearer(header: Option<&[u8]>) -> Result<Option<&str>, Denied> {
    let Some(header) = header else { return Ok(None) };
    let bad = (Denial::Invalid, "the header authorization has no bearer token");
    let text = std::str::from_utf8(header).map_err(|_| bad)?;
    let (scheme, token) = text.split_once(' ').ok_or(bad)?;
    if !scheme.eq_ignore_ascii_case("bearer") || token.trim().is_empty() {
        return Err(bad);
    }
    Ok(Some(token.trim()))
}

#[cfg(test)]
mod tests;
