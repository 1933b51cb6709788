//! Host names: what a pod is called, and its /etc/hosts. Pure.

use crate::pod::spec;
use std::fmt::Write;
use tiphys_types::api::core::v1::{HostAlias, Pod};

pub(crate) struct Names {
    pub(crate) host: String,
    /// Empty without a subdomain.
    pub(crate) domain: String,
}

impl Names {
    /// What the kernel is told: the short name, or the full one (setHostnameAsFQDN).
    pub(crate) fn kernel(&self, pod: &Pod) -> Result<String, String> {
        if spec::spec(pod).set_hostname_as_fqdn != Some(true) || self.domain.is_empty() {
            return Ok(self.host.clone());
        }
        let full = format!("{}.{}", self.host, self.domain);
        if full.len() > 64 {
            return Err(format!(
                "failed to construct FQDN from pod hostname and cluster domain, FQDN {full} is too long (64 characters is the max, {} characters requested)",
                full.len()
            ));
        }
        Ok(full)
    }
}

pub(crate) fn names(pod: &Pod, cluster_domain: &str) -> Names {
    let spec = spec::spec(pod);
    if let Some(name) = spec.hostname_override.as_deref() {
        return Names { host: truncated(name), domain: String::new() };
    }
    let host = truncated(spec.hostname.as_deref().filter(|h| !h.is_empty()).unwrap_or(spec::name(pod)));
    let subdomain = spec.subdomain.as_deref().filter(|s| !s.is_empty());
    let domain = subdomain.map(|s| format!("{s}.{}.svc.{cluster_domain}", spec::namespace(pod))).unwrap_or_default();
    Names { host, domain }
}

/// The kernel takes 63 bytes and a NUL.
fn truncated(name: &str) -> String {
    let end = name.len().min(63);
    if end == name.len() { name.to_owned() } else { name[..end].trim_end_matches(['-', '.']).to_owned() }
}

/// The file for a pod with addresses of its own.
pub(crate) fn managed(ips: &[String], names: &Names, aliases: &[HostAlias]) -> String {
    let mut out = String::from(
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
         fe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    for ip in ips {
        let host = &names.host;
        let _ =
            if names.domain.is_empty() { writeln!(out, "{ip}\t{host}") } else { writeln!(out, "{ip}\t{host}.{}\t{host}", names.domain) };
    }
    append_aliases(&mut out, aliases);
    out
}

/// The file for a pod on the host's network.
pub(crate) fn of_node(node_file: &str, aliases: &[HostAlias]) -> String {
    let mut out = format!("# Kubernetes-managed hosts file (host network).\n{node_file}");
    append_aliases(&mut out, aliases);
    out
}

fn append_aliases(out: &mut String, aliases: &[HostAlias]) {
    if aliases.is_empty() {
        return;
    }
    out.push_str("\n# Entries added by HostAliases.\n");
    for alias in aliases {
        let _ = writeln!(out, "{}\t{}", alias.ip, alias.hostnames.as_deref().unwrap_or_default().join("\t"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_managed_file() {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {"hostname": "h", "subdomain": "s",
            "setHostnameAsFQDN": true, "containers": []}}))
            .expect("a pod");
        let names = names(&pod, "cluster.local");
        assert_eq!(names.kernel(&pod).as_deref(), Ok("h.s.n.svc.cluster.local"));
        let aliases = [HostAlias { ip: "1.2.3.4".into(), hostnames: Some(vec!["a".into(), "b".into()]) }];
        let file = managed(&["10.0.0.1".into()], &names, &aliases);
        assert!(file.ends_with("10.0.0.1\th.s.n.svc.cluster.local\th\n\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"), "{file}");
    }
}
