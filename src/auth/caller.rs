//! One caller at the door: who it is, what it may do by the policy of this moment, and the record of what it was refused.

use std::{
    sync::{Arc, OnceLock},
    time::SystemTime,
};

use super::{
    Auth, Shown,
    acl::{Action, Rights, Verb},
    audit::{Audit, Entry},
    principal::Principal,
};
use crate::{
    event::Event,
    model::{Denial, EventError, Peer, Topic},
    tasks::Turn,
};

/// So much of why somebody was refused is told to the log: a command may have hundreds of filters.
const MAX_WHY_BYTES: usize = 512;
/// What it costs to judge a topic, in steps.
const JUDGE_STEPS: usize = 8;

/// Who asks, and what it may do. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Caller {
    principal: Arc<Principal>,
    peer: Option<Peer>,
    call: &'static str,
    /// `None` on a hub that asks nobody: everything is allowed.
    guard: Option<Guard>,
}

#[derive(Debug, Clone)]
struct Guard {
    auth: Arc<Auth>,
    rights: Arc<Rights>,
    generation: u64,
}

impl Auth {
    /// The caller that shows this. `call` names in the record what it asks for.
    pub async fn authenticate(self: &Arc<Self>, call: &'static str, shown: Shown<'_>) -> Result<Caller, Denial> {
        let principal = self.identify(call, shown).await?;
        Ok(Caller::known(self, principal, call, shown.peer))
    }
}

impl Caller {
    /// A caller of a hub that asks nobody.
    pub fn nobody(call: &'static str, peer: Option<Peer>) -> Self {
        static NOBODY: OnceLock<Arc<Principal>> = OnceLock::new();
        let principal = Arc::clone(NOBODY.get_or_init(|| Arc::new(Principal::nobody())));
        Self { principal, peer, call, guard: None }
    }

    /// A caller whose credential was accepted.
    fn known(auth: &Arc<Auth>, principal: Arc<Principal>, call: &'static str, peer: Option<Peer>) -> Self {
        let (rights, generation) = auth.rights(&principal);
        Self { principal, peer, call, guard: Some(Guard { auth: Arc::clone(auth), rights, generation }) }
    }

    /// Who it is.
    pub fn principal(&self) -> &Arc<Principal> {
        &self.principal
    }

    /// Where it is.
    pub fn peer(&self) -> Option<Peer> {
        self.peer
    }

    /// What decides about it; `None` on a hub that asks nobody.
    pub fn auth(&self) -> Option<&Arc<Auth>> {
        self.guard.as_ref().map(|guard| &guard.auth)
    }

    /// When its credential counts for nothing any more, in a session; `None` for never.
    pub fn ends(&self) -> Option<SystemTime> {
        let guard = self.guard.as_ref()?;
        self.principal.expires()?.checked_add(guard.auth.options().expiry_grace())
    }

    /// True once its credential counts for nothing any more.
    pub fn is_over(&self) -> bool {
        self.ends().is_some_and(|ends| SystemTime::now() >= ends)
    }

    /// Takes on the policy of now. True when it had an older one.
    pub fn refresh(&mut self) -> bool {
        let Some(guard) = &mut self.guard else { return false };
        if guard.generation == guard.auth.generation() {
            return false;
        }
        (guard.rights, guard.generation) = guard.auth.rights(&self.principal);
        true
    }

    /// Takes on a fresh credential of the same identity.
    pub async fn renew(&mut self, token: &str) -> Result<(), Denial> {
        let Some(guard) = &mut self.guard else { return Ok(()) };
        let renewed = match guard.auth.by_token(token).await {
            Ok(principal) if principal.is_same_as(&self.principal) => Ok(principal),
            Ok(_) => Err((Denial::OtherIdentity, "another identity")),
            Err(denied) => Err(denied),
        };
        match renewed {
            Ok(principal) => {
                (guard.rights, guard.generation) = guard.auth.rights(&principal);
                self.principal = principal;
                Ok(())
            }
            Err((denial, why)) => {
                self.record(denial, why);
                Err(denial)
            }
        }
    }

    /// Whether the caller may do that, and the record of it. Every entry of the hub comes here.
    pub fn authorize(&self, action: &Action<'_>) -> Result<(), Denial> {
        match self.judge(action) {
            Ok(()) => {
                if let Some(verb) = action.managing() {
                    let principal = self.principal.to_string();
                    self.audit(|audit, entry| audit.managed(entry, verb.name(), &action.target()), &principal);
                }
                Ok(())
            }
            Err(denial) => {
                self.record(denial, &format!("may not {}", action.told()));
                Err(denial)
            }
        }
    }

    /// Whether the caller may do that; for what is left out of a list without a word.
    pub fn may(&self, action: &Action<'_>) -> bool {
        self.judge(action).is_ok()
    }

