//! Waiting longer after each failure, per key: upstream's numbers for restarts and image pulls are 10 s to 5 min, forgotten
//! after twice the maximum without a failure. Pure: time comes by argument.

use jiff::{SignedDuration, Timestamp};
use std::collections::HashMap;

#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    initial: SignedDuration,
    max: SignedDuration,
    entries: HashMap<String, Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    wait: SignedDuration,
    last: Timestamp,
}

impl Backoff {
    pub(crate) fn new(initial: i64, max: i64) -> Self {
        Backoff { initial: SignedDuration::from_secs(initial), max: SignedDuration::from_secs(max), entries: HashMap::new() }
    }

    pub(crate) fn restarts() -> Self {
        Backoff::new(10, 300)
    }

    fn live(&self, key: &str, event: Timestamp) -> Option<&Entry> {
        self.entries.get(key).filter(|e| event.duration_since(e.last) <= self.max * 2)
    }

    /// Until when to wait after an event at this time; None: not at all.
    pub(crate) fn until(&self, key: &str, event: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let end = event.checked_add(self.live(key, event)?.wait).ok()?;
        (now < end).then_some(end)
    }

    pub(crate) fn wait(&self, key: &str) -> SignedDuration {
        self.entries.get(key).map_or(SignedDuration::ZERO, |e| e.wait)
    }

    /// Counts one more failure at this time.
    pub(crate) fn next(&mut self, key: &str, event: Timestamp, now: Timestamp) {
        let wait = match self.live(key, event) {
            Some(entry) => (entry.wait * 2).min(self.max),
            None => self.initial,
        };
        self.entries.insert(key.to_owned(), Entry { wait, last: now });
    }

    /// When the last failure was.
    pub(crate) fn last(&self, key: &str) -> Option<Timestamp> {
        self.entries.get(key).map(|e| e.last)
    }

    pub(crate) fn forget_prefix(&mut self, prefix: &str) {
        self.entries.retain(|key, _| !key.starts_with(prefix));
    }

    pub(crate) fn forget(&mut self, key: &str) {
        self.entries.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_to_the_maximum_and_forgets() {
        let at = |s| Timestamp::from_second(s).expect("a time");
        let mut backoff = Backoff::restarts();
        assert_eq!(backoff.until("c", at(0), at(0)), None, "the first restart is at once");
        let mut now = 0;
        let mut waits = Vec::new();
        for _ in 0..7 {
            backoff.next("c", at(now), at(now));
            let end = backoff.until("c", at(now), at(now)).expect("waits");
            waits.push(end.as_second() - now);
            now = end.as_second();
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(backoff.until("c", at(now + 601), at(now + 601)), None, "ten quiet minutes");
    }
}
