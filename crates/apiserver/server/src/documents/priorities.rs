//! In which order groups and versions stand in discovery: the priorities of the APIServices that stand for what is built in.

/// Group, its priority, and those of its versions.
type Row = (&'static str, i64, &'static [(&'static str, i64)]);

/// `apiregistration.k8s.io` has no APIService of its own: who registers cannot be registered away.
const ROWS: [Row; 22] = [
    ("", 18000, &[("v1", 1)]),
    ("apps", 17800, &[("v1", 15)]),
    ("events.k8s.io", 17750, &[("v1", 15)]),
    ("authentication.k8s.io", 17700, &[("v1", 15)]),
    ("authorization.k8s.io", 17600, &[("v1", 15)]),
    ("autoscaling", 17500, &[("v2", 30), ("v1", 15)]),
    ("batch", 17400, &[("v1", 15)]),
    ("certificates.k8s.io", 17300, &[("v1", 15), ("v1beta1", 9), ("v1alpha1", 1)]),
    ("networking.k8s.io", 17200, &[("v1", 15), ("v1beta1", 9)]),
    ("policy", 17100, &[("v1", 15)]),
    ("rbac.authorization.k8s.io", 17000, &[("v1", 15)]),
    ("storage.k8s.io", 16800, &[("v1", 15), ("v1beta1", 9), ("v1alpha1", 1)]),
    ("apiextensions.k8s.io", 16700, &[("v1", 15)]),
    ("admissionregistration.k8s.io", 16700, &[("v1", 15), ("v1beta1", 12), ("v1alpha1", 9)]),
    ("scheduling.k8s.io", 16600, &[("v1", 15), ("v1alpha2", 2)]),
    ("coordination.k8s.io", 16500, &[("v1", 15), ("v1beta1", 13), ("v1alpha2", 12)]),
    ("node.k8s.io", 16300, &[("v1", 15)]),
    ("discovery.k8s.io", 16200, &[("v1", 15)]),
    ("resource.k8s.io", 16200, &[("v1", 21), ("v1beta2", 15), ("v1beta1", 9), ("v1alpha3", 1)]),
    ("flowcontrol.apiserver.k8s.io", 16100, &[("v1", 21)]),
    ("internal.apiserver.k8s.io", 16000, &[("v1alpha1", 9)]),
    ("storagemigration.k8s.io", 15800, &[("v1beta1", 9)]),
];

/// As metrics-server registers its group. There is no APIService of ours for it: helm refuses to install a chart whose objects are there already,
/// and metrics-server's chart brings this one.
const METRICS: i64 = 100;

pub(super) fn of_group(name: &str) -> i64 {
    match name {
        "apiregistration.k8s.io" => return 20000,
        "metrics.k8s.io" => return METRICS,
        _ => {}
    }
    ROWS.iter().find(|(group, ..)| *group == name).map_or(1000, |(_, priority, _)| *priority)
}

/// The priorities of a built-in version; none for what has no APIService.
pub(crate) fn of_version(group: &str, version: &str) -> Option<(i64, i64)> {
    let (_, of_group, versions) = ROWS.iter().find(|(name, ..)| *name == group)?;
    let (_, of_version) = versions.iter().find(|(name, _)| *name == version)?;
    Some((*of_group, *of_version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_built_in_has_its_place() {
        for group in
            tiphys_schema::discovery::builtin().iter().filter(|g| !matches!(g.name.as_str(), "apiregistration.k8s.io" | "metrics.k8s.io"))
        {
            for version in &group.versions {
                assert!(of_version(&group.name, &version.version).is_some(), "{} {}", group.name, version.version);
            }
        }
    }
}
