//! `/v1/poll`: events by plain requests, each of which waits for some, for clients that can read no stream.
//!
//! A poll of a stream keeps nothing in the hub: the client has the cursor, and any hub with the stream answers. Live topics have no
//! log, so a poll of those takes what waits in a session that was opened for it, and that is set aside between two polls
//! ([`session`]).

mod asker;
mod page;
mod session;

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use http::{Method, request::Parts};
use tokio::time::Instant;

use super::{query::Query, refusal::Refusal, state::Web, waiters::Waiter};
use crate::{
    event::Event,
    manage::{
        MAX_PAGE, MAX_PAGE_BYTES, USUAL_PAGE,
        polling::{PollAsked, Polling},
        streams,
    },
    model::{CommandError, Cursor, Start},
};
use asker::{Asker, USUAL_WAIT, answer, gap_json, refused};
use page::{Form, Page};

/// What the query of a poll of a stream may have.
const PARAMETERS: [&str; 8] = ["stream", "filter", "cursor", "start", "after", "on_gap", "wait", "limit"];

/// Serves it.
pub(super) async fn serve(State(web): State<Arc<Web>>, request: Request) -> Response {
    let served = match *request.method() {
        Method::POST => session::open(&web, request).await,
        Method::DELETE => session::end(&web, &request.into_parts().0),
        _ => {
            let head = request.into_parts().0;
            let is_session = form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes());
            if is_session.into_iter().any(|(name, _)| name == session::PARAMETER) {
                session::poll(&web, &head).await
            } else {
                poll(&web, &head).await
            }
        }
    };
    served.unwrap_or_else(IntoResponse::into_response)
}

async fn poll(web: &Web, head: &Parts) -> Result<Response, Refusal> {
    let mut asker = Asker::of(web, head).map_err(refused)?;
    let query = Query::parse(head.uri.query(), &PARAMETERS).map_err(refused)?;
    let mut page = Page::new(Form::of(&head.headers), &web.forms, &asker.client, MAX_PAGE_BYTES);
    let polling = wait(web, &mut asker, &query, &mut page).await.map_err(refused)?;
    let mut members = vec![("caughtUp", polling.is_caught_up().to_string())];
    if let Some(gap) = polling.gap() {
        asker.hub.metrics().gap_told(gap.count);
        members.push(("gap", gap_json(&web.messages, asker.hub, gap)?));
    }
    Ok(answer(asker.hub, page, &Cursor::from(&polling.position()).to_string(), &members))
}

/// Reads a stream until there is something to tell, or the time is over, or the hub shuts down.
async fn wait(web: &Web, asker: &mut Asker<'_>, query: &Query<'_>, page: &mut Page) -> Result<Polling, CommandError> {
    let missing = || CommandError::Unsupported {
        field: "stream",
        needs: "a value: for live topics, open a session with POST and poll with `session`",
    };
    let name = query.stream()?.ok_or_else(missing)?;
    let start = query.start(query.one("cursor")?)?.unwrap_or(Start::New);
    let asked = PollAsked { start, on_gap: query.on_gap()?, filters: query.filters()? };
    let most = query.limit(MAX_PAGE as u64)?.map_or(USUAL_PAGE, |limit| limit as usize);
    let mut deadline = Instant::now() + query.wait(USUAL_WAIT)?;

    let mut polling = streams::to_read(asker.hub, &asker.caller, &name)?.poll(asked).await?;
    let (mut waiter, mut drained) = (None, false);
    let draining = asker.hub.until_draining();
    tokio::pin!(draining);
    loop {
        let stream = streams::to_read(asker.hub, &asker.caller, &name)?;
        stream.poll_on(&mut polling, most, |event: &Event| page.add(event)).await?;
        if let Some(full) = page.full() {
            return Err(CommandError::NoMemory { of: full.of.name() });
        }
        if !page.is_empty() || polling.gap().is_some() || Instant::now() >= deadline {
            return Ok(polling);
        }
        if !polling.is_caught_up() {
            // None of what was read is for this client, and there is more.
            tokio::task::yield_now().await;
            continue;
        }
        if waiter.is_none() {
            waiter = Some(web.waiters.enter(&asker.caller)?);
        }
        tokio::select! {
            changed = polling.change() => {
                if !changed {
                    return Ok(polling);
                }
                tokio::time::sleep(waiter.as_ref().map_or(Duration::ZERO, Waiter::spread)).await;
                // It may be another policy by now.
                asker.caller.refresh();
            }
            () = tokio::time::sleep_until(deadline) => {}
            spread = &mut draining, if !drained => {
                drained = true;
                deadline = deadline.min(Instant::now() + spread.mul_f64(fastrand::f64()));
            }
        }
    }
}
