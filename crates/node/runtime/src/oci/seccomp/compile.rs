//! From a profile to classic BPF: a binary search over syscall numbers, then checks of arguments where a rule has some.

use std::collections::BTreeMap;

use tiphys_sys::seccomp::Instruction;

use super::profile::{Action, Arch, Argument, Operator, Profile};
use super::{SeccompError, syscalls};

const LOAD: u16 = 0x20; // A = data[k]
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_EQUAL: u16 = 0x35;
const AND: u16 = 0x54;
const RETURN: u16 = 0x06;

const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const OFFSET_ARGUMENTS: u32 = 16;

/// x32 calls come with this bit under x86_64's name.
const X32_BIT: u32 = 0x4000_0000;
const ENOSYS: u32 = 38;
const MAX_INSTRUCTIONS: usize = 4096;

fn op(code: u16, k: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k }
}

fn jump(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code, jt, jf, k }
}

/// What happens to one syscall: rules with conditions, in order, and what holds if none does.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Verdict {
    conditional: Vec<(Vec<Argument>, Action)>,
    otherwise: Action,
}

pub fn compile(profile: &Profile) -> Result<Vec<Instruction>, SeccompError> {
    let mut program = vec![op(LOAD, OFFSET_ARCH)];
    for arch in [Arch::X86_64, Arch::I386].into_iter().filter(|arch| profile.architectures.contains(arch)) {
        let section = section(profile, arch);
        // Not this architecture: over the section, by a long jump since conditional ones reach 255 instructions only.
        program.extend([jump(JUMP_EQUAL, audit_arch(arch), 1, 0), op(JUMP, section.len() as u32)]);
        program.extend(section);
    }
    program.push(op(RETURN, Action::KILL_PROCESS.0));
    if program.len() > MAX_INSTRUCTIONS { Err(SeccompError::TooLong(program.len())) } else { Ok(program) }
}

fn audit_arch(arch: Arch) -> u32 {
    match arch {
        Arch::X86_64 => 0xc000_003e,
        Arch::I386 => 0x4000_0003,
    }
}

fn number(arch: Arch, name: &str) -> Option<u32> {
    let table: &[(&str, u32)] = match arch {
        Arch::X86_64 => &syscalls::X86_64,
        Arch::I386 => &syscalls::I386,
    };
    table.binary_search_by(|(known, _)| (*known).cmp(name)).ok().map(|index| table[index].1)
}

fn section(profile: &Profile, arch: Arch) -> Vec<Instruction> {
    let verdicts = verdicts(profile, arch);
    let segments = segments(profile, &verdicts);
    let mut code = vec![op(LOAD, OFFSET_NUMBER)];
    if arch == Arch::X86_64 {
        code.extend([jump(JUMP_GREATER_EQUAL, X32_BIT, 0, 1), op(RETURN, profile.default.0)]);
    }
    code.extend(search(&segments));
    code
}

/// The verdict for every syscall that the profile names and this architecture has.
fn verdicts(profile: &Profile, arch: Arch) -> BTreeMap<u32, Verdict> {
    let mut verdicts: BTreeMap<u32, Verdict> = BTreeMap::new();
    for rule in &profile.rules {
        for number in rule.names.iter().filter_map(|name| number(arch, name)) {
            let verdict = verdicts.entry(number).or_insert_with(|| Verdict { conditional: Vec::new(), otherwise: profile.default });
            if rule.arguments.is_empty() {
                verdict.otherwise = rule.action;
                continue;
            }
            verdict.conditional.extend(alternatives(&rule.arguments).into_iter().map(|arguments| (arguments, rule.action)));
        }
    }
    verdicts
}

/// Conditions on different arguments must all hold; several on the same one are alternatives, as profiles in the wild mean them.
fn alternatives(arguments: &[Argument]) -> Vec<Vec<Argument>> {
    let repeated = arguments.iter().any(|one| arguments.iter().filter(|other| other.index == one.index).count() > 1);
    if repeated { arguments.iter().map(|one| vec![*one]).collect() } else { vec![arguments.to_vec()] }
}

/// Ranges of numbers with the same verdict: (first number, verdict).
fn segments(profile: &Profile, verdicts: &BTreeMap<u32, Verdict>) -> Vec<(u32, Verdict)> {
    let plain = |action| Verdict { conditional: Vec::new(), otherwise: action };
    let mut segments: Vec<(u32, Verdict)> = vec![(0, plain(profile.default))];
    let mut push = |first: u32, verdict: Verdict| match segments.last_mut() {
        Some((last, old)) if *last == first => *old = verdict,
        Some((_, old)) if *old == verdict => {}
        _ => segments.push((first, verdict)),
    };
    for (&number, verdict) in verdicts {
        push(number, verdict.clone());
        if !verdicts.contains_key(&(number + 1)) {
            push(number + 1, plain(profile.default));
        }
    }
    // Calls newer than the profile do not exist, rather than being forbidden: libraries then fall back to older ones.
    if let Some((&newest, _)) = verdicts.last_key_value().filter(|_| profile.default.is_errno()) {
        push(newest + 1, plain(Action::errno(ENOSYS)));
    }
    segments
}

