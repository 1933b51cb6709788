use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::cycle::Nominated;
use super::plugin::{ClusterEvent, Point};
use super::pod_info::PodInfo;
use super::profile::Profile;

/// Upstream's podInitialBackoffSeconds, podMaxBackoffSeconds and podMaxInUnschedulablePodsDuration.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// Pods without a node, in three places: ready to be tried (by priority, then age), backing off, and waiting for a change of the cluster that
/// one of the plugins that refused them thinks may help. Time comes by argument; waking is the caller's.
///
/// With nothing ready, a pod that backs off only because it did not fit is taken early (KEP-5142): back-off protects others, and there are none.
pub struct Queue {
    profile: Arc<Profile>,
    pods: HashMap<String, Queued>,
    ready: BTreeSet<(Reverse<i32>, Instant, u64, String)>,
    backoff: BTreeMap<(Instant, u64), String>,
    /// By when they began to wait.
    waiting: BTreeSet<(Instant, String)>,
    /// Being tried: the event number they started at.
    in_flight: HashMap<String, u64>,
    /// Events that a pod in flight may have missed.
    recent: VecDeque<(u64, ClusterEvent)>,
    events: u64,
    sequence: u64,
    nominated: Nominated,
}

#[derive(Clone)]
pub struct Queued {
    pub info: Arc<PodInfo>,
    pub attempts: u32,
    /// When it was last put into the queue: its age among equals.
    since: Instant,
    place: Place,
    refused_by: Vec<&'static str>,
    /// The last try failed by an error, not by the cluster's state.
    failed: bool,
}

#[derive(Clone, PartialEq)]
enum Place {
    Ready(u64),
    Backoff(Instant, u64),
    Waiting,
    /// PreEnqueue holds it.
    Gated,
    InFlight,
}

impl Queue {
    pub fn new(profile: Arc<Profile>) -> Self {
        Queue {
            profile,
            pods: HashMap::new(),
            ready: BTreeSet::new(),
            backoff: BTreeMap::new(),
            waiting: BTreeSet::new(),
            in_flight: HashMap::new(),
            recent: VecDeque::new(),
            events: 0,
            sequence: 0,
            nominated: Nominated::new(),
        }
    }

    pub fn nominated(&self) -> &Nominated {
        &self.nominated
    }

    pub fn add(&mut self, info: Arc<PodInfo>, now: Instant) {
        let uid = info.uid().to_owned();
        self.nominate(&info);
        let queued = Queued { info, attempts: 0, since: now, place: Place::Gated, refused_by: Vec::new(), failed: false };
        self.pods.insert(uid.clone(), queued);
        self.make_ready(&uid, now);
    }

    /// A pod that waits has changed (or is seen for the first time).
    pub fn update(&mut self, info: Arc<PodInfo>, now: Instant) {
        let uid = info.uid().to_owned();
        let Some(queued) = self.pods.get_mut(&uid) else { return self.add(info, now) };
        let event = ClusterEvent::PodChanged { old: Arc::clone(&queued.info), new: Arc::clone(&info) };
        queued.info = Arc::clone(&info);
        self.nominate(&info);
        match self.pods[&uid].place {
            Place::InFlight => self.note(&event),
            Place::Gated => self.make_ready(&uid, now),
            Place::Ready(_) | Place::Backoff(..) => {}
            Place::Waiting if self.may_help(&uid, &event) => self.back_off(&uid, now),
            Place::Waiting => {}
        }
    }

    pub fn remove(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        self.take_out(uid);
        self.settle(uid);
        self.unnominate(uid);
        Some(self.pods.remove(uid)?.info)
    }

    /// The next pod to try; it stays known, in flight, until `remove` or `refuse`.
    pub fn pop(&mut self, now: Instant) -> Option<Queued> {
        self.wake_up(now);
        let uid = match self.ready.pop_first() {
            Some((.., uid)) => uid,
            None => {
                let early = self.backoff.iter().find(|(_, uid)| self.pods.get(*uid).is_some_and(|q| !q.failed));
                let (at, uid) = early.map(|(at, uid)| (*at, uid.clone()))?;
                self.backoff.remove(&at);
                uid
            }
        };
        let queued = self.pods.get_mut(&uid)?;
        queued.place = Place::InFlight;
        queued.attempts += 1;
        let queued = queued.clone();
        self.in_flight.insert(uid, self.events);
        Some(queued)
    }

    /// When there will be something to do though nothing happens.
    pub fn next_deadline(&self) -> Option<Instant> {
        let backoff = self.backoff.keys().next().map(|(at, _)| *at);
        let waiting = self.waiting.first().map(|(since, _)| *since + LONGEST_WAIT);
        backoff.into_iter().chain(waiting).min()
    }

    pub fn is_in_flight(&self, uid: &str) -> bool {
        self.in_flight.contains_key(uid)
    }

