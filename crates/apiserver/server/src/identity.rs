//! Certificates that are replaced while the server runs: what this server shows to its clients, to kubelets and to aggregated servers.

use std::sync::Arc;

use tiphys_base::Clock;
pub(crate) use tiphys_base::{Reloading, ReloadingError};

use crate::config::{Pem, PemPair};

pub(crate) fn reloading(pair: &PemPair, clock: &Arc<dyn Clock>) -> Result<Arc<Reloading>, ReloadingError> {
    let files = [&pair.cert, &pair.key].into_iter().filter_map(|pem| match pem {
        Pem::File(path) => Some(path.clone()),
        Pem::Text(_) => None,
    });
    let (files, pair) = (files.collect(), pair.clone());
    Reloading::new(files, move || pair.identity(), clock.clone())
}
