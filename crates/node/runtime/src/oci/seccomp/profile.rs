//! A profile as it stands in a JSON file (the runtime-spec's `linux.seccomp`).

use serde::Deserialize;

use super::SeccompError;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    pub default: Action,
    pub architectures: Vec<Arch>,
    pub rules: Vec<Rule>,
    /// SECCOMP_FILTER_FLAG_*.
    pub flags: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    X86_64,
    I386,
}

/// The kernel's return value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Action(pub u32);

impl Action {
    pub const KILL_PROCESS: Self = Self(0x8000_0000);
    pub const KILL_THREAD: Self = Self(0);
    pub const TRAP: Self = Self(0x0003_0000);
    pub const LOG: Self = Self(0x7ffc_0000);
    pub const ALLOW: Self = Self(0x7fff_0000);

    pub fn errno(number: u32) -> Self {
        Self(0x0005_0000 | (number & 0xffff))
    }

    pub(super) fn is_errno(self) -> bool {
        self.0 & 0xffff_0000 == 0x0005_0000
    }

    fn named(name: &str, errno: Option<u32>) -> Result<Self, SeccompError> {
        const EPERM: u32 = 1;
        Ok(match name {
            "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Self::KILL_THREAD,
            "SCMP_ACT_KILL_PROCESS" => Self::KILL_PROCESS,
            "SCMP_ACT_TRAP" => Self::TRAP,
            "SCMP_ACT_ERRNO" => Self::errno(errno.unwrap_or(EPERM)),
            "SCMP_ACT_TRACE" => Self(0x7ff0_0000 | (errno.unwrap_or(EPERM) & 0xffff)),
            "SCMP_ACT_LOG" => Self::LOG,
            "SCMP_ACT_ALLOW" => Self::ALLOW,
            other => return Err(SeccompError::Action(other.to_owned())),
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub names: Vec<String>,
    pub action: Action,
    /// All must hold.
    pub arguments: Vec<Argument>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Argument {
    pub index: u32,
    pub value: u64,
    pub operator: Operator,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    /// `argument & mask == value`
    Masked {
        mask: u64,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonProfile {
    default_action: String,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    architectures: Vec<String>,
    #[serde(default)]
    flags: Vec<String>,
    #[serde(default)]
    syscalls: Vec<JsonRule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonRule {
    #[serde(default)]
    name: String,
    #[serde(default)]
    names: Vec<String>,
    action: String,
    errno_ret: Option<u32>,
    args: Option<Vec<JsonArgument>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonArgument {
    index: u32,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

impl Profile {
    pub fn parse(json: &[u8]) -> Result<Self, SeccompError> {
        let read: JsonProfile = serde_json::from_slice(json).map_err(|error| SeccompError::Syntax(error.to_string()))?;
        let mut architectures: Vec<Arch> = read.architectures.iter().filter_map(|name| architecture(name)).collect();
        if !architectures.contains(&Arch::X86_64) {
            architectures.push(Arch::X86_64); // the kernel's own is always in, as libseccomp has it
        }
        Ok(Self {
            default: Action::named(&read.default_action, read.default_errno_ret)?,
            architectures,
            rules: read.syscalls.into_iter().map(rule).collect::<Result<_, _>>()?,
            flags: read.flags.iter().map(|flag| flag_bits(flag)).fold(0, |all, one| all | one),
        })
    }
}

fn architecture(name: &str) -> Option<Arch> {
    match name {
        "SCMP_ARCH_X86_64" => Some(Arch::X86_64),
        "SCMP_ARCH_X86" => Some(Arch::I386),
        _ => None,
    }
}

fn flag_bits(name: &str) -> u32 {
    match name {
        "SECCOMP_FILTER_FLAG_LOG" => tiphys_sys::seccomp::FLAG_LOG,
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => tiphys_sys::seccomp::FLAG_SPEC_ALLOW,
        _ => 0,
    }
}

fn rule(read: JsonRule) -> Result<Rule, SeccompError> {
    let mut names = read.names;
    if !read.name.is_empty() {
        names.push(read.name);
    }
    let arguments = read.args.unwrap_or_default().into_iter().map(argument).collect::<Result<_, _>>()?;
    Ok(Rule { names, action: Action::named(&read.action, read.errno_ret)?, arguments })
}

fn argument(read: JsonArgument) -> Result<Argument, SeccompError> {
    if read.index > 5 {
        return Err(SeccompError::Argument(read.index));
    }
    let plain = |operator| Argument { index: read.index, value: read.value, operator };
    Ok(match read.op.as_str() {
        "SCMP_CMP_EQ" => plain(Operator::Equal),
        "SCMP_CMP_NE" => plain(Operator::NotEqual),
        "SCMP_CMP_LT" => plain(Operator::Less),
        "SCMP_CMP_LE" => plain(Operator::LessEqual),
        "SCMP_CMP_GT" => plain(Operator::Greater),
        "SCMP_CMP_GE" => plain(Operator::GreaterEqual),
        "SCMP_CMP_MASKED_EQ" => Argument { index: read.index, value: read.value_two, operator: Operator::Masked { mask: read.value } },
        other => return Err(SeccompError::Action(other.to_owned())),
    })
}
