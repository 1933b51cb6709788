//! The cluster's certificates and keys, as files under `pki/` with kubeadm's names where it has them.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use tiphys_base::pki::{Authority, Identity, Names, Subject, Use, generate_key_pem, not_after};

use crate::cluster::{Cluster, Layout};
use crate::kubeconfig;

const TEN_YEARS: Duration = Duration::from_secs(3650 * 86_400);
const ONE_YEAR: Duration = Duration::from_secs(365 * 86_400);
/// A certificate that ends sooner is replaced.
const RENEW_BEFORE: Duration = Duration::from_secs(30 * 86_400);

/// Everything that the cluster's components show and trust.
pub struct ClusterPki {
    pub ca: Authority,
    pub front_proxy_ca: Authority,
    pub service_account_key: String,
    pub admin: Identity,
    folder: PathBuf,
}

/// Names of certificates. Each is a file `NAME.crt` with its key in `NAME.key`.
pub const APISERVER: &str = "apiserver";
pub const APISERVER_KUBELET_CLIENT: &str = "apiserver-kubelet-client";
pub const FRONT_PROXY_CLIENT: &str = "front-proxy-client";

pub fn kubelet(node: &str) -> String {
    format!("kubelet-{node}")
}

pub fn node_services(node: &str) -> String {
    format!("node-services-{node}")
}

/// The group of what runs on a node beside its kubelet.
pub const NODE_SERVICES_GROUP: &str = "tiphys:node-services";

/// Where a certificate and its key are.
pub fn files(layout: &Layout, name: &str) -> (PathBuf, PathBuf) {
    let path = |extension: &str| layout.pki().join(format!("{name}.{extension}"));
    (path("crt"), path("key"))
}

/// Renews what ends soon, and the administrator's kubeconfig with it; tells when it is to be done again.
pub fn renew(layout: &Layout, cluster: &Cluster, now: Timestamp) -> Result<Timestamp> {
    let pki = ClusterPki::ensure(layout, cluster, now)?;
    kubeconfig::write_own(layout, cluster, &pki)?;
    pki.renew_at()
}

impl ClusterPki {
    /// Reads what is there, makes what is missing, renews what ends soon.
    pub fn ensure(layout: &Layout, cluster: &Cluster, now: Timestamp) -> Result<ClusterPki> {
        let folder = layout.pki();
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let ca = authority(&folder, "ca", "kubernetes", now)?;
        let front_proxy_ca = authority(&folder, "front-proxy-ca", "front-proxy-ca", now)?;
        let service_account_key = key(&folder.join("sa.key"))?;
        let client = |name: &str, ca: &Authority, cn: &str, groups: &[&str]| {
            leaf(&folder, name, ca, &subject(cn, groups), &Names::default(), Use::Client, now)
        };
        client(APISERVER_KUBELET_CLIENT, &ca, "kube-apiserver-kubelet-client", &["system:masters"])?;
        client(FRONT_PROXY_CLIENT, &front_proxy_ca, "front-proxy-client", &[])?;
        leaf(&folder, APISERVER, &ca, &subject("kube-apiserver", &[]), &server_names(cluster)?, Use::Server, now)?;
        for number in 1..=cluster.nodes {
            node(&folder, &ca, &cluster.node_name(number), IpAddr::V4(cluster.node_address(number)?), now)?;
        }
        Ok(ClusterPki {
            admin: client("admin", &ca, "kubernetes-admin", &["system:masters"])?,
            ca,
            front_proxy_ca,
            service_account_key,
            folder,
        })
    }

    /// When the first of the certificates is to be renewed.
    pub fn renew_at(&self) -> Result<Timestamp> {
        let mut first = Timestamp::MAX;
        for entry in fs::read_dir(&self.folder).with_context(|| format!("cannot read {}", self.folder.display()))? {
            let stamp = entry?.path();
            if stamp.extension().is_some_and(|e| e == "for") {
                let path = stamp.with_extension("crt");
                let pem = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
                first = first.min(not_after(&pem)?);
            }
        }
        Ok(first.checked_sub(RENEW_BEFORE).unwrap_or(Timestamp::MIN))
    }
}

