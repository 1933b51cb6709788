//! Watches `kube-public/cluster-info` and the tokens; writes the ConfigMap's signatures: detached JWS (RFC 7515, appendix F) with HMAC-SHA256, the
//! token's secret as key, one for each token that may sign.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use ring::hmac;
use tiphys_client::{Action, Informer, ListOptions, Plan, Planner, WorkQueue};
use tiphys_types::api::core::v1::{ConfigMap, Secret};

use super::{Data, Token, left, read, tokens};
use crate::Context;

const NAMESPACE: &str = "kube-public";
const NAME: &str = "cluster-info";
const CONTENT: &str = "kubeconfig";
const SIGNATURE: &str = "jws-kubeconfig-";

pub(crate) fn start(context: &Context) {
    let tokens = tokens(context);
    let maps = context.informers.filtered::<ConfigMap>(ListOptions::fields(format!("metadata.name={NAME},metadata.namespace={NAMESPACE}")));
    let queue = WorkQueue::new();
    for_all(&tokens, &queue);
    for_all(&maps, &queue);
    let executor = context.executor("bootstrap-signer").reading(maps.clone()).reading(tokens.clone());
    context.run("bootstrap-signer-controller", 1, queue, Signer { maps, tokens }, executor);
}

fn for_all<K: tiphys_client::Kube>(informer: &Informer<K>, queue: &WorkQueue<()>) {
    let queue = queue.clone();
    informer.on_change(move |_| {
        queue.add(());
        true
    });
}

struct Signer {
    maps: Informer<ConfigMap>,
    tokens: Informer<Secret>,
}

impl Planner for Signer {
    type Key = ();

    fn plan(&self, (): &(), now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(map) = self.maps.get(NAMESPACE, NAME) else { return plan };
        let mut data: Data = map.data.clone().unwrap_or_default();
        let Some(content) = data.get(CONTENT).cloned() else { return plan };
        data.retain(|key, _| !key.starts_with(SIGNATURE));
        for token in self.tokens.list().iter().filter_map(|s| read(s)).filter(|t| t.signs) {
            match token.expires.map(|e| left(e, now)) {
                Some(None) => continue,
                Some(Some(left)) => plan.again_after(left),
                None => {}
            }
            data.insert(format!("{SIGNATURE}{}", token.id), sign(&content, &token));
        }
        if map.data.as_ref() != Some(&data) {
            plan.act(Action::update_with(&*map, |m| m.data = Some(data)));
        }
        plan
    }
}

fn sign(content: &str, token: &Token) -> String {
    let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"HS256","kid":"{}"}}"#, token.id));
    let key = hmac::Key::new(hmac::HMAC_SHA256, token.secret.as_bytes());
    let tag = hmac::sign(&key, format!("{header}.{}", URL_SAFE_NO_PAD.encode(content)).as_bytes());
    format!("{header}..{}", URL_SAFE_NO_PAD.encode(tag.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pair of a content and its signature that upstream's own tests of the format use.
    #[test]
    fn signatures_are_upstreams() {
        let token = Token { id: "joshua".into(), secret: "my voice is my passcode".into(), expires: None, signs: true };
        assert_eq!(
            sign("Hello from the other side. I must have called a thousand times.", &token),
            "eyJhbGciOiJIUzI1NiIsImtpZCI6Impvc2h1YSJ9..VShe2taLd-YTrmWuRkcL_8QTNDHYxQIEBsAYYiIj1_8"
        );
    }
}
