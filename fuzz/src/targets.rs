//! What is fuzzed. A target reads bytes, says whether they were well-formed, and holds what it made against what must be true of it.

use std::sync::LazyLock;

use serde_json::{Value, json};
use tiphys_cel::admission::{Declared, Known};
use tiphys_cel::{PER_CALL_LIMIT, Program, Val, admission};
use tiphys_meta::{FieldSelector, Gvk, LabelSelector, Quantity};
use tiphys_schema::apply::{self, Schema};
use tiphys_schema::codec::{Strictness, json as codec, proto, yaml};
use tiphys_schema::structural::{JsonPath, embedded};
use tiphys_schema::{Facts, Kind, patch, structural};

use crate::{requests, streams};

pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) seeds: fn() -> Vec<Vec<u8>>,
    pub(crate) words: &'static [&'static str],
    /// For each byte of the input, and beside that in any case.
    pub(crate) memory: (usize, usize),
    pub(crate) read: fn(&[u8]) -> bool,
}

/// What the issue asks for: ten times the input.
const PLAIN: (usize, usize) = (10, 256 << 10);
/// A number in a list takes two bytes as text and 32 as a node of a tree, twice while its list grows; an object with one field takes eight bytes and 600.
/// What bounds that for large inputs is the budget of the codecs (`codec::budget`), for which `largest` is the test.
const TREE: (usize, usize) = (256, 1 << 20);
/// Besides the trees there are the sets of fields of every manager, old and new.
const APPLIED: (usize, usize) = (512, 2 << 20);
/// Expressions and patterns become programs; how large one may be is bounded by itself (100,000 letters, 4 MiB for a pattern, of which compiling takes four).
const COMPILED: (usize, usize) = (512, 16 << 20);
/// Buffers of a connection, and of its streams.
const CONNECTED: (usize, usize) = (64, 1 << 20);
/// A frame's room is asked for when its length is announced; upstream takes 32 MiB too, and the pages come as the bytes do.
const FRAMED: (usize, usize) = (64, 33 << 20);
/// The whole way to the store and back; lists answer with what earlier requests have made.
const ANSWERED: (usize, usize) = (1024, 32 << 20);
/// Whatever the input: three trees of the size that one may have.
pub(crate) const MOST: usize = 3 * tiphys_schema::codec::budget::MOST_BYTES;

pub(crate) static TARGETS: &[Target] = &[
    Target { name: "json", memory: TREE, seeds: documents, words: JSON, read: json_document },
    Target { name: "yaml", memory: TREE, seeds: yaml_documents, words: YAML, read: |bytes| yaml::to_tree(bytes).is_ok() },
    Target {
        name: "protobuf",
        memory: PLAIN,
        seeds: protobuf_documents,
        words: &["k8s\0", "\x0a\u{7f}", "\x12\0", "\u{7f}\u{7f}\u{7f}\u{7f}"],
        read: protobuf,
    },
    Target { name: "jsonpatch", memory: TREE, seeds: json_patches, words: PATCH, read: json_patch },
    Target { name: "merge", memory: TREE, seeds: merge_patches, words: JSON, read: merge_patch },
    Target { name: "strategic", memory: TREE, seeds: merge_patches, words: STRATEGIC, read: strategic_patch },
    Target { name: "apply", memory: APPLIED, seeds: merge_patches, words: STRATEGIC, read: apply_config },
    Target { name: "owners", memory: APPLIED, seeds: owners, words: OWNERS, read: apply_over },
    Target { name: "structural", memory: COMPILED, seeds: structures, words: STRUCTURES, read: structure },
    Target {
        name: "jsonpath",
        memory: TREE,
        seeds: || lines(&[".spec.size", ".a[0].b['c d']", "..x", ".items[*].name", ".a[?(@.b==1)]"]),
        words: PATHS,
        read: json_path,
    },
    Target { name: "cel", memory: COMPILED, seeds: expressions, words: CEL, read: expression },
    Target {
        name: "labels",
        memory: TREE,
        seeds: || lines(&["a=b,c!=d", "a in (b, c),!d", "x.y/z notin (a),w", "a==b"]),
        words: SELECTORS,
        read: labels,
    },
    Target {
        name: "fields",
        memory: TREE,
        seeds: || lines(&["metadata.name=a,spec.nodeName!=b", "a==b", r"a=b\,c\=d\\"]),
        words: SELECTORS,
        read: fields,
    },
    Target {
        name: "quantity",
        memory: PLAIN,
        seeds: || lines(&["1", "1.5Gi", "100m", "-12E6", "1e-9", "0.000000001", "9223372036854775807Ki"]),
        words: QUANTITIES,
        read: quantity,
    },
    Target { name: "spdy", memory: CONNECTED, seeds: streams::spdy_seeds, words: streams::SPDY, read: streams::spdy },
    Target { name: "websocket", memory: FRAMED, seeds: streams::websocket_seeds, words: streams::WEBSOCKET, read: streams::websocket },
    Target { name: "requests", memory: ANSWERED, seeds: requests::seeds, words: requests::WORDS, read: requests::answered },
];

