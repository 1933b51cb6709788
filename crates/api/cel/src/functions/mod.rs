//! Functions: the standard library, and those that Kubernetes adds.

pub(crate) mod authz;
pub(crate) mod format;
mod lists;
mod net;
pub(crate) mod opaque;
pub(crate) mod optional;
mod quantity;
pub(crate) mod regex;
mod semver;
pub(crate) mod standard;
mod strings;
mod text_format;
mod url;

use crate::value::{Eval, Val, no_overload};

/// Calls the function on its arguments, the target first. What the types do not decide is decided here.
pub(crate) fn call<'a>(name: &str, args: &[Val<'a>]) -> Eval<Val<'a>> {
    for library in LIBRARIES {
        if let Some(result) = library(name, args) {
            return result;
        }
    }
    no_overload()
}

/// None: the library has no such function for such arguments.
type Library = for<'s, 'v, 'a> fn(&'s str, &'v [Val<'a>]) -> Option<Eval<Val<'a>>>;

const LIBRARIES: [Library; 11] = [
    standard::call,
    strings::call,
    lists::call,
    optional::call,
    regex::call,
    quantity::call,
    authz::call,
    net::call,
    format::call,
    semver::call,
    url::call,
];
