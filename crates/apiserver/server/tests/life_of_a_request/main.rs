//! The page and the program tell the same story.
//!
//! Alone in its program: what other tests do in other threads would change which spans are recorded.

#[allow(dead_code, reason = "the other tests use the rest of it")]
#[path = "../door/cluster.rs"]
mod cluster;

use std::sync::{Arc, Mutex};

use crate::cluster::Cluster;
use tracing::span::{Attributes, Id};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

const PAGE: &str = include_str!("../../../../../docs/life-of/request.md");

/// Names of the spans that stand directly below a request's.
#[derive(Clone, Default)]
struct Stages(Arc<Mutex<Vec<String>>>);

impl<S> tracing_subscriber::Layer<S> for Stages
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, _id: &Id, context: Context<'_, S>) {
        if context.lookup_current().is_some_and(|parent| parent.name() == "request") {
            self.0.lock().expect("no panic while held").push(attributes.metadata().name().to_owned());
        }
    }
}

#[tokio::test(flavor = "current_thread")]
async fn life_of_a_request() {
    let cluster = Cluster::start().await;
    let client = cluster.running.loopback_client();
    let stages = Stages::default();
    let guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(stages.clone()));
    client.text("/version").await.expect("answered");
    drop(guard);
    let seen = stages.0.lock().expect("no panic while held").clone();
    assert_eq!(seen, tiphys_apiserver::chain::STAGES);
    let told: Vec<&str> =
        PAGE.lines().filter(|l| l.starts_with(|c: char| c.is_ascii_digit())).filter_map(|l| l.split("**").nth(1)).collect();
    assert_eq!(told, tiphys_apiserver::chain::STAGES);
}
