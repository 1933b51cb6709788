//! What a group may use.

use std::collections::BTreeMap;

use crate::devices::DeviceRule;

/// Limits in the CRI's terms; None leaves a file as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Version 1's weight, 2 to 262144; translated for version 2.
    pub cpu_shares: Option<u64>,
    /// Microseconds per period; negative is unlimited.
    pub cpu_quota: Option<i64>,
    pub cpu_period: Option<u64>,
    /// Bytes; negative is unlimited.
    pub memory: Option<i64>,
    /// Memory and swap together, as in version 1; negative is unlimited.
    pub memory_swap: Option<i64>,
    /// Negative is unlimited.
    pub pids: Option<i64>,
    /// Page size as in the file names (`2MB`, `1GB`) and bytes.
    pub hugepages: Vec<(String, u64)>,
    pub cpuset_cpus: Option<String>,
    pub cpuset_mems: Option<String>,
    /// The only devices allowed. None leaves them as they are.
    pub devices: Option<Vec<DeviceRule>>,
    /// Version 2 files by name, written last. Ignored in version 1.
    pub unified: BTreeMap<String, String>,
}

/// Version 2's cpu.weight (1 to 10000) for version 1's cpu.shares (2 to 262144): a curve through (2, 1), (1024, 100) and
/// (262144, 10000), so that the defaults of both versions meet (opencontainers/cgroups, since 0.0.5).
pub(crate) fn weight_of_shares(shares: u64) -> u64 {
    match shares {
        0 => 0,
        1..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            10f64.powf(exponent).ceil() as u64
        }
    }
}

#[cfg(test)]
mod tests {
    use super::weight_of_shares;

    #[test]
    fn the_curve_meets_its_three_points() {
        assert_eq!([2, 1024, 262_144].map(weight_of_shares), [1, 100, 10_000]);
        assert!((2..262_144).step_by(97).zip((2..262_144).step_by(97).skip(1)).all(|(a, b)| weight_of_shares(a) <= weight_of_shares(b)));
    }
}