fn search(segments: &[(u32, Verdict)]) -> Vec<Instruction> {
    if let [(_, verdict)] = segments {
        return leaf(verdict);
    }
    let (left, right) = segments.split_at(segments.len() / 2);
    let left = search(left);
    let mut code = vec![jump(JUMP_GREATER_EQUAL, right[0].0, 0, 1), op(JUMP, left.len() as u32)];
    code.extend(left);
    code.extend(search(right));
    code
}

fn leaf(verdict: &Verdict) -> Vec<Instruction> {
    let mut code = Vec::new();
    for (arguments, action) in &verdict.conditional {
        code.extend(conditions(arguments, *action));
    }
    code.push(op(RETURN, verdict.otherwise.0));
    code
}

/// Where a check goes on: to the next instruction, behind this condition (it holds), behind the whole rule (it does not).
#[derive(Clone, Copy)]
enum To {
    Next,
    Holds,
    Fails,
}

fn conditions(arguments: &[Argument], action: Action) -> Vec<Instruction> {
    let checks: Vec<Vec<(Instruction, To, To)>> = arguments.iter().map(check).collect();
    let total: usize = checks.iter().map(Vec::len).sum::<usize>() + 1;
    let mut code = Vec::with_capacity(total);
    for check in checks {
        let end = code.len() + check.len();
        for (mut instruction, yes, no) in check {
            let here = code.len() + 1;
            let distance = |to: To| match to {
                To::Next => 0,
                To::Holds => (end - here) as u8,
                To::Fails => (total - here) as u8,
            };
            if instruction.code & 7 == 5 {
                (instruction.jt, instruction.jf) = (distance(yes), distance(no));
            }
            code.push(instruction);
        }
    }
    code.push(op(RETURN, action.0));
    code
}

fn check(argument: &Argument) -> Vec<(Instruction, To, To)> {
    let (high, low) = ((argument.value >> 32) as u32, argument.value as u32);
    let at = OFFSET_ARGUMENTS + 8 * argument.index;
    let plain = |instruction| (instruction, To::Next, To::Next);
    let (load_high, load_low) = (plain(op(LOAD, at + 4)), plain(op(LOAD, at)));
    let on = |code, k, yes, no| (op(code, k), yes, no);
    match argument.operator {
        Operator::Equal => vec![load_high, on(JUMP_EQUAL, high, To::Next, To::Fails), load_low, on(JUMP_EQUAL, low, To::Holds, To::Fails)],
        Operator::NotEqual => {
            vec![load_high, on(JUMP_EQUAL, high, To::Next, To::Holds), load_low, on(JUMP_EQUAL, low, To::Fails, To::Holds)]
        }
        Operator::Greater | Operator::GreaterEqual => {
            let last = if argument.operator == Operator::Greater { JUMP_GREATER } else { JUMP_GREATER_EQUAL };
            vec![
                load_high,
                on(JUMP_GREATER, high, To::Holds, To::Next),
                on(JUMP_EQUAL, high, To::Next, To::Fails),
                load_low,
                on(last, low, To::Holds, To::Fails),
            ]
        }
        Operator::Less | Operator::LessEqual => {
            let last = if argument.operator == Operator::Less { JUMP_GREATER_EQUAL } else { JUMP_GREATER };
            vec![
                load_high,
                on(JUMP_GREATER, high, To::Fails, To::Next),
                on(JUMP_EQUAL, high, To::Next, To::Holds),
                load_low,
                on(last, low, To::Fails, To::Holds),
            ]
        }
        Operator::Masked { mask } => vec![
            load_high,
            plain(op(AND, (mask >> 32) as u32)),
            on(JUMP_EQUAL, high, To::Next, To::Fails),
            load_low,
            plain(op(AND, mask as u32)),
            on(JUMP_EQUAL, low, To::Holds, To::Fails),
        ],
    }
}

#[cfg(test)]
mod tests {
    use tiphys_sys::caps::CapSet;

    use super::super::{Rule, default_profile};
    use super::*;

    /// Runs a filter as the kernel would.
    fn run(program: &[Instruction], arch: u32, number: u32, arguments: [u64; 6]) -> Action {
        let mut data = [0u32; 16];
        (data[0], data[1]) = (number, arch);
        for (index, argument) in arguments.iter().enumerate() {
            (data[4 + 2 * index], data[5 + 2 * index]) = (*argument as u32, (argument >> 32) as u32);
        }
        let (mut a, mut at) = (0u32, 0usize);
        loop {
            let now = program[at];
            at += 1;
            let mut branch = |taken: bool| at += usize::from(if taken { now.jt } else { now.jf });
            match now.code {
                LOAD => a = data[now.k as usize / 4],
                AND => a &= now.k,
                JUMP => at += now.k as usize,
                JUMP_EQUAL => branch(a == now.k),
                JUMP_GREATER => branch(a > now.k),
                JUMP_GREATER_EQUAL => branch(a >= now.k),
                RETURN => return Action(now.k),
                _ => unreachable!("an instruction that is never emitted"),
            }
        }
    }

