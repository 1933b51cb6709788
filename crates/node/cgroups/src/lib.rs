//! Control groups, version 1 (every controller mounted for itself), 2, and the mixture of both: file by file.
//!
//! A [`Cgroup`] is one path, e.g. `/kubepods/burstable/pod<uid>/<container>`, that stands for one folder in each hierarchy.
//! Beside version 1 an empty version 2 hierarchy is often mounted (`unified`); it is used for what version 1 cannot do:
//! killing everything at once, being born into a group, telling when a group becomes empty.
//! Deliberately absent: systemd as the manager of cgroups, blkio and RDMA limits, real-time scheduling.

mod devices;
mod error;
mod events;
mod group;
mod hierarchy;
mod limits;
mod stats;
mod v1;
mod v2;

pub use devices::{Access, DeviceKind, DeviceRule};
pub use error::{CgroupError, Result};
pub use events::OomWatch;
pub use group::{Cgroup, JoinPlan};
pub use hierarchy::{Hierarchy, Version};
pub use limits::Limits;
pub use stats::Stats;
pub use v2::install_device_filter;