const JSON: &[&str] = &[
    "null",
    "true",
    "{}",
    "[]",
    "\"\"",
    "\\u0000",
    "\\ud800",
    "\"metadata\":",
    "\"annotations\":{\"a\":1}",
    "\"spec\":",
    "\"items\":",
    "\"$patch\":\"delete\"",
    "\"creationTimestamp\":\"2026-13-01T00:00:00Z\"",
    "\u{feff}",
    "\"kind\":",
    "/*x*/",
];
const YAML: &[&str] = &[
    "&a ",
    "*a",
    "<<: *a\n",
    "---\n",
    "!!binary ",
    "? ",
    "|-\n",
    ">\n",
    "'",
    "0o17",
    "~",
    "\t",
    "- - - ",
    "%YAML 1.1\n",
    "...\n",
    "{a: *a}",
];
const PATCH: &[&str] = &[
    "\"op\":\"move\"",
    "\"op\":\"copy\"",
    "\"op\":\"test\"",
    "\"op\":\"remove\"",
    "\"from\":\"/spec\"",
    "\"path\":\"\"",
    "/spec/containers/-",
    "/spec/containers/00",
    "~1",
    "~0",
    "~2",
    "null",
];
const STRATEGIC: &[&str] = &[
    "\"$patch\":\"replace\"",
    "\"$patch\":\"merge\"",
    "\"$retainKeys\":[\"a\"]",
    "\"$setElementOrder/containers\":[{\"name\":\"b\"},{\"name\":\"c\"}]",
    "\"$deleteFromPrimitiveList/finalizers\":[\"x\"]",
    "null",
    "[]",
    "{}",
    "\"name\":\"c\"",
    "{\"name\":\"c\"},",
    "\"ports\":[{\"containerPort\":80}]",
];
const OWNERS: &[&str] = &[
    "\"f:spec\":",
    "\"k:{\\\"name\\\":\\\"c\\\"}\":",
    "\"v:\\\"x\\\"\":",
    "\"i:0\":",
    "\".\":{}",
    "\"f:\":",
    "\"k:{}\":",
    "{}",
    "\"operation\":\"Apply\"",
    "\"manager\":\"m\"",
    "\"fieldsType\":\"FieldsV1\"",
    "\"subresource\":\"status\"",
];
const STRUCTURES: &[&str] = &[
    "\"type\":\"object\"",
    "\"x-kubernetes-int-or-string\":true",
    "\"x-kubernetes-preserve-unknown-fields\":true",
    "\"additionalProperties\":{\"type\":\"string\"}",
    "\"pattern\":\"(a+)+$\"",
    "\"pattern\":\"[\"",
    "\"maximum\":1e308",
    "\"multipleOf\":0",
    "\"enum\":[null]",
    "\"items\":{}",
    "\"default\":{}",
    "\"nullable\":true",
    "\"x-kubernetes-list-type\":\"map\"",
    "\"x-kubernetes-list-map-keys\":[\"a\"]",
    "\"format\":\"date-time\"",
    "\"x-kubernetes-embedded-resource\":true",
];
const PATHS: &[&str] = &["[", "]", "..", "['", "']", "[*]", "[-1]", "[1:2:0]", "?(@.", "{", "}", "\\"];
const CEL: &[&str] = &[
    "x",
    "object",
    ".all(i, ",
    ".map(i, ",
    ".exists(i, i == ",
    ".filter(i, true)",
    "has(",
    "size(",
    "matches(",
    "'(a+)+$'",
    ".split(',')",
    "[1, 2]",
    "{'a': 1}",
    "? 1 : 2",
    "&&",
    "||",
    "in",
    "duration('1h')",
    "timestamp('2026-01-01T00:00:00Z')",
    ".format(['a'])",
    "b'\\xff'",
    "r'\\'",
    "'''",
    "0x7fffffffffffffff",
    "9223372036854775807u",
    "-",
    "!",
    "optional.of(",
    ".orValue(",
    "quantity('1Ki')",
    "url('http://a')",
    "ip('::1')",
    "cidr('10.0.0.0/8')",
    "semver('1.2.3')",
    ".indexOf(",
    ".substring(",
    "type(",
    "dyn(",
    "Object{spec: 1}",
    "JSONPatch{op: 'add'}",
    "1.0 / 0.0",
    "%",
    "//",
];
const SELECTORS: &[&str] = &["=", "==", "!=", ",", " in (", "notin", "!", "(", ")", "\\", "exists", ">", "<", "/"];
const QUANTITIES: &[&str] =
    &["e", "E", "Ki", "Ei", "n", "u", "m", ".", "-", "+", "999999999999999999999999", "0.0000000000000000000001", "e308", "E-400"];

