//! The issuers whose JWTs are believed: the one of the `--oidc-*` flags, or those of `--authentication-config`, whose file is read again when it
//! has changed.
//!
//! Of a file that changes only the issuers are taken over; who may come without credentials stays as it was at the start (as upstream).

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tiphys_base::Clock;
use tiphys_base::tasks::Tasks;
use tiphys_registry::UserInfo;

use super::claims::Authenticator;
use super::config;
use super::oidc::{Oidc, OidcError};
use crate::streams::Dialer;
use crate::watched_file::WatchedFile;

pub struct Issuers {
    current: ArcSwap<Vec<Arc<Oidc>>>,
    /// Where they come from, with the issuers of service account tokens.
    file: Option<(WatchedFile, Vec<String>)>,
    clock: Arc<dyn Clock>,
    dialer: Arc<Dialer>,
    tasks: Tasks,
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
        let file = file.map(|(path, own)| (WatchedFile::new(path, "authentication", clock.clone()), own));
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
        let Some((file, own)) = &self.file else { return };
        file.look(|path| {
            let settings = config::read(path, own).map_err(|e| e.to_string())?;
            self.take_over(settings.jwt).map_err(|e| e.to_string())
        });
    }

    pub(crate) fn metrics(&self, out: &mut String) {
        if let Some((file, _)) = &self.file {
            file.metrics(out);
        }
    }
}
