//! What several controllers do alike.

pub(crate) mod claim;
pub(crate) mod discovery;
pub(crate) mod history;
pub(crate) mod namespaces;
pub(crate) mod nodes;
pub(crate) mod pod;
pub(crate) mod services;
pub(crate) mod slices;
pub(crate) mod watch;

#[cfg(test)]
pub(crate) mod test;
