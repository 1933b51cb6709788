//! One request of the suite, and what later requests take from earlier answers.

use std::collections::BTreeMap;

use serde_json::Value;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Step {
    /// What the request is for; unique in the suite. `known.txt` names it.
    pub(crate) id: String,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) content_type: String,
    /// A string is sent as it stands, everything else as JSON.
    pub(crate) body: Value,
    /// The answer's uid, resourceVersion and continue token are kept under this name: `${NAME.uid}` in later requests.
    pub(crate) save: Option<String>,
    /// More than none: a watch, of which so many events are read.
    pub(crate) events: usize,
    /// The answer is not compared: it only prepares.
    pub(crate) quiet: bool,
}

impl Step {
    /// `call` is `GET /api/v1/pods`.
    pub(crate) fn new(id: impl Into<String>, call: &str) -> Step {
        let (method, path) = call.split_once(' ').unwrap_or(("GET", call));
        Step {
            id: id.into(),
            method: method.to_owned(),
            path: path.to_owned(),
            headers: vec![],
            content_type: "application/json".into(),
            body: Value::Null,
            save: None,
            events: 0,
            quiet: false,
        }
    }

    pub(crate) fn body(mut self, body: Value) -> Step {
        self.body = body;
        self
    }

    /// `merge`, `json`, `strategic`, `apply`, or a content type in full.
    pub(crate) fn content(mut self, kind: &str) -> Step {
        self.content_type = match kind {
            "merge" => "application/merge-patch+json".into(),
            "json" => "application/json-patch+json".into(),
            "strategic" => "application/strategic-merge-patch+json".into(),
            "apply" => "application/apply-patch+yaml".into(),
            full => full.into(),
        };
        self
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Step {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn save(mut self, name: &str) -> Step {
        self.save = Some(name.to_owned());
        self
    }

    pub(crate) fn quiet(mut self) -> Step {
        self.quiet = true;
        self
    }

    pub(crate) fn body_text(&self) -> String {
        match &self.body {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        }
    }

    /// With `${…}` filled in.
    pub(crate) fn filled(&self, saved: &Saved) -> Step {
        let mut step = self.clone();
        step.path = saved.fill(&step.path);
        if self.body_text().contains("${") {
            step.body = Value::String(saved.fill(&self.body_text()));
        }
        step
    }
}

/// Values of earlier answers of one server.
#[derive(Debug, Default)]
pub(crate) struct Saved(BTreeMap<String, String>);

impl Saved {
    pub(crate) fn keep(&mut self, name: &str, body: &Value) {
        for (short, field) in [("uid", "uid"), ("rv", "resourceVersion"), ("continue", "continue"), ("name", "name")] {
            if let Some(value) = body["metadata"][field].as_str() {
                self.0.insert(format!("${{{name}.{short}}}"), value.to_owned());
            }
        }
    }

    fn fill(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (name, value)| if text.contains(name) { text.replace(name, value) } else { text })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn later_requests_take_from_earlier_answers() {
        let mut saved = Saved::default();
        saved.keep("a", &json!({"metadata": {"uid": "u-1", "resourceVersion": "7"}}));
        let step = Step::new("x", "PUT /a?resourceVersion=${a.rv}").body(json!({"metadata": {"uid": "${a.uid}", "name": "${b.name}"}}));
        let filled = step.filled(&saved);
        assert_eq!(filled.path, "/a?resourceVersion=7");
        assert_eq!(filled.body_text(), r#"{"metadata":{"name":"${b.name}","uid":"u-1"}}"#);
    }
}
