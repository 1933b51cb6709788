//! JSON Web Tokens in the compact form (RFC 7515, 7519), as far as service account tokens need them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use serde_json::{Value, json};

use super::keys::{KeyError, SigningKey, VerifyKey};

/// Clocks of two machines may differ by this much (go-jose's DefaultLeeway).
const LEEWAY_SECONDS: i64 = 60;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    /// Not a JWT at all, or one of another issuer: other authenticators may know it.
    #[error("not one of our tokens")]
    Foreign,
    #[error("{0}")]
    Invalid(String),
}

pub fn sign(key: &SigningKey, claims: &Value) -> Result<String, KeyError> {
    let header = json!({"alg": key.public.algorithm.as_str(), "kid": key.public.id});
    let mut token = format!("{}.{}", B64.encode(header.to_string()), B64.encode(claims.to_string()));
    let signature = key.sign(token.as_bytes())?;
    token.push('.');
    token.push_str(&B64.encode(signature));
    Ok(token)
}

/// The claims of a token that one of `issuers` issued and one of `keys` signed. Time is [`check_times`]' business.
pub fn verify<'a>(token: &str, mut issuers: impl Iterator<Item = &'a str>, keys: &[VerifyKey]) -> Result<Value, JwtError> {
    let (signed, signature) = token.rsplit_once('.').ok_or(JwtError::Foreign)?;
    let (header, payload) = signed.split_once('.').ok_or(JwtError::Foreign)?;
    let claims = json_part(payload).ok_or(JwtError::Foreign)?;
    let issuer = claims.get("iss").and_then(Value::as_str).unwrap_or("");
    if !issuers.any(|i| i == issuer) {
        return Err(JwtError::Foreign);
    }
    let header = json_part(header).ok_or(JwtError::Foreign)?;
    let algorithm = header.get("alg").and_then(Value::as_str).unwrap_or("");
    let id = header.get("kid").and_then(Value::as_str).unwrap_or("");
    let signature = B64.decode(signature).map_err(|_| JwtError::Invalid("invalid signature encoding".into()))?;
    // A key is tried only with its own algorithm, so that a token cannot choose how it is checked (RFC 8725 §3.1).
    let fits = |key: &&VerifyKey| key.algorithm.as_str() == algorithm && (id.is_empty() || key.id == id);
    if keys.iter().filter(fits).any(|key| key.verifies(signed.as_bytes(), &signature)) {
        Ok(claims)
    } else {
        Err(JwtError::Invalid("invalid signature".into()))
    }
}

/// `exp`, `nbf` and `iat` against `now` (seconds since the epoch).
pub fn check_times(claims: &Value, now: i64) -> Result<(), JwtError> {
    let at = |name: &str| claims.get(name).and_then(Value::as_i64);
    let invalid = |text: &str| Err(JwtError::Invalid(text.to_owned()));
    if at("nbf").is_some_and(|t| now + LEEWAY_SECONDS < t) {
        return invalid("service account token is not valid yet");
    }
    if at("exp").is_some_and(|t| now - LEEWAY_SECONDS > t) {
        return invalid("service account token has expired");
    }
    if at("iat").is_some_and(|t| now + LEEWAY_SECONDS < t) {
        return invalid("service account token is issued in the future");
    }
    Ok(())
}

/// `aud`, which may be one string or several.
pub fn audiences(claims: &Value) -> Vec<String> {
    match claims.get("aud") {
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

fn json_part(part: &str) -> Option<Value> {
    serde_json::from_slice(&B64.decode(part).ok()?).ok().filter(Value::is_object)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SigningKey {
        SigningKey::from_pem(&tiphys_base::pki::generate_key_pem().expect("key")).expect("signing key")
    }

    #[test]
    fn round_trip_and_refusals() {
        let (key, other) = (key(), key());
        let verify = |token: &str, keys: &[VerifyKey]| verify(token, ["https://us"].into_iter(), keys);
        let claims = json!({"iss": "https://us", "sub": "system:serviceaccount:a:b", "aud": ["x"], "exp": 100, "nbf": 10});
        let token = sign(&key, &claims).expect("signed");
        assert_eq!(verify(&token, std::slice::from_ref(&key.public)), Ok(claims.clone()));
        let theirs = super::verify(&token, ["https://them"].into_iter(), std::slice::from_ref(&key.public));
        assert_eq!(theirs, Err(JwtError::Foreign));
        assert!(matches!(verify(&token, std::slice::from_ref(&other.public)), Err(JwtError::Invalid(_))));
        let none = format!("{}.{}.", B64.encode(r#"{"alg":"none"}"#), B64.encode(claims.to_string()));
        assert!(matches!(verify(&none, std::slice::from_ref(&key.public)), Err(JwtError::Invalid(_))));
        let forged = token.replacen('.', ".e30", 1);
        assert!(verify(&forged, std::slice::from_ref(&key.public)).is_err());
        assert_eq!(verify("abc", &[]), Err(JwtError::Foreign));
    }

    #[test]
    fn times_have_a_minute_of_grace() {
        let claims = json!({"exp": 1000, "nbf": 500, "iat": 500});
        for (now, good) in [(439, false), (440, true), (1000, true), (1060, true), (1061, false)] {
            assert_eq!(check_times(&claims, now).is_ok(), good, "{now}");
        }
    }
}
