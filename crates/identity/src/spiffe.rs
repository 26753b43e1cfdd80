//! SPIFFE ids and trust domains (<https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md>), and Istio's use of
//! their path: `/ns/<namespace>/sa/<service account>`.

use std::fmt;
use std::str::FromStr;

/// Why a text is no SPIFFE id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeError {
    /// It does not start with `spiffe://`.
    #[error("not a spiffe:// URI")]
    Scheme,
    /// The trust domain is empty, too long, or has a character outside `a-z 0-9 . - _`.
    #[error("invalid trust domain")]
    TrustDomain,
    /// A path segment is empty, `.` or `..`, or has a character outside `a-z A-Z 0-9 . - _`.
    #[error("invalid path")]
    Path,
    /// Longer than 2048 bytes.
    #[error("longer than 2048 bytes")]
    TooLong,
    /// A namespace or service account is not a Kubernetes name.
    #[error("invalid namespace or service account name")]
    Name,
}

/// The name of a trust domain, for instance `cluster.local`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(Box<str>);

impl TrustDomain {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TrustDomain {
    type Err = SpiffeError;

    fn from_str(text: &str) -> Result<TrustDomain, SpiffeError> {
        let allowed = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
        if text.is_empty() || text.len() > 255 || !text.bytes().all(allowed) {
            return Err(SpiffeError::TrustDomain);
        }
        Ok(TrustDomain(text.into()))
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A SPIFFE id, kept as its URI.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    uri: Box<str>,
    path_at: u16,
}

const SCHEME: &str = "spiffe://";

impl SpiffeId {
    /// The id of a Kubernetes service account, as Istio writes it.
    pub fn for_service_account(
        trust_domain: &TrustDomain,
        namespace: &str,
        service_account: &str,
    ) -> Result<SpiffeId, SpiffeError> {
        if !is_kubernetes_name(namespace) || !is_kubernetes_name(service_account) {
            return Err(SpiffeError::Name);
        }
        SpiffeId::parse(&format!("{SCHEME}{trust_domain}/ns/{namespace}/sa/{service_account}"))
    }

    /// Reads a SPIFFE id, strictly: no upper case in the trust domain, no query, no empty or dotted segments.
    pub fn parse(uri: &str) -> Result<SpiffeId, SpiffeError> {
        if uri.len() > 2048 {
            return Err(SpiffeError::TooLong);
        }
        let rest = uri.strip_prefix(SCHEME).ok_or(SpiffeError::Scheme)?;
        let (domain, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        TrustDomain::from_str(domain)?;
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        let segment = |s: &str| !s.is_empty() && s != "." && s != ".." && s.bytes().all(allowed);
        if let Some(path) = path.strip_prefix('/')
            && !path.split('/').all(segment)
        {
            return Err(SpiffeError::Path);
        }
        Ok(SpiffeId { uri: uri.into(), path_at: (SCHEME.len() + domain.len()) as u16 })
    }

    /// The whole URI.
    pub fn as_str(&self) -> &str {
        &self.uri
    }

    /// The trust domain's name.
    pub fn trust_domain(&self) -> &str {
        &self.uri[SCHEME.len()..usize::from(self.path_at)]
    }

    /// The path, with its leading slash; empty if the id names a trust domain only.
    pub fn path(&self) -> &str {
        &self.uri[usize::from(self.path_at)..]
    }

    /// Namespace and service account, if the path is Istio's.
    pub fn service_account(&self) -> Option<(&str, &str)> {
        let mut segments = self.path().split('/').skip(1);
        let parts = (segments.next()?, segments.next()?, segments.next()?, segments.next()?);
        match (parts, segments.next()) {
            (("ns", namespace, "sa", account), None) => Some((namespace, account)),
            _ => None,
        }
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

/// Whether a text may name a namespace or a service account: a DNS-1123 subdomain. Nothing that may leave its segment
/// of a path or of a token's subject.
pub fn is_kubernetes_name(text: &str) -> bool {
    let label = |label: &str| {
        let inner = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-');
        !label.is_empty()
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn istio_ids_name_namespace_and_service_account() {
        let domain: TrustDomain = "cluster.local".parse().unwrap();
        let id = SpiffeId::for_service_account(&domain, "default", "bookinfo-reviews").unwrap();
        assert_eq!(id.as_str(), "spiffe://cluster.local/ns/default/sa/bookinfo-reviews");
        assert_eq!(id.trust_domain(), "cluster.local");
        assert_eq!(id.service_account(), Some(("default", "bookinfo-reviews")));
        assert_eq!(SpiffeId::parse("spiffe://td/ns/a/sa/b/c").unwrap().service_account(), None);
        assert_eq!(SpiffeId::parse("spiffe://td").unwrap().path(), "");
    }

    #[test]
    fn what_is_no_spiffe_id_is_refused() {
        let table = [
            ("https://td/x", SpiffeError::Scheme),
            ("SPIFFE://td/x", SpiffeError::Scheme),
            ("spiffe:///x", SpiffeError::TrustDomain),
            ("spiffe://TD/x", SpiffeError::TrustDomain),
            ("spiffe://td:80/x", SpiffeError::TrustDomain),
            ("spiffe://user@td/x", SpiffeError::TrustDomain),
            ("spiffe://td/", SpiffeError::Path),
            ("spiffe://td/a//b", SpiffeError::Path),
            ("spiffe://td/a/../b", SpiffeError::Path),
            ("spiffe://td/a%2fb", SpiffeError::Path),
            ("spiffe://td/a?b", SpiffeError::Path),
            ("spiffe://td/a\0", SpiffeError::Path),
        ];
        for (text, error) in table {
            assert_eq!(SpiffeId::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn a_name_cannot_leave_its_segment() {
        let domain: TrustDomain = "td".parse().unwrap();
        for name in ["", "a/sa/b", "..", "A", "a:b", "-a", "a-", "a..b", "a b"] {
            assert_eq!(
                SpiffeId::for_service_account(&domain, name, "x"),
                Err(SpiffeError::Name),
                "{name}"
            );
            assert_eq!(
                SpiffeId::for_service_account(&domain, "x", name),
                Err(SpiffeError::Name),
                "{name}"
            );
        }
    }
}
