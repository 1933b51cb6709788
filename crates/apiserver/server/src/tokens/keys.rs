//! Keys that sign and verify service account tokens (RFC 7518: ES256, RS256), and their public halves as JWKs (RFC 7517).
//!
//! Absent: SEC 1 private keys (`BEGIN EC PRIVATE KEY`), since they need not hold the public half; PKCS #8 does. P-384 and P-521.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use ring::digest;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256,
    RsaKeyPair, UnparsedPublicKey,
};
use rustls_pki_types::pem::{PemObject, SectionKind};
use serde_json::{Value, json};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey as X509Key;
use x509_parser::x509::SubjectPublicKeyInfo;

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("no key in the PEM text")]
    Empty,
    #[error("{0} is not supported: use a PKCS #8 P-256 or RSA key")]
    Unsupported(&'static str),
    #[error("unusable key: {0}")]
    Bad(String),
    #[error("the key could not sign")]
    Sign,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    Es256,
    Rs256,
}

impl Algorithm {
    pub fn as_str(self) -> &'static str {
        match self {
            Algorithm::Es256 => "ES256",
            Algorithm::Rs256 => "RS256",
        }
    }
}

/// A public key with the id that upstream gives it: SHA-256 of its SubjectPublicKeyInfo.
#[derive(Debug, Clone)]
pub struct VerifyKey {
    pub algorithm: Algorithm,
    pub id: String,
    /// The uncompressed point, or PKCS #1's RSAPublicKey.
    raw: Vec<u8>,
}

enum Signer {
    Ec(Box<EcdsaKeyPair>),
    Rsa(Box<RsaKeyPair>),
}

pub struct SigningKey {
    signer: Signer,
    pub public: VerifyKey,
    random: SystemRandom,
}

impl SigningKey {
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let mut last = KeyError::Empty;
        for section in sections(pem)? {
            match Self::from_section(section) {
                Ok(key) => return Ok(key),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn from_section((kind, der): (SectionKind, Vec<u8>)) -> Result<Self, KeyError> {
        let random = SystemRandom::new();
        let signer = match kind {
            SectionKind::PrivateKey => match EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der, &random) {
                Ok(ec) => Signer::Ec(Box::new(ec)),
                Err(_) => Signer::Rsa(Box::new(RsaKeyPair::from_pkcs8(&der).map_err(|e| KeyError::Bad(e.to_string()))?)),
            },
            SectionKind::RsaPrivateKey => Signer::Rsa(Box::new(RsaKeyPair::from_der(&der).map_err(|e| KeyError::Bad(e.to_string()))?)),
            SectionKind::EcPrivateKey => return Err(KeyError::Unsupported("an EC key in SEC 1 form (BEGIN EC PRIVATE KEY)")),
            _ => return Err(KeyError::Unsupported("this PEM section")),
        };
        let public = match &signer {
            Signer::Ec(key) => VerifyKey::new(Algorithm::Es256, key.public_key().as_ref().to_vec()),
            Signer::Rsa(key) => VerifyKey::new(Algorithm::Rs256, key.public_key().as_ref().to_vec()),
        };
        Ok(SigningKey { signer, public, random })
    }

    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        match &self.signer {
            Signer::Ec(key) => key.sign(&self.random, message).map(|s| s.as_ref().to_vec()).map_err(|_| KeyError::Sign),
            Signer::Rsa(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &self.random, message, &mut signature).map_err(|_| KeyError::Sign)?;
                Ok(signature)
            }
        }
    }
}

impl VerifyKey {
    fn new(algorithm: Algorithm, raw: Vec<u8>) -> Self {
        let id = B64.encode(digest::digest(&digest::SHA256, &public_key_info(algorithm, &raw)));
        VerifyKey { algorithm, id, raw }
    }

    /// All keys of a PEM text: public keys, certificates, and the public halves of private keys.
    pub fn all_from_pem(pem: &str) -> Result<Vec<Self>, KeyError> {
        let keys: Vec<Self> = sections(pem)?.into_iter().map(Self::from_section).collect::<Result<_, _>>()?;
        if keys.is_empty() { Err(KeyError::Empty) } else { Ok(keys) }
    }

    fn from_section((kind, der): (SectionKind, Vec<u8>)) -> Result<Self, KeyError> {
        let bad = |e: &dyn std::fmt::Display| KeyError::Bad(e.to_string());
        match kind {
            SectionKind::PublicKey => {
                let (_, info) = SubjectPublicKeyInfo::from_der(&der).map_err(|e| bad(&e))?;
                Self::from_info(&info)
            }
            SectionKind::Certificate => {
                let (_, cert) = x509_parser::certificate::X509Certificate::from_der(&der).map_err(|e| bad(&e))?;
                Self::from_info(cert.public_key())
            }
            other => SigningKey::from_section((other, der)).map(|key| key.public),
        }
    }

