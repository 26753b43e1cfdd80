//! Requests of HTTP/2 that are malformed or merely odd, over real sockets: the same status, reset or end of the connection from
//! both proxies, or another one that `docs/compat/http2.md` gives the reason for; and the worker serves the next client.

use anyhow::{Context, Result};
use e2e::{Act, Engine, Proxy, Upstream, binaries};

use crate::bootstrap::http_proxy_with;
use crate::h2_frames::Told::{self, Closed, GoAway, Nothing, Reset, Status};
use crate::h2_frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PREFACE, PRIORITY,
    Peer, RST_STREAM, SETTINGS, WINDOW_UPDATE, block, field, frame, get, post, settings,
    window_update,
};

/// A connection that is broken is closed soon, so that what is told by the close is told soon.
const MANAGER: &str = "codec_type: AUTO\ndelayed_close_timeout: 0.05s";

const PROTOCOL: u32 = 1;
const INTERNAL: u32 = 2;
const FLOW_CONTROL: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE: u32 = 6;
const COMPRESSION: u32 = 9;

struct Input {
    name: &'static str,
    /// What follows the preface and SETTINGS.
    bytes: Vec<u8>,
    /// What Outrigger says.
    ours: Told,
    /// What Envoy says where that differs, and the words of the compatibility page that say why.
    envoys: Option<(Told, &'static str)>,
}

fn same(name: &'static str, bytes: Vec<u8>, told: Told) -> Input {
    Input { name, bytes, ours: told, envoys: None }
}

fn differs(
    name: &'static str,
    reason: &'static str,
    bytes: Vec<u8>,
    ours: Told,
    envoys: Told,
) -> Input {
    Input { name, bytes, ours, envoys: Some((envoys, reason)) }
}

/// A request without a body whose block is `fields`.
fn request(fields: &[(&str, &str)]) -> Vec<u8> {
    request_of_bytes(&fields.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect::<Vec<_>>())
}

fn request_of_bytes(fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    let block: Vec<u8> = fields.iter().flat_map(|(name, value)| field(name, value)).collect();
    frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)
}

/// A GET with one more field.
fn with(name: &[u8], value: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, 1, &[block("GET", "/"), field(name, value)].concat())
}

/// A GET with one of its pseudo fields replaced, or left out where the value is `None`.
fn but(name: &str, value: Option<&[u8]>) -> Vec<u8> {
    let fields = [
        (&b":method"[..], &b"GET"[..]),
        (b":scheme", b"http"),
        (b":authority", b"a"),
        (b":path", b"/"),
    ];
    let fields = fields.into_iter().filter_map(|(known, usual)| match known == name.as_bytes() {
        true => Some((known, value?)),
        false => Some((known, usual)),
    });
    request_of_bytes(&fields.collect::<Vec<_>>())
}

/// A POST that says its body is so long, and these DATA frames.
fn post_of(length: &str, body: &[u8], end: u8) -> Vec<u8> {
    let head = [block("POST", "/"), field(b"content-length", length.as_bytes())].concat();
    [frame(HEADERS, END_HEADERS, 1, &head), frame(DATA, end, 1, body)].concat()
}

fn post_with_trailers(trailers: &[u8], flags: u8) -> Vec<u8> {
    [post(1, "/"), frame(DATA, 0, 1, b"abc"), frame(HEADERS, flags, 1, trailers)].concat()
}

fn inputs() -> Vec<Input> {
    [messages(), targets(), lengths(), streams(), connections(), compression()]
        .into_iter()
        .flatten()
        .collect()
}

