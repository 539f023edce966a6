//! A hub as the commands ask it: one connection, and a limit on the time that each answer may take.
//!
//! Owns `--timeout`. A hub that is frozen, or something else that accepts connections and never answers, ends a command
//! with a sentence that names the address and what was asked. The hub learns the same deadline with each call, so that it
//! stops working when nobody waits. Nothing here asks twice: a call without an answer may have been done.

use std::{future::Future, time::Duration};

use anyhow::anyhow;
use tokio::time::{Instant, timeout, timeout_at};
use tonic::{
    Code, Request, Response, Status, Streaming,
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};
use tonic_health::pb::health_client::HealthClient;

use super::value;
use crate::client::{Bearer, Credential, Link, Target, explain};
use crate::proto::v1::{
    access_service_client::AccessServiceClient, backup_service_client::BackupServiceClient,
    group_service_client::GroupServiceClient, hub_service_client::HubServiceClient,
    session_service_client::SessionServiceClient, stream_service_client::StreamServiceClient,
};

/// The largest answer, in bytes: a page of 1 MiB or one event of the largest size, and what is around it.
const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024;

/// Which hub to ask, and how long it may take.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Reach {
    /// How long to wait for an answer of the hub, connecting included: 5s, 500ms, 1m
    #[arg(long, global = true, value_name = "DURATION", default_value = "5s", value_parser = value::timeout)]
    timeout: Duration,
    #[command(flatten)]
    target: Target,
}

/// A connection to a hub whose answers are waited for.
#[derive(Debug)]
pub(super) struct Reached {
    channel: Channel,
    bearer: Bearer,
    url: String,
    timeout: Duration,
    /// Until when the first answer must come: connecting took some of its time.
    first: Option<Instant>,
}

/// What a call comes to.
pub(super) trait Answer<T>: Future<Output = Result<Response<T>, Status>> {}

impl<T, F: Future<Output = Result<Response<T>, Status>>> Answer<T> for F {}

/// A connection over which every call shows the credential and has a deadline.
type Calls = InterceptedService<Channel, Asking>;

/// What is put before every call.
#[derive(Debug, Clone)]
pub(super) struct Asking {
    bearer: Bearer,
    timeout: Duration,
}

impl Interceptor for Asking {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let mut request = self.bearer.call(request)?;
        request.set_timeout(self.timeout);
        Ok(request)
    }
}

impl Reach {
    pub(super) fn new(target: Target, timeout: Duration) -> Self {
        Self { timeout, target }
    }

    /// How long an answer is waited for.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Connects to the first address where a hub answers.
    pub(super) async fn connect(&self) -> anyhow::Result<Reached> {
        let first = Some(Instant::now() + self.timeout);
        let (channel, url) = self.target.channel_within(self.timeout).await?;
        let bearer = self.target.credential.bearer()?;
        Ok(Reached { channel, bearer, url, timeout: self.timeout, first })
    }

    /// The same to ask for the health, which is told to everybody: no credential is read or shown.
    pub(super) async fn connect_as_nobody(&self) -> anyhow::Result<Reached> {
        let target = Target { credential: Credential::default(), ..self.target.clone() };
        Self::new(target, self.timeout).connect().await
    }
}

impl Reached {
    /// Waits for the answer to a call that changes nothing, by its name in the contract.
    pub(super) async fn ask<T>(&mut self, call: &str, answer: impl Answer<T>) -> anyhow::Result<T> {
        self.within(call, "", answer).await?.map_err(|status| explain(&status))
    }

    /// The same for something that need not be there.
    pub(super) async fn find<T>(&mut self, call: &str, answer: impl Answer<T>) -> anyhow::Result<Option<T>> {
        match self.within(call, "", answer).await? {
            Ok(found) => Ok(Some(found)),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(explain(&status)),
        }
    }

    /// The same for a call that changes something.
    pub(super) async fn change<T>(&mut self, call: &str, answer: impl Answer<T>) -> anyhow::Result<T> {
        let answer = self.within(call, ": it may be done all the same", answer).await?;
        answer.map_err(|status| explain(&status))
    }

    /// Waits for the next part of an answer that has any number of them; `None` behind the last. Only the time between two
    /// parts is limited.
    pub(super) async fn next<T>(&self, call: &str, parts: &mut Streaming<T>) -> anyhow::Result<Option<T>> {
        match timeout(self.timeout, parts.message()).await {
            Ok(part) => part.map_err(|status| explain(&status)),
            Err(_) => Err(self.no_answer(call, "")),
        }
    }

    async fn within<T>(&mut self, call: &str, but: &str, answer: impl Answer<T>) -> anyhow::Result<Result<T, Status>> {
        let deadline = self.first.take().unwrap_or_else(|| Instant::now() + self.timeout);
        match timeout_at(deadline, answer).await {
            Ok(Ok(response)) => Ok(Ok(response.into_inner())),
            Ok(Err(status)) if Instant::now() < deadline => Ok(Err(status)),
            // The transport and the hub have the same deadline, and words of their own.
            Ok(Err(_)) | Err(_) => Err(self.no_answer(call, but)),
        }
    }

    fn no_answer(&self, call: &str, but: &str) -> anyhow::Error {
        anyhow!("no answer from {} within {:?} to {call}{but}", self.url, self.timeout)
    }

    pub(super) fn access(&self) -> AccessServiceClient<Calls> {
        AccessServiceClient::new(self.calls()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    /// Without a deadline for the whole call: see [`Self::next`].
    pub(super) fn backups(&self) -> BackupServiceClient<Link> {
        let link = Link::new(self.channel.clone(), self.bearer.clone());
        BackupServiceClient::new(link).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    pub(super) fn groups(&self) -> GroupServiceClient<Calls> {
        GroupServiceClient::new(self.calls()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    pub(super) fn health(&self) -> HealthClient<Calls> {
        HealthClient::new(self.calls()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    pub(super) fn hub(&self) -> HubServiceClient<Calls> {
        HubServiceClient::new(self.calls()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    pub(super) fn sessions(&self) -> SessionServiceClient<Calls> {
        SessionServiceClient::new(self.calls()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    pub(super) fn streams(&self) -> StreamServiceClient<Calls> {
        StreamServiceClient::new(self.calls()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    fn calls(&self) -> Calls {
        Calls::new(self.channel.clone(), Asking { bearer: self.bearer.clone(), timeout: self.timeout })
    }
}
