use jiff::Timestamp;
use serde_json::Value;
use tiphys_meta::Quantity;
use tiphys_types::quota;
use tiphys_types::resources::{self, ResourceList};

/// Objects of one resource in the quota's namespace.
pub(super) struct Kept {
    pub(super) group: String,
    pub(super) resource: String,
    pub(super) objects: Objects,
}

pub(super) enum Objects {
    /// What is taken depends on what they say.
    Whole(Vec<Value>),
    /// Each takes one.
    Number(usize),
}

/// What the quota counts of all this; zero where it finds nothing.
pub(super) fn usage(spec: &Value, all: &[Kept], now: Timestamp) -> ResourceList {
    let hard: Vec<&str> = spec["hard"].as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    let mut used = ResourceList::new();
    for kept in all {
        let (group, resource) = (kept.group.as_str(), kept.resource.as_str());
        let tracked = quota::tracked(group, resource, hard.iter().copied());
        let mut mine: ResourceList = tracked.iter().map(|name| ((*name).to_owned(), Quantity::ZERO)).collect();
        let mut charge = |object: &Value, times: usize| {
            if !quota::in_scope(spec, group, resource, object) {
                return;
            }
            let taken = quota::usage(group, resource, object, now);
            for _ in 0..times {
                resources::add(&mut mine, &taken);
            }
        };
        match &kept.objects {
            Objects::Whole(objects) => objects.iter().for_each(|o| charge(o, 1)),
            Objects::Number(number) => charge(&Value::Null, *number),
        }
        mine.retain(|name, _| tracked.contains(&name.as_str()));
        used.extend(mine);
    }
    used
}

/// Group and resource that `count/deployments.apps` counts.
pub(super) fn counted(name: &str) -> Option<(&str, &str)> {
    let rest = name.strip_prefix("count/")?;
    Some(rest.split_once('.').map_or(("", rest), |(resource, group)| (group, resource)))
}