fn lines(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|t| t.as_bytes().to_vec()).collect()
}

fn kind(group: &str, version: &str, name: &str) -> &'static Kind {
    Facts::builtin().kind_of(group, version, name).unwrap_or_else(|| panic!("{name} is built in"))
}

fn pod() -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "namespace": "default", "labels": {"a": "b"}, "finalizers": ["x", "y"], "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80, "protocol": "TCP"}], "env": [{"name": "A", "value": "1"}],
            "resources": {"limits": {"cpu": "100m", "memory": "1Gi"}}, "livenessProbe": {"httpGet": {"path": "/", "port": "http"}}},
            {"name": "b", "image": "j", "command": ["sh", "-c", "true"]}],
            "tolerations": [{"key": "k", "operator": "Exists", "tolerationSeconds": 300}],
            "volumes": [{"name": "v", "configMap": {"name": "m", "items": [{"key": "k", "path": "p", "mode": 420}]}}]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": null}], "podIPs": [{"ip": "10.0.0.1"}]}})
}

fn objects() -> Vec<Value> {
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": pod()["spec"]});
    vec![
        pod(),
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"a": "b"}}, "template": template, "strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}}}}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"k": "dmFsdWU="}, "type": "Opaque"}),
        json!({"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "b"}}]}),
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "t.example.com"},
            "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "t", "kind": "T"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object",
                    "properties": {"spec": {"type": "object", "default": {"a": [1]}, "x-kubernetes-preserve-unknown-fields": true}}}}}]}}),
    ]
}

fn documents() -> Vec<Vec<u8>> {
    objects().iter().map(|o| o.to_string().into_bytes()).collect()
}

fn yaml_documents() -> Vec<Vec<u8>> {
    let texts = [
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: p\nspec:\n  containers:\n  - name: c\n    args: [\"a\", 'b', 1, 1.5, true, null, ~, 0x1F, 0o7]\n",
        "a: &a [x, y]\nb: *a\nc: |\n  text\n  more\nd: >-\n  folded\n  text\n",
        "---\n? complex\n: value\n!!str tagged: 2026-01-01\n...\n---\nb: {c: d, e: [f]}\n",
    ];
    lines(&texts).into_iter().chain(documents()).collect()
}

fn protobuf_documents() -> Vec<Vec<u8>> {
    let encoded = objects().into_iter().filter_map(|o| {
        let text = |f: &str| o[f].as_str().unwrap_or("").to_owned();
        let gvk = Gvk::from_api_version(&text("apiVersion"), &text("kind"));
        let kind = Facts::builtin().kind(&gvk)?;
        let canonical = codec::canonicalize(kind, o, Strictness::Ignore).ok()?.object;
        proto::encode(&gvk, &canonical).ok()
    });
    encoded.collect()
}

fn json_document(bytes: &[u8]) -> bool {
    let _ = codec::type_meta(bytes);
    let _ = codec::decode_custom(bytes, Strictness::Warn);
    let mut read = false;
    for kind in [kind("", "v1", "Pod"), kind("apps", "v1", "Deployment"), kind("apiextensions.k8s.io", "v1", "CustomResourceDefinition")] {
        let Ok(decoded) = codec::decode(kind, bytes, Strictness::Warn) else { continue };
        read = true;
        // What is canonical stays as it is.
        let again = codec::canonicalize(kind, decoded.object.clone(), Strictness::Warn).map(|d| d.object);
        assert_eq!(again.as_ref().ok(), Some(&decoded.object), "not canonical");
    }
    read
}

fn protobuf(bytes: &[u8]) -> bool {
    let Ok((gvk, object)) = proto::decode(bytes) else { return false };
    // What was read can be written, and is then read as the same.
    if let Ok(written) = proto::encode(&gvk, &object) {
        let again = proto::decode(&written).map(|(_, o)| o);
        assert_eq!(again.as_ref().ok(), Some(&object), "not the same again");
    }
    true
}

static LIVE: LazyLock<Value> = LazyLock::new(pod);

fn json_patches() -> Vec<Vec<u8>> {
    let patches = [
        json!([{"op": "add", "path": "/spec/containers/0/image", "value": "n"}, {"op": "test", "path": "/kind", "value": "Pod"}]),
        json!([{"op": "move", "from": "/spec/volumes", "path": "/spec/more"}, {"op": "copy", "from": "/metadata", "path": "/spec/a~1b"}]),
        json!([{"op": "remove", "path": "/metadata/labels/a"}, {"op": "replace", "path": "/spec/containers/-1/name", "value": [1]}]),
    ];
    patches.iter().map(|p| p.to_string().into_bytes()).collect()
}

fn json_patch(bytes: &[u8]) -> bool {
    let Ok((operations, _)) = patch::parse_json_patch(bytes) else { return false };
    let mut object = LIVE.clone();
    let applied = patch::json(&mut object, &operations).is_ok();
    // All or nothing (RFC 5789).
    assert!(applied || object == *LIVE, "half applied");
    true
}

fn merge_patches() -> Vec<Vec<u8>> {
    let patches = [
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"a": null, "c": "d"}},
            "spec": {"containers": [{"name": "c", "image": "n", "ports": [{"containerPort": 80, "protocol": "UDP"}]}]}}),
        json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["x"]}, "spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "c"}],
            "containers": [{"name": "b", "$patch": "delete"}], "volumes": [{"name": "v", "$retainKeys": ["name", "emptyDir"], "emptyDir": {}}]}}),
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "status": {"conditions": [{"type": "Ready", "status": "False"}]}}),
    ];
    patches.iter().map(|p| p.to_string().into_bytes()).collect()
}

