//! One pod's life: what is wanted ([`spec`]), what there is ([`view`]), what to do ([`plan`]), what to show ([`status`]),
//! all pure; and the task that acts on it ([`worker`]).

pub(crate) mod conditions;
pub(crate) mod container;
pub(crate) mod job;
pub(crate) mod kill;
pub(crate) mod observe;
pub(crate) mod patch;
pub(crate) mod phase;
pub(crate) mod plan;
pub(crate) mod sandbox;
pub(crate) mod spec;
pub(crate) mod status;
pub(crate) mod view;
pub(crate) mod worker;
