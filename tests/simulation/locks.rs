//! Clients that want a lock: an event with a ttl, published only while the topic has none.

use std::{rc::Rc, time::Duration};

use switchyard::proto::v1::{
    Event, PublishPrecondition, PublishRequest, hub_service_client::HubServiceClient, publish_precondition::Condition,
};
use tokio::time::{Instant, timeout};
use tonic::Code;

use crate::{
    session::{PATIENCE, connect, is_lost, is_unavailable},
    world::{KEPT, Phase, World, pause},
};

const TTL: prost_types::Duration = prost_types::Duration { seconds: 2, nanos: 0 };
/// By then a lock is free, and is taken by whoever goes on trying.
const FREE: Duration = Duration::from_secs(30);

pub struct Locker {
    world: Rc<World>,
    who: &'static str,
    random: fastrand::Rng,
    tries: u64,
}

impl Locker {
    pub fn new(world: &Rc<World>, who: &'static str) -> Self {
        world.books.borrow_mut().publishing += 1;
        Self { world: Rc::clone(world), who, random: world.random(who), tries: 0 }
    }

    pub async fn work(mut self) {
        while self.world.books.borrow().epoch.is_none() {
            pause(10).await;
        }
        let kept = Event { id: "kept".into(), topic: KEPT.into(), ..Event::default() };
        while self.publish(PublishRequest { events: vec![kept.clone()], precondition: None }).await != Some(true) {
            pause(50).await;
        }
        while self.world.phase() == Phase::Work {
            self.take().await;
        }
        let begun = Instant::now();
        while !self.take().await {
            assert!(begun.elapsed() < FREE, "{}: the lock is never free", self.who);
        }
        self.world.books.borrow_mut().publishing -= 1;
    }

    /// True when it has the lock.
    async fn take(&mut self) -> bool {
        pause(self.random.u64(50..500)).await;
        self.tries += 1;
        let (id, topic) = (format!("{} {}", self.who, self.tries), "lock.leader".to_owned());
        let event = Event { id, topic, ttl: Some(TTL), ..Event::default() };
        let precondition = Some(PublishPrecondition { condition: Some(Condition::LastTopicSequence(0)) });
        self.publish(PublishRequest { events: vec![event], precondition }).await == Some(true)
    }

    /// Whether it is stored; `None` when that is not known.
    async fn publish(&self, request: PublishRequest) -> Option<bool> {
        let mut client = HubServiceClient::new(connect().await?);
        let result = timeout(PATIENCE, client.publish(request)).await.ok()?;
        self.world.note(self.who, &result.as_ref().map(tonic::Response::get_ref).map_err(tonic::Status::code));
        match result {
            Ok(response) => {
                let status = response.get_ref().results.iter().find_map(|result| result.status.as_ref());
                assert!(status.is_none_or(|status| is_unavailable(status.code)), "{}: {status:?}", self.who);
                Some(status.is_none())
            }
            Err(status) if status.code() == Code::Aborted => Some(false),
            Err(status) => {
                let code = status.code();
                assert!(is_lost(code) || is_unavailable(code.into()), "{}: {status:?}", self.who);
                None
            }
        }
    }
}
