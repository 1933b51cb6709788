//! Where the images of a host are fetched from: mirrors first, then the host itself.
//!
//! Mirrors come from `HOST=URL` arguments and from a folder in containerd's form (`certs.d/HOST/hosts.toml`). Plain HTTP is spoken to what
//! says `http://`, and to this machine's own registries, as docker does.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;

use crate::error::{ImageError, Result, io_error};
use crate::registry::http::Trust;

/// `HOST=URL`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    pub host: String,
    pub url: String,
}

impl FromStr for Mirror {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || ImageError::InvalidReference(format!("a mirror is HOST=URL with http:// or https://, not {text:?}"));
        let (host, url) = text.split_once('=').ok_or_else(wrong)?;
        if host.is_empty() || !(url.starts_with("http://") || url.starts_with("https://")) {
            return Err(wrong());
        }
        Ok(Mirror { host: host.to_owned(), url: url.trim_end_matches('/').to_owned() })
    }
}

/// One place to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Up to and including `/v2`.
    pub(crate) base: String,
    pub(crate) trust: Trust,
    pub(crate) headers: HeaderMap,
    /// A mirror is told whose image is meant (`?ns=`), as containerd does.
    pub(crate) mirror: bool,
}

impl Endpoint {
    fn new(url: &str, mirror: bool) -> Self {
        let url = url.trim_end_matches('/');
        let base = if url.ends_with("/v2") { url.to_owned() } else { format!("{url}/v2") };
        Endpoint { base, trust: Trust::default(), headers: HeaderMap::new(), mirror }
    }
}

