//! The demo application: a small HTTP server in the image that the program carries in itself, and its objects.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;
use tiphys_cli::cluster::Cluster;
use tiphys_client::{Client, Informers};
use tiphys_meta::Gvr;
use tiphys_types::api::apps::v1::Deployment;
use tiphys_types::api::core::v1::Service;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PORT: u16 = 8888;
const REPLICAS: i32 = 3;

/// `tiphys demo`: answers everyone, until told to stop.
pub(crate) fn main() -> Result<()> {
    let listener = TcpListener::bind(("0.0.0.0", PORT)).with_context(|| format!("cannot listen on port {PORT}"))?;
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { continue };
        std::thread::spawn(move || {
            let mut request = [0; 4096];
            let body = "Hello, 世界\n";
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            // Whoever hangs up early gets no answer; nobody else is concerned.
            let _ = stream.read(&mut request).and_then(|_| stream.write_all(format!("{head}{body}").as_bytes()));
        });
    }
    Ok(())
}

pub(crate) async fn install(admin: &Client) -> Result<()> {
    let labels = json!({"app": "demo"});
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "demo", "namespace": "default", "labels": labels},
        "spec": {"replicas": REPLICAS, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "demo", "image": crate::images::builtin_name(), "imagePullPolicy": "Never", "args": ["demo"],
                "ports": [{"containerPort": PORT}], "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1}}]}}},
    });
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "demo", "namespace": "default", "labels": labels},
        "spec": {"type": "NodePort", "selector": labels, "ports": [{"port": PORT, "targetPort": PORT}]},
    });
    let make = [(Gvr::new("apps", "v1", "deployments"), deployment), (Gvr::new("", "v1", "services"), service)];
    for (gvr, object) in make {
        match admin.create_value(&gvr, "default", &object).await {
            Err(error) if !error.is_already_exists() => return Err(error).context("cannot make the demo application"),
            _ => {}
        }
    }
    Ok(())
}

/// Waits, by watch, until all replicas are available.
pub(crate) async fn wait_until_available(informers: &Informers) -> Result<()> {
    let mut changes = informers.of::<Deployment>().subscribe();
    while let Some(change) = changes.recv().await {
        let demo = change.object();
        let available = demo.status.as_ref().and_then(|s| s.available_replicas).unwrap_or(0);
        if demo.metadata.name.as_deref() == Some("demo") && available >= REPLICAS {
            return Ok(());
        }
    }
    anyhow::bail!("the cluster stops before the demo application was there")
}

/// Asks the application over its Service until it answers. After a restart the stored status may be ahead of the pods.
pub(crate) async fn wait_for_answer(address: &str) -> Result<()> {
    const TRIES: u32 = 300;
    const MOMENT: Duration = Duration::from_millis(200);
    let place = address.trim_start_matches("http://").trim_end_matches('/');
    for _ in 0..TRIES {
        let begun = tokio::time::Instant::now();
        let asked = async {
            let mut stream = tokio::net::TcpStream::connect(place).await?;
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).await?;
            Ok::<_, std::io::Error>(answer.ends_with(b"200"))
        };
        if matches!(tokio::time::timeout(MOMENT, asked).await, Ok(Ok(true))) {
            return Ok(());
        }
        tokio::time::sleep_until(begun + MOMENT / 4).await;
    }
    anyhow::bail!("the demo application does not answer at {address}; `kubectl describe pods -l app=demo` says more")
}

pub(crate) async fn url(admin: &Client, cluster: &Cluster) -> Result<String> {
    let service: Service = admin.get("default", "demo").await.context("cannot read the demo's Service")?;
    let ports = service.spec.and_then(|s| s.ports).unwrap_or_default();
    let port = ports.first().and_then(|p| p.node_port).context("the demo's Service has no node port")?;
    Ok(format!("http://{}:{port}/", cluster.node_address(1)?))
}