    const NATIVE: u32 = 0xc000_003e;
    const NONE: [u64; 6] = [0; 6];

    #[test]
    fn the_default_profile_decides_as_documented() {
        let plain = compile(&default_profile(CapSet::default())).unwrap();
        let admin = compile(&default_profile(CapSet::ALL)).unwrap();
        let native = |name: &str| number(Arch::X86_64, name).unwrap();
        let eperm = Action::errno(1);
        for (name, arguments, expected, expected_admin) in [
            ("read", NONE, Action::ALLOW, Action::ALLOW),
            ("openat2", NONE, Action::ALLOW, Action::ALLOW),
            ("mount", NONE, eperm, Action::ALLOW),
            ("unshare", NONE, eperm, Action::ALLOW),
            ("keyctl", NONE, eperm, eperm),
            ("reboot", NONE, eperm, Action::ALLOW),
            ("clone", [0x1_0000, 0, 0, 0, 0, 0], Action::ALLOW, Action::ALLOW),
            ("clone", [0x1000_0000, 0, 0, 0, 0, 0], eperm, Action::ALLOW),
            ("clone3", NONE, Action::errno(38), Action::ALLOW),
            ("socket", [2, 0, 0, 0, 0, 0], Action::ALLOW, Action::ALLOW),
            ("socket", [40, 0, 0, 0, 0, 0], eperm, eperm),
            ("personality", [0xffff_ffff, 0, 0, 0, 0, 0], Action::ALLOW, Action::ALLOW),
            ("personality", [1, 0, 0, 0, 0, 0], eperm, eperm),
        ] {
            assert_eq!(run(&plain, NATIVE, native(name), arguments), expected, "{name}");
            assert_eq!(run(&admin, NATIVE, native(name), arguments), expected_admin, "{name} as admin");
        }
        assert_eq!(run(&plain, NATIVE, 9999, NONE), Action::errno(38));
        assert_eq!(run(&plain, NATIVE, X32_BIT | 1, NONE), eperm);
        assert_eq!(run(&plain, 0x4000_0003, number(Arch::I386, "socketcall").unwrap(), NONE), Action::ALLOW);
        assert_eq!(run(&plain, 7, 0, NONE), Action::KILL_PROCESS);
    }

    #[test]
    fn every_operator_over_the_whole_width() {
        let values = [0u64, 1, 5, 6, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0005, 0x2_0000_0005, u64::MAX];
        type Meaning = fn(u64, u64) -> bool;
        let operators: [(Operator, Meaning); 7] = [
            (Operator::Equal, |a, v| a == v),
            (Operator::NotEqual, |a, v| a != v),
            (Operator::Less, |a, v| a < v),
            (Operator::LessEqual, |a, v| a <= v),
            (Operator::Greater, |a, v| a > v),
            (Operator::GreaterEqual, |a, v| a >= v),
            (Operator::Masked { mask: 0x1_0000_00ff }, |a, v| a & 0x1_0000_00ff == v),
        ];
        for (operator, expected) in operators {
            for value in values {
                let rule =
                    Rule { names: vec!["read".into()], action: Action::ALLOW, arguments: vec![Argument { index: 2, value, operator }] };
                let profile = Profile { default: Action::TRAP, architectures: vec![Arch::X86_64], rules: vec![rule], flags: 0 };
                let program = compile(&profile).unwrap();
                for argument in values {
                    let allowed = run(&program, NATIVE, 0, [0, 0, argument, 0, 0, 0]) == Action::ALLOW;
                    assert_eq!(allowed, expected(argument, value), "{operator:?} {argument:#x} {value:#x}");
                }
            }
        }
    }

    #[test]
    fn a_profile_from_a_file() {
        let json = br#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"],
            "syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":13},
                        {"name":"chmod","action":"SCMP_ACT_KILL","args":[{"index":1,"value":511,"op":"SCMP_CMP_EQ"}]}]}"#;
        let program = compile(&Profile::parse(json).unwrap()).unwrap();
        assert_eq!(run(&program, NATIVE, 83, NONE), Action::errno(13));
        assert_eq!(run(&program, NATIVE, 90, [0, 511, 0, 0, 0, 0]), Action::KILL_THREAD);
        assert_eq!(run(&program, NATIVE, 90, NONE), Action::ALLOW);
        assert_eq!(run(&program, NATIVE, 100_000, NONE), Action::ALLOW);
        assert!(matches!(Profile::parse(br#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#), Err(SeccompError::Action(_))));
        assert!(matches!(Profile::parse(b"{"), Err(SeccompError::Syntax(_))));
    }

    #[test]
    fn tables_are_sorted() {
        assert!(syscalls::X86_64.is_sorted_by_key(|(name, _)| *name) && syscalls::I386.is_sorted_by_key(|(name, _)| *name));
    }
}
