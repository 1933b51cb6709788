//! Makes cases and looks at what reading them takes: no panic, a bounded time, a bounded memory.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use peak_alloc::PeakAlloc;

use crate::targets::{MOST, Target};

/// Which cases.
pub(crate) struct Run {
    pub(crate) cases: u64,
    pub(crate) seed: u64,
    /// The number of the first, to have a finding again.
    pub(crate) from: u64,
}

/// What reading a case may take.
pub(crate) struct Limits {
    time: Duration,
    stack: usize,
}

impl Default for Limits {
    fn default() -> Self {
        // What the server's threads have (tokio's default).
        Limits { time: Duration::from_millis(100), stack: 2 << 20 }
    }
}

impl Limits {
    /// For programs that are not optimized, on machines with much else to do.
    #[cfg(test)]
    pub(crate) fn unhurried() -> Self {
        Limits { time: Duration::from_secs(10), stack: 32 << 20 }
    }
}

pub(crate) struct Report {
    target: &'static str,
    cases: u64,
    /// Inputs that were well-formed.
    pub(crate) accepted: u64,
    pub(crate) findings: Vec<String>,
    slowest: (Duration, u64),
    /// Memory over input, of inputs of more than 1 KiB.
    hungriest: (f64, u64),
    took: Duration,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per_second = self.cases as f64 / self.took.as_secs_f64().max(0.001);
        write!(
            f,
            "{:<10} {:>9} cases, {:>3} % well-formed, {per_second:>7.0}/s",
            self.target,
            self.cases,
            100 * self.accepted / self.cases.max(1)
        )?;
        write!(f, "; slowest {:?} (case {})", self.slowest.0, self.slowest.1)?;
        write!(f, "; memory at most {:.1} x input (case {})", self.hungriest.0, self.hungriest.1)?;
        self.findings.iter().try_for_each(|finding| write!(f, "\n    {finding}"))
    }
}

const MOST_FINDINGS: usize = 5;

/// Runs on a thread with the stack that is allowed. What overflows it ends the program, after the name of the target was told.
pub(crate) fn run(target: &Target, run: &Run, limits: &Limits, memory: &PeakAlloc) -> Report {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(target.name.to_owned()).stack_size(limits.stack);
        let running = thread.spawn_scoped(scope, || run_here(target, run, limits, memory));
        running
            .map(std::thread::ScopedJoinHandle::join)
            .unwrap_or_else(|e| panic!("no thread: {e}"))
            .unwrap_or_else(|p| std::panic::resume_unwind(p))
    })
}

fn run_here(target: &Target, run: &Run, limits: &Limits, memory: &PeakAlloc) -> Report {
    let corpus = (target.seeds)();
    let started = now();
    let mut report = Report {
        target: target.name,
        cases: 0,
        accepted: 0,
        findings: Vec::new(),
        slowest: (Duration::ZERO, 0),
        hungriest: (0.0, 0),
        took: Duration::ZERO,
    };
    // What is made on first use is not the first case's.
    corpus.iter().for_each(|seed| drop(catch_unwind(AssertUnwindSafe(|| (target.read)(seed)))));
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    // Who wants one case to be made again wants to see it.
    let shown = if run.cases == 1 { usize::MAX } else { 200 };
    for number in run.from..run.from + run.cases {
        let input = case(&corpus, target.words, run.seed, number);
        if let Some(why) = look(target, &input, number, limits, memory, &mut report) {
            let shown: String = String::from_utf8_lossy(&input).chars().take(shown).collect();
            report.findings.push(format!("--seed {} --from {number}: {why}: {} bytes: {shown:?}", run.seed, input.len()));
            if report.findings.len() >= MOST_FINDINGS {
                break;
            }
        }
    }
    std::panic::set_hook(quiet);
    report.took = started.elapsed();
    report
}

/// Reads one case; what is wrong with that.
fn look(target: &Target, input: &[u8], number: u64, limits: &Limits, memory: &PeakAlloc, report: &mut Report) -> Option<String> {
    report.cases += 1;
    memory.reset_peak_usage();
    let before = memory.current_usage();
    let begun = now();
    let outcome = catch_unwind(AssertUnwindSafe(|| (target.read)(input)));
    let mut took = begun.elapsed();
    let used = memory.peak_usage().saturating_sub(before);
    match outcome {
        Ok(accepted) => report.accepted += u64::from(accepted),
        Err(panic) => return Some(format!("panicked: {}", words_of(panic.as_ref()))),
    }
    if took > limits.time / 20 {
        // The machine may have been busy elsewhere: what this thread had of the processor counts.
        took = processor_time(|| (target.read)(input)).map_or(took, |own| own.min(took));
    }
    if took > report.slowest.0 {
        report.slowest = (took, number);
    }
    let ratio = used as f64 / input.len().max(1) as f64;
    if input.len() > 1024 && ratio > report.hungriest.0 {
        report.hungriest = (ratio, number);
    }
    if took > limits.time {
        return Some(format!("took {took:?}"));
    }
    let (each, beside) = target.memory;
    (used > (each * input.len() + beside).min(MOST)).then(|| format!("took {used} bytes of memory"))
}

