//! The API server alone with kube-apiserver's flag names: what `cargo xtask differential` holds beside upstream's.
//! `cargo run --example apiserver -- --data-dir D --cert-dir D --secure-port 6443 …`. It runs until it is interrupted.

use tiphys_apiserver::{Server, flags};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let parsed = flags::parse("kube-apiserver", std::env::args().skip(1))?;
    tracing_subscriber::fmt().with_env_filter(std::env::var("RUST_LOG").unwrap_or_else(|_| "warn".into())).init();
    let running = Server::start(parsed.config).await?;
    tokio::signal::ctrl_c().await?;
    running.stop().await;
    Ok(())
}
