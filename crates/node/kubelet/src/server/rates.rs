//! CPU rates: the kernel counts nanoseconds, and `usageNanoCores` is how fast they grew since somebody asked last.

use parking_lot::Mutex;
use std::collections::HashMap;
use tiphys_cri::CpuUsage;

/// Nearer to each other than this two samples say little.
const SHORTEST: i64 = 1_000_000_000;
/// Who has not been asked about for so long is forgotten.
const FORGOTTEN: i64 = 600_000_000_000;
const MANY: usize = 256;

#[derive(Clone, Copy)]
struct Sample {
    at: i64,
    total: u64,
    rate: Option<u64>,
}

/// The last sample of each pod and container, by id.
#[derive(Default)]
pub(crate) struct Rates(Mutex<HashMap<String, Sample>>);

impl Rates {
    /// Nanocores; None before there are two samples.
    pub(crate) fn of(&self, id: &str, usage: &CpuUsage) -> Option<u64> {
        if usage.usage_nano_cores.is_some() {
            return usage.usage_nano_cores;
        }
        let (at, total) = (usage.timestamp, usage.usage_core_nano_seconds);
        let mut samples = self.0.lock();
        if samples.len() > MANY {
            samples.retain(|_, sample| at - sample.at < FORGOTTEN);
        }
        let last = samples.get(id).copied();
        let rate = match last {
            Some(last) if at - last.at < SHORTEST => return last.rate,
            // A counter that has fallen is another's: the container was started anew.
            Some(last) => total.checked_sub(last.total).map(|grown| (u128::from(grown) * 1_000_000_000 / (at - last.at) as u128) as u64),
            None => None,
        };
        samples.insert(id.to_owned(), Sample { at, total, rate });
        rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_come_from_two_samples() {
        let rates = Rates::default();
        let usage = |seconds: f64, total: u64| CpuUsage {
            timestamp: (seconds * 1e9) as i64,
            usage_core_nano_seconds: total,
            ..CpuUsage::default()
        };
        assert_eq!(rates.of("a", &usage(1.0, 100)), None);
        assert_eq!(rates.of("a", &usage(3.0, 1_000_000_100)), Some(500_000_000));
        assert_eq!(rates.of("a", &usage(3.5, 9_000_000_000)), Some(500_000_000), "too near");
        assert_eq!(rates.of("a", &usage(5.0, 50)), None, "started anew");
        assert_eq!(rates.of("b", &CpuUsage { usage_nano_cores: Some(7), ..usage(1.0, 0) }), Some(7), "the runtime knows");
    }
}
