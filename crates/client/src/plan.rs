use std::time::Duration;

use serde_json::Value;
use tiphys_meta::Gvr;
use tiphys_types::api::core::v1::ObjectReference;

use crate::ClientError;
use crate::object::{Kube, ObjectKey, gvr_of};
use crate::options::{DeleteOptions, Patch};

/// What a pure deciding function wants done. Steps run in order; the first failure ends them.
#[derive(Default)]
pub struct Plan {
    pub steps: Vec<Step>,
    /// Written after all steps went well.
    pub notes: Vec<Note>,
    pub requeue_after: Option<Duration>,
    /// What is left to do when a step failed: a status that says so.
    pub if_failed: Option<AfterFailure>,
}

pub type AfterFailure = Box<dyn FnOnce(&ClientError) -> Vec<Action> + Send>;

#[allow(clippy::large_enum_variant, reason = "most steps are one action, and a plan has few")]
pub enum Step {
    One(Action),
    /// Actions of one sort that do not depend on each other: run side by side in waves of 1, 2, 4, 8, …; a wave with a failure is the last,
    /// so that a full quota costs one refused request and not five hundred.
    Burst(Vec<Action>),
}

/// One write, with the events to tell of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Action {
    pub verb: Verb,
    pub gvr: Gvr,
    pub key: ObjectKey,
    pub done: Option<Note>,
    pub failed: Option<Note>,
    /// What was to be made exists, or what was to be changed or deleted is gone: that is as good as done.
    pub settled_is_fine: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Verb {
    Create {
        object: Value,
    },
    /// The object carries its resourceVersion. `subresource` empty: the object itself.
    Update {
        object: Value,
        subresource: &'static str,
    },
    Patch {
        patch: Patch,
        subresource: &'static str,
    },
    Delete {
        options: DeleteOptions,
    },
    /// POST to a subresource.
    Post {
        subresource: &'static str,
        object: Value,
    },
}

impl PartialEq for DeleteOptions {
    fn eq(&self, other: &Self) -> bool {
        (self.grace_period_seconds, self.propagation_policy, &self.preconditions.uid, &self.preconditions.resource_version)
            == (other.grace_period_seconds, other.propagation_policy, &other.preconditions.uid, &other.preconditions.resource_version)
    }
}

/// An event to tell: in `message`, `{name}` stands for the name that the server gave, `{error}` for its refusal.
#[derive(Debug, Clone, PartialEq)]
pub struct Note {
    pub about: ObjectReference,
    pub warning: bool,
    pub reason: &'static str,
    pub message: String,
}

impl Note {
    pub fn normal(about: &ObjectReference, reason: &'static str, message: impl Into<String>) -> Self {
        Note { about: about.clone(), warning: false, reason, message: message.into() }
    }

    pub fn warning(about: &ObjectReference, reason: &'static str, message: impl Into<String>) -> Self {
        Note { about: about.clone(), warning: true, reason, message: message.into() }
    }
}

impl Action {
    fn new(verb: Verb, gvr: Gvr, key: ObjectKey) -> Self {
        Action { verb, gvr, key, done: None, failed: None, settled_is_fine: false }
    }

    pub fn create<K: Kube>(object: &K) -> Self {
        Action::new(Verb::Create { object: value_of(object) }, gvr_of::<K>(), ObjectKey::of(object))
    }

    pub fn update<K: Kube>(object: &K) -> Self {
        Action::new(Verb::Update { object: value_of(object), subresource: "" }, gvr_of::<K>(), ObjectKey::of(object))
    }

    pub fn update_status<K: Kube>(object: &K) -> Self {
        Action::new(Verb::Update { object: value_of(object), subresource: "status" }, gvr_of::<K>(), ObjectKey::of(object))
    }

    /// The object as `change` makes it, if nobody else has written it meanwhile.
    pub fn update_with<K: Kube>(object: &K, change: impl FnOnce(&mut K)) -> Self {
        let mut next = object.clone();
        change(&mut next);
        Action::update(&next)
    }

    /// `subresource` empty: the object itself.
    pub fn patch<K: Kube>(object: &K, subresource: &'static str, patch: Patch) -> Self {
        Action::new(Verb::Patch { patch, subresource }, gvr_of::<K>(), ObjectKey::of(object))
    }

    /// Deletes this very object, not a later one of its name. Gone already is fine.
    pub fn delete<K: Kube>(object: &K) -> Self {
        Action::delete_with(object, DeleteOptions::default())
    }

    pub fn delete_with<K: Kube>(object: &K, mut options: DeleteOptions) -> Self {
        options.preconditions.uid.clone_from(&object.metadata().uid);
        let mut action = Action::new(Verb::Delete { options }, gvr_of::<K>(), ObjectKey::of(object));
        action.settled_is_fine = true;
        action
    }

    pub fn post<K: Kube>(object: &K, subresource: &'static str, body: Value) -> Self {
        Action::new(Verb::Post { subresource, object: body }, gvr_of::<K>(), ObjectKey::of(object))
    }

    #[must_use]
    pub fn say_when_done(mut self, note: Note) -> Self {
        self.done = Some(note);
        self
    }

    #[must_use]
    pub fn say_when_failed(mut self, note: Note) -> Self {
        self.failed = Some(note);
        self
    }

    #[must_use]
    pub fn or_settled(mut self) -> Self {
        self.settled_is_fine = true;
        self
    }
}

fn value_of<K: Kube>(object: &K) -> Value {
    // Typed kinds hold only strings as map keys, which is all that could fail here.
    serde_json::to_value(object).unwrap_or(Value::Null)
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.steps.iter().all(|s| matches!(s, Step::Burst(actions) if actions.is_empty()))
    }

    pub fn act(&mut self, action: Action) {
        self.steps.push(Step::One(action));
    }

    pub fn burst(&mut self, actions: Vec<Action>) {
        if !actions.is_empty() {
            self.steps.push(Step::Burst(actions));
        }
    }

    pub fn note(&mut self, note: Note) {
        self.notes.push(note);
    }

    /// The soonest of what was asked for.
    pub fn again_after(&mut self, delay: Duration) {
        self.requeue_after = Some(self.requeue_after.map_or(delay, |d| d.min(delay)));
    }

    /// Nothing is written where nothing changed.
    pub fn update_status_if_changed<K: Kube + PartialEq>(&mut self, old: &K, new: &K) {
        if old != new {
            self.act(Action::update_status(new));
        }
    }

    /// All actions in the order they are begun.
    pub fn actions(&self) -> impl Iterator<Item = &Action> {
        self.steps.iter().flat_map(|step| match step {
            Step::One(action) => std::slice::from_ref(action),
            Step::Burst(actions) => actions,
        })
    }

    /// One line per action, for tables and golden traces.
    pub fn summary(&self) -> Vec<String> {
        self.actions().map(Action::summary).collect()
    }
}

impl Action {
    pub fn summary(&self) -> String {
        let (verb, subresource) = match &self.verb {
            Verb::Create { .. } => ("create", ""),
            Verb::Update { subresource, .. } => ("update", *subresource),
            Verb::Patch { subresource, .. } => ("patch", *subresource),
            Verb::Delete { .. } => ("delete", ""),
            Verb::Post { subresource, .. } => ("post", *subresource),
        };
        let slash = if subresource.is_empty() { "" } else { "/" };
        format!("{verb} {}{slash}{subresource} {}", self.gvr.resource, self.key)
    }
}