fn messages() -> Vec<Input> {
    let many: Vec<u8> = (0..101).flat_map(|at| field(format!("x-{at}").as_bytes(), b"1")).collect();
    vec![
        same("a plain request", get(1, "/"), Status(200)),
        same("a name in upper case", with(b"X-Foo", b"1"), GoAway(PROTOCOL)),
        same("an empty name", with(b"", b"1"), GoAway(PROTOCOL)),
        same("a blank in a name", with(b"a b", b"1"), GoAway(PROTOCOL)),
        same("a byte above ASCII in a name", with(b"x-\xe9", b"1"), GoAway(PROTOCOL)),
        same("an underscore in a name", with(b"x_y", b"1"), Status(200)),
        same("a NUL in a value", with(b"x", b"a\0b"), GoAway(PROTOCOL)),
        same("a line break in a value", with(b"x", b"a\r\ny: b"), GoAway(PROTOCOL)),
        same("a bare CR in a value", with(b"x", b"a\rb"), GoAway(PROTOCOL)),
        same("a control byte in a value", with(b"x", b"a\x01b"), GoAway(PROTOCOL)),
        same("DEL in a value", with(b"x", b"a\x7fb"), GoAway(PROTOCOL)),
        same("a byte above ASCII in a value", with(b"x", b"\xe9"), Status(200)),
        same("blanks around a value", with(b"x", b" a "), Status(200)),
        same("connection", with(b"connection", b"close"), GoAway(PROTOCOL)),
        same("keep-alive", with(b"keep-alive", b"1"), GoAway(PROTOCOL)),
        same("proxy-connection", with(b"proxy-connection", b"close"), GoAway(PROTOCOL)),
        same("transfer-encoding", with(b"transfer-encoding", b"chunked"), GoAway(PROTOCOL)),
        same("upgrade", with(b"upgrade", b"websocket"), GoAway(PROTOCOL)),
        same("te: trailers", with(b"te", b"trailers"), Status(200)),
        same("te: gzip", with(b"te", b"gzip"), GoAway(PROTOCOL)),
        same("an unknown pseudo field", with(b":foo", b"1"), GoAway(PROTOCOL)),
        same("a pseudo field of responses", with(b":status", b"200"), GoAway(PROTOCOL)),
        same(
            "a pseudo field after a field",
            request(&[
                (":method", "GET"),
                (":scheme", "http"),
                ("x", "y"),
                (":path", "/"),
                (":authority", "a"),
            ]),
            GoAway(PROTOCOL),
        ),
        same("a pseudo field twice", with(b":path", b"/"), GoAway(PROTOCOL)),
        same(
            "crumbs of cookies",
            {
                let crumbs = [field(b"cookie", b"a=1"), field(b"cookie", b"b=2")].concat();
                frame(HEADERS, END_HEADERS | END_STREAM, 1, &[block("GET", "/"), crumbs].concat())
            },
            Status(200),
        ),
        same(
            "101 fields",
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &[block("GET", "/"), many].concat()),
            Reset(INTERNAL),
        ),
        same(
            "a head of 62 KiB",
            {
                let fillers: Vec<u8> = (0..4).flat_map(|_| field(b"x", &[b'x'; 15_500])).collect();
                in_frames(&[block("GET", "/"), fillers].concat())
            },
            Reset(INTERNAL),
        ),
        same(
            "trailers",
            post_with_trailers(&field(b"x", b"y"), END_HEADERS | END_STREAM),
            Status(200),
        ),
        same(
            "trailers that do not end the stream",
            post_with_trailers(&field(b"x", b"y"), END_HEADERS),
            GoAway(PROTOCOL),
        ),
        same(
            "a pseudo field in trailers",
            post_with_trailers(&field(b":path", b"/"), END_HEADERS | END_STREAM),
            GoAway(PROTOCOL),
        ),
        differs(
            "a length in trailers",
            "as trailers",
            post_with_trailers(&field(b"content-length", b"3"), END_HEADERS | END_STREAM),
            GoAway(PROTOCOL),
            Status(200),
        ),
    ]
}

/// HEADERS and as many CONTINUATION frames as the block needs.
fn in_frames(block: &[u8]) -> Vec<u8> {
    let mut parts = block.chunks(16_000).peekable();
    let mut out = Vec::new();
    while let Some(part) = parts.next() {
        let (kind, first) = if out.is_empty() { (HEADERS, END_STREAM) } else { (CONTINUATION, 0) };
        let last = if parts.peek().is_none() { END_HEADERS } else { 0 };
        out.extend(frame(kind, first | last, 1, part));
    }
    out
}

