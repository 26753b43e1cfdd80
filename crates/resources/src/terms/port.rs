//! Ports that speak a protocol, as Gateways, Sidecars and ServiceEntries declare them.

use crate::field::{Fields, Names, Reason};
use crate::rules;

/// What a port speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// HTTP/1.
    Http,
    /// HTTP/2 in clear text.
    Http2,
    /// HTTP inside TLS.
    Https,
    /// gRPC over HTTP/2.
    Grpc,
    /// gRPC-Web.
    GrpcWeb,
    /// Plain TCP.
    Tcp,
    /// TLS with anything inside.
    Tls,
    /// UDP.
    Udp,
    /// MongoDB's wire protocol, as TCP.
    Mongo,
    /// Redis, as TCP.
    Redis,
    /// MySQL, as TCP.
    MySql,
    /// An HTTP proxy.
    HttpProxy,
    /// HTTP-based tunnel.
    Hbone,
    /// Nothing said: the proxy finds out.
    Unspecified,
}

impl Protocol {
    /// Istio's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "HTTP",
            Self::Http2 => "HTTP2",
            Self::Https => "HTTPS",
            Self::Grpc => "GRPC",
            Self::GrpcWeb => "GRPC-Web",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
            Self::Udp => "UDP",
            Self::Mongo => "Mongo",
            Self::Redis => "Redis",
            Self::MySql => "MySQL",
            Self::HttpProxy => "HTTP_PROXY",
            Self::Hbone => "HBONE",
            Self::Unspecified => "UnsupportedProtocol",
        }
    }

    /// The protocol of a name, in any case.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "http" => Self::Http,
            "http2" => Self::Http2,
            "https" => Self::Https,
            "grpc" => Self::Grpc,
            "grpc-web" => Self::GrpcWeb,
            "tcp" => Self::Tcp,
            "tls" => Self::Tls,
            "udp" => Self::Udp,
            "mongo" => Self::Mongo,
            "redis" => Self::Redis,
            "mysql" => Self::MySql,
            "http_proxy" => Self::HttpProxy,
            "hbone" => Self::Hbone,
            _ => return None,
        })
    }

    /// What a Kubernetes Service port speaks: its transport, then the part before `-` of its `appProtocol` or else of its
    /// name, then well-known ports where the server speaks first.
    pub fn of_service_port(
        transport: Transport,
        app_protocol: Option<&str>,
        name: &str,
        port: u16,
    ) -> Self {
        if transport == Transport::Udp {
            return Self::Udp;
        }
        match app_protocol {
            Some("kubernetes.io/h2c") => return Self::Http2,
            Some("kubernetes.io/ws") => return Self::Http,
            Some("kubernetes.io/wss") => return Self::Https,
            Some(_) | None => {}
        }
        // Whoever writes an application protocol means it: the name says nothing then, known or not.
        let lower = app_protocol.unwrap_or(name).to_ascii_lowercase();
        if lower.starts_with("grpc-web") {
            return Self::GrpcWeb;
        }
        let prefix = lower.split('-').next().unwrap_or_default();
        match Self::parse(prefix).filter(|known| *known != Self::Udp) {
            Some(known) => known,
            None if matches!(port, 25 | 53 | 3306 | 27017) => Self::Tcp,
            None => Self::Unspecified,
        }
    }

    /// Whether requests can be told apart.
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Http2 | Self::Grpc | Self::GrpcWeb)
    }

    /// Whether the bytes are TLS to everybody but its ends.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::Tls)
    }

    /// Whether it is relayed as bytes, known or not what they are.
    pub fn is_tcp(self) -> bool {
        matches!(self, Self::Tcp | Self::Mongo | Self::Redis | Self::MySql)
    }
}

/// Transport protocol of a Kubernetes port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Names for Transport {
    const NAMES: &'static [(&'static str, Self)] =
        &[("TCP", Self::Tcp), ("UDP", Self::Udp), ("SCTP", Self::Sctp)];
}

/// A port that a Gateway or Sidecar listens on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenPort {
    /// Port number; 0 only with a unix socket as bind address.
    pub number: u16,
    /// What it speaks.
    pub protocol: Protocol,
    /// Name, unique among its neighbours.
    pub name: String,
}

impl ListenPort {
    /// Reads `{number, protocol, name}`; `targetPort` has no effect and is refused as Istio does.
    pub fn read(fields: &mut Fields<'_>, zero_allowed: bool) -> Self {
        let number = fields.integer("number", 0..=u16::MAX);
        if number.is_none_or(|number| number == 0) && !zero_allowed {
            fields.error_in("number", Reason::Required, "must be between 1 and 65535");
        }
        let name = fields.required_text("name");
        fields.check("name", &name, rules::name::mixed_case_label);
        let target = fields.u32("targetPort");
        if target.is_some_and(|target| target > 0) {
            fields.error_in("targetPort", Reason::Forbidden, "has no effect here");
        }
        Self { number: number.unwrap_or_default(), protocol: read_protocol(fields), name }
    }
}

/// Reads a required protocol name.
fn read_protocol(fields: &mut Fields<'_>) -> Protocol {
    let text = fields.required_text("protocol");
    match Protocol::parse(&text) {
        Some(Protocol::Udp | Protocol::Hbone) | None if !text.is_empty() => {
            let allowed =
                "HTTP, HTTPS, HTTP2, GRPC, GRPC-WEB, TCP, TLS, MONGO, REDIS, MYSQL, HTTP_PROXY";
            let message = format!("unknown value {text:?}: must be one of {allowed}");
            fields.error_in("protocol", Reason::NotSupported, message);
            Protocol::Unspecified
        }
        found => found.unwrap_or(Protocol::Unspecified),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_ports_by_app_protocol_then_name_then_number() {
        let of = |app, name, port| Protocol::of_service_port(Transport::Tcp, app, name, port);
        assert_eq!(of(None, "http", 9080), Protocol::Http);
        assert_eq!(of(None, "http2-api", 80), Protocol::Http2);
        assert_eq!(of(None, "grpc-web-x", 80), Protocol::GrpcWeb);
        assert_eq!(of(None, "", 3306), Protocol::Tcp);
        assert_eq!(of(None, "web", 80), Protocol::Unspecified);
        assert_eq!(of(Some("tcp"), "http", 80), Protocol::Tcp);
        assert_eq!(of(Some("GRPC-Web"), "tcp", 80), Protocol::GrpcWeb);
        assert_eq!(of(Some("example.com/own"), "http", 80), Protocol::Unspecified);
        assert_eq!(of(Some("example.com/own"), "http", 3306), Protocol::Tcp);
        assert_eq!(of(Some("kubernetes.io/ws"), "tcp", 80), Protocol::Http);
        assert_eq!(of(Some("kubernetes.io/wss"), "tcp", 80), Protocol::Https);
        assert_eq!(of(None, "https-web", 80), Protocol::Https);
        assert_eq!(of(None, "mongo", 80), Protocol::Mongo);
        assert_eq!(of(None, "tls-x", 80), Protocol::Tls);
        assert_eq!(of(None, "grpcs", 80), Protocol::Unspecified);
        assert_eq!(of(Some("kubernetes.io/h2c"), "tcp", 80), Protocol::Http2);
        assert_eq!(Protocol::of_service_port(Transport::Udp, None, "http", 80), Protocol::Udp);
    }
}
