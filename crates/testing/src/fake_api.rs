use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use http::Method;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tiphys_client::{Backend, Client, ClientError, EventType, Request, Response, WatchStream};
use tiphys_meta::{ApiError, FieldSelector, Gvr, LabelSelector, Reason, object};
use tokio::sync::mpsc;

/// An API server in memory, just real enough for clients of one: objects by path, one revision for all, lists, watches, optimistic locking,
/// finalizers, status apart from the rest, bindings. No validation, no defaults, no admission; a strategic patch is taken as a merge patch (with
/// `$deleteFromPrimitiveList`).
///
/// Times and uids are made from the revision, so that runs are alike.
#[derive(Clone, Default)]
pub struct FakeApi {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    revision: u64,
    objects: BTreeMap<(Gvr, String, String), Value>,
    watches: Vec<Watch>,
    /// Every write that was answered well, as `verb resource namespace/name`.
    log: Vec<String>,
    faults: Vec<Fault>,
}

struct Watch {
    gvr: Gvr,
    filter: Filter,
    sender: mpsc::UnboundedSender<(EventType, Bytes)>,
}

struct Fault {
    verb: &'static str,
    resource: String,
    error: ApiError,
    times: usize,
}

struct Place {
    gvr: Gvr,
    namespace: String,
    name: String,
    subresource: String,
    query: BTreeMap<String, String>,
}

struct Filter {
    namespace: String,
    labels: LabelSelector,
    fields: FieldSelector,
}

impl FakeApi {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn client(&self) -> Client {
        Client::new(Arc::new(self.clone()))
    }

    /// Puts an object there as if someone had created it, status and all.
    pub fn insert(&self, gvr: &Gvr, object: Value) -> Value {
        let mut state = self.state.lock();
        state.create(gvr, object, true).unwrap_or_else(|e| panic!("insert: {e}"))
    }

    pub fn get(&self, gvr: &Gvr, namespace: &str, name: &str) -> Option<Value> {
        self.state.lock().objects.get(&(gvr.clone(), namespace.to_owned(), name.to_owned())).cloned()
    }

    pub fn list(&self, gvr: &Gvr) -> Vec<Value> {
        self.state.lock().objects.iter().filter(|((g, _, _), _)| g == gvr).map(|(_, o)| o.clone()).collect()
    }

    /// Changes an object behind the clients' backs.
    pub fn change(&self, gvr: &Gvr, namespace: &str, name: &str, change: impl FnOnce(&mut Value)) {
        let mut state = self.state.lock();
        let Some(mut new) = state.objects.get(&(gvr.clone(), namespace.to_owned(), name.to_owned())).cloned() else {
            panic!("no {gvr} {namespace}/{name}");
        };
        change(&mut new);
        state.store(gvr, new);
    }

    /// The next `times` requests of this kind answer with `error`.
    pub fn fail(&self, verb: &'static str, resource: &str, times: usize, error: ApiError) {
        self.state.lock().faults.push(Fault { verb, resource: resource.to_owned(), error, times });
    }

    /// Ends all watches, as a restarting server would.
    pub fn end_watches(&self) {
        self.state.lock().watches.clear();
    }

    pub fn revision(&self) -> u64 {
        self.state.lock().revision
    }

    /// What was written since the last call.
    pub fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().log)
    }
}

#[async_trait]
impl Backend for FakeApi {
    async fn call(&self, request: Request) -> Result<Response, ClientError> {
        let place = Place::parse(&request.path)?;
        let (status, body) = match self.state.lock().answer(&request, &place) {
            Ok((status, body)) => (status, body),
            Err(error) => (error.code, error.to_status()),
        };
        Ok(Response { status, body: body.to_string().into(), warnings: Vec::new() })
    }

    async fn watch(&self, path: String) -> Result<WatchStream, ClientError> {
        let place = Place::parse(&path)?;
        let filter = Filter::of(&place)?;
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut state = self.state.lock();
        state.fault("watch", &place.gvr)?;
        let from: u64 = place.query.get("resourceVersion").and_then(|v| v.parse().ok()).unwrap_or(0);
        for object in state.objects.iter().filter(|((g, _, _), _)| *g == place.gvr).map(|(_, o)| o) {
            if filter.matches(object) && revision_of(object) > from {
                let _ = sender.send((EventType::Added, object.to_string().into()));
            }
        }
        state.watches.push(Watch { gvr: place.gvr, filter, sender });
        let stream = futures_util::stream::unfold(receiver, |mut r| async move { r.recv().await.map(|event| (Ok(event), r)) });
        Ok(stream.boxed())
    }
}

