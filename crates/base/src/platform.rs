//! This machine in Go's words, which image indexes, node labels and `/version` use.

/// `GOARCH`.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

/// What this machine, or this UTS namespace, is called; empty where it has no name.
pub fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_owned()).unwrap_or_default()
}

/// `GOOS/GOARCH`.
pub fn platform() -> String {
    format!("{}/{}", std::env::consts::OS, architecture())
}
