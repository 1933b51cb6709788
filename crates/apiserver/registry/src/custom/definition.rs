//! What a CustomResourceDefinition says, read once when it takes effect.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use tiphys_cel::crd_rules::{self, Rules};
use tiphys_meta::{Gvk, Gvr, object};
use tiphys_schema::discovery::version_order;
use tiphys_schema::structural::JsonPath;

use super::scale::ScalePaths;
use super::status::condition_is_true;
use super::table::Column;

/// A definition whose names are accepted.
pub(crate) struct Definition {
    /// `crontabs.stable.example.com`.
    pub(crate) name: String,
    pub(crate) group: String,
    pub(crate) names: Names,
    pub(crate) namespaced: bool,
    pub(crate) versions: Vec<Version>,
    /// Which version new objects are stored in.
    pub(crate) storage: usize,
    pub(crate) conversion: Option<ConversionWebhook>,
    established: AtomicBool,
    terminating: AtomicBool,
    identity: Identity,
}

/// Two definitions with the same identity say the same.
#[derive(PartialEq)]
struct Identity {
    uid: String,
    generation: i64,
    names: Value,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Names {
    pub(crate) plural: String,
    pub(crate) singular: String,
    pub(crate) kind: String,
    pub(crate) list_kind: String,
    pub(crate) short_names: Vec<String>,
    pub(crate) categories: Vec<String>,
}

pub(crate) struct Version {
    pub(crate) gvk: Gvk,
    pub(crate) gvr: Gvr,
    pub(crate) api_version: String,
    pub(crate) served: bool,
    /// What who uses a deprecated version is told.
    pub(crate) warning: Option<String>,
    pub(crate) schema: Value,
    pub(crate) status: bool,
    pub(crate) scale: Option<ScalePaths>,
    pub(crate) columns: Vec<Column>,
    /// Without the leading dot.
    pub(crate) selectable: Vec<(String, JsonPath)>,
    /// The rules in CEL, compiled when first asked for.
    rules: OnceLock<Option<Rules>>,
}

pub(crate) struct ConversionWebhook {
    /// `clientConfig`.
    pub(crate) client: Value,
    /// The first of `conversionReviewVersions` that is known.
    pub(crate) review: Option<&'static str>,
}

fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value.get(field).and_then(Value::as_str).unwrap_or("")
}

fn texts(value: &Value, field: &str) -> Vec<String> {
    list(value, field).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn list<'v>(value: &'v Value, field: &str) -> &'v [Value] {
    value.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

impl Definition {
    /// None as long as the definition's names are not accepted, and where it makes no sense.
    pub(crate) fn of(crd: &Value) -> Option<Definition> {
        let (spec, status) = (crd.get("spec")?, crd.get("status")?);
        let established = condition_is_true(crd, "Established");
        if !established && !condition_is_true(crd, "NamesAccepted") {
            return None;
        }
        let names = Names::of(status.get("acceptedNames")?);
        let group = text(spec, "group").to_owned();
        let versions: Vec<Version> = list(spec, "versions").iter().map(|v| Version::of(v, spec, &group, &names)).collect();
        let storage = list(spec, "versions").iter().position(|v| v["storage"] == true)?;
        Some(Definition {
            name: object::name(crd).to_owned(),
            namespaced: text(spec, "scope") == "Namespaced",
            conversion: spec.get("conversion").and_then(ConversionWebhook::of),
            established: AtomicBool::new(established),
            terminating: AtomicBool::new(condition_is_true(crd, "Terminating")),
            identity: Identity {
                uid: object::uid(crd).to_owned(),
                generation: crd["metadata"]["generation"].as_i64().unwrap_or(0),
                names: status["acceptedNames"].clone(),
            },
            group,
            names,
            versions,
            storage,
        })
    }

    pub(crate) fn says_the_same(&self, other: &Definition) -> bool {
        self.identity == other.identity
    }

    /// Takes over what changes without changing what objects are; whether it did.
    pub(crate) fn take_state(&self, newer: &Definition) -> bool {
        let established = self.established.swap(newer.is_established(), Ordering::Relaxed) != newer.is_established();
        let terminating = self.terminating.swap(newer.is_terminating(), Ordering::Relaxed) != newer.is_terminating();
        established || terminating
    }

