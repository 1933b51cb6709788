//! What a request asks for, read off its method, path and query by upstream's rules (RequestInfoFactory): verb, group, version, namespace,
//! resource, subresource and name; or a path that is no resource (`/healthz`, `/apis`, …).

use std::borrow::Cow;
use std::time::Duration;

use http::Method;
use percent_encoding::percent_decode_str;
use tiphys_meta::ApiError;
use tiphys_meta::selector::{FieldSelector, LabelSelector, SelectorError};

/// The decoded query, in order. Keys may repeat (`?command=sh&command=-c`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(raw: &str) -> Self {
        let pairs = raw.split('&').filter(|p| !p.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode_form(key), decode_form(value))
        });
        Query(pairs.collect())
    }

    /// The first value of `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// A flag as Go clients write it: absent, `false` and `0` mean no.
    pub fn flag(&self, key: &str) -> bool {
        self.get(key).is_some_and(|v| !matches!(v.to_ascii_lowercase().as_str(), "false" | "0"))
    }

    pub fn pairs(&self) -> &[(String, String)] {
        &self.0
    }
}

fn decode_form(text: &str) -> String {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
}

/// What a request asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Info {
    pub is_resource: bool,
    /// The path, decoded.
    pub path: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`, `proxy`; the method in lower case off resources.
    pub verb: String,
    pub group: String,
    pub version: String,
    pub namespace: String,
    pub resource: String,
    pub subresource: String,
    pub name: String,
    /// What follows the subresource in the path, as it came (still percent-encoded), with its leading slash: the target of a proxy.
    pub rest: String,
    pub field_selector: Option<String>,
    pub label_selector: Option<String>,
    pub query: Query,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    #[error("unable to determine kind and namespace from url, {0}")]
    Incomplete(String),
    #[error("the path {0:?} holds a percent code that is no UTF-8")]
    Encoding(String),
    #[error("invalid timeout specified in the request URL - time: invalid duration {0:?}")]
    Timeout(String),
}

const SPECIAL_VERBS: [&str; 2] = ["proxy", "watch"];
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

impl Info {
    /// What a list is narrowed to.
    pub(crate) fn selectors(&self) -> Result<(LabelSelector, FieldSelector), ApiError> {
        let bad = |e: SelectorError| ApiError::bad_request(e.to_string());
        let labels = LabelSelector::parse(self.label_selector.as_deref().unwrap_or("")).map_err(bad)?;
        Ok((labels, FieldSelector::parse(self.field_selector.as_deref().unwrap_or("")).map_err(bad)?))
    }

    pub fn parse(method: &Method, raw_path: &str, raw_query: &str) -> Result<Info, BadPath> {
        let parts: Vec<&str> = split(raw_path);
        let plain = !raw_path.contains('%');
        let decoded = |part: &str| -> Result<String, BadPath> {
            if plain {
                return Ok(part.to_owned());
            }
            let text: Cow<'_, str> = percent_decode_str(part).decode_utf8().map_err(|_| BadPath::Encoding(raw_path.to_owned()))?;
            Ok(text.into_owned())
        };
        let mut info = Info {
            path: decoded(raw_path)?,
            verb: method.as_str().to_ascii_lowercase(),
            query: Query::parse(raw_query),
            ..Info::default()
        };
        let Some((group, parts)) = resource_parts(&parts) else { return Ok(info) };
        info.is_resource = true;
        info.group = decoded(group)?;
        info.version = decoded(parts[0])?;
        let mut parts = &parts[1..];
        let special = SPECIAL_VERBS.contains(&parts[0]);
        if special {
            if parts.len() < 2 {
                return Err(BadPath::Incomplete(raw_path.to_owned()));
            }
            info.verb = parts[0].to_owned();
            parts = &parts[1..];
        } else {
            info.verb = verb_of(method).to_owned();
        }
        if parts[0] == "namespaces" && parts.len() > 1 {
            info.namespace = decoded(parts[1])?;
            if parts.len() > 2 && !NAMESPACE_SUBRESOURCES.contains(&parts[2]) {
                parts = &parts[2..];
            }
        }
        info.take_parts(parts, raw_path, decoded)?;
        info.settle_verb(special);
        Ok(info)
    }

    fn take_parts(&mut self, parts: &[&str], raw_path: &str, decoded: impl Fn(&str) -> Result<String, BadPath>) -> Result<(), BadPath> {
        self.resource = decoded(parts[0])?;
        if let Some(name) = parts.get(1) {
            self.name = decoded(name)?;
        }
        let Some(subresource) = parts.get(2).filter(|_| self.verb != "proxy") else { return Ok(()) };
        self.subresource = decoded(subresource)?;
        if parts.len() > 3 {
            // The tail is cut from the path as it came, so that a trailing slash stays.
            let behind: usize = parts[3..].iter().map(|p| p.len() + 1).sum();
            let trailing = raw_path.len() - raw_path.trim_end_matches('/').len();
            self.rest = raw_path[raw_path.len() - trailing - behind..].to_owned();
        } else if raw_path.ends_with('/') {
            self.rest = "/".to_owned();
        }
        Ok(())
    }

    /// A get or delete without a name is about the collection.
    fn settle_verb(&mut self, special: bool) {
        if self.name.is_empty() && self.verb == "get" {
            self.verb = if self.query.flag("watch") { "watch" } else { "list" }.to_owned();
            let named = self.query.get("fieldSelector").and_then(exact_name).map(str::to_owned);
            self.name = named.unwrap_or_default();
        }
        if self.name.is_empty() && self.verb == "delete" {
            self.verb = "deletecollection".to_owned();
        }
        if !special && matches!(self.verb.as_str(), "list" | "watch" | "deletecollection") {
            self.field_selector = self.query.get("fieldSelector").map(str::to_owned);
            self.label_selector = self.query.get("labelSelector").map(str::to_owned);
        }
    }

    /// `deployments.apps`, or `pods` in the core group.
    pub fn group_resource(&self) -> String {
        if self.group.is_empty() { self.resource.clone() } else { format!("{}.{}", self.resource, self.group) }
    }

    /// How long the client wants to wait at most (`?timeout=`); upstream takes zero for no wish.
    pub(crate) fn timeout(&self) -> Result<Option<Duration>, BadPath> {
        let Some(text) = self.query.get("timeout").filter(|text| !text.is_empty()) else { return Ok(None) };
        let nanos = tiphys_meta::duration::parse(text).ok_or_else(|| BadPath::Timeout(text.to_owned()))?;
        Ok(u64::try_from(nanos).ok().filter(|nanos| *nanos > 0).map(Duration::from_nanos))
    }

    /// Requests that may last as long as their client likes.
    pub fn is_long_running(&self) -> bool {
        self.verb == "watch"
            || (self.is_resource
                && (self.verb == "proxy" || matches!(self.subresource.as_str(), "attach" | "exec" | "proxy" | "log" | "portforward")))
    }
}

fn split(path: &str) -> Vec<&str> {
    let trimmed = path.trim_matches('/');
    let mut parts = Vec::new();
    if !trimmed.is_empty() {
        // As many as the path of an object in a namespace has.
        parts.reserve(8);
        parts.extend(trimmed.split('/'));
    }
    parts
}

/// The group, and the parts from the version on, where the path is one of a resource.
fn resource_parts<'a, 'p>(parts: &'a [&'p str]) -> Option<(&'p str, &'a [&'p str])> {
    match parts {
        ["api", _, _, ..] => Some(("", &parts[1..])),
        ["apis", group, _, _, ..] => Some((group, &parts[2..])),
        _ => None,
    }
}

fn verb_of(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::GET | Method::HEAD => "get",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    }
}

/// The name that a field selector pins `metadata.name` to; only names that can be a path segment count.
fn exact_name(selector: &str) -> Option<&str> {
    selector.split(',').find_map(|term| {
        let value = term.strip_prefix("metadata.name=")?;
        let value = value.strip_prefix('=').unwrap_or(value);
        let good = !value.is_empty() && value != "." && value != ".." && !value.contains(['/', '%', '\\']);
        good.then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(method: &str, url: &str) -> Info {
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        Info::parse(&Method::from_bytes(method.as_bytes()).expect("method"), path, query).expect("a good path")
    }

    #[test]
    fn resources_and_verbs() {
        // method, url → verb, group, version, namespace, resource, subresource, name
        let table = [
            ("GET", "/api/v1/namespaces", "list||v1||namespaces||"),
            ("GET", "/api/v1/namespaces/other", "get||v1|other|namespaces||other"),
            ("GET", "/api/v1/namespaces/other/pods", "list||v1|other|pods||"),
            ("GET", "/api/v1/namespaces/other/pods/foo", "get||v1|other|pods||foo"),
            ("HEAD", "/api/v1/namespaces/other/pods/foo", "get||v1|other|pods||foo"),
            ("GET", "/api/v1/pods", "list||v1||pods||"),
            ("GET", "/api/v1/pods?watch=true", "watch||v1||pods||"),
            ("GET", "/api/v1/pods?watch=0", "list||v1||pods||"),
            ("GET", "/api/v1/watch/namespaces/other/pods/foo", "watch||v1|other|pods||foo"),
            ("GET", "/api/v1/watch/pods", "watch||v1||pods||"),
            ("GET", "/api/v1/proxy/namespaces/other/pods/foo/x", "proxy||v1|other|pods||foo"),
            ("PUT", "/api/v1/namespaces/other/finalize", "update||v1|other|namespaces|finalize|other"),
            ("PUT", "/api/v1/namespaces/other/status", "update||v1|other|namespaces|status|other"),
            ("POST", "/api/v1/namespaces/other/pods/foo/exec?command=ls", "create||v1|other|pods|exec|foo"),
            ("DELETE", "/api/v1/nodes/n", "delete||v1||nodes||n"),
            ("DELETE", "/api/v1/nodes", "deletecollection||v1||nodes||"),
            ("PATCH", "/apis/apps/v1/namespaces/a/deployments/b/scale", "patch|apps|v1|a|deployments|scale|b"),
            ("GET", "/apis/apps/v1/deployments?fieldSelector=metadata.name%3Dx", "list|apps|v1||deployments||x"),
            ("OPTIONS", "/api/v1/pods", "||v1||pods||"),
        ];
        for (method, url, want) in table {
            let i = parse(method, url);
            assert!(i.is_resource, "{url}");
            let got = [i.verb, i.group, i.version, i.namespace, i.resource, i.subresource, i.name].join("|");
            assert_eq!(got, want, "{method} {url}");
        }
    }

    #[test]
    fn paths_that_are_no_resource() {
        for url in ["/", "/api", "/api/v1", "/apis/apps", "/apis/apps/v1", "/healthz", "/openapi/v3/apis/apps/v1", "/livez/ping"] {
            let info = parse("GET", url);
            assert!(!info.is_resource, "{url}");
            assert_eq!((info.verb.as_str(), info.path.as_str()), ("get", url));
        }
    }

    #[test]
    fn the_tail_of_a_proxy_path_stays_as_it_came() {
        let rest = |url: &str| parse("GET", url).rest;
        assert_eq!(rest("/api/v1/namespaces/a/pods/http:b:80/proxy"), "");
        assert_eq!(rest("/api/v1/namespaces/a/pods/b/proxy/"), "/");
        assert_eq!(rest("/api/v1/namespaces/a/pods/b/proxy/x%2Fy/z/?q=1"), "/x%2Fy/z/");
        assert_eq!(rest("/api/v1/nodes/n/proxy/logs"), "/logs");
    }

    #[test]
    fn queries_repeat_and_decode() {
        let query = Query::parse("command=sh&command=-c&x=a+b%26&stdin=true&tty");
        assert_eq!(query.pairs().iter().filter(|(k, _)| k == "command").count(), 2);
        assert_eq!(query.get("x"), Some("a b&"));
        assert!(query.flag("stdin") && query.flag("tty") && !query.flag("stdout"));
    }

    #[test]
    fn a_special_verb_needs_a_resource() {
        assert!(Info::parse(&Method::GET, "/api/v1/watch", "").is_err());
    }
}
