use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tiphys_client::{Action, Note, Plan};
use tiphys_meta::LabelSelector;
use tiphys_types::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetStatus};
use tiphys_types::api::core::v1::{Node, Pod};
use tiphys_types::owners::controller_reference;
use tiphys_types::pods::{self, Availability};
use tiphys_types::selector;

use super::pods_for::{Wanted, pod_for, target, wanted};
use super::rolling;
use crate::shared::claim::Claim;
use crate::shared::history::{self, History};
use crate::shared::pod;

pub(super) struct Observed {
    pub(super) set: Arc<DaemonSet>,
    pub(super) candidates: Vec<Arc<Pod>>,
    pub(super) nodes: Vec<Arc<Node>>,
    pub(super) revisions: Vec<Arc<ControllerRevision>>,
    pub(super) neighbours: Vec<Arc<ControllerRevision>>,
}

/// How often pods of one set have failed on one node, and when the next may be tried: a pod that fails at once must not be remade in a circle.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tries {
    delay: i64,
    next: i64,
}

/// A set with its pods by node.
pub(super) struct View<'a> {
    pub(super) set: &'a DaemonSet,
    pub(super) by_node: BTreeMap<String, Vec<Arc<Pod>>>,
    pub(super) nodes: &'a [Arc<Node>],
    pub(super) hash: String,
    pub(super) now: Timestamp,
}

impl View<'_> {
    pub(super) fn min_ready(&self) -> i32 {
        self.set.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0)
    }

    pub(super) fn is_available(&self, pod: &Pod) -> bool {
        pods::is_available(pod, self.min_ready(), self.now)
    }

    pub(super) fn is_new(&self, pod: &Pod) -> bool {
        pod.metadata.labels.as_ref().and_then(|l| l.get(history::HASH)) == Some(&self.hash)
    }

    pub(super) fn on(&self, node: &Node) -> &[Arc<Pod>] {
        self.by_node.get(node.metadata.name.as_deref().unwrap_or("")).map_or(&[], Vec::as_slice)
    }
}

pub(super) fn plan(observed: &Observed, tries: &mut HashMap<(String, String), Tries>, now: Timestamp) -> Plan {
    let set = &observed.set;
    let mut plan = Plan::default();
    let chosen = selector::from_typed(set.spec.as_ref().map(|s| &s.selector)).unwrap_or(LabelSelector::Nothing);
    if chosen.is_everything() {
        plan.note(Note::warning(
            &pod::about(&**set),
            "SelectingAll",
            "This daemon set is selecting all pods. A non-empty selector is required.",
        ));
        return plan;
    }
    if set.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let reference = controller_reference::<DaemonSet>(&set.metadata);
    let claimed = Claim { owner: &set.metadata, reference, selector: &chosen }.sort(observed.candidates.clone(), |_| true);
    plan.burst(claimed.actions);
    let history = history_of(observed);
    if history.collides {
        plan.act(Action::update_status(&with_collision(set)));
        return plan;
    }
    let is_new_revision = !history.actions.is_empty();
    history.actions.iter().cloned().for_each(|a| plan.act(a));
    let mut by_node: BTreeMap<String, Vec<Arc<Pod>>> = BTreeMap::new();
    for pod in &claimed.objects {
        by_node.entry(target(pod).unwrap_or_default()).or_default().push(Arc::clone(pod));
    }
    let view = View { set, by_node, nodes: &observed.nodes, hash: history.hash().to_owned(), now };
    let managed = manage(&view, tries, &mut plan);
    if !managed && !is_new_revision {
        rolling::step(&view, &mut plan);
        let limit = set.spec.as_ref().and_then(|s| s.revision_history_limit).unwrap_or(10);
        let live = |r: &ControllerRevision| {
            let hash = r.metadata.labels.as_ref().and_then(|l| l.get(history::HASH));
            claimed.objects.iter().any(|p| p.metadata.labels.as_ref().and_then(|l| l.get(history::HASH)) == hash)
        };
        plan.burst(history.surplus(limit, live));
    }
    plan.update_status_if_changed(&**set, &with_counts(&view));
    plan
}

fn history_of(observed: &Observed) -> History {
    let set = &observed.set;
    let template = set.spec.as_ref().map(|s| s.template.clone()).unwrap_or_default();
    let owner = history::Owner {
        meta: &set.metadata,
        reference: controller_reference::<DaemonSet>(&set.metadata),
        template: &template,
        collisions: set.status.as_ref().and_then(|s| s.collision_count),
        label: history::HASH,
    };
    history::sync(&owner, observed.revisions.clone(), &observed.neighbours)
}

