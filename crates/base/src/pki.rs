//! The cluster's own public key infrastructure: ECDSA P-256 keys, CAs, server and client certificates (RFC 5280), all as PEM.
//!
//! Absent: revocation lists; a certificate is replaced before it ends, and CAs rotate by bundles.

use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use ring::rand::{SecureRandom, SystemRandom};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("cannot make a key or certificate")]
    Make(#[source] rcgen::Error),
    #[error("not a PEM certificate or key that can be used: {what}")]
    Read { what: String },
    #[error("the system gave no random bytes")]
    Random,
}

impl From<rcgen::Error> for PkiError {
    fn from(error: rcgen::Error) -> Self {
        PkiError::Make(error)
    }
}

/// A certificate with its private key, both PEM. The key is PKCS #8.
#[derive(Clone)]
pub struct Identity {
    pub cert_pem: String,
    pub key_pem: String,
}

/// Who a certificate names.
#[derive(Debug, Clone, Default)]
pub struct Subject {
    pub common_name: String,
    /// Groups, to Kubernetes (client certificates).
    pub organizations: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    Client,
    Server,
    Both,
}

#[derive(Debug, Clone, Default)]
pub struct Names {
    pub dns: Vec<String>,
    pub ips: Vec<IpAddr>,
}

/// A certificate authority that can sign.
pub struct Authority {
    identity: Identity,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new self-signed CA, valid from five minutes before `now` for `lifetime`.
    pub fn generate(common_name: &str, now: Timestamp, lifetime: Duration) -> Result<Self, PkiError> {
        let key = KeyPair::generate()?;
        let mut params = params(&Subject { common_name: common_name.into(), organizations: vec![] }, now, lifetime)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let cert = params.self_signed(&key)?;
        let identity = Identity { cert_pem: cert.pem(), key_pem: key.serialize_pem() };
        Ok(Authority { identity, issuer: Issuer::new(params, key) })
    }

    /// A CA from its certificate and key.
    pub fn load(identity: Identity) -> Result<Self, PkiError> {
        let key = KeyPair::from_pem(&identity.key_pem).map_err(|e| PkiError::Read { what: format!("CA key: {e}") })?;
        let issuer =
            Issuer::from_ca_cert_pem(&identity.cert_pem, key).map_err(|e| PkiError::Read { what: format!("CA certificate: {e}") })?;
        Ok(Authority { identity, issuer })
    }

    pub fn cert_pem(&self) -> &str {
        &self.identity.cert_pem
    }

    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// A new key and a certificate over it.
    pub fn issue(&self, subject: &Subject, names: &Names, usage: Use, now: Timestamp, lifetime: Duration) -> Result<Identity, PkiError> {
        let key = KeyPair::generate()?;
        let mut params = params(subject, now, lifetime)?;
        params.subject_alt_names = alt_names(names)?;
        params.extended_key_usages = match usage {
            Use::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Use::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Use::Both => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        };
        let cert = params.signed_by(&key, &self.issuer)?;
        Ok(Identity { cert_pem: cert.pem(), key_pem: key.serialize_pem() })
    }

    /// Signs a PEM certificate request with the given usages; subject, names and key are the request's.
    pub fn sign_request(&self, csr_pem: &str, usages: &[&str], now: Timestamp, lifetime: Duration) -> Result<String, PkiError> {
        let mut request =
            CertificateSigningRequestParams::from_pem(csr_pem).map_err(|e| PkiError::Read { what: format!("certificate request: {e}") })?;
        request.params.not_before = offset(now, -300);
        request.params.not_after = offset(now, i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX / 2));
        request.params.serial_number = Some(serial()?);
        request.params.is_ca = IsCa::ExplicitNoCa;
        request.params.key_usages = usages.iter().filter_map(|u| key_usage(u)).collect();
        request.params.extended_key_usages = usages.iter().filter_map(|u| extended_key_usage(u)).collect();
        debug_assert!(!request.public_key.der_bytes().is_empty());
        Ok(request.signed_by(&self.issuer)?.pem())
    }
}

