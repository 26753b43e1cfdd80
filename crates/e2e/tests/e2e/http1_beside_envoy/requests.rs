//! The requests that are compared, and under which configurations.

/// One request, as it goes over the wire.
pub struct Request {
    pub configuration: &'static str,
    /// The request line, then the header lines, without what ends the head. Bytes beyond ASCII are Latin-1.
    pub line: String,
    pub headers: String,
}

impl Request {
    pub fn bytes(&self) -> Vec<u8> {
        let text = format!("{}\r\n{}\r\n", self.line, self.headers);
        text.chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?')).collect()
    }

    pub fn is_head(&self) -> bool {
        self.line.starts_with("HEAD ")
    }
}

const HOST: &str = "Host: a.com\r\n";

const ROUTED: &[&str] = &[
    "/header/path?q",
    "/query?a=1",
    "/query?a",
    "/query?b=2&a=2",
    "/query?a=2&a=1",
    "/query?a=%31",
    "/query#?a",
    "/query",
    "/separated/x",
    "/separated/x/",
    "/separated/xy",
    "/separated/x?y",
    "/cAsE",
    "/case/",
    "/regex/12",
    "/regex/12?x",
    "/regex/",
    "/word/a1",
    "/word/\u{c3}\u{a9}\u{d9}\u{a1}",
    "/redirect/https?x",
    "/redirect/port",
    "/redirect/host?x",
    "/redirect/path?x",
    "/redirect/query?x",
    "/redirect/strip?x",
    "/redirect/prefix/z?x",
    "/redirect/regex/x/x?x",
    "/redirect/scheme?x",
    "/rewrite/prefix/a?b",
    "/rewrite/prefix/",
    "/rewrite/exact?x",
    "/rewrite/whole/a/b?c",
    "/rewrite/regex/foo/v1?q",
    "/rewrite/empty",
    "/rewrite/host/literal",
    "/rewrite/forwarded/literal",
    "/rewrite/host/header",
    "/rewrite/host/regex/d.com/x",
    "/rewrite/auto",
    "/mutated?x",
    "/x?y",
    "/",
];

const HEADER_ROUTES: &[&str] = &[
    "exact",
    "joined",
    "inverted",
    "inverted-presence",
    "absent",
    "present-or-empty",
    "absent-or-empty",
    "empty",
    "inverted-or-empty",
    "range",
    "host",
];
const HEADER_VALUES: &[&str] =
    &["", "x: a\r\n", "x: b\r\n", "x: a\r\nx: b\r\n", "x: 5\r\n", "x: \r\n", "x: 5 5\r\n"];

const PATHS: &[&str] = &[
    "/xyz",
    "/x/y/z?q=/../%2e",
    "/a/b/../c",
    "/a/b/./c",
    "/a/b/../../../../c",
    "/a/..\\c",
    "/a\\b",
    "/%c0%af",
    "/%5c%25",
    "/a/b/%2E%2e/c",
    "/a/.%2e",
    "/a/b/..",
    "/a/.",
    "/..",
    "/.",
    "/a/%2F%2f/c",
    "/%61%7E%2D%5F",
    "/...",
    "/.a/..b/c..",
    "/a\"<>`{}",
    "/a^|[]!$&'()*+,;=:@",
    "/%zz/%4",
    "//a//../b",
    "/a;p/b",
    "/a%00b",
    "/a#f",
    "/a/..;/b",
    "/a/.;x",
    "/a//b?c//d",
    "/a%2Fb",
    "/a%2f..%5C%2Fb?%2f",
    "/a%5cb?c",
    "//",
    "/a///b///",
    "/%7f%20",
    "/a\u{7f}b",
    "/\u{c3}\u{a9}",
    "/a%2f%2e%2e%2fb",
    "/%2e%2e/%2e",
    "/a?b#c",
    "*",
];

const FORWARDED: &[&str] = &[
    "",
    "x-forwarded-for: 1.1.1.1\r\n",
    "x-forwarded-for: 1.1.1.1, 2.2.2.2\r\n",
    "x-forwarded-for: 1.1.1.1\r\nx-forwarded-for: 2.2.2.2\r\n",
    "x-forwarded-for: junk\r\n",
    "x-forwarded-for: 127.0.0.1\r\n",
    "x-forwarded-proto: https\r\n",
    "x-forwarded-proto: ftp\r\n",
    "x-forwarded-port: 99\r\n",
    "x-request-id: abc\r\n",
    "via: 1.0 x\r\n",
    "x-envoy-internal: true\r\nx-envoy-retry-on: 5xx\r\nx-envoy-original-path: /a\r\nx-envoy-max-retries: 3\r\n\
     x-envoy-decorator-operation: x\r\nx-envoy-upstream-rq-timeout-ms: 9000\r\n",
    "x-forwarded-client-cert: x\r\n",
    "x-envoy-external-address: 9.9.9.9\r\n",
    "referer: junk\r\n",
    "referer: http://a/\r\n",
    "user-agent: u\r\n",
];

