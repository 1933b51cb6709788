//! Answers `healthCheckNodePort`s over HTTP: 200 where the node has endpoints of the Service, 503 where not, with upstream's body. Load balancers
//! use it to send nothing to nodes that would drop it.

use std::collections::BTreeMap;
use std::time::Duration;

use tiphys_base::tasks::Tasks;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::services::HealthCheck;

/// A client that asks nothing is sent away.
const PATIENCE: Duration = Duration::from_secs(5);
const LONGEST_HEAD: usize = 8 << 10;

/// The listeners there are, each with the state that it tells.
pub(crate) struct HealthChecks {
    open: BTreeMap<u16, Check>,
    tasks: Tasks,
}

struct Check {
    state: watch::Sender<HealthCheck>,
    tasks: Tasks,
}

impl HealthChecks {
    pub(crate) fn new(tasks: &Tasks) -> Self {
        HealthChecks { open: BTreeMap::new(), tasks: tasks.clone() }
    }

    /// Opens, changes and closes listeners until they are these.
    pub(crate) fn set(&mut self, wanted: BTreeMap<u16, HealthCheck>) {
        self.open.retain(|port, check| {
            let stays = wanted.contains_key(port);
            if !stays {
                check.tasks.stop();
            }
            stays
        });
        for (port, next) in wanted {
            match self.open.get(&port) {
                Some(check) => drop(check.state.send_replace(next)),
                None => {
                    let (state, seen) = watch::channel(next);
                    let tasks = self.tasks.child();
                    tasks.spawn("health check port", listen(port, seen, tasks.clone()));
                    self.open.insert(port, Check { state, tasks });
                }
            }
        }
    }
}

async fn listen(port: u16, state: watch::Receiver<HealthCheck>, tasks: Tasks) {
    let listener = match TcpListener::bind(("0.0.0.0", port)).await {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(port, %error, "a Service's health check port cannot be opened"),
    };
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let told = state.borrow().clone();
        tasks.spawn("health check", async move {
            // A client that breaks off is nobody's concern.
            let _ = tokio::time::timeout(PATIENCE, answer(stream, &told)).await;
        });
    }
}

async fn answer(mut stream: TcpStream, check: &HealthCheck) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|w| w == b"\r\n\r\n") {
        let mut part = [0; 1024];
        let len = stream.read(&mut part).await?;
        head.extend_from_slice(part.get(..len).unwrap_or_default());
        if len == 0 || head.len() > LONGEST_HEAD {
            return Ok(());
        }
    }
    stream.write_all(response(check).as_bytes()).await?;
    stream.shutdown().await
}

fn response(check: &HealthCheck) -> String {
    let status = if check.local > 0 { "200 OK" } else { "503 Service Unavailable" };
    let body = format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": \"{}\",\n\t\t\"name\": \"{}\"\n\t}},\n\t\"localEndpoints\": {},\n\t\"serviceProxyHealthy\": true\n}}",
        check.namespace, check.name, check.local
    );
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nX-Content-Type-Options: nosniff\r\nX-Load-Balancing-Endpoint-Weight: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        check.local,
        body.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_without_endpoints_is_unavailable() {
        let check = |local| HealthCheck { namespace: "ns".into(), name: "web".into(), local };
        assert!(response(&check(0)).starts_with("HTTP/1.1 503 "));
        let good = response(&check(2));
        assert!(good.starts_with("HTTP/1.1 200 ") && good.contains("X-Load-Balancing-Endpoint-Weight: 2\r\n"));
        let (head, body) = good.split_once("\r\n\r\n").unwrap_or_default();
        assert!(head.contains(&format!("Content-Length: {}", body.len())) && body.contains("\"localEndpoints\": 2"));
    }
}