/// A new ECDSA P-256 private key as PKCS #8 PEM, for signing service account tokens (ES256).
pub fn generate_key_pem() -> Result<String, PkiError> {
    Ok(KeyPair::generate()?.serialize_pem())
}

/// The public key of a private key PEM, as PEM (SubjectPublicKeyInfo).
pub fn public_key_pem(key_pem: &str) -> Result<String, PkiError> {
    let key = KeyPair::from_pem(key_pem).map_err(|e| PkiError::Read { what: format!("private key: {e}") })?;
    Ok(key.public_key_pem())
}

/// The end of a PEM certificate's validity.
pub fn not_after(cert_pem: &str) -> Result<Timestamp, PkiError> {
    let bad = |what: String| PkiError::Read { what };
    let (_, pem) = x509_parser::pem::parse_x509_pem(cert_pem.as_bytes()).map_err(|e| bad(format!("certificate: {e}")))?;
    let cert = pem.parse_x509().map_err(|e| bad(format!("certificate: {e}")))?;
    Timestamp::from_second(cert.validity().not_after.timestamp()).map_err(|e| bad(format!("certificate's end: {e}")))
}

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    pub common_name: String,
    pub organizations: Vec<String>,
    pub dns: Vec<String>,
    pub ips: Vec<IpAddr>,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
}

/// Reads the first certificate of a PEM text.
pub fn read_certificate(pem: &str) -> Result<CertificateFacts, PkiError> {
    let bad = |what: String| PkiError::Read { what };
    let first = pem.find("-----BEGIN CERTIFICATE-----").ok_or_else(|| bad("certificate: no CERTIFICATE block".into()))?;
    let (_, pem) = x509_parser::pem::parse_x509_pem(&pem.as_bytes()[first..]).map_err(|e| bad(format!("certificate: {e}")))?;
    let cert = pem.parse_x509().map_err(|e| bad(format!("certificate: {e}")))?;
    let text = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| attribute.as_str().unwrap_or_default().to_owned();
    let at = |time: x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp()).map_err(|e| bad(format!("certificate: {e}")));
    let (mut dns, mut ips) = (Vec::new(), Vec::new());
    let names = cert.subject_alternative_name().map_err(|e| bad(format!("certificate: {e}")))?;
    for name in names.iter().flat_map(|names| &names.value.general_names) {
        match name {
            GeneralName::DNSName(name) => dns.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => ips.extend(address(bytes)),
            _ => {}
        }
    }
    Ok(CertificateFacts {
        common_name: cert.subject().iter_common_name().next().map(text).unwrap_or_default(),
        organizations: cert.subject().iter_organization().map(text).collect(),
        dns,
        ips,
        not_before: at(cert.validity().not_before)?,
        not_after: at(cert.validity().not_after)?,
    })
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes).map(IpAddr::from).or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// A certificate request over a new key; it stands where the certificate will.
pub fn request(subject: &Subject, names: &Names) -> Result<Identity, PkiError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished_name(subject);
    params.subject_alt_names = alt_names(names)?;
    let request = params.serialize_request(&key)?;
    Ok(Identity { cert_pem: request.pem()?, key_pem: key.serialize_pem() })
}

/// What a certificate request asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestFacts {
    pub common_name: String,
    pub organizations: Vec<String>,
    pub dns: Vec<String>,
    pub ips: usize,
    pub emails: usize,
    pub uris: usize,
}

