//! One end of a copy: a stream of a hub, over calls that are waited for and a session that comes back by itself.

use std::time::Duration;

use anyhow::{Context, anyhow};

use crate::{
    cli::{
        lasting::{Hub, Lasting},
        reach::{Reach, Reached},
    },
    client::{Error, Target},
    proto::v1::{AccessAction, CheckRequest, GetStreamRequest, Stream, StreamState},
};

/// A stream of a hub.
pub(super) struct End {
    /// The stream.
    pub(super) name: String,
    /// Asks for what is managed.
    pub(super) calls: Reached,
    /// Reads and publishes.
    pub(super) hub: Hub,
    /// The hub, as somebody named it.
    pub(super) url: String,
    /// The option that did.
    side: &'static str,
}

impl End {
    pub(super) async fn connect(
        side: &'static str,
        target: &Target,
        name: &str,
        timeout: Duration,
    ) -> anyhow::Result<Self> {
        let ours = |error: anyhow::Error| in_options_of(side, &error);
        let calls = Reach::new(target.clone(), timeout).connect().await.map_err(ours)?;
        let mut hub = Lasting::new(target.clone()).connect("stream copy").map_err(ours)?;
        hub.up().await.map_err(ours)?;
        Ok(Self { name: name.to_owned(), calls, hub, url: target.url(), side })
    }

    /// The stream, if it is there.
    pub(super) async fn find(&mut self) -> anyhow::Result<Option<Stream>> {
        let request = GetStreamRequest { name: self.name.clone() };
        let found = self.calls.find("GetStream", self.calls.streams().get_stream(request)).await;
        let Some(answer) = found.with_context(|| self.place())? else { return Ok(None) };
        Ok(Some(answer.stream.context("the hub did not show the stream")?))
    }

    /// Where the stream is now. Fails when it is gone, or another one has its name.
    pub(super) async fn state(&mut self, epoch: i64) -> anyhow::Result<StreamState> {
        let state = self.find().await?.and_then(|stream| stream.state);
        state.filter(|state| state.epoch == epoch).with_context(|| self.changed())
    }

    /// Whether the caller reads whatever the stream has. Otherwise a hub passes over topics that the stream had before.
    pub(super) async fn shows_everything(&mut self) -> anyhow::Result<bool> {
        let request = CheckRequest {
            action: AccessAction::Read.into(),
            stream: self.name.clone(),
            filters: vec![">".to_owned()],
            ..CheckRequest::default()
        };
        let answer = self.calls.ask("Check", self.calls.access().check(request)).await;
        Ok(answer.with_context(|| self.place())?.allowed)
    }

    /// What went wrong, and where.
    pub(super) fn explain(&self, error: &Error) -> anyhow::Error {
        in_options_of(self.side, &self.hub.explain(error)).context(self.place())
    }

    /// Where a call failed.
    pub(super) fn place(&self) -> String {
        format!("stream {} at {}", self.name, self.url)
    }

    /// The stream is another one than it was when the copy began.
    pub(super) fn changed(&self) -> anyhow::Error {
        anyhow!("{} was deleted, created again, or lost events while it was copied", self.place())
    }
}

/// An error that names the options of other commands, in those of this one.
fn in_options_of(side: &str, error: &anyhow::Error) -> anyhow::Error {
    let text = format!("{error:#}").replace("--server", &format!("--{side}"));
    let text = text.replace("--tls-", &format!("--{side}-tls-"));
    anyhow!("{}", text.replace("--token", &format!("--{side}-token")))
}
