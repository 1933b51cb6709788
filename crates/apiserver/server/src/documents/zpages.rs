//! `/statusz` and `/flagz` (KEP-4827, KEP-4828): what runs here since when, and with which flags, for whoever looks for a fault. Text for people, an object
//! of `config.k8s.io` for those who ask for it by its name.

use std::collections::BTreeMap;
use std::fmt::Write;

use http::header;
use jiff::Timestamp;
use serde_json::{Value, json};
use tiphys_meta::time;
use tiphys_registry::{Clause, clauses, error_document, only_accepted};
use tiphys_schema::codec;

use super::version;
use crate::body::{self, Answered, YAML};
use crate::chain::Call;
use crate::wire::JSON;

const COMPONENT: &str = "apiserver";
const GROUP: &str = "config.k8s.io";
/// The newest first; the others are deprecated.
const VERSIONS: [&str; 2] = ["v1beta1", "v1alpha1"];
const TEXT: &str = "text/plain";
/// In the first part of a path; the rest of what is listed is no help against faults.
const API: [&str; 5] = ["apis", "api", "openid", "openapi", ".well-known"];

/// A page, as fields of its object and as lines of its text.
pub(super) struct Page {
    kind: &'static str,
    fields: Value,
    text: String,
}

/// In what a page is wanted.
#[derive(Debug, PartialEq, Eq)]
enum Form {
    Text,
    Object { content_type: &'static str, version: &'static str },
}

pub(super) fn statusz(started: Timestamp, now: Timestamp, listed: &[String]) -> Page {
    let up = now.as_second().saturating_sub(started.as_second()).max(0);
    let paths = folders(listed);
    let mut text = format!("\nStarted: {}\n", started.strftime("%a %b %e %H:%M:%S UTC %Y"));
    let _ = writeln!(text, "Up: {} hr {:02} min {:02} sec", up / 3600, up / 60 % 60, up % 60);
    let _ = writeln!(text, "Go version: {}", version::TOOLCHAIN);
    let _ = writeln!(text, "Binary version: {}\nEmulation version: {}", version::BINARY, version::EMULATED);
    let _ = writeln!(text, "Paths: {}", paths.join(" "));
    let fields = json!({
        "startTime": time::format(started), "uptimeSeconds": up, "goVersion": version::TOOLCHAIN, "binaryVersion": version::BINARY,
        "emulationVersion": version::EMULATED, "paths": paths,
    });
    Page { kind: "Statusz", fields, text }
}

pub(super) fn flagz(flags: &BTreeMap<&'static str, String>) -> Page {
    let text = flags.iter().fold(String::new(), |text, (name, value)| text + name + "=" + value + "\n");
    Page { kind: "Flagz", fields: json!({"flags": flags}), text }
}

fn folders(listed: &[String]) -> Vec<String> {
    let first = listed.iter().filter_map(|path| path.split('/').nth(1));
    let mut folders: Vec<String> = first.filter(|f| !f.is_empty() && !API.contains(f)).map(|f| format!("/{f}")).collect();
    folders.sort();
    folders.dedup();
    folders
}

impl Page {
    pub(super) fn answer(self, call: &Call) -> Answered {
        let accept = call.header(header::ACCEPT);
        match form(accept, self.kind) {
            Some(Form::Text) => body::text(200, self.whole_text()),
            Some(Form::Object { content_type, version }) => self.object(content_type, version),
            None => body::from_registry(error_document(for_errors(accept), &only_accepted(&[JSON, YAML, TEXT]))),
        }
    }

    fn name(&self) -> String {
        self.kind.to_lowercase()
    }

    fn whole_text(&self) -> String {
        format!(
            "\n{COMPONENT} {}\nWarning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees and is for \
             debugging purposes only.\n{}",
            self.name(),
            self.text
        )
    }