fn targets() -> Vec<Input> {
    vec![
        same("no method", but(":method", None), GoAway(PROTOCOL)),
        same("no scheme", but(":scheme", None), GoAway(PROTOCOL)),
        same("no path", but(":path", None), GoAway(PROTOCOL)),
        differs(
            "neither authority nor host",
            "no authority",
            but(":authority", None),
            Status(400),
            Closed,
        ),
        differs(
            "an empty authority",
            "no authority",
            but(":authority", Some(b"")),
            Status(400),
            Closed,
        ),
        same("an empty method", but(":method", Some(b"")), GoAway(PROTOCOL)),
        same("a blank in the method", but(":method", Some(b"G T")), GoAway(PROTOCOL)),
        differs(
            "a method in lower case",
            "a method in another case",
            but(":method", Some(b"get")),
            GoAway(PROTOCOL),
            Status(200),
        ),
        same("a method of one's own", but(":method", Some(b"FOO")), Status(200)),
        same("an empty path", but(":path", Some(b"")), GoAway(PROTOCOL)),
        same("a relative path", but(":path", Some(b"a")), GoAway(PROTOCOL)),
        same("a blank in the path", but(":path", Some(b"/a b")), GoAway(PROTOCOL)),
        same("a line break in the path", but(":path", Some(b"/a\r\nx: y")), GoAway(PROTOCOL)),
        differs(
            "a byte above ASCII in the path",
            "above ASCII in `:path`",
            but(":path", Some(b"/\xe9")),
            GoAway(PROTOCOL),
            Status(200),
        ),
        same("a fragment", but(":path", Some(b"/a#b")), Status(400)),
        same("an absolute target as path", but(":path", Some(b"http://a/")), GoAway(PROTOCOL)),
        same("* with GET", but(":path", Some(b"*")), GoAway(PROTOCOL)),
        same(
            "OPTIONS *",
            request(&[
                (":method", "OPTIONS"),
                (":scheme", "http"),
                (":authority", "a"),
                (":path", "*"),
            ]),
            Status(404),
        ),
        same("scheme ftp", but(":scheme", Some(b"ftp")), Status(200)),
        same("a scheme in upper case", but(":scheme", Some(b"HTTP")), Status(200)),
        same("https without TLS", but(":scheme", Some(b"https")), Status(200)),
        same("a scheme that is none", but(":scheme", Some(b"1:")), GoAway(PROTOCOL)),
        same("a user in the authority", but(":authority", Some(b"u@a")), GoAway(PROTOCOL)),
        same("a slash in the authority", but(":authority", Some(b"a/b")), GoAway(PROTOCOL)),
        same("a blank in the authority", but(":authority", Some(b"a b")), GoAway(PROTOCOL)),
        same(
            "host instead of authority",
            request(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), ("host", "a")]),
            Status(200),
        ),
        same("the authority again as host", with(b"host", b"a"), Status(200)),
        differs(
            "another host than the authority",
            "`host` that contradicts",
            with(b"host", b"b"),
            GoAway(PROTOCOL),
            Status(200),
        ),
        same(
            "two hosts",
            request(&[
                (":method", "GET"),
                (":scheme", "http"),
                (":path", "/"),
                ("host", "a"),
                ("host", "b"),
            ]),
            GoAway(PROTOCOL),
        ),
        same(
            "CONNECT that no route allows",
            request(&[(":method", "CONNECT"), (":authority", "a:1")]),
            Status(404),
        ),
        same("CONNECT without authority", request(&[(":method", "CONNECT")]), GoAway(PROTOCOL)),
        same("CONNECT with a path", but(":method", Some(b"CONNECT")), GoAway(PROTOCOL)),
        same(
            "extended CONNECT that is not enabled",
            request(&[
                (":method", "CONNECT"),
                (":protocol", "websocket"),
                (":scheme", "http"),
                (":authority", "a"),
                (":path", "/"),
            ]),
            GoAway(PROTOCOL),
        ),
        same(":protocol with GET", with(b":protocol", b"websocket"), GoAway(PROTOCOL)),
    ]
}

