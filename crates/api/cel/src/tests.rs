//! Tables: what expressions give, what they cost, and the words of their errors (as cel-go v0.26 says them).

use serde_json::{Value as Json, json};

use crate::admission::{self, Declared, Known};
use crate::{Env, Issue, Program, Schema, SchemaTypes, Type, Val, crd_rules, display};
use std::sync::Arc;
use tiphys_meta::Path;

fn compile(expression: &str, env: &Env) -> Result<Program, String> {
    Program::compile(expression, env).map_err(|issues: Vec<Issue>| display(&issues))
}

fn env() -> Env {
    Env::default().variable("x", Type::Dyn).variable("list", Type::list(Type::Int)).bind().patches()
}

fn object() -> Json {
    json!({"a": 1, "s": "text", "f": 1.5, "n": null, "items": [1, 2, 3], "m": {"k": "v", "__x": 1}, "objects": [{"n": "a", "v": 1}, {"n": "b", "v": 2}]})
}

/// The value as JSON, or the error.
fn run(expression: &str) -> Result<String, String> {
    let program = compile(expression, &env())?;
    let (object, list) = (object(), json!([3, 1, 2]));
    let variables = vec![("x", Val::json(&object)), ("list", Val::json(&list))];
    let outcome = program.eval(&variables, 1_000_000);
    outcome.result.map(|v| format!("{v:?}")).map_err(|e| e.to_string())
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn values() {
    let cases = [
        ("1 + 2 * 3", "7"),
        ("(1 + 2) * 3 - 4 / 2 % 3", "7"),
        ("-1", "-1"),
        ("--1", "1"),
        ("!!true", "true"),
        ("1 < 2 && 'a' < 'b' || false", "true"),
        ("1 == 1.0", "Err"),
        ("dyn(1) == 1.0", "true"),
        ("x.a == 1", "true"),
        ("x.f > 1", "true"),
        ("x.items.all(i, i > 0)", "true"),
        ("x.items.exists(i, i == 2)", "true"),
        ("x.items.exists_one(i, i > 2)", "true"),
        ("x.items.map(i, i * 2)", "[2, 4, 6]"),
        ("x.items.map(i, i > 1, i * 2)", "[4, 6]"),
        ("x.items.filter(i, i > 1)", "[2, 3]"),
        ("x.items.all(i, j, i < j)", "true"),
        ("[10, 20].transformList(i, v, v + i)", "[10, 21]"),
        ("x.m.transformMap(k, v, k == 'k', v)['k']", "\"v\""),
        ("{'a': 1}.transformMapEntry(k, v, {string(v): k})['1']", "\"a\""),
        ("has(x.a) && !has(x.b) && has(x.n)", "true"),
        ("x.?b.c.orValue('none')", "\"none\""),
        ("x.?m.k.orValue('none')", "\"v\""),
        ("x.items[?5].orValue(7)", "7"),
        ("x.items[1]", "2"),
        ("x['m']['k']", "\"v\""),
        ("optional.of(1).optMap(v, v + 1).value()", "2"),
        ("optional.none().hasValue()", "false"),
        ("[?x.?b, ?x.?a]", "[1]"),
        ("{?'b': x.?b, 'c': 2}.size()", "1"),
        ("cel.bind(v, 1 + 1, v * v)", "4"),
        ("[1, 2] + [3]", "[1, 2, 3]"),
        ("'a' in ['b', 'a']", "true"),
        ("'k' in x.m", "true"),
        ("size('héé')", "3"),
        ("'hello'.substring(1, 3)", "\"el\""),
        ("'a,b,c'.split(',')", "[\"a\", \"b\", \"c\"]"),
        ("'a,b,c'.split(',', 2)", "[\"a\", \"b,c\"]"),
        ("['a', 'b'].join('-')", "\"a-b\""),
        ("'hello'.replace('l', 'L', 1)", "\"heLlo\""),
        ("'tacocat'.indexOf('c', 3)", "4"),
        ("'tacocat'.lastIndexOf('c')", "4"),
        ("' a '.trim().upperAscii()", "\"A\""),
        ("'abc'.charAt(1)", "\"b\""),
        ("'%s is %d, %.2f, %x'.format(['a', dyn(2), 1.5, 255])", "\"a is 2, 1.50, ff\""),
        ("'%s is %d'.format([dyn('a'), dyn(2)])", "\"a is 2\""),
        ("strings.quote('a\"b')", "\"\\\"a\\\\\\\"b\\\"\""),
        ("'abc123'.find('[0-9]+')", "\"123\""),
        ("'a1b2'.findAll('[0-9]')", "[\"1\", \"2\"]"),
        ("'abc'.matches('^[a-c]+$')", "true"),
        ("list.sort()", "[1, 2, 3]"),
        ("x.objects.sortBy(o, -o.v).map(o, o.n)", "[\"b\", \"a\"]"),
        ("list.isSorted()", "false"),
        ("list.sum() + list.max() * 10 + list.min()", "37"),
        ("[1, 1, 2].distinct()", "[1, 2]"),
        ("[1, 2, 3].slice(1, 3).reverse()", "[3, 2]"),
        ("[[1], [2, 3]].flatten()", "[1, 2, 3]"),
        ("lists.range(3)", "[0, 1, 2]"),
        ("sets.contains([1, 2, 3], [2]) && !sets.intersects([1], [2]) && sets.equivalent([1, 2], [2, 1, 1])", "true"),
        ("duration('1h30m') + duration('30m') == duration('2h')", "true"),
        ("timestamp('2024-01-01T00:00:00Z') + duration('24h') == timestamp('2024-01-02T00:00:00Z')", "true"),
        ("timestamp('2024-02-29T12:34:56Z').getDayOfMonth()", "28"),
        ("timestamp('2024-02-29T12:34:56Z').getHours('+02:00')", "14"),
        ("string(duration('90s'))", "\"90s\""),
        ("int('12') + int(3.9) + int(4u)", "19"),
        ("string(1.0) + string(1e30)", "\"11e+30\""),
        ("type(1) == int && type('a') == string && type({}) == map", "true"),
        ("quantity('1Gi').isGreaterThan(quantity('1G'))", "true"),
        ("quantity('1k').add(1).asInteger()", "1001"),
        ("isQuantity('1x')", "false"),
        ("ip('10.0.0.1').family()", "4"),
        ("cidr('10.0.0.0/8').containsIP('10.1.2.3')", "true"),
        ("cidr('10.0.0.0/8').containsCIDR(cidr('10.1.0.0/16'))", "true"),
        ("string(cidr('10.1.2.3/8').masked())", "\"10.0.0.0/8\""),
        ("ip.isCanonical('2001:DB8::1')", "false"),
        ("url('https://example.com:80/path?k=a&k=b').getHostname()", "\"example.com\""),
        ("url('https://example.com:80/path?k=a&k=b').getQuery()['k']", "[\"a\", \"b\"]"),
        ("isURL('a b')", "false"),
        ("semver('1.2.3').isLessThan(semver('1.10.0')) && semver('v1.2', true).minor() == 2", "true"),
        ("format.dns1123Label().validate('My').hasValue()", "true"),
        ("!format.dns1123Label().validate('my').hasValue()", "true"),
        ("format.named('uuid').value().validate('x').value()[0]", "\"does not match the UUID format\""),
        ("Object{spec: Object.spec{replicas: 1}}.spec.replicas", "1"),
        ("JSONPatch{op: 'add', path: '/a', value: 1}.op", "\"add\""),
        ("jsonpatch.escapeKey('a/b~c')", "\"a~1b~0c\""),
        ("false && 1 / 0 > 1", "false"),
        ("1 / 0 > 1 || true", "true"),
        ("[0, 1].exists(i, 1 / i > 0)", "true"),
        ("true ? 1 : 2", "1"),
        ("r'\\d' == '\\\\d' && b'\\x61' == bytes('a') && '\\u00e9' == 'é'", "true"),
        ("'''a\nb'''.size()", "3"),
        ("0x1F + 1", "32"),
        ("1u + 2u", "3u"),
    ];
    for (expression, wanted) in cases {
        match run(expression) {
            Ok(found) => assert_eq!(found, wanted, "{expression}"),
            Err(why) => assert_eq!("Err", wanted, "{expression}: {why}"),
        }
    }
}

#[test]
fn failures() {
    let cases = [
        ("x.b", "no such key: b"),
        ("x.n.b", "no such key: b"),
        ("x.items[5]", "index out of bounds: 5"),
        ("1 / (x.a - 1)", "division by zero"),
        ("9223372036854775807 + x.a", "integer overflow"),
        ("x.a + 'a'", "no such overload"),
        ("x.s.contains(x.a)", "no such overload"),
        ("quantity('x')", "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"),
        ("optional.none().value()", "optional.none() dereference"),
        ("[].max()", "max called on empty list"),
        ("lists.range(1000000).size()", "operation cancelled: actual cost limit exceeded"),
        ("lists.range(3000).map(i, lists.range(3000)).size()", "operation cancelled: actual cost limit exceeded"),
    ];
    for (expression, wanted) in cases {
        assert_eq!(run(expression), Err(wanted.to_owned()), "{expression}");
    }
}

#[test]
fn issues() {
    let cases = [
        ("y", "ERROR: <input>:1:1: undeclared reference to 'y' (in container '')\n | y\n | ^"),
        ("x.a +\n  y.b", "ERROR: <input>:2:3: undeclared reference to 'y' (in container '')\n |   y.b\n | ..^"),
        ("1 + 'a'", "ERROR: <input>:1:3: found no matching overload for '_+_' applied to '(int, string)'\n | 1 + 'a'\n | ..^"),
        (
            "'a'.size(1)",
            "ERROR: <input>:1:9: found no matching overload for 'size' applied to 'string.(int)'\n | 'a'.size(1)\n | ........^",
        ),
        ("1 ? 2 : 3", "ERROR: <input>:1:3: found no matching overload for '_?_:_' applied to '(int, int, int)'\n | 1 ? 2 : 3\n | ..^"),
        ("1 && true", "ERROR: <input>:1:1: expected type 'bool' but found 'int'\n | 1 && true\n | ^"),
        ("[1, 'a']", "ERROR: <input>:1:5: expected type 'int' but found 'string'\n | [1, 'a']\n | ....^"),
        ("'a'.b", "ERROR: <input>:1:4: type 'string' does not support field selection\n | 'a'.b\n | ...^"),
        (
            "1.all(i, true)",
            "ERROR: <input>:1:1: expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)\n | 1.all(i, true)\n | ^",
        ),
        ("has(x)", "ERROR: <input>:1:5: invalid argument to has() macro\n | has(x)\n | ....^"),
        ("x.all(1, true)", "ERROR: <input>:1:7: argument must be a simple name\n | x.all(1, true)\n | ......^"),
        ("duration('1x')", "ERROR: <input>:1:10: invalid duration argument\n | duration('1x')\n | .........^"),
        ("'a'.matches('(')", "ERROR: <input>:1:13: invalid matches argument\n | 'a'.matches('(')\n | ............^"),
        (
            "1 +",
            "ERROR: <input>:1:4: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}\n | 1 +\n | ...^",
        ),
        // The fuzzer: what followed the sign was read as a number, whatever it was.
        ("!-", "ERROR: <input>:1:3: Syntax error: no viable alternative at input '-<EOF>'\n | !-\n | ..^"),
        ("!-x", "ERROR: <input>:1:3: Syntax error: no viable alternative at input '-x'\n | !-x\n | ..^"),
        ("1 2", "ERROR: <input>:1:3: Syntax error: extraneous input '2' expecting <EOF>\n | 1 2\n | ..^"),
        ("namespace", "ERROR: <input>:1:1: reserved identifier: namespace\n | namespace\n | ^"),
        (
            "é",
            "ERROR: <input>:1:1: Syntax error: token recognition error at: 'é'\n | é\n | ＾\nERROR: <input>:1:2: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}\n | é\n | ．^",
        ),
        ("JSONPatch{a: 1}", "ERROR: <input>:1:12: undefined field 'a'\n | JSONPatch{a: 1}\n | ...........^"),
    ];
    for (expression, wanted) in cases {
        assert_eq!(compile(expression, &env()).map(|_| ()), Err(wanted.to_owned()), "{expression}");
    }
}

/// Whatever is given, nothing panics, and depth is refused.
#[test]
fn depth_is_bounded() {
    for expression in [
        "(".repeat(5000),
        "[".repeat(5000),
        format!("{}1{}", "(".repeat(90), ")".repeat(90)),
        vec!["1"; 5000].join(" + "),
        format!("x{}", ".a".repeat(5000)),
        format!("x{}", "[0]".repeat(240)),
        "!".repeat(5000) + "true",
        vec!["true"; 5000].join(" && "),
        vec!["x.all(i, "; 40].concat() + "true" + &")".repeat(40),
        format!("{}x", "{'a':".repeat(90)),
    ] {
        let _ = run(&expression);
    }
    assert_eq!(run(&vec!["true"; 5000].join(" && ")), Ok("true".into()));
    assert!(run(&format!("x{}", ".a".repeat(300))).is_err_and(|e| e.contains("expression recursion limit exceeded: 250")));
}

proptest::proptest! {
    #[test]
    fn never_panics(text in "[a-z0-9+*/%!&|?:.,()\\[\\]{}'\" \\\\-]{0,40}") {
        let _ = run(&text);
    }

    #[test]
    fn never_panics_on_parts(parts in proptest::collection::vec(proptest::sample::select(vec![
        "x", ".a", "(", ")", "[", "]", "{", "}", "1", "'s'", "+", "-", "&&", "||", "?", ":", ".all(", "i", ",", ".map(", "has(", ".?b", "[?", "==", "in", "!", "size(", "null", "1.5", "2u",
    ]), 0..24)) {
        let _ = run(&parts.concat());
    }
}

fn schema() -> Json {
    json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {
            "replicas": {"type": "integer"},
            "name": {"type": "string", "maxLength": 10},
            "when": {"type": "string", "format": "date-time"},
            "size": {"x-kubernetes-int-or-string": true},
            "namespace": {"type": "string"},
            "unbounded": {"type": "array", "items": {"type": "string"}},
            "list": {"type": "array", "maxItems": 10, "items": {"type": "string", "maxLength": 5}},
            "map": {"type": "object", "additionalProperties": {"type": "integer"}},
            "entries": {"type": "array", "maxItems": 3, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                        "items": {"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "integer"}}}}}}}})
}

fn with_rule(place: &str, rule: Json) -> Json {
    let mut schema = schema();
    if let Some(node) = schema.pointer_mut(place) {
        node["x-kubernetes-validations"] = json!([rule]);
    }
    schema
}

fn check(place: &str, rule: Json) -> String {
    crd_rules::check(&with_rule(place, rule), &Path::new("schema"), false, Some(&[])).message()
}

#[test]
fn rules_are_checked_with_their_crd() {
    const SPEC: &str = "/properties/spec";
    for fine in [
        "self.replicas >= 0",
        "self.replicas >= oldSelf.replicas",
        "self.__namespace__ != ''",
        "self.when > timestamp('2020-01-01T00:00:00Z')",
        "self.list.all(i, i.startsWith('a'))",
        "self.map['a'] == 1",
        "self.entries.exists(e, e.k == 'a')",
        "type(self.size) == int ? self.size < 5 : self.size == '5%'",
        "!has(self.name) || self.name.matches('^a+$')",
    ] {
        assert_eq!(check(SPEC, json!({"rule": fine})), "[]", "{fine}");
    }
    let missing = check(SPEC, json!({"rule": "self.missing == 1"}));
    assert!(missing.contains("properties[spec].x-kubernetes-validations[0].rule: Invalid value: {\"rule\":\"self.missing == 1\"}: compilation failed: ERROR: <input>:1:5: undefined field 'missing'\n | self.missing == 1\n | ....^"), "{missing}");
    assert!(check(SPEC, json!({"rule": "self.replicas"})).ends_with("cel expression must evaluate to a bool"));
    let mixed = check(SPEC, json!({"rule": "self.name > 1"}));
    assert!(mixed.contains("found no matching overload for '_>_' applied to '(string, int)'"), "{mixed}");
    let costly = check(SPEC, json!({"rule": "self.unbounded.all(a, self.unbounded.all(b, a != b))"}));
    assert!(
        costly.contains("Forbidden: estimated rule cost exceeds budget by factor of more than 100x (try simplifying the rule"),
        "{costly}"
    );
    assert!(check(SPEC, json!({"rule": "true", "messageExpression": "1"})).contains("messageExpression must evaluate to a string"));
    assert!(
        check(SPEC, json!({"rule": "true", "fieldPath": ".nope"})).contains("fieldPath: Invalid value: \".nope\": must be a valid path")
    );
    assert!(check(SPEC, json!({"rule": "true", "optionalOldSelf": true})).contains("may not be set if oldSelf is not used in rule"));
    let lost = check("/properties/spec/properties/list/items", json!({"rule": "self == oldSelf"}));
    assert!(
        lost.contains("oldSelf cannot be used on the uncorrelatable portion of the schema within schema.properties[spec].properties[list]"),
        "{lost}"
    );
}

fn verdict(place: &str, rule: Json, new: Json, old: Option<Json>) -> (String, usize) {
    let schema = with_rule(place, rule);
    let rules = crd_rules::compile_schema(&schema).expect("there is a rule");
    let verdict = crd_rules::validate(&rules, &new, old.as_ref(), &Path::ROOT);
    (verdict.errors.message(), verdict.warnings.len())
}

#[test]
fn rules_are_run() {
    const SPEC: &str = "/properties/spec";
    let spec = |spec: Json| json!({"spec": spec});
    let rule = |rule: &str| json!({"rule": rule, "message": "no"});
    let ok = ("[]".to_owned(), 0);
    assert_eq!(verdict(SPEC, rule("self.replicas > 1"), spec(json!({"replicas": 2})), None), ok);
    assert_eq!(verdict(SPEC, rule("self.replicas > 1"), spec(json!({"replicas": 1})), None).0, "spec: Invalid value: no");
    assert_eq!(
        verdict(SPEC, json!({"rule": "self.replicas > 1"}), spec(json!({"replicas": 1})), None).0,
        "spec: Invalid value: failed rule: self.replicas > 1"
    );
    let expressed = json!({"rule": "self.replicas > 1", "messageExpression": "'got ' + string(self.replicas)", "fieldPath": ".replicas", "reason": "FieldValueForbidden"});
    assert_eq!(verdict(SPEC, expressed, spec(json!({"replicas": 1})), None).0, "spec.replicas: Forbidden: got 1");
    // Transition rules need an old value, and are never ratcheted.
    let grow = rule("self.replicas >= oldSelf.replicas");
    assert_eq!(verdict(SPEC, grow.clone(), spec(json!({"replicas": 1})), None), ok);
    assert_eq!(verdict(SPEC, grow, spec(json!({"replicas": 1})), Some(spec(json!({"replicas": 2})))).0, "spec: Invalid value: no");
    let optional = json!({"rule": "oldSelf.hasValue() || self.replicas == 0", "optionalOldSelf": true, "message": "begin at 0"});
    assert_eq!(verdict(SPEC, optional, spec(json!({"replicas": 1})), None).0, "spec: Invalid value: begin at 0");
    // What was wrong before and has not changed is a warning.
    let before = Some(spec(json!({"replicas": 1})));
    assert_eq!(verdict(SPEC, rule("self.replicas > 1"), spec(json!({"replicas": 1})), before.clone()), ("[]".to_owned(), 1));
    assert_eq!(verdict(SPEC, rule("self.replicas > 1"), spec(json!({"replicas": 0})), before).0, "spec: Invalid value: no");
    // Elements of a list of type map are known by their keys.
    let place = "/properties/spec/properties/entries/items";
    let entries = |v: i64| spec(json!({"entries": [{"k": "b", "v": 1}, {"k": "a", "v": v}]}));
    let old = Some(spec(json!({"entries": [{"k": "a", "v": 5}]})));
    assert_eq!(verdict(place, rule("self.v >= oldSelf.v"), entries(4), old.clone()).0, "spec.entries[1]: Invalid value: no");
    assert_eq!(verdict(place, rule("self.v >= oldSelf.v"), entries(6), old), ok);
    assert_eq!(
        verdict(SPEC, rule("self.size > 1"), spec(json!({"size": "a"})), None).0,
        "spec: Invalid value: \"object\": 'no such overload': call arguments did not match a supported operator, function or macro signature for rule: no"
    );
    assert_eq!(
        verdict(SPEC, rule("self.map['b'] > 1"), spec(json!({"map": {}})), None).0,
        "spec: Invalid value: \"object\": no such key: b evaluating rule: no"
    );
}

/// What `k8s.io/apiserver/pkg/cel/library/cost_test.go` expects: estimated at least, at most, and spent. Constant lists cost nothing when they are
/// run in the API server, which folds them.
#[test]
fn costs() {
    let cases = [
        ("url('https:://kubernetes.io/').getScheme()", (4, 4, 4)),
        ("url('https:://kubernetes.io/') == url('https:://kubernetes.io/')", (7, 9, 7)),
        ("ip.isCanonical('192.168.0.1')", (3, 3, 3)),
        ("ip.isCanonical('2001:db8:3333:4444:5555:6666:7777:8888')", (8, 8, 8)),
        ("'ABCDEFGHIJ abcdefghij'.lowerAscii() == 'abcdefghij ABCDEFGHIJ'.lowerAscii()", (7, 9, 9)),
        ("strings.quote('ABCDEFGHIJ abcdefghij') == strings.quote('ABCDEFGHIJ abcdefghij')", (7, 11, 9)),
        ("'abc 123 def 123'.replace('123', '456', 1)", (3, 3, 3)),
        ("'abc 123 def 123'.split(' ', 1)", (3, 3, 3)),
        ("'abc 123 def 123'.substring(5, 8)", (2, 2, 2)),
        ("'abc 123 def 123'.findAll('123')", (2, 2, 2)),
        ("jsonpatch.escapeKey('abc/def~ abc/def~')", (2, 2, 2)),
        ("quantity('200M') == quantity('0.2G') && quantity('0.2G') == quantity('200M')", (3, 6, 6)),
        ("quantity('50k').add(20).sub(quantity('100k')).sub(-50000).asInteger() > 0", (7, 7, 7)),
        ("format.named('dns1123Subdomain').value().validate('my-name')", (34, 34, 17)),
        ("format.named('dns1123Label').value() == format.named('dns1123Label').value()", (5, 11, 5)),
        ("sets.contains([1], [1, 1])", (23, 23, 3)),
        ("sets.equivalent([1, 2, 3], [3, 2, 1])", (39, 39, 19)),
        ("[1, 2, 3, 4].sum()", (14, 14, 4)),
    ];
    for (expression, wanted) in cases {
        let program = compile(expression, &env()).expect(expression);
        let spent = program.eval(&Vec::new(), u64::MAX).cost;
        assert_eq!((program.estimate().min, program.estimate().max, spent), wanted, "{expression}");
    }
}

#[test]
fn types_from_a_schema() {
    let schema = Schema::of(&schema(), true, "Foo").expect("an object");
    let known = Known { object: Some((schema.ty(), Arc::new(SchemaTypes(schema)))), params: None };
    let env = admission::env(Declared { params: false, authorizer: true, patches: false }, &known);
    for fine in [
        "object.spec.replicas > 1",
        "object.metadata.name == request.name",
        "namespaceObject.metadata.labels['a'] == 'b'",
        "authorizer.group('apps').resource('deployments').check('create').allowed()",
        "authorizer.requestResource.check('update').allowed()",
        "request.userInfo.groups.exists(g, g == 'a') && request.operation == 'CREATE'",
        "object.spec.list.map(i, i.size()).sum() > 3",
    ] {
        assert_eq!(compile(fine, &env).map(|_| ()), Ok(()), "{fine}");
    }
    let confused = compile("object.spec.replicas > '1'", &env).err().unwrap_or_default();
    assert!(confused.contains("found no matching overload for '_>_' applied to '(int, string)'"), "{confused}");
}

#[test]
fn types_from_the_facts() {
    let kind = tiphys_meta::Gvk::new("apps", "v1", "Deployment");
    let ty = crate::type_of_kind(&kind).expect("a built-in kind");
    let known = Known { object: Some((ty, Arc::new(crate::FactTypes))), params: None };
    let env = admission::env(Declared { params: false, authorizer: true, patches: false }, &known);
    for fine in [
        "object.spec.replicas > 1",
        "object.metadata.namespace == 'a' && object.metadata.creationTimestamp < timestamp('2030-01-01T00:00:00Z')",
        "object.spec.template.spec.containers.all(c, c.image.startsWith('registry/') && has(c.resources))",
        "object.metadata.labels['a'] == 'b'",
    ] {
        assert_eq!(compile(fine, &env).map(|_| ()), Ok(()), "{fine}");
    }
    assert!(compile("object.spec.replicas > '1'", &env).is_err());
    assert!(compile("object.spec.maxRetries < 10", &env).is_err_and(|e| e.contains("undefined field 'maxRetries'")));
}
