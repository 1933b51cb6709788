//! ListOptions, CreateOptions, UpdateOptions, PatchOptions and DeleteOptions, from the query or from a body.

use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use tiphys_meta::{ApiError, ErrorList, FieldError, Path};
use tiphys_schema::codec;

use crate::negotiate::{Format, body_format};
use crate::request::RequestInfo;
use crate::verbs::SCHEME;

/// The decoded query.
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(raw: &str) -> Query {
        let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
        let pairs = raw.split('&').filter(|pair| !pair.is_empty());
        Query(pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(k, v)| (decode(k), decode(v))).collect())
    }

    pub(crate) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(k, _)| k == name).map_or("", |(_, v)| v)
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(k, _)| k == name)
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(k, _)| k == name).map(|(_, v)| v.as_str())
    }

    /// As Go's conversion from the query does it: present and neither `false` nor `0` means true.
    fn flag(&self, name: &str) -> Option<bool> {
        self.has(name).then(|| !matches!(self.get(name), "false" | "0"))
    }

    fn number(&self, name: &str) -> Result<Option<i64>, ApiError> {
        let text = self.get(name);
        if text.is_empty() {
            return Ok(None);
        }
        let bad = |_| ApiError::bad_request(format!("strconv.ParseInt: parsing \"{text}\": invalid syntax"));
        text.parse().map(Some).map_err(bad)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Match {
    #[default]
    Unset,
    Exact,
    NotOlderThan,
}

/// Options of list, watch and deletecollection, without the selectors.
#[derive(Debug, Clone, Default)]
pub(crate) struct ListOptions {
    pub(crate) resource_version: String,
    pub(crate) version_match: Match,
    pub(crate) limit: usize,
    pub(crate) token: String,
    pub(crate) send_initial_events: Option<bool>,
    pub(crate) bookmarks: bool,
    pub(crate) timeout_seconds: Option<u64>,
    pub(crate) label_selector: String,
    pub(crate) field_selector: String,
}

impl ListOptions {
    pub(crate) fn parse(query: &Query, watch: bool) -> Result<ListOptions, ApiError> {
        let (version_match, version) = (query.get("resourceVersionMatch"), query.get("resourceVersion"));
        let options = ListOptions {
            resource_version: version.to_owned(),
            version_match: match version_match {
                "Exact" => Match::Exact,
                "NotOlderThan" => Match::NotOlderThan,
                _ => Match::Unset,
            },
            limit: query.number("limit")?.and_then(|n| usize::try_from(n).ok()).unwrap_or(0),
            token: query.get("continue").to_owned(),
            send_initial_events: query.flag("sendInitialEvents"),
            bookmarks: query.flag("allowWatchBookmarks").unwrap_or(false),
            timeout_seconds: query.number("timeoutSeconds")?.and_then(|n| u64::try_from(n).ok()),
            label_selector: query.get("labelSelector").to_owned(),
            field_selector: query.get("fieldSelector").to_owned(),
        };
        let errors = if watch { options.watch_errors(version_match) } else { options.list_errors(version_match) };
        if errors.is_empty() { Ok(options) } else { Err(errors.into_invalid("meta.k8s.io", "ListOptions", "")) }
    }

    fn list_errors(&self, version_match: &str) -> ErrorList {
        let mut errors = ErrorList::new();
        let path = Path::new("resourceVersionMatch");
        if !version_match.is_empty() {
            if self.resource_version.is_empty() {
                errors.forbidden(&path, "resourceVersionMatch is forbidden unless resourceVersion is provided");
            }
            if !self.token.is_empty() {
                errors.forbidden(&path, "resourceVersionMatch is forbidden when continue is provided");
            }
            if self.version_match == Match::Unset {
                errors.not_supported(&path, version_match, &["Exact", "NotOlderThan", ""]);
            }
            if self.version_match == Match::Exact && self.resource_version == "0" {
                errors.forbidden(&path, "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
            }
        }
        if self.send_initial_events.is_some() {
            errors.forbidden(&Path::new("sendInitialEvents"), "sendInitialEvents is forbidden for list");
        }
        errors
    }

    fn watch_errors(&self, version_match: &str) -> ErrorList {
        let mut errors = ErrorList::new();
        let path = Path::new("resourceVersionMatch");
        if self.send_initial_events.is_some() && self.version_match != Match::NotOlderThan {
            errors.forbidden(&path, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
        }
        if !version_match.is_empty() {
            if self.send_initial_events.is_none() {
                errors.forbidden(&path, "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided");
            }
            if self.version_match != Match::NotOlderThan {
                errors.not_supported(&path, version_match, &["NotOlderThan"]);
            }
            if !self.token.is_empty() {
                errors.forbidden(&path, "resourceVersionMatch is forbidden when continue is provided");
            }
        }
        errors
    }

    /// The revision asked for; 0 for none and for "0".
    pub(crate) fn revision(&self) -> Result<i64, ApiError> {
        parse_revision(&self.resource_version)
    }
}

pub(crate) fn parse_revision(text: &str) -> Result<i64, ApiError> {
    if text.is_empty() {
        return Ok(0);
    }
    text.parse::<u64>().ok().and_then(|r| i64::try_from(r).ok()).ok_or_else(|| {
        let mut errors = ErrorList::new();
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        let why = if digits { "value out of range" } else { "invalid syntax" };
        let detail = format!("strconv.ParseUint: parsing \"{text}\": {why}");
        errors.push(FieldError::invalid(&Path::new("resourceVersion"), text, detail));
        ApiError::bad_request(errors.message())
    })
}

/// `fieldValidation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Validation {
    Ignore,
    Warn,
    Strict,
}

/// Options of create, update and patch.
#[derive(Debug, Clone)]
pub(crate) struct WriteOptions {
    pub(crate) dry_run: bool,
    pub(crate) manager: String,
    pub(crate) validation: Validation,
    pub(crate) force: Option<bool>,
}

impl WriteOptions {
    /// `kind` is `CreateOptions`, `UpdateOptions` or `PatchOptions`.
    pub(crate) fn parse(info: &RequestInfo, query: &Query, kind: &str) -> Result<WriteOptions, ApiError> {
        let mut errors = ErrorList::new();
        let dry_run = check_dry_run(&mut errors, query.all("dryRun"));
        let validation = match query.get("fieldValidation") {
            "Strict" => Validation::Strict,
            "" | "Warn" => Validation::Warn,
            "Ignore" => Validation::Ignore,
            other => {
                errors.not_supported(&Path::new("fieldValidation"), other, &["", "Ignore", "Strict", "Warn"]);
                Validation::Warn
            }
        };
        let manager = query.get("fieldManager");
        check_manager(&mut errors, manager);
        if !errors.is_empty() {
            return Err(errors.into_invalid("meta.k8s.io", kind, ""));
        }
        let manager = if manager.is_empty() { from_user_agent(&info.user_agent) } else { manager.to_owned() };
        Ok(WriteOptions { dry_run, manager, validation, force: query.flag("force") })
    }
}

const LONGEST_MANAGER: usize = 128;

fn check_manager(errors: &mut ErrorList, manager: &str) {
    let path = Path::new("fieldManager");
    if manager.len() > LONGEST_MANAGER {
        errors.too_long(&path, LONGEST_MANAGER);
    }
    if let Some((i, c)) = manager.chars().enumerate().find(|(_, c)| c.is_control()) {
        errors.invalid(&path, manager, format!("invalid character U+{:04X} (at position {i})", u32::from(c)));
    }
}

/// The manager of a client that names none: what stands before the first slash.
fn from_user_agent(agent: &str) -> String {
    let mut manager = String::new();
    for c in agent.split('/').next().unwrap_or("").chars().filter(|c| !c.is_control()) {
        if manager.len() + c.len_utf8() > LONGEST_MANAGER {
            break;
        }
        manager.push(c);
    }
    manager
}

fn check_dry_run<'a>(errors: &mut ErrorList, values: impl Iterator<Item = &'a str>) -> bool {
    let mut dry = false;
    for value in values.filter(|v| !v.is_empty()) {
        if value == "All" {
            dry = true;
        } else {
            errors.not_supported(&Path::new("dryRun"), json!([value]), &["All"]);
        }
    }
    dry
}

/// What a body is that is no object.
fn misfit(tree: &Value) -> Option<&'static str> {
    match tree {
        Value::Object(_) | Value::Null => None,
        Value::Array(_) => Some("array"),
        Value::String(_) => Some("string"),
        Value::Number(_) => Some("number"),
        Value::Bool(_) => Some("bool"),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Propagation {
    Orphan,
    Background,
    Foreground,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct DeleteOptions {
    pub(crate) grace: Option<i64>,
    pub(crate) uid: Option<String>,
    pub(crate) resource_version: Option<String>,
    pub(crate) orphan_dependents: Option<bool>,
    pub(crate) propagation: Option<Propagation>,
    pub(crate) dry_run: bool,
}

impl DeleteOptions {
    /// From the body if there is one, else from the query.
    pub(crate) fn parse(info: &RequestInfo, query: &Query, body: &[u8]) -> Result<DeleteOptions, ApiError> {
        if body.is_empty() {
            return DeleteOptions::from_query(query);
        }
        let tree = match body_format(&info.content_type)? {
            Format::Json => codec::json::decode_raw(body).map_err(|e| ApiError::bad_request(e.to_string()))?,
            Format::Yaml => codec::yaml::to_tree(body).map_err(|e| ApiError::bad_request(e.to_string()))?,
            Format::Protobuf => codec::proto::decode(body).map_err(|e| ApiError::bad_request(e.to_string()))?.1,
        };
        if let Some(what) = misfit(&tree) {
            let small = r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;
            let why = format!("json: cannot unmarshal {what} into Go value of type {small}");
            return Err(ApiError::bad_request(format!("couldn't get version/kind; json parse error: {why}")));
        }
        let text = |field: &str| tree.get(field).and_then(Value::as_str).unwrap_or("");
        if !matches!(text("kind"), "" | "DeleteOptions") {
            let (kind, version) = (text("kind"), text("apiVersion"));
            return Err(ApiError::bad_request(format!("no kind \"{kind}\" is registered for version \"{version}\" in scheme {SCHEME}")));
        }
        DeleteOptions::from_tree(&tree)
    }

    fn from_query(query: &Query) -> Result<DeleteOptions, ApiError> {
        let mut errors = ErrorList::new();
        let options = DeleteOptions {
            grace: query.number("gracePeriodSeconds")?,
            uid: None,
            resource_version: None,
            orphan_dependents: query.flag("orphanDependents"),
            propagation: propagation(&mut errors, query.get("propagationPolicy")),
            dry_run: check_dry_run(&mut errors, query.all("dryRun")),
        };
        options.checked(errors)
    }

    pub(crate) fn from_tree(tree: &Value) -> Result<DeleteOptions, ApiError> {
        let mut errors = ErrorList::new();
        let text = |v: Option<&Value>| v.and_then(Value::as_str).map(str::to_owned);
        let preconditions = tree.get("preconditions");
        let dry: Vec<&str> = tree.get("dryRun").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        let options = DeleteOptions {
            grace: tree.get("gracePeriodSeconds").and_then(Value::as_i64),
            uid: text(preconditions.and_then(|p| p.get("uid"))),
            resource_version: text(preconditions.and_then(|p| p.get("resourceVersion"))),
            orphan_dependents: tree.get("orphanDependents").and_then(Value::as_bool),
            propagation: propagation(&mut errors, tree.get("propagationPolicy").and_then(Value::as_str).unwrap_or("")),
            dry_run: check_dry_run(&mut errors, dry.into_iter()),
        };
        options.checked(errors)
    }

    fn checked(self, mut errors: ErrorList) -> Result<DeleteOptions, ApiError> {
        if self.orphan_dependents.is_some() && self.propagation.is_some() {
            errors.invalid(
                &Path::new("propagationPolicy"),
                self.propagation.map_or("", Propagation::as_str),
                "orphanDependents and deletionPropagation cannot be both set",
            );
        }
        if errors.is_empty() { Ok(self) } else { Err(errors.into_invalid("meta.k8s.io", "DeleteOptions", "")) }
    }
}

impl DeleteOptions {
    /// As a client would send it, without its type.
    pub(crate) fn to_value(&self) -> Value {
        let mut tree = json!({});
        let mut set = |field: &str, value: Option<Value>| value.map(|value| tree[field] = value).unwrap_or_default();
        set("gracePeriodSeconds", self.grace.map(Value::from));
        set("orphanDependents", self.orphan_dependents.map(Value::from));
        set("propagationPolicy", self.propagation.map(|p| Value::from(p.as_str())));
        let preconditions = [("uid", &self.uid), ("resourceVersion", &self.resource_version)];
        let preconditions: serde_json::Map<String, Value> =
            preconditions.into_iter().filter_map(|(f, v)| Some((f.to_owned(), Value::from(v.clone()?)))).collect();
        set("preconditions", (!preconditions.is_empty()).then_some(Value::Object(preconditions)));
        tree
    }
}

impl Propagation {
    fn as_str(self) -> &'static str {
        match self {
            Propagation::Orphan => "Orphan",
            Propagation::Background => "Background",
            Propagation::Foreground => "Foreground",
        }
    }
}

fn propagation(errors: &mut ErrorList, text: &str) -> Option<Propagation> {
    match text {
        "" => None,
        "Orphan" => Some(Propagation::Orphan),
        "Background" => Some(Propagation::Background),
        "Foreground" => Some(Propagation::Foreground),
        other => {
            errors.not_supported(&Path::new("propagationPolicy"), other, &["Foreground", "Background", "Orphan", "nil"]);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_decoded() {
        let query = Query::parse("labelSelector=a%3Db%2Cc+in+%28d%29&watch&limit=5");
        assert_eq!(query.get("labelSelector"), "a=b,c in (d)");
        assert_eq!(query.flag("watch"), Some(true));
        assert_eq!(query.number("limit").ok().flatten(), Some(5));
        assert!(Query::parse("limit=x").number("limit").is_err());
    }

    #[test]
    fn list_options_are_checked_in_upstreams_words() {
        for (query, watch, want) in [
            (
                "resourceVersionMatch=Exact",
                false,
                "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
            ),
            (
                "resourceVersionMatch=Exact&resourceVersion=0",
                false,
                "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
            ),
            (
                "sendInitialEvents=true",
                false,
                "ListOptions.meta.k8s.io \"\" is invalid: sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list",
            ),
            (
                "sendInitialEvents=true",
                true,
                "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ),
        ] {
            let error = ListOptions::parse(&Query::parse(query), watch).err().map(|e| e.message);
            assert_eq!(error.as_deref(), Some(want), "{query}");
        }
        assert!(ListOptions::parse(&Query::parse("sendInitialEvents=true&resourceVersionMatch=NotOlderThan"), true).is_ok());
    }

    #[test]
    fn delete_options_from_a_tree() {
        let tree = serde_json::json!({"gracePeriodSeconds": 0, "preconditions": {"uid": "u"}, "propagationPolicy": "Foreground", "dryRun": ["All"]});
        let options = DeleteOptions::from_tree(&tree).unwrap_or_default();
        assert_eq!(
            (options.grace, options.uid.as_deref(), options.propagation, options.dry_run),
            (Some(0), Some("u"), Some(Propagation::Foreground), true)
        );
        assert!(DeleteOptions::from_tree(&serde_json::json!({"propagationPolicy": "Foreground", "orphanDependents": true})).is_err());
    }

    #[test]
    fn a_manager_comes_from_the_user_agent() {
        assert_eq!(from_user_agent("kubectl/v1.36.3 (linux/amd64)"), "kubectl");
    }
}
