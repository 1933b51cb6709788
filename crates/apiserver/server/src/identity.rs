//! Certificates that are replaced while the server runs: what this server shows to its clients, to kubelets and to aggregated servers.
//!
//! Files are looked at when a connection is made and the last look is a minute ago: nothing happens while nobody connects. A pair that cannot
//! be read, or that does not fit together, leaves the one before in use.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tiphys_base::Clock;
use tiphys_base::tls::{self, TlsError};

use crate::config::{Pem, PemPair};

const LOOK_EVERY_SECONDS: i64 = 60;

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error(transparent)]
    Read(#[from] std::io::Error),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

pub(crate) struct Reloading {
    pair: PemPair,
    clock: Arc<dyn Clock>,
    looked: AtomicI64,
    /// When the files were changed last, as far as is known.
    stamp: Mutex<[Option<SystemTime>; 2]>,
    current: ArcSwap<CertifiedKey>,
}

impl std::fmt::Debug for Reloading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.pair.cert)
    }
}

impl Reloading {
    pub(crate) fn new(pair: PemPair, clock: Arc<dyn Clock>) -> Result<Arc<Self>, IdentityError> {
        let stamp = stamp(&pair);
        let current = ArcSwap::from_pointee(read(&pair)?);
        Ok(Arc::new(Reloading { looked: AtomicI64::new(clock.now().as_second()), pair, clock, stamp: Mutex::new(stamp), current }))
    }

    fn current(&self) -> Arc<CertifiedKey> {
        let now = self.clock.now().as_second();
        let before = self.looked.load(Ordering::Relaxed);
        if now - before >= LOOK_EVERY_SECONDS && self.looked.compare_exchange(before, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.look();
        }
        self.current.load_full()
    }

    fn look(&self) {
        let seen = stamp(&self.pair);
        let mut known = self.stamp.lock();
        if *known == seen {
            return;
        }
        match read(&self.pair) {
            Ok(fresh) => {
                tracing::info!(certificate = ?self.pair.cert, "a renewed certificate is in use");
                self.current.store(Arc::new(fresh));
                *known = seen;
            }
            // The two files are not replaced in one moment: the next look may find them whole.
            Err(error) => tracing::warn!(certificate = ?self.pair.cert, %error, "a changed certificate cannot be used"),
        }
    }
}

fn stamp(pair: &PemPair) -> [Option<SystemTime>; 2] {
    let changed = |path: &Path| std::fs::metadata(path).and_then(|m| m.modified()).ok();
    [&pair.cert, &pair.key].map(|pem| match pem {
        Pem::File(path) => changed(path),
        Pem::Text(_) => None,
    })
}

fn read(pair: &PemPair) -> Result<CertifiedKey, IdentityError> {
    let identity = pair.identity()?;
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
    use std::time::Duration;

    use tiphys_base::SystemClock;
    use tiphys_base::pki::{Authority, Identity, Names, Subject, Use};

    use super::*;

    struct Hand(Mutex<jiff::Timestamp>);

    impl Clock for Hand {
        fn now(&self) -> jiff::Timestamp {
            *self.0.lock()
        }
    }

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
        let clock = Arc::new(Hand(Mutex::new(now)));
        let pair = PemPair { cert: Pem::File(path("crt")), key: Pem::File(path("key")) };
        let reloading = Reloading::new(pair, clock.clone()).expect("reads");
        let first = reloading.current().cert.clone();
        let second = issue();
        write(&second, 2);
        assert_eq!(reloading.current().cert, first, "looked a moment ago");
        let pass = |seconds: i64| {
            let mut at = clock.0.lock();
            *at = at.checked_add(jiff::SignedDuration::from_secs(seconds)).expect("time");
        };
        pass(61);
        assert_ne!(reloading.current().cert, first);
        let good = reloading.current().cert.clone();
        write(&Identity { cert_pem: "no certificate".into(), key_pem: second.key_pem.clone() }, 3);
        pass(61);
        assert_eq!(reloading.current().cert, good, "the one before stays in use");
    }
}