fn lengths() -> Vec<Input> {
    let two = [block("POST", "/"), field(b"content-length", b"3"), field(b"content-length", b"3")]
        .concat();
    vec![
        same("a body of its length", post_of("3", b"abc", END_STREAM), Status(200)),
        same("less body than said", post_of("4", b"abc", END_STREAM), Reset(PROTOCOL)),
        same("more body than said", post_of("2", b"abc", END_STREAM), Reset(PROTOCOL)),
        same("a length and no body", with(b"content-length", b"3"), GoAway(PROTOCOL)),
        same("a length of 0 and no body", with(b"content-length", b"0"), Status(200)),
        same(
            "the same length twice",
            [frame(HEADERS, END_HEADERS, 1, &two), frame(DATA, END_STREAM, 1, b"abc")].concat(),
            GoAway(PROTOCOL),
        ),
        same("a length that is none", post_of("3x", b"abc", END_STREAM), GoAway(PROTOCOL)),
        same("a length with a sign", post_of("+3", b"abc", END_STREAM), GoAway(PROTOCOL)),
        same("an empty length", post_of("", b"abc", END_STREAM), GoAway(PROTOCOL)),
    ]
}

fn streams() -> Vec<Input> {
    let stalled = |more: Vec<u8>| [get(1, "/stall"), more].concat();
    let begun = |more: Vec<u8>| [post(1, "/stall"), more].concat();
    vec![
        same("DATA on no stream", frame(DATA, 0, 0, b"abc"), GoAway(PROTOCOL)),
        same("DATA on a stream that has not begun", frame(DATA, 0, 1, b"abc"), GoAway(PROTOCOL)),
        differs(
            "DATA after the end",
            "after the end of a request",
            stalled(frame(DATA, END_STREAM, 1, b"abc")),
            Reset(STREAM_CLOSED),
            GoAway(STREAM_CLOSED),
        ),
        same(
            "DATA with more padding than frame",
            begun(frame(DATA, 8, 1, b"\x05ab")),
            GoAway(PROTOCOL),
        ),
        same(
            "HEADERS on no stream",
            frame(HEADERS, END_HEADERS | END_STREAM, 0, &block("GET", "/")),
            GoAway(PROTOCOL),
        ),
        same("a stream of an even number", get(2, "/"), GoAway(PROTOCOL)),
        differs(
            "a stream of a lower number",
            "a lower number",
            [get(5, "/stall"), get(3, "/stall")].concat(),
            GoAway(PROTOCOL),
            Nothing,
        ),
        differs(
            "HEADERS after the end",
            "after the end of a request",
            stalled(get(1, "/")),
            Reset(STREAM_CLOSED),
            Closed,
        ),
        same(
            "a stream that depends on itself",
            frame(HEADERS, 0x25, 1, &[&1u32.to_be_bytes()[..], &[16], &block("GET", "/")].concat()),
            GoAway(PROTOCOL),
        ),
        same("PRIORITY of a wrong length", frame(PRIORITY, 0, 1, &[0; 4]), GoAway(FRAME_SIZE)),
        differs(
            "PRIORITY on no stream",
            "`PRIORITY` on stream 0",
            frame(PRIORITY, 0, 0, &[0; 5]),
            GoAway(PROTOCOL),
            Nothing,
        ),
        same("RST_STREAM on no stream", frame(RST_STREAM, 0, 0, &[0; 4]), GoAway(PROTOCOL)),
        same(
            "RST_STREAM of a stream that has not begun",
            frame(RST_STREAM, 0, 1, &[0; 4]),
            GoAway(PROTOCOL),
        ),
        same(
            "RST_STREAM of a wrong length",
            begun(frame(RST_STREAM, 0, 1, &[0; 3])),
            GoAway(FRAME_SIZE),
        ),
        differs(
            "a window opened by nothing",
            "a stream's window",
            begun(window_update(1, 0)),
            Reset(PROTOCOL),
            Closed,
        ),
        differs(
            "a window beyond its limit",
            "a stream's window",
            begun(window_update(1, 0x7fff_ffff)),
            Reset(FLOW_CONTROL),
            Closed,
        ),
        same("a window of a stream that has not begun", window_update(1, 1), GoAway(PROTOCOL)),
        same(
            "WINDOW_UPDATE of a wrong length",
            frame(WINDOW_UPDATE, 0, 0, &[0; 3]),
            GoAway(FRAME_SIZE),
        ),
        same(
            "CONTINUATION of nothing",
            frame(CONTINUATION, END_HEADERS, 1, &block("GET", "/")),
            GoAway(PROTOCOL),
        ),
        same(
            "a frame within a block",
            [frame(HEADERS, END_STREAM, 1, &block("GET", "/")), frame(PING, 0, 0, &[0; 8])]
                .concat(),
            GoAway(PROTOCOL),
        ),
        same(
            "CONTINUATION of another stream",
            [
                frame(HEADERS, END_STREAM, 1, &block("GET", "/")),
                frame(CONTINUATION, END_HEADERS, 3, &[]),
            ]
            .concat(),
            GoAway(PROTOCOL),
        ),
        same("PUSH_PROMISE", begun(frame(5, END_HEADERS, 1, &[0, 0, 0, 2])), GoAway(PROTOCOL)),
        same("an unknown frame", [frame(0x4d, 0, 1, b"abc"), get(1, "/")].concat(), Status(200)),
        same(
            "a frame longer than allowed",
            begun(frame(DATA, 0, 1, &[0; 16_385])),
            GoAway(FRAME_SIZE),
        ),
    ]
}

