//! What two right servers may say differently is made equal: identities, revisions, times, generated names, allocated addresses and ports.

use serde_json::{Map, Value, json};

use crate::http::Answer;

/// Test objects bear times of 2024; what a server wrote itself is of this year or later.
const SERVERS_TIME: &str = "2025";

pub(crate) fn normal(mut answer: Answer) -> Answer {
    if let (true, Value::String(text)) = (answer.content_type == "application/yaml", &answer.body) {
        answer.body = json!(yaml(text));
    }
    value(&mut answer.body, "");
    if answer.body["kind"] == "Status" {
        status(&mut answer.body);
    }
    answer
}

/// YAML is compared to the letter, line by line, but for what may differ.
fn yaml(text: &str) -> Vec<String> {
    let line = |line: &str| match line.split_once(": ") {
        Some((key, scalar)) => {
            let own = key.trim_start_matches([' ', '-']);
            let bare = scalar.trim_matches('"');
            let stable = if own == "name" && !bare.starts_with("kube-api-access-") { None } else { string(bare, own) };
            stable.map_or_else(|| line.to_owned(), |stable| format!("{key}: {stable}"))
        }
        None => line.to_owned(),
    };
    text.lines().map(line).collect()
}

fn value(v: &mut Value, key: &str) {
    match v {
        Value::Object(map) => object(map),
        Value::Array(list) => {
            let key = if key == "cells" { "cell" } else { key };
            list.iter_mut().for_each(|item| value(item, key));
        }
        Value::String(text) => {
            if let Some(stable) = string(text, key) {
                *v = json!(stable);
            }
        }
        Value::Number(_) if matches!(key, "nodePort" | "healthCheckNodePort" | "remainingItemCount" | "uptimeSeconds") => *v = json!(key),
        _ => {}
    }
}

fn object(map: &mut Map<String, Value>) {
    for (key, item) in map.iter_mut() {
        value(item, key);
    }
    // They are sorted by their times, in whole seconds.
    if let Some(Value::Array(managers)) = map.get_mut("managedFields") {
        managers.sort_by_key(|m| [&m["manager"], &m["operation"], &m["subresource"]].map(ToString::to_string));
    }
    let Some(Value::String(prefix)) = map.get("generateName") else { return };
    let made = map.get("name").and_then(Value::as_str).is_some_and(|n| n.len() == prefix.len() + 5 && n.starts_with(prefix.as_str()));
    if made {
        let stable = format!("{prefix}GENERATED");
        map.insert("name".into(), json!(stable));
    }
}

fn string(text: &str, key: &str) -> Option<String> {
    match key {
        "resourceVersion" if text != "0" && !text.is_empty() => return Some("RV".into()),
        "continue" if !text.is_empty() => return Some("CONTINUE".into()),
        "hash" | "serverRelativeURL" => return text.split_once("?hash=").map(|(path, _)| format!("{path}?hash=HASH")),
        "cell" if is_age(text) => return Some("AGE".into()),
        // Each life of a server has an identity, each server a port.
        "holderIdentity" => return Some(without_uids(text)),
        "kubernetes.io/peer-advertise-address" => return Some("ADDRESS".into()),
        // Ports of nodes are handed out by chance.
        "cell" if text.contains(":3") && text.contains('/') => return Some(without_node_ports(text)),
        // A Job's selector names the Job's uid.
        "cell" if text.contains("controller-uid=") => return Some(without_uids(text)),
        _ => {}
    }
    if is_uid(text) {
        return Some("UID".into());
    }
    if key == "message" {
        return Some(readable(text));
    }
    if is_time(text) {
        return Some("NOW".into());
    }
    if let Some(rest) = text.strip_prefix("kube-api-access-") {
        return (rest.len() == 5).then(|| "kube-api-access-GENERATED".into());
    }
    let address = text.strip_prefix("10.96.").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit() || b == b'.'));
    (address && key != "message").then(|| "ADDRESS".into())
}

/// Values that are lists or structs print as Go's internal types upstream (`{"Name":…}`), absent ones as `null` or `{}`, and some messages end in a
/// difference of two such values: neither is for programs to read. Identities within a text are made equal.
fn readable(text: &str) -> String {
    let line = text.split('\n').next().unwrap_or("");
    let (mut out, mut rest) = (String::new(), line);
    while let Some(start) = structure(rest) {
        out.push_str(&rest[..start]);
        let mut values = serde_json::Deserializer::from_str(&rest[start..]).into_iter::<Value>();
        let read = matches!(values.next(), Some(Ok(_)));
        let end = if read { values.byte_offset() } else { 1 };
        out.push('…');
        rest = &rest[start + end..];
    }
    out.push_str(rest);
    without_revisions(&without_generated(&without_uids(&without_patched(&out))))
}

/// Where the first value begins that is a list, a struct or nothing.
fn structure(text: &str) -> Option<usize> {
    let behind = ["Invalid value: ", "Duplicate value: ", "Unsupported value: "].into_iter().flat_map(|words| {
        let ends = text.match_indices(words).map(|(at, words)| at + words.len());
        ends.filter(|end| ["{", "[", "null"].iter().any(|begin| text[*end..].starts_with(begin)))
    });
    behind.min()
}

/// A patch that cannot be decoded is shown whole, in an order of fields of its own.
fn without_patched(text: &str) -> String {
    let Some(at) = text.find("Invalid value: \"{\\\"") else { return text.to_owned() };
    let start = at + "Invalid value: ".len();
    let mut values = serde_json::Deserializer::from_str(&text[start..]).into_iter::<String>();
    match values.next() {
        Some(Ok(_)) => format!("{}…{}", &text[..start], &text[start + values.byte_offset()..]),
        _ => text.to_owned(),
    }
}

