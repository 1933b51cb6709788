//! When a certificate is to be replaced. Pure.

use jiff::{SignedDuration, Timestamp};
use tiphys_base::pki::{self, Names, PkiError, Subject};
use tiphys_client::random;

/// Which parts of its time a certificate is used for: at least, and how much more by chance.
const AT_LEAST: f64 = 0.7;
const BY_CHANCE: f64 = 0.2;

/// In `0.0..1.0`.
pub(super) fn chance() -> f64 {
    random::below(1 << 20) as f64 / f64::from(1 << 20)
}

pub(super) fn deadline(cert_pem: &str, chance: f64) -> Result<Timestamp, PkiError> {
    let facts = pki::read_certificate(cert_pem)?;
    let total = facts.not_after.duration_since(facts.not_before);
    let part = SignedDuration::try_from_secs_f64(total.as_secs_f64() * (AT_LEAST + BY_CHANCE * chance)).unwrap_or(total);
    Ok(facts.not_before.saturating_add(part).unwrap_or(facts.not_after))
}

pub(super) fn is_alive(cert_pem: &str, now: Timestamp) -> bool {
    pki::read_certificate(cert_pem).is_ok_and(|facts| facts.not_before <= now && now < facts.not_after)
}

/// Whether the certificate names all that is wanted. It may name more.
pub(super) fn covers(cert_pem: &str, subject: &Subject, names: &Names) -> bool {
    pki::read_certificate(cert_pem).is_ok_and(|facts| {
        facts.common_name == subject.common_name
            && subject.organizations.iter().all(|o| facts.organizations.contains(o))
            && names.dns.iter().all(|name| facts.dns.contains(name))
            && names.ips.iter().all(|ip| facts.ips.contains(ip))
    })
}