/// Missing pods come, failed and surplus ones go. True where anything does.
fn manage(view: &View<'_>, tries: &mut HashMap<(String, String), Tries>, plan: &mut Plan) -> bool {
    let about = pod::about(view.set);
    let (mut create, mut delete) = (Vec::new(), Vec::new());
    for node in view.nodes {
        let name = node.metadata.name.as_deref().unwrap_or("");
        let (wants, there) = (wanted(view.set, node), view.on(node));
        match wants {
            Wanted::Run if there.is_empty() => create.push(pod::create(&pod_for(view.set, name, &view.hash), &about)),
            Wanted::Run | Wanted::Stay => tidy(view, name, there, tries, &mut delete, plan),
            Wanted::Never => delete.extend(there.iter().filter(|p| !pods::is_terminating(p)).map(|p| pod::delete(p, &about))),
        }
    }
    // Pods for nodes that are gone were never placed, so no kubelet and no collector sees to them.
    for (name, there) in &view.by_node {
        if !view.nodes.iter().any(|n| n.metadata.name.as_ref() == Some(name)) {
            let unplaced = there.iter().filter(|p| pods::node_name(p).is_empty() && !pods::is_terminating(p));
            delete.extend(unplaced.map(|p| pod::delete(p, &about)));
        }
    }
    let any = !create.is_empty() || !delete.is_empty();
    plan.burst(delete);
    plan.burst(create);
    any
}

fn tidy(
    view: &View<'_>,
    node: &str,
    there: &[Arc<Pod>],
    tries: &mut HashMap<(String, String), Tries>,
    delete: &mut Vec<Action>,
    plan: &mut Plan,
) {
    let about = pod::about(view.set);
    let mut running = Vec::new();
    for pod in there.iter().filter(|p| !pods::is_terminating(p)) {
        let name = pod.metadata.name.as_deref().unwrap_or("");
        match pods::phase(pod) {
            "Failed" => {
                if let Some(wait) = too_soon(view, node, tries) {
                    plan.again_after(wait);
                    continue;
                }
                plan.note(Note::warning(
                    &about,
                    "FailedDaemonPod",
                    format!(
                        "Found failed daemon pod {}/{name} on node {node}, will try to kill it",
                        view.set.metadata.namespace.as_deref().unwrap_or("")
                    ),
                ));
                delete.push(pod::delete(pod, &about));
            }
            "Succeeded" => {
                plan.note(Note::normal(
                    &about,
                    "SucceededDaemonPod",
                    format!(
                        "Found succeeded daemon pod {}/{name} on node {node}, will try to delete it",
                        view.set.metadata.namespace.as_deref().unwrap_or("")
                    ),
                ));
                delete.push(pod::delete(pod, &about));
            }
            _ => running.push(Arc::clone(pod)),
        }
    }
    // With a surge two may be there: one old and one new.
    let (new, old): (Vec<_>, Vec<_>) = running.into_iter().partition(|p| rolling::surges(view.set) && view.is_new(p));
    for mut group in [new, old] {
        group
            .sort_by_key(|p| (pods::node_name(p).is_empty(), p.metadata.creation_timestamp.as_ref().map(|t| t.0), p.metadata.name.clone()));
        delete.extend(group.iter().skip(1).map(|p| pod::delete(p, &about)));
    }
}

fn too_soon(view: &View<'_>, node: &str, tries: &mut HashMap<(String, String), Tries>) -> Option<Duration> {
    let key = (view.set.metadata.uid.clone().unwrap_or_default(), node.to_owned());
    let now = view.now.as_second();
    let entry = tries.entry(key).or_insert(Tries { delay: 1, next: now });
    if entry.next > now {
        return Some(Duration::from_secs((entry.next - now) as u64));
    }
    // A long quiet time forgives.
    entry.delay = if now - entry.next > 2 * entry.delay.max(60) { 1 } else { (entry.delay * 2).min(900) };
    entry.next = now + entry.delay;
    None
}

fn with_collision(set: &DaemonSet) -> DaemonSet {
    let mut next = set.clone();
    let status = next.status.get_or_insert_default();
    status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
    next
}

fn with_counts(view: &View<'_>) -> DaemonSet {
    let old = view.set.status.clone().unwrap_or_default();
    let mut n = DaemonSetStatus {
        observed_generation: view.set.metadata.generation,
        collision_count: old.collision_count,
        conditions: old.conditions,
        ..Default::default()
    };
    let (mut available, mut updated) = (0, 0);
    for node in view.nodes {
        let there = view.on(node);
        if wanted(view.set, node) != Wanted::Run {
            n.number_misscheduled += i32::from(!there.is_empty());
            continue;
        }
        n.desired_number_scheduled += 1;
        // The oldest is the one that counts.
        let oldest = there.iter().min_by_key(|p| p.metadata.creation_timestamp.as_ref().map(|t| t.0));
        n.current_number_scheduled += i32::from(oldest.is_some());
        let ready = there.iter().find(|p| pods::is_ready(p) && !pods::is_terminating(p));
        n.number_ready += i32::from(ready.is_some());
        available += i32::from(ready.is_some_and(|p| view.is_available(p)));
        updated += i32::from(there.iter().any(|p| view.is_new(p)));
    }
    n.number_available = Some(available).filter(|c| *c != 0);
    n.updated_number_scheduled = Some(updated).filter(|c| *c != 0);
    n.number_unavailable = Some(n.desired_number_scheduled - available).filter(|c| *c != 0);
    DaemonSet { status: Some(n), ..view.set.clone() }
}

/// When pods that are ready will count as available.
pub(super) fn wait_for_ready(view: &View<'_>, plan: &mut Plan) {
    for pod in view.by_node.values().flatten() {
        if let Availability::In(seconds) = pods::availability(pod, view.min_ready(), view.now) {
            plan.again_after(Duration::from_secs(u64::try_from(seconds).unwrap_or(1)));
        }
    }
}
