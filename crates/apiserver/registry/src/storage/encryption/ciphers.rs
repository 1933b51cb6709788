//! The ciphers behind the providers. Every seal takes a random nonce, which stands before the data, as upstream has it.

use aes::{Aes128, Aes192, Aes256};
use aes_gcm::aead::consts::U12;
use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes128Gcm, Aes256Gcm, AesGcm};
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit};
use crypto_secretbox::XSalsa20Poly1305;
use crypto_secretbox::aead::{Aead as BoxAead, KeyInit as BoxKeyInit};
use ring::rand::{SecureRandom, SystemRandom};

use super::OpenError;

const GCM_NONCE: usize = 12;
const BLOCK: usize = 16;
const BOX_NONCE: usize = 24;
const BOX_OVERHEAD: usize = 16;

/// A cipher with its key.
pub(super) enum Cipher {
    Gcm128(Box<Aes128Gcm>),
    Gcm192(Box<AesGcm<Aes192, U12>>),
    Gcm256(Box<Aes256Gcm>),
    /// 16, 24 or 32 bytes.
    Cbc(Vec<u8>),
    Box(XSalsa20Poly1305),
}

impl std::fmt::Debug for Cipher {
    /// A key is never printed.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cipher")
    }
}

impl Cipher {
    /// None where no AES key has this length.
    pub(super) fn gcm(key: &[u8]) -> Option<Cipher> {
        Some(match key.len() {
            16 => Cipher::Gcm128(Box::new(KeyInit::new_from_slice(key).ok()?)),
            24 => Cipher::Gcm192(Box::new(KeyInit::new_from_slice(key).ok()?)),
            32 => Cipher::Gcm256(Box::new(KeyInit::new_from_slice(key).ok()?)),
            _ => return None,
        })
    }

    pub(super) fn cbc(key: &[u8]) -> Option<Cipher> {
        matches!(key.len(), 16 | 24 | 32).then(|| Cipher::Cbc(key.to_vec()))
    }

    pub(super) fn secretbox(key: &[u8]) -> Option<Cipher> {
        BoxKeyInit::new_from_slice(key).ok().map(Cipher::Box)
    }

    /// `prefix`, nonce, sealed data.
    pub(super) fn seal(&self, prefix: &[u8], key: &[u8], plain: &[u8]) -> Vec<u8> {
        let nonce = random(self.nonce_length());
        let sealed = self.seal_with(&nonce, key, plain);
        [prefix, &nonce, &sealed].concat()
    }

    fn nonce_length(&self) -> usize {
        match self {
            Cipher::Gcm128(_) | Cipher::Gcm192(_) | Cipher::Gcm256(_) => GCM_NONCE,
            Cipher::Cbc(_) => BLOCK,
            Cipher::Box(_) => BOX_NONCE,
        }
    }

    fn seal_with(&self, nonce: &[u8], key: &[u8], plain: &[u8]) -> Vec<u8> {
        let sealed = match self {
            Cipher::Gcm128(cipher) => seal_gcm(&**cipher, nonce, key, plain),
            Cipher::Gcm192(cipher) => seal_gcm(&**cipher, nonce, key, plain),
            Cipher::Gcm256(cipher) => seal_gcm(&**cipher, nonce, key, plain),
            Cipher::Cbc(secret) => seal_cbc(secret, nonce, plain),
            Cipher::Box(cipher) => crypto_secretbox::Nonce::from_exact_iter(nonce.iter().copied())
                .and_then(|nonce| BoxAead::encrypt(cipher, &nonce, plain).ok()),
        };
        // Only a message of more than 64 GiB, or a nonce of another length than `nonce_length`, is refused.
        sealed.unwrap_or_default()
    }

    pub(super) fn open(&self, key: &[u8], data: &[u8]) -> Result<Vec<u8>, OpenError> {
        let least = match self {
            Cipher::Box(_) => BOX_NONCE + BOX_OVERHEAD,
            other => other.nonce_length(),
        };
        if data.len() < least {
            return Err(OpenError::Short);
        }
        let (nonce, sealed) = data.split_at(self.nonce_length());
        let plain = match self {
            Cipher::Gcm128(cipher) => open_gcm(&**cipher, nonce, key, sealed),
            Cipher::Gcm192(cipher) => open_gcm(&**cipher, nonce, key, sealed),
            Cipher::Gcm256(cipher) => open_gcm(&**cipher, nonce, key, sealed),
            Cipher::Cbc(secret) => open_cbc(secret, nonce, sealed),
            Cipher::Box(cipher) => crypto_secretbox::Nonce::from_exact_iter(nonce.iter().copied())
                .and_then(|nonce| BoxAead::decrypt(cipher, &nonce, sealed).ok()),
        };
        plain.ok_or(OpenError::Refused)
    }
}

fn seal_gcm<C: Aead>(cipher: &C, nonce: &[u8], key: &[u8], plain: &[u8]) -> Option<Vec<u8>> {
    cipher.encrypt(nonce.try_into().ok()?, Payload { msg: plain, aad: key }).ok()
}

fn open_gcm<C: Aead>(cipher: &C, nonce: &[u8], key: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    cipher.decrypt(nonce.try_into().ok()?, Payload { msg: sealed, aad: key }).ok()
}

fn seal_cbc(secret: &[u8], iv: &[u8], plain: &[u8]) -> Option<Vec<u8>> {
    Some(match secret.len() {
        16 => cbc::Encryptor::<Aes128>::new_from_slices(secret, iv).ok()?.encrypt_padded_vec::<Pkcs7>(plain),
        24 => cbc::Encryptor::<Aes192>::new_from_slices(secret, iv).ok()?.encrypt_padded_vec::<Pkcs7>(plain),
        _ => cbc::Encryptor::<Aes256>::new_from_slices(secret, iv).ok()?.encrypt_padded_vec::<Pkcs7>(plain),
    })
}

fn open_cbc(secret: &[u8], iv: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    match secret.len() {
        16 => cbc::Decryptor::<Aes128>::new_from_slices(secret, iv).ok()?.decrypt_padded_vec::<Pkcs7>(sealed).ok(),
        24 => cbc::Decryptor::<Aes192>::new_from_slices(secret, iv).ok()?.decrypt_padded_vec::<Pkcs7>(sealed).ok(),
        _ => cbc::Decryptor::<Aes256>::new_from_slices(secret, iv).ok()?.decrypt_padded_vec::<Pkcs7>(sealed).ok(),
    }
}

/// The system's source of randomness does not fail once it is seeded, which a booted Linux is.
fn random(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    if SystemRandom::new().fill(&mut bytes).is_err() {
        // Sealing with a known nonce would give the key away; ending the request does not.
        std::panic::panic_any("the system has no randomness");
    }
    bytes
}