/// What a node shows to the API server, and to whoever dials its kubelet; and what its proxy and DNS show, which are no kubelet.
fn node(folder: &Path, ca: &Authority, node: &str, address: IpAddr, now: Timestamp) -> Result<()> {
    let names = Names { dns: vec![node.to_owned()], ips: vec![address] };
    let who = subject(&format!("system:node:{node}"), &["system:nodes"]);
    leaf(folder, &kubelet(node), ca, &who, &names, Use::Both, now)?;
    let who = subject(&format!("tiphys:node-services:{node}"), &[NODE_SERVICES_GROUP]);
    leaf(folder, &node_services(node), ca, &who, &Names::default(), Use::Client, now)?;
    Ok(())
}

fn subject(common_name: &str, groups: &[&str]) -> Subject {
    Subject { common_name: common_name.to_owned(), organizations: groups.iter().map(|g| (*g).to_owned()).collect() }
}

fn server_names(cluster: &Cluster) -> Result<Names> {
    let dns = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "localhost"];
    let mut ips = vec![IpAddr::V4(cluster.service_address(1)?), IpAddr::V4(cluster.node_address(1)?), IpAddr::from([127, 0, 0, 1])];
    if !cluster.api_address.is_unspecified() && !ips.contains(&cluster.api_address) {
        ips.push(cluster.api_address);
    }
    Ok(Names { dns: dns.map(str::to_owned).to_vec(), ips })
}

fn read_pair(folder: &Path, name: &str) -> Option<Identity> {
    let read = |extension: &str| fs::read_to_string(folder.join(format!("{name}.{extension}"))).ok();
    Some(Identity { cert_pem: read("crt")?, key_pem: read("key")? })
}

fn write_pair(folder: &Path, name: &str, id: &Identity) -> Result<()> {
    let write = |extension: &str, text: &str, mode| {
        let path = folder.join(format!("{name}.{extension}"));
        tiphys_base::files::write_atomic(&path, text.as_bytes(), mode).with_context(|| format!("cannot write {}", path.display()))
    };
    write("key", &id.key_pem, 0o600)?;
    write("crt", &id.cert_pem, 0o644)
}

fn authority(folder: &Path, name: &str, common_name: &str, now: Timestamp) -> Result<Authority> {
    if let Some(pair) = read_pair(folder, name) {
        return Authority::load(pair).with_context(|| format!("{}/{name}.crt and .key cannot be used", folder.display()));
    }
    let authority = Authority::generate(common_name, now, TEN_YEARS)?;
    write_pair(folder, name, authority.identity())?;
    Ok(authority)
}

fn key(path: &Path) -> Result<String> {
    if let Ok(text) = fs::read_to_string(path) {
        return Ok(text);
    }
    let text = generate_key_pem()?;
    tiphys_base::files::write_atomic(path, text.as_bytes(), 0o600).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(text)
}

