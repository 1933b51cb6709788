//! What an expression may refer to: variables, and the fields of the types that they have.

use std::sync::Arc;

use crate::types::Type;

/// Types with fields. Asked as names come up, so that a large schema costs nothing until it is used.
pub trait Provider: Send + Sync {
    /// Whether there is such a type.
    fn has_type(&self, name: &str) -> bool;

    fn field(&self, type_name: &str, field: &str) -> Option<Type>;
}

#[derive(Clone, Default)]
pub struct Env {
    variables: Vec<(Arc<str>, Type)>,
    providers: Vec<Arc<dyn Provider>>,
    patches: bool,
    bind: bool,
}

impl Env {
    #[must_use]
    pub fn variable(mut self, name: &str, ty: Type) -> Env {
        self.variables.push((name.into(), ty));
        self
    }

    #[must_use]
    pub fn provider(mut self, provider: Arc<dyn Provider>) -> Env {
        self.providers.push(provider);
        self
    }

    /// `JSONPatch{…}`, `Object{…}` and `jsonpatch.escapeKey`, for mutations.
    #[must_use]
    pub fn patches(mut self) -> Env {
        self.patches = true;
        self
    }

    /// `cel.bind`, which upstream's API server leaves out.
    #[must_use]
    pub fn bind(mut self) -> Env {
        self.bind = true;
        self
    }

    pub(crate) fn find(&self, name: &str) -> Option<&Type> {
        self.variables.iter().rev().find(|(n, _)| &**n == name).map(|(_, t)| t)
    }

    pub(crate) fn allows(&self, function: &str) -> bool {
        self.patches || function != "jsonpatch.escapeKey"
    }

    pub(crate) fn binds(&self) -> bool {
        self.bind
    }

    pub(crate) fn has_type(&self, name: &str) -> bool {
        (self.patches && is_patch_type(name)) || KNOWN.contains(&name) || self.providers.iter().any(|p| p.has_type(name))
    }

    pub(crate) fn field(&self, type_name: &str, field: &str) -> Option<Type> {
        if self.patches && is_patch_type(type_name) {
            return Some(match (type_name, field) {
                ("JSONPatch", "op" | "from" | "path") => Type::String,
                ("JSONPatch", "value") => Type::Dyn,
                ("JSONPatch", _) => return None,
                _ => Type::Dyn,
            });
        }
        self.providers.iter().find(|p| p.has_type(type_name)).and_then(|p| p.field(type_name, field))
    }
}

/// Types of the libraries: they have functions, no fields.
const KNOWN: [&str; 9] = [
    "kubernetes.URL",
    "kubernetes.Quantity",
    "kubernetes.Semver",
    "kubernetes.NamedFormat",
    "kubernetes.authorization.Authorizer",
    "kubernetes.authorization.PathCheck",
    "kubernetes.authorization.GroupCheck",
    "kubernetes.authorization.ResourceCheck",
    "kubernetes.authorization.Decision",
];

fn is_patch_type(name: &str) -> bool {
    name == "JSONPatch" || name == "Object" || name.starts_with("Object.")
}
