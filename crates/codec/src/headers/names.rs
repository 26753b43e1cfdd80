//! The names that the proxy itself looks at, numbered, so that a look-up compares one byte instead of a string.

/// A header name that has a number. `KnownName::NONE` stands for every other name.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KnownName(pub(super) u8);

impl KnownName {
    pub(crate) const NONE: KnownName = KnownName(0);

    /// For tables by name: below 128, 0 for `NONE`.
    pub(crate) const fn number(self) -> u8 {
        self.0
    }

    /// The lower-case name; empty for `NONE`, which is never handed out.
    pub const fn as_str(self) -> &'static str {
        SPELLINGS[self.0 as usize]
    }

    /// The number of a lower-case name, if it has one.
    pub fn lookup(lower_case: &[u8]) -> Option<KnownName> {
        let known = number(lower_case);
        (known.0 != 0).then_some(known)
    }
}

impl std::fmt::Debug for KnownName {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A set of numbered names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameSet(pub(super) u128);

impl NameSet {
    /// The set of these names.
    pub const fn of(names: &[KnownName]) -> NameSet {
        let mut bits = 0;
        let mut at = 0;
        while at < names.len() {
            bits |= 1 << names[at].0;
            at += 1;
        }
        NameSet(bits)
    }

    /// The names of both sets.
    pub const fn and(self, other: NameSet) -> NameSet {
        NameSet(self.0 | other.0)
    }