impl State {
    fn fault(&mut self, verb: &str, gvr: &Gvr) -> Result<(), ApiError> {
        let found = self.faults.iter_mut().find(|f| f.times > 0 && f.verb == verb && f.resource == gvr.resource);
        match found {
            Some(fault) => {
                fault.times -= 1;
                Err(fault.error.clone())
            }
            None => Ok(()),
        }
    }

    fn answer(&mut self, request: &Request, place: &Place) -> Result<(u16, Value), ApiError> {
        let verb = match (&request.method, place.name.is_empty()) {
            (&Method::GET, true) => "list",
            (&Method::GET, false) => "get",
            (&Method::POST, _) => "create",
            (&Method::PUT, _) => "update",
            (&Method::PATCH, _) => "patch",
            _ => "delete",
        };
        self.fault(verb, &place.gvr)?;
        let body = || serde_json::from_slice::<Value>(&request.body).map_err(|e| ApiError::bad_request(e.to_string()));
        let answer = match verb {
            "list" => return Ok((200, self.list(place)?)),
            "get" => return Ok((200, self.find(place)?.clone())),
            "create" => self.post(place, body()?)?,
            "update" => self.update(place, body()?)?,
            "patch" => self.patch(place, request.content_type, &body()?)?,
            _ => self.delete(place, &body().unwrap_or(Value::Null))?,
        };
        let sub = if place.subresource.is_empty() { String::new() } else { format!("/{}", place.subresource) };
        let (namespace, name) = (&place.namespace, if place.name.is_empty() { object::name(&answer) } else { &place.name });
        let slash = if namespace.is_empty() { "" } else { "/" };
        self.log.push(format!("{verb} {}{sub} {namespace}{slash}{name}", place.gvr.resource));
        Ok((if verb == "create" { 201 } else { 200 }, answer))
    }

    fn find(&self, place: &Place) -> Result<&Value, ApiError> {
        let key = (place.gvr.clone(), place.namespace.clone(), place.name.clone());
        self.objects.get(&key).ok_or_else(|| ApiError::not_found(&place.gvr, &place.name))
    }