fn connections() -> Vec<Input> {
    vec![
        same("SETTINGS of a wrong length", frame(SETTINGS, 0, 0, &[0; 5]), GoAway(FRAME_SIZE)),
        same("SETTINGS on a stream", frame(SETTINGS, 0, 1, &[]), GoAway(PROTOCOL)),
        same(
            "an acknowledgement with SETTINGS",
            frame(SETTINGS, ACK, 0, &[0; 6]),
            GoAway(FRAME_SIZE),
        ),
        same("ENABLE_PUSH of 2", settings(&[(2, 2)]), GoAway(PROTOCOL)),
        same(
            "INITIAL_WINDOW_SIZE beyond its limit",
            settings(&[(4, 0x8000_0000)]),
            GoAway(FLOW_CONTROL),
        ),
        same("MAX_FRAME_SIZE too small", settings(&[(5, 16_383)]), GoAway(PROTOCOL)),
        same("MAX_FRAME_SIZE too large", settings(&[(5, 1 << 24)]), GoAway(PROTOCOL)),
        same("an unknown setting", [settings(&[(0xff, 1)]), get(1, "/")].concat(), Status(200)),
        same("PING of a wrong length", frame(PING, 0, 0, &[0; 7]), GoAway(FRAME_SIZE)),
        same("PING on a stream", frame(PING, 0, 1, &[0; 8]), GoAway(PROTOCOL)),
        same("GOAWAY on a stream", frame(GOAWAY, 0, 1, &[0; 8]), GoAway(PROTOCOL)),
        same("the connection's window opened by nothing", window_update(0, 0), GoAway(PROTOCOL)),
        same(
            "the connection's window beyond its limit",
            window_update(0, 0x7fff_ffff),
            GoAway(FLOW_CONTROL),
        ),
    ]
}

