//! Pod: containers that run together on one node. Made by a user or a controller, bound once by the scheduler (subresource `binding`), run by the
//! kubelet, which owns the status. Of the spec hardly anything may change: images, the deadline (down), tolerations (more), scheduling gates (fewer);
//! resources through `resize` (KEP-1287), ephemeral containers through their own subresource.

mod containers;
pub(crate) mod defaults;
pub(crate) mod resources;
pub(crate) mod scheduling;
mod security;
mod strategy;
mod table;
mod update;
pub(crate) mod validation;
mod volumes;
pub(crate) mod warnings;

use tiphys_meta::names;

use crate::strategy::{Generation, Strategy, Subresource};

pub(crate) static STRATEGY: Strategy = Strategy::new(true)
    .name(names::name_is_dns_subdomain)
    .generation(Generation::When(strategy::spec_changed))
    .status(r#"{"phase":"Pending"}"#)
    .defaults(defaults::pod)
    .on_create(strategy::on_create)
    .subresources(&[
        Subresource { name: "status", prepare_update: strategy::prepare_status, validate_update: update::status },
        Subresource {
            name: "ephemeralcontainers",
            prepare_update: strategy::prepare_ephemeral,
            validate_update: update::ephemeral_containers,
        },
        Subresource { name: "resize", prepare_update: strategy::prepare_resize, validate_update: update::resize },
    ])
    .checks(validation::pod, update::pod)
    .check_created(validation::created)
    .warnings_by(strategy::warnings)
    .selectable(strategy::SELECTABLE, strategy::selectable)
    .table(table::COLUMNS, table::cells)
    .graceful(strategy::grace);