fn merge_patch(bytes: &[u8]) -> bool {
    let Ok(merge) = serde_json::from_slice::<Value>(bytes) else { return false };
    let mut object = LIVE.clone();
    if patch::merge(&mut object, &merge).is_ok() {
        let once = object.clone();
        assert!(patch::merge(&mut object, &merge).is_ok() && object == once, "twice is not once");
    }
    true
}

fn strategic_patch(bytes: &[u8]) -> bool {
    let Ok(merge) = serde_json::from_slice::<Value>(bytes) else { return false };
    let _ = patch::strategic(kind("", "v1", "Pod"), &mut LIVE.clone(), &merge);
    true
}

const NOW: &str = "2026-01-01T00:00:00Z";

fn options(manager: &str, force: bool) -> apply::Options<'_> {
    apply::Options { manager, subresource: "", now: NOW, reset: &[], force }
}

/// A pod that two managers own parts of.
static OWNED: LazyLock<Value> = LazyLock::new(|| {
    let schema = Schema::Kind(kind("", "v1", "Pod"));
    let mut first = pod();
    apply::update(&schema, None, &mut first, &options("creator", false));
    let config = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"z": "1"}}, "spec": {"containers": [{"name": "c", "tty": true}]}});
    apply::apply(&schema, Some(&first), &config, &options("other", true)).unwrap_or(first)
});

fn apply_config(bytes: &[u8]) -> bool {
    let Ok(config) = yaml::to_tree(bytes) else { return false };
    let schema = Schema::Kind(kind("", "v1", "Pod"));
    let Ok(mut applied) = apply::apply(&schema, Some(&OWNED), &config, &options("m", true)) else { return true };
    apply::update(&schema, Some(&OWNED), &mut applied, &options("n", false));
    let deduced = Schema::Deduced(Gvk::new("", "v1", "Pod"));
    let _ = apply::apply(&deduced, Some(&OWNED), &config, &options("m", false));
    let _ = apply::merge_config(&schema, &OWNED, &config);
    true
}

fn owners() -> Vec<Vec<u8>> {
    vec![OWNED["metadata"]["managedFields"].to_string().into_bytes()]
}

/// Managed fields as a client may have written them.
fn apply_over(bytes: &[u8]) -> bool {
    let Ok(fields) = serde_json::from_slice::<Value>(bytes) else { return false };
    let mut live = OWNED.clone();
    live["metadata"]["managedFields"] = fields;
    let schema = Schema::Kind(kind("", "v1", "Pod"));
    let config =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "x"}]}});
    let _ = apply::apply(&schema, Some(&live), &config, &options("other", false));
    let mut new = live.clone();
    new["metadata"]["labels"] = json!({"n": "1"});
    apply::update(&schema, Some(&live), &mut new, &options("n", false));
    true
}