#[derive(Debug, Clone, Default)]
pub struct Hosts {
    pub mirrors: Vec<Mirror>,
    /// containerd's `certs.d`, if there is one.
    pub certs_dir: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct HostsFile {
    server: Option<String>,
    host: toml::Table,
    #[serde(flatten)]
    server_options: HostOptions,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct HostOptions {
    capabilities: Option<Vec<String>>,
    skip_verify: bool,
    ca: Option<OneOrMany>,
    override_path: bool,
    header: BTreeMap<String, OneOrMany>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn into_vec(self) -> Vec<String> {
        match self {
            OneOrMany::One(one) => vec![one],
            OneOrMany::Many(many) => many,
        }
    }
}

impl Hosts {
    /// All places to ask for images of `host`, in order.
    pub(crate) fn endpoints(&self, host: &str) -> Result<Vec<Endpoint>> {
        let mirrors = self.mirrors.iter().filter(|mirror| mirror.host == host || mirror.host == "*");
        let mut endpoints: Vec<_> = mirrors.map(|mirror| Endpoint::new(&mirror.url, true)).collect();
        match self.hosts_file(host) {
            Some(path) => endpoints.extend(read_hosts_file(&path, host)?),
            None => endpoints.push(Endpoint::new(&server_of(host), false)),
        }
        Ok(endpoints)
    }

    fn hosts_file(&self, host: &str) -> Option<PathBuf> {
        let dir = self.certs_dir.as_ref()?;
        // containerd also writes the port's colon with underscores, for file systems that know no colons.
        let escaped = host.rsplit_once(':').map(|(name, port)| format!("{name}_{port}_"));
        let names = [Some(host.to_owned()), escaped, Some("_default".to_owned())];
        names.into_iter().flatten().map(|name| dir.join(name).join("hosts.toml")).find(|path| path.is_file())
    }
}

fn server_of(host: &str) -> String {
    if host == "docker.io" {
        return "https://registry-1.docker.io".into();
    }
    let name = host.rsplit_once(':').filter(|(_, port)| !port.contains(']')).map_or(host, |(name, _)| name).trim_matches(['[', ']']);
    let here = name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    format!("{}://{host}", if here && !host.ends_with(":443") { "http" } else { "https" })
}

fn read_hosts_file(path: &Path, host: &str) -> Result<Vec<Endpoint>> {
    let wrong = |why: &dyn std::fmt::Display| ImageError::Io(format!("{}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(io_error("reading", path))?;
    let file: HostsFile = toml::from_str(&text).map_err(|error| wrong(&error))?;
    let mut endpoints = Vec::new();
    for (url, options) in file.host {
        let options: HostOptions = options.try_into().map_err(|error| wrong(&error))?;
        endpoints.extend(options.endpoint(&url, path, true)?);
    }
    let server = file.server.unwrap_or_else(|| server_of(host));
    if !server.is_empty() {
        endpoints.extend(file.server_options.endpoint(&server, path, false)?);
    }
    Ok(endpoints)
}

impl HostOptions {
    /// None for a host that is only pushed to.
    fn endpoint(self, url: &str, file: &Path, mirror: bool) -> Result<Option<Endpoint>> {
        if self.capabilities.is_some_and(|can| !can.iter().any(|can| can == "pull")) {
            return Ok(None);
        }
        let url = if url.contains("://") { url.to_owned() } else { format!("https://{url}") };
        let mut endpoint = Endpoint::new(&url, mirror);
        if self.override_path {
            endpoint.base = url.trim_end_matches('/').to_owned();
        }
        let beside = file.parent().unwrap_or(Path::new("/"));
        endpoint.trust.ca = self.ca.map(OneOrMany::into_vec).unwrap_or_default().iter().map(|ca| beside.join(ca)).collect();
        endpoint.trust.skip_verify = self.skip_verify;
        for (name, values) in self.header {
            for value in values.into_vec() {
                let wrong = || ImageError::Io(format!("{}: header {name} makes no sense", file.display()));
                let header = HeaderName::from_str(&name).map_err(|_| wrong())?;
                endpoint.headers.append(header, HeaderValue::from_str(&value).map_err(|_| wrong())?);
            }
        }
        Ok(Some(endpoint))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bases(hosts: &Hosts, host: &str) -> Vec<String> {
        hosts.endpoints(host).expect("endpoints").into_iter().map(|endpoint| endpoint.base).collect()
    }

    #[test]
    fn hosts_have_their_own_address() {
        let cases = [
            ("docker.io", "https://registry-1.docker.io/v2"),
            ("registry.k8s.io", "https://registry.k8s.io/v2"),
            ("localhost:5000", "http://localhost:5000/v2"),
            ("127.0.0.1:5000", "http://127.0.0.1:5000/v2"),
            ("[::1]:5000", "http://[::1]:5000/v2"),
            ("localhost:443", "https://localhost:443/v2"),
            ("10.0.0.1:5000", "https://10.0.0.1:5000/v2"),
        ];
        for (host, expected) in cases {
            assert_eq!(bases(&Hosts::default(), host), [expected]);
        }
    }

    #[test]
    fn mirrors_come_first() {
        let mirrors = ["docker.io=http://127.0.0.1:5000/", "docker.io=https://m.example/cache", "*=http://any"];
        let hosts = Hosts { mirrors: mirrors.iter().map(|text| text.parse().expect("parses")).collect(), certs_dir: None };
        assert_eq!(bases(&hosts, "registry.k8s.io"), ["http://any/v2", "https://registry.k8s.io/v2"]);
        assert_eq!(bases(&hosts, "docker.io")[..2], ["http://127.0.0.1:5000/v2", "https://m.example/cache/v2"]);
        for wrong in ["docker.io", "=http://x", "docker.io=ftp://x"] {
            assert!(wrong.parse::<Mirror>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn hosts_files_are_containerds() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = dir.path().join("r.example_5000_");
        std::fs::create_dir_all(&folder).expect("a folder");
        let text = r#"
            server = "https://upstream.example"
            [host."https://z.example"]
              capabilities = ["pull", "resolve"]
              ca = "ca.pem"
              [host."https://z.example".header]
                x-key = ["1", "2"]
            [host."http://a.example/prefix"]
              override_path = true
              skip_verify = true
            [host."https://push.example"]
              capabilities = ["push"]
        "#;
        std::fs::write(folder.join("hosts.toml"), text).expect("written");
        let hosts = Hosts { mirrors: Vec::new(), certs_dir: Some(dir.path().into()) };
        let endpoints = hosts.endpoints("r.example:5000").expect("endpoints");
        let bases: Vec<_> = endpoints.iter().map(|endpoint| endpoint.base.as_str()).collect();
        assert_eq!(bases, ["https://z.example/v2", "http://a.example/prefix", "https://upstream.example/v2"], "in the file's order");
        assert_eq!(endpoints[0].trust.ca, [folder.join("ca.pem")]);
        assert_eq!(endpoints[0].headers.get_all("x-key").iter().count(), 2);
        assert!(endpoints[1].trust.skip_verify && endpoints[1].mirror && !endpoints[2].mirror);
    }
}
