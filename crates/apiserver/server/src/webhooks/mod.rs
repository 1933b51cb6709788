//! Admission webhooks: whose rules and selectors fit a write is asked, in the order of the configurations' names; mutating ones one after
//! the other on what the one before left, validating ones all at once. A webhook's Service is resolved to an endpoint here, so that nothing depends
//! on the host's packet rules.
//!
//! Absent: AdmissionReview v1beta1.

mod call;
mod equivalent;
mod hook;
mod notes;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tiphys_base::meters::{Family, head};
use tiphys_meta::{ApiError, Gvk, Gvr, object};
use tiphys_registry::{About, Authorizer, Conditions, Registry, Review, UserInfo, Write, requested_kind};

use crate::objects::{Objects, known};
use crate::streams::Dialer;
use hook::Hook;

/// In the keys of audit annotations.
const NOTES: &str = "webhook.admission.k8s.io/";

/// How long a conversion may take, as upstream's.
const CONVERSION_SECONDS: u64 = 30;

pub struct Webhooks {
    objects: Arc<dyn Objects>,
    dialer: Arc<Dialer>,
    authorizer: Option<Arc<dyn Authorizer>>,
    /// Compiled match conditions, by their text.
    conditions: Mutex<HashMap<String, Arc<Conditions>>>,
    /// How long each takes.
    took: Family,
    /// Knows the versions of custom resources. It holds this, so this does not hold it.
    registry: Weak<Registry>,
}

/// Upper bounds in seconds, upstream's.
const TOOK: &[f64] = &[0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 25.0];

/// When there are more, they are compiled anew as they are needed.
const MAX_CONDITIONS: usize = 1024;

/// What webhooks are told of a request.
pub(crate) struct Told<'a> {
    /// `CREATE`, `UPDATE`, `DELETE`, `CONNECT`.
    pub(crate) operation: &'static str,
    pub(crate) kind: Gvk,
    pub(crate) gvr: &'a Gvr,
    /// In the version of the request.
    pub(crate) requested: &'a Gvr,
    /// `CreateOptions` and its like.
    pub(crate) options: &'a Value,
    pub(crate) subresource: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    pub(crate) user: &'a UserInfo,
    pub(crate) dry_run: bool,
    pub(crate) old: Option<&'a Value>,
}

impl Webhooks {
    pub fn new(objects: Arc<dyn Objects>, dialer: Arc<Dialer>, authorizer: Option<Arc<dyn Authorizer>>, registry: Weak<Registry>) -> Self {
        Webhooks { objects, dialer, authorizer, conditions: Mutex::default(), took: Family::new(TOOK), registry }
    }

    fn hooks(&self, gvr: &Gvr) -> Vec<Hook> {
        let mut configurations = self.objects.list(gvr, "");
        configurations.sort_by_key(|c| object::name(c).to_owned());
        configurations.iter().flat_map(|c| Hook::all_of(c)).collect()
    }

    /// Whether the hook is to hear of this; an error where that cannot be known.
    fn concerns(&self, hook: &Hook, told: &Told<'_>, object: Option<&Value>) -> Result<bool, ApiError> {
        if self.home(hook, told).is_none() {
            return Ok(false);
        }
        let selected = self.namespace_selected(hook, told, object) && hook.object_selected(object, told.old);
        if !selected {
            return Ok(false);
        }
        if !self.conditions_hold(hook, told, object)? {
            return Ok(false);
        }
        if told.dry_run && !hook.dry_run_safe {
            return Err(ApiError::bad_request(format!("admission webhook {:?} does not support dry run", hook.name)));
        }
        Ok(true)
    }

    fn conditions_hold(&self, hook: &Hook, told: &Told<'_>, object: Option<&Value>) -> Result<bool, ApiError> {
        if hook.conditions.is_empty() {
            return Ok(true);
        }
        let key = serde_json::to_string(&hook.conditions).unwrap_or_default();
        let known = self.conditions.lock().get(&key).cloned();
        let conditions = known.unwrap_or_else(|| {
            let compiled = Arc::new(Conditions::of_webhook(&hook.conditions));
            let mut all = self.conditions.lock();
            if all.len() >= MAX_CONDITIONS {
                all.clear();
            }
            all.insert(key, compiled.clone());
            compiled
        });
        let Told { operation, kind, gvr, requested, options, subresource, namespace, name, user, dry_run, old } = told;
        let review = Review { operation, kind, gvr, subresource, namespace, name, user, dry_run: *dry_run, requested, options };
        match conditions.hold(review, object, *old, self.authorizer.clone()) {
            Ok(held) => Ok(held),
            Err(why) if hook.fails_open => {
                tracing::warn!(webhook = hook.name, why, "a webhook whose match conditions fail is passed over");
                Ok(false)
            }
            Err(why) => Err(ApiError::forbidden(gvr, name, &why)),
        }
    }