    /// A try has failed. `failed`: by an error, so that it is tried again after the back-off without waiting for an event.
    pub fn refuse(&mut self, uid: &str, refused_by: Vec<&'static str>, failed: bool, now: Instant) {
        let started = self.in_flight.get(uid).copied().unwrap_or(self.events);
        let Some(queued) = self.pods.get_mut(uid) else { return self.settle(uid) };
        if queued.place != Place::InFlight {
            return;
        }
        queued.refused_by = refused_by;
        queued.failed = failed;
        queued.since = now;
        queued.place = Place::Waiting;
        self.waiting.insert((now, uid.to_owned()));
        let (info, refused_by) = (Arc::clone(&queued.info), queued.refused_by.clone());
        let missed = self.recent.iter().filter(|(at, _)| *at > started);
        let helped = missed.into_iter().any(|(_, event)| self.profile.may_help(event, &info, &refused_by));
        self.settle(uid);
        if failed || helped {
            self.back_off(uid, now);
        }
    }

    /// Tells of a change; pods that it may help move on. True if any did.
    pub fn happened(&mut self, event: &ClusterEvent, now: Instant) -> bool {
        let helped: Vec<String> = self.waiting.iter().filter(|(_, uid)| self.may_help(uid, event)).map(|(_, uid)| uid.clone()).collect();
        for uid in &helped {
            self.back_off(uid, now);
        }
        self.note(event);
        !helped.is_empty()
    }

    fn note(&mut self, event: &ClusterEvent) {
        self.events += 1;
        if !self.in_flight.is_empty() {
            self.recent.push_back((self.events, event.clone()));
        }
    }

    fn may_help(&self, uid: &str, event: &ClusterEvent) -> bool {
        self.pods.get(uid).is_some_and(|q| self.profile.may_help(event, &q.info, &q.refused_by))
    }

    /// Back-off counts from the last try: a pod that has waited long is ready at once.
    fn back_off(&mut self, uid: &str, now: Instant) {
        let Some(queued) = self.pods.get_mut(uid) else { return };
        let doublings = queued.attempts.saturating_sub(1).min(10);
        let until = queued.since + FIRST_BACKOFF.saturating_mul(1 << doublings).min(LONGEST_BACKOFF);
        if until <= now {
            return self.make_ready(uid, now);
        }
        self.sequence += 1;
        self.waiting.remove(&(queued.since, uid.to_owned()));
        queued.place = Place::Backoff(until, self.sequence);
        self.backoff.insert((until, self.sequence), uid.to_owned());
    }

    fn make_ready(&mut self, uid: &str, now: Instant) {
        self.take_out(uid);
        let Some(queued) = self.pods.get_mut(uid) else { return };
        let held = self.profile.at(Point::PreEnqueue).any(|(_, p)| p.pre_enqueue(&queued.info).is_err());
        if held {
            queued.place = Place::Gated;
            return;
        }
        self.sequence += 1;
        queued.place = Place::Ready(self.sequence);
        queued.since = now;
        self.ready.insert((Reverse(queued.info.priority()), now, self.sequence, uid.to_owned()));
    }

    /// Back-offs that are over, and pods that have waited too long for an event that perhaps was missed.
    fn wake_up(&mut self, now: Instant) {
        while let Some(((at, _), uid)) = self.backoff.first_key_value() {
            if *at > now {
                break;
            }
            let uid = uid.clone();
            self.make_ready(&uid, now);
        }
        while let Some((since, uid)) = self.waiting.first() {
            if *since + LONGEST_WAIT > now {
                break;
            }
            let uid = uid.clone();
            self.make_ready(&uid, now);
        }
    }

    fn take_out(&mut self, uid: &str) {
        let Some(queued) = self.pods.get(uid) else { return };
        match queued.place {
            Place::Ready(sequence) => {
                self.ready.remove(&(Reverse(queued.info.priority()), queued.since, sequence, uid.to_owned()));
            }
            Place::Backoff(at, sequence) => {
                self.backoff.remove(&(at, sequence));
            }
            Place::Waiting => {
                self.waiting.remove(&(queued.since, uid.to_owned()));
            }
            Place::Gated | Place::InFlight => {}
        }
    }

    fn settle(&mut self, uid: &str) {
        self.in_flight.remove(uid);
        if self.in_flight.is_empty() {
            self.recent.clear();
        }
    }

    /// Keeps room on the node that preemption chose for the pod.
    pub fn nominate(&mut self, info: &Arc<PodInfo>) {
        self.unnominate(info.uid());
        if !info.nominated_node().is_empty() {
            self.nominated.entry(info.nominated_node().to_owned()).or_default().push(Arc::clone(info));
        }
    }

    pub fn unnominate(&mut self, uid: &str) {
        self.nominated.retain(|_, pods| {
            pods.retain(|p| p.uid() != uid);
            !pods.is_empty()
        });
    }
}
