//! Why a request is refused, as a response: an HTTP status, and `google.rpc.Status` as JSON.

use axum::response::{IntoResponse, Response};
use http::{
    HeaderName, HeaderValue, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use serde_json::{Value, json};
use tonic::Code;
use tonic_types::{ErrorDetails, StatusExt};

use crate::{
    edge::wire::status::Fault,
    model::{Denial, Reason},
};

/// A refusal of an HTTP request.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    code: Code,
    text: String,
    details: Vec<Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Refusal {
    /// One that only HTTP knows.
    pub(super) fn new(status: StatusCode, code: Code, text: impl Into<String>) -> Self {
        Self { status, code, text: text.into(), details: Vec::new(), headers: Vec::new() }
    }

    /// The body of a request is of a kind that its path does not take.
    pub(super) fn unsupported(taken: &str) -> Self {
        let text = format!("the content type must be one of {taken}");
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::InvalidArgument, text)
    }

    /// With a header.
    pub(super) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The `google.rpc.Status`.
    pub(super) fn body(&self) -> Value {
        json!({ "code": i32::from(self.code), "message": self.text, "details": self.details })
    }
}

impl From<&Fault> for Refusal {
    fn from(fault: &Fault) -> Self {
        let status = fault.status();
        let mut refusal = Self::new(http_status(fault), status.code(), status.message());
        refusal.details = details(&status.get_error_details());
        if let Some(delay) = fault.retry_after {
            // Whole seconds, and never too early.
            refusal = refusal.with(RETRY_AFTER, HeaderValue::from(delay.as_millis().div_ceil(1000) as u64));
        }
        if status.code() == Code::Unauthenticated {
            refusal = refusal.with(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        refusal
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self::from(&fault)
    }
}

impl From<Denial> for Refusal {
    fn from(denial: Denial) -> Self {
        crate::edge::wire::status::of_denial(denial).into()
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = self.body().to_string().into_response();
        *response.status_mut() = self.status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response.headers_mut().extend(self.headers);
        response
    }
}

/// The status of HTTP for an error: as Connect has it for its code, but for what HTTP says better.
fn http_status(fault: &Fault) -> StatusCode {
    if fault.reason == Reason::EventTooLarge {
        return StatusCode::PAYLOAD_TOO_LARGE;
    }
    of_code(fault.code())
}

/// The status of HTTP that Connect has for a code.
pub(super) fn of_code(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        // The client has closed the request; there is no name for that.
        Code::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// What a program can act on, as `google.protobuf.Any` in JSON.
fn details(details: &ErrorDetails) -> Vec<Value> {
    let mut all = Vec::new();
    let mut add = |kind: &str, mut fields: Value| {
        fields["@type"] = format!("type.googleapis.com/google.rpc.{kind}").into();
        all.push(fields);
    };
    if let Some(info) = details.error_info() {
        add("ErrorInfo", json!({ "reason": info.reason, "domain": info.domain, "metadata": info.metadata }));
    }
    if let Some(bad) = details.bad_request() {
        let violations = bad.field_violations.iter();
        let violations = violations.map(|it| json!({ "field": it.field, "description": it.description }));
        add("BadRequest", json!({ "fieldViolations": violations.collect::<Vec<_>>() }));
    }
    if let Some(quota) = details.quota_failure() {
        let violations = quota.violations.iter();
        let violations = violations.map(|it| json!({ "subject": it.subject, "description": it.description }));
        add("QuotaFailure", json!({ "violations": violations.collect::<Vec<_>>() }));
    }
    if let Some(delay) = details.retry_info().and_then(|retry| retry.retry_delay) {
        add("RetryInfo", json!({ "retryDelay": format!("{}s", delay.as_secs_f64()) }));
    }
    all
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::{
        edge::wire::status::{of_command, of_event},
        model::{CommandError, EventError, Quota},
    };

    #[tokio::test]
    async fn an_error_is_a_status_of_http_with_what_a_program_can_act_on() {
        let error = CommandError::QuotaUsedUp { quota: Quota::Sessions, limit: 1, retry_after: Quota::RETRY_AFTER };
        let response = Refusal::from(of_command(&error, "")).into_response();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        let seconds = response.headers()[RETRY_AFTER].to_str().expect("text").parse::<u64>().expect("seconds");
        assert_eq!(u128::from(seconds), Quota::RETRY_AFTER.as_millis().div_ceil(1000));
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!((&body["code"], &body["details"][0]["reason"]), (&json!(8), &json!("QUOTA_EXCEEDED")));
        assert_eq!(body["details"][0]["@type"], "type.googleapis.com/google.rpc.ErrorInfo");

        let error = CommandError::Field { field: "spec", problem: "is missing".into() };
        let body = Refusal::from(of_command(&error, "subscribe.")).body();
        assert_eq!(body["details"][1]["fieldViolations"][0]["field"], "subscribe.spec");
        let large = of_event(&EventError::TooLarge { bytes: 2, limit: 1 }, 0);
        assert_eq!(Refusal::from(large).into_response().status(), StatusCode::PAYLOAD_TOO_LARGE);
        let missing = Refusal::from(Denial::Missing).into_response();
        assert_eq!(
            (missing.status(), &missing.headers()[WWW_AUTHENTICATE]),
            (StatusCode::UNAUTHORIZED, &HeaderValue::from_static("Bearer"))
        );
    }
}