/// Reads a PEM certificate request (RFC 2986).
pub fn read_request(csr_pem: &[u8]) -> Result<RequestFacts, PkiError> {
    let bad = |what: String| PkiError::Read { what };
    let (_, pem) = x509_parser::pem::parse_x509_pem(csr_pem).map_err(|e| bad(format!("certificate request: {e}")))?;
    if pem.label != "CERTIFICATE REQUEST" {
        return Err(bad("PEM block type must be CERTIFICATE REQUEST".into()));
    }
    let (_, request) = X509CertificationRequest::from_der(&pem.contents).map_err(|e| bad(format!("certificate request: {e}")))?;
    let subject = &request.certification_request_info.subject;
    let text = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| attribute.as_str().unwrap_or_default().to_owned();
    let mut facts = RequestFacts {
        common_name: subject.iter_common_name().next().map(text).unwrap_or_default(),
        organizations: subject.iter_organization().map(text).collect(),
        ..RequestFacts::default()
    };
    for extension in request.requested_extensions().into_iter().flatten() {
        let ParsedExtension::SubjectAlternativeName(names) = extension else { continue };
        for name in &names.general_names {
            match name {
                GeneralName::DNSName(name) => facts.dns.push((*name).to_owned()),
                GeneralName::IPAddress(_) => facts.ips += 1,
                GeneralName::RFC822Name(_) => facts.emails += 1,
                GeneralName::URI(_) => facts.uris += 1,
                _ => {}
            }
        }
    }
    Ok(facts)
}

fn params(subject: &Subject, now: Timestamp, lifetime: Duration) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished_name(subject);
    params.not_before = offset(now, -300);
    params.not_after = offset(now, i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX / 2));
    params.serial_number = Some(serial()?);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn distinguished_name(subject: &Subject) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    for organization in &subject.organizations {
        name.push(DnType::OrganizationName, organization.as_str());
    }
    name.push(DnType::CommonName, subject.common_name.as_str());
    name
}

fn offset(now: Timestamp, seconds: i64) -> time::OffsetDateTime {
    let at = now.as_second().saturating_add(seconds).clamp(0, 253_402_300_799);
    time::OffsetDateTime::from_unix_timestamp(at).unwrap_or(time::OffsetDateTime::UNIX_EPOCH)
}

fn serial() -> Result<SerialNumber, PkiError> {
    let mut bytes = [0u8; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| PkiError::Random)?;
    bytes[0] &= 0x7f;
    Ok(SerialNumber::from_slice(&bytes))
}

fn alt_names(names: &Names) -> Result<Vec<SanType>, PkiError> {
    let mut out = Vec::with_capacity(names.dns.len() + names.ips.len());
    for name in &names.dns {
        out.push(SanType::DnsName(name.as_str().try_into()?));
    }
    out.extend(names.ips.iter().map(|ip| SanType::IpAddress(*ip)));
    Ok(out)
}

/// `certificates.k8s.io` usages that are X.509 key usages.
fn key_usage(name: &str) -> Option<KeyUsagePurpose> {
    Some(match name {
        "signing" | "digital signature" => KeyUsagePurpose::DigitalSignature,
        "content commitment" => KeyUsagePurpose::ContentCommitment,
        "key encipherment" => KeyUsagePurpose::KeyEncipherment,
        "key agreement" => KeyUsagePurpose::KeyAgreement,
        "data encipherment" => KeyUsagePurpose::DataEncipherment,
        "cert sign" => KeyUsagePurpose::KeyCertSign,
        "crl sign" => KeyUsagePurpose::CrlSign,
        "encipher only" => KeyUsagePurpose::EncipherOnly,
        "decipher only" => KeyUsagePurpose::DecipherOnly,
        _ => return None,
    })
}

/// `certificates.k8s.io` usages that are X.509 extended key usages.
fn extended_key_usage(name: &str) -> Option<ExtendedKeyUsagePurpose> {
    Some(match name {
        "any" => ExtendedKeyUsagePurpose::Any,
        "server auth" => ExtendedKeyUsagePurpose::ServerAuth,
        "client auth" => ExtendedKeyUsagePurpose::ClientAuth,
        "code signing" => ExtendedKeyUsagePurpose::CodeSigning,
        "email protection" => ExtendedKeyUsagePurpose::EmailProtection,
        "timestamping" => ExtendedKeyUsagePurpose::TimeStamping,
        "ocsp signing" => ExtendedKeyUsagePurpose::OcspSigning,
        _ => return None,
    })
}
