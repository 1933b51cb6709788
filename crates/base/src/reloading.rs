//! Certificates that are replaced while a process runs: what servers show to their clients, and clients to servers.
//!
//! Files are looked at when a connection is made and the last look is a minute ago: nothing happens while nobody connects. A pair that cannot
//! be read, or that does not fit together, leaves the one before in use.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::clock::Clock;
use crate::pki::Identity;
use crate::seen_files::{SeenFiles, Stamps};
use crate::tls::{self, TlsError};

const LOOK_EVERY_SECONDS: i64 = 60;

#[derive(Debug, thiserror::Error)]
pub enum ReloadingError {
    #[error(transparent)]
    Read(#[from] std::io::Error),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Whence a pair comes.
type Read = Box<dyn Fn() -> io::Result<Identity> + Send + Sync>;

pub struct Reloading {
    /// A change of one of these has the pair read again.
    files: SeenFiles,
    read: Read,
    current: ArcSwap<CertifiedKey>,
    generation: AtomicU64,
}

impl std::fmt::Debug for Reloading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.files.files())
    }
}

impl Reloading {
    pub fn new(
        files: Vec<PathBuf>,
        read: impl Fn() -> io::Result<Identity> + Send + Sync + 'static,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, ReloadingError> {
        let files = SeenFiles::new(files, LOOK_EVERY_SECONDS, clock);
        let current = ArcSwap::from_pointee(certified(&read()?)?);
        let generation = AtomicU64::new(0);
        Ok(Arc::new(Reloading { files, read: Box::new(read), current, generation }))
    }

    /// A certificate and its key, each in a file.
    pub fn of_files(cert: PathBuf, key: PathBuf, clock: Arc<dyn Clock>) -> Result<Arc<Self>, ReloadingError> {
        let files = vec![cert.clone(), key.clone()];
        let read = move || Ok(Identity { cert_pem: std::fs::read_to_string(&cert)?, key_pem: std::fs::read_to_string(&key)? });
        Reloading::new(files, read, clock)
    }

    /// Shows another pair from now on, until the files change.
    pub fn replace(&self, pair: &Identity) -> Result<(), ReloadingError> {
        self.current.store(Arc::new(certified(pair)?));
        self.generation.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// The certificate that is shown now (DER).
    pub fn shown(&self) -> Vec<u8> {
        self.current().cert.first().map(|cert| cert.as_ref().to_vec()).unwrap_or_default()
    }

    /// How often the pair has been replaced. Connections that were made with an earlier one should end.
    pub fn generation(&self) -> u64 {
        self.current();
        self.generation.load(Ordering::Relaxed)
    }

    fn current(&self) -> Arc<CertifiedKey> {
        if let Some(stamps) = self.files.changed() {
            self.read_again(stamps);
        }
        self.current.load_full()
    }

    fn read_again(&self, stamps: Stamps) {
        match (self.read)().map_err(ReloadingError::from).and_then(|pair| certified(&pair)) {
            Ok(fresh) => {
                tracing::info!(files = ?self.files.files(), "a renewed certificate is in use");
                self.current.store(Arc::new(fresh));
                self.generation.fetch_add(1, Ordering::Relaxed);
                self.files.remember(stamps);
            }
            // The two files are not replaced in one moment: the next look may find them whole.
            Err(error) => tracing::warn!(files = ?self.files.files(), %error, "a changed certificate cannot be used"),
        }
    }
}

fn certified(identity: &Identity) -> Result<CertifiedKey, ReloadingError> {
    let chain = tls::certificates(identity.cert_pem.as_bytes())?;
    let key = tls::private_key(identity.key_pem.as_bytes())?;
    Ok(CertifiedKey::from_der(chain, key, &tls::provider()).map_err(TlsError::from)?)
}

impl ResolvesServerCert for Reloading {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

impl ResolvesClientCert for Reloading {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::clock::{FakeClock, SystemClock};
    use crate::pki::{Authority, Names, Subject, Use};

    #[test]
    fn a_renewed_pair_is_used_and_a_broken_one_is_not() {
        let folder = tempfile::tempdir().expect("folder");
        let now = SystemClock.now();
        let ca = Authority::generate("ca", now, Duration::from_secs(86_400)).expect("CA");
        let issue = || {
            let subject = Subject { common_name: "server".into(), organizations: vec![] };
            ca.issue(&subject, &Names::default(), Use::Server, now, Duration::from_secs(3600)).expect("issued")
        };
        let path = |name: &str| folder.path().join(name);
        let write = |id: &Identity, age: u64| {
            for (name, text) in [("crt", &id.cert_pem), ("key", &id.key_pem)] {
                std::fs::write(path(name), text).expect("written");
                let file = std::fs::File::options().write(true).open(path(name)).expect("there");
                file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(age)).expect("stamped");
            }
        };
        write(&issue(), 1);
        let clock = FakeClock::at(now);
        let reloading = Reloading::of_files(path("crt"), path("key"), clock.clone()).expect("reads");
        let first = reloading.current().cert.clone();
        let second = issue();
        write(&second, 2);
        assert_eq!(reloading.current().cert, first, "looked a moment ago");
        let pass = |seconds: u64| clock.advance(Duration::from_secs(seconds));
        assert_eq!(reloading.generation(), 0);
        pass(61);
        assert_ne!(reloading.current().cert, first);
        assert_eq!(reloading.generation(), 1);
        let good = reloading.current().cert.clone();
        write(&Identity { cert_pem: "no certificate".into(), key_pem: second.key_pem.clone() }, 3);
        pass(61);
        assert_eq!(reloading.current().cert, good, "the one before stays in use");
    }
}
