//! What a pod's resolv.conf says, from its dnsPolicy and dnsConfig, the cluster's DNS and the node's file. Pure.

use crate::pod::spec;
use tiphys_cri::DnsConfig;
use tiphys_types::api::core::v1::{Pod, PodDNSConfig};

#[derive(Debug, Clone, Default)]
pub(crate) struct ClusterDns {
    pub(crate) servers: Vec<String>,
    pub(crate) domain: String,
}

const MAX_SERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARACTERS: usize = 2048;

pub(crate) fn config(pod: &Pod, cluster: &ClusterDns, node_file: &str) -> DnsConfig {
    let policy = spec::spec(pod).dns_policy.as_deref().unwrap_or("ClusterFirst");
    let on_host = spec::host_network(pod);
    let mut config = match policy {
        "None" => DnsConfig::default(),
        "ClusterFirstWithHostNet" => of_cluster(pod, cluster, node_file),
        "ClusterFirst" if !on_host => of_cluster(pod, cluster, node_file),
        _ => of_node(node_file),
    };
    if let Some(own) = &spec::spec(pod).dns_config {
        append(&mut config, own);
    }
    limit(&mut config);
    config
}

fn of_cluster(pod: &Pod, cluster: &ClusterDns, node_file: &str) -> DnsConfig {
    let mut config = of_node(node_file);
    if cluster.servers.is_empty() {
        return config;
    }
    config.servers = cluster.servers.clone();
    if !cluster.domain.is_empty() {
        let domain = &cluster.domain;
        let own = [format!("{}.svc.{domain}", spec::namespace(pod)), format!("svc.{domain}"), domain.clone()];
        let searches: Vec<String> = own.into_iter().chain(config.searches).collect();
        config.searches = distinct(searches);
    }
    config.options = vec!["ndots:5".into()];
    config
}

/// resolv.conf(5); the last `search` and `options` win, comments and blank lines do not count.
pub(crate) fn of_node(text: &str) -> DnsConfig {
    let mut config = DnsConfig::default();
    for line in text.lines().map(|l| l.split(['#', ';']).next().unwrap_or_default()) {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => config.servers.extend(words.next().map(str::to_owned)),
            Some("search") => {
                config.searches = words.map(|w| if w == "." { w.into() } else { w.trim_end_matches('.').to_owned() }).collect()
            }
            Some("options") => config.options = words.map(str::to_owned).collect(),
            _ => {}
        }
    }
    config
}

fn append(config: &mut DnsConfig, own: &PodDNSConfig) {
    config.servers.extend(own.nameservers.iter().flatten().cloned());
    config.servers = distinct(std::mem::take(&mut config.servers));
    config.searches.extend(own.searches.iter().flatten().cloned());
    config.searches = distinct(std::mem::take(&mut config.searches));
    for option in own.options.iter().flatten() {
        let Some(name) = option.name.as_deref() else { continue };
        let text = option.value.as_deref().map_or_else(|| name.to_owned(), |value| format!("{name}:{value}"));
        let same = |o: &String| o.split(':').next() == Some(name);
        config.options.retain(|o| !same(o));
        config.options.push(text);
    }
}

fn distinct(list: Vec<String>) -> Vec<String> {
    let mut out: Vec<String> = Vec::with_capacity(list.len());
    for item in list {
        if !out.contains(&item) {
            out.push(item);
        }
    }
    out
}

/// What libc reads at most.
fn limit(config: &mut DnsConfig) {
    config.servers.truncate(MAX_SERVERS);
    config.searches.truncate(MAX_SEARCHES);
    while config.searches.iter().map(|s| s.len() + 1).sum::<usize>() > MAX_SEARCH_CHARACTERS {
        config.searches.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const NODE: &str = "# x\nnameserver 8.8.8.8\nsearch corp. lab\noptions timeout:1\n";

    fn run(spec: Value) -> DnsConfig {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"namespace": "n"}, "spec": spec})).expect("a pod");
        config(&pod, &ClusterDns { servers: vec!["10.96.0.10".into()], domain: "cluster.local".into() }, NODE)
    }

    #[test]
    fn policies() {
        let first = run(json!({"containers": []}));
        assert_eq!(first.servers, ["10.96.0.10"]);
        assert_eq!(first.searches, ["n.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp", "lab"]);
        assert_eq!(first.options, ["ndots:5"]);
        let default = run(json!({"containers": [], "dnsPolicy": "Default"}));
        assert_eq!((default.servers, default.options), (vec!["8.8.8.8".to_owned()], vec!["timeout:1".to_owned()]));
        assert_eq!(run(json!({"containers": [], "hostNetwork": true})).servers, ["8.8.8.8"]);
        assert_eq!(run(json!({"containers": [], "hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"})).servers, ["10.96.0.10"]);
        let none = run(json!({"containers": [], "dnsPolicy": "None",
            "dnsConfig": {"nameservers": ["1.1.1.1"], "searches": ["a.b"], "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}}));
        assert_eq!(
            (none.servers, none.searches, none.options),
            (vec!["1.1.1.1".into()], vec!["a.b".into()], vec!["ndots:2".into(), "edns0".into()])
        );
    }
}
