//! Encryption at rest: the stored bytes of chosen resources are sealed with the first provider of their rule and opened with whichever
//! wrote them. The forms are upstream's (`k8s:enc:<provider>:v1:<key name>:<data>`), so a store moves between our API server and
//! kube-apiserver with its EncryptionConfiguration.
//!
//! Deliberately absent: KMS plugins; the configuration says so where one is named.

mod ciphers;
mod config;

use std::borrow::Cow;
use std::sync::Arc;

use ciphers::Cipher;
pub use config::EncryptionError;

/// What no provider but `identity` may begin with.
const SEALED: &[u8] = b"k8s:enc:";

/// An EncryptionConfiguration (`apiserver.config.k8s.io/v1`), ready for use.
#[derive(Debug, Clone, Default)]
pub struct Encryption {
    rules: Vec<Rule>,
}

#[derive(Debug, Clone)]
struct Rule {
    resources: Vec<Pattern>,
    sealer: Arc<Sealer>,
}

/// `secrets`, `deployments.apps`, `*.apps`, `*.` (the core group), `*.*`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    resource: String,
    group: String,
}

impl Pattern {
    fn parse(text: &str) -> Pattern {
        let (resource, group) = text.split_once('.').unwrap_or((text, ""));
        Pattern { resource: resource.to_owned(), group: group.to_owned() }
    }

    fn matches(&self, group: &str, resource: &str) -> bool {
        (self.group == "*" || self.group == group) && (self.resource == "*" || self.resource == resource)
    }
}

impl Encryption {
    /// Reads the YAML (or JSON) of an EncryptionConfiguration.
    pub fn parse(text: &[u8]) -> Result<Encryption, EncryptionError> {
        config::parse(text)
    }

    /// The text of a configuration that encrypts Secrets with a new key, and still reads what was stored before.
    pub fn generate() -> Result<String, EncryptionError> {
        config::generate()
    }

    /// How objects of a resource are sealed; none: as they are. The first rule that names it counts.
    pub(crate) fn of(&self, group: &str, resource: &str) -> Option<Arc<Sealer>> {
        let rule = self.rules.iter().find(|r| r.resources.iter().any(|p| p.matches(group, resource)))?;
        Some(rule.sealer.clone())
    }
}

/// The providers of a rule, in order. There is at least one.
#[derive(Debug)]
pub(crate) struct Sealer {
    providers: Vec<Provider>,
}

#[derive(Debug)]
enum Provider {
    Identity,
    /// The prefix with its colon, and the cipher of the key that it names. Each key is a provider of its own here.
    Key {
        prefix: String,
        cipher: Cipher,
    },
}

/// Bytes from the store, opened.
pub(crate) struct Opened<'a> {
    pub(crate) plain: Cow<'a, [u8]>,
    /// Not sealed with the key that writes use now: the next write of the object must reach the store even if nothing else changed.
    pub(crate) stale: bool,
}

/// Why stored bytes cannot be opened, in upstream's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("no matching prefix found")]
    NoProvider,
    #[error("identity transformer tried to read encrypted data")]
    Encrypted,
    #[error("the stored data was shorter than the required size")]
    Short,
    #[error("cipher: message authentication failed")]
    Refused,
}

impl Sealer {
    /// `key` is the object's key in the store: what is sealed for one key cannot be opened at another (AES-GCM).
    pub(crate) fn seal(&self, key: &[u8], plain: Vec<u8>) -> Vec<u8> {
        match self.providers.first() {
            Some(Provider::Key { prefix, cipher }) => cipher.seal(prefix.as_bytes(), key, &plain),
            Some(Provider::Identity) | None => plain,
        }
    }

    pub(crate) fn open<'a>(&self, key: &[u8], stored: &'a [u8]) -> Result<Opened<'a>, OpenError> {
        let mut refused = OpenError::NoProvider;
        for (position, provider) in self.providers.iter().enumerate() {
            match provider.open(key, stored) {
                Ok(plain) => return Ok(Opened { plain, stale: position > 0 }),
                // Two keys of the same name: the next one may be it.
                Err(error) if refused == OpenError::NoProvider => refused = error,
                Err(_) => {}
            }
        }
        Err(refused)
    }
}