/// `80:31683/TCP`.
fn without_node_ports(text: &str) -> String {
    let port = |part: &str| match part.split_once(':').and_then(|(own, rest)| Some((own, rest.split_once('/')?))) {
        Some((own, (port, protocol))) if port.len() == 5 && port.bytes().all(|b| b.is_ascii_digit()) => format!("{own}:PORT/{protocol}"),
        _ => part.to_owned(),
    };
    text.split(',').map(port).collect::<Vec<_>>().join(",")
}

/// Two servers count their writes differently.
fn without_revisions(text: &str) -> String {
    let begins =
        ["in record (", "ResourceVersion in the precondition (", "ResourceVersion in object meta: ", "resource version: ", "current: "];
    begins.iter().fold(text.to_owned(), |text, begin| {
        let Some(at) = text.find(begin).map(|at| at + begin.len()) else { return text };
        let digits = text[at..].bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 { text } else { format!("{}RV{}", &text[..at], &text[at + digits..]) }
    })
}

/// The volume that a service account's token is mounted from has a name that is made up.
fn without_generated(text: &str) -> String {
    const PREFIX: &str = "kube-api-access-";
    match text.find(PREFIX).map(|at| at + PREFIX.len()).filter(|at| text.is_char_boundary(at + 5)) {
        Some(at) => format!("{}GENERATED{}", &text[..at], &text[at + 5..]),
        None => text.to_owned(),
    }
}

fn without_uids(text: &str) -> String {
    let (mut out, mut at) = (String::new(), 0);
    while at < text.len() {
        match text.get(at..at + 36).filter(|part| is_uid(part) && !part.starts_with("00000000")) {
            Some(_) => {
                out.push_str("UID");
                at += 36;
            }
            None => {
                let next = text[at..].chars().next().map_or(1, char::len_utf8);
                out.push_str(&text[at..at + next]);
                at += next;
            }
        }
    }
    out
}

fn is_uid(text: &str) -> bool {
    let dashes = [8, 13, 18, 23];
    let fits = |(i, b): (usize, u8)| if dashes.contains(&i) { b == b'-' } else { b.is_ascii_hexdigit() };
    text.len() == 36 && !text.starts_with("11111111") && text.bytes().enumerate().all(fits)
}

fn is_time(text: &str) -> bool {
    let shape = text.len() >= 20 && text.ends_with('Z') && text.as_bytes()[10] == b'T' && text.as_bytes()[4] == b'-';
    shape && &text[..4] >= SERVERS_TIME && text[..4].bytes().all(|b| b.is_ascii_digit())
}

/// `3s`, `1m5s`: how old something is that was just made.
fn is_age(text: &str) -> bool {
    let digits = text.strip_suffix('s').unwrap_or("");
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit() || b == b'm')
}

/// Go's maps have no order, so neither has a list of errors that one filled. Two layers check metadata upstream, and each lists what it finds, though
/// the message says it once.
fn status(body: &mut Value) {
    let Some(causes) = body.pointer_mut("/details/causes").and_then(Value::as_array_mut) else { return };
    if causes.len() < 2 {
        return;
    }
    causes.sort_by_key(ToString::to_string);
    causes.dedup();
    if let [_one] = &causes[..] {
        return;
    }
    let message = body["message"].as_str().unwrap_or("").to_owned();
    if let Some((head, _)) = message.split_once(": [") {
        body["message"] = json!(format!("{head}: [the causes]"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(body: Value) -> Value {
        normal(Answer { code: 200, content_type: String::new(), warnings: vec![], body }).body
    }

    #[test]
    fn what_servers_choose_is_made_equal() {
        let made = of(json!({
            "metadata": {"uid": "0c9f1d2e-1111-4222-8333-444455556666", "resourceVersion": "17", "generateName": "a-", "name": "a-x7z9q",
                "creationTimestamp": "2026-01-02T03:04:05Z"},
            "spec": {"clusterIP": "10.96.3.4", "ports": [{"nodePort": 30123, "port": 80}], "at": "2024-01-02T03:04:05Z"},
        }));
        assert_eq!(
            made,
            json!({
                "metadata": {"uid": "UID", "resourceVersion": "RV", "generateName": "a-", "name": "a-GENERATED", "creationTimestamp": "NOW"},
                "spec": {"clusterIP": "ADDRESS", "ports": [{"nodePort": "nodePort", "port": 80}], "at": "2024-01-02T03:04:05Z"},
            })
        );
        assert_eq!(of(json!({"rows": [{"cells": ["x", "5s", "5"]}]})), json!({"rows": [{"cells": ["x", "AGE", "5"]}]}));
    }

    #[test]
    fn causes_have_no_order_and_stand_once() {
        let with =
            |a: &str, b: &str| json!({"kind": "Status", "message": format!("X is invalid: [{a}, {b}]"), "details": {"causes": [a, b]}});
        assert_eq!(of(with("1", "2")), of(with("2", "1")));
        assert_eq!(of(with("1", "1"))["details"]["causes"], json!(["1"]));
        let text =
            |value: &str| of(json!({"kind": "Status", "message": format!("a: Unsupported value: {value}: supported values: \"b\"")}));
        assert_eq!(text("null"), text("{}"));
        assert_ne!(text("null"), text("\"c\""));
        let message = |text: &str| of(json!({"message": text}))["message"].clone();
        assert_eq!(message("the ResourceVersion in record (832). It"), json!("the ResourceVersion in record (RV). It"));
        assert_eq!(message("kube-api-access-x7z9q is no volume"), json!("kube-api-access-GENERATED is no volume"));
        assert_ne!(of(with("1", "2")), of(with("1", "3")));
    }
}
