//! Certificates that are replaced while everything runs: the server's own, and a client's.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tiphys_apiserver::config::{Pem, PemPair};
use tiphys_base::pki::{Identity, Use};
use tiphys_base::{Clock, FakeClock, SystemClock, tls};
use tiphys_client::Client;
use tiphys_client::https::{Config, Identity as Credential};
use tiphys_meta::Gvr;
use tokio::net::TcpStream;

use crate::cluster::Cluster;

fn write(folder: &Path, name: &str, id: &Identity) {
    std::fs::write(folder.join(format!("{name}.key")), &id.key_pem).expect("written");
    std::fs::write(folder.join(format!("{name}.crt")), &id.cert_pem).expect("written");
}

/// What the server shows to a new connection.
async fn shown(cluster: &Cluster) -> Vec<u8> {
    let config = tls::client(tls::ServerTrust::Ca(cluster.ca.cert_pem().as_bytes()), None).expect("TLS");
    let socket = TcpStream::connect(cluster.running.address()).await.expect("connected");
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect("127.0.0.1".try_into().expect("a name"), socket).await;
    let stream = stream.expect("a certificate that is trusted");
    stream.get_ref().1.peer_certificates().expect("shown")[0].to_vec()
}

#[tokio::test]
async fn renewed_certificates_are_used_without_a_restart() {
    let folder = tempfile::tempdir().expect("folder");
    let path = |name: &str| folder.path().join(name);
    let clock = FakeClock::at(SystemClock.now());
    let cluster = Cluster::start_with(|config| {
        config.clock = clock.clone();
        write(folder.path(), "server", &config.serving.identity().expect("a pair"));
        config.serving = PemPair { cert: Pem::File(path("server.crt")), key: Pem::File(path("server.key")) };
    })
    .await;
    let first = shown(&cluster).await;
    write(folder.path(), "client", &cluster.issue("ann", &["system:masters"], Use::Client));
    let client = Client::https(Config {
        server: format!("https://{}", cluster.running.address()),
        ca: cluster.ca.cert_pem().as_bytes().to_vec(),
        identity: Credential::CertificateFiles { chain: path("client.crt"), key: path("client.key") },
        clock: Some(clock.clone()),
        ..Config::default()
    })
    .expect("client");
    let who = async || {
        let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
        let me = client.create_value(&Gvr::new("authentication.k8s.io", "v1", "selfsubjectreviews"), "", &review).await.expect("whoami");
        me["status"]["userInfo"]["username"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(who().await, "ann");

    write(folder.path(), "server", &cluster.issue("kube-apiserver", &[], Use::Server));
    write(folder.path(), "client", &cluster.issue("bob", &["system:masters"], Use::Client));
    assert_eq!((shown(&cluster).await == first, who().await), (true, "ann".to_owned()), "looked a moment ago");
    clock.advance(Duration::from_secs(61));
    assert_ne!(shown(&cluster).await, first);
    assert_eq!(who().await, "bob", "the connection of the old certificate is left");
}
