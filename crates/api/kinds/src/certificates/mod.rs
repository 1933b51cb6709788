//! `certificates.k8s.io`.

mod signing_request;

use serde_json::Value;
use tiphys_meta::{names, object};
use tiphys_types::jiff::Timestamp;

use crate::fields::selectable;
use crate::resources::Entry;
use crate::strategy::{Column, Strategy};
use crate::table::{NAME, column};
use crate::tree::text;

static TRUST_BUNDLE: Strategy = Strategy::new(false)
    // `signer:name` is a bundle's name where it belongs to a signer.
    .name(|name, prefix| names::name_is_dns_subdomain(&name.replace(':', "."), prefix))
    .unconditional_update(false)
    .selectable(bundle::NAMES, bundle::of)
    .table(BUNDLE_COLUMNS, bundle_cells);
static POD_CERTIFICATE: Strategy = Strategy::new(true).status("{}").unconditional_update(false).selectable(request::NAMES, request::of);

mod bundle {
    super::selectable!("metadata.name" = "", "spec.signerName" = "");
}

mod request {
    super::selectable!("metadata.name" = "", "metadata.namespace" = "", "spec.signerName" = "", "spec.podName" = "", "spec.nodeName" = "");
}

const BUNDLE_COLUMNS: &[Column] = &[NAME, column("SignerName")];

fn bundle_cells(o: &Value, _: Timestamp) -> Vec<Value> {
    let signer = text(o, "spec.signerName");
    vec![object::name(o).into(), if signer.is_empty() { "<none>" } else { signer }.into()]
}

pub(crate) const RESOURCES: &[Entry] = &[
    Entry::new("certificatesigningrequests", &signing_request::STRATEGY),
    Entry::new("clustertrustbundles", &TRUST_BUNDLE),
    Entry::new("podcertificaterequests", &POD_CERTIFICATE),
];
