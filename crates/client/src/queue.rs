use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::random;

pub trait QueueKey: Clone + Eq + Hash + Ord + Debug + Send + Sync + 'static {}
impl<K: Clone + Eq + Hash + Ord + Debug + Send + Sync + 'static> QueueKey for K {}

const FIRST_DELAY: Duration = Duration::from_millis(5);
const LONGEST_DELAY: Duration = Duration::from_secs(60);

/// Keys that wait to be worked on. A key stands in it once, however often it is added; while it is being worked on, adding it again makes it
/// come back after `done`. Two workers never hold the same key.
pub struct WorkQueue<K: QueueKey> {
    shared: Arc<Shared<K>>,
}

impl<K: QueueKey> Clone for WorkQueue<K> {
    fn clone(&self) -> Self {
        WorkQueue { shared: Arc::clone(&self.shared) }
    }
}

struct Shared<K> {
    state: Mutex<State<K>>,
    wake: Notify,
}

struct State<K> {
    ready: VecDeque<K>,
    waiting: HashSet<K>,
    working: HashSet<K>,
    delayed: BinaryHeap<Reverse<(Instant, K)>>,
    /// The earliest time that a delayed key is due at; later duplicates in the heap are passed over.
    due: HashMap<K, Instant>,
    failures: HashMap<K, u32>,
    closed: bool,
}

impl<K: QueueKey> Default for WorkQueue<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: QueueKey> WorkQueue<K> {
    pub fn new() -> Self {
        let state = State {
            ready: VecDeque::new(),
            waiting: HashSet::new(),
            working: HashSet::new(),
            delayed: BinaryHeap::new(),
            due: HashMap::new(),
            failures: HashMap::new(),
            closed: false,
        };
        WorkQueue { shared: Arc::new(Shared { state: Mutex::new(state), wake: Notify::new() }) }
    }

    pub fn add(&self, key: K) {
        let mut state = self.shared.state.lock();
        state.due.remove(&key);
        state.push(key);
        drop(state);
        self.shared.wake.notify_one();
    }

    pub fn add_after(&self, key: K, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        let at = Instant::now() + delay;
        let mut state = self.shared.state.lock();
        if state.due.get(&key).is_some_and(|due| *due <= at) {
            return;
        }
        state.due.insert(key.clone(), at);
        state.delayed.push(Reverse((at, key)));
        drop(state);
        self.shared.wake.notify_one();
    }

    /// Adds after a delay that doubles with every failure of this key.
    pub fn add_rate_limited(&self, key: K) {
        let failures = {
            let mut state = self.shared.state.lock();
            let count = state.failures.entry(key.clone()).or_insert(0);
            *count += 1;
            *count
        };
        let delay = FIRST_DELAY.saturating_mul(1u32 << (failures - 1).min(20)).min(LONGEST_DELAY);
        self.add_after(key, random::jitter(delay, 0.1));
    }

    /// The key went well: its next failure starts from the shortest delay.
    pub fn forget(&self, key: &K) {
        self.shared.state.lock().failures.remove(key);
    }

    pub fn failures(&self, key: &K) -> u32 {
        self.shared.state.lock().failures.get(key).copied().unwrap_or(0)
    }

    /// The next key; the caller owns it until `done`. None once the queue is closed.
    pub async fn get(&self) -> Option<K> {
        loop {
            let notified = self.shared.wake.notified();
            let next_due = {
                let mut state = self.shared.state.lock();
                if state.closed {
                    return None;
                }
                state.promote(Instant::now());
                if let Some(key) = state.take() {
                    let more = !state.ready.is_empty();
                    drop(state);
                    if more {
                        self.shared.wake.notify_one();
                    }
                    return Some(key);
                }
                state.delayed.peek().map(|Reverse((at, _))| *at)
            };
            match next_due {
                Some(at) => tokio::select! { () = notified => {}, () = tokio::time::sleep_until(at) => {} },
                None => notified.await,
            }
        }
    }

    pub fn done(&self, key: &K) {
        let mut state = self.shared.state.lock();
        state.working.remove(key);
        let again = state.waiting.contains(key);
        if again {
            state.ready.push_back(key.clone());
        }
        drop(state);
        if again {
            self.shared.wake.notify_one();
        }
    }

    pub fn close(&self) {
        self.shared.state.lock().closed = true;
        // Workers that have not yet begun to wait find a stored permit; each passes it on.
        self.shared.wake.notify_waiters();
        self.shared.wake.notify_one();
    }

    pub fn len(&self) -> usize {
        self.shared.state.lock().waiting.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<K: QueueKey> State<K> {
    fn push(&mut self, key: K) {
        if self.waiting.insert(key.clone()) && !self.working.contains(&key) {
            self.ready.push_back(key);
        }
    }

    fn promote(&mut self, now: Instant) {
        while let Some(Reverse((at, _))) = self.delayed.peek() {
            if *at > now {
                return;
            }
            let Some(Reverse((at, key))) = self.delayed.pop() else { return };
            if self.due.get(&key) == Some(&at) {
                self.due.remove(&key);
                self.push(key);
            }
        }
    }

    fn take(&mut self) -> Option<K> {
        let key = self.ready.pop_front()?;
        self.waiting.remove(&key);
        self.working.insert(key.clone());
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_stands_once_and_comes_back_when_added_while_worked_on() {
        let queue = WorkQueue::new();
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.get().await, Some("a"));
        assert!(queue.is_empty());
        queue.add("a");
        assert!(tokio::time::timeout(Duration::from_secs(1), queue.get()).await.is_err(), "held by a worker");
        queue.done(&"a");
        assert_eq!(queue.get().await, Some("a"));
        queue.done(&"a");
        assert!(tokio::time::timeout(Duration::from_secs(1), queue.get()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_delay_wins_and_an_add_cancels_it() {
        let queue = WorkQueue::new();
        let start = Instant::now();
        queue.add_after("a", Duration::from_secs(10));
        queue.add_after("a", Duration::from_secs(2));
        queue.add_after("a", Duration::from_secs(5));
        assert_eq!(queue.get().await, Some("a"));
        assert_eq!(start.elapsed().as_secs(), 2);
        queue.done(&"a");
        assert!(tokio::time::timeout(Duration::from_secs(60), queue.get()).await.is_err(), "came once");
        queue.add_after("b", Duration::from_secs(5));
        queue.add("b");
        assert_eq!(queue.get().await, Some("b"));
        queue.done(&"b");
        assert!(tokio::time::timeout(Duration::from_secs(60), queue.get()).await.is_err(), "the delayed add fell away");
    }

    #[tokio::test(start_paused = true)]
    async fn failures_double_the_delay_until_forgotten() {
        let queue = WorkQueue::new();
        let mut last = Duration::ZERO;
        for _ in 0..8 {
            let start = Instant::now();
            queue.add_rate_limited(1);
            queue.get().await;
            queue.done(&1);
            assert!(start.elapsed() > last);
            last = start.elapsed();
        }
        assert!(last >= Duration::from_millis(640));
        queue.forget(&1);
        assert_eq!(queue.failures(&1), 0);
    }

    #[tokio::test]
    async fn closing_wakes_every_worker() {
        let queue: WorkQueue<u8> = WorkQueue::new();
        let workers: Vec<_> = (0..4)
            .map(|_| {
                tokio::spawn({
                    let q = queue.clone();
                    async move { q.get().await }
                })
            })
            .collect();
        tokio::task::yield_now().await;
        queue.close();
        for worker in workers {
            assert_eq!(worker.await.ok().flatten(), None);
        }
    }
}
