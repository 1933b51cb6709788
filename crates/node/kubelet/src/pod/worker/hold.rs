//! When a worker may act again: after errors it waits longer each time, after failed starts for a while, and never turns in
//! circles when nothing came of an act. Pure: what there is comes as a number, the time as an argument.

use crate::pod::job::Report;
use jiff::{SignedDuration, Timestamp};

const FIRST_WAIT: SignedDuration = SignedDuration::from_millis(500);
const MAX_WAIT: SignedDuration = SignedDuration::from_secs(30);
const START_RETRY: SignedDuration = SignedDuration::from_secs(10);
const IDLE_TURN: SignedDuration = SignedDuration::from_secs(1);

pub(super) struct Hold {
    /// Not to plan again before this time unless something has changed from this signature.
    blocked: Option<(u64, Timestamp)>,
    /// What the running job, or the last one, was planned for.
    planned: u64,
    error_wait: SignedDuration,
}

impl Hold {
    pub(super) fn new() -> Self {
        Hold { blocked: None, planned: 0, error_wait: FIRST_WAIT }
    }

    /// A job starts for what there is now.
    pub(super) fn planned_for(&mut self, signature: u64) {
        self.planned = signature;
    }

    /// Whether a new plan for what there is has to wait.
    pub(super) fn holds_plan(&self, signature: u64, now: Timestamp) -> bool {
        self.blocked.is_some_and(|(seen, until)| seen == signature && now < until)
    }

    /// Whether ending the pod has to wait, whatever has changed.
    pub(super) fn holds_end(&self, now: Timestamp) -> bool {
        self.blocked.is_some_and(|(_, until)| now < until)
    }

    pub(super) fn until(&self) -> Option<Timestamp> {
        self.blocked.map(|(_, until)| until)
    }

    /// A wait that is over is forgotten, or the worker would wake for it again and again.
    pub(super) fn expire(&mut self, now: Timestamp) {
        self.blocked = self.blocked.filter(|(_, until)| now < *until);
    }

    pub(super) fn release(&mut self) {
        self.blocked = None;
    }

    pub(super) fn after_error(&mut self, signature: u64, now: Timestamp) {
        let wait = self.error_wait;
        self.error_wait = (wait * 2).min(MAX_WAIT);
        self.block(signature, now, wait);
    }

    /// A plan has been carried out, with this outcome.
    pub(super) fn after_sync(&mut self, report: &Report, signature: u64, now: Timestamp) {
        if report.error.is_some() {
            return self.after_error(signature, now);
        }
        self.error_wait = FIRST_WAIT;
        match (report.again, report.failed) {
            (Some(again), false) => self.blocked = Some((signature, again)),
            (Some(again), true) => {
                let retry = now.checked_add(START_RETRY).unwrap_or(again);
                self.blocked = Some((signature, again.min(retry)));
            }
            (None, true) => self.block(signature, now, START_RETRY),
            // Nothing came of it: do not turn in circles.
            (None, false) if self.planned == signature => self.block(signature, now, IDLE_TURN),
            (None, false) => self.blocked = None,
        }
    }

    fn block(&mut self, signature: u64, now: Timestamp, wait: SignedDuration) {
        self.blocked = Some((signature, now.checked_add(wait).unwrap_or(Timestamp::MAX)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).expect("a time")
    }

    #[test]
    fn errors_wait_longer_each_time_and_success_forgets_them() {
        let mut hold = Hold::new();
        let error = Report { error: Some("x".into()), ..Report::default() };
        let mut waits = Vec::new();
        for _ in 0..8 {
            hold.after_sync(&error, 1, at(0));
            waits.push(hold.until().expect("blocked").as_millisecond());
        }
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]);
        hold.planned_for(1);
        hold.after_sync(&Report::default(), 2, at(0));
        assert_eq!(hold.until(), None, "something came of it");
        hold.after_sync(&error, 2, at(0));
        assert_eq!(hold.until().map(|t| t.as_millisecond()), Some(500));
    }

    #[test]
    fn a_wait_that_is_over_wakes_nobody() {
        let mut hold = Hold::new();
        hold.after_sync(&Report { failed: true, ..Report::default() }, 7, at(0));
        hold.expire(at(9));
        assert_eq!(hold.until(), Some(at(10)));
        hold.expire(at(10));
        assert_eq!(hold.until(), None);
    }

    #[test]
    fn a_change_lets_a_plan_through_but_not_an_end() {
        let mut hold = Hold::new();
        hold.after_sync(&Report { failed: true, ..Report::default() }, 7, at(0));
        assert!(hold.holds_plan(7, at(9)) && !hold.holds_plan(8, at(9)) && !hold.holds_plan(7, at(10)));
        assert!(hold.holds_end(at(9)) && !hold.holds_end(at(10)));
    }

    #[test]
    fn the_earlier_of_two_times_counts() {
        let cases = [(Some(60), false, 60), (Some(60), true, 10), (Some(5), true, 5)];
        for (again, failed, expected) in cases {
            let mut hold = Hold::new();
            hold.after_sync(&Report { again: again.map(at), failed, ..Report::default() }, 7, at(0));
            assert_eq!(hold.until(), Some(at(expected)), "{again:?} {failed}");
        }
        let mut hold = Hold::new();
        hold.planned_for(7);
        hold.after_sync(&Report::default(), 7, at(0));
        assert_eq!(hold.until(), Some(at(1)), "nothing came of it");
    }
}
