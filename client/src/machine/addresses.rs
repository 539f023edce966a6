//! Which hub to connect to: a list in random order, so that clients spread over hubs, and the next one after each failure.
//! Pure.

/// At most this many addresses are known besides those that the user has given.
const MOST: usize = 64;
/// The longest address that a hub may name, in bytes. Longer ones are ignored.
const MAX_NAMED_BYTES: usize = 256;

/// The addresses of hubs that serve the same events.
#[derive(Debug)]
pub(crate) struct Addresses {
    /// Those that the user has given, then those that hubs have named, the oldest first.
    all: Vec<String>,
    given: usize,
    at: usize,
    /// Those that do not say are of hubs with TLS.
    has_tls: bool,
    random: fastrand::Rng,
}

impl Addresses {
    /// These, in an order that the seed decides. There is at least one.
    pub(crate) fn new(mut all: Vec<String>, has_tls: bool, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        random.shuffle(&mut all);
        Self { given: all.len(), all, at: 0, has_tls, random }
    }

    /// The one to connect to now.
    pub(crate) fn current(&self) -> &str {
        self.all.get(self.at).map_or("", String::as_str)
    }

    pub(crate) fn count(&self) -> u64 {
        self.all.len() as u64
    }

    /// That one does not serve, or not any longer.
    pub(crate) fn next(&mut self) {
        self.at = (self.at + 1) % self.all.len().max(1);
    }

    /// The hub that this is connected to names others. They are tried after those that are known; when there are too many,
    /// the one that was named first makes room.
    pub(crate) fn learn(&mut self, others: &[String]) {
        let mut others: Vec<&String> = others.iter().filter(|other| self.may_follow(other)).collect();
        // Not all clients of a hub are to go to the same one.
        self.random.shuffle(&mut others);
        for other in others {
            let is_known = self.all.iter().any(|known| self.url(known) == *other);
            if !is_known {
                self.make_room();
                self.all.push(other.clone());
            }
        }
    }

    /// A hub may name this one: it is what the contract has, and does not lead from TLS to where everybody can listen.
    fn may_follow(&self, other: &str) -> bool {
        let is_safe = other.starts_with("https://");
        let needs_safety = self.url(self.current()).starts_with("https://");
        other.len() <= MAX_NAMED_BYTES && (is_safe || (other.starts_with("http://") && !needs_safety))
    }

    /// An address with its scheme.
    fn url(&self, address: &str) -> String {
        if address.contains("://") || address.starts_with("unix:") {
            return address.to_owned();
        }
        format!("{}://{address}", if self.has_tls { "https" } else { "http" })
    }

    /// Forgets an address that a hub has named, if there are too many. Not the current one.
    fn make_room(&mut self) {
        if self.all.len() - self.given < MOST {
            return;
        }
        let oldest = if self.at == self.given { self.given + 1 } else { self.given };
        self.all.remove(oldest);
        if self.at > oldest {
            self.at -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(range: std::ops::Range<usize>) -> Vec<String> {
        range.map(|n| format!("http://hub-{n}")).collect()
    }

    fn round(addresses: &mut Addresses, count: usize) -> Vec<String> {
        let one = |_| {
            let current = addresses.current().to_owned();
            addresses.next();
            current
        };
        (0..count).map(one).collect()
    }

    fn sorted(mut all: Vec<String>) -> Vec<String> {
        all.sort_unstable();
        all
    }

    #[test]
    fn each_is_tried_once_a_round_in_an_order_that_stays() {
        let mut addresses = Addresses::new(names(0..5), false, 7);
        let first = round(&mut addresses, 5);
        assert_eq!(sorted(first.clone()), names(0..5));
        assert_eq!(round(&mut addresses, 5), first);
    }

    #[test]
    fn clients_begin_with_different_ones_and_go_on_with_different_ones() {
        let all = |given: usize, at: usize| -> std::collections::BTreeSet<String> {
            let one = |seed| {
                let mut addresses = Addresses::new(names(0..given), false, seed);
                addresses.learn(&names(0..3));
                (0..at).for_each(|_| addresses.next());
                addresses.current().to_owned()
            };
            (0..100).map(one).collect()
        };
        assert_eq!((all(3, 0).len(), all(1, 1).len()), (3, 2));
    }

    #[test]
    fn those_that_a_hub_names_are_tried_after_those_that_are_known_and_none_twice() {
        let mut addresses = Addresses::new(vec!["hub-0".into()], false, 0);
        addresses.learn(&["http://hub-0".into(), "http://hub-1".into()]);
        addresses.learn(&["http://hub-1".into()]);
        assert_eq!(round(&mut addresses, 3), ["hub-0", "http://hub-1", "hub-0"]);
    }

    #[test]
    fn no_more_are_kept_than_the_limit_and_the_oldest_make_room_but_never_the_current_one() {
        let mut addresses = Addresses::new(names(0..2), false, 0);
        for name in names(2..MOST + 2) {
            addresses.learn(&[name]);
        }
        assert_eq!(addresses.all[2..], names(2..MOST + 2));
        addresses.at = 2;
        addresses.learn(&names(MOST + 2..MOST + 3));
        assert_eq!((addresses.all.len(), addresses.current()), (MOST + 2, "http://hub-2"), "3 has made room");
        assert!(!addresses.all.contains(&"http://hub-3".to_owned()));
        addresses.at = 10;
        let current = addresses.current().to_owned();
        addresses.learn(&names(MOST + 3..MOST + 4));
        assert_eq!((addresses.all.len(), addresses.current()), (MOST + 2, current.as_str()));
        assert_eq!(sorted(addresses.all[..2].to_vec()), names(0..2), "those of the user stay");
    }

    #[test]
    fn what_no_hub_may_name_is_ignored() {
        let long = |bytes: usize| format!("http://{}", "x".repeat(bytes - "http://".len()));
        let mut addresses = Addresses::new(vec!["hub-0".into()], false, 0);
        addresses.learn(&[String::new(), "hub-1".into(), "unix:/hub.sock".into(), long(MAX_NAMED_BYTES + 1)]);
        assert_eq!(addresses.all, ["hub-0"]);
        addresses.learn(&[long(MAX_NAMED_BYTES)]);
        assert_eq!(addresses.all.len(), 2);
    }

    #[test]
    fn nobody_is_led_from_tls_to_where_everybody_can_listen() {
        let named = ["http://hub-1".into(), "https://hub-2".into()];
        for (first, has_tls, follows) in
            [("hub-0", true, 1), ("https://hub-0", false, 1), ("hub-0", false, 2), ("http://hub-0", true, 2)]
        {
            let mut addresses = Addresses::new(vec![first.into()], has_tls, 0);
            addresses.learn(&named);
            assert_eq!(addresses.all.len(), 1 + follows, "{first}");
            assert!(addresses.all.contains(&named[1]));
        }
    }
}
