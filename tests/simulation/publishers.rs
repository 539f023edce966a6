//! Publishers to the stream: what one hub did not answer is published again to the next, in order.

use std::{collections::VecDeque, rc::Rc};

use switchyard::proto::v1::{
    Event, PublishRequest, PublishResponse, hub_service_client::HubServiceClient, session_request::Command as Wire,
    session_response::Frame,
};
use tokio::time::timeout;

use crate::{
    session::{Next, PATIENCE, Session, connect, is_lost, is_unavailable},
    world::{Phase, STREAM, World, numbered, pause},
};

/// So many publishes wait for their answer at a time.
const WINDOW: usize = 4;

pub struct Publisher {
    world: Rc<World>,
    number: usize,
    who: String,
    random: fastrand::Rng,
    count: u64,
    open: VecDeque<Vec<Event>>,
}

impl Publisher {
    pub fn new(world: &Rc<World>, number: usize) -> Self {
        let who = format!("publisher {number}");
        world.books.borrow_mut().publishing += 1;
        let random = world.random(&who);
        Self { world: Rc::clone(world), number, who, random, count: 0, open: VecDeque::new() }
    }

    pub async fn work(mut self) {
        while self.world.books.borrow().epoch.is_none() {
            pause(10).await;
        }
        while self.is_working() || !self.open.is_empty() {
            if self.number == 0 {
                self.over_a_session().await;
            } else {
                self.one_call_each().await;
            }
            pause(self.random.u64(5..50)).await;
        }
        let mut books = self.world.books.borrow_mut();
        books.published.entry(self.number).or_default().0 = self.count;
        books.publishing -= 1;
    }

    fn is_working(&self) -> bool {
        self.world.phase() == Phase::Work
    }

    fn begin(&mut self) {
        let events = self.random.u64(1..=6);
        self.open.push_back((self.count..self.count + events).map(|n| numbered(self.number, n)).collect());
        self.count += events;
    }

    /// False when the hub could not do it, and it is to be done again.
    fn answered(&mut self, response: &PublishResponse) -> bool {
        let batch = self.open.front().expect("an answer for each batch");
        assert_eq!(batch.len(), response.results.len());
        if let Some(status) = response.results.iter().find_map(|result| result.status.as_ref()) {
            assert!(is_unavailable(status.code), "{}: {status:?}", self.who);
            return false;
        }
        self.open.pop_front();
        let mut books = self.world.books.borrow_mut();
        assert!(response.results.iter().all(|result| result.stream == STREAM && Some(result.epoch) == books.epoch));
        books.published.entry(self.number).or_default().1.extend(response.results.iter().cloned());
        true
    }

    async fn over_a_session(&mut self) {
        let Some(mut session) = Session::open(&self.world, &self.who, "").await else { return };
        let mut sent = 0;
        loop {
            while self.is_working() && self.open.len() < WINDOW {
                self.begin();
            }
            while sent < self.open.len() {
                let request = PublishRequest { events: self.open[sent].clone(), precondition: None };
                if !session.send(7, Wire::Publish(request)).await {
                    return;
                }
                sent += 1;
            }
            if self.open.is_empty() {
                return;
            }
            match session.next(PATIENCE).await {
                Next::Frame(7, Frame::Published(response)) if self.answered(&response) => sent -= 1,
                Next::Frame(0, Frame::Heartbeat(_)) => {}
                Next::Frame(7, Frame::Published(_)) | Next::Idle | Next::Lost => return,
                Next::Frame(_, frame) => panic!("{}: {frame:?}", self.who),
            }
            pause(self.random.u64(..20)).await;
        }
    }

    async fn one_call_each(&mut self) {
        let Some(channel) = connect().await else { return };
        let mut client = HubServiceClient::new(channel);
        loop {
            if self.open.is_empty() {
                if !self.is_working() {
                    return;
                }
                self.begin();
            }
            let request = PublishRequest { events: self.open[0].clone(), precondition: None };
            let Ok(result) = timeout(PATIENCE, client.publish(request)).await else { return };
            self.world.note(&self.who, &result.as_ref().map(tonic::Response::get_ref).map_err(tonic::Status::code));
            match result {
                Ok(response) if self.answered(response.get_ref()) => {}
                Ok(_) => return,
                Err(status) => {
                    let code = status.code();
                    assert!(is_lost(code) || is_unavailable(code.into()), "{}: {status:?}", self.who);
                    return;
                }
            }
            pause(self.random.u64(..40)).await;
        }
    }
}
