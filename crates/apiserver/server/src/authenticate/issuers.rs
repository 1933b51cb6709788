//! The issuers whose JWTs are believed: the one of the `--oidc-*` flags, or those of `--authentication-config`, whose file is read again when it
//! has changed. It is looked at when a token comes and the last look is a minute ago; a file that cannot be used leaves what was before.
//!
//! Of a file that changes only the issuers are taken over; who may come without credentials stays as it was at the start (as upstream).

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tiphys_base::Clock;
use tiphys_base::meters::head;
use tiphys_base::tasks::Tasks;
use tiphys_registry::UserInfo;

use super::claims::Authenticator;
use super::config;
use super::oidc::{Oidc, OidcError};
use crate::streams::Dialer;

const LOOK_EVERY_SECONDS: i64 = 60;

pub struct Issuers {
    current: ArcSwap<Vec<Arc<Oidc>>>,
    file: Option<File>,
    clock: Arc<dyn Clock>,
    dialer: Arc<Dialer>,
    tasks: Tasks,
}

struct File {
    path: PathBuf,
    /// The issuers of service account tokens.
    own: Vec<String>,
    looked: AtomicI64,
    changed: Mutex<Option<SystemTime>>,
    /// Readings that were taken over, and that were not, with the time of the last in seconds.
    reloads: [(AtomicU64, AtomicI64); 2],
}

impl Issuers {
    /// `file`: where they come from, with the issuers of service account tokens.
    pub(crate) fn new(
        jwt: Vec<Authenticator>,
        file: Option<(PathBuf, Vec<String>)>,
        clock: Arc<dyn Clock>,
        dialer: Arc<Dialer>,
        tasks: &Tasks,
    ) -> Result<Arc<Issuers>, OidcError> {
        let file = file.map(|(path, own)| File {
            changed: Mutex::new(modified(&path)),
            looked: AtomicI64::new(clock.now().as_second()),
            path,
            own,
            reloads: Default::default(),
        });
        let issuers = Issuers { current: ArcSwap::default(), file, clock, dialer, tasks: tasks.child() };
        issuers.take_over(jwt)?;
        Ok(Arc::new(issuers))
    }

    fn take_over(&self, jwt: Vec<Authenticator>) -> Result<(), OidcError> {
        let all = jwt.into_iter().map(|one| Oidc::new(one, self.clock.clone()));
        let all = all.collect::<Result<Vec<_>, _>>()?;
        for oidc in &all {
            self.tasks.spawn("oidc keys", oidc.clone().follow_keys(self.dialer.clone()));
        }
        for gone in self.current.swap(Arc::new(all)).iter() {
            gone.forget();
        }
        Ok(())
    }

    /// None: nobody's token here.
    pub(super) fn identify(&self, token: &str) -> Result<Option<Arc<UserInfo>>, String> {
        self.look();
        for oidc in self.current.load().iter() {
            if let Some(user) = oidc.identify(token)? {
                return Ok(Some(user));
            }
        }
        Ok(None)
    }

    fn look(&self) {
        let Some(file) = &self.file else { return };
        let (now, looked) = (self.clock.now().as_second(), file.looked.load(Ordering::Relaxed));
        let due = now - looked >= LOOK_EVERY_SECONDS;
        if !due || file.looked.compare_exchange(looked, now, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return;
        }
        let changed = modified(&file.path);
        if std::mem::replace(&mut *file.changed.lock(), changed) == changed {
            return;
        }
        let read = config::read(&file.path, &file.own).map_err(|e| e.to_string());
        let outcome = read.and_then(|settings| self.take_over(settings.jwt).map_err(|e| e.to_string()));
        if let Err(why) = &outcome {
            tracing::error!(why, "the authentication configuration has changed and cannot be used");
        }
        let (count, last) = &file.reloads[usize::from(outcome.is_err())];
        count.fetch_add(1, Ordering::Relaxed);
        last.store(now, Ordering::Relaxed);
    }

    pub(crate) fn metrics(&self, out: &mut String) {
        let Some(file) = &self.file else { return };
        const PREFIX: &str = "apiserver_authentication_config_controller_automatic_reload";
        let told = || ["success", "failure"].into_iter().zip(&file.reloads).filter(|(_, (n, _))| n.load(Ordering::Relaxed) > 0);
        head(out, &format!("{PREFIX}s_total"), "counter", "How often the authentication configuration was read again.");
        for (status, (count, _)) in told() {
            let _ = writeln!(out, "{PREFIX}s_total{{apiserver_id_hash=\"\",status={status:?}}} {}", count.load(Ordering::Relaxed));
        }
        head(out, &format!("{PREFIX}_last_timestamp_seconds"), "gauge", "When it was read again.");
        for (status, (_, last)) in told() {
            let seconds = last.load(Ordering::Relaxed);
            let _ = writeln!(out, "{PREFIX}_last_timestamp_seconds{{apiserver_id_hash=\"\",status={status:?}}} {seconds}");
        }
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|m| m.modified()).ok()
}
