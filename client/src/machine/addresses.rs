//! Which hub to connect to: a list in random order, so that clients spread over hubs, and the next one after each failure.
//! Pure.

/// So many addresses are known at most; a hub may name others, and more of them are ignored.
const MOST: usize = 64;

/// The addresses of hubs that serve the same events.
#[derive(Debug)]
pub(crate) struct Addresses {
    all: Vec<String>,
    at: usize,
}

impl Addresses {
    /// These, in an order that the seed decides. There is at least one.
    pub(crate) fn new(mut all: Vec<String>, seed: u64) -> Self {
        fastrand::Rng::with_seed(seed).shuffle(&mut all);
        Self { all, at: 0 }
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

    /// A hub names others.
    pub(crate) fn learn(&mut self, others: &[String]) {
        for other in others {
            if self.all.len() < MOST && !other.is_empty() && !self.all.contains(other) {
                self.all.push(other.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("hub-{n}")).collect()
    }

    fn round(addresses: &mut Addresses, count: usize) -> Vec<String> {
        let one = |_| {
            let current = addresses.current().to_owned();
            addresses.next();
            current
        };
        (0..count).map(one).collect()
    }

    #[test]
    fn each_is_tried_once_a_round_in_an_order_that_stays() {
        let mut addresses = Addresses::new(names(5), 7);
        let first = round(&mut addresses, 5);
        let mut sorted = first.clone();
        sorted.sort();
        assert_eq!(sorted, names(5));
        assert_eq!(round(&mut addresses, 5), first);
    }

    #[test]
    fn clients_begin_with_different_ones() {
        let firsts: std::collections::BTreeSet<String> =
            (0..100).map(|seed| Addresses::new(names(3), seed).current().to_owned()).collect();
        assert_eq!(firsts.len(), 3);
    }

    #[test]
    fn a_hub_may_name_others_up_to_the_limit() {
        let mut addresses = Addresses::new(names(1), 0);
        addresses.learn(&["hub-0".into(), String::new(), "hub-1".into()]);
        assert_eq!(round(&mut addresses, 3), ["hub-0", "hub-1", "hub-0"]);
        addresses.learn(&names(MOST + 1));
        assert_eq!(addresses.all, names(MOST));
    }
}