const HOP_BY_HOP: &[&str] = &[
    "connection: close\r\n",
    "connection: X-Hop\r\nx-hop: 1\r\nx-end: 2\r\n",
    "connection: close, X-Forwarded-For\r\nx-forwarded-for: 1.1.1.1\r\n",
    "keep-alive: 5\r\nproxy-connection: keep-alive\r\n",
    "upgrade: h2c\r\nconnection: upgrade, http2-settings\r\nhttp2-settings: x\r\n",
    "te: trailers\r\n",
    "te: gzip\r\n",
    "te: trailers, gzip\r\n",
    "te: trailers\r\nconnection: te\r\n",
    "connection: a,b,c,d,e,f,g,h,i,j,k\r\n",
    "connection: authorization\r\nauthorization: x\r\n",
    "upgrade: websocket\r\nconnection: upgrade\r\n",
    "expect: 100-continue\r\n",
    "trailer: x\r\n",
    "x_y: 1\r\n",
    "accept: a\r\naccept: b\r\ncookie: a=1\r\ncookie: b=2\r\n",
    "X-UP: CaSe\r\n",
];

const HOSTS: &[&str] = &[
    "foo.com",
    "FOO.com",
    "a.foo.com",
    "a.bar.foo.com",
    ".foo.com",
    "foo.org",
    "foo.",
    "my-baz.com",
    "-baz.com",
    "foo.com:81",
    "foo.com:82",
    "a.foo.com:80",
    "foo.org:80",
    "tls.com",
    "other",
    "[::1]",
    "[::1]:80",
    "u@foo.com",
    "foo.com.",
    "foo.com.:80",
    "a..b",
    "",
    "foo.com:",
    "foo.com:x",
    "foo.com:99999",
];

/// Every request that is compared.
pub fn all() -> Vec<Request> {
    let mut all = Vec::new();
    let mut add = |configuration: &'static str, line: String, headers: String| {
        all.push(Request { configuration, line, headers });
    };
    let get = |target: &str| format!("GET {target} HTTP/1.1");
    for route in HEADER_ROUTES {
        for value in HEADER_VALUES {
            add("plain", get(&format!("/header/{route}")), format!("{HOST}{value}"));
        }
    }
    let various = "x-in: in\r\nx-gone: 1\r\nx-a: old\r\nx-d: old\r\nx-host: h.com\r\nx-forwarded-host: first\r\n";
    for target in ROUTED {
        add("plain", get(target), format!("{HOST}{various}"));
    }
    for target in ["/redirect/https", "/redirect/port"] {
        for host in ["a.com:80", "a.com:8080", "a.com:443", "[::1]:80"] {
            add("plain", get(target), format!("Host: {host}\r\n"));
        }
    }
    let mut each = |configurations: &[&'static str], target: &str, headers: &str| {
        for configuration in configurations {
            add(configuration, get(target), headers.to_owned());
        }
    };
    for path in PATHS {
        each(&["plain", "normalized", "unescaped", "redirected", "rejected"], path, HOST);
    }
    for headers in FORWARDED {
        each(&["plain", "edge", "hops", "inner", "internal"], "/", &format!("{HOST}{headers}"));
    }
    for headers in HOP_BY_HOP {
        let configurations = ["plain", "drops underscores", "rejects underscores"];
        each(&configurations, "/", &format!("{HOST}{headers}"));
    }
    for host in HOSTS {
        each(&["domains", "stripped", "any port"], "/p?q", &format!("Host: {host}\r\n"));
    }
    each(&["plain", "most specific wins", "least specific wins"], "/mutated", HOST);
    for headers in ["", "Host: b\r\n", "Connection: keep-alive\r\nHost: b\r\n"] {
        for configuration in ["plain", "HTTP/1.0"] {
            add(configuration, "GET / HTTP/1.0".to_owned(), headers.to_owned());
        }
    }
    for method in ["HEAD", "OPTIONS", "POST", "PUT", "DELETE", "PATCH", "TRACE"] {
        add("plain", format!("{method} / HTTP/1.1"), HOST.to_owned());
    }
    add("plain", "CONNECT a.com:443 HTTP/1.1".to_owned(), "Host: b.com\r\n".to_owned());
    for line in [
        "CONNECT a.com:443 HTTP/1.1",
        "GET http://b.com/x?y HTTP/1.1",
        "GET https://b.com HTTP/1.1",
        "GET HTTP://B.com:80?x HTTP/1.1",
        "OPTIONS * HTTP/1.1",
    ] {
        add("plain", line.to_owned(), HOST.to_owned());
    }
    all
}
