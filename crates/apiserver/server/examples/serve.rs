//! An API server by itself, on loopback, for trying things out: `cargo run --example serve -- FOLDER [PORT [ADVERTISE]]`.
//! FOLDER gets a PKI, the data and an `admin.kubeconfig`. It runs until it is interrupted.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use tiphys_apiserver::config::{Pem, Storage};
use tiphys_apiserver::{Config, Server};
use tiphys_base::pki::{Authority, Names, Subject, Use, generate_key_pem};
use tiphys_base::{Clock, SystemClock};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let folder = PathBuf::from(args.next().unwrap_or_else(|| "/tmp/tiphys-serve".into()));
    let port: u16 = args.next().map_or(Ok(0), |p| p.parse())?;
    std::fs::create_dir_all(&folder)?;
    tracing_subscriber::fmt().with_env_filter(std::env::var("RUST_LOG").unwrap_or_else(|_| "info".into())).init();
    let begun = tokio::time::Instant::now();
    let (now, year) = (SystemClock.now(), Duration::from_secs(365 * 86_400));
    let ca = Authority::generate("kubernetes-ca", now, year)?;
    let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
    let names = Names { dns: vec!["localhost".into(), "kubernetes".into()], ips: vec![loopback] };
    let serving = ca.issue(&Subject { common_name: "kube-apiserver".into(), organizations: vec![] }, &names, Use::Server, now, year)?;
    let admin = Subject { common_name: "kubernetes-admin".into(), organizations: vec!["system:masters".into()] };
    let admin = ca.issue(&admin, &Names::default(), Use::Client, now, year)?;
    let token_key = generate_key_pem()?;
    // For controllers of another make that are tried against this server.
    for (name, text) in [("ca.crt", ca.cert_pem()), ("ca.key", &ca.identity().key_pem), ("sa.key", &token_key)] {
        std::fs::write(folder.join(name), text)?;
    }
    let mut config = Config::new(serving.into(), Pem::Text(token_key));
    config.bind_address = loopback;
    config.secure_port = port;
    config.client_ca = Some(Pem::Text(ca.cert_pem().to_owned()));
    config.storage = Storage::Embedded(folder.join("data"));
    config.advertise_address = args.next().map(|a| a.parse()).transpose()?;
    config.service_cluster_ip_ranges = vec!["10.96.0.0/16".into()];
    let running = Server::start(config).await?;
    let kubeconfig = kubeconfig(&format!("https://{}", running.address()), ca.cert_pem(), &admin);
    std::fs::write(folder.join("admin.kubeconfig"), kubeconfig)?;
    println!("https://{} after {:?}; {}", running.address(), begun.elapsed(), folder.join("admin.kubeconfig").display());
    tokio::signal::ctrl_c().await?;
    running.stop().await;
    Ok(())
}

fn kubeconfig(server: &str, ca: &str, admin: &tiphys_base::pki::Identity) -> String {
    use base64::Engine as _;
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: it\ncontexts:\n- name: it\n  context: {{cluster: it, user: admin}}\nclusters:\n- name: it\n  cluster:\n    server: {server}\n    certificate-authority-data: {}\nusers:\n- name: admin\n  user:\n    client-certificate-data: {}\n    client-key-data: {}\n",
        encode(ca),
        encode(&admin.cert_pem),
        encode(&admin.key_pem)
    )
}