impl Provider {
    fn open<'a>(&self, key: &[u8], stored: &'a [u8]) -> Result<Cow<'a, [u8]>, OpenError> {
        match self {
            Provider::Identity if stored.starts_with(SEALED) => Err(OpenError::Encrypted),
            Provider::Identity => Ok(Cow::Borrowed(stored)),
            Provider::Key { prefix, cipher } => {
                let data = stored.strip_prefix(prefix.as_bytes()).ok_or(OpenError::NoProvider)?;
                cipher.open(key, data).map(Cow::Owned)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] = b"/registry/secrets/default/s";
    const PLAIN: &[u8] = b"plain text of a secret";

    fn keys(provider: &str, name: &str, length: u8) -> String {
        use base64::Engine as _;
        let secret = base64::engine::general_purpose::STANDARD.encode((0..length).collect::<Vec<u8>>());
        format!("{{{provider}: {{keys: [{{name: {name}, secret: {secret}}}]}}}}")
    }

    fn sealer(providers: &[String]) -> Arc<Sealer> {
        let text = format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources: [{{resources: [secrets], providers: [{}]}}]",
            providers.join(", ")
        );
        Encryption::parse(text.as_bytes()).expect("valid").of("", "secrets").expect("covered")
    }

    #[test]
    fn what_is_sealed_opens_and_only_there() {
        for (provider, length, bound) in [
            ("aesgcm", 16, true),
            ("aesgcm", 24, true),
            ("aesgcm", 32, true),
            ("aescbc", 16, false),
            ("aescbc", 32, false),
            ("secretbox", 32, false),
        ] {
            let sealer = sealer(&[keys(provider, "k1", length)]);
            let stored = sealer.seal(KEY, PLAIN.to_vec());
            assert!(stored.starts_with(format!("k8s:enc:{provider}:v1:k1:").as_bytes()), "{provider}");
            assert_ne!(stored, sealer.seal(KEY, PLAIN.to_vec()), "{provider}: every seal has a nonce of its own");
            let opened = sealer.open(KEY, &stored).expect("opens");
            assert_eq!((&*opened.plain, opened.stale), (PLAIN, false));
            assert_eq!(sealer.open(b"/registry/secrets/default/t", &stored).is_err(), bound, "{provider} {length}");
            assert!(sealer.open(KEY, &stored[..30]).is_err());
        }
    }

    /// Made by upstream's transformers with the same keys.
    const UPSTREAM: &[(&str, u8, &str)] = &[
        ("aesgcm", 16, "524ebf0a07311fbcbcca88833b253b44bb7e5382505c09d85dd01851ac88c53aefd0cdbc23c7c79ac3b8259e5cd597cc80c3"),
        ("aescbc", 16, "574949c27daa9d700bf86123d6f62e0821cffd199333ef796b9a33589bd895e9547a8d7571bb86fc595ca492c76ba164"),
        ("aesgcm", 24, "ea739b02e85694f1623df46faba1a6e29ced58221cc19064a757cc1ef23c963f75b8cd797cc4fcc13f2a9cb849164b579659"),
        ("aescbc", 24, "dde663b13332a3cd66b8b20896d118749b29be6576d08572e4f291aa1d86cc67c848b070cf9b083b2c39f1f539a81721"),
        ("aesgcm", 32, "85d5cfc3710a77ae9388738c3bc9d3c8d37b363e9835d824db09b2ae3e42b43ef46c52dd825a48d0d5ef40476af7b2fe0e92"),
        ("aescbc", 32, "9ce8dac796ff2e69ecdc1cbab6ccf8f2e902dc770da76b6fee0fa568db2bb34f3fb4babcda62740827e44d264417226d"),
        (
            "secretbox",
            32,
            "8c5213f80efab11d05a39e73b19eecc4d952510570c2de18606a7b8472e84335671ffc4bf072c4dfa79f9fb383874fd6fc55f47a2c2b8388c2a9148f97a7",
        ),
    ];

    #[test]
    fn what_upstream_sealed_opens() {
        for (provider, length, data) in UPSTREAM {
            let bytes = (0..data.len()).step_by(2).map(|i| u8::from_str_radix(&data[i..i + 2], 16).expect("hex"));
            let stored: Vec<u8> = format!("k8s:enc:{provider}:v1:k1:").into_bytes().into_iter().chain(bytes).collect();
            let opened = sealer(&[keys(provider, "k1", *length)]).open(KEY, &stored).map(|o| o.plain.into_owned());
            assert_eq!(opened.as_deref(), Ok(PLAIN), "{provider} {length}");
        }
    }

    #[test]
    fn a_rotated_key_still_opens_and_says_so() {
        let old = keys("aesgcm", "old", 32);
        let stored = sealer(std::slice::from_ref(&old)).seal(KEY, PLAIN.to_vec());
        let rotated = sealer(&[keys("secretbox", "new", 32), old, "{identity: {}}".into()]);
        assert!(rotated.open(KEY, &stored).expect("opens").stale);
        assert!(rotated.open(KEY, b"k8s\0plain").expect("opens").stale);
        assert!(!rotated.open(KEY, &rotated.seal(KEY, PLAIN.to_vec())).expect("opens").stale);
        let plain = sealer(&["{identity: {}}".into()]);
        assert_eq!(plain.open(KEY, &stored).err(), Some(OpenError::Encrypted));
        assert_eq!(sealer(&[keys("aesgcm", "other", 32)]).open(KEY, &stored).err(), Some(OpenError::NoProvider));
    }

    #[test]
    fn the_first_rule_that_names_a_resource_counts() {
        let text = b"apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n\
            - {resources: [secrets, deployments.apps], providers: [{identity: {}}]}\n\
            - {resources: ['*.apps', '*.'], providers: [{identity: {}}]}\n";
        let all = Encryption::parse(text).expect("valid");
        let at = |group, resource| all.of(group, resource).map(|s| all.rules.iter().position(|r| Arc::ptr_eq(&r.sealer, &s)));
        assert_eq!(at("", "secrets"), Some(Some(0)));
        assert_eq!(at("apps", "deployments"), Some(Some(0)));
        assert_eq!(at("apps", "daemonsets"), Some(Some(1)));
        assert_eq!(at("", "configmaps"), Some(Some(1)));
        assert_eq!(at("batch", "jobs"), None);
    }
}
