//! Who runs and who waits. Pure: no clock, no async; the caller holds the lock.
//!
//! A level runs what fits its nominal seats, lends what it does not use down to its lower limit, and borrows up to its upper one, unless
//! someone within its nominal share waits. Inside a level, queues are chosen by shuffle sharding and served by start-time fair queuing:
//! a request starts at the later of the level's virtual time and its queue's last finish, and the earliest start goes first.

use std::collections::VecDeque;

use tokio::sync::oneshot;

/// How a level is to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) nominal: u32,
    /// What is never lent.
    pub(super) lower: u32,
    /// With everything that it may borrow.
    pub(super) upper: u32,
    /// None: what does not fit is refused.
    pub(super) queuing: Option<Queuing>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Queuing {
    pub(super) queues: usize,
    pub(super) hand: usize,
    pub(super) length: usize,
}

struct Level {
    name: String,
    shape: Shape,
    queues: Vec<Queue>,
    used: u32,
    waiting: usize,
    virtual_time: u64,
    /// Its object is gone; what waits is still served.
    retired: bool,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiter>,
    last_finish: u64,
}

struct Waiter {
    ticket: u64,
    width: u32,
    start: u64,
    turn: oneshot::Sender<()>,
}

pub(super) enum Arrival {
    Run(u32),
    Wait {
        ticket: u64,
        width: u32,
        turn: oneshot::Receiver<()>,
    },
    /// The queue has no room.
    Full,
    /// The level has no queues, and no seat.
    Refused,
}

pub(super) struct Report {
    pub(super) name: String,
    pub(super) nominal: u64,
    pub(super) lower: u64,
    pub(super) upper: u64,
    pub(super) used: u64,
    pub(super) waiting: usize,
    pub(super) queues: usize,
    pub(super) retired: bool,
}

pub(super) struct QueueReport {
    pub(super) index: usize,
    pub(super) pending: usize,
    /// The virtual time at which its first request starts.
    pub(super) next: u64,
    /// The seats that all who wait in it want.
    pub(super) width: u32,
}

pub(super) struct Seats {
    levels: Vec<Level>,
    server: u32,
    /// All nominal seats, which is the server's limit rounded up.
    total: u32,
    used: u32,
    waiting: usize,
    next_ticket: u64,
}

impl Seats {
    pub(super) fn new(server: u32) -> Self {
        Seats { levels: Vec::new(), server, total: server, used: 0, waiting: 0, next_ticket: 0 }
    }

    pub(super) fn server(&self) -> u32 {
        self.server
    }

    /// The levels as they are from now on; answers with the place of each. Levels that are not named any more are emptied.
    pub(super) fn configure(&mut self, wanted: Vec<(String, Shape)>) -> Vec<usize> {
        self.total = wanted.iter().map(|(_, shape)| shape.nominal).sum::<u32>().max(1);
        for level in &mut self.levels {
            level.retired = !wanted.iter().any(|(name, _)| *name == level.name);
        }
        let places = wanted.into_iter().map(|(name, shape)| self.place(name, shape)).collect();
        self.dispatch();
        places
    }

    fn place(&mut self, name: String, shape: Shape) -> usize {
        if let Some(place) = self.levels.iter().position(|l| l.name == name && !l.retired) {
            let level = &mut self.levels[place];
            let queues = shape.queuing.as_ref().map_or(0, |q| q.queues);
            // Queues that still hold someone stay until they are empty; the hand deals among the wanted number.
            if level.queues.len() < queues {
                level.queues.resize_with(queues, Queue::default);
            }
            level.shape = shape;
            return place;
        }
        let queues = shape.queuing.as_ref().map_or(0, |q| q.queues);
        let fresh = Level {
            name,
            queues: std::iter::repeat_with(Queue::default).take(queues).collect(),
            shape,
            used: 0,
            waiting: 0,
            virtual_time: 0,
            retired: false,
        };
        match self.levels.iter().position(|l| l.retired && l.used == 0 && l.waiting == 0) {
            Some(place) => {
                self.levels[place] = fresh;
                place
            }
            None => {
                self.levels.push(fresh);
                self.levels.len() - 1
            }
        }
    }

    pub(super) fn arrive(&mut self, place: usize, flow: u64, width: u32) -> Arrival {
        let level = &self.levels[place];
        // As upstream: one request takes at most 15 % of its level.
        let width = width.min((level.shape.nominal * 15 / 100).max(1));
        let within = level.used + width <= level.shape.nominal;
        if level.waiting == 0 && (within || self.waiting == 0) && self.fits(place, width) {
            self.seat(place, width);
            return Arrival::Run(width);
        }
        self.queue(place, flow, width)
    }

