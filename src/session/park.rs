//! Sessions that outlive their connections: the sending half of one is set aside under a name, for a bounded time and with a
//! bounded number of bytes that wait, until its client comes back for it, over whatever connection.
//!
//! Only the principal that opened a session finds it again. One client at a time has it; another that asks makes the first
//! one give it back. A session that nobody comes back for ends, and so do all when the hub is shutting down. What a session
//! has of its memory stays reserved as long as it lives; how many are set aside is limited here, for the hub and for each
//! principal. The room of edges decides what a client gets and what is kept beside the session (`T`).

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, futures::OwnedNotified},
    time::Instant,
};

use super::Outlet;
use crate::{
    cut::Cut,
    hub::Hub,
    model::{CommandError, StreamError},
};

/// What may be set aside.
#[derive(Debug, Clone, Copy)]
pub struct ParkLimits {
    /// How many sessions in the hub,
    pub max: usize,
    /// and how many of one principal that has a name: on a hub that asks nobody all are the same.
    pub max_per_principal: usize,
    /// How many bytes may wait in one while nobody takes them, overhead included.
    pub bytes: usize,
    /// How long one may be away at most.
    pub time: Duration,
}

/// The sessions of a hub that have no connection of their own. `T` is what their edge keeps with each.
#[derive(Debug)]
pub struct Park<T> {
    limits: ParkLimits,
    table: Mutex<Table<T>>,
    /// Wakes who looks at the time: there is an earlier one.
    earlier: Notify,
}

#[derive(Debug)]
struct Table<T> {
    slots: HashMap<Key, Slot<T>>,
    /// Those that are set aside, by when their time is over.
    order: BTreeMap<(Instant, u64), Key>,
    /// How many each principal has.
    of: HashMap<Arc<str>, usize>,
    next: u64,
    /// Nothing is set aside any more.
    closed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    principal: Arc<str>,
    name: Arc<str>,
}

/// One session, set aside or with its client.
#[derive(Debug)]
struct Slot<T> {
    number: u64,
    /// How long it may be away.
    time: Duration,
    aside: Option<Aside<T>>,
    /// Wakes who has it: somebody else wants it.
    wanted: Arc<Notify>,
    /// Wakes all who want it: one gets it, and the others ask that one.
    returned: Arc<Notify>,
}

#[derive(Debug)]
struct Aside<T> {
    outlet: Outlet,
    kept: T,
    until: Instant,
}

/// A session whose client is there. It is set aside again when this is dropped.
#[derive(Debug)]
pub struct Visit<T> {
    park: Arc<Park<T>>,
    key: Key,
    number: u64,
    /// Empty only while it is dropped.
    held: Option<(Outlet, T)>,
    wanted: Arc<Notify>,
}

impl<T> Park<T> {
    /// Nothing is set aside yet.
    pub fn new(limits: ParkLimits) -> Arc<Self> {
        let (slots, order, of) = (HashMap::new(), BTreeMap::new(), HashMap::new());
        let table = Mutex::new(Table { slots, order, of, next: 0, closed: false });
        Arc::new(Self { limits, table, earlier: Notify::new() })
    }

    /// Takes in a session under a name of its principal; one that had the name ends. It may be away for `time`, and for no
    /// longer than [`ParkLimits::time`].
    pub fn open(
        self: &Arc<Self>,
        (principal, name): (&Arc<str>, &Arc<str>),
        time: Duration,
        outlet: Outlet,
        kept: T,
    ) -> Result<Visit<T>, CommandError> {
        let key = Key { principal: Arc::clone(principal), name: Arc::clone(name) };
        let _before = self.remove(&key, None);
        let mut table = self.table.lock();
        if table.closed {
            return Err(CommandError::Draining);
        }
        let ParkLimits { max, max_per_principal, .. } = self.limits;
        let of = table.of.get(&key.principal).copied().unwrap_or_default();
        let limit =
            if table.slots.len() >= max { Some(max) } else { (of >= max_per_principal).then_some(max_per_principal) };
        if let Some(limit) = limit {
            let what = "sessions without a connection";
            return Err(StreamError::TooMany { what, limit }.into());
        }
        let number = table.next;
        table.next += 1;
        *table.of.entry(Arc::clone(&key.principal)).or_default() += 1;
        let (wanted, returned) = (Arc::<Notify>::default(), Arc::default());
        let slot =
            Slot { number, time: time.min(self.limits.time), aside: None, wanted: Arc::clone(&wanted), returned };
        table.slots.insert(key.clone(), slot);
        Ok(Visit { park: Arc::clone(self), key, number, held: Some((outlet, kept)), wanted })
    }

