//! Paths and operations of resources, in a form that both versions are printed from.

use std::collections::BTreeMap;

use tiphys_meta::Gvk;

use super::{Route, SubRoute, camel_group, capital, tag};
use crate::facts::{Facts, Shape};

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Operation {
    pub(super) id: String,
    pub(super) tag: String,
    /// `list`, `watchlist`, `connect` …; none for operations on no resource.
    pub(super) action: Option<(&'static str, Gvk)>,
    pub(super) parameters: Vec<Parameter>,
    pub(super) body: Option<Body>,
    /// Codes with a schema; every operation answers 401 besides.
    pub(super) codes: &'static [&'static str],
    pub(super) answer: Answer,
    pub(super) produces: Produces,
    /// Of a custom resource: no protobuf, no strategic merge patch.
    pub(super) custom: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Parameter {
    pub(super) name: String,
    pub(super) place: &'static str,
    pub(super) kind: &'static str,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Body {
    /// An object; required but for DeleteOptions.
    Object(String, bool),
    Patch,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Answer {
    Ref(String),
    Text,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Produces {
    Objects,
    Watch,
    Log,
    Anything,
    Keys,
}

/// Operations of each path, by method.
pub(super) type Paths = BTreeMap<String, BTreeMap<&'static str, Operation>>;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const LIST: [(&str, &str); 11] = [
    ("allowWatchBookmarks", "boolean"),
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("shardSelector", "string"),
    ("timeoutSeconds", "integer"),
    ("watch", "boolean"),
];
const DELETE: [(&str, &str); 5] = [
    ("dryRun", "string"),
    ("gracePeriodSeconds", "integer"),
    ("ignoreStoreReadErrorWithClusterBreakingPotential", "boolean"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
];
const WRITE: [(&str, &str); 3] = [("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string")];
const PRETTY: [(&str, &str); 1] = [("pretty", "string")];

/// The paths of a group version.
pub(super) fn of_version(group: &str, version: &str, routes: &[Route<'_>]) -> Paths {
    let mut paths = Paths::new();
    let prefix = if group.is_empty() { format!("/api/{version}/") } else { format!("/apis/{group}/{version}/") };
    let id = format!("get{}{}APIResources", capital(&camel_group(group)), capital(version));
    add(&mut paths, &prefix, "get", plain(id, tag(group, version), "APIResourceList"));
    for route in routes {
        Writer { route, prefix: &prefix, paths: &mut paths }.write();
    }
    paths
}

/// `/api/`, `/apis/`, `/apis/<group>/`.
pub(super) fn of_root(path: &str) -> Paths {
    let mut paths = Paths::new();
    let (operation, path) = match path {
        "api" => (plain("getCoreAPIVersions".into(), "core".into(), "APIVersions"), "/api/".to_owned()),
        "apis" => (plain("getAPIVersions".into(), "apis".into(), "APIGroupList"), "/apis/".to_owned()),
        "version" => (version_operation(), "/version/".to_owned()),
        other => {
            let group = other.trim_start_matches("apis/");
            (plain(format!("get{}APIGroup", capital(&camel_group(group))), tag(group, ""), "APIGroup"), format!("/{other}/"))
        }
    };
    add(&mut paths, &path, "get", operation);
    paths
}

fn version_operation() -> Operation {
    let mut operation = plain("getCodeVersion".into(), "version".into(), "");
    operation.answer = Answer::Ref("io.k8s.apimachinery.pkg.version.Info".into());
    operation.produces = Produces::Keys;
    operation
}

fn plain(id: String, tag: String, answer: &str) -> Operation {
    Operation {
        id,
        tag,
        action: None,
        parameters: Vec::new(),
        body: None,
        codes: &["200"],
        answer: Answer::Ref(format!("{META}.{answer}")),
        produces: Produces::Objects,
        custom: false,
    }
}

fn add(paths: &mut Paths, path: &str, method: &'static str, mut operation: Operation) {
    operation.parameters.sort();
    paths.entry(path.to_owned()).or_default().insert(method, operation);
}

struct Writer<'a, 'r> {
    route: &'a Route<'r>,
    prefix: &'a str,
    paths: &'a mut Paths,
}

fn queries(list: &[(&str, &'static str)]) -> impl Iterator<Item = Parameter> {
    list.iter().map(|(name, kind)| Parameter { name: (*name).to_owned(), place: "query", kind })
}

fn path_parameter(name: &str) -> Parameter {
    Parameter { name: name.to_owned(), place: "path", kind: "string" }
}

impl Writer<'_, '_> {
    fn has(&self, verb: &str) -> bool {
        self.route.verbs.contains(&verb)
    }

    /// `AppsV1` + `Namespaced` + `Deployment`, with `Collection` before where asked.
    fn id(&self, verb: &str, collection: bool, namespaced: bool, suffix: &str) -> String {
        let r = self.route;
        let (group, version) = (capital(&camel_group(r.group)), capital(r.version));
        let collection = if collection { "Collection" } else { "" };
        let namespaced = if namespaced { "Namespaced" } else { "" };
        format!("{verb}{group}{version}{collection}{namespaced}{}{suffix}", r.gvk.kind)
    }

    fn collection_path(&self) -> String {
        let namespace = if self.route.namespaced { "namespaces/{namespace}/" } else { "" };
        format!("{}{namespace}{}", self.prefix, self.route.plural)
    }

    fn places(&self, named: bool) -> Vec<Parameter> {
        let mut parameters: Vec<Parameter> = Vec::new();
        if self.route.namespaced {
            parameters.push(path_parameter("namespace"));
        }
        if named {
            parameters.push(path_parameter("name"));
        }
        parameters
    }

    fn operation(&self, id: String, action: &'static str, gvk: &Gvk, object: &str, named: bool) -> Operation {
        let mut parameters = self.places(named);
        parameters.extend(queries(&PRETTY));
        Operation {
            id,
            tag: tag(self.route.group, self.route.version),
            action: Some((action, gvk.clone())),
            parameters,
            body: None,
            codes: &["200"],
            answer: Answer::Ref(object.to_owned()),
            produces: Produces::Objects,
            custom: self.route.custom,
        }
    }

    fn write(mut self) {
        self.collection();
        self.item();
        if !self.route.custom {
            self.watches();
        }
        for subresource in &self.route.subresources {
            self.subresource(subresource);
        }
    }

    fn collection(&mut self) {
        let r = self.route;
        let path = self.collection_path();
        if self.has("list") {
            let mut list = self.operation(self.id("list", false, r.namespaced, ""), "list", &r.gvk, &r.list, false);
            list.parameters.extend(queries(&LIST));
            list.produces = Produces::Watch;
            add(self.paths, &path, "get", list);
        }
        if self.has("create") {
            let mut create = self.operation(self.id("create", false, r.namespaced, ""), "post", &r.gvk, &r.object, false);
            create.parameters.extend(queries(&WRITE));
            create.body = Some(Body::Object(r.object.clone(), true));
            create.codes = &["200", "201", "202"];
            add(self.paths, &path, "post", create);
        }
        if self.has("deletecollection") {
            let id = self.id("delete", true, r.namespaced, "");
            let mut delete = self.operation(id, "deletecollection", &r.gvk, &format!("{META}.Status"), false);
            delete.parameters.extend(queries(&LIST).filter(|p| !matches!(p.name.as_str(), "allowWatchBookmarks" | "watch")));
            delete.parameters.extend(queries(&DELETE));
            delete.body = Some(Body::Object(format!("{META}.DeleteOptions"), false));
            add(self.paths, &path, "delete", delete);
        }
        if self.has("list") && r.namespaced {
            let mut list = self.operation(self.id("list", false, false, "ForAllNamespaces"), "list", &r.gvk, &r.list, false);
            list.parameters.retain(|p| p.place == "query");
            list.parameters.extend(queries(&LIST));
            list.produces = Produces::Watch;
            add(self.paths, &format!("{}{}", self.prefix, r.plural), "get", list);
        }
    }

    fn item(&mut self) {
        let r = self.route;
        let path = format!("{}/{{name}}", self.collection_path());
        let (gvk, object, verbs) = (&r.gvk, &r.object, &r.verbs);
        self.reads_and_writes(&path, "", gvk, object, verbs);
        if self.has("delete") {
            let status = format!("{META}.Status");
            let answer = if r.delete_returns_object { object } else { &status };
            let mut delete = self.operation(self.id("delete", false, r.namespaced, ""), "delete", gvk, answer, true);
            delete.parameters.extend(queries(&DELETE));
            delete.body = Some(Body::Object(format!("{META}.DeleteOptions"), false));
            delete.codes = &["200", "202"];
            add(self.paths, &path, "delete", delete);
        }
    }

    /// GET, PUT and PATCH of an object or of a part of it.
    fn reads_and_writes(&mut self, path: &str, suffix: &str, gvk: &Gvk, object: &str, verbs: &[&str]) {
        let namespaced = self.route.namespaced;
        if verbs.contains(&"get") {
            let get = self.operation(self.id("read", false, namespaced, suffix), "get", gvk, object, true);
            add(self.paths, path, "get", get);
        }
        if verbs.contains(&"update") {
            let mut put = self.operation(self.id("replace", false, namespaced, suffix), "put", gvk, object, true);
            put.parameters.extend(queries(&WRITE));
            put.body = Some(Body::Object(object.to_owned(), true));
            put.codes = &["200", "201"];
            add(self.paths, path, "put", put);
        }
        if verbs.contains(&"patch") {
            let mut patch = self.operation(self.id("patch", false, namespaced, suffix), "patch", gvk, object, true);
            patch.parameters.extend(queries(&WRITE));
            patch.parameters.extend(queries(&[("force", "boolean")]));
            patch.body = Some(Body::Patch);
            patch.codes = &["200", "201"];
            add(self.paths, path, "patch", patch);
        }
    }

    /// The watch paths of old, deprecated and served.
    fn watches(&mut self) {
        let r = self.route;
        if !self.has("watch") {
            return;
        }
        let event = format!("{META}.WatchEvent");
        let collection = if r.namespaced { format!("namespaces/{{namespace}}/{}", r.plural) } else { r.plural.to_owned() };
        let mut all = vec![(self.id("watch", false, r.namespaced, "List"), "watchlist", collection.clone())];
        if self.has("get") {
            all.push((self.id("watch", false, r.namespaced, ""), "watch", format!("{collection}/{{name}}")));
        }
        if r.namespaced {
            all.push((self.id("watch", false, false, "ListForAllNamespaces"), "watchlist", r.plural.to_owned()));
        }
        for (id, action, path) in all {
            let mut watch = self.operation(id, action, &r.gvk, &event, action == "watch");
            watch.parameters.retain(|p| p.place == "query" || path.contains('{'));
            watch.parameters.extend(queries(&LIST));
            watch.produces = Produces::Watch;
            add(self.paths, &format!("{}watch/{path}", self.prefix), "get", watch);
        }
    }

    fn subresource(&mut self, sub: &SubRoute<'_>) {
        let path = format!("{}/{{name}}/{}", self.collection_path(), sub.name);
        let suffix = capital(sub.name);
        if sub.gvk.kind.ends_with("Options") {
            self.connect(sub, &path, &suffix);
            if sub.name == "proxy" {
                self.connect(sub, &format!("{path}/{{path}}"), &format!("{suffix}WithPath"));
            }
            return;
        }
        self.reads_and_writes(&path, &suffix, &sub.gvk, &sub.object, &sub.verbs);
        if sub.verbs.contains(&"create") {
            let id = self.id("create", false, self.route.namespaced, &suffix);
            let mut create = self.operation(id, "post", &sub.gvk, &sub.object, true);
            create.parameters.extend(queries(&WRITE));
            create.body = Some(Body::Object(sub.object.clone(), true));
            create.codes = &["200", "201", "202"];
            add(self.paths, &path, "post", create);
        }
        if sub.name == "log"
            && let Some(get) = self.paths.get_mut(&path).and_then(|p| p.get_mut("get"))
        {
            get.parameters.extend(option_queries(&Gvk::new("", "v1", "PodLogOptions")));
            get.parameters.sort();
            get.answer = Answer::Text;
            get.produces = Produces::Log;
        }
    }

    /// Streams and proxies: any of their methods, with the options of the kind as parameters.
    fn connect(&mut self, sub: &SubRoute<'_>, path: &str, suffix: &str) {
        const STREAM: &[&str] = &["get", "post"];
        const PROXY: &[&str] = &["delete", "get", "head", "options", "patch", "post", "put"];
        let methods = if sub.name == "proxy" { PROXY } else { STREAM };
        for method in methods {
            let id = self.id(&format!("connect{{{method}}}"), false, self.route.namespaced, suffix);
            // The method stands behind group and version: `connectCoreV1GetNamespacedPodExec`.
            let id = place_method(&id, method, self.route);
            let mut connect = self.operation(id, "connect", &sub.gvk, "", true);
            connect.parameters.retain(|p| p.place == "path");
            connect.parameters.extend(option_queries(&sub.gvk));
            if path.ends_with("{path}") {
                connect.parameters.push(path_parameter("path"));
            }
            connect.answer = Answer::Text;
            connect.produces = Produces::Anything;
            add(self.paths, path, method, connect);
        }
    }
}

fn place_method(id: &str, method: &str, route: &Route<'_>) -> String {
    let version = format!("{}{}", capital(&camel_group(route.group)), capital(route.version));
    id.replacen(&format!("connect{{{method}}}{version}"), &format!("connect{version}{}", capital(method)), 1)
}

/// The fields of an options kind, as query parameters.
fn option_queries(gvk: &Gvk) -> Vec<Parameter> {
    let Some(kind) = Facts::builtin().kind(gvk) else { return Vec::new() };
    let fields = kind.ty().index().flat().iter().map(|f| f.field).filter(|f| !matches!(f.name, "kind" | "apiVersion" | "sinceTime"));
    fields
        .map(|f| {
            let shape = if let Shape::List(of) = f.shape { of } else { f.shape };
            let kind = match shape {
                Shape::Bool => "boolean",
                Shape::I32 | Shape::I64 => "integer",
                _ => "string",
            };
            Parameter { name: f.name.to_owned(), place: "query", kind }
        })
        .collect()
}