fn structures() -> Vec<Vec<u8>> {
    let schema = json!({"type": "object", "required": ["a"], "properties": {
        "a": {"type": "string", "pattern": "^a+$", "minLength": 1, "format": "date-time"}, "n": {"type": "integer", "maximum": 9, "multipleOf": 3},
        "l": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "maxItems": 3, "uniqueItems": true,
            "items": {"type": "object", "properties": {"k": {"type": "string", "default": "d"}}}},
        "m": {"type": "object", "additionalProperties": {"x-kubernetes-int-or-string": true}}, "e": {"enum": ["x", 1, null]},
        "o": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}}});
    let object = json!({"a": "aaa", "n": 3, "l": [{"k": "1"}, {}], "m": {"x": "5%", "y": 1}, "e": "x", "o": {"apiVersion": "v1", "kind": "K", "metadata": {"name": "o"}}, "z": 1});
    vec![json!({"schema": schema, "object": object}).to_string().into_bytes()]
}

/// One copy of the object at a time, for the memory that is measured is what the schema's work takes.
fn structure(bytes: &[u8]) -> bool {
    let Ok(Value::Object(mut both)) = yaml::to_tree(bytes) else { return false };
    let mut taken = |field: &str| both.remove(field).unwrap_or_default();
    let (schema, mut object) = (&taken("schema"), taken("object"));
    let _ = structural::validate(schema, &object);
    let _ = structural::validate_items(schema, &object);
    let _ = embedded::validate(schema, &object);
    let _ = embedded::coerce(schema, &mut object.clone(), embedded::Misfit::Refuse);
    structural::prune(Some(schema), &mut object);
    let once = object.clone();
    structural::prune(Some(schema), &mut object);
    assert_eq!(object, once, "pruned twice");
    drop(once);
    structural::default(schema, &mut object);
    structural::drop_nulls(schema, &mut object);
    true
}

fn json_path(bytes: &[u8]) -> bool {
    let Ok(path) = JsonPath::parse(&String::from_utf8_lossy(bytes)) else { return false };
    let _ = path.find(&LIVE);
    true
}

fn expressions() -> Vec<Vec<u8>> {
    lines(&[
        "object.spec.containers.all(c, has(c.image) && c.image.matches('^[a-z]+$')) || request.operation == 'DELETE'",
        "x.items.map(i, i * 2).filter(i, i > 1).exists_one(i, i == 4) ? 'a' : \"b\\n\\u00e9\"",
        "[1, 2u, 3.5e1, b'a', r'\\d', null, true] + [{'a': [1]}.a[0]]",
        "duration('1h30m') + duration('1s') > duration('10s') && timestamp('2026-01-01T00:00:00Z').getFullYear() == 2026",
        "Object{metadata: Object.metadata{labels: {'a': 'b'}}}",
        "'%s is %d'.format(['a', 1]).lowerAscii().replace('a', 'b').split(' ').join('-').size() > 3",
        "quantity('1Ki').isGreaterThan(quantity('1k')) && isURL('http://a') && ip('10.0.0.1').family() == 4 && x.?a.orValue(1) == 1",
    ])
}

fn expression(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let env =
        admission::env(Declared { params: true, authorizer: false, patches: true }, &Known::default()).variable("x", tiphys_cel::Type::Dyn);
    let Ok(program) = Program::compile(&text, &env) else { return false };
    let request = json!({"operation": "CREATE", "name": "p"});
    let x = json!({"a": 1, "items": [1, 2, 3], "s": "text"});
    let variables = vec![
        ("object", Val::json(&LIVE)),
        ("oldObject", Val::Null),
        ("request", Val::json(&request)),
        ("params", Val::Null),
        ("x", Val::json(&x)),
    ];
    let outcome = program.eval(&variables, PER_CALL_LIMIT);
    if let Ok(value) = outcome.result {
        let _ = value.to_json();
    }
    true
}

fn labels(bytes: &[u8]) -> bool {
    let Ok(selector) = LabelSelector::parse(&String::from_utf8_lossy(bytes)) else { return false };
    let matched = selector.matches_object(&LIVE);
    let again = LabelSelector::parse(&selector.to_string()).map(|s| s.matches_object(&LIVE));
    assert_eq!(again.ok(), Some(matched), "{selector} is another selector");
    true
}

fn fields(bytes: &[u8]) -> bool {
    let Ok(selector) = FieldSelector::parse(&String::from_utf8_lossy(bytes)) else { return false };
    selector.matches(|field| (field == "metadata.name").then_some("a"));
    true
}

fn quantity(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let Ok(quantity) = Quantity::parse(&text) else { return false };
    let shown = quantity.to_string();
    let again = Quantity::parse(&shown).map(|q| q.to_string());
    assert_eq!(again.as_ref().ok(), Some(&shown), "{text} is shown as {shown}, which is another");
    let _ = (quantity.value(), quantity.milli(), quantity.as_f64(), quantity.is_integer());
    true
}
