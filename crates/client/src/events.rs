use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use serde_json::json;
use tiphys_base::Clock;
use tiphys_base::tasks::Tasks;
use tiphys_types::api::core::v1::{Event, EventSource, ObjectReference};
use tiphys_types::metav1::{ObjectMeta, Time};
use tokio::sync::mpsc;

use crate::Client;
use crate::object::{Kube, reference_to};
use crate::options::Patch;
use crate::plan::Note;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventType {
    Normal,
    Warning,
}

impl EventType {
    fn as_str(self) -> &'static str {
        match self {
            EventType::Normal => "Normal",
            EventType::Warning => "Warning",
        }
    }
}

/// Tells users what happened, as core v1 Events (the same objects as events.k8s.io; their old form is what `kubectl describe` reads).
///
/// It never makes its caller wait: events pass through a bounded channel and are dropped when the API server is slower than that. The numbers are
/// client-go's: an event that repeats raises a count instead of making an object; more than ten alike but for their message within ten minutes
/// become one "(combined from similar events)"; one object gets 25 at once and then one in five minutes.
#[derive(Clone)]
pub struct EventRecorder {
    sender: mpsc::Sender<Told>,
    dropped: Arc<AtomicU64>,
}

struct Told {
    about: ObjectReference,
    kind: EventType,
    reason: String,
    message: String,
}

const WAITING: usize = 2048;
const REMEMBERED: usize = 4096;
const BURST: f64 = 25.0;
const REFILL_PER_SECOND: f64 = 1.0 / 300.0;
const SIMILAR: usize = 10;
const SIMILAR_SECONDS: i64 = 600;

impl EventRecorder {
    /// `host` is empty but for agents of a node.
    pub fn new(client: Client, component: &'static str, host: &str, clock: Arc<dyn Clock>, tasks: &Tasks) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        let writer = Writer {
            client,
            source: EventSource { component: Some(component.to_owned()), host: Some(host.to_owned()).filter(|h| !h.is_empty()) },
            clock,
            known: HashMap::new(),
            similar: HashMap::new(),
            buckets: HashMap::new(),
            named: 0,
        };
        tasks.spawn("events", writer.run(receiver));
        EventRecorder { sender, dropped: Arc::default() }
    }

    pub fn normal<K: Kube>(&self, about: &K, reason: &str, message: impl Into<String>) {
        self.record(reference_to(about), EventType::Normal, reason, message);
    }

    pub fn warning<K: Kube>(&self, about: &K, reason: &str, message: impl Into<String>) {
        self.record(reference_to(about), EventType::Warning, reason, message);
    }

    pub fn record(&self, about: ObjectReference, kind: EventType, reason: &str, message: impl Into<String>) {
        let told = Told { about, kind, reason: reason.to_owned(), message: message.into() };
        if self.sender.try_send(told).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn note(&self, note: &Note) {
        let kind = if note.warning { EventType::Warning } else { EventType::Normal };
        self.record(note.about.clone(), kind, note.reason, note.message.clone());
    }

    /// How many events fell to a slow API server.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// What makes two events alike but for their message.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Group {
    kind: EventType,
    reason: String,
    uid: String,
    place: String,
    field: String,
}

struct Known {
    name: String,
    count: i32,
}

struct Similar {
    messages: std::collections::HashSet<String>,
    last: Timestamp,
}

struct Bucket {
    tokens: f64,
    at: Timestamp,
}

struct Writer {
    client: Client,
    source: EventSource,
    clock: Arc<dyn Clock>,
    known: HashMap<(Group, String), Known>,
    similar: HashMap<Group, Similar>,
    buckets: HashMap<String, Bucket>,
    /// The last name's number: names stay different within one tick of the clock.
    named: i128,
}

impl Writer {
    async fn run(mut self, mut receiver: mpsc::Receiver<Told>) {
        while let Some(told) = receiver.recv().await {
            self.write(told).await;
        }
    }

