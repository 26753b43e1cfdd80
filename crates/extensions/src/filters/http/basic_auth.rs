//! `envoy.filters.http.basic_auth`: users with passwords as `htpasswd -s` writes them.
//!
//! With `authentication_header: proxy-authorization` this is what a proxy asks of its clients: the answer is 407, and the
//! credential, which was for this hop alone, goes no further (RFC 9110 §11.7).

use std::sync::Arc;

use api::envoy::config::core::v3::data_source::Specifier;
use api::envoy::extensions::filters::http::basic_auth::v3::BasicAuth;
use api::text::Problem;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use codec::headers::{HeaderName, names};
use prost::Message;
use proxy::filter_manager::{
    FilterContext, HeadersStatus, HttpFilter, HttpFilterFactory, LocalReply, Phases, WorkerContext,
};
use proxy::snapshot::registry::CompileContext;

/// Bytes of a SHA-1 digest.
const DIGEST: usize = 20;

/// The longest credential that is decoded, in bytes.
const MAX_CREDENTIAL: usize = 4096;

/// A name and the digest of its password.
type User = (Box<[u8]>, [u8; DIGEST]);

struct Settings {
    users: Vec<User>,
    header: HeaderName,
    /// The header is for this hop: `proxy-authorization`.
    is_proxy: bool,
    /// Where the user's name is put.
    forward_username: Option<HeaderName>,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BasicAuth({} users in {:?})", self.users.len(), self.header)
    }
}

#[derive(Debug)]
struct Factory(Arc<Settings>);

struct Authentication(Arc<Settings>);

/// Reads an encoded `BasicAuth`.
pub(super) fn compile(
    bytes: &[u8],
    _: &CompileContext<'_>,
) -> Result<Arc<dyn HttpFilterFactory>, Vec<Problem>> {
    let one = |path: &str, message: String| vec![Problem::new(path, message)];
    let config = BasicAuth::decode(bytes).map_err(|error| one("", error.to_string()))?;
    let text = match config.users.and_then(|users| users.specifier) {
        Some(Specifier::InlineString(text)) => text,
        Some(Specifier::InlineBytes(bytes)) => String::from_utf8(bytes)
            .map_err(|_| one("users.inline_bytes", "is no UTF-8".to_owned()))?,
        Some(Specifier::Filename(path)) => std::fs::read_to_string(&path)
            .map_err(|error| one("users.filename", format!("cannot read {path}: {error}")))?,
        _ => return Err(one("users", "needs inline_string, inline_bytes or filename".to_owned())),
    };
    let users = parse_users(&text).map_err(|message| one("users", message))?;
    let name = |path: &str, text: &str| match text {
        "" => Ok(None),
        text => HeaderName::parse(text).map(Some).map_err(|error| one(path, error.to_string())),
    };
    let header = name("authentication_header", &config.authentication_header)?;
    let header = header.unwrap_or_else(|| HeaderName::from(names::AUTHORIZATION));
    Ok(Arc::new(Factory(Arc::new(Settings {
        users,
        is_proxy: header.as_str() == "proxy-authorization",
        header,
        forward_username: name("forward_username_header", &config.forward_username_header)?,
    }))))
}

/// Lines of `name:{SHA}digest`. Errors do not repeat what is secret.
fn parse_users(text: &str) -> Result<Vec<User>, String> {
    let mut users: Vec<User> = Vec::new();
    for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
        let wrong = |what: &str| format!("line {}: {what}", i + 1);
        let (name, hash) =
            line.split_once(':').ok_or_else(|| wrong("is not `name:{SHA}digest`"))?;
        let hash =
            hash.strip_prefix("{SHA}").ok_or_else(|| wrong("only {SHA} digests are supported"))?;
        let digest = STANDARD.decode(hash).ok().and_then(|bytes| bytes.try_into().ok());
        let digest = digest.ok_or_else(|| wrong("the digest is no SHA-1 in base64"))?;
        if name.is_empty() || users.iter().any(|(known, _)| **known == *name.as_bytes()) {
            return Err(wrong("the name is empty or there already"));
        }
        users.push((name.as_bytes().into(), digest));
    }
    if users.is_empty() { Err("there are no users".to_owned()) } else { Ok(users) }
}