    fn namespace_selected(&self, hook: &Hook, told: &Told<'_>, object: Option<&Value>) -> bool {
        let is_namespace = told.gvr.group.is_empty() && told.gvr.resource == "namespaces";
        if is_namespace {
            return hook.namespace_selected(object.or(told.old).unwrap_or(&Value::Null));
        }
        if told.namespace.is_empty() {
            return true;
        }
        let namespace = self.objects.get(&known::NAMESPACES, "", told.namespace);
        hook.namespace_selected(namespace.as_deref().unwrap_or(&Value::Null))
    }

    async fn mutate_told(&self, told: &Told<'_>, object: &Value, about: &About<'_>) -> Result<Option<Value>, ApiError> {
        let hooks = self.hooks(&known::MUTATING_WEBHOOKS);
        let mut current: Option<Value> = None;
        let mut again: HashSet<usize> = HashSet::new();
        for round in 0..2 {
            for (place, hook) in hooks.iter().enumerate() {
                let seen = current.as_ref().unwrap_or(object);
                if (round == 1 && !again.contains(&place)) || !self.concerns(hook, told, Some(seen))? {
                    continue;
                }
                let at = format!("round_{round}_index_{place}");
                let patched = self.mutate_one(hook, told, seen, about, &at).await;
                let changed = matches!(&patched, Ok(Some(patched)) if patched != seen);
                about.notes.add(|| format!("mutation.{NOTES}{at}"), || notes::mutation(hook, changed));
                let Some(patched) = patched? else { continue };
                // Earlier webhooks that want to see what later ones did are asked once more (`reinvocationPolicy: IfNeeded`).
                if round == 0 {
                    again.extend((0..place).filter(|p| hooks[*p].reinvoked));
                }
                current = Some(patched);
            }
        }
        Ok(current)
    }

    async fn mutate_one(
        &self,
        hook: &Hook,
        told: &Told<'_>,
        object: &Value,
        about: &About<'_>,
        at: &str,
    ) -> Result<Option<Value>, ApiError> {
        match self.timed(hook, told, Some(object), "admit").await {
            Ok(answer) => {
                let Some(patch) = heard(answer, about)? else { return Ok(None) };
                let patched = self.patched(hook, told, object, &patch).await.map_err(|why| hook.failed(&why))?;
                about.notes.add_body(|| format!("patch.{NOTES}{at}"), || notes::patch(hook, &patch));
                Ok(Some(patched))
            }
            Err(why) if hook.fails_open => {
                tracing::warn!(webhook = hook.name, why, "a failing webhook is passed over");
                about.notes.add(|| format!("failed-open.mutation.{NOTES}{at}"), || hook.name.clone());
                Ok(None)
            }
            Err(why) => Err(hook.failed(&why)),
        }
    }

    async fn validate_told(&self, told: &Told<'_>, object: Option<&Value>, about: &About<'_>) -> Result<(), ApiError> {
        let hooks = self.hooks(&known::VALIDATING_WEBHOOKS);
        let mut asked = Vec::new();
        for hook in &hooks {
            if self.concerns(hook, told, object)? {
                asked.push(async move { (hook, self.timed(hook, told, object, "validating").await) });
            }
        }
        for (place, (hook, answer)) in futures_util::future::join_all(asked).await.into_iter().enumerate() {
            match answer {
                Ok(answer) => {
                    heard(answer, about)?;
                }
                Err(why) if hook.fails_open => {
                    tracing::warn!(webhook = hook.name, why, "a failing webhook is passed over");
                    about.notes.add(|| format!("failed-open.validating.{NOTES}round_0_index_{place}"), || hook.name.clone());
                }
                Err(why) => return Err(hook.failed(&why)),
            }
        }
        Ok(())
    }

