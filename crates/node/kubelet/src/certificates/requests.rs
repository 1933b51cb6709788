//! A certificate by way of the API: a CertificateSigningRequest is made, and its certificate waited for.

use std::time::Duration;
use tiphys_base::pki::{self, Identity, Names, PkiError, Subject};
use tiphys_base::tasks::Tasks;
use tiphys_client::{Client, ClientError, Informers, ListOptions};
use tiphys_types::ByteString;
use tiphys_types::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use tiphys_types::metav1::ObjectMeta;

/// So long somebody may take to approve it; then another is made.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    #[error("cannot make a certificate request")]
    Make(#[from] PkiError),
    #[error("the certificate request was not taken")]
    Create(#[from] ClientError),
    #[error("certificate request {name} is {what}: {why}")]
    Refused { name: String, what: &'static str, why: String },
    #[error("certificate request {0} was deleted")]
    Deleted(String),
    #[error("certificate request {0} was not signed in time")]
    Slow(String),
}

pub(super) struct Requests {
    pub(super) client: Client,
    pub(super) tasks: Tasks,
    pub(super) signer: &'static str,
    /// What the certificate is for, beside signatures.
    pub(super) usage: &'static str,
}

impl Requests {
    /// A new key, and a certificate over it.
    pub(super) async fn issue(&self, subject: &Subject, names: &Names) -> Result<Identity, RequestError> {
        let wanted = pki::request(subject, names)?;
        let request = CertificateSigningRequest {
            metadata: ObjectMeta { generate_name: Some("csr-".into()), ..ObjectMeta::default() },
            spec: CertificateSigningRequestSpec {
                request: ByteString(wanted.cert_pem.into_bytes()),
                signer_name: self.signer.to_owned(),
                // The keys are elliptic: nothing is enciphered with them.
                usages: Some(vec!["digital signature".into(), self.usage.to_owned()]),
                ..CertificateSigningRequestSpec::default()
            },
            status: None,
        };
        let made = self.client.create(&request).await?;
        let name = made.metadata.name.unwrap_or_default();
        let tasks = self.tasks.child();
        let signed = tokio::time::timeout(PATIENCE, signed(&self.client, &tasks, &name)).await;
        tasks.stop();
        let cert_pem = signed.map_err(|_| RequestError::Slow(name))??;
        Ok(Identity { cert_pem, key_pem: wanted.key_pem })
    }
}

async fn signed(client: &Client, tasks: &Tasks, name: &str) -> Result<String, RequestError> {
    let informers = Informers::with_tasks(client.clone(), tasks.clone());
    let requests = informers.filtered::<CertificateSigningRequest>(ListOptions::fields(format!("metadata.name={name}")));
    let mut changes = requests.subscribe();
    while let Some(delta) = changes.recv().await {
        if matches!(delta, tiphys_client::Delta::Deleted(_)) {
            return Err(RequestError::Deleted(name.to_owned()));
        }
        if let Some(certificate) = outcome(delta.object())? {
            return Ok(certificate);
        }
    }
    Err(RequestError::Slow(name.to_owned()))
}

/// The certificate, if there is one yet.
fn outcome(request: &CertificateSigningRequest) -> Result<Option<String>, RequestError> {
    let Some(status) = &request.status else { return Ok(None) };
    for (condition, what) in [("Denied", "denied"), ("Failed", "failed")] {
        let found = status.conditions.iter().flatten().find(|c| c.type_ == condition);
        if let Some(found) = found {
            let why = format!("{} {}", found.reason.as_deref().unwrap_or_default(), found.message.as_deref().unwrap_or_default());
            return Err(RequestError::Refused { name: request.metadata.name.clone().unwrap_or_default(), what, why });
        }
    }
    Ok(status.certificate.as_ref().and_then(|bytes| String::from_utf8(bytes.0.clone()).ok()).filter(|pem| !pem.is_empty()))
}