impl Settings {
    /// The user whose credential `value` is, else what Envoy calls what is wrong with it, and says about it.
    fn user(&self, value: Option<&[u8]>) -> Result<&[u8], (&'static str, &'static str)> {
        const MISSING: &str = "User authentication failed. Missing username and password.";
        const FORMAT: &str = "User authentication failed. Invalid basic credential format.";
        const WRONG: &str = "User authentication failed. Invalid username/password combination.";
        let value = value.ok_or(("no_credential_for_basic_auth", MISSING))?;
        let malformed = ("invalid_format_for_basic_auth", FORMAT);
        let (scheme, encoded) = value.split_at_checked(6).ok_or(malformed)?;
        if !scheme.eq_ignore_ascii_case(b"basic ") || encoded.len() > MAX_CREDENTIAL {
            return Err(malformed);
        }
        let decoded = STANDARD.decode(encoded.trim_ascii()).map_err(|_| malformed)?;
        let colon = decoded.iter().position(|byte| *byte == b':').ok_or(malformed)?;
        let given = digest(&SHA1_FOR_LEGACY_USE_ONLY, &decoded[colon + 1..]);
        let found = self.users.iter().find(|(name, _)| **name == decoded[..colon]);
        match found {
            Some((name, known)) if verify_slices_are_equal(known, given.as_ref()).is_ok() => {
                Ok(name)
            }
            _ => Err(("invalid_credential_for_basic_auth", WRONG)),
        }
    }

    fn challenge(&self, cx: &mut FilterContext<'_>, details: &'static str, body: &'static str) {
        let realm = String::from_utf8_lossy(cx.request.authority()).replace(['"', '\\'], "");
        let name = if self.is_proxy { "proxy-authenticate" } else { "www-authenticate" };
        cx.send_local_reply(LocalReply {
            status: if self.is_proxy { 407 } else { 401 },
            body: body.into(),
            headers: vec![(name.into(), format!("Basic realm=\"http://{realm}\"").into())],
            details,
            ..LocalReply::default()
        });
    }
}

impl HttpFilterFactory for Factory {
    fn create(&self, _: &WorkerContext) -> Box<dyn HttpFilter> {
        Box::new(Authentication(Arc::clone(&self.0)))
    }

    fn phases(&self) -> Phases {
        Phases { decode_headers: true, ..Phases::default() }
    }
}

impl HttpFilter for Authentication {
    fn decode_headers(&mut self, cx: &mut FilterContext<'_>, _: bool) -> HeadersStatus {
        match self.0.user(cx.request.get(&self.0.header)) {
            Ok(user) => {
                if self.0.is_proxy {
                    cx.request.fields.remove(&self.0.header);
                }
                if let Some(name) = &self.0.forward_username {
                    cx.request.fields.set(name, user);
                }
                HeadersStatus::Continue
            }
            Err((details, body)) => {
                self.0.challenge(cx, details, body);
                HeadersStatus::StopIteration
            }
        }
    }

    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `htpasswd -nbs alice secret`.
    const ALICE: &str = "alice:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=";

    fn settings(users: &str) -> Settings {
        Settings {
            users: parse_users(users).unwrap(),
            header: HeaderName::from(names::AUTHORIZATION),
            is_proxy: false,
            forward_username: None,
        }
    }

    #[test]
    fn credentials_are_checked() {
        let settings = settings(ALICE);
        let of = |credential: &str| format!("Basic {}", STANDARD.encode(credential));
        let table = [
            (Some(of("alice:secret")), Ok(b"alice".as_slice())),
            (Some(of("alice:secret").replace("Basic", "bAsIc")), Ok(b"alice")),
            (Some(of("alice:wrong")), Err("invalid_credential_for_basic_auth")),
            (Some(of("bob:secret")), Err("invalid_credential_for_basic_auth")),
            (Some(of("alice")), Err("invalid_format_for_basic_auth")),
            (Some("Bearer x".to_owned()), Err("invalid_format_for_basic_auth")),
            (Some("Basic %%%".to_owned()), Err("invalid_format_for_basic_auth")),
            (Some("B".to_owned()), Err("invalid_format_for_basic_auth")),
            (None, Err("no_credential_for_basic_auth")),
        ];
        for (value, expected) in table {
            let found =
                settings.user(value.as_deref().map(str::as_bytes)).map_err(|(details, _)| details);
            assert_eq!(found, expected, "{value:?}");
        }
    }

    #[test]
    fn files_of_users_are_refused_without_repeating_them() {
        let table = [
            ("", "there are no users"),
            ("alice", "line 1: is not `name:{SHA}digest`"),
            ("alice:$apr1$x", "line 1: only {SHA} digests are supported"),
            ("alice:{SHA}eA==", "line 1: the digest is no SHA-1 in base64"),
            (":{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", "line 1: the name is empty or there already"),
        ];
        for (text, expected) in table {
            assert_eq!(parse_users(text).unwrap_err(), expected);
        }
        assert!(parse_users(&format!("{ALICE}\n{ALICE}\n")).is_err());
        assert_eq!(parse_users(&format!("{ALICE}\n\n")).unwrap().len(), 1);
    }
}
