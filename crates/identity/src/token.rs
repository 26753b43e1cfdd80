//! Workload tokens: JWTs in the form of Kubernetes' projected service account tokens, signed with ES256.
//!
//! A token says which service account its bearer is, for one audience, for an hour at most. A verifier looks at all of it:
//! algorithm, key id, signature, issuer, audience, lifetime, subject. There is no way to switch one of these off.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use crate::key::{KeyError, PrivateKey};
use crate::spiffe::is_kubernetes_name;

/// The audience of tokens for the control plane (xDS and certificates), as in Istio.
pub const CONTROL_PLANE_AUDIENCE: &str = "istio-ca";
/// No token lives longer.
pub const MAX_LIFETIME: Duration = Duration::from_secs(3600);
/// How far two clocks may differ.
const CLOCK_SKEW: u64 = 10;
const SUBJECT_PREFIX: &str = "system:serviceaccount:";

/// Why a token is not issued or not believed.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The signing key cannot be used.
    #[error("token key: {0}")]
    Key(#[from] KeyError),
    /// Not a JWT, of another algorithm, signed by another key, or changed.
    #[error("token is malformed or not signed by this mesh: {0}")]
    Signature(#[from] jsonwebtoken::errors::Error),
    /// Signed by a key that this mesh does not have.
    #[error("token is signed by an unknown key")]
    UnknownKey,
    /// Of another issuer.
    #[error("token is of issuer {0:?}")]
    Issuer(String),
    /// For another audience.
    #[error("token is for audience {found:?}, not for {wanted:?}")]
    Audience {
        /// What it is for.
        found: Vec<String>,
        /// What it should be for.
        wanted: String,
    },
    /// Its time has passed.
    #[error("token has expired")]
    Expired,
    /// Its time has not come.
    #[error("token is not valid yet")]
    NotYetValid,
    /// It would live longer than [`MAX_LIFETIME`].
    #[error("token lives longer than one hour")]
    TooLong,
    /// The subject is no service account.
    #[error("token subject is no service account")]
    Subject,
}

/// Who a token says its bearer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bearer {
    /// The service account's namespace.
    pub namespace: String,
    /// The service account's name.
    pub service_account: String,
    /// When the token ends.
    pub expires: SystemTime,
}

/// Signs tokens. Its key is persisted by its owner as PEM.
pub struct TokenIssuer {
    key: PrivateKey,
    encoding: EncodingKey,
    key_id: String,
    issuer: String,
}

/// Judges tokens of one issuer.
#[derive(Clone)]
pub struct TokenVerifier {
    keys: Vec<(String, DecodingKey)>,
    issuer: String,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    #[serde(deserialize_with = "one_or_many")]
    aud: Vec<String>,
    iat: u64,
    nbf: u64,
    exp: u64,
}

impl TokenIssuer {
    /// An issuer with a key of its own, for instance `https://kubernetes.default.svc.cluster.local`.
    pub fn new(key: PrivateKey, issuer: impl Into<String>) -> Result<TokenIssuer, TokenError> {
        let encoding = EncodingKey::from_ec_pem(key.to_pem().as_bytes())?;
        let key_id = key_id(&key.public_key_der());
        Ok(TokenIssuer { key, encoding, key_id, issuer: issuer.into() })
    }

    /// Reads the key that [`Self::key_pem`] gave.
    pub fn from_pem(key_pem: &str, issuer: impl Into<String>) -> Result<TokenIssuer, TokenError> {
        TokenIssuer::new(PrivateKey::from_pem(key_pem)?, issuer)
    }

    /// The private key, to be persisted where only the control plane reads.
    pub fn key_pem(&self) -> String {
        self.key.to_pem()
    }

    /// A verifier of this issuer's tokens.
    pub fn verifier(&self) -> Result<TokenVerifier, TokenError> {
        TokenVerifier::new([self.key.public_key_pem()], self.issuer.clone())
    }

    /// Signs a token for a service account. `lifetime` is cut to [`MAX_LIFETIME`].
    pub fn issue(
        &self,
        namespace: &str,
        service_account: &str,
        audience: &str,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<String, TokenError> {
        if !is_kubernetes_name(namespace) || !is_kubernetes_name(service_account) {
            return Err(TokenError::Subject);
        }
        let now = unix_seconds(now);
        let claims = Claims {
            iss: self.issuer.clone(),
            sub: format!("{SUBJECT_PREFIX}{namespace}:{service_account}"),
            aud: vec![audience.to_owned()],
            iat: now,
            nbf: now,
            exp: now + lifetime.min(MAX_LIFETIME).as_secs(),
        };
        let header = Header { kid: Some(self.key_id.clone()), ..Header::new(Algorithm::ES256) };
        Ok(jsonwebtoken::encode(&header, &claims, &self.encoding)?)
    }
}

impl std::fmt::Debug for TokenIssuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TokenIssuer({}, key {})", self.issuer, self.key_id)
    }
}

