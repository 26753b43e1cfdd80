//! The credential by which an application may use its sidecar's outbound proxy, and no neighbour may.

use base64::Engine as _;

/// Random bytes in a password.
const PASSWORD_BYTES: usize = 24;

/// A user and a random password, made anew for each run. The password is never printed by accident.
pub struct ProxyCredential {
    user: String,
    password: String,
}

impl ProxyCredential {
    /// A new credential.
    pub fn generate() -> ProxyCredential {
        let bytes: [u8; PASSWORD_BYTES] = rand::random();
        let password = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
        ProxyCredential { user: "app".to_owned(), password }
    }

    /// `user:password`, as it stands before the `@` of a proxy's URL. Every character may stand there as it is.
    pub fn userinfo(&self) -> String {
        format!("{}:{}", self.user, self.password)
    }

    /// A line of an htpasswd file in the one form that Envoy's `basic_auth` filter takes: `user:{SHA}<base64 of SHA-1>`.
    /// The password is 192 random bits, so that its plain hash tells nothing.
    pub fn htpasswd_line(&self) -> String {
        let algorithm = &aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY;
        let hash = aws_lc_rs::digest::digest(algorithm, self.password.as_bytes());
        let hash = base64::engine::general_purpose::STANDARD.encode(hash);
        format!("{}:{{SHA}}{hash}", self.user)
    }
}

impl std::fmt::Debug for ProxyCredential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ProxyCredential({})", self.user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_what_htpasswd_makes_of_the_password() {
        let known = ProxyCredential { user: "app".into(), password: "test".into() };
        assert_eq!(known.htpasswd_line(), "app:{SHA}qUqP5cyxm6YcTAhz05Hph5gvu9M=");
    }

    #[test]
    fn no_two_are_alike_and_none_is_printed() {
        let (a, b) = (ProxyCredential::generate(), ProxyCredential::generate());
        assert_ne!(a.userinfo(), b.userinfo());
        assert!(!format!("{a:?}").contains(&a.password));
        let unreserved = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b':');
        assert!(a.userinfo().bytes().all(unreserved));
    }
}