    /// Whether the caller may do that, for a caller that asks before it does it: nothing is recorded.
    pub fn check(&self, action: &Action<'_>) -> Result<(), Denial> {
        self.judge(action)
    }

    /// The names of the roles that the caller has, by the policy of this moment.
    pub fn roles(&self) -> Vec<Box<str>> {
        self.guard.as_ref().map(|guard| guard.auth.roles(&self.principal)).unwrap_or_default()
    }

    /// Whether the caller may manage something of a kind: what can be known before a request is read.
    pub fn authorize_verb(&self, verb: Verb) -> Result<(), Denial> {
        if self.guard.as_ref().is_none_or(|guard| guard.rights.allow_some(verb)) {
            return Ok(());
        }
        let denial = verb.denial();
        self.record(denial, &format!("may not manage any {}", verb.name()));
        Err(denial)
    }

    /// Refuses the events of a publish that the caller may not publish, and tells why if there is any.
    pub async fn authorize_events(&self, events: &mut [Result<Event, EventError>]) -> Option<Denial> {
        let guard = self.guard.as_ref()?;
        let over = self.is_over();
        if !over && guard.rights.allow_every_publish() {
            return None;
        }
        // Batches are often of one topic.
        let mut last: Option<(Event, bool)> = None;
        let (mut refused, mut turn) = (None, Turn::default());
        for place in events {
            let Ok(event) = place else { continue };
            let allowed = match &last {
                Some((before, allowed)) if before.topic() == event.topic() => *allowed,
                _ => {
                    let allowed = !over && guard.rights.allow(&Action::Publish(event.topic()));
                    last = Some((event.clone(), allowed));
                    turn.spend(JUDGE_STEPS).await;
                    allowed
                }
            };
            if !allowed {
                let denial = if over { Denial::Expired } else { Action::Publish(event.topic()).denial() };
                refused = refused.or_else(|| Some((denial, Action::Publish(event.topic()).told())));
                *place = Err(denial.into());
            }
        }
        // One line for a publish, however many events it has.
        let (denial, told) = refused?;
        self.record(denial, &format!("may not {told}"));
        Some(denial)
    }

    /// Those of some things of a stream that the caller may read, by the topics of their events. It costs what it costs to
    /// judge them, and others work meanwhile.
    pub async fn keep_readable<T>(&self, stream: &str, items: Vec<T>, topic_of: impl Fn(&T) -> Topic<'_>) -> Vec<T> {
        if self.guard.is_none() {
            return items;
        }
        let (mut kept, mut turn) = (Vec::with_capacity(items.len()), Turn::default());
        let mut before: Option<(T, bool)> = None;
        for item in items {
            // Neighbours are often of one topic.
            let known = before.as_ref().filter(|(other, _)| topic_of(other) == topic_of(&item)).map(|(_, may)| *may);
            let may = known.unwrap_or_else(|| self.may(&Action::ReadEvent { stream, topic: topic_of(&item) }));
            if let Some((item, true)) = before.replace((item, may)) {
                kept.push(item);
            }
            turn.spend(if known.is_some() { 1 } else { JUDGE_STEPS }).await;
        }
        if let Some((item, true)) = before {
            kept.push(item);
        }
        kept
    }

    /// True for who may read every topic there is.
    pub fn may_read_every_topic(&self) -> bool {
        self.guard.as_ref().is_none_or(|guard| guard.rights.allow_every_topic())
    }

    /// The decision.
    fn judge(&self, action: &Action<'_>) -> Result<(), Denial> {
        match &self.guard {
            None => Ok(()),
            Some(_) if self.is_over() => Err(Denial::Expired),
            Some(guard) if guard.rights.allow(action) => Ok(()),
            Some(_) => Err(action.denial()),
        }
    }

    /// Counts and tells the log that this caller was refused something, or lost it. `why` is for operators alone.
    pub fn record(&self, denial: Denial, why: &str) {
        let Some(guard) = &self.guard else { return };
        guard.auth.metrics().denied(denial.reason().name());
        let mut end = why.len().min(MAX_WHY_BYTES);
        while !why.is_char_boundary(end) {
            end -= 1;
        }
        let (principal, why) = (self.principal.to_string(), &why[..end]);
        self.audit(|audit, entry| audit.denied(entry, denial, why), &principal);
    }

    fn audit(&self, tell: impl FnOnce(&Audit, Entry<'_>), principal: &str) {
        static OF_NOBODY: OnceLock<Audit> = OnceLock::new();
        let entry = Entry { principal, peer: self.peer, call: self.call };
        match &self.guard {
            Some(guard) => tell(guard.auth.audit(), entry),
            None => tell(OF_NOBODY.get_or_init(Audit::default), entry),
        }
    }
}
