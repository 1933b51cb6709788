//! The typed `LabelSelector` (`matchLabels`, `matchExpressions`) as a parsed one that matches.

use serde_json::Value;
use tiphys_meta::LabelSelector;
use tiphys_meta::selector::{Operator, Requirement};

use crate::metav1;

/// Upstream's `LabelSelectorAsSelector`: none selects nothing, an empty one everything.
pub fn from_typed(selector: Option<&metav1::LabelSelector>) -> Result<LabelSelector, String> {
    let Some(selector) = selector else { return Ok(LabelSelector::Nothing) };
    let mut requirements = Vec::new();
    for (key, value) in selector.match_labels.iter().flatten() {
        requirements.push(Requirement::new(key, Operator::Equals, vec![value.clone()])?);
    }
    for expression in selector.match_expressions.iter().flatten() {
        let values = expression.values.clone().unwrap_or_default();
        requirements.push(Requirement::new(&expression.key, operator(&expression.operator)?, values)?);
    }
    Ok(LabelSelector::from_requirements(requirements))
}

/// The same from the tree.
pub fn from_value(selector: &Value) -> Result<LabelSelector, String> {
    if selector.is_null() {
        return Ok(LabelSelector::Nothing);
    }
    let typed: metav1::LabelSelector = serde::Deserialize::deserialize(selector).map_err(|e: serde_json::Error| e.to_string())?;
    from_typed(Some(&typed))
}

fn operator(name: &str) -> Result<Operator, String> {
    match name {
        "In" => Ok(Operator::In),
        "NotIn" => Ok(Operator::NotIn),
        "Exists" => Ok(Operator::Exists),
        "DoesNotExist" => Ok(Operator::DoesNotExist),
        other => Err(format!("{other:?} is not a valid label selector operator")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn typed_selectors() {
        let selector = from_value(&json!({
            "matchLabels": {"app": "web"},
            "matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["db"]}],
        }))
        .unwrap();
        assert_eq!(selector.to_string(), "app=web,tier notin (db)");
        let labels = |tier: &'static str| move |key: &str| if key == "app" { Some("web") } else { Some(tier) };
        assert!(selector.matches(labels("front")));
        assert!(!selector.matches(labels("db")));
        assert!(from_value(&json!({})).unwrap().is_everything());
        assert_eq!(from_value(&Value::Null), Ok(LabelSelector::Nothing));
        assert!(from_value(&json!({"matchExpressions": [{"key": "a", "operator": "Foo"}]})).is_err());
    }
}
