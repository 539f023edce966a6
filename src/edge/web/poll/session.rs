//! Polls of a session: it is opened by one request, set aside, and taken up by each poll for as long as that waits.
//!
//! The client says by its cursor which answer it has. An answer that got lost comes again, if it is not too large to be kept;
//! then its client learns how many events it has lost.

use std::{future::poll_fn, sync::Arc, task::Poll};

use axum::{
    Json,
    extract::Request,
    response::{IntoResponse, Response},
};
use http::{StatusCode, request::Parts};
use serde_json::json;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{
    asker::{Asker, USUAL_WAIT, answer, gap_json, refused},
    page::{Form, Page},
};
use crate::{
    edge::{
        Opening,
        web::{
            body::{self, kept},
            media::Kind,
            parked::{Kept, Last},
            query::Query,
            refusal::Refusal,
            state::Web,
        },
        wire::{buffer::Lender, command, frames},
    },
    hub::{self, Hub},
    model::CommandError,
    outbox::{Batch, Frame, Gap, GapReason, Item, Taken},
    session::{NoRequests, Visit},
    tasks::OnPanic,
};

/// Names the session.
pub(super) const PARAMETER: &str = "session";
/// What the query may have.
const PARAMETERS: [&str; 3] = [PARAMETER, "cursor", "wait"];
/// An answer takes no more once it has so many bytes, so that it can be kept.
const MAX_ANSWER_BYTES: usize = 128 * 1024;
/// A larger one, with a large event, is not kept.
const MAX_KEPT_BYTES: usize = 256 * 1024;

/// Opens a session of one live subscription, or of one from a stream.
pub(super) async fn open(web: &Web, request: Request) -> Result<Response, Refusal> {
    let (head, body) = request.into_parts();
    let kind = Kind::of(&head.headers);
    let asker = Asker::of(web, &head).map_err(refused)?;
    let lender = Lender { client: Arc::clone(&asker.client), publishes: None };
    let message = body::read(body, &lender, asker.hub.options().frame_timeout()).await.map_err(refused)?;
    let request = match kind {
        Some(Kind::Json) => web.messages.subscribe.decode(message.bytes).await?,
        Some(Kind::Protobuf) => message.bytes,
        _ => return Err(Refusal::unsupported("application/json, application/x-protobuf")),
    };
    let spec = command::subscribe_request(request).map_err(|refusal| refusal.fault())?;
    let principal = Arc::clone(asker.caller.principal().id());
    // It counts as one of its connection only while it is opened: then it has none.
    let opening = Opening::new(asker.hub, head.extensions.get(), None).map_err(refused)?;
    let (mut session, _permit) = opening.open(hub::Kind::One, asker.caller).map_err(refused)?;
    session.subscribe_once(&spec).await.map_err(|error| command::refused_spec(error).fault())?;
    let (id, outlet) = (Arc::clone(session.id()), session.outlet());
    web.tasks.spawn("session", OnPanic::Log, session.run(NoRequests));
    web.keep_parked(asker.hub);
    web.park.open((&principal, &id), web.options.parked_timeout(), outlet, Kept::default()).map_err(refused)?;
    Ok(Json(json!({ "session": &*id, "cursor": "0" })).into_response())
}