    fn queue(&mut self, place: usize, flow: u64, width: u32) -> Arrival {
        let level = &mut self.levels[place];
        let Some(queuing) = level.shape.queuing.clone().filter(|_| !level.retired) else { return Arrival::Refused };
        let queues = &level.queues;
        let shortest = deal(flow, queuing.queues, queuing.hand).into_iter().min_by_key(|q| queues[*q].waiting.len());
        let Some(queue) = shortest.and_then(|q| level.queues.get_mut(q)) else { return Arrival::Refused };
        if queue.waiting.len() >= queuing.length {
            return Arrival::Full;
        }
        let start = level.virtual_time.max(queue.last_finish);
        queue.last_finish = start + u64::from(width);
        let (turn, at_turn) = oneshot::channel();
        self.next_ticket += 1;
        let ticket = self.next_ticket;
        queue.waiting.push_back(Waiter { ticket, width, start, turn });
        level.waiting += 1;
        self.waiting += 1;
        Arrival::Wait { ticket, width, turn: at_turn }
    }

    fn seat(&mut self, place: usize, width: u32) {
        self.levels[place].used += width;
        self.used += width;
    }

    fn fits(&self, place: usize, width: u32) -> bool {
        let level = &self.levels[place];
        let after = level.used + width;
        if level.used == 0 || after <= level.shape.lower {
            return true;
        }
        // What others are never to be without stays free.
        let reserved = |l: &Level| l.shape.lower.saturating_sub(l.used);
        let others: u32 = self.levels.iter().enumerate().filter(|(i, l)| *i != place && !l.retired).map(|(_, l)| reserved(l)).sum();
        after <= level.shape.upper && self.used + width + others <= self.total
    }

    pub(super) fn leave(&mut self, place: usize, width: u32) {
        let level = &mut self.levels[place];
        level.used = level.used.saturating_sub(width);
        self.used = self.used.saturating_sub(width);
        if self.waiting > 0 {
            self.dispatch();
        }
    }

    /// False if its turn has come already.
    pub(super) fn give_up(&mut self, place: usize, ticket: u64) -> bool {
        let level = &mut self.levels[place];
        for queue in &mut level.queues {
            if let Some(at) = queue.waiting.iter().position(|w| w.ticket == ticket) {
                queue.waiting.remove(at);
                level.waiting -= 1;
                self.waiting -= 1;
                return true;
            }
        }
        false
    }

    /// Seats whoever can be seated: the level that uses the least of its share first.
    fn dispatch(&mut self) {
        while self.waiting > 0 {
            let load = |l: &Level| u64::from(l.used) * 1000 / u64::from(l.shape.nominal.max(1));
            let ready = self.levels.iter().enumerate().filter_map(|(i, l)| {
                let (queue, width) = l.next()?;
                self.fits(i, width).then_some((load(l), i, queue))
            });
            let Some((_, place, queue)) = ready.min() else { return };
            let level = &mut self.levels[place];
            let Some(waiter) = level.queues[queue].waiting.pop_front() else { return };
            level.virtual_time = level.virtual_time.max(waiter.start);
            level.waiting -= 1;
            self.waiting -= 1;
            // Whoever left in this moment sits for an instant: its guard finds no ticket and gives the seat back.
            self.seat(place, waiter.width);
            let _ = waiter.turn.send(());
        }
    }

    pub(super) fn report(&self) -> Vec<Report> {
        let report = |l: &Level| Report {
            name: l.name.clone(),
            nominal: l.shape.nominal.into(),
            lower: l.shape.lower.into(),
            upper: l.shape.upper.into(),
            used: l.used.into(),
            waiting: l.waiting,
            queues: l.queues.iter().filter(|q| !q.waiting.is_empty()).count(),
            retired: l.retired,
        };
        self.levels.iter().filter(|l| !l.retired || l.used > 0 || l.waiting > 0).map(report).collect()
    }
}

impl Seats {
    /// The queues with their levels' names.
    pub(super) fn queues(&self) -> Vec<(String, QueueReport)> {
        let of = |l: &Level| -> Vec<(String, QueueReport)> {
            let report = |(index, q): (usize, &Queue)| QueueReport {
                index,
                pending: q.waiting.len(),
                next: q.waiting.front().map_or(l.virtual_time, |w| w.start),
                width: q.waiting.iter().map(|w| w.width).sum(),
            };
            l.queues.iter().enumerate().map(|q| (l.name.clone(), report(q))).collect()
        };
        self.levels.iter().flat_map(of).collect()
    }

    /// One line for each request that waits.
    pub(super) fn waiting(&self) -> Vec<String> {
        let mut rows = Vec::new();
        for level in &self.levels {
            for (queue, of) in level.queues.iter().enumerate() {
                let row = |(i, w): (usize, &Waiter)| format!("{}, {queue}, {i}, {}, {}, {}", level.name, w.ticket, w.width, w.start);
                rows.extend(of.waiting.iter().enumerate().map(row));
            }
        }
        rows
    }
}

impl Level {
    /// The queue whose first request starts the earliest, and that one's width.
    fn next(&self) -> Option<(usize, u32)> {
        let heads = self.queues.iter().enumerate().filter_map(|(i, q)| q.waiting.front().map(|w| (w.start, w.ticket, i, w.width)));
        heads.min().map(|(_, _, queue, width)| (queue, width))
    }
}