    /// The session of that name, for its client, which is on a stream that `cut` ends, if it is on any at length. Waits while
    /// another has it, which is asked to give it back. Cancel-safe.
    pub async fn take_up(
        self: &Arc<Self>,
        principal: &Arc<str>,
        name: &str,
        cut: Option<Arc<Cut>>,
    ) -> Result<Visit<T>, CommandError> {
        let key = Key { principal: Arc::clone(principal), name: name.into() };
        loop {
            match self.take(&key, cut.as_ref())? {
                Ok(visit) => return Ok(visit),
                Err(returned) => returned.await,
            }
        }
    }

    /// The session, or what to wait for: it hears what happens from now on.
    fn take(
        self: &Arc<Self>,
        key: &Key,
        cut: Option<&Arc<Cut>>,
    ) -> Result<Result<Visit<T>, OwnedNotified>, CommandError> {
        let mut table = self.table.lock();
        let not_found = || CommandError::SessionNotFound { id: key.name.chars().take(64).collect() };
        let slot = table.slots.get_mut(key).ok_or_else(not_found)?;
        let Some(aside) = slot.aside.take() else {
            slot.wanted.notify_one();
            return Ok(Err(Arc::clone(&slot.returned).notified_owned()));
        };
        // What was asked for before is done; who waits still asks again.
        slot.wanted = Arc::default();
        let (number, wanted) = (slot.number, Arc::clone(&slot.wanted));
        table.order.remove(&(aside.until, number));
        drop(table);
        let Aside { mut outlet, kept, .. } = aside;
        outlet.take_up(cut.cloned());
        Ok(Ok(Visit { park: Arc::clone(self), key: key.clone(), number, held: Some((outlet, kept)), wanted }))
    }

    /// Ends the session of that name, whoever has it. False when there is none.
    pub fn end(&self, principal: &Arc<str>, name: &str) -> bool {
        let key = Key { principal: Arc::clone(principal), name: name.into() };
        self.remove(&key, None).is_some()
    }

    /// How many there are, set aside or with their clients.
    pub fn count(&self) -> usize {
        self.table.lock().slots.len()
    }

    /// Ends those whose time is over; all of them once the hub is shutting down, and then it is done.
    pub async fn keep_time(&self, hub: &Hub) {
        loop {
            let next = self.table.lock().order.first_key_value().map(|((until, _), _)| *until);
            let time = async {
                match next {
                    Some(next) => tokio::time::sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = time => drop(self.expired(Instant::now())),
                () = self.earlier.notified() => {}
                _ = hub.until_draining() => break,
            }
        }
        let slots = {
            let mut table = self.table.lock();
            table.closed = true;
            table.order.clear();
            table.of.clear();
            std::mem::take(&mut table.slots)
        };
        slots.values().for_each(Slot::tell);
    }

    /// Those whose time is over, to be dropped without the lock.
    fn expired(&self, now: Instant) -> Vec<Slot<T>> {
        let mut table = self.table.lock();
        let mut expired = Vec::new();
        while let Some(first) = table.order.first_entry().filter(|first| first.key().0 <= now) {
            let key = first.remove();
            expired.extend(table.remove(&key));
        }
        expired
    }

    /// Takes a session out; with a number only that one.
    fn remove(&self, key: &Key, number: Option<u64>) -> Option<Slot<T>> {
        let mut table = self.table.lock();
        let found = table.slots.get(key).filter(|slot| number.is_none_or(|number| slot.number == number))?;
        let place = found.aside.as_ref().map(|aside| (aside.until, found.number));
        if let Some(place) = place {
            table.order.remove(&place);
        }
        let slot = table.remove(key);
        drop(table);
        slot.inspect(Slot::tell)
    }

    /// Sets a session aside again, unless it is over meanwhile.
    fn set_aside(&self, key: &Key, number: u64, mut outlet: Outlet, kept: T) {
        outlet.set_aside(self.limits.bytes);
        let mut table = self.table.lock();
        let Some(slot) = table.slots.get_mut(key).filter(|slot| slot.number == number) else {
            drop(table);
            return drop(outlet);
        };
        let until = Instant::now() + slot.time;
        slot.aside = Some(Aside { outlet, kept, until });
        slot.returned.notify_waiters();
        table.order.insert((until, number), key.clone());
        let is_next = table.order.first_key_value().is_some_and(|(first, _)| *first == (until, number));
        drop(table);
        if is_next {
            self.earlier.notify_one();
        }
    }
}

impl<T> Table<T> {
    fn remove(&mut self, key: &Key) -> Option<Slot<T>> {
        let slot = self.slots.remove(key)?;
        if let Some(of) = self.of.get_mut(&key.principal) {
            *of -= 1;
            if *of == 0 {
                self.of.remove(&key.principal);
            }
        }
        Some(slot)
    }
}

impl<T> Slot<T> {
    /// Says to who has it, and to who wants it, that it is over.
    fn tell(&self) {
        self.wanted.notify_one();
        self.returned.notify_waiters();
    }
}

impl<T> Visit<T> {
    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.key.name
    }

