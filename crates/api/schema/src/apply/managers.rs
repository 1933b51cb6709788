//! `metadata.managedFields`, decoded: who owns which fields.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::set::Set;
use super::walk::Comparison;

/// What tells managers apart. For appliers the version does not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Manager {
    name: String,
    operation: Operation,
    api_version: String,
    subresource: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Apply,
    Update,
}

/// What one manager owns. Sets are read from what is written when they are asked for: most writes touch nobody else's.
#[derive(Debug, Clone)]
pub(super) struct Owned {
    set: OnceCell<Set>,
    pub(super) api_version: String,
    pub(super) time: Option<String>,
    /// `fieldsV1` as it was read, as long as it says what the set says.
    written: Option<Value>,
}

impl Owned {
    pub(super) fn new(set: Set, api_version: String, time: Option<String>) -> Owned {
        Owned { set: OnceCell::from(set), api_version, time, written: None }
    }

    pub(super) fn written(fields: Option<Value>, api_version: String, time: Option<String>) -> Owned {
        Owned { set: OnceCell::new(), api_version, time, written: fields }
    }

    pub(super) fn set(&self) -> &Set {
        self.set.get_or_init(|| self.written.as_ref().map(Set::decode).unwrap_or_default())
    }

    pub(super) fn change(&mut self, change: impl FnOnce(&mut Set)) {
        let mut set = match self.set.take() {
            Some(set) => set,
            None => self.written.as_ref().map(Set::decode).unwrap_or_default(),
        };
        change(&mut set);
        self.set = OnceCell::from(set);
        self.written = None;
    }

    /// Gives up what somebody else changed or removed.
    pub(super) fn lose(&mut self, comparison: &Comparison) {
        for gone in [&comparison.modified, &comparison.added, &comparison.removed] {
            let touched = match &self.written {
                Some(fields) => gone.meets(fields),
                None => true,
            };
            if touched {
                self.change(|set| {
                    set.remove_all(gone, false);
                });
            }
        }
    }

    fn is_empty(&self) -> bool {
        match &self.written {
            Some(Value::Object(fields)) if !fields.is_empty() => false,
            _ => self.set().is_empty(),
        }
    }

