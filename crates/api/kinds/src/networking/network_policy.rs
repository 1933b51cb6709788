//! NetworkPolicy: which traffic of selected pods is allowed.

use serde_json::{Value, json};
use tiphys_meta::{ErrorList, Path, ip, names, object};
use tiphys_types::jiff::Timestamp;

use crate::strategy::{Column, Strategy};
use crate::table::{AGE, NAME, age, column, selector};
use crate::tree::{array, array_mut, at, child, one_of, set_absent, text};
use crate::workloads::SPEC;

pub(super) static STRATEGY: Strategy =
    Strategy::new(true).spec_generation().defaults(defaults).checks(check, |_, _, _| {}).table(COLUMNS, cells);

const SIDES: [(&str, &str); 2] = [("ingress", "from"), ("egress", "to")];

fn defaults(o: &mut Value) {
    let spec = child(o, "spec");
    if array(spec, "policyTypes").is_empty() {
        let egress = !array(spec, "egress").is_empty();
        spec["policyTypes"] = if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
    }
    for (side, _) in SIDES {
        for rule in array_mut(spec, side) {
            array_mut(rule, "ports").iter_mut().for_each(|port| set_absent(port, "protocol", "TCP"));
        }
    }
}

fn check(o: &Value, errors: &mut ErrorList) {
    crate::selectors::check(at(o, "spec.podSelector"), &SPEC.child("podSelector"), errors);
    for (side, peers) in SIDES {
        for (i, rule) in array(o, &format!("spec.{side}")).iter().enumerate() {
            let list = SPEC.child(side);
            let path = list.index(i);
            for (j, port) in array(rule, "ports").iter().enumerate() {
                check_port(port, &path.child("ports").index(j), errors);
            }
            for (j, peer) in array(rule, peers).iter().enumerate() {
                check_peer(peer, &path.child(peers).index(j), errors);
            }
        }
    }
    let (types, list) = (array(o, "spec.policyTypes"), SPEC.child("policyTypes"));
    if types.len() > 2 {
        errors.invalid(&list, types.to_vec(), "may not specify more than two policyTypes");
        return;
    }
    for (i, kind) in types.iter().filter_map(Value::as_str).enumerate() {
        if !matches!(kind, "Ingress" | "Egress") {
            errors.not_supported(&list.index(i), kind, &["Ingress", "Egress"]);
        }
    }
}

fn check_port(port: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    one_of(at(port, "protocol"), &["TCP", "UDP", "SCTP"], &path.child("protocol"), errors);
    let end = at(port, "endPort").and_then(Value::as_i64);
    let end_path = path.child("endPort");
    match at(port, "port") {
        Some(Value::String(name)) => {
            if let Some(end) = end {
                errors.invalid(&end_path, end, "may not be specified when `port` is non-numeric");
            }
            errors.invalid_all(&path.child("port"), name, names::port_name(name));
        }
        Some(number) => {
            let number = number.as_i64().unwrap_or(0);
            for message in names::port_number(number) {
                errors.invalid(&path.child("port"), number, message);
            }
            let Some(end) = end else { return };
            if end < number {
                errors.invalid(&end_path, number, "must be greater than or equal to `port`");
            }
            for message in names::port_number(end) {
                errors.invalid(&end_path, end, message);
            }
        }
        None => {
            if let Some(end) = end {
                errors.invalid(&end_path, end, "may not be specified when `port` is not specified");
            }
        }
    }
}

fn check_peer(peer: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let mut selectors = 0;
    for field in ["podSelector", "namespaceSelector"] {
        if let Some(selector) = at(peer, field) {
            selectors += 1;
            crate::selectors::check(Some(selector), &path.child(field), errors);
        }
    }
    match at(peer, "ipBlock") {
        Some(block) => {
            check_block(block, &path.child("ipBlock"), errors);
            if selectors > 0 {
                errors.forbidden(path, "may not specify both ipBlock and another peer");
            }
        }
        None if selectors == 0 => errors.required(path, "must specify a peer"),
        None => {}
    }
}

fn check_block(block: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let cidr = text(block, "cidr");
    if cidr.is_empty() {
        errors.required(&path.child("cidr"), "");
        return;
    }
    ip::validate_cidr(errors, &path.child("cidr"), cidr);
    let Some((base, length)) = ip::parse_cidr(cidr) else { return };
    for (i, except) in array(block, "except").iter().filter_map(Value::as_str).enumerate() {
        let list = path.child("except");
        let path = list.index(i);
        ip::validate_cidr(errors, &path, except);
        if let Some((inner, inner_length)) = ip::parse_cidr(except)
            && (inner.is_ipv4() != base.is_ipv4() || ip::mask(inner, length) != ip::mask(base, length) || inner_length <= length)
        {
            errors.invalid(&path, except, "must be a strict subset of `cidr`");
        }
    }
}

const COLUMNS: &[Column] = &[NAME, column("Pod-Selector"), AGE];

fn cells(o: &Value, now: Timestamp) -> Vec<Value> {
    let empty = json!({});
    vec![object::name(o).into(), selector(Some(at(o, "spec.podSelector").unwrap_or(&empty))).into(), age(o, now)]
}
