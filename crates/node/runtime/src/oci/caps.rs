//! Which capabilities a container gets.

use tiphys_sys::caps::CapSet;

/// What containers get unless told otherwise: containerd's list.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// The default set with additions and removals; `ALL` in either list comes first, single names after it.
/// Names that no kernel knows are an error: silently ignored, a misspelt `drop` would leave the capability in.
pub fn container_set(privileged: bool, add: &[String], drop: &[String]) -> Result<CapSet, String> {
    if privileged {
        return Ok(CapSet::ALL);
    }
    let is_all = |name: &String| name.eq_ignore_ascii_case("ALL") || name.eq_ignore_ascii_case("CAP_ALL");
    let mut set = DEFAULT.iter().filter_map(|name| CapSet::by_name(name)).fold(CapSet::default(), CapSet::with);
    if add.iter().any(is_all) {
        set = CapSet::ALL;
    }
    if drop.iter().any(is_all) {
        set = CapSet::default();
    }
    let known = |name: &String| CapSet::by_name(name).ok_or_else(|| format!("unknown capability {name:?}"));
    for name in add.iter().filter(|name| !is_all(name)) {
        set = set.with(known(name)?);
    }
    for name in drop.iter().filter(|name| !is_all(name)) {
        set = set.without(known(name)?);
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn additions_and_removals() {
        let cap = |name| CapSet::by_name(name).unwrap();
        let set = |add: &[&str], drop: &[&str]| container_set(false, &names(add), &names(drop)).unwrap();
        assert!(set(&["SYS_TIME"], &[]).contains(cap("SYS_TIME")));
        assert!(!set(&[], &["CAP_CHOWN"]).contains(cap("CHOWN")));
        assert_eq!(set(&[], &["ALL"]), CapSet::default());
        assert_eq!(set(&["NET_BIND_SERVICE"], &["ALL"]), cap("NET_BIND_SERVICE"));
        assert_eq!(set(&["ALL"], &["SYS_ADMIN"]), CapSet::ALL.without(cap("SYS_ADMIN")));
        assert_eq!(set(&[], &[]).0, 0xa804_25fb);
        assert!(container_set(false, &names(&["NOPE"]), &[]).is_err());
        assert_eq!(container_set(true, &[], &names(&["ALL"])).unwrap(), CapSet::ALL);
    }
}