impl std::fmt::Debug for TokenVerifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TokenVerifier({}, {} keys)", self.issuer, self.keys.len())
    }
}

impl TokenVerifier {
    /// A verifier that knows these public keys (`PUBLIC KEY` PEM): more than one while a key is being replaced.
    pub fn new(
        public_keys: impl IntoIterator<Item = String>,
        issuer: impl Into<String>,
    ) -> Result<TokenVerifier, TokenError> {
        let keys =
            public_keys.into_iter().map(|pem| read_public_key(&pem)).collect::<Result<_, _>>()?;
        Ok(TokenVerifier { keys, issuer: issuer.into() })
    }

    /// Judges a token: who bears it, if everything about it is right at this time and for this audience.
    pub fn verify(
        &self,
        token: &str,
        audience: &str,
        now: SystemTime,
    ) -> Result<Bearer, TokenError> {
        let header = jsonwebtoken::decode_header(token)?;
        let key_id = header.kid.ok_or(TokenError::UnknownKey)?;
        let (_, key) =
            self.keys.iter().find(|(known, _)| *known == key_id).ok_or(TokenError::UnknownKey)?;
        let claims = jsonwebtoken::decode::<Claims>(token, key, &signature_only())?.claims;
        self.check(claims, audience, unix_seconds(now))
    }

    fn check(&self, claims: Claims, audience: &str, now: u64) -> Result<Bearer, TokenError> {
        if claims.iss != self.issuer {
            return Err(TokenError::Issuer(claims.iss));
        }
        if !claims.aud.iter().any(|found| found == audience) {
            return Err(TokenError::Audience { found: claims.aud, wanted: audience.to_owned() });
        }
        if claims.exp <= now {
            return Err(TokenError::Expired);
        }
        if claims.nbf > now.saturating_add(CLOCK_SKEW)
            || claims.iat > now.saturating_add(CLOCK_SKEW)
        {
            return Err(TokenError::NotYetValid);
        }
        if claims.exp.saturating_sub(claims.iat) > MAX_LIFETIME.as_secs() {
            return Err(TokenError::TooLong);
        }
        let account = claims.sub.strip_prefix(SUBJECT_PREFIX).ok_or(TokenError::Subject)?;
        let (namespace, service_account) = account.split_once(':').ok_or(TokenError::Subject)?;
        if !is_kubernetes_name(namespace) || !is_kubernetes_name(service_account) {
            return Err(TokenError::Subject);
        }
        Ok(Bearer {
            namespace: namespace.to_owned(),
            service_account: service_account.to_owned(),
            expires: UNIX_EPOCH + Duration::from_secs(claims.exp),
        })
    }
}

/// When a token says that it ends, for its bearer to look at: nothing is verified. `None` for what is no such token.
pub fn expiry(token: &str) -> Option<SystemTime> {
    #[derive(Deserialize)]
    struct Expiry {
        exp: u64,
    }
    let payload = token.trim().split('.').nth(1)?;
    let json = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).ok()?;
    let claims: Expiry = serde_json::from_slice(&json).ok()?;
    UNIX_EPOCH.checked_add(Duration::from_secs(claims.exp))
}

/// jsonwebtoken checks algorithm and signature; the claims are checked here, against the caller's clock.
fn signature_only() -> Validation {
    let mut validation = Validation::new(Algorithm::ES256);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation
}

fn read_public_key(pem: &str) -> Result<(String, DecodingKey), TokenError> {
    use rustls_pki_types::SubjectPublicKeyInfoDer;
    use rustls_pki_types::pem::PemObject;
    let der = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes())
        .map_err(|error| KeyError::Pem(error.to_string()))?;
    Ok((key_id(&der), DecodingKey::from_ec_pem(pem.as_bytes())?))
}

/// Names a key by what it is: the hash of its public half.
fn key_id(public_key_der: &[u8]) -> String {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, public_key_der);
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(hash)
}

fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// RFC 7519 allows one audience to stand without its array.
fn one_or_many<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    Ok(match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(audience) => vec![audience],
        OneOrMany::Many(audiences) => audiences,
    })
}

#[cfg(test)]
mod tests;
