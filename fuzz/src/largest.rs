//! Bodies of the largest size that is taken, made of what grows most when it is read: the tree stays within ten times the body, or is refused.

use std::hint::black_box;

use tiphys_meta::Gvk;
use tiphys_schema::codec::budget::MOST_BYTES;
use tiphys_schema::codec::{DecodeError, Strictness, json, proto, yaml};
use tiphys_schema::{Facts, Kind, patch};

use crate::MEMORY;

const LARGEST: usize = 3 << 20;
/// Beside the tree: the facts, on first use, and text that is being read.
const BESIDE: usize = 4 << 20;

fn kind(group: &str, name: &str) -> &'static Kind {
    Facts::builtin().kind_of(group, "v1", name).unwrap_or_else(|| panic!("{name} is built in"))
}

fn filled(head: &str, piece: &str, tail: &str) -> Vec<u8> {
    let times = (LARGEST - head.len() - tail.len()) / piece.len();
    let middle = piece.repeat(times);
    // The comma behind the last one.
    format!("{head}{}{tail}", middle.strip_suffix(',').unwrap_or(&middle)).into_bytes()
}

/// What reading took at most, and whether it came to an end.
fn peak<T>(read: impl Fn() -> Result<T, DecodeError>) -> (usize, bool) {
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    let outcome = black_box(read());
    assert!(outcome.is_ok() || matches!(outcome, Err(DecodeError::TooLarge)), "not readable");
    (MEMORY.peak_usage().saturating_sub(before), outcome.is_ok())
}

/// Called by the driver's test, which has the program's memory for itself.
pub(crate) fn trees_stay_within_ten_times_the_largest_body() {
    let _ = Facts::builtin();
    let pod = kind("", "Pod");
    let stateful = kind("apps", "StatefulSet");
    let bodies = [
        ("lists", filled("{\"spec\":[", "[],", "]}")),
        ("lists of one", filled("{\"spec\":[", "[0],", "]}")),
        ("numbers", filled("{\"spec\":[", "0,", "]}")),
        ("texts", filled("{\"spec\":[", "\"a\",", "]}")),
        ("maps of one", filled("{\"spec\":[", "{\"\":0},", "]}")),
        ("empty maps", filled("{\"spec\":[", "{},", "]}")),
        ("one text", filled("{\"spec\":\"", "a", "\"}")),
    ];
    for (what, body) in &bodies {
        within(what, peak(|| json::decode_custom(body, Strictness::Warn)));
        within(what, peak(|| json::decode_raw(body)));
        within(what, peak(|| json::decode(kind("", "List"), body, Strictness::Warn)));
        // The YAML reader may refuse it for reasons of its own.
        within(what, peak(|| yaml::to_tree(body).map_err(|_| DecodeError::TooLarge)));
        within(what, peak(|| patch::parse_document(body).map_err(|_| DecodeError::TooLarge)));
    }
    let typed = [
        (pod, filled("{\"spec\":{\"containers\":[", "{},", "]}}")),
        (pod, filled("{\"spec\":{\"containers\":[", "null,", "]}}")),
        (stateful, filled("{\"spec\":{\"volumeClaimTemplates\":[", "{},", "]}}")),
        (pod, filled("{\"metadata\":{\"managedFields\":[", "{\"fieldsV1\":{\"\":0}},", "]}}")),
    ];
    for (kind, body) in &typed {
        let (bytes, whole) = peak(|| json::decode(kind, body, Strictness::Warn));
        within(&format!("{} {}", kind.gvk.kind, String::from_utf8_lossy(&body[..60])), (bytes, whole));
        assert!(!whole, "{}: {bytes} bytes were enough", kind.gvk.kind);
    }
    // Fields 2 of the object and of its specification: containers of a pod, each empty.
    let containers = [0x12, 0].repeat(LARGEST / 2);
    let wire = nested(&Gvk::new("", "v1", "Pod"), &field(2, &containers));
    let (bytes, whole) = peak(|| proto::decode(&wire));
    assert!(!whole, "{bytes} bytes were enough");
    within("protobuf", (bytes, whole));
}

fn within(what: &str, (bytes, _): (usize, bool)) {
    assert!(bytes <= MOST_BYTES + BESIDE, "{what}: {} MiB", bytes >> 20);
}

fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = content.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(content);
    out
}

/// The message in its envelope.
fn nested(gvk: &Gvk, message: &[u8]) -> Vec<u8> {
    let meta = [field(1, gvk.api_version().as_bytes()), field(2, gvk.kind.as_bytes())].concat();
    [b"k8s\0".to_vec(), field(1, &meta), field(2, message)].concat()
}

/// Every list holds one item, which is a list in an envelope of its own (found by reading: each began anew with the depth that is allowed).
#[test]
fn objects_in_objects_are_as_deep_as_messages() {
    let list = Gvk::new("", "v1", "List");
    let mut object = nested(&list, &[]);
    for _ in 0..3000 {
        // ListMeta is field 1, the items are fields 2: a RawExtension each.
        object = nested(&list, &field(2, &field(1, &object)));
    }
    let error = proto::decode(&object).expect_err("too deep");
    assert_eq!(error.to_string(), "proto: nested too deeply");
}
