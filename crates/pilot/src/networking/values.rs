//! Plain Rust values as the protobuf types that carry them.

use std::time::Duration;

use api::envoy::config::core::v3::{Address, SocketAddress, address, socket_address};
use api::envoy::r#type::matcher::v3::{RegexMatcher, StringMatcher, string_matcher};
use api::envoy::r#type::v3::{FractionalPercent, fractional_percent::DenominatorType};
use api::google::protobuf::{self, BoolValue, Struct, UInt32Value, Value, value::Kind};

/// A duration.
pub fn duration(value: Duration) -> protobuf::Duration {
    protobuf::Duration { seconds: value.as_secs() as i64, nanos: value.subsec_nanos() as i32 }
}

/// A share of requests, in percent.
pub fn share(percent: f64) -> FractionalPercent {
    FractionalPercent {
        numerator: (percent * 10_000.0).round() as u32,
        denominator: DenominatorType::Million as i32,
    }
}

/// An optional number.
pub fn number(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}

/// An optional truth.
pub fn boolean(value: bool) -> Option<BoolValue> {
    Some(BoolValue { value })
}

/// An IP address or DNS name with a TCP port.
pub fn socket_address(address: &str, port: u16) -> Address {
    Address {
        address: Some(address::Address::SocketAddress(SocketAddress {
            address: address.to_owned(),
            port_specifier: Some(socket_address::PortSpecifier::PortValue(u32::from(port))),
            ..Default::default()
        })),
    }
}

/// A Unix domain socket.
pub fn pipe_address(path: &str) -> Address {
    Address {
        address: Some(address::Address::Pipe(api::envoy::config::core::v3::Pipe {
            path: path.to_owned(),
            mode: 0,
        })),
    }
}

/// A struct value of text fields.
pub fn text_struct<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> Struct {
    Struct {
        fields: fields.into_iter().map(|(key, text)| (key.to_owned(), text_value(text))).collect(),
    }
}

/// A text as a dynamic value.
pub fn text_value(text: &str) -> Value {
    Value { kind: Some(Kind::StringValue(text.to_owned())) }
}

/// Matches exactly this text.
pub fn exact(text: &str) -> StringMatcher {
    string_matcher(string_matcher::MatchPattern::Exact(text.to_owned()))
}

/// A matcher of this pattern that heeds case.
pub fn string_matcher(pattern: string_matcher::MatchPattern) -> StringMatcher {
    StringMatcher { match_pattern: Some(pattern), ..Default::default() }
}

/// A regular expression that must match the whole text.
pub fn regex(pattern: &str) -> RegexMatcher {
    RegexMatcher { regex: pattern.to_owned(), ..Default::default() }
}
