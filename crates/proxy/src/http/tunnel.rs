//! Tunnels: CONNECT and upgrades, and how one version's words for them become the other's.
//!
//! Within the proxy an upgrade is what it is in HTTP/1.1: a GET with `upgrade`, answered by 101. HTTP/2 says the same as an
//! extended CONNECT with `:protocol`, answered by 200 (RFC 8441); it is translated where it comes in and where it goes out.
//! A WebSocket's key and accept exist in HTTP/1.1 alone, and are made here where the other side has none.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use codec::headers::{Method, RequestHead, ResponseHead, names};
use rand::Rng;
use smallvec::SmallVec;

const WEBSOCKET_KEY: &str = "sec-websocket-key";
const WEBSOCKET_ACCEPT: &str = "sec-websocket-accept";
/// RFC 6455 §1.3.
const WEBSOCKET_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Does the request ask for a tunnel: may what follows its head only be sent once the answer grants it?
pub fn asks_for_tunnel(request: &RequestHead) -> bool {
    request.is_upgrade || request.method_kind() == Method::Connect
}

/// The name by which `upgrade_configs` know what the request asks for; `None` for an ordinary request.
pub fn asked_for(request: &RequestHead) -> Option<&[u8]> {
    if request.is_upgrade {
        return Some(request.fields.get(names::UPGRADE).unwrap_or_default());
    }
    (request.method_kind() == Method::Connect).then_some(b"CONNECT")
}

/// Does the response grant the tunnel that the request asks for?
pub fn is_granted(request: &RequestHead, response: &ResponseHead) -> bool {
    if request.is_upgrade {
        return response.status == 101;
    }
    request.method_kind() == Method::Connect && matches!(response.status, 200..=299)
}

/// A request has come by HTTP/2: an extended CONNECT becomes an upgrade.
pub fn from_extended_connect(request: &mut RequestHead) {
    if request.protocol().is_empty() {
        return;
    }
    let protocol: SmallVec<[u8; 16]> = request.protocol().into();
    request.set_protocol(b"");
    request.set_method(b"GET");
    request.fields.set(names::UPGRADE, &protocol);
    request.is_upgrade = true;
}

/// An upgrade goes out by HTTP/2: `encode` sees it as an extended CONNECT.
pub fn as_extended_connect<T>(
    request: &mut RequestHead,
    encode: impl FnOnce(&RequestHead) -> T,
) -> T {
    let method: SmallVec<[u8; 16]> = request.method().into();
    let protocol: SmallVec<[u8; 16]> =
        request.fields.get(names::UPGRADE).unwrap_or_default().into();
    request.set_method(b"CONNECT");
    request.set_protocol(&protocol);
    request.is_upgrade = false;
    let result = encode(request);
    request.set_method(&method);
    request.set_protocol(b"");
    request.is_upgrade = true;
    result
}

/// An upgrade goes out by HTTP/1.1: a WebSocket needs a key, which HTTP/2 clients do not send.
pub fn ensure_websocket_key(request: &mut RequestHead, random: &mut impl Rng) {
    let is_websocket =
        asked_for(request).is_some_and(|protocol| protocol.eq_ignore_ascii_case(b"websocket"));
    if is_websocket && request.fields.get(WEBSOCKET_KEY).is_none() {
        let key: [u8; 16] = random.random();
        request.fields.set(WEBSOCKET_KEY, STANDARD.encode(key).as_bytes());
    }
}

/// A response has come by HTTP/2: the 200 that grants an extended CONNECT becomes a 101.
pub fn from_extended_response(request: &RequestHead, response: &mut ResponseHead) {
    if !request.is_upgrade || response.status != 200 {
        return;
    }
    response.status = 101;
    if let Some(protocol) = request.fields.get(names::UPGRADE) {
        response.fields.set(names::UPGRADE, protocol);
    }
    if response.fields.get(WEBSOCKET_ACCEPT).is_none()
        && let Some(key) = request.fields.get(WEBSOCKET_KEY)
    {
        response.fields.set(WEBSOCKET_ACCEPT, accept_of(key).as_bytes());
    }
}

/// A 101 goes out by HTTP/2: `encode` sees it as a 200.
pub fn as_extended_response<T>(
    response: &mut ResponseHead,
    encode: impl FnOnce(&ResponseHead) -> T,
) -> T {
    let status = response.status;
    if status == 101 {
        response.status = 200;
    }
    let result = encode(response);
    response.status = status;
    result
}

/// RFC 6455 §4.2.2.
fn accept_of(key: &[u8]) -> String {
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, WEBSOCKET_GUID].concat()))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    #[test]
    fn an_upgrade_is_an_extended_connect_and_back() {
        let mut request = RequestHead::new();
        request.set_method(b"CONNECT");
        request.set_path(b"/chat");
        request.set_protocol(b"websocket");
        from_extended_connect(&mut request);
        assert!(request.is_upgrade && asks_for_tunnel(&request));
        assert_eq!((request.method(), request.protocol()), (&b"GET"[..], &b""[..]));
        assert_eq!(asked_for(&request), Some(&b"websocket"[..]));
        as_extended_connect(&mut request, |request| {
            assert_eq!(request.method_kind(), Method::Connect);
            assert_eq!((request.protocol(), request.path()), (&b"websocket"[..], &b"/chat"[..]));
            assert!(!request.is_upgrade);
        });
        assert_eq!((request.method(), request.is_upgrade), (&b"GET"[..], true));
    }

    #[test]
    fn a_websocket_has_a_key_and_an_accept_where_http1_wants_them() {
        // The example of RFC 6455 §1.3.
        assert_eq!(accept_of(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let mut request = RequestHead::new();
        request.is_upgrade = true;
        request.fields.set(names::UPGRADE, b"websocket");
        ensure_websocket_key(&mut request, &mut SmallRng::seed_from_u64(1));
        let key = request.fields.get(WEBSOCKET_KEY).unwrap().to_vec();
        assert_eq!(STANDARD.decode(&key).unwrap().len(), 16);
        let mut response = ResponseHead::new(200);
        from_extended_response(&request, &mut response);
        assert!(is_granted(&request, &response));
        assert_eq!(response.get(WEBSOCKET_ACCEPT), Some(accept_of(&key).as_bytes()));
        as_extended_response(&mut response, |response| assert_eq!(response.status, 200));
        assert_eq!(response.status, 101);
    }
}
