//! `POST /v1/ticket`: a ticket for the caller, for one path.

use std::{sync::Arc, time::SystemTime};

use axum::{
    Extension, Json,
    extract::{State, rejection::JsonRejection},
};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use tonic::Code;

use super::{
    access::{PATHS, Path},
    refusal::Refusal,
    state::Web,
    ticket::LIFE,
};
use crate::{auth::Caller, edge::wire::status, model::Denial};

/// What a ticket is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    path: String,
}

/// A ticket, and how long it is good for.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Issued {
    ticket: String,
    expire_time: String,
}

/// Issues it.
pub(super) async fn serve(
    State(web): State<Arc<Web>>,
    Extension(caller): Extension<Caller>,
    asked: Result<Json<Asked>, JsonRejection>,
) -> Result<Json<Issued>, Refusal> {
    let Json(asked) = asked.map_err(|error| Refusal::new(error.status(), Code::InvalidArgument, error.body_text()))?;
    let row = PATHS.iter().find(|row| row.takes_tickets && row.path == asked.path);
    let Some(Path { path, .. }) = row else {
        let text = "path: is none that takes tickets";
        return Err(Refusal::new(StatusCode::BAD_REQUEST, Code::InvalidArgument, text));
    };
    if caller.is_over() {
        return Err(Denial::Expired.into());
    }
    let ticket = web.tickets.issue(&caller, path).map_err(|error| status::of_command(&error, ""))?;
    let expire_time = humantime::format_rfc3339_millis(SystemTime::now() + LIFE).to_string();
    Ok(Json(Issued { ticket, expire_time }))
}
