//! What one subscription holds, and what the hub may still send it: together never more than its window. Pure.
//!
//! The hub counts a unit only from the first grant that names it. So the first grant of a session names both, or there is
//! none yet and the hub sends nothing. After that credit goes back in large pieces: when the hub may send no more than what
//! can be granted.

use crate::{proto::v1::Credit, spec::Window};

/// A count of events, and their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Size {
    pub(crate) events: i64,
    pub(crate) bytes: i64,
}

impl Size {
    /// Of one event.
    pub(crate) fn one(bytes: i64) -> Self {
        Self { events: 1, bytes }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.events += other.events;
        self.bytes += other.bytes;
    }

    fn take(&mut self, other: Self) {
        self.events -= other.events;
        self.bytes -= other.bytes;
    }

    pub(crate) fn without(mut self, other: Self) -> Self {
        self.take(other);
        self
    }
}

/// The books of one subscription.
#[derive(Debug)]
pub(crate) struct Ledger {
    window: Window,
    /// In hand.
    held: Size,
    /// Granted in this session, and not used. The bytes may be overdrawn by one event.
    granted: Size,
    /// The hub counts.
    counted: bool,
}

impl Ledger {
    pub(crate) fn new(window: Window) -> Self {
        Self { window, held: Size::default(), granted: Size::default(), counted: false }
    }

    /// A session begins: what to ask for at first. Even nothing is explicit credit.
    pub(crate) fn begin(&mut self) -> Credit {
        self.granted = Size::default();
        self.counted = false;
        self.grant().unwrap_or_default()
    }

    /// What to grant now, if it is time.
    pub(crate) fn grant(&mut self) -> Option<Credit> {
        let Size { events, bytes } = self.due()?;
        self.granted.add(Size { events, bytes });
        self.counted = true;
        Some(Credit { events, bytes })
    }

    /// It is time to grant something.
    pub(crate) fn is_due(&self) -> bool {
        self.due().is_some()
    }

    fn due(&self) -> Option<Size> {
        let (window, held, granted) = (self.window, self.held, self.granted);
        let events = (window.events - held.events - granted.events).max(0);
        let bytes = (window.bytes - held.bytes - granted.bytes).max(0);
        let due = if self.counted {
            events > 0 && events >= granted.events || bytes > 0 && bytes >= granted.bytes
        } else {
            events > 0 && bytes > 0
        };
        due.then_some(Size { events, bytes })
    }

    /// Something came.
    pub(crate) fn arrived(&mut self, size: Size) {
        self.granted.take(size);
        self.held.add(size);
    }

    /// Something is out of hand.
    pub(crate) fn returned(&mut self, size: Size) {
        self.held.take(size);
    }

    pub(crate) fn held(&self) -> Size {
        self.held
    }

    /// The hub may send nothing more until something is out of hand.
    pub(crate) fn is_full(&self) -> bool {
        self.held.events >= self.window.events || self.held.bytes >= self.window.bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The hub's side of it, as the contract has it.
    #[derive(Default)]
    struct Hub {
        size: Size,
        counts: bool,
    }

    impl Hub {
        fn grant(&mut self, more: Credit) {
            assert!(more.events > 0 || more.bytes > 0, "a grant of nothing is refused");
            assert!(self.counts || (more.events > 0 && more.bytes > 0), "the hub would not count what is not named");
            self.counts = true;
            self.size.add(Size { events: more.events, bytes: more.bytes });
        }

        fn begin(first: Credit) -> Self {
            let mut hub = Self::default();
            if first != Credit::default() {
                hub.grant(first);
            }
            hub
        }

        fn may_send(&self) -> bool {
            self.size.events > 0 && self.size.bytes > 0
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn the_window_is_never_exceeded_and_never_stalls(
            window in (1_i64..20, 1_i64..2000),
            steps in prop::collection::vec((0_u8..10, 1_i64..500), 1..400),
        ) {
            let window = Window { events: window.0, bytes: window.1 };
            let mut ledger = Ledger::new(window);
            let mut hub = Hub::begin(ledger.begin());
            let mut held: Vec<i64> = Vec::new();
            for (step, bytes) in steps {
                match step {
                    // Another session.
                    0 => hub = Hub::begin(ledger.begin()),
                    1..5 if hub.may_send() => {
                        prop_assert!((held.len() as i64) < window.events);
                        prop_assert!(held.iter().sum::<i64>() < window.bytes, "more than one event over the window");
                        hub.size.take(Size::one(bytes));
                        ledger.arrived(Size::one(bytes));
                        held.push(bytes);
                    }
                    _ => {
                        if let Some(bytes) = held.pop() {
                            ledger.returned(Size::one(bytes));
                        }
                    }
                }
                if let Some(grant) = ledger.grant() {
                    hub.grant(grant);
                }
                if held.is_empty() {
                    prop_assert!(hub.may_send(), "nothing is in hand, and nothing may come");
                }
            }
        }
    }

    #[test]
    fn a_session_that_begins_with_a_full_window_grants_nothing_until_both_units_have_room() {
        let mut ledger = Ledger::new(Window { events: 2, bytes: 100 });
        ledger.begin();
        ledger.arrived(Size::one(90));
        ledger.arrived(Size::one(90));
        assert!(ledger.is_full());
        // With an event but no bytes named, the hub would not count the bytes.
        assert_eq!(ledger.begin(), Credit::default());
        ledger.returned(Size::one(10));
        assert_eq!(ledger.grant(), None, "one event, no bytes");
        ledger.returned(Size { events: 0, bytes: 80 });
        assert_eq!(ledger.grant(), Some(Credit { events: 1, bytes: 10 }));
    }

    #[test]
    fn credit_goes_back_in_large_pieces() {
        let mut ledger = Ledger::new(Window { events: 100, bytes: 100_000 });
        assert_eq!(ledger.begin(), Credit { events: 100, bytes: 100_000 });
        let mut grants = 0;
        for _ in 0..1000 {
            ledger.arrived(Size::one(10));
            ledger.returned(Size::one(10));
            grants += usize::from(ledger.grant().is_some());
        }
        assert!(grants <= 21, "{grants} grants for 1000 events");
    }

    #[test]
    fn a_window_of_one_is_refilled_by_every_event() {
        let mut ledger = Ledger::new(Window { events: 1, bytes: 10 });
        assert_eq!(ledger.begin(), Credit { events: 1, bytes: 10 });
        for _ in 0..3 {
            ledger.arrived(Size::one(25));
            assert_eq!(ledger.grant(), None, "in hand");
            ledger.returned(Size::one(25));
            assert_eq!(ledger.grant(), Some(Credit { events: 1, bytes: 25 }), "the overdraft too");
        }
    }
}
