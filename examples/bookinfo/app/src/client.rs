//! Calls to the other services: by their names, through the HTTP proxy if there is one.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::server::Request;

const PATIENCE: Duration = Duration::from_secs(10);

/// What a service hands on from the request it serves to the requests it makes, so that one trace shows them all
/// and routes may look at the user.
const HANDED_ON: [&str; 15] = [
    "x-request-id",
    "traceparent",
    "tracestate",
    "baggage",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "x-ot-span-context",
    "x-cloud-trace-context",
    "sw8",
    "end-user",
    "user-agent",
];

/// A client of the other services.
pub struct Client {
    proxy: Option<Proxy>,
}

struct Proxy {
    address: String,
    /// The value of `proxy-authorization`.
    credential: Option<String>,
}

impl Client {
    /// `proxy` as in `HTTP_PROXY`; without one, services are called directly.
    pub fn through(proxy: Option<&str>) -> Result<Self> {
        let proxy = proxy.filter(|url| !url.is_empty()).map(Proxy::parse).transpose()?;
        Ok(Self { proxy })
    }

    /// Gets `http://{authority}{path}` on behalf of `request` and reads JSON.
    ///
    /// # Errors
    /// If the service cannot be reached, does not answer 200, or answers something else than JSON.
    pub fn get(&self, request: &Request, authority: &str, path: &str) -> Result<Value> {
        let (address, target) = match &self.proxy {
            Some(proxy) => (proxy.address.as_str(), format!("http://{authority}{path}")),
            None => (authority, path.to_owned()),
        };
        let mut head =
            format!("GET {target} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n");
        if let Some(credential) = self.proxy.as_ref().and_then(|proxy| proxy.credential.as_ref()) {
            head.push_str(&format!("proxy-authorization: {credential}\r\n"));
        }
        for name in HANDED_ON {
            if let Some(value) = request.header(name) {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        head.push_str("\r\n");
        let mut stream =
            TcpStream::connect(address).with_context(|| format!("connecting to {address}"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(head.as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        parse_answer(&answer).with_context(|| format!("http://{authority}{path}"))
    }
}

impl Proxy {
    fn parse(url: &str) -> Result<Self> {
        let rest = url.strip_prefix("http://").context("HTTP_PROXY does not begin with http://")?;
        let rest = rest.trim_end_matches('/');
        let Some((user, address)) = rest.rsplit_once('@') else {
            return Ok(Self { address: rest.to_owned(), credential: None });
        };
        let user: Vec<u8> = percent_encoding::percent_decode_str(user).collect();
        Ok(Self {
            address: address.to_owned(),
            credential: Some(format!("Basic {}", STANDARD.encode(user))),
        })
    }
}

fn parse_answer(answer: &[u8]) -> Result<Value> {
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").context("no complete answer")?;
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let status = head.split_whitespace().nth(1).unwrap_or_default();
    if status != "200" {
        bail!("answered {status}: {}", String::from_utf8_lossy(&answer[end + 4..]).trim());
    }
    let body = &answer[end + 4..];
    let body =
        if head.contains("transfer-encoding: chunked") { unchunk(body)? } else { body.to_vec() };
    serde_json::from_slice(&body).context("not JSON")
}

fn unchunk(mut rest: &[u8]) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|w| w == b"\r\n").context("a chunk without a size")?;
        let size = std::str::from_utf8(&rest[..line])?.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).context("a chunk's size")?;
        rest = &rest[line + 2..];
        if size == 0 {
            return Ok(body);
        }
        body.extend_from_slice(rest.get(..size).context("a chunk ends early")?);
        rest = rest.get(size + 2..).context("a chunk ends early")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_may_want_a_credential() {
        let proxy = Proxy::parse("http://app:a%2Fb@127.64.0.1:15007").expect("a proxy's URL");
        assert_eq!(proxy.address, "127.64.0.1:15007");
        assert_eq!(proxy.credential.as_deref(), Some("Basic YXBwOmEvYg=="));
        assert!(Proxy::parse("socks5://x:1").is_err());
    }

    #[test]
    fn answers_come_whole_or_in_chunks() {
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{\"a\r\n4\r\n\":1}\r\n0\r\n\r\n";
        assert_eq!(parse_answer(chunked).expect("JSON")["a"], 1);
        let refused =
            parse_answer(b"HTTP/1.1 503 x\r\n\r\nno healthy upstream").expect_err("a 503");
        assert!(refused.to_string().contains("503: no healthy upstream"));
    }
}