    async fn timed(&self, hook: &Hook, told: &Told<'_>, object: Option<&Value>, kind: &str) -> Result<hook::Answer, String> {
        let begun = tokio::time::Instant::now();
        let answer = self.ask(hook, told, object).await;
        let rejected = answer.as_ref().map_or(!hook.fails_open, |a| a.refusal.is_some());
        let labels = format!("name={:?},operation={:?},rejected=\"{rejected}\",type={kind:?}", hook.name, told.operation);
        self.took.observe(labels, begun.elapsed());
        answer
    }

    pub(crate) fn metrics(&self, out: &mut String) {
        const NAME: &str = "apiserver_admission_webhook_admission_duration_seconds";
        head(out, NAME, "histogram", "Time that an admission webhook takes.");
        self.took.write(out, NAME);
    }

    async fn ask(&self, hook: &Hook, told: &Told<'_>, object: Option<&Value>) -> Result<hook::Answer, String> {
        let uid = crate::tokens::new_uuid();
        let review = match self.heard(hook, told, object).await? {
            Some(heard) => heard.review(told, &uid),
            None => review(told, object, &uid),
        };
        let said = call::post(self.objects.as_ref(), &self.dialer, hook, review.to_string()).await?;
        hook.read(&said, &uid)
    }
}

/// Takes what an answer says besides its patch; a refusal ends the request.
fn heard(answer: hook::Answer, about: &About<'_>) -> Result<Option<Vec<u8>>, ApiError> {
    for (key, value) in answer.annotations {
        about.notes.add(|| key, || value);
    }
    about.warnings.lock().extend(answer.warnings);
    answer.refusal.map_or(Ok(answer.patch), Err)
}

/// The AdmissionReview that is sent (`admission.k8s.io/v1`).
fn review(told: &Told<'_>, object: Option<&Value>, uid: &str) -> Value {
    let kind = json!({"group": told.kind.group, "version": told.kind.version, "kind": told.kind.kind});
    let resource = json!({"group": told.gvr.group, "version": told.gvr.version, "resource": told.gvr.resource});
    let asked = requested_kind(&told.kind, told.gvr, told.requested);
    let asked_kind = json!({"group": asked.group, "version": asked.version, "kind": asked.kind});
    let Gvr { group, version, resource: name } = told.requested;
    let mut request = json!({
        "uid": uid, "kind": kind, "resource": resource,
        "requestKind": asked_kind, "requestResource": {"group": group, "version": version, "resource": name},
        "operation": told.operation, "userInfo": crate::reviews::user_value(told.user),
        "object": object, "oldObject": told.old, "dryRun": told.dry_run, "options": told.options,
    });
    for (field, value) in
        [("name", told.name), ("namespace", told.namespace), ("subResource", told.subresource), ("requestSubResource", told.subresource)]
    {
        if !value.is_empty() {
            request[field] = json!(value);
        }
    }
    json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request})
}

fn told<'a>(write: &'a Write<'a>, about: &'a About<'a>) -> Told<'a> {
    let some = write.object.or(write.old).unwrap_or(&Value::Null);
    let text = |field: &str| some.get(field).and_then(Value::as_str).unwrap_or("").to_owned();
    Told {
        operation: write.operation.as_str(),
        kind: Gvk::from_api_version(&text("apiVersion"), &text("kind")),
        gvr: write.gvr,
        requested: write.requested,
        options: &about.options,
        subresource: write.subresource,
        namespace: write.namespace,
        name: write.name,
        user: about.user,
        dry_run: about.dry_run,
        old: write.old,
    }
}

#[async_trait::async_trait]
impl tiphys_registry::Webhooks for Webhooks {
    async fn mutate(&self, write: &Write<'_>, about: &About<'_>) -> Result<Option<Value>, ApiError> {
        match write.object {
            Some(object) => self.mutate_told(&told(write, about), object, about).await,
            None => Ok(None),
        }
    }

    async fn validate(&self, write: &Write<'_>, about: &About<'_>) -> Result<(), ApiError> {
        self.validate_told(&told(write, about), write.object, about).await
    }

    async fn convert(&self, client: &Value, review: &Value) -> Result<Value, String> {
        let said = call::send(self.objects.as_ref(), &self.dialer, client, CONVERSION_SECONDS, review.to_string()).await?;
        serde_json::from_slice(&said).map_err(|e| e.to_string())
    }
}