fn words_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default()
}

/// The time that the kernel gave to this thread meanwhile.
fn processor_time(read: impl FnOnce() -> bool) -> Option<Duration> {
    let so_far = || std::fs::read_to_string("/proc/thread-self/schedstat").ok()?.split(' ').next()?.parse().ok();
    let before: u64 = so_far()?;
    read();
    Some(Duration::from_nanos(so_far()?.saturating_sub(before)))
}

fn now() -> Instant {
    Instant::now()
}

/// SplitMix64: small, and good enough to choose with.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.roll() % (n.max(1) as u64)).unwrap_or(0)
    }

    /// What is large takes most of the time and finds least of what there is: it is made one time in sixteen.
    fn exponent(&mut self, most: usize) -> usize {
        if self.roll().is_multiple_of(16) { self.below(most) } else { self.below(most / 2) }
    }

    fn range(&mut self, len: usize) -> std::ops::Range<usize> {
        let start = self.below(len + 1);
        start..start + self.below((len - start).min(64) + 1)
    }
}

/// Case `number` of a seed: some of the corpus, changed a few times.
pub(crate) fn case(corpus: &[Vec<u8>], words: &[&str], seed: u64, number: u64) -> Vec<u8> {
    let mut dice = Dice(seed.wrapping_mul(0x1_0000_0001).wrapping_add(number));
    let mut bytes = corpus.get(dice.below(corpus.len())).cloned().unwrap_or_default();
    // One in 32 as it is, so that good inputs are read too.
    let changes = [0, 1, 1, 1, 2, 2, 3, 8][dice.below(8)] * usize::from(!dice.roll().is_multiple_of(32));
    for _ in 0..changes {
        change(&mut bytes, corpus, words, &mut dice);
    }
    bytes.truncate(LARGEST);
    bytes
}

const LARGEST: usize = 256 * 1024;
const NUMBERS: [&str; 12] = [
    "0",
    "-1",
    "-0",
    "1e999",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "0.1",
    "1e-400",
    "18446744073709551616",
    "00",
    "2147483648",
];
const NESTS: [&str; 10] = ["[", "{\"a\":", "(", "- ", "a.", "!", "{", "\"", "[0,", "\n  "];

fn change(bytes: &mut Vec<u8>, corpus: &[Vec<u8>], words: &[&str], dice: &mut Dice) {
    let at = dice.below(bytes.len() + 1);
    match dice.below(12) {
        0 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << dice.below(8);
            }
        }
        1 => bytes.insert(at, dice.roll() as u8),
        2 => drop(bytes.drain(dice.range(bytes.len()))),
        3 | 4 => {
            let word = words.get(dice.below(words.len())).copied().unwrap_or("");
            insert(bytes, at, word.as_bytes());
        }
        5 => {
            let range = dice.range(bytes.len());
            let number = NUMBERS[dice.below(NUMBERS.len())];
            bytes.splice(range, number.bytes());
        }
        6 => {
            let piece = bytes[dice.range(bytes.len())].to_vec();
            insert(bytes, at, &piece);
        }
        7 => {
            let other = corpus.get(dice.below(corpus.len())).map_or(&[][..], Vec::as_slice);
            let piece = other[dice.range(other.len())].to_vec();
            insert(bytes, at, &piece);
        }
        8 => bytes.truncate(at),
        9 => {
            let piece = bytes[dice.range(bytes.len())].to_vec();
            let times = 1 << dice.exponent(12);
            insert(bytes, at, &piece.repeat(times));
        }
        10 => {
            let nest = NESTS[dice.below(NESTS.len())];
            let depth = 1 << dice.exponent(16);
            insert(bytes, at, nest.repeat(depth).as_bytes());
        }
        _ => {
            let range = dice.range(bytes.len());
            bytes.splice(range, std::iter::repeat_n(dice.roll() as u8, dice.below(16)));
        }
    }
}

fn insert(bytes: &mut Vec<u8>, at: usize, piece: &[u8]) {
    let room = LARGEST.saturating_sub(bytes.len());
    bytes.splice(at..at, piece.iter().take(room).copied());
}
