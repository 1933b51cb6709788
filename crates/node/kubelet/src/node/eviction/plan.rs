//! What the node is short of, and whom that costs: pure functions of figures.

use jiff::{SignedDuration, Timestamp};

/// How long a pressure is shown after it was last seen, so that the scheduler does not send pods to and fro (upstream's
/// evictionPressureTransitionPeriod).
const TRANSITION: SignedDuration = SignedDuration::from_mins(5);

/// Below what the node defends itself. Zero is never.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Thresholds {
    /// Bytes.
    pub(crate) memory: u64,
    /// Percent of the file system.
    pub(crate) disk_percent: u8,
    /// Bytes; what is free beyond them is no shortage on any disk.
    pub(crate) disk_enough: u64,
    pub(crate) inodes_percent: u8,
    pub(crate) pids: u64,
}

/// What there is: (all, free).
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Signals {
    pub(crate) memory: Option<(u64, u64)>,
    pub(crate) disk: Option<(u64, u64)>,
    pub(crate) inodes: Option<(u64, u64)>,
    pub(crate) pids: Option<(u64, u64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resource {
    Memory,
    Disk,
    Inodes,
    Pids,
}

impl Resource {
    /// As upstream's messages name it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Resource::Memory => "memory",
            Resource::Disk => "ephemeral-storage",
            Resource::Inodes => "inodes",
            Resource::Pids => "pids",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shortage {
    pub(crate) resource: Resource,
    pub(crate) threshold: u64,
    pub(crate) available: u64,
}

/// In the order in which they are seen to: memory cannot wait.
pub(crate) fn shortages(signals: &Signals, thresholds: &Thresholds) -> Vec<Shortage> {
    let percent = |all: u64, percent: u8| (u128::from(all) * u128::from(percent) / 100) as u64;
    let one = |resource, figures: Option<(u64, u64)>, threshold: &dyn Fn(u64) -> u64| {
        let (all, available) = figures.filter(|(all, _)| *all > 0)?;
        let threshold = threshold(all);
        (available < threshold).then_some(Shortage { resource, threshold, available })
    };
    let all = [
        one(Resource::Memory, signals.memory, &|_| thresholds.memory),
        one(Resource::Disk, signals.disk, &|all| percent(all, thresholds.disk_percent).min(thresholds.disk_enough)),
        one(Resource::Inodes, signals.inodes, &|all| percent(all, thresholds.inodes_percent)),
        one(Resource::Pids, signals.pids, &|_| thresholds.pids),
    ];
    all.into_iter().flatten().collect()
}

/// The pressures that a node shows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Pressure {
    pub(crate) memory: bool,
    pub(crate) disk: bool,
    pub(crate) pids: bool,
}

/// When each was last seen.
#[derive(Debug, Default)]
pub(crate) struct Seen([Option<Timestamp>; 3]);

impl Seen {
    pub(crate) fn update(&mut self, shortages: &[Shortage], now: Timestamp) -> Pressure {
        for shortage in shortages {
            let slot = match shortage.resource {
                Resource::Memory => 0,
                Resource::Disk | Resource::Inodes => 1,
                Resource::Pids => 2,
            };
            self.0[slot] = Some(now);
        }
        let [memory, disk, pids] = self.0.map(|seen| seen.is_some_and(|at| now.duration_since(at) < TRANSITION));
        Pressure { memory, disk, pids }
    }
}

/// What one pod uses and asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Candidate {
    pub(crate) uid: String,
    pub(crate) priority: i32,
    pub(crate) memory: (u64, u64),
    pub(crate) disk: (u64, u64),
    pub(crate) inodes: u64,
    pub(crate) pids: u64,
}

/// Whom it costs: those over their requests first, then the lowest priority, then the most over (upstream's ranks).
pub(crate) fn victim(resource: Resource, candidates: &[Candidate]) -> Option<&Candidate> {
    let figures = |c: &Candidate| match resource {
        Resource::Memory => c.memory,
        Resource::Disk => c.disk,
        Resource::Inodes => (c.inodes, 0),
        Resource::Pids => (c.pids, 0),
    };
    let has_requests = matches!(resource, Resource::Memory | Resource::Disk);
    candidates.iter().min_by_key(|c| {
        let (used, asked) = figures(c);
        (has_requests && used <= asked, c.priority, i128::from(asked) - i128::from(used))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const THRESHOLDS: Thresholds = Thresholds { memory: 100, disk_percent: 10, disk_enough: u64::MAX, inodes_percent: 5, pids: 50 };

    #[test]
    fn shortages_come_from_figures() {
        let plenty = Signals { memory: Some((1000, 100)), disk: Some((1000, 100)), inodes: Some((1000, 50)), pids: Some((500, 50)) };
        assert_eq!(shortages(&plenty, &THRESHOLDS), []);
        let short = Signals { memory: Some((1000, 99)), disk: Some((1000, 99)), inodes: Some((1000, 49)), pids: Some((500, 49)) };
        let found = shortages(&short, &THRESHOLDS);
        let threshold = |resource, threshold, available| Shortage { resource, threshold, available };
        let expected = [
            threshold(Resource::Memory, 100, 99),
            threshold(Resource::Disk, 100, 99),
            threshold(Resource::Inodes, 50, 49),
            threshold(Resource::Pids, 50, 49),
        ];
        assert_eq!(found, expected);
        assert_eq!(shortages(&short, &Thresholds::default()), []);
        let large = Thresholds { disk_enough: 20, ..THRESHOLDS };
        assert!(!shortages(&short, &large).iter().any(|s| s.resource == Resource::Disk));
        let full = Signals { disk: Some((1000, 19)), ..plenty };
        assert_eq!(shortages(&full, &large), [threshold(Resource::Disk, 20, 19)]);
        assert_eq!(shortages(&Signals::default(), &THRESHOLDS), []);
        assert_eq!(shortages(&Signals { inodes: Some((0, 0)), ..plenty }, &THRESHOLDS), [], "a file system without inodes");
    }

    #[test]
    fn a_pressure_lasts_five_minutes_longer() {
        let at = |s| Timestamp::from_second(s).expect("a time");
        let mut seen = Seen::default();
        let memory = Shortage { resource: Resource::Memory, threshold: 1, available: 0 };
        assert_eq!(seen.update(&[], at(0)), Pressure::default());
        assert!(seen.update(&[memory], at(10)).memory);
        assert!(seen.update(&[], at(309)).memory);
        assert_eq!(seen.update(&[], at(310)), Pressure::default());
        let inodes = Shortage { resource: Resource::Inodes, ..memory };
        assert_eq!(seen.update(&[inodes], at(400)), Pressure { disk: true, ..Pressure::default() });
    }

    #[test]
    fn whom_a_shortage_costs() {
        let pod = |uid: &str, priority, used, asked| Candidate { uid: uid.into(), priority, memory: (used, asked), ..Candidate::default() };
        let victim = |list: &[Candidate]| victim(Resource::Memory, list).map(|c| c.uid.clone());
        assert_eq!(victim(&[]), None);
        assert_eq!(victim(&[pod("within", 0, 90, 100), pod("over", 10, 11, 10)]).as_deref(), Some("over"));
        assert_eq!(victim(&[pod("low", 1, 20, 10), pod("high", 2, 90, 10)]).as_deref(), Some("low"));
        assert_eq!(victim(&[pod("less", 1, 20, 10), pod("more", 1, 90, 10)]).as_deref(), Some("more"));
        let forks = |uid: &str, priority, pids| Candidate { uid: uid.into(), priority, pids, ..Candidate::default() };
        let all = [forks("few", 0, 3), forks("many", 0, 300), forks("important", 9, 900)];
        let found = super::victim(Resource::Pids, &all).map(|c| &*c.uid);
        assert_eq!(found, Some("many"));
    }
}