    pub(crate) fn is_established(&self) -> bool {
        self.established.load(Ordering::Relaxed)
    }

    /// Nothing new is made of what is about to go.
    pub(crate) fn is_terminating(&self) -> bool {
        self.terminating.load(Ordering::Relaxed)
    }

    pub(crate) fn stored(&self) -> &Version {
        &self.versions[self.storage]
    }

    pub(crate) fn version_of(&self, api_version: &str) -> Option<&Version> {
        self.versions.iter().find(|v| v.api_version == api_version)
    }
}

impl Names {
    pub(crate) fn of(names: &Value) -> Names {
        Names {
            plural: text(names, "plural").to_owned(),
            singular: text(names, "singular").to_owned(),
            kind: text(names, "kind").to_owned(),
            list_kind: text(names, "listKind").to_owned(),
            short_names: texts(names, "shortNames"),
            categories: texts(names, "categories"),
        }
    }
}

impl Version {
    fn of(version: &Value, spec: &Value, group: &str, names: &Names) -> Version {
        let name = text(version, "name").to_owned();
        let free = || json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        let schema = version.get("schema").and_then(|s| s.get("openAPIV3Schema")).filter(|s| s.is_object());
        let subresources = version.get("subresources");
        let subresource = |name: &str| subresources.and_then(|s| s.get(name)).filter(|s| s.is_object());
        let selectable = list(version, "selectableFields").iter().filter_map(|field| {
            let path = text(field, "jsonPath");
            Some((path.trim_start_matches('.').to_owned(), JsonPath::parse(path).ok()?))
        });
        let gvk = Gvk::new(group.to_owned(), name.clone(), names.kind.clone());
        Version {
            gvr: Gvr::new(group.to_owned(), name, names.plural.clone()),
            api_version: gvk.api_version(),
            served: version["served"] == true,
            warning: (version["deprecated"] == true).then(|| deprecation(version, spec, group, names)),
            schema: schema.cloned().unwrap_or_else(free),
            status: subresource("status").is_some(),
            scale: subresource("scale").map(ScalePaths::of),
            columns: Column::all_of(list(version, "additionalPrinterColumns")),
            selectable: selectable.collect(),
            rules: OnceLock::new(),
            gvk,
        }
    }
}

/// The definition's own words, or the usual ones, which name the best version to use instead.
fn deprecation(version: &Value, spec: &Value, group: &str, names: &Names) -> String {
    if let Some(own) = version.get("deprecationWarning").and_then(Value::as_str) {
        return own.to_owned();
    }
    let (old, kind) = (text(version, "name"), &names.kind);
    let usable = list(spec, "versions").iter().filter(|v| v["served"] == true && v["deprecated"] != true).map(|v| text(v, "name"));
    let better = usable.filter(|v| version_order(v, old).is_lt()).min_by(|a, b| version_order(a, b));
    let instead = better.map(|v| format!("; use {group}/{v} {kind}")).unwrap_or_default();
    format!("{group}/{old} {kind} is deprecated{instead}")
}

impl Version {
    /// `x-kubernetes-validations`, where the schema has some.
    pub(super) fn rules(&self) -> Option<&Rules> {
        self.rules.get_or_init(|| crd_rules::compile_schema(&self.schema)).as_ref()
    }

    pub(crate) fn has_subresource(&self, name: &str) -> bool {
        match name {
            "status" => self.status,
            "scale" => self.scale.is_some(),
            _ => false,
        }
    }
}

impl ConversionWebhook {
    fn of(conversion: &Value) -> Option<ConversionWebhook> {
        if text(conversion, "strategy") != "Webhook" {
            return None;
        }
        let webhook = conversion.get("webhook")?;
        let known = |v: &Value| ["v1", "v1beta1"].into_iter().find(|known| v == known);
        Some(ConversionWebhook {
            client: webhook.get("clientConfig").cloned().unwrap_or_default(),
            review: list(webhook, "conversionReviewVersions").iter().find_map(known),
        })
    }
}