    fn list(&self, place: &Place) -> Result<Value, ApiError> {
        let filter = Filter::of(place)?;
        let of_kind = self.objects.iter().filter(|((g, _, _), _)| *g == place.gvr).map(|(_, o)| o);
        let items: Vec<&Value> = of_kind.filter(|o| filter.matches(o)).collect();
        Ok(json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": self.revision.to_string()}, "items": items}))
    }

    fn post(&mut self, place: &Place, body: Value) -> Result<Value, ApiError> {
        match place.subresource.as_str() {
            "" => {
                let mut body = body;
                if !place.namespace.is_empty() {
                    object::meta_mut(&mut body).insert("namespace".into(), json!(place.namespace));
                }
                self.create(&place.gvr, body, false)
            }
            "binding" => {
                let mut pod = self.find(place)?.clone();
                pod["spec"]["nodeName"] = body["target"]["name"].clone();
                self.store(&place.gvr, pod);
                Ok(json!({"kind": "Status", "apiVersion": "v1", "status": "Success", "code": 201}))
            }
            "eviction" => {
                self.delete(place, &Value::Null)?;
                Ok(json!({"kind": "Status", "apiVersion": "v1", "status": "Success", "code": 201}))
            }
            other => Err(ApiError::new(Reason::NotFound, format!("no subresource {other}"))),
        }
    }

    fn create(&mut self, gvr: &Gvr, mut new: Value, with_status: bool) -> Result<Value, ApiError> {
        let next = self.revision + 1;
        let meta = object::meta_mut(&mut new);
        if !meta.contains_key("name") {
            let prefix = meta.get("generateName").and_then(Value::as_str).unwrap_or("").to_owned();
            meta.insert("name".into(), json!(format!("{prefix}{next:05}")));
        }
        meta.entry("uid").or_insert_with(|| json!(format!("uid-{next}")));
        meta.entry("creationTimestamp").or_insert_with(|| json!("2026-01-01T00:00:00Z"));
        meta.entry("generation").or_insert_with(|| json!(1));
        if !with_status {
            object::as_map(&mut new).remove("status");
        }
        let key = (gvr.clone(), object::namespace(&new).to_owned(), object::name(&new).to_owned());
        if self.objects.contains_key(&key) {
            return Err(ApiError::already_exists(gvr, &key.2));
        }
        Ok(self.store(gvr, new))
    }

    fn update(&mut self, place: &Place, mut new: Value) -> Result<Value, ApiError> {
        let old = self.find(place)?.clone();
        let sent = object::resource_version(&new);
        if !sent.is_empty() && sent != object::resource_version(&old) {
            let why = "the object has been modified; please apply your changes to the latest version and try again";
            return Err(ApiError::conflict(&place.gvr, &place.name, why));
        }
        keep_server_fields(&mut new, &old);
        if place.subresource == "status" {
            let status = new.get("status").cloned();
            new = old.clone();
            set(&mut new, "status", status);
        } else {
            let status = old.get("status").cloned();
            set(&mut new, "status", status);
        }
        Ok(self.replace(&place.gvr, &old, new))
    }

    fn patch(&mut self, place: &Place, content_type: &str, patch: &Value) -> Result<Value, ApiError> {
        if content_type.contains("json-patch") {
            return Err(ApiError::bad_request("the fake knows merge patches only"));
        }
        let old = self.find(place)?.clone();
        if let Some(uid) = patch.pointer("/metadata/uid")
            && *uid != old["metadata"]["uid"]
        {
            return Err(ApiError::conflict(&place.gvr, &place.name, "Precondition failed: UID in precondition"));
        }
        let mut new = old.clone();
        merge(&mut new, patch);
        keep_server_fields(&mut new, &old);
        Ok(self.replace(&place.gvr, &old, new))
    }

    /// Stores what differs; an update that changes nothing keeps its revision.
    fn replace(&mut self, gvr: &Gvr, old: &Value, mut new: Value) -> Value {
        if new == *old {
            return new;
        }
        if new.get("spec") != old.get("spec") {
            let generation = old["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
            object::meta_mut(&mut new).insert("generation".into(), json!(generation));
        }
        if object::deletion_timestamp(&new).is_some() && !has_finalizers(&new) {
            return self.remove(gvr, &new);
        }
        self.store(gvr, new)
    }

    fn delete(&mut self, place: &Place, options: &Value) -> Result<Value, ApiError> {
        let mut object = self.find(place)?.clone();
        let wanted = options.pointer("/preconditions/uid").and_then(Value::as_str);
        if wanted.is_some_and(|uid| uid != object::uid(&object)) {
            return Err(ApiError::conflict(&place.gvr, &place.name, "Precondition failed: UID in precondition"));
        }
        if !has_finalizers(&object) {
            return Ok(self.remove(&place.gvr, &object));
        }
        if object::deletion_timestamp(&object).is_none() {
            object::meta_mut(&mut object).insert("deletionTimestamp".into(), json!("2026-01-01T00:00:00Z"));
            object = self.store(&place.gvr, object);
        }
        Ok(object)
    }

    fn store(&mut self, gvr: &Gvr, mut object: Value) -> Value {
        self.revision += 1;
        object::meta_mut(&mut object).insert("resourceVersion".into(), json!(self.revision.to_string()));
        let key = (gvr.clone(), object::namespace(&object).to_owned(), object::name(&object).to_owned());
        let old = self.objects.insert(key, object.clone());
        self.tell(gvr, old.as_ref(), Some(&object), &object);
        object
    }

    fn remove(&mut self, gvr: &Gvr, object: &Value) -> Value {
        self.revision += 1;
        let key = (gvr.clone(), object::namespace(object).to_owned(), object::name(object).to_owned());
        let old = self.objects.remove(&key);
        let mut last = object.clone();
        object::meta_mut(&mut last).insert("resourceVersion".into(), json!(self.revision.to_string()));
        self.tell(gvr, old.as_ref(), None, &last);
        last
    }

    fn tell(&mut self, gvr: &Gvr, old: Option<&Value>, new: Option<&Value>, last: &Value) {
        let body = Bytes::from(last.to_string());
        self.watches.retain(|watch| {
            if watch.gvr != *gvr {
                return !watch.sender.is_closed();
            }
            let kind = match (old.is_some_and(|o| watch.filter.matches(o)), new.is_some_and(|o| watch.filter.matches(o))) {
                (false, true) => EventType::Added,
                (true, true) => EventType::Modified,
                (true, false) => EventType::Deleted,
                (false, false) => return !watch.sender.is_closed(),
            };
            watch.sender.send((kind, body.clone())).is_ok()
        });
    }
}

fn set(object: &mut Value, field: &str, value: Option<Value>) {
    match value {
        Some(value) => object::as_map(object).insert(field.into(), value),
        None => object::as_map(object).remove(field),
    };
}

fn keep_server_fields(new: &mut Value, old: &Value) {
    for field in ["uid", "resourceVersion", "creationTimestamp", "generation", "deletionTimestamp"] {
        let kept = old["metadata"].get(field).cloned();
        match kept {
            Some(value) => object::meta_mut(new).insert(field.into(), value),
            None => object::meta_mut(new).remove(field),
        };
    }
}

fn has_finalizers(object: &Value) -> bool {
    object.pointer("/metadata/finalizers").and_then(Value::as_array).is_some_and(|f| !f.is_empty())
}

fn revision_of(object: &Value) -> u64 {
    object::resource_version(object).parse().unwrap_or(0)
}

/// RFC 7386.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    let target = object::as_map(target);
    for (name, value) in patch {
        if let (Some(field), Value::Array(gone)) = (name.strip_prefix("$deleteFromPrimitiveList/"), value) {
            if let Some(Value::Array(list)) = target.get_mut(field) {
                list.retain(|v| !gone.contains(v));
            }
        } else if value.is_null() {
            target.remove(name);
        } else {
            merge(target.entry(name).or_insert(Value::Null), value);
        }
    }
}

impl Filter {
    fn of(place: &Place) -> Result<Self, ApiError> {
        let text = |name: &str| place.query.get(name).map_or("", String::as_str);
        Ok(Filter {
            namespace: place.namespace.clone(),
            labels: LabelSelector::parse(text("labelSelector")).map_err(|e| ApiError::bad_request(e.to_string()))?,
            fields: FieldSelector::parse(text("fieldSelector")).map_err(|e| ApiError::bad_request(e.to_string()))?,
        })
    }

