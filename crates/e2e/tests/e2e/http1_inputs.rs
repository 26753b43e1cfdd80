//! Bytes that smuggle, lie or are merely odd, over real sockets: the same status from both proxies, or a stricter one that
//! `docs/compat/http1.md` gives the reason for; and the worker serves the next client as if nothing had been.

use anyhow::{Context, Result};
use e2e::{Act, Connection, Engine, Proxy, Upstream, binaries};

use crate::bootstrap::http_proxy;

/// What a client is told: a status, or a close without one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Told {
    Status(u16),
    Closed,
}
use Told::{Closed, Status};

struct Input {
    name: &'static str,
    bytes: &'static str,
    /// What Outrigger says.
    ours: Told,
    /// What Envoy says where that differs, and the words of the compatibility page that say why.
    envoys: Option<(Told, &'static str)>,
}

const fn same(name: &'static str, bytes: &'static str, told: Told) -> Input {
    Input { name, bytes, ours: told, envoys: None }
}

const fn stricter(
    name: &'static str,
    reason: &'static str,
    bytes: &'static str,
    ours: Told,
    envoys: Told,
) -> Input {
    Input { name, bytes, ours, envoys: Some((envoys, reason)) }
}

const INPUTS: &[Input] = &[
    same("a plain request", "GET / HTTP/1.1\r\nhost: a\r\n\r\n", Status(200)),
    same("an absolute target", "GET http://b/x HTTP/1.1\r\nhost: a\r\n\r\n", Status(200)),
    same(
        "a body with its length",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc",
        Status(200),
    ),
    same(
        "chunks",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        Status(200),
    ),
    same(
        "chunks with an extension",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\n\r\n",
        Status(200),
    ),
    same(
        "chunks with trailers",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: y\r\n\r\n",
        Status(200),
    ),
    same("no host", "GET / HTTP/1.1\r\n\r\n", Status(400)),
    same("HTTP/1.0", "GET / HTTP/1.0\r\nhost: a\r\n\r\n", Status(426)),
    same("HTTP/2 in words", "GET / HTTP/2.0\r\nhost: a\r\n\r\n", Status(426)),
    same(
        "length and chunks",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        Status(400),
    ),
    same(
        "two lengths",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabc",
        Status(400),
    ),
    same(
        "a length with a sign",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +3\r\n\r\nabc",
        Status(400),
    ),
    same(
        "a hexadecimal length",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0x3\r\n\r\nabc",
        Status(400),
    ),
    same(
        "a negative length",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n",
        Status(400),
    ),
    same(
        "a length beyond any",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999999999999999\r\n\r\n",
        Status(400),
    ),
    same(
        "an unknown coding",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        Status(501),
    ),
    same(
        "a coding before chunked",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        Status(501),
    ),
    stricter(
        "a bare CR in a value",
        "a bare CR within a value",
        "GET / HTTP/1.1\r\nhost: a\r\nx: a\rb\r\n\r\n",
        Status(400),
        Status(200),
    ),
    same("a NUL in a value", "GET / HTTP/1.1\r\nhost: a\r\nx: a\0b\r\n\r\n", Status(400)),
    same("a blank before the colon", "GET / HTTP/1.1\r\nhost: a\r\nx : b\r\n\r\n", Status(400)),
    same("a name that is none", "GET / HTTP/1.1\r\nhost: a\r\nx(y): b\r\n\r\n", Status(400)),
    same("a line without a colon", "GET / HTTP/1.1\r\nhost: a\r\nnonsense\r\n\r\n", Status(400)),
    same(
        "a chunk size that is none",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
        Status(400),
    ),
    stricter(
        "a chunk longer than it says",
        "a chunk longer than its size",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n",
        Status(400),
        Status(200),
    ),
    stricter(
        "two hosts",
        "two `Host` fields",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        Status(400),
        Status(200),
    ),
    stricter(
        "a continued line",
        "obs-fold",
        "GET / HTTP/1.1\r\nhost: a\r\nx: a\r\n b\r\n\r\n",
        Status(400),
        Status(200),
    ),
    stricter("bare LF", "bare LF", "GET / HTTP/1.1\nhost: a\n\n", Status(400), Status(200)),
    same(
        "bare LF in chunks",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\nabc\n0\n\n",
        Status(400),
    ),
    stricter(
        "chunks in HTTP/1.0",
        "HTTP/1.0 message",
        "POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        Status(400),
        Status(426),
    ),
    stricter(
        "a user in the target",
        "`user@` in an absolute-form target",
        "GET http://u@b/ HTTP/1.1\r\nhost: b\r\n\r\n",
        Status(400),
        Status(200),
    ),
    stricter(
        "a length as trailer",
        "as trailers",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\ncontent-length: 3\r\n\r\n",
        Status(400),
        Status(200),
    ),
    stricter(
        "a blank before a chunk's extension",
        "space between a chunk size and its extension",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3 ;x\r\nabc\r\n0\r\n\r\n",
        Status(400),
        Status(200),
    ),
    same(
        "an upgrade to h2c",
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
        Status(200),
    ),
    same(
        "an upgrade that no route allows",
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        Status(403),
    ),
    same(
        "CONNECT that no route allows",
        "CONNECT b:80 HTTP/1.1\r\nhost: b:80\r\n\r\n",
        Status(404),
    ),
    same(
        "CONNECT with a body",
        "CONNECT b:80 HTTP/1.1\r\nhost: b:80\r\ncontent-length: 3\r\n\r\nabc",
        Status(400),
    ),
    same("empty lines before a request", "\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n", Status(200)),
    same("a fragment", "GET /a#b HTTP/1.1\r\nhost: a\r\n\r\n", Status(400)),
    same(
        "the same length twice",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\nabc",
        Status(400),
    ),
    same(
        "a list of lengths",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3, 3\r\n\r\nabc",
        Status(400),
    ),
    same("an empty length", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length:\r\n\r\n", Status(400)),
    same("an empty name", "GET / HTTP/1.1\r\nhost: a\r\n: b\r\n\r\n", Status(400)),
    same("a NUL in the target", "GET /a\0b HTTP/1.1\r\nhost: a\r\n\r\n", Status(400)),
    same("a host with a slash", "GET / HTTP/1.1\r\nhost: a/b\r\n\r\n", Status(400)),
    same("a relative target", "GET a HTTP/1.1\r\nhost: a\r\n\r\n", Status(400)),
    same("a target of another scheme", "GET ftp://a/ HTTP/1.1\r\nhost: a\r\n\r\n", Status(400)),
    same("not HTTP", "\x16\x03\x01\x02\0\x01\0\x01\r\n\r\n", Status(400)),
    same("a method that is none", "G@T / HTTP/1.1\r\nhost: a\r\n\r\n", Status(400)),
    same("blanks in the target", "GET /a b HTTP/1.1\r\nhost: a\r\n\r\n", Status(400)),
];

#[test]
fn odd_bytes_are_answered_as_envoy_answers_them() -> Result<()> {
    for engine in Engine::available() {
        let upstream = Upstream::doing(|_| Act::Answer(200, String::new()))?;
        let proxy = Proxy::start_engine(engine, &http_proxy(upstream.port()))?;
        let mut wrong = Vec::new();
        for input in INPUTS {
            let told =
                tell(&proxy, input.bytes).with_context(|| format!("{engine:?}: {}", input.name))?;
            let expected = match engine {
                Engine::Outrigger => input.ours,
                Engine::Envoy => input.envoys.map_or(input.ours, |(told, _)| told),
            };
            if told != expected {
                wrong.push(format!("{}: {told:?}, not {expected:?}", input.name));
            }
            let next = proxy.connect("entrance")?.get("a", "/next")?;
            assert_eq!(next.status, 200, "{engine:?} after {}", input.name);
        }
        assert!(wrong.is_empty(), "{engine:?}:\n{}", wrong.join("\n"));
    }
    Ok(())
}

#[test]
fn what_is_stricter_than_envoy_is_documented() -> Result<()> {
    let page = std::fs::read_to_string(binaries::root().join("docs/compat/http1.md"))?;
    for input in INPUTS {
        if let Some((_, reason)) = input.envoys {
            assert!(
                page.contains(reason),
                "docs/compat/http1.md does not say why: {} ({reason})",
                input.name
            );
        }
    }
    Ok(())
}

fn tell(proxy: &Proxy, bytes: &str) -> Result<Told> {
    let mut connection: Connection = proxy.connect("entrance")?;
    connection.send(bytes)?;
    match connection.head() {
        Ok((status, _)) => Ok(Status(status)),
        Err(error) if error.to_string().starts_with("closed before") => Ok(Closed),
        Err(error) => Err(error),
    }
}