/// Ends a session.
pub(super) fn end(web: &Web, head: &Parts) -> Result<Response, Refusal> {
    let asker = Asker::of(web, head).map_err(refused)?;
    let query = Query::parse(head.uri.query(), &[PARAMETER]).map_err(refused)?;
    let id = id(&query).map_err(refused)?;
    if web.park.end(asker.caller.principal().id(), id) {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    Err(refused(CommandError::SessionNotFound { id: id.chars().take(64).collect() }))
}

fn id<'a>(query: &'a Query<'_>) -> Result<&'a str, CommandError> {
    query.one(PARAMETER)?.ok_or_else(|| CommandError::Field { field: PARAMETER, problem: "is missing".to_owned() })
}

/// Answers with what waits in a session, or waits for it.
pub(super) async fn poll(web: &Web, head: &Parts) -> Result<Response, Refusal> {
    let asker = Asker::of(web, head).map_err(refused)?;
    let query = Query::parse(head.uri.query(), &PARAMETERS).map_err(refused)?;
    let (id, wait) = (id(&query).map_err(refused)?, query.wait(USUAL_WAIT).map_err(refused)?);
    let cursor = query.one("cursor").map_err(refused)?;
    let deadline = Instant::now() + wait;
    let page = Page::new(Form::of(&head.headers), &web.forms, &asker.client, MAX_ANSWER_BYTES);
    let _waiter = if wait.is_zero() { None } else { Some(web.waiters.enter(&asker.caller).map_err(refused)?) };

    let principal = asker.caller.principal().id();
    // A poll takes what it answers with in one go, so it needs nothing that ends it from outside.
    let Ok(visit) = timeout_at(deadline, web.park.take_up(principal, id, None)).await else {
        // Another poll has it, and does not give it back in time.
        return Ok(answer(asker.hub, page, cursor.unwrap_or_default(), &[]));
    };
    let mut visit = visit.map_err(refused)?;
    let gap = match visit.parts().map(|(_, kept)| kept.seen(cursor)) {
        None | Some(Ok(Seen::All)) => None,
        Some(Ok(Seen::AllBut(events))) => Some(Gap { count: events, sequences: (0, 0), reason: GapReason::Overflow }),
        Some(Ok(Seen::Again(response))) => return Ok(response),
        Some(Err(error)) => return Err(refused(error)),
    };
    let mut taking = Taking { hub: asker.hub, page, gap, told: Vec::new(), is_over: false };
    taking.take(web, &mut visit, deadline).await?;
    taking.answer(web, visit)
}

/// How much a client has seen of the answers.
enum Seen {
    All,
    /// Not the last one, which had so many events and is not kept.
    AllBut(u64),
    /// Not the last one, which is this.
    Again(Response),
}

impl Kept {
    fn seen(&mut self, cursor: Option<&str>) -> Result<Seen, CommandError> {
        let has = match cursor {
            None => self.answered,
            Some(cursor) => cursor.parse().map_err(|_| foreign())?,
        };
        if has == self.answered {
            self.last = Last::None;
            return Ok(Seen::All);
        }
        if has + 1 != self.answered {
            return Err(foreign());
        }
        Ok(match &self.last {
            Last::None => return Err(foreign()),
            Last::Gone { events } => {
                let events = *events;
                self.last = Last::None;
                if events == 0 { Seen::All } else { Seen::AllBut(events) }
            }
            Last::Whole { bytes, headers, held } => {
                let mut response = Response::new(kept(bytes.clone(), Arc::clone(held)));
                headers.clone_into(response.headers_mut());
                Seen::Again(response)
            }
        })
    }
}

fn foreign() -> CommandError {
    let problem = "is none of the last two of this session".to_owned();
    CommandError::Field { field: "cursor", problem }
}

/// An answer while it is put together.
struct Taking<'a> {
    hub: &'a Hub,
    page: Page,
    gap: Option<Gap>,
    /// What else there is to say, by its name.
    told: Vec<(&'static str, String)>,
    is_over: bool,
}

impl Taking<'_> {
    /// Takes what waits until there is something to tell and nothing more of it waits, or the time is over, or somebody else
    /// wants the session.
    async fn take(&mut self, web: &Web, visit: &mut Visit<Kept>, deadline: Instant) -> Result<(), Refusal> {
        let wanted = visit.wanted();
        tokio::pin!(wanted);
        let mut batch = Batch::default();
        while !self.is_over && !self.page.is_full() {
            batch.clear();
            let Some((outlet, _)) = visit.parts() else { return Ok(()) };
            let has_some = !self.page.is_empty() || self.gap.is_some() || !self.told.is_empty();
            let taken = poll_fn(|context| match outlet.poll_take(context, &mut batch) {
                Poll::Ready(taken) => Poll::Ready(Some(taken)),
                Poll::Pending if has_some => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            });
            let taken = tokio::select! {
                biased;
                taken = taken => taken,
                () = &mut wanted => None,
                () = sleep_until(deadline) => None,
            };
            match taken {
                None => return Ok(()),
                Some(Taken::Finished(_)) => self.is_over = true,
                Some(Taken::Batch) => self.put(web, &mut batch)?,
            }
        }
        Ok(())
    }

    fn put(&mut self, web: &Web, batch: &mut Batch) -> Result<(), Refusal> {
        batch.events.iter().for_each(|event| self.page.add_taken(event));
        for item in batch.items.drain(..) {
            let Item::Reply(reply) = item else { continue };
            frames::count(&reply.frame, self.hub.metrics());
            let name = match &reply.frame {
                Frame::Gap { gap, .. } => {
                    self.lose(*gap);
                    continue;
                }
                Frame::Ended { .. } => "ended",
                Frame::Draining { .. } => "draining",
                Frame::CredentialExpiring { .. } => "credentialExpiring",
                _ => continue,
            };
            self.told.push((name, web.messages.named(reply.frame, self.hub.tokens())?.1));
        }
        Ok(())
    }

    /// One gap is told with an answer, for all there were.
    fn lose(&mut self, gap: Gap) {
        let before = self.gap.unwrap_or(Gap { count: 0, ..gap });
        let sequences = (before.sequences.0.min(gap.sequences.0), before.sequences.1.max(gap.sequences.1));
        self.gap = Some(Gap { count: before.count.saturating_add(gap.count), sequences, reason: gap.reason });
    }

    /// The response. What it says is kept with the session until the client says that it has it.
    fn answer(mut self, web: &Web, mut visit: Visit<Kept>) -> Result<Response, Refusal> {
        if let Some(gap) = self.gap {
            self.told.push(("gap", gap_json(&web.messages, self.hub, gap)?));
        }
        let (events, event_bytes) = self.page.counts();
        let answered = visit.parts().map_or(0, |(_, kept)| kept.answered + 1);
        let (bytes, held, headers) = self.page.finish(&answered.to_string(), &self.told);
        self.hub.metrics().sent(events, event_bytes, bytes.len());
        let held = Arc::new(held);
        if let Some((_, kept)) = visit.parts() {
            kept.answered = answered;
            kept.last = if bytes.len() <= MAX_KEPT_BYTES {
                Last::Whole { bytes: bytes.clone(), headers: headers.clone(), held: Arc::clone(&held) }
            } else {
                Last::Gone { events: events as u64 }
            };
        }
        if self.is_over {
            visit.end();
        }
        let mut response = Response::new(kept(bytes, held));
        *response.headers_mut() = headers;
        Ok(response)
    }
}
