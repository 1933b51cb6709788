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

/// `GOOS/GOARCH`.
pub fn platform() -> String {
    format!("{}/{}", std::env::consts::OS, architecture())
}