    fn object(self, content_type: &'static str, version: &'static str) -> Answered {
        let deprecated = version != VERSIONS[0];
        let warning = format!("This version of the {} endpoint is deprecated. Please use a newer version.", self.name());
        let mut object = json!({"kind": self.kind, "apiVersion": format!("{GROUP}/{version}"), "metadata": {"name": COMPONENT}});
        if let (Value::Object(object), Value::Object(fields)) = (&mut object, self.fields) {
            object.extend(fields);
        }
        let bytes = if content_type == YAML { codec::yaml::print(&object) } else { object.to_string() };
        let full_type = format!("{content_type};g={GROUP};v={version};as={}", self.kind);
        let response = body::answer(200, &full_type, body::full(bytes));
        if deprecated { body::with_warnings(response, &[warning]) } else { response }
    }
}

fn form(accept: &str, kind: &str) -> Option<Form> {
    if accept.trim().is_empty() {
        return Some(Form::Text);
    }
    clauses(accept).iter().find_map(|clause| {
        if clause.is_plain() {
            return clause.takes(TEXT).then_some(Form::Text);
        }
        let version = VERSIONS.into_iter().find(|v| *v == clause.version && clause.group == GROUP && clause.shown == kind)?;
        let content_type = [JSON, YAML].into_iter().find(|ours| clause.takes(ours))?;
        Some(Form::Object { content_type, version })
    })
}

/// In what a refusal is told: in one of the two that are here, whatever else the client would take.
fn for_errors(accept: &str) -> &'static str {
    let takes = |clause: &Clause| [JSON, YAML].into_iter().find(|ours| clause.is_plain() && clause.takes(ours));
    clauses(accept).iter().find_map(takes).unwrap_or(JSON)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_asked_for_as_upstream_has_it() {
        let object = |content_type, version| Some(Form::Object { content_type, version });
        for (accept, want) in [
            ("", Some(Form::Text)),
            ("*/*", Some(Form::Text)),
            ("text/*", Some(Form::Text)),
            ("text/plain;charset=utf-8", Some(Form::Text)),
            ("application/json, */*", Some(Form::Text)),
            ("application/json", None),
            ("application/yaml", None),
            ("application/json;v=v1beta1;g=config.k8s.io;as=Statusz", object(JSON, "v1beta1")),
            ("application/yaml;v=v1alpha1;g=config.k8s.io;as=Statusz", object(YAML, "v1alpha1")),
            ("application/json;v=v1beta1;g=config.k8s.io;as=Flagz", None),
            ("application/json;v=v1;g=config.k8s.io;as=Statusz", None),
            ("application/vnd.kubernetes.protobuf", None),
            ("text/html", None),
            ("text/plain;as=Statusz;v=v1beta1;g=config.k8s.io", None),
            (
                "application/cbor;v=v1beta1;g=config.k8s.io;as=Statusz, application/json;v=v1alpha1;g=config.k8s.io;as=Statusz",
                object(JSON, "v1alpha1"),
            ),
        ] {
            assert_eq!(form(accept, "Statusz"), want, "{accept}");
        }
    }

    #[test]
    fn a_status_says_since_when_and_what() {
        let at = |text| time::parse(text).expect("a time");
        let listed =
            ["/api", "/apis/apps", "/healthz", "/livez", "/livez/ping", "/version", "/.well-known/openid-configuration"].map(str::to_owned);
        let page = statusz(at("2026-11-02T09:00:00Z"), at("2026-11-02T11:03:04Z"), &listed);
        assert!(page.text.contains("Started: Mon Nov  2 09:00:00 UTC 2026\nUp: 2 hr 03 min 04 sec\n"), "{}", page.text);
        assert!(page.text.ends_with("Paths: /healthz /livez /version\n"), "{}", page.text);
        assert_eq!((&page.fields["uptimeSeconds"], &page.fields["startTime"]), (&json!(7384), &json!("2026-11-02T09:00:00Z")));
        let response = page.object(JSON, "v1alpha1");
        assert_eq!(response.headers()["content-type"], "application/json;g=config.k8s.io;v=v1alpha1;as=Statusz");
        assert_eq!(
            response.headers()["warning"],
            "299 - \"This version of the statusz endpoint is deprecated. Please use a newer version.\""
        );
    }
}
