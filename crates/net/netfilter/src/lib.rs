//! nftables over netlink: a [`Ruleset`] says what a table should hold, [`diff`] says what must change, and [`Nft`] makes the kernel
//! do it in one transaction. No program is executed. Knows no Services; what the rules mean is the proxy's and the policies' affair.
//!
//! The messages are written out here (`linux/netfilter/nf_tables.h`): the published library covers no nat, numgen, fib, masquerade, reject or dynset.
//! [`Fake`] takes the same changes and refuses what the kernel would, and [`trace`] follows a packet through a ruleset, both for tests.

pub mod conntrack;
mod encode;
mod expr;
mod fake;
mod kernel;
mod ruleset;
pub mod trace;

pub use expr::{Compare, CtKey, Expr, InlineMap, MetaKey, Register, Verdict};
pub use fake::Fake;
pub use kernel::{Nft, NftError};
pub use ruleset::{Chain, ChainType, Change, Element, ElementValue, Field, Hook, HookPoint, Rule, Ruleset, Set, SetData, diff};
