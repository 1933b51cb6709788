//! The scale subresource of a custom resource: where in the object its three values stand.

use serde_json::{Map, Value, json};
use tiphys_meta::{ApiError, ErrorList, ErrorType, FieldError};

use super::Version;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ScalePaths {
    spec: Vec<String>,
    status: Vec<String>,
    selector: Option<Vec<String>>,
}

fn steps(path: &str) -> Vec<String> {
    path.trim_start_matches('.').split('.').map(str::to_owned).collect()
}

fn find<'v>(tree: &'v Value, path: &[String]) -> Option<&'v Value> {
    path.iter().try_fold(tree, |value, step| value.get(step))
}

impl ScalePaths {
    pub(super) fn of(scale: &Value) -> ScalePaths {
        let path = |field: &str| scale.get(field).and_then(Value::as_str).map(steps);
        ScalePaths {
            spec: path("specReplicasPath").unwrap_or_default(),
            status: path("statusReplicasPath").unwrap_or_default(),
            selector: path("labelSelectorPath"),
        }
    }

    /// What a Scale says of an object: wanted and present replicas, and the selector.
    pub(crate) fn read(&self, tree: &Value) -> Result<(Option<i64>, i64, String), ApiError> {
        let wrong = |path: &[String], what: &str, value: &Value| ApiError::bad_request(accessor_error(path, value, what));
        let number = |path: &[String]| match find(tree, path) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => value.as_i64().map(Some).ok_or_else(|| wrong(path, "int64", value)),
        };
        let selector = match self.selector.as_deref().and_then(|path| Some((path, find(tree, path)?))) {
            None => String::new(),
            Some((path, value)) => value.as_str().ok_or_else(|| wrong(path, "string", value))?.to_owned(),
        };
        Ok((number(&self.spec)?, number(&self.status)?.unwrap_or(0), selector))
    }

    /// Where the wanted replicas stand.
    pub(crate) fn replicas(&self) -> impl Iterator<Item = &str> {
        self.spec.iter().map(String::as_str)
    }

    pub(crate) fn set(&self, tree: &mut Value, replicas: i64) {
        let Some((last, parents)) = self.spec.split_last() else { return };
        let mut place = tree;
        for step in parents {
            place = tiphys_meta::object::as_map(place).entry(step.as_str()).or_insert_with(|| Value::Object(Map::new()));
        }
        tiphys_meta::object::as_map(place).insert(last.clone(), json!(replicas));
    }
}

fn accessor_error(path: &[String], value: &Value, wanted: &str) -> String {
    let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    format!(".{} accessor error: {shown} is of the type {}, expected {wanted}", path.join("."), type_name(value))
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

impl Version {
    /// What a scale cannot be; `spec` is left out where only the status is written.
    pub(super) fn scale_errors(&self, tree: &Value, spec: bool) -> ErrorList {
        const MOST: i64 = i32::MAX as i64;
        let mut errors = ErrorList::new();
        let Some(paths) = &self.scale else { return errors };
        let sides = [(&paths.spec, spec), (&paths.status, true)];
        for (path, _) in sides.into_iter().filter(|(_, wanted)| *wanted) {
            let Some(value) = find(tree, path) else { continue };
            let detail = match value.as_i64() {
                None => accessor_error(path, value, "int64"),
                Some(n) if n < 0 => "should be a non-negative integer".into(),
                Some(n) if n > MOST => format!("should be less than or equal to {MOST}"),
                Some(_) => continue,
            };
            let shown = json!(value.as_i64().unwrap_or(0));
            errors.push(FieldError { kind: ErrorType::Invalid, field: format!(".{}", path.join(".")), value: Some(shown), detail });
        }
        if let Some(path) = &paths.selector
            && let Some(value) = find(tree, path).filter(|v| !v.is_string())
        {
            let detail = accessor_error(path, value, "string");
            errors.push(FieldError { kind: ErrorType::Invalid, field: format!(".{}", path.join(".")), value: Some(json!("")), detail });
        }
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_is_read_and_set() {
        let paths = ScalePaths::of(
            &json!({"specReplicasPath": ".spec.size.n", "statusReplicasPath": ".status.n", "labelSelectorPath": ".status.s"}),
        );
        let mut tree = json!({"status": {"n": 2, "s": "a=b"}});
        assert_eq!(paths.read(&tree).unwrap(), (None, 2, "a=b".to_owned()));
        paths.set(&mut tree, 3);
        assert_eq!(tree["spec"], json!({"size": {"n": 3}}));
        assert_eq!(paths.read(&json!({"status": {"n": "x"}})).unwrap_err().code, 400);
    }
}
