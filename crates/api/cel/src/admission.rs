//! The variables of admission: `object`, `oldObject`, `request`, `namespaceObject`, `params`, `authorizer`, `variables`.

use std::sync::{Arc, LazyLock};

use crate::env::{Env, Provider};
use crate::program::Program;
use crate::source::display;
use crate::types::Type;

/// The types of `request` and `namespaceObject`: upstream writes them by hand too, leaving fields out by design.
struct Fixed;

/// Type, then fields with their types.
const FIXED: [(&str, &[(&str, &str)]); 9] = [
    ("kubernetes.GroupVersionKind", &[("group", "string"), ("version", "string"), ("kind", "string")]),
    ("kubernetes.GroupVersionResource", &[("group", "string"), ("version", "string"), ("resource", "string")]),
    ("kubernetes.UserInfo", &[("username", "string"), ("uid", "string"), ("groups", "strings"), ("extra", "map of strings")]),
    (
        "kubernetes.AdmissionRequest",
        &[
            ("kind", "kubernetes.GroupVersionKind"),
            ("resource", "kubernetes.GroupVersionResource"),
            ("subResource", "string"),
            ("requestKind", "kubernetes.GroupVersionKind"),
            ("requestResource", "kubernetes.GroupVersionResource"),
            ("requestSubResource", "string"),
            ("name", "string"),
            ("namespace", "string"),
            ("operation", "string"),
            ("userInfo", "kubernetes.UserInfo"),
            ("dryRun", "bool"),
            ("options", "dyn"),
        ],
    ),
    ("kubernetes.NamespaceSpec", &[("finalizers", "strings")]),
    (
        "kubernetes.NamespaceCondition",
        &[("status", "string"), ("type", "string"), ("lastTransitionTime", "timestamp"), ("message", "string"), ("reason", "string")],
    ),
    ("kubernetes.NamespaceStatus", &[("conditions", "conditions"), ("phase", "string")]),
    (
        "kubernetes.NamespaceMetadata",
        &[
            ("name", "string"),
            ("generateName", "string"),
            ("namespace", "string"),
            ("labels", "labels"),
            ("annotations", "labels"),
            ("UID", "string"),
            ("creationTimestamp", "timestamp"),
            ("deletionGracePeriodSeconds", "int"),
            ("deletionTimestamp", "timestamp"),
            ("generation", "int"),
            ("resourceVersion", "string"),
            ("finalizers", "strings"),
        ],
    ),
    (
        "kubernetes.Namespace",
        &[("metadata", "kubernetes.NamespaceMetadata"), ("spec", "kubernetes.NamespaceSpec"), ("status", "kubernetes.NamespaceStatus")],
    ),
];

fn read(name: &str) -> Type {
    match name {
        "string" => Type::String,
        "bool" => Type::Bool,
        "int" => Type::Int,
        "dyn" => Type::Dyn,
        "timestamp" => Type::Timestamp,
        "strings" => Type::list(Type::String),
        "labels" => Type::map(Type::String, Type::String),
        "map of strings" => Type::map(Type::String, Type::list(Type::String)),
        "conditions" => Type::list(Type::structure("kubernetes.NamespaceCondition")),
        other => Type::structure(other),
    }
}

impl Provider for Fixed {
    fn has_type(&self, name: &str) -> bool {
        FIXED.iter().any(|(n, _)| *n == name)
    }

    fn field(&self, type_name: &str, field: &str) -> Option<Type> {
        let (_, fields) = FIXED.iter().find(|(n, _)| *n == type_name)?;
        fields.iter().find(|(n, _)| *n == field).map(|(_, ty)| read(ty))
    }
}

/// What an expression of admission may refer to besides the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Declared {
    pub params: bool,
    pub authorizer: bool,
    /// `Object{…}` and `JSONPatch{…}`.
    pub patches: bool,
}

/// Types for objects and parameters, where a type checker knows them; they are dynamic otherwise.
#[derive(Default, Clone)]
pub struct Known {
    pub object: Option<(Type, Arc<dyn Provider>)>,
    pub params: Option<(Type, Arc<dyn Provider>)>,
}

#[must_use]
pub fn env(declared: Declared, known: &Known) -> Env {
    static FIXED_TYPES: LazyLock<Arc<dyn Provider>> = LazyLock::new(|| Arc::new(Fixed));
    let ty = |known: &Option<(Type, Arc<dyn Provider>)>| known.as_ref().map_or(Type::Dyn, |(ty, _)| ty.clone());
    let mut env = Env::default()
        .provider(FIXED_TYPES.clone())
        .variable("object", ty(&known.object))
        .variable("oldObject", ty(&known.object))
        .variable("namespaceObject", Type::structure("kubernetes.Namespace"))
        .variable("request", Type::structure("kubernetes.AdmissionRequest"));
    if declared.params {
        env = env.variable("params", ty(&known.params));
    }
    if declared.authorizer {
        env = env.variable("authorizer", Type::structure("kubernetes.authorization.Authorizer"));
        env = env.variable("authorizer.requestResource", Type::structure("kubernetes.authorization.ResourceCheck"));
    }
    for (_, provider) in known.object.iter().chain(&known.params) {
        env = env.provider(provider.clone());
    }
    if declared.patches { env.patches() } else { env }
}

/// Compiles an expression of admission. `wanted`: the types that it may give; none for any. Errors are upstream's.
pub fn compile(expression: &str, env: &Env, wanted: &[Type]) -> Result<Program, String> {
    let program = Program::compile(expression, env).map_err(|issues| format!("compilation failed: {}", display(&issues)))?;
    if wanted.is_empty() || wanted.contains(program.output()) {
        return Ok(program);
    }
    let (names, got) = (wanted.iter().map(Type::declared).collect::<Vec<_>>(), program.output().declared());
    Err(match &names[..] {
        [one] => format!("must evaluate to {one} but got {got}"),
        many => format!("must evaluate to one of [{}] but got {got}", many.join(" ")),
    })
}

/// The type of `variables`: its fields are the variables that have been declared so far, so that an expression sees only those before it.
#[derive(Clone, Default)]
pub struct Variables(Vec<(String, Type)>);

const VARIABLES: &str = "kubernetes.variables";

impl Variables {
    /// A variable that failed to compile is dynamic.
    pub fn declare(&mut self, name: &str, ty: Option<&Type>) {
        self.0.push((name.to_owned(), ty.map_or(Type::Dyn, simple)));
    }

    /// The environment with `variables` as they are now.
    #[must_use]
    pub fn extend(&self, env: Env) -> Env {
        env.variable("variables", Type::structure(VARIABLES)).provider(Arc::new(self.clone()))
    }
}

/// Types that are not kept from one expression to the next are dynamic there.
fn simple(ty: &Type) -> Type {
    match ty {
        Type::List(e) => Type::list(simple(e)),
        Type::Map(k, v) => Type::map(simple(k), simple(v)),
        Type::Struct(_) | Type::Opaque(..) | Type::Type(_) | Type::Error | Type::Param(_) | Type::Var(_) => Type::Dyn,
        other => other.clone(),
    }
}

impl Provider for Variables {
    fn has_type(&self, name: &str) -> bool {
        name == VARIABLES
    }

    fn field(&self, _: &str, field: &str) -> Option<Type> {
        self.0.iter().find(|(n, _)| n == field).map(|(_, ty)| ty.clone())
    }
}