    async fn write(&mut self, mut told: Told) {
        let now = self.clock.now();
        let group = group_of(&told);
        let together = self.combine(&group, &mut told.message, now);
        if !self.allow(&group, now) {
            return;
        }
        // Combined events share one object whatever their message.
        let key = (group, if together { String::new() } else { told.message.clone() });
        let namespace = told.about.namespace.clone().filter(|n| !n.is_empty()).unwrap_or_else(|| "default".to_owned());
        if let Some(known) = self.known.get_mut(&key) {
            known.count += 1;
            let patch = json!({"count": known.count, "lastTimestamp": time(now), "message": told.message});
            match self.client.patch::<Event>(&namespace, &known.name, "", &Patch::Strategic(patch)).await {
                Ok(_) => return,
                // The server ages events out; this one begins anew.
                Err(error) if error.is_not_found() => {}
                Err(error) => return tracing::debug!(%error, "event not counted"),
            }
        }
        let event = self.event(told, &namespace, now);
        let name = event.metadata.name.clone().unwrap_or_default();
        match self.client.create(&event).await {
            Ok(_) => self.remember(key, name),
            Err(error) => tracing::debug!(%error, reason = event.reason, "event not written"),
        }
    }

    fn event(&mut self, told: Told, namespace: &str, now: Timestamp) -> Event {
        self.named = now.as_nanosecond().max(self.named + 1);
        let name = format!("{}.{:x}", told.about.name.as_deref().unwrap_or(""), self.named);
        Event {
            metadata: ObjectMeta { name: Some(name), namespace: Some(namespace.to_owned()), ..Default::default() },
            involved_object: told.about,
            type_: Some(told.kind.as_str().to_owned()),
            reason: Some(told.reason),
            message: Some(told.message),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            count: Some(1),
            source: Some(self.source.clone()),
            reporting_component: self.source.component.clone(),
            reporting_instance: self.source.host.clone(),
            ..Default::default()
        }
    }

    fn remember(&mut self, key: (Group, String), name: String) {
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        self.known.insert(key, Known { name, count: 1 });
    }

    /// True where the event joins the combined one of its group.
    fn combine(&mut self, group: &Group, message: &mut String, now: Timestamp) -> bool {
        if self.similar.len() >= REMEMBERED {
            self.similar.clear();
        }
        let similar = self.similar.entry(group.clone()).or_insert_with(|| Similar { messages: Default::default(), last: now });
        if now.as_second() - similar.last.as_second() > SIMILAR_SECONDS {
            similar.messages.clear();
        }
        similar.last = now;
        if similar.messages.contains(message) {
            return false;
        }
        if similar.messages.len() < SIMILAR {
            similar.messages.insert(message.clone());
            return false;
        }
        *message = format!("(combined from similar events): {message}");
        true
    }

    fn allow(&mut self, group: &Group, now: Timestamp) -> bool {
        if self.buckets.len() >= REMEMBERED {
            self.buckets.clear();
        }
        let bucket = self.buckets.entry(format!("{}/{}", group.place, group.uid)).or_insert(Bucket { tokens: BURST, at: now });
        let passed = (now.as_second() - bucket.at.as_second()).max(0) as f64;
        bucket.tokens = (bucket.tokens + passed * REFILL_PER_SECOND).min(BURST);
        bucket.at = now;
        if bucket.tokens < 1.0 {
            return false;
        }
        bucket.tokens -= 1.0;
        true
    }
}

fn group_of(told: &Told) -> Group {
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    let about = &told.about;
    Group {
        kind: told.kind,
        reason: told.reason.clone(),
        uid: text(&about.uid),
        place: format!("{}/{}/{}", text(&about.kind), text(&about.namespace), text(&about.name)),
        field: text(&about.field_path),
    }
}

fn time(at: Timestamp) -> serde_json::Value {
    serde_json::to_value(Time(at)).unwrap_or_default()
}
