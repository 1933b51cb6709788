//! Certificates and kubeconfigs as an administrator makes them for components that run alone.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};

pub struct Pki {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Pki {
    /// `ca.crt`, `ca.key`, `sa.key` and `sa.pub` in a folder.
    pub fn make(folder: &Path) -> Result<Pki> {
        std::fs::create_dir_all(folder)?;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "kubernetes");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        std::fs::write(folder.join("ca.crt"), params.self_signed(&key)?.pem())?;
        std::fs::write(folder.join("ca.key"), key.serialize_pem())?;
        let accounts = KeyPair::generate()?;
        std::fs::write(folder.join("sa.key"), accounts.serialize_pem())?;
        std::fs::write(folder.join("sa.pub"), accounts.public_key_pem())?;
        Ok(Pki { folder: folder.to_owned(), issuer: Issuer::new(params, key) })
    }

    /// `NAME.crt` and `NAME.key`, for clients and servers.
    pub fn issue(&self, name: &str, user: &str, group: &str, addresses: &[IpAddr]) -> Result<()> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec!["kubernetes".to_owned(), "localhost".to_owned()])?;
        params.subject_alt_names.extend(addresses.iter().map(|a| SanType::IpAddress(*a)));
        if !group.is_empty() {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.distinguished_name.push(DnType::CommonName, user);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        std::fs::write(self.path(&format!("{name}.crt")), params.signed_by(&key, &self.issuer)?.pem())?;
        std::fs::write(self.path(&format!("{name}.key")), key.serialize_pem())?;
        Ok(())
    }

    /// A certificate request (PEM) over a new key.
    pub fn request(user: &str, group: &str) -> Result<String> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::OrganizationName, group);
        params.distinguished_name.push(DnType::CommonName, user);
        Ok(params.serialize_request(&KeyPair::generate()?)?.pem()?)
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }

    /// `NAME.kubeconfig` for an issued certificate.
    pub fn kubeconfig(&self, name: &str, server: &str) -> Result<PathBuf> {
        let path = self.path(&format!("{name}.kubeconfig"));
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: it\ncontexts:\n- name: it\n  context: {{cluster: it, user: me}}\nclusters:\n- name: it\n  \
             cluster: {{server: \"{server}\", certificate-authority: ca.crt}}\nusers:\n- name: me\n  user: {{client-certificate: {name}.crt, client-key: {name}.key}}\n"
        );
        std::fs::write(&path, text)?;
        Ok(path)
    }
}
