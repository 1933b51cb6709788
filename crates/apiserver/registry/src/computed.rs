//! Objects that are kept nowhere and made for each question (`metrics.k8s.io`), in the form that the client reads: JSON, protobuf, a table, or
//! their metadata alone.
//!
//! Deliberately absent: resource versions, pages and watches, which such objects do not have.

use serde_json::{Value, json};
use tiphys_meta::{ApiError, Gvk};

use crate::answer::Answer;
use crate::negotiate::{Output, Shown};
use crate::render::{Include, document};

/// What is asked for: one object or all of them. Each has `metadata`, and none its type, which is put in here.
pub enum Computed {
    One(Value),
    Many(Vec<Value>),
}

/// How objects of a kind are shown.
pub struct Presentation<'a> {
    pub gvk: &'a Gvk,
    /// `columnDefinitions` of a table.
    pub columns: Value,
    /// The cells of an object's row.
    pub cells: &'a dyn Fn(&Value) -> Vec<Value>,
}

const PARTIAL: &str = "PartialObjectMetadata";

impl Presentation<'_> {
    /// `include` is `includeObject` of the query.
    pub fn answer(&self, computed: Computed, accept: &str, include: &str) -> Result<Answer, ApiError> {
        let output = Output::negotiate(accept, false, true)?;
        let (gvk, tree) = match output.shown {
            Shown::Object => self.objects(computed),
            Shown::Metadata => partial(computed, &output),
            Shown::Table => (Gvk::new("meta.k8s.io", "v1", "Table"), self.table(computed, &output, Include::parse(include)?)),
        };
        Ok(Answer::object(200, output.format.content_type(), document(&gvk, &tree, output.format)?))
    }

    fn objects(&self, computed: Computed) -> (Gvk, Value) {
        match computed {
            Computed::One(object) => (self.gvk.clone(), typed(self.gvk, object)),
            Computed::Many(items) => {
                list(&Gvk::new(self.gvk.group.clone(), self.gvk.version.clone(), format!("{}List", self.gvk.kind)), items)
            }
        }
    }

    fn table(&self, computed: Computed, output: &Output, include: Include) -> Value {
        let row = |object: Value| {
            let mut row = json!({"cells": (self.cells)(&object)});
            match include {
                Include::None => {}
                Include::Metadata => row["object"] = typed(&partial_kind(output, ""), json!({"metadata": object["metadata"]})),
                Include::Object => row["object"] = typed(self.gvk, object),
            }
            row
        };
        let rows: Vec<Value> = match computed {
            Computed::One(object) => vec![row(object)],
            Computed::Many(items) => items.into_iter().map(row).collect(),
        };
        json!({"kind": "Table", "apiVersion": output.meta_version(), "metadata": {}, "columnDefinitions": self.columns, "rows": rows})
    }
}

fn partial(computed: Computed, output: &Output) -> (Gvk, Value) {
    let metadata = |object: Value| json!({"metadata": object["metadata"]});
    match computed {
        Computed::One(object) => {
            let gvk = partial_kind(output, "");
            let tree = typed(&gvk, metadata(object));
            (gvk, tree)
        }
        Computed::Many(items) => {
            let one = partial_kind(output, "");
            list(&partial_kind(output, "List"), items.into_iter().map(|object| typed(&one, metadata(object))).collect())
        }
    }
}

fn partial_kind(output: &Output, suffix: &str) -> Gvk {
    Gvk::from_api_version(output.meta_version(), &format!("{PARTIAL}{suffix}"))
}

fn list(gvk: &Gvk, items: Vec<Value>) -> (Gvk, Value) {
    (gvk.clone(), typed(gvk, json!({"metadata": {}, "items": items})))
}

fn typed(gvk: &Gvk, mut object: Value) -> Value {
    object["kind"] = json!(gvk.kind);
    object["apiVersion"] = json!(gvk.api_version());
    object
}

#[cfg(test)]
mod tests {
    use tiphys_schema::codec;

    use super::*;

    fn said(computed: Computed, accept: &str) -> (String, Vec<u8>) {
        let gvk = Gvk::new("metrics.k8s.io", "v1beta1", "NodeMetrics");
        let cells = |object: &Value| vec![object["metadata"]["name"].clone()];
        let shown = Presentation { gvk: &gvk, columns: json!([{"name": "Name"}]), cells: &cells };
        match shown.answer(computed, accept, "").expect("answered") {
            Answer::Object(document) => (document.content_type.into_owned(), document.body.into_bytes().to_vec()),
            Answer::Watch(_) => unreachable!("no watch was asked for"),
        }
    }

    fn metrics() -> Value {
        json!({"metadata": {"name": "n"}, "timestamp": "2026-01-01T00:00:00Z", "window": "10s", "usage": {"cpu": "12m", "memory": "8Ki"}})
    }

    #[test]
    fn every_form() {
        let (content_type, body) = said(Computed::One(metrics()), "application/vnd.kubernetes.protobuf");
        assert_eq!(content_type, "application/vnd.kubernetes.protobuf");
        let (gvk, tree) = codec::proto::decode(&body).expect("protobuf");
        assert_eq!((&*gvk.kind, &tree["usage"], &tree["window"]), ("NodeMetrics", &metrics()["usage"], &json!("10s")));
        let json_of = |computed: Computed, accept: &str| -> Value { serde_json::from_slice(&said(computed, accept).1).expect("JSON") };
        let list = json_of(Computed::Many(vec![metrics()]), "application/json");
        assert_eq!((&list["kind"], &list["items"][0]["usage"]["cpu"]), (&json!("NodeMetricsList"), &json!("12m")));
        let table = json_of(Computed::Many(vec![metrics()]), "application/json;as=Table;v=v1;g=meta.k8s.io");
        assert_eq!((&table["rows"][0]["cells"], &table["rows"][0]["object"]["kind"]), (&json!(["n"]), &json!(PARTIAL)));
        let partial = json_of(Computed::Many(vec![metrics()]), "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io");
        assert_eq!(partial["items"][0], json!({"kind": PARTIAL, "apiVersion": "meta.k8s.io/v1", "metadata": {"name": "n"}}));
        let (_, body) =
            said(Computed::Many(vec![metrics()]), "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io");
        assert_eq!(codec::proto::decode(&body).expect("protobuf").1["items"][0]["metadata"]["name"], "n");
    }
}