/// A certificate below `ca`: the one on disk if it still has time, names the same and was signed by the same CA.
fn leaf(folder: &Path, name: &str, ca: &Authority, who: &Subject, names: &Names, usage: Use, now: Timestamp) -> Result<Identity> {
    let stamp = format!("{who:?} {names:?} {usage:?} {}", ca.cert_pem());
    let stamp_path = folder.join(format!("{name}.for"));
    if let Some(pair) = read_pair(folder, name)
        && fs::read_to_string(&stamp_path).is_ok_and(|s| s == stamp)
        && not_after(&pair.cert_pem).is_ok_and(|end| now.checked_add(RENEW_BEFORE).is_ok_and(|soon| end > soon))
    {
        return Ok(pair);
    }
    let pair = ca.issue(who, names, usage, now, ONE_YEAR)?;
    write_pair(folder, name, &pair)?;
    tiphys_base::files::write_atomic(&stamp_path, stamp.as_bytes(), 0o644)
        .with_context(|| format!("cannot write {}", stamp_path.display()))?;
    Ok(pair)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Wanted;
    use tiphys_base::{Clock, SystemClock};

    #[test]
    fn certificates_are_kept_and_renewed_when_they_must() {
        let folder = tempfile::tempdir().expect("folder");
        let layout = Layout::new(folder.path(), "pki").expect("name");
        let mut cluster = Cluster::load_or_create(&layout, &Wanted::default()).expect("cluster");
        let now = SystemClock.now();
        let first = ClusterPki::ensure(&layout, &cluster, now).expect("made");
        let second = ClusterPki::ensure(&layout, &cluster, now).expect("read");
        assert_eq!(first.admin.cert_pem, second.admin.cert_pem);
        let apiserver = || fs::read_to_string(files(&layout, APISERVER).0).expect("there");
        let made = apiserver();
        assert_eq!(first.service_account_key, second.service_account_key);
        cluster.api_address = "192.0.2.7".parse().expect("address");
        let moved = ClusterPki::ensure(&layout, &cluster, now).expect("renewed");
        assert_ne!(apiserver(), made, "a new address needs a new certificate");
        assert_eq!(moved.admin.cert_pem, first.admin.cert_pem);
        let later = now.checked_add(Duration::from_secs(340 * 86_400)).expect("time");
        let renewed = ClusterPki::ensure(&layout, &cluster, later).expect("renewed");
        assert_ne!(renewed.admin.cert_pem, first.admin.cert_pem, "it would have ended soon");
        assert_eq!(renewed.ca.cert_pem(), first.ca.cert_pem());
    }

    #[test]
    fn a_cluster_that_runs_for_years_renews_in_time() {
        let folder = tempfile::tempdir().expect("folder");
        let layout = Layout::new(folder.path(), "pki").expect("name");
        let cluster = Cluster::load_or_create(&layout, &Wanted { nodes: Some(2), ..Wanted::default() }).expect("cluster");
        let clock = tiphys_base::FakeClock::at(SystemClock.now());
        let names = [APISERVER.to_owned(), FRONT_PROXY_CLIENT.into(), kubelet(&cluster.node_name(2)), node_services(&cluster.node_name(1))];
        let shown = || names.clone().map(|name| fs::read_to_string(files(&layout, &name).0).expect("there"));
        let copy = folder.path().join("users-config");
        let mut at = renew(&layout, &cluster, clock.now()).expect("made");
        for year in 0..3 {
            let (before, config) = (shown(), fs::read_to_string(layout.kubeconfig()).expect("there"));
            kubeconfig::merge_from(&copy, &layout.kubeconfig()).expect("merged");
            kubeconfig::remember(&layout, &copy).expect("noted");
            assert_eq!(renew(&layout, &cluster, clock.now()).expect("nothing to do"), at);
            assert_eq!(shown(), before);
            clock.set(at);
            clock.advance(Duration::from_secs(1));
            let ends = not_after(&before[0]).expect("a certificate");
            assert!(clock.now() < ends, "before they end");
            at = renew(&layout, &cluster, clock.now()).expect("renewed");
            assert!(at > clock.now(), "year {year}");
            assert!(shown().iter().zip(&before).all(|(new, old)| new != old), "all of them");
            assert_ne!(fs::read_to_string(layout.kubeconfig()).expect("there"), config, "the administrator too");
            assert!(kubeconfig::refresh_copies(&layout).is_empty());
            let data = fs::read_to_string(layout.kubeconfig()).expect("there");
            let line = data.lines().find(|line| line.contains("client-certificate-data")).expect("a certificate");
            assert!(fs::read_to_string(&copy).expect("there").contains(line.trim().trim_start_matches("- ")), "and the user's copy");
        }
    }
}