    /// `fieldsV1`.
    fn into_fields(self) -> Value {
        match self.written {
            Some(fields) => fields,
            None => self.set.into_inner().unwrap_or_default().encode(),
        }
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Managed {
    pub(super) entries: BTreeMap<Manager, Owned>,
}

impl Manager {
    pub(super) fn new(name: &str, operation: Operation, api_version: &str, subresource: &str) -> Manager {
        Manager {
            name: if name.is_empty() { "unknown".to_owned() } else { name.to_owned() },
            operation,
            api_version: if operation == Operation::Apply { String::new() } else { api_version.to_owned() },
            subresource: subresource.to_owned(),
        }
    }

    fn is_of(&self, entry: &Value) -> bool {
        let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or("");
        let operation = if self.operation == Operation::Apply { "Apply" } else { "Update" };
        text("manager") == self.name
            && text("operation") == operation
            && text("subresource") == self.subresource
            && (self.operation == Operation::Apply || text("apiVersion") == self.api_version)
    }

    /// As conflicts name it.
    pub(super) fn printed(&self) -> String {
        let mut text = format!("{:?}", self.name);
        if !self.subresource.is_empty() {
            text += &format!(" with subresource {:?}", self.subresource);
        }
        if self.operation == Operation::Update {
            text += &format!(" using {}", self.api_version);
        }
        text
    }
}

impl Managed {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn drop_empty(&mut self) {
        self.entries.retain(|_, owned| !owned.is_empty());
    }

    /// `None` where an entry is not as it must be.
    pub(super) fn decode(fields: Option<&Value>) -> Option<Managed> {
        Managed::take(fields.cloned())
    }

    /// The same, of what nobody needs any more.
    pub(super) fn take(fields: Option<Value>) -> Option<Managed> {
        let mut managed = Managed::default();
        let list = match fields {
            None | Some(Value::Null) => return Some(managed),
            Some(Value::Array(list)) => list,
            Some(_) => return None,
        };
        for mut entry in list {
            let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or("");
            let operation = match text("operation") {
                "Apply" => Operation::Apply,
                "Update" => Operation::Update,
                _ => return None,
            };
            if text("apiVersion").is_empty() || text("fieldsType") != "FieldsV1" {
                return None;
            }
            let mut id = Manager::new(text("manager"), operation, text("apiVersion"), text("subresource"));
            id.name = text("manager").to_owned();
            let (api_version, time) = (text("apiVersion").to_owned(), entry.get("time").and_then(Value::as_str).map(str::to_owned));
            let fields = entry.get_mut("fieldsV1").map(Value::take);
            managed.entries.insert(id, Owned::written(fields, api_version, time));
        }
        Some(managed)
    }

    /// The entries in upstream's order: by operation, time, name, version, subresource.
    pub(super) fn encode(self) -> Option<Value> {
        if self.entries.is_empty() {
            return None;
        }
        let mut entries: Vec<(Manager, Owned)> = self.entries.into_iter().collect();
        entries.sort_by(|(a, x), (b, y)| {
            fn key<'k>(m: &'k Manager, o: &'k Owned) -> (Operation, &'k Option<String>, [&'k str; 3]) {
                (m.operation, &o.time, [&m.name, &o.api_version, &m.subresource])
            }
            key(a, x).cmp(&key(b, y))
        });
        Some(entries.into_iter().map(|(id, owned)| encode_entry(id, owned)).collect())
    }

    /// Gathers the oldest updates of each version under one name, until no more than `most` managers have updated.
    pub(super) fn cap(&mut self, most: usize, bucket: &str) {
        let mut updaters: Vec<(Option<String>, Manager)> = self
            .entries
            .iter()
            .filter(|(id, _)| id.operation == Operation::Update)
            .map(|(id, owned)| (owned.time.clone(), id.clone()))
            .collect();
        let mut length = updaters.len();
        if length <= most {
            return;
        }
        updaters.sort();
        let mut first_of: BTreeMap<String, Manager> = BTreeMap::new();
        for (_, id) in updaters {
            if length <= most {
                break;
            }
            let version = id.api_version.clone();
            let Some(first) = first_of.get(&version) else {
                first_of.insert(version, id);
                continue;
            };
            let target = Manager::new(bucket, Operation::Update, &version, "");
            if !self.entries.contains_key(&target)
                && let Some(owned) = self.entries.remove(first)
            {
                self.entries.insert(target.clone(), owned);
            }
            if let Some(owned) = self.entries.remove(&id)
                && let Some(gathered) = self.entries.get_mut(&target)
            {
                gathered.change(|set| set.absorb(owned.set().clone()));
                gathered.time = owned.time;
                length -= 1;
            }
        }
    }
}

/// The entries as they are but for the manager's time, if the change gives nobody anything and takes nothing from anybody. `None`: it does.
pub(super) fn refresh(fields: &Value, id: &Manager, comparison: &Comparison, gained: &Set, now: &str) -> Option<Value> {
    let entries = fields.as_array().filter(|list| !list.is_empty() && list.len() <= 10)?;
    fn fields_of(entry: &Value) -> &Value {
        entry.get("fieldsV1").unwrap_or(&Value::Null)
    }
    let changed = comparison.modified.union(&comparison.added);
    let mut own = None;
    for (i, entry) in entries.iter().enumerate() {
        let is_own = id.is_of(entry);
        let lost = comparison.removed.meets(fields_of(entry)) || (!is_own && changed.meets(fields_of(entry)));
        if lost {
            return None;
        }
        if is_own {
            own = Some(i);
        }
    }
    if gained.is_empty() {
        return Some(fields.clone());
    }
    let own = own.filter(|i| gained.is_within(fields_of(&entries[*i])))?;
    let mut entries = entries.clone();
    entries[own]["time"] = json!(now);
    entries.sort_by(|a, b| order_of(a).cmp(&order_of(b)));
    Some(Value::Array(entries))
}

/// What entries are sorted by: operation, time, name, version, subresource.
fn order_of(entry: &Value) -> [&str; 5] {
    ["operation", "time", "manager", "apiVersion", "subresource"].map(|field| entry.get(field).and_then(Value::as_str).unwrap_or(""))
}

fn encode_entry(id: Manager, owned: Owned) -> Value {
    let operation = if id.operation == Operation::Apply { "Apply" } else { "Update" };
    let mut entry = Map::new();
    for (field, text) in [("manager", id.name), ("apiVersion", owned.api_version.clone()), ("subresource", id.subresource)] {
        if !text.is_empty() {
            entry.insert(field.into(), Value::String(text));
        }
    }
    if let Some(time) = &owned.time {
        entry.insert("time".into(), json!(time));
    }
    entry.insert("operation".into(), json!(operation));
    entry.insert("fieldsType".into(), json!("FieldsV1"));
    entry.insert("fieldsV1".into(), owned.into_fields());
    Value::Object(entry)
}
