//! What a client does about each frame of the hub. Pure.

use std::time::SystemTime;

use tonic_types::pb;

use super::{
    CHECK_INTERVAL, Machine,
    news::Moment,
    phase::{Draining, Phase},
    requests::{AUTHENTICATE, Asked},
    wire::Heard,
};
use crate::{
    error::{Error, ErrorKind},
    proto::v1::{self, SessionResponse, session_response::Frame},
    state::State,
};

impl Machine {
    /// A frame came. `wall` is the time of day.
    pub(crate) fn frame(&mut self, now: Moment, wall: SystemTime, heard: Heard) {
        if matches!(self.phase, Phase::Over(_)) {
            return;
        }
        self.last_frame = now;
        match heard {
            Heard::Events(delivered) => self.table.events(now, delivered, &mut self.news),
            Heard::Taken(request, results) => {
                self.requests.close(request);
                self.publishes.taken(now, request, results, &mut self.news);
            }
            Heard::Other(response) => self.other(now, wall, response),
        }
    }

    fn other(&mut self, now: Moment, wall: SystemTime, response: SessionResponse) {
        let request = response.request_id;
        let Some(frame) = response.frame else { return };
        if !matches!(frame, Frame::Error(_)) && request != 0 {
            self.requests.close(request);
        }
        let Self { table, publishes, news, .. } = self;
        match frame {
            Frame::Welcome(welcome) => self.welcome(now, wall, welcome),
            Frame::Subscribed(subscribed) => table.subscribed(now, &subscribed, news),
            Frame::Progress(progress) => table.progress(now, &progress, news),
            Frame::Gap(gap) => table.gap(now, &gap, news),
            Frame::Ended(ended) => {
                let renews = self.refresh.has_source();
                table.ended(now, ended, (&self.status.address, renews), news);
            }
            Frame::Published(published) => publishes.answered(now, request, published, news),
            Frame::Acknowledged(acknowledged) => table.acknowledged(now, request, acknowledged, news),
            Frame::Error(status) => self.refused(now, request, &status),
            Frame::CredentialExpiring(_) => self.refresh.expiring(now),
            Frame::Draining(draining) => self.drains(now, draining),
            // Events are read where they are.
            Frame::Events(_) | Frame::Heartbeat(_) | Frame::Pong(_) => {}
        }
    }

    /// The session is open: everything in the table is to be opened, and what was not answered to be written again.
    fn welcome(&mut self, now: Moment, wall: SystemTime, welcome: v1::Welcome) {
        if !matches!(self.phase, Phase::Greeting) {
            return;
        }
        self.phase = Phase::Up { since: now };
        self.sessions += 1;
        self.addresses.learn(&welcome.alternatives);
        let expiry = welcome.credential_expiry.and_then(|expiry| SystemTime::try_from(expiry).ok());
        if let Some(left) = expiry.map(|expiry| expiry.duration_since(wall).unwrap_or_default()) {
            self.refresh.hub_says(now, left);
        }
        self.status.session_id = welcome.session_id;
        self.status.attempt = 0;
        self.publishes.session_begins(welcome.limits.as_ref());
        self.table.session_begins(now);
        self.enter(State::Up, None);
    }

    /// A command was refused.
    fn refused(&mut self, now: Moment, request: i64, status: &pb::Status) {
        let error = Error::of_message(ErrorKind::Refused, status).at(&self.status.address);
        match self.requests.close(request) {
            Some(Asked::Subscribe(id)) => {
                self.table.subscribe_refused(now, (id, &self.status.address), error, &mut self.news);
            }
            Some(Asked::Acknowledge(id)) => {
                self.table.acknowledge_refused(now, (id, request), &error, &mut self.news);
            }
            Some(Asked::Publish) => self.publishes.refused(now, request, &error, &mut self.news),
            None if request == AUTHENTICATE => self.refresh.refused(now),
            // Nothing but what is only sent has no request.
            None if request == 0 => self.publishes.refused(now, request, &error, &mut self.news),
            // Of a subscription that has just ended, most likely: its end is a frame of its own.
            None => {}
        }
    }

    /// The session is to end. It works until then, and this client leaves as soon as nothing is begun.
    fn drains(&mut self, now: Moment, draining: v1::Draining) {
        self.addresses.learn(&draining.alternatives);
        let delay = draining.reconnect_delay.and_then(|delay| delay.try_into().ok());
        self.draining = Some(Draining { delay });
        self.check_at = now + CHECK_INTERVAL;
        self.table.be_quiet();
        self.enter(State::Draining, None);
    }
}
