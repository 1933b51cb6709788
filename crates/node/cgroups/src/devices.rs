//! Which devices a group may touch: version 1 by files, version 2 by a small eBPF program.

use std::fmt;

use tiphys_sys::bpf::Instruction;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    All,
    Block,
    Char,
}

/// Read, write, mknod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    pub read: bool,
    pub write: bool,
    pub mknod: bool,
}

impl Access {
    pub const ALL: Self = Self { read: true, write: true, mknod: true };
    pub const MKNOD: Self = Self { read: false, write: false, mknod: true };

    /// From letters among `rwm`.
    pub fn parse(text: &str) -> Self {
        Self { read: text.contains('r'), write: text.contains('w'), mknod: text.contains('m') }
    }

    /// The bits of bpf_cgroup_dev_ctx.
    fn bits(self) -> i32 {
        i32::from(self.mknod) | i32::from(self.read) << 1 | i32::from(self.write) << 2
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letters = [(self.read, "r"), (self.write, "w"), (self.mknod, "m")];
        letters.iter().filter(|(on, _)| *on).try_for_each(|(_, letter)| f.write_str(letter))
    }
}

/// Devices that are allowed; None as a number is any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceRule {
    pub kind: DeviceKind,
    pub major: Option<u32>,
    pub minor: Option<u32>,
    pub access: Access,
}

impl DeviceRule {
    pub const EVERYTHING: Self = Self { kind: DeviceKind::All, major: None, minor: None, access: Access::ALL };

    pub fn char(major: u32, minor: u32) -> Self {
        Self { kind: DeviceKind::Char, major: Some(major), minor: Some(minor), access: Access::ALL }
    }
}

impl fmt::Display for DeviceRule {
    /// The line of version 1's devices.allow.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            DeviceKind::All => return f.write_str("a"),
            DeviceKind::Block => 'b',
            DeviceKind::Char => 'c',
        };
        let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
        write!(f, "{kind} {}:{} {}", number(self.major), number(self.minor), self.access)
    }
}

const LOAD_WORD: u8 = 0x61; // r = *(u32 *)(r + offset)
const MOV_REG: u8 = 0xbf;
const MOV_IMM: u8 = 0xb7;
const AND_IMM: u8 = 0x57;
const SHIFT_RIGHT_IMM: u8 = 0x77;
const JUMP_NOT_EQUAL: u8 = 0x55;
const JUMP_NOT_EQUAL_REG: u8 = 0x5d;
const EXIT: u8 = 0x95;

fn op(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: to | from << 4, offset, immediate }
}

/// The program for a list of allowed devices: r2 type, r3 access, r4 major, r5 minor; answers 1 for yes.
pub(crate) fn compile(rules: &[DeviceRule]) -> Vec<Instruction> {
    let mut program = vec![
        op(LOAD_WORD, 2, 1, 0, 0),
        op(MOV_REG, 3, 2, 0, 0),
        op(AND_IMM, 2, 0, 0, 0xffff),
        op(SHIFT_RIGHT_IMM, 3, 0, 0, 16),
        op(LOAD_WORD, 4, 1, 4, 0),
        op(LOAD_WORD, 5, 1, 8, 0),
    ];
    for rule in rules {
        program.extend(compile_rule(rule));
    }
    program.extend([op(MOV_IMM, 0, 0, 0, 0), op(EXIT, 0, 0, 0, 0)]);
    program
}

/// Checks that jump behind the rule on a mismatch, then "yes".
fn compile_rule(rule: &DeviceRule) -> Vec<Instruction> {
    let mut checks = Vec::new();
    match rule.kind {
        DeviceKind::All => {}
        DeviceKind::Block => checks.push(op(JUMP_NOT_EQUAL, 2, 0, 0, 1)),
        DeviceKind::Char => checks.push(op(JUMP_NOT_EQUAL, 2, 0, 0, 2)),
    }
    if rule.access != Access::ALL {
        // Every bit asked for must be allowed: access & allowed == access.
        checks.extend([op(MOV_REG, 1, 3, 0, 0), op(AND_IMM, 1, 0, 0, rule.access.bits()), op(JUMP_NOT_EQUAL_REG, 1, 3, 0, 0)]);
    }
    checks.extend(rule.major.map(|major| op(JUMP_NOT_EQUAL, 4, 0, 0, major as i32)));
    checks.extend(rule.minor.map(|minor| op(JUMP_NOT_EQUAL, 5, 0, 0, minor as i32)));
    let length = checks.len() + 2;
    for (index, instruction) in checks.iter_mut().enumerate() {
        if matches!(instruction.code, JUMP_NOT_EQUAL | JUMP_NOT_EQUAL_REG) {
            instruction.offset = (length - index - 1) as i16;
        }
    }
    checks.extend([op(MOV_IMM, 0, 0, 0, 1), op(EXIT, 0, 0, 0, 0)]);
    checks
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel would; just the instructions used above.
    fn run(program: &[Instruction], context: [u32; 3]) -> u64 {
        let mut registers = [0u64; 11];
        let mut at = 0;
        loop {
            let now = program[at];
            let (to, from) = ((now.registers & 15) as usize, (now.registers >> 4) as usize);
            let mut next = at + 1;
            match now.code {
                LOAD_WORD => registers[to] = u64::from(context[now.offset as usize / 4]),
                MOV_REG => registers[to] = registers[from],
                MOV_IMM => registers[to] = now.immediate as u64,
                AND_IMM => registers[to] &= now.immediate as u64,
                SHIFT_RIGHT_IMM => registers[to] >>= now.immediate,
                JUMP_NOT_EQUAL if registers[to] != now.immediate as u64 => next = at + 1 + now.offset as usize,
                JUMP_NOT_EQUAL_REG if registers[to] != registers[from] => next = at + 1 + now.offset as usize,
                EXIT => return registers[0],
                _ => {}
            }
            at = next;
        }
    }

    #[test]
    fn the_program_decides_like_the_rules() {
        let rules = [
            DeviceRule::char(1, 3),
            DeviceRule { kind: DeviceKind::Block, major: None, minor: None, access: Access::MKNOD },
            DeviceRule { kind: DeviceKind::Char, major: Some(136), minor: None, access: Access::parse("rw") },
        ];
        let program = compile(&rules);
        let ask =
            |access: &str, kind: u32, major, minor| run(&program, [(Access::parse(access).bits() as u32) << 16 | kind, major, minor]) == 1;
        assert!(ask("rwm", 2, 1, 3));
        assert!(!ask("r", 2, 1, 4));
        assert!(ask("m", 1, 8, 0));
        assert!(!ask("rm", 1, 8, 0));
        assert!(ask("rw", 2, 136, 7));
        assert!(!ask("m", 2, 136, 7));
        assert_eq!(run(&compile(&[DeviceRule::EVERYTHING]), [1, 2, 3]), 1);
    }

    #[test]
    fn lines_of_version_1() {
        assert_eq!(DeviceRule::EVERYTHING.to_string(), "a");
        assert_eq!(DeviceRule { kind: DeviceKind::Char, major: Some(136), minor: None, access: Access::ALL }.to_string(), "c 136:* rwm");
    }
}