    /// What waits for its client, and what is kept with it.
    pub fn parts(&mut self) -> Option<(&mut Outlet, &mut T)> {
        self.held.as_mut().map(|(outlet, kept)| (outlet, kept))
    }

    /// Ends when another client wants it, or it is over: it is to be dropped soon. Cancel-safe.
    pub fn wanted(&self) -> impl Future<Output = ()> + Send + use<T> {
        let wanted = Arc::clone(&self.wanted);
        async move { wanted.notified().await }
    }

    /// The session is over.
    pub fn end(mut self) {
        self.held = None;
        self.park.remove(&self.key, Some(self.number));
    }
}

impl<T> Drop for Visit<T> {
    fn drop(&mut self) {
        if let Some((outlet, kept)) = self.held.take() {
            self.park.set_aside(&self.key, self.number, outlet, kept);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, task::Poll};

    use tokio::task::JoinSet;

    use super::*;
    use crate::{
        auth::Caller,
        event::{Draft, EventIds, Payload},
        hub::{Kind, Publish, Setup},
        model::{End, Filter, SubscriptionSpec},
        outbox::{Batch, Taken},
        session::{NoRequests, Session},
        tasks::{OnPanic, Tasks},
    };

    const LIMITS: ParkLimits =
        ParkLimits { max: 3, max_per_principal: 2, bytes: 8 * 1024, time: Duration::from_secs(60) };

    struct Ground {
        hub: Arc<Hub>,
        tasks: Tasks,
        park: Arc<Park<u32>>,
    }

    impl Ground {
        fn new() -> Self {
            let (hub, park) = (Arc::new(Hub::new(Setup::default())), Park::new(LIMITS));
            let (tasks, of_park, of_hub) = (Tasks::default(), Arc::clone(&park), Arc::clone(&hub));
            tasks.spawn("park", OnPanic::Log, async move { of_park.keep_time(&of_hub).await });
            Self { hub, tasks, park }
        }

        async fn outlet(&self) -> Outlet {
            let client = self.hub.memory().client();
            let session = Session::open(&self.hub, Kind::One, None, Caller::nobody("test", None), &client);
            let mut session = session.expect("a session");
            let spec = SubscriptionSpec::live(vec![Filter::parse(b"a").expect("a filter")]);
            session.subscribe_once(&spec).await.expect("subscribed");
            let outlet = session.outlet();
            self.tasks.spawn("session", OnPanic::Log, session.run(NoRequests));
            outlet
        }

        async fn open(&self, principal: &str, name: &str) -> Result<Visit<u32>, CommandError> {
            let outlet = self.outlet().await;
            self.park.open((&principal.into(), &name.into()), Duration::MAX, outlet, 0)
        }

        async fn publish(&self, bytes: usize) {
            let draft = Draft { topic: "a", payload: Payload::Data(&vec![0; bytes]), ..Draft::default() };
            let events = vec![draft.build(1 << 20, &mut EventIds::new("t"))];
            let publish = Publish { events, precondition: None, memory: None, quiet: false };
            self.hub.publish(&Caller::nobody("test", None), publish, &self.tasks).await.expect("published");
        }

        async fn is_gone(&self) {
            while self.hub.session_count() > 0 {
                tokio::task::yield_now().await;
            }
        }
    }

    /// How many events wait now. The writer lets others work a few times before it takes a few.
    async fn events(visit: &mut Visit<u32>) -> usize {
        let (outlet, _) = visit.parts().expect("held");
        let (mut events, mut pauses, mut batch) = (0, 0, Batch::default());
        let all = poll_fn(|context| {
            loop {
                batch.clear();
                match outlet.poll_take(context, &mut batch) {
                    Poll::Ready(Taken::Batch) => (events, pauses) = (events + batch.events.len(), 0),
                    Poll::Ready(Taken::Finished(end)) => return Poll::Ready(Err(end)),
                    Poll::Pending if pauses < 3 => pauses += 1,
                    Poll::Pending => return Poll::Ready(Ok(())),
                }
            }
        });
        all.await.map_err(|end: End| end.to_string()).expect("it goes on");
        events
    }

    fn one() -> Arc<str> {
        "one".into()
    }

    #[tokio::test]
    async fn what_waits_for_a_session_that_is_set_aside_is_there_when_its_client_is_back() {
        let ground = Ground::new();
        let mut visit = ground.open("one", "s").await.expect("room");
        *visit.parts().expect("held").1 = 7;
        drop(visit);
        ground.publish(10).await;
        let mut visit = ground.park.take_up(&one(), "s", None).await.expect("it is there");
        assert_eq!((events(&mut visit).await, *visit.parts().expect("held").1), (1, 7));
        visit.end();
        ground.is_gone().await;
        assert!(ground.park.take_up(&one(), "s", None).await.is_err());
    }

    #[tokio::test]
    async fn another_principal_finds_nothing() {
        let ground = Ground::new();
        drop(ground.open("one", "s").await.expect("room"));
        let found = ground.park.take_up(&"other".into(), "s", None).await.err();
        assert_eq!(found, Some(CommandError::SessionNotFound { id: "s".into() }));
        assert!(!ground.park.end(&"other".into(), "s"));
    }

    #[tokio::test]
    async fn so_many_are_set_aside_and_no_more() {
        let ground = Ground::new();
        drop((ground.open("one", "a").await.expect("one"), ground.open("one", "b").await.expect("at the limit")));
        assert!(ground.open("one", "c").await.is_err(), "one past that of the principal");
        drop(ground.open("", "a").await.expect("at that of the hub"));
        assert!(ground.open("third", "a").await.is_err(), "one past");
        drop(ground.open("one", "a").await.expect("in place of the one of that name"));
        assert!(ground.park.end(&one(), "a"));
        drop(ground.open("third", "a").await.expect("room again"));
        assert_eq!(ground.park.count(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_nobody_comes_back_for_ends() {
        let ground = Ground::new();
        let visit = ground.open("one", "s").await.expect("room");
        tokio::time::sleep(LIMITS.time * 2).await;
        drop(visit);
        tokio::time::sleep(LIMITS.time * 9 / 10).await;
        drop(ground.park.take_up(&one(), "s", None).await.expect("in time"));
        tokio::time::sleep(LIMITS.time + Duration::from_secs(1)).await;
        assert!(ground.park.take_up(&one(), "s", None).await.is_err(), "too late");
        ground.is_gone().await;
    }

    #[tokio::test]
    async fn only_so_many_bytes_wait_in_one_that_is_set_aside() {
        let ground = Ground::new();
        let mut visit = ground.open("one", "s").await.expect("room");
        for _ in 0..16 {
            ground.publish(1024).await;
        }
        assert_eq!(events(&mut visit).await, 16, "its client is there");
        drop(visit);
        for _ in 0..16 {
            ground.publish(1024).await;
        }
        assert!(ground.hub.waiting_bytes() <= LIMITS.bytes, "{}", ground.hub.waiting_bytes());
        let mut visit = ground.park.take_up(&one(), "s", None).await.expect("it is there");
        assert!((1..8).contains(&events(&mut visit).await));
    }

    #[tokio::test]
    async fn one_client_has_it_at_a_time_and_gives_it_back_to_another() {
        let ground = Ground::new();
        let first = ground.open("one", "s").await.expect("room");
        let (park, next) = (Arc::clone(&ground.park), one());
        let mut second = JoinSet::new();
        second.spawn(async move { park.take_up(&next, "s", None).await });
        first.wanted().await;
        assert!(second.try_join_next().is_none());
        drop(first);
        let second = second.join_next().await.expect("it waits").expect("no panic").expect("its turn");
        assert!(ground.park.end(&one(), "s"), "whoever has it");
        second.wanted().await;
        drop(second);
        ground.is_gone().await;
    }

    #[tokio::test(start_paused = true)]
    async fn of_several_that_want_it_each_gets_it() {
        let ground = Ground::new();
        let mut visit = ground.open("one", "s").await.expect("room");
        let mut others = JoinSet::new();
        for _ in 0..3 {
            let (park, next) = (Arc::clone(&ground.park), one());
            others.spawn(async move { park.take_up(&next, "s", None).await });
        }
        let soon = |what| tokio::time::timeout(LIMITS.time / 2, what);
        while !others.is_empty() {
            soon(visit.wanted()).await.expect("somebody wants it");
            drop(visit);
            visit = others.join_next().await.expect("it waits").expect("no panic").expect("its turn");
        }
        assert!(soon(visit.wanted()).await.is_err(), "nobody wants it any more");
    }

    #[tokio::test]
    async fn all_end_when_the_hub_does() {
        let ground = Ground::new();
        let (visit, _) = (ground.open("one", "a").await.expect("room"), ground.open("one", "b").await.expect("room"));
        let (park, next) = (Arc::clone(&ground.park), one());
        let (mut waits, mut drained) = (JoinSet::new(), JoinSet::new());
        waits.spawn(async move { park.take_up(&next, "a", None).await });
        let hub = Arc::clone(&ground.hub);
        drained.spawn(async move { hub.drain(Duration::ZERO).await });
        visit.wanted().await;
        drop(visit);
        drained.join_next().await.expect("it ends").expect("no panic");
        assert!(waits.join_next().await.expect("it ends").expect("no panic").is_err());
        let client = ground.hub.memory().client();
        assert!(Session::open(&ground.hub, Kind::One, None, Caller::nobody("test", None), &client).is_err());
    }
}
