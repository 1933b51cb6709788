//! ServiceAccount: who a pod is.

use crate::strategy::Strategy;
use crate::table::{NAME_AGE, name_age};

pub(crate) static STRATEGY: Strategy = Strategy::new(true).table(NAME_AGE, name_age);