/// The queues of a flow: `hand` different ones of `deck`, by the flow's hash (shuffle sharding).
fn deal(mut hash: u64, deck: usize, hand: usize) -> Vec<usize> {
    let mut dealt: Vec<usize> = Vec::with_capacity(hand.min(deck));
    for i in 0..hand.min(deck) {
        let remaining = (deck - i) as u64;
        let mut card = usize::try_from(hash % remaining).unwrap_or(0);
        hash /= remaining;
        // Cards that are gone are skipped, lowest first.
        for gone in &dealt {
            if *gone > card {
                break;
            }
            card += 1;
        }
        let place = dealt.partition_point(|d| *d < card);
        dealt.insert(place, card);
    }
    dealt
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(nominal: u32, lower: u32, upper: u32) -> Shape {
        Shape { nominal, lower, upper, queuing: Some(Queuing { queues: 8, hand: 2, length: 3 }) }
    }

    fn runs(arrival: &Arrival) -> bool {
        matches!(arrival, Arrival::Run(_))
    }

    #[test]
    fn hands_are_different_cards() {
        for hash in (0..5000u64).map(|i| i.wrapping_mul(0x9E37_79B9_7F4A_7C15)) {
            let hand = deal(hash, 16, 5);
            assert!(hand.len() == 5 && hand.windows(2).all(|w| w[0] < w[1]) && hand[4] < 16, "{hash} {hand:?}");
        }
        assert_eq!(deal(7, 1, 4), [0]);
    }

    #[test]
    fn seats_are_lent_but_never_the_last_ones() {
        let mut seats = Seats::new(10);
        let places = seats.configure(vec![("a".into(), shape(5, 2, 10)), ("b".into(), shape(5, 2, 10))]);
        let (a, b) = (places[0], places[1]);
        for _ in 0..8 {
            assert!(runs(&seats.arrive(a, 1, 1)));
        }
        let ninth = seats.arrive(a, 1, 1);
        assert!(!runs(&ninth), "two seats are b's whatever happens");
        assert!(runs(&seats.arrive(b, 2, 1)) && runs(&seats.arrive(b, 2, 1)));
        let Arrival::Wait { turn: mut bs, .. } = seats.arrive(b, 2, 1) else { panic!("b waits") };
        // The borrowed seat goes to whom it belongs to, though a waits longer.
        seats.leave(a, 1);
        assert!(bs.try_recv().is_ok());
        let Arrival::Wait { turn: mut turn_of_a, .. } = ninth else { panic!("a waits") };
        assert!(turn_of_a.try_recv().is_err());
    }

    #[test]
    fn a_loud_flow_does_not_starve_a_quiet_one() {
        let mut seats = Seats::new(1);
        let mut only = shape(1, 1, 1);
        only.queuing = Some(Queuing { queues: 64, hand: 1, length: 50 });
        let level = seats.configure(vec![("a".into(), only)])[0];
        assert!(runs(&seats.arrive(level, 0, 1)));
        let loud: Vec<_> = (0..20).map(|_| seats.arrive(level, 1, 1)).collect();
        let Arrival::Wait { turn: mut quiet, .. } = seats.arrive(level, 2, 1) else { panic!("waits") };
        seats.leave(level, 1);
        seats.leave(level, 1);
        assert!(quiet.try_recv().is_ok(), "second in line, behind one of the loud flow's");
        let seated = loud.into_iter().filter(|a| !runs(a)).filter_map(|a| match a {
            Arrival::Wait { mut turn, .. } => turn.try_recv().ok(),
            _ => None,
        });
        assert_eq!(seated.count(), 1);
    }

    #[test]
    fn who_gives_up_leaves_no_trace() {
        let mut seats = Seats::new(1);
        let level = seats.configure(vec![("a".into(), shape(1, 1, 1))])[0];
        assert!(runs(&seats.arrive(level, 0, 1)));
        let Arrival::Wait { ticket, .. } = seats.arrive(level, 0, 1) else { panic!("waits") };
        assert!(seats.give_up(level, ticket) && !seats.give_up(level, ticket));
        seats.leave(level, 1);
        assert!(runs(&seats.arrive(level, 0, 1)));
    }

    #[test]
    fn a_level_that_is_gone_is_emptied_and_its_place_used_again() {
        let mut seats = Seats::new(4);
        let a = seats.configure(vec![("a".into(), shape(1, 1, 1))])[0];
        assert!(runs(&seats.arrive(a, 0, 1)));
        let Arrival::Wait { mut turn, .. } = seats.arrive(a, 0, 1) else { panic!("waits") };
        let b = seats.configure(vec![("b".into(), shape(4, 1, 4))])[0];
        assert_ne!(a, b);
        seats.leave(a, 1);
        assert!(turn.try_recv().is_ok());
        seats.leave(a, 1);
        assert_eq!(seats.configure(vec![("b".into(), shape(4, 1, 4)), ("c".into(), shape(1, 1, 1))])[1], a);
    }
}
