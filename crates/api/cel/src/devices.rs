//! Selectors of devices (KEP-4381): the variable `device`, its driver, attributes and capacities.
//!
//! Deliberately absent: running them. Whoever allocates devices brings their values.

use std::sync::{Arc, LazyLock};

use crate::env::Env;
use crate::program::Program;
use crate::schema::{Schema, SchemaTypes};
use crate::source::display;
use crate::types::Type;

/// What one selector may be estimated to cost.
pub const COST_LIMIT: u64 = 1_000_000;

/// Compiles a selector. Errors are upstream's.
pub fn compile(expression: &str) -> Result<Program, String> {
    static DEVICE: LazyLock<Arc<Schema>> = LazyLock::new(|| Schema::device("kubernetes.DRADevice"));
    let env = Env::default().provider(Arc::new(SchemaTypes(DEVICE.clone()))).variable("device", DEVICE.ty()).bind();
    let program =
        Program::compile_sized(expression, &env, Some(&DEVICE)).map_err(|issues| format!("compilation failed: {}", display(&issues)))?;
    match program.output() {
        // An attribute may be a boolean.
        Type::Bool | Type::Any => Ok(program),
        other => Err(format!("must evaluate to bool or the unknown type, not {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_checked_by_type_and_cost() {
        for (expression, max) in COSTS {
            let program = compile(expression).unwrap_or_else(|why| panic!("{expression}: {why}"));
            assert_eq!(program.estimate().max, *max, "{expression}");
        }
        for (expression, why) in [
            ("device.none", "compilation failed: ERROR: <input>:1:7: undefined field 'none'"),
            ("device.driver", "must evaluate to bool or the unknown type, not string"),
            ("oldDevice.driver == ''", "compilation failed: ERROR: <input>:1:1: undeclared reference to 'oldDevice' (in container '')"),
        ] {
            let found = compile(expression).err().unwrap_or_default();
            assert!(found.starts_with(why), "{expression}: {found}");
        }
    }

    /// As upstream's own tests of its compiler have them (`compile_test.go`).
    const COSTS: &[(&str, u64)] = &[
        (r#"true"#, 0),
        (r#"device.attributes["no-such-domain"].noSuchAttr.isGreaterThan(quantity("0"))"#, 6),
        (r#""no-such-domain" in device.attributes"#, 3),
        (r#"device.driver == """#, 2),
        (r#"device.driver == "dra.example.com""#, 4),
        (r#"device.attributes["dra.example.com"].name"#, 4),
        (r#"device.attributes["dra.example.com"]["name"]"#, 4),
        (r#"cel.bind(dra, device.attributes["dra.example.com"], dra.name)"#, 15),
        (r#"device.attributes["dra.example.com"].name > 0"#, 5),
        (r#"device.attributes["dra.example.com"].name == "fish""#, 5),
        (r#"device.attributes["dra.example.com"].name.isGreaterThan(semver("0.0.1"))"#, 6),
        (r#"device.capacity["dra.example.com"].name.isGreaterThan(quantity("1Ki"))"#, 6),
        (
            r#"!("name" in device.capacity["dra.example.com"]) || device.capacity["dra.example.com"].name.isGreaterThan(quantity("1Ki"))"#,
            11,
        ),
        (r#"device.attributes.exists_one(x, x == "dra.example.com")"#, 164),
        (r#"device.attributes["dra.example.com"].exists_one(x, x == "services")"#, 133),
        (r#"device.attributes["dra.example.com"].services.split("example").size() >= 2"#, 19),
        (r#"device.attributes["dra.example.com"].services.matches("[^a]?sym")"#, 18),
        (r#"device.capacity.exists_one(x, x == "dra.example.com")"#, 164),
        (r#"device.capacity["dra.example.com"].exists_one(x, x == "memory")"#, 133),
        (r#"device.allowMultipleAllocations == true"#, 3),
    ];
}
