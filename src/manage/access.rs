//! As whom a hub knows a caller, and what that may do: asked by the caller itself, and answered of nobody else.
//!
//! Nothing is done here, so nothing is recorded: neither that somebody was denied nor that somebody managed something.

use std::{sync::Arc, time::SystemTime};

use super::{
    engine,
    page::{MAX_PAGE, Page},
};
use crate::{
    auth::{Action, Caller},
    hub::Hub,
    model::{CommandError, Denial, Peer, StreamError, StreamName},
};

/// As whom a hub knows a caller.
#[derive(Debug, Clone)]
pub struct Known {
    /// As policies and logs have it; empty on a hub that asks nobody.
    pub principal: Arc<str>,
    /// The hub asks its callers who they are.
    pub authenticated: bool,
    /// The first of its roles, by name.
    pub roles: Page<Box<str>>,
    /// When its credential expires.
    pub expires: Option<SystemTime>,
    /// Where it is.
    pub peer: Option<Peer>,
}

/// As whom the hub knows a caller.
pub fn who_am_i(caller: &Caller) -> Known {
    let principal = caller.principal();
    Known {
        principal: Arc::clone(principal.id()),
        authenticated: caller.auth().is_some(),
        roles: Page::fill(caller.roles(), MAX_PAGE, |role| role.len()),
        expires: principal.expires(),
        peer: caller.peer(),
    }
}

/// Whether a caller may do that.
pub fn check(caller: &Caller, action: &Action<'_>) -> Result<(), Denial> {
    caller.check(action)
}

/// Whether a caller may read a stream without a filter, as a member of a group or not: then it gets all that the filters of
/// the stream match at this moment.
pub fn check_read_all(hub: &Hub, caller: &Caller, name: &StreamName, group: Option<&str>) -> Result<(), CommandError> {
    let stream = name.as_str();
    if group.is_none() && caller.may_read_every_topic() {
        return Ok(caller.check(&Action::ReadAll { stream, group })?);
    }
    // Whether it exists is not for everybody.
    caller.check(&Action::UseStream { stream, group })?;
    let found = engine(hub)?.stream(stream).ok_or_else(|| StreamError::NotFound(stream.to_owned()))?;
    Ok(caller.check(&Action::Read { stream, filters: &found.settings().filters, group })?)
}