    fn from_info(info: &SubjectPublicKeyInfo<'_>) -> Result<Self, KeyError> {
        let raw = info.subject_public_key.data.to_vec();
        match info.parsed().map_err(|e| KeyError::Bad(e.to_string()))? {
            X509Key::RSA(_) => Ok(Self::new(Algorithm::Rs256, raw)),
            X509Key::EC(_) if raw.len() == 65 => Ok(Self::new(Algorithm::Es256, raw)),
            _ => Err(KeyError::Unsupported("this kind of public key")),
        }
    }

    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match self.algorithm {
            Algorithm::Es256 => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.raw).verify(message, signature).is_ok(),
            Algorithm::Rs256 => UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &self.raw).verify(message, signature).is_ok(),
        }
    }

    /// A key as an issuer publishes it (RFC 7517); None for kinds that are not verified here.
    pub fn from_jwk(jwk: &Value) -> Option<Self> {
        let bytes = |field: &str| B64.decode(jwk.get(field)?.as_str()?.trim_end_matches('=')).ok();
        let key = match jwk.get("kty")?.as_str()? {
            "EC" if jwk.get("crv")?.as_str()? == "P-256" => {
                let (x, y) = (bytes("x").filter(|x| x.len() == 32)?, bytes("y").filter(|y| y.len() == 32)?);
                Self::new(Algorithm::Es256, [&[4u8][..], &x, &y].concat())
            }
            "RSA" => Self::new(Algorithm::Rs256, rsa_public_key(&bytes("n")?, &bytes("e")?)),
            _ => return None,
        };
        let id = jwk.get("kid").and_then(Value::as_str).map_or_else(|| key.id.clone(), str::to_owned);
        Some(VerifyKey { id, ..key })
    }

    /// The key as it stands in `/openid/v1/jwks`.
    pub fn jwk(&self) -> Value {
        let mut key = json!({"use": "sig", "kid": self.id, "alg": self.algorithm.as_str()});
        match self.algorithm {
            Algorithm::Es256 => {
                key["kty"] = json!("EC");
                key["crv"] = json!("P-256");
                key["x"] = json!(B64.encode(&self.raw[1..33]));
                key["y"] = json!(B64.encode(&self.raw[33..65]));
            }
            Algorithm::Rs256 => {
                key["kty"] = json!("RSA");
                if let Ok((_, rsa)) = x509_parser::public_key::RSAPublicKey::from_der(&self.raw) {
                    key["n"] = json!(B64.encode(without_leading_zeros(rsa.modulus)));
                    key["e"] = json!(B64.encode(without_leading_zeros(rsa.exponent)));
                }
            }
        }
        key
    }
}

/// PKCS #1's RSAPublicKey: a sequence of two integers (DER).
fn rsa_public_key(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    let integer = |number: &[u8]| {
        let number = without_leading_zeros(number);
        // A leading one bit would be a sign.
        let sign: &[u8] = if number.first().is_none_or(|b| *b >= 0x80) { &[0] } else { &[] };
        der(2, &[sign, number].concat())
    };
    der(0x30, &[integer(modulus), integer(exponent)].concat())
}

fn without_leading_zeros(number: &[u8]) -> &[u8] {
    let start = number.iter().position(|b| *b != 0).unwrap_or(number.len());
    &number[start..]
}

fn sections(pem: &str) -> Result<Vec<(SectionKind, Vec<u8>)>, KeyError> {
    <(SectionKind, Vec<u8>)>::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().map_err(|e| KeyError::Bad(e.to_string()))
}

/// SubjectPublicKeyInfo (RFC 5280 §4.1) around a raw key.
fn public_key_info(algorithm: Algorithm, raw: &[u8]) -> Vec<u8> {
    // AlgorithmIdentifiers: id-ecPublicKey with prime256v1; rsaEncryption with NULL.
    const EC: &[u8] =
        &[0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    const RSA: &[u8] = &[0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
    let mut bits = vec![0];
    bits.extend_from_slice(raw);
    let mut inner = if algorithm == Algorithm::Es256 { EC.to_vec() } else { RSA.to_vec() };
    inner.extend(der(0x03, &bits));
    der(0x30, &inner)
}

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let significant = without_leading_zeros(&length);
    let mut out = vec![tag];
    match u8::try_from(content.len()) {
        Ok(short) if short < 0x80 => out.push(short),
        _ => {
            out.push(0x80 | u8::try_from(significant.len()).unwrap_or(8));
            out.extend_from_slice(significant);
        }
    }
    out.extend_from_slice(content);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_pem_has_the_same_id_as_its_private_half() {
        let private = tiphys_base::pki::generate_key_pem().expect("key");
        let public = tiphys_base::pki::public_key_pem(&private).expect("public half");
        let key = SigningKey::from_pem(&private).expect("signs");
        let verify = VerifyKey::all_from_pem(&public).expect("verifies").remove(0);
        assert_eq!(key.public.id, verify.id);
        let signature = key.sign(b"hello").expect("signed");
        assert!(verify.verifies(b"hello", &signature));
        assert!(!verify.verifies(b"hullo", &signature));
        assert_eq!(verify.jwk()["crv"], "P-256");
    }

    #[test]
    fn texts_without_a_key_are_refused() {
        assert!(matches!(SigningKey::from_pem("no pem"), Err(KeyError::Empty)));
        assert!(matches!(VerifyKey::all_from_pem(""), Err(KeyError::Empty)));
    }
}