    /// Whether the name is in the set.
    pub const fn contains(self, name: KnownName) -> bool {
        self.0 & 1 << name.0 != 0
    }
}

macro_rules! known_names {
    ($($constant:ident = $spelling:literal,)*) => {
        #[repr(u8)]
        #[allow(non_camel_case_types, clippy::upper_case_acronyms, dead_code)]
        enum Number { NONE, $($constant,)* COUNT }

        $(
            #[doc = concat!("`", $spelling, "`")]
            pub const $constant: KnownName = KnownName(Number::$constant as u8);
        )*

        const SPELLINGS: [&str; Number::COUNT as usize] = ["", $($spelling,)*];

        /// `NONE` for a name without a number. The compiler turns this into a switch on the length and few comparisons.
        #[inline]
        pub(crate) fn number(lower_case: &[u8]) -> KnownName {
            const fn bytes<const N: usize>(spelling: &str) -> [u8; N] {
                let source = spelling.as_bytes();
                let mut out = [0; N];
                let mut at = 0;
                while at < N { out[at] = source[at]; at += 1; }
                out
            }
            $(
                #[allow(non_upper_case_globals)]
                const $constant: &[u8] = &bytes::<{ $spelling.len() }>($spelling);
            )*
            match lower_case {
                $($constant => self::$constant,)*
                _ => KnownName::NONE,
            }
        }
    };
}

known_names! {
    HOST = "host",
    CONNECTION = "connection",
    CONTENT_LENGTH = "content-length",
    CONTENT_TYPE = "content-type",
    TRANSFER_ENCODING = "transfer-encoding",
    UPGRADE = "upgrade",
    EXPECT = "expect",
    TE = "te",
    TRAILER = "trailer",
    KEEP_ALIVE = "keep-alive",
    PROXY_CONNECTION = "proxy-connection",
    HTTP2_SETTINGS = "http2-settings",
    DATE = "date",
    SERVER = "server",
    VIA = "via",
    LOCATION = "location",
    USER_AGENT = "user-agent",
    REFERER = "referer",
    ACCEPT = "accept",
    ACCEPT_ENCODING = "accept-encoding",
    ACCEPT_LANGUAGE = "accept-language",
    AUTHORIZATION = "authorization",
    PROXY_AUTHORIZATION = "proxy-authorization",
    PROXY_AUTHENTICATE = "proxy-authenticate",
    CACHE_CONTROL = "cache-control",
    CONTENT_ENCODING = "content-encoding",
    COOKIE = "cookie",
    SET_COOKIE = "set-cookie",
    ETAG = "etag",
    LAST_MODIFIED = "last-modified",
    IF_MODIFIED_SINCE = "if-modified-since",
    IF_NONE_MATCH = "if-none-match",
    VARY = "vary",
    ORIGIN = "origin",
    RETRY_AFTER = "retry-after",
    FORWARDED = "forwarded",
    GRPC_STATUS = "grpc-status",
    GRPC_MESSAGE = "grpc-message",
    GRPC_TIMEOUT = "grpc-timeout",
    GRPC_ENCODING = "grpc-encoding",
    GRPC_ACCEPT_ENCODING = "grpc-accept-encoding",
    X_REQUEST_ID = "x-request-id",
    X_CLIENT_TRACE_ID = "x-client-trace-id",
    X_FORWARDED_FOR = "x-forwarded-for",
    X_FORWARDED_PROTO = "x-forwarded-proto",
    X_FORWARDED_HOST = "x-forwarded-host",
    X_FORWARDED_PORT = "x-forwarded-port",
    X_FORWARDED_CLIENT_CERT = "x-forwarded-client-cert",
    X_ENVOY_ATTEMPT_COUNT = "x-envoy-attempt-count",
    X_ENVOY_DECORATOR_OPERATION = "x-envoy-decorator-operation",
    X_ENVOY_DEGRADED = "x-envoy-degraded",
    X_ENVOY_DOWNSTREAM_SERVICE_CLUSTER = "x-envoy-downstream-service-cluster",
    X_ENVOY_DOWNSTREAM_SERVICE_NODE = "x-envoy-downstream-service-node",
    X_ENVOY_EXPECTED_RQ_TIMEOUT_MS = "x-envoy-expected-rq-timeout-ms",
    X_ENVOY_EXTERNAL_ADDRESS = "x-envoy-external-address",
    X_ENVOY_FORCE_TRACE = "x-envoy-force-trace",
    X_ENVOY_HEDGE_ON_PER_TRY_TIMEOUT = "x-envoy-hedge-on-per-try-timeout",
    X_ENVOY_IMMEDIATE_HEALTH_CHECK_FAIL = "x-envoy-immediate-health-check-fail",
    X_ENVOY_INTERNAL = "x-envoy-internal",
    X_ENVOY_IP_TAGS = "x-envoy-ip-tags",
    X_ENVOY_IS_TIMEOUT_RETRY = "x-envoy-is-timeout-retry",
    X_ENVOY_MAX_RETRIES = "x-envoy-max-retries",
    X_ENVOY_ORIGINAL_HOST = "x-envoy-original-host",
    X_ENVOY_ORIGINAL_METHOD = "x-envoy-original-method",
    X_ENVOY_ORIGINAL_PATH = "x-envoy-original-path",
    X_ENVOY_ORIGINAL_URL = "x-envoy-original-url",
    X_ENVOY_ORIGINAL_DST_HOST = "x-envoy-original-dst-host",
    X_ENVOY_OVERLOADED = "x-envoy-overloaded",
    X_ENVOY_LOCAL_OVERLOADED = "x-envoy-local-overloaded",
    X_ENVOY_PEER_METADATA = "x-envoy-peer-metadata",
    X_ENVOY_PEER_METADATA_ID = "x-envoy-peer-metadata-id",
    X_ENVOY_RATELIMITED = "x-envoy-ratelimited",
    X_ENVOY_RETRIABLE_HEADER_NAMES = "x-envoy-retriable-header-names",
    X_ENVOY_RETRIABLE_STATUS_CODES = "x-envoy-retriable-status-codes",
    X_ENVOY_RETRY_GRPC_ON = "x-envoy-retry-grpc-on",
    X_ENVOY_RETRY_ON = "x-envoy-retry-on",
    X_ENVOY_UPSTREAM_ALT_STAT_NAME = "x-envoy-upstream-alt-stat-name",
    X_ENVOY_UPSTREAM_CANARY = "x-envoy-upstream-canary",
    X_ENVOY_UPSTREAM_HEALTHCHECKED_CLUSTER = "x-envoy-upstream-healthchecked-cluster",
    X_ENVOY_UPSTREAM_REMOTE_ADDRESS = "x-envoy-upstream-remote-address",
    X_ENVOY_UPSTREAM_RQ_PER_TRY_TIMEOUT_MS = "x-envoy-upstream-rq-per-try-timeout-ms",
    X_ENVOY_UPSTREAM_RQ_TIMEOUT_ALT_RESPONSE = "x-envoy-upstream-rq-timeout-alt-response",
    X_ENVOY_UPSTREAM_RQ_TIMEOUT_MS = "x-envoy-upstream-rq-timeout-ms",
    X_ENVOY_UPSTREAM_SERVICE_TIME = "x-envoy-upstream-service-time",
    X_ENVOY_UPSTREAM_STREAM_DURATION_MS = "x-envoy-upstream-stream-duration-ms",
    X_B3_TRACEID = "x-b3-traceid",
    X_B3_SPANID = "x-b3-spanid",
    X_B3_PARENTSPANID = "x-b3-parentspanid",
    X_B3_SAMPLED = "x-b3-sampled",
    X_B3_FLAGS = "x-b3-flags",
    B3 = "b3",
    TRACEPARENT = "traceparent",
    TRACESTATE = "tracestate",
    X_OT_SPAN_CONTEXT = "x-ot-span-context",
    END_USER = "end-user",
}

/// How many numbers there are; the presence set of `Fields` has room for 128.
const _: () = assert!(SPELLINGS.len() <= 128);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_finds_its_own_number() {
        for (position, spelling) in SPELLINGS.iter().enumerate().skip(1) {
            assert_eq!(number(spelling.as_bytes()).0 as usize, position, "{spelling}");
            assert_eq!(*spelling, spelling.to_ascii_lowercase());
        }
        assert_eq!(KnownName::lookup(b"x-something-else"), None);
        assert_eq!(KnownName::lookup(b""), None);
    }
}