fn compression() -> Vec<Input> {
    let head = |more: &[u8]| {
        let block = [block("GET", "/"), more.to_vec()].concat();
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)
    };
    vec![
        same("index 0", head(&[0x80]), GoAway(COMPRESSION)),
        same("an index of no entry", head(&[0xbe]), GoAway(COMPRESSION)),
        same("a block that is cut off", head(&[0x40, 5, b'a']), GoAway(COMPRESSION)),
        same(
            "a table larger than allowed",
            frame(
                HEADERS,
                END_HEADERS | END_STREAM,
                1,
                &[&[0x3f, 0xe2, 0x1f][..], &block("GET", "/")].concat(),
            ),
            GoAway(COMPRESSION),
        ),
        same("a size after a field", head(&[0x20]), GoAway(COMPRESSION)),
        same(
            "padding of zeros in a Huffman string",
            head(&[0x00, 1, b'x', 0x81, 0x00]),
            GoAway(COMPRESSION),
        ),
        same(
            "EOS in a Huffman string",
            head(&[0x00, 1, b'x', 0x84, 0xff, 0xff, 0xff, 0xff]),
            GoAway(COMPRESSION),
        ),
    ]
}

#[test]
fn odd_requests_are_answered_as_envoy_answers_them() -> Result<()> {
    let mut wrong = Vec::new();
    for engine in Engine::available() {
        let upstream = Upstream::doing(|request| match request.target() {
            "/stall" => Act::Stall,
            _ => Act::Answer(200, String::new()),
        })?;
        let bootstrap = http_proxy_with(upstream.port(), "timeout: 15s", MANAGER);
        let proxy = Proxy::start_engine(engine, &bootstrap)?;
        for input in inputs() {
            let expected = match engine {
                Engine::Outrigger => input.ours,
                Engine::Envoy => input.envoys.map_or(input.ours, |(told, _)| told),
            };
            let told = tell(&proxy, &input.bytes, expected)
                .with_context(|| format!("{engine:?}: {}", input.name))?;
            // What breaks a connection ends it for both; Envoy mostly does not say so before.
            let ends = engine == Engine::Envoy && told == Closed && matches!(expected, GoAway(_));
            if told != expected && !ends {
                let name = input.name;
                wrong.push(format!("{engine:?}, {name}: {told:?}, not {expected:?}"));
            }
            let mut next = Peer::open(proxy.listener("entrance")?)?;
            next.send(&get(1, "/next"))?;
            assert_eq!(next.told(1)?, Status(200), "{engine:?} after {}", input.name);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// What begins with something else than the preface is HTTP/1 to a listener that looks, and nobody's to one that does not.
#[test]
fn connections_that_do_not_begin_as_http2_are_ended() -> Result<()> {
    for engine in Engine::available() {
        let upstream = Upstream::saying("")?;
        let bootstrap = http_proxy_with(upstream.port(), "timeout: 15s", "codec_type: HTTP2");
        let proxy = Proxy::start_engine(engine, &bootstrap)?;
        for bytes in [
            b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_vec(),
            [PREFACE, &get(1, "/")].concat(),
            [PREFACE, &frame(PING, 0, 0, &[0; 8])].concat(),
        ] {
            let mut peer = Peer::open_silent(proxy.listener("entrance")?)?;
            peer.send(&bytes)?;
            let told = peer.end()?;
            assert!(matches!(told, GoAway(PROTOCOL | INTERNAL) | Closed), "{engine:?}: {told:?}");
        }
    }
    Ok(())
}

#[test]
fn what_differs_from_envoy_is_documented() -> Result<()> {
    let page = std::fs::read_to_string(binaries::root().join("docs/compat/http2.md"))?;
    for input in inputs() {
        if let Some((_, reason)) = input.envoys {
            let name = input.name;
            assert!(
                page.contains(reason),
                "docs/compat/http2.md does not say why: {name} ({reason})"
            );
        }
    }
    Ok(())
}

fn tell(proxy: &Proxy, bytes: &[u8], expected: Told) -> Result<Told> {
    let mut peer = Peer::open(proxy.listener("entrance")?)?;
    peer.send(bytes).ok();
    if expected == Nothing { peer.told_soon(1) } else { peer.told(1) }
}