    fn matches(&self, object: &Value) -> bool {
        let field = |path: &str| Some(object.pointer(&format!("/{}", path.replace('.', "/"))).and_then(Value::as_str).unwrap_or(""));
        (self.namespace.is_empty() || self.namespace == object::namespace(object))
            && self.labels.matches_object(object)
            && self.fields.matches(field)
    }
}

impl Place {
    fn parse(path: &str) -> Result<Self, ClientError> {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let mut parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let (group, version) = match parts.first() {
            Some(&"api") if parts.len() >= 3 => {
                parts.remove(0);
                (String::new(), parts.remove(0).to_owned())
            }
            Some(&"apis") if parts.len() >= 4 => {
                parts.remove(0);
                (parts.remove(0).to_owned(), parts.remove(0).to_owned())
            }
            _ => return Err(ApiError::new(Reason::NotFound, format!("no such path {path}")).into()),
        };
        let mut namespace = String::new();
        if parts[0] == "namespaces" && parts.len() >= 3 && !matches!(parts[2], "status" | "finalize") {
            namespace = parts[1].to_owned();
            parts.drain(..2);
        }
        let part = |n: usize| parts.get(n).copied().unwrap_or("").to_owned();
        let decode = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
        let query = query.split('&').filter_map(|p| p.split_once('=')).map(|(k, v)| (k.to_owned(), decode(v))).collect();
        Ok(Place { gvr: Gvr::new(group, version, part(0)), namespace, name: part(1), subresource: part(2), query })
    }
}
