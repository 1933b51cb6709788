//! Keys as upstream's storage factory makes them: `/registry/<prefix>/[<namespace>/]<name>`.

use bytes::Bytes;
use tiphys_store::KeyRange;

pub(crate) const ROOT: &str = "/registry/";

/// The prefix of a built-in resource. Only resources that kube-apiserver itself did not always serve stand under their group.
pub(crate) fn builtin_prefix(group: &str, resource: &str) -> String {
    let place = match (group, resource) {
        ("", "replicationcontrollers") => "controllers",
        ("", "endpoints") => "services/endpoints",
        ("", "nodes") => "minions",
        ("", "services") => "services/specs",
        ("networking.k8s.io", "ingresses") => "ingress",
        ("apiextensions.k8s.io" | "apiregistration.k8s.io", _) => return format!("{ROOT}{group}/{resource}/"),
        _ => resource,
    };
    format!("{ROOT}{place}/")
}

/// The prefix of a custom resource.
pub(crate) fn custom_prefix(group: &str, plural: &str) -> String {
    format!("{ROOT}{group}/{plural}/")
}

/// Everything that begins with `prefix`.
pub(crate) fn everything_under(prefix: &[u8]) -> KeyRange {
    KeyRange { start: Bytes::copy_from_slice(prefix), end: successor(prefix) }
}

/// The first key behind all that begin with `prefix`.
pub(crate) fn successor(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end.into();
        }
    }
    Bytes::from_static(&[0])
}

/// (namespace, name) of a key; for cluster-scoped resources the first is the last step of the prefix and means nothing.
pub(crate) fn split(key: &[u8]) -> (&str, &str) {
    let text = std::str::from_utf8(key).unwrap_or("");
    let (rest, name) = text.rsplit_once('/').unwrap_or(("", text));
    (rest.rsplit_once('/').map_or(rest, |(_, namespace)| namespace), name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_upstreams() {
        for (group, resource, want) in [
            ("", "pods", "/registry/pods/"),
            ("", "nodes", "/registry/minions/"),
            ("", "services", "/registry/services/specs/"),
            ("", "endpoints", "/registry/services/endpoints/"),
            ("apps", "deployments", "/registry/deployments/"),
            ("networking.k8s.io", "ingresses", "/registry/ingress/"),
            ("coordination.k8s.io", "leases", "/registry/leases/"),
            ("apiregistration.k8s.io", "apiservices", "/registry/apiregistration.k8s.io/apiservices/"),
        ] {
            assert_eq!(builtin_prefix(group, resource), want);
        }
    }

    #[test]
    fn a_range_ends_behind_its_prefix() {
        assert_eq!(successor(b"/registry/pods/"), &b"/registry/pods0"[..]);
        assert_eq!(successor(b"a\xff"), &b"b"[..]);
        assert_eq!(successor(b"\xff"), &[0][..]);
        assert_eq!(split(b"/registry/pods/ns/name"), ("ns", "name"));
    }
}
