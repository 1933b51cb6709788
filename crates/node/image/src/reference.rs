//! Names of images, as docker understands them (distribution/reference): `busybox` is `docker.io/library/busybox:latest`.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;
use crate::error::ImageError;

/// A normalised reference. Without tag and digest it has the tag `latest`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    /// `docker.io`, `registry.k8s.io`, `localhost:5000`.
    pub host: String,
    /// The repository's path on that host: `library/busybox`.
    pub path: String,
    pub tag: Option<String>,
    pub digest: Option<Digest>,
}

impl Reference {
    /// `docker.io/library/busybox`.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.host, self.path)
    }

    /// What to ask the registry for; a digest wins over a tag.
    pub(crate) fn target(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.clone().unwrap_or_else(|| "latest".into()),
        }
    }

    /// The name with its tag only, if it has one.
    pub(crate) fn tagged(&self) -> Option<String> {
        self.tag.as_ref().map(|tag| format!("{}:{tag}", self.repository()))
    }

    pub(crate) fn digested(&self, digest: &Digest) -> String {
        format!("{}@{digest}", self.repository())
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        self.digest.iter().try_for_each(|digest| write!(f, "@{digest}"))
    }
}

fn invalid(text: &str, why: &str) -> ImageError {
    ImageError::InvalidReference(format!("couldn't parse image name \"{text}\": {why}"))
}

const FORMAT: &str = "invalid reference format";

/// The part before the first slash is a host if it could not be a path: it has a dot or a port, or is `localhost`, or has capitals.
fn split_host(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" || host.bytes().any(|c| c.is_ascii_uppercase()) => {
            (host, path)
        }
        _ => ("docker.io", name),
    }
}

fn is_host(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    };
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let named = match name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => !address.is_empty() && address.bytes().all(|c| c.is_ascii_hexdigit() || c == b':'),
        None => name.split('.').all(label),
    };
    named && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|c| c.is_ascii_digit()))
}

/// Lower case letters and digits, with one dot, one or two underscores or any number of dashes between them.
fn is_path_component(component: &str) -> bool {
    let mut separator = String::new();
    let mut begun = false;
    for c in component.chars() {
        if c.is_ascii_lowercase() || c.is_ascii_digit() {
            let separated = matches!(separator.as_str(), "" | "." | "_" | "__") || separator.bytes().all(|c| c == b'-');
            if !separated || (!begun && !separator.is_empty()) {
                return false;
            }
            separator.clear();
            begun = true;
        } else if matches!(c, '.' | '_' | '-') {
            separator.push(c);
        } else {
            return false;
        }
    }
    begun && separator.is_empty()
}

fn is_tag(tag: &str) -> bool {
    let word = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
    tag.len() <= 128 && tag.bytes().next().is_some_and(word) && tag.bytes().all(|c| word(c) || c == b'.' || c == b'-')
}

impl FromStr for Reference {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, ImageError> {
        if text.len() == 64 && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(invalid(text, "invalid repository name: cannot specify 64-byte hexadecimal strings"));
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest.parse::<Digest>().map_err(|_| invalid(text, FORMAT))?)),
            None => (text, None),
        };
        let (host, rest) = split_host(name);
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };
        let lower = path.to_lowercase();
        if lower != path && lower.split('/').all(is_path_component) {
            return Err(invalid(text, "invalid reference format: repository name must be lowercase"));
        }
        if !is_host(host) || !path.split('/').all(is_path_component) || !tag.is_none_or(is_tag) {
            return Err(invalid(text, FORMAT));
        }
        let host = if host == "index.docker.io" { "docker.io" } else { host };
        let official = host == "docker.io" && !path.contains('/');
        let path = if official { format!("library/{path}") } else { path.to_owned() };
        if path.len() > 255 {
            return Err(invalid(text, "repository name must not be more than 255 characters"));
        }
        let tag = tag.map(str::to_owned).or_else(|| digest.is_none().then(|| "latest".to_owned()));
        Ok(Reference { host: host.to_owned(), path, tag, digest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn names_are_normalised_as_docker_does() {
        let digested = format!("docker.io/library/busybox@{DIGEST}");
        let both = format!("docker.io/library/busybox:1@{DIGEST}");
        let cases = [
            ("busybox", "docker.io/library/busybox:latest"),
            ("busybox:1.37", "docker.io/library/busybox:1.37"),
            ("library/busybox", "docker.io/library/busybox:latest"),
            ("index.docker.io/busybox", "docker.io/library/busybox:latest"),
            ("user/repo:v1", "docker.io/user/repo:v1"),
            ("registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10"),
            ("localhost/a/b", "localhost/a/b:latest"),
            ("localhost:5000/a", "localhost:5000/a:latest"),
            ("127.0.0.1:5000/a:b", "127.0.0.1:5000/a:b"),
            ("[::1]:5000/a", "[::1]:5000/a:latest"),
            ("UPPER/x", "UPPER/x:latest"),
            ("a_b/c__d/e--f/g.h", "docker.io/a_b/c__d/e--f/g.h:latest"),
            (&digested["docker.io/library/".len()..], &digested),
            (&both, &both),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<Reference>().map(|reference| reference.to_string()).ok().as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_docker_refuses_is_refused() {
        let long = format!("a/{}", "b".repeat(256));
        let cases = [
            ("", FORMAT),
            ("Busybox", "must be lowercase"),
            ("a:", FORMAT),
            (":a", FORMAT),
            ("a//b", FORMAT),
            ("-a", FORMAT),
            ("a..b", FORMAT),
            ("a___b", FORMAT),
            ("a@sha256:00", FORMAT),
            ("a b", FORMAT),
            ("INVALID_NAME!", FORMAT),
            ("a.b-/x", FORMAT),
            (&DIGEST[7..], "64-byte hexadecimal"),
            (&long, "255"),
        ];
        for (text, expected) in cases {
            let error = text.parse::<Reference>().err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains(expected), "{text}: {error:?}");
        }
    }
}
