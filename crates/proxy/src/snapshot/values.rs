//! Small values that many messages share.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use api::envoy::config::core::v3::address::Address as AddressKind;
use api::envoy::config::core::v3::socket_address::PortSpecifier;
use api::envoy::config::core::v3::{self as core, Address};
use api::envoy::config::route::v3 as route;
use api::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use api::envoy::r#type::matcher::v3 as matcher;
use api::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use api::google::protobuf::{self, value::Kind};
use api::text::Problem;
use codec::headers::HeaderName;
use serde_json::{Map, Number, Value};

use super::compile::Compile;
use crate::listener::config::CidrRange;
use crate::route_table::config::{Fraction, HeaderMatcher, ValueMatch};
use crate::stream_info::Metadata;
use crate::string_matcher::{StringMatcher, StringPattern};

/// A duration; negative ones are none.
pub fn duration(value: &protobuf::Duration) -> Duration {
    let seconds = u64::try_from(value.seconds).unwrap_or(0);
    let nanos = u32::try_from(value.nanos).unwrap_or(0);
    Duration::new(seconds, nanos)
}

/// A number; `default` where it is not set.
pub fn count(value: Option<protobuf::UInt32Value>, default: u32) -> u32 {
    value.map_or(default, |value| value.value)
}

/// A time limit that zero switches off; `default` where it is not set.
pub fn limit(value: Option<&protobuf::Duration>, default: Option<Duration>) -> Option<Duration> {
    match value {
        None => default,
        Some(value) => Some(duration(value)).filter(|limit| !limit.is_zero()),
    }
}

/// Where something is: an address with a port, a name with a port, or a socket's path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// TCP.
    Tcp(SocketAddr),
    /// A name that DNS knows.
    Name(String, u16),
    /// A Unix domain socket.
    Pipe(std::path::PathBuf),
}

/// Compiles an `Address`.
pub fn address(cx: &mut Compile<'_>, address: Option<&Address>) -> Option<Place> {
    match address.and_then(|address| address.address.as_ref()) {
        Some(AddressKind::SocketAddress(socket)) => cx.at("socket_address", |cx| {
            let Some(PortSpecifier::PortValue(port)) = &socket.port_specifier else {
                cx.problem_at("named_port", "only `port_value` is supported");
                return None;
            };
            let port = u16::try_from(*port).unwrap_or_default();
            Some(match socket.address.parse::<IpAddr>() {
                Ok(ip) => Place::Tcp(SocketAddr::new(ip, port)),
                Err(_) => Place::Name(socket.address.clone(), port),
            })
        }),
        Some(AddressKind::Pipe(pipe)) => Some(Place::Pipe(pipe.path.clone().into())),
        Some(AddressKind::EnvoyInternalAddress(_)) => {
            cx.problem("`envoy_internal_address` is not supported yet");
            None
        }
        None => {
            cx.problem("an address is required");
            None
        }
    }
}

/// Compiles a `CidrRange`.
pub fn cidr(cx: &mut Compile<'_>, range: &core::CidrRange) -> Option<CidrRange> {
    match range.address_prefix.parse::<IpAddr>() {
        Ok(address) => {
            // Without a length Envoy takes 0.
            let length = range.prefix_len.unwrap_or_default().value;
            Some(CidrRange::new(address, u8::try_from(length).unwrap_or(u8::MAX)))
        }
        Err(_) => {
            cx.problem_at("address_prefix", format!("`{}` is no IP address", range.address_prefix));
            None
        }
    }
}

/// Compiles a `StringMatcher`.
pub fn string_matcher(
    cx: &mut Compile<'_>,
    value: &matcher::StringMatcher,
) -> Option<StringMatcher> {
    read_string_matcher(value).map_err(|problem| cx.problems_under(vec![problem])).ok()
}

/// Compiles a `StringMatcher` for an extension: a problem has its path from the matcher on.
///
/// # Errors
/// What is wrong with it.
pub fn read_string_matcher(value: &matcher::StringMatcher) -> Result<StringMatcher, Problem> {
    let literal = |pattern| Ok(StringMatcher::new(pattern, value.ignore_case));
    match &value.match_pattern {
        Some(MatchPattern::Exact(text)) => literal(StringPattern::Exact(text.as_str().into())),
        Some(MatchPattern::Prefix(text)) => literal(StringPattern::Prefix(text.as_str().into())),
        Some(MatchPattern::Suffix(text)) => literal(StringPattern::Suffix(text.as_str().into())),
        Some(MatchPattern::Contains(text)) => {
            literal(StringPattern::Contains(text.as_str().into()))
        }
        Some(MatchPattern::SafeRegex(regex)) => StringMatcher::regex(&regex.regex)
            .map_err(|error| Problem::new("safe_regex.regex", error.to_string())),
        Some(MatchPattern::Custom(_)) => {
            Err(Problem::new("custom", "`custom` is not supported yet"))
        }
        None => Err(Problem::new("", "a pattern is required")),
    }
}

/// Compiles a `HeaderMatcher` for whoever has one, as [`read_string_matcher`].
///
/// # Errors
/// What is wrong with it.
pub fn read_header_matcher(message: &route::HeaderMatcher) -> Result<HeaderMatcher, Problem> {
    let name = HeaderName::parse(&message.name)
        .map_err(|error| Problem::new("name", error.to_string()))?;
    let literal = |pattern| ValueMatch::String(StringMatcher::new(pattern, false));
    #[allow(deprecated)]
    let value = match &message.header_match_specifier {
        None => ValueMatch::Present(true),
        Some(HeaderMatchSpecifier::PresentMatch(present)) => ValueMatch::Present(*present),
        Some(HeaderMatchSpecifier::StringMatch(matcher)) => read_string_matcher(matcher)
            .map(ValueMatch::String)
            .map_err(|problem| problem.under("string_match"))?,
        Some(HeaderMatchSpecifier::RangeMatch(range)) => ValueMatch::Range(range.start, range.end),
        Some(HeaderMatchSpecifier::ExactMatch(text)) => {
            literal(StringPattern::Exact(text.as_str().into()))
        }
        Some(HeaderMatchSpecifier::PrefixMatch(text)) => {
            literal(StringPattern::Prefix(text.as_str().into()))
        }
        Some(HeaderMatchSpecifier::SuffixMatch(text)) => {
            literal(StringPattern::Suffix(text.as_str().into()))
        }
        Some(HeaderMatchSpecifier::ContainsMatch(text)) => {
            literal(StringPattern::Contains(text.as_str().into()))
        }
        Some(HeaderMatchSpecifier::SafeRegexMatch(regex)) => StringMatcher::regex(&regex.regex)
            .map(ValueMatch::String)
            .map_err(|error| Problem::new("safe_regex_match.regex", error.to_string()))?,
    };
    Ok(HeaderMatcher {
        name,
        value,
        invert: message.invert_match,
        treat_missing_as_empty: message.treat_missing_header_as_empty,
    })
}

/// Of how many a `FractionalPercent` is.
pub fn denominator(percent: &api::envoy::r#type::v3::FractionalPercent) -> u32 {
    use api::envoy::r#type::v3::fractional_percent::DenominatorType;
    match percent.denominator() {
        DenominatorType::Hundred => 100,
        DenominatorType::TenThousand => 10_000,
        DenominatorType::Million => 1_000_000,
    }
}

/// A share of all.
pub fn fraction(percent: &api::envoy::r#type::v3::FractionalPercent) -> Fraction {
    Fraction { numerator: percent.numerator, denominator: denominator(percent) }
}

/// A text that is kept. Many are empty: those take nothing.
pub fn text(text: &str) -> Arc<str> {
    if text.is_empty() { Arc::default() } else { text.into() }
}

/// Compiles `Metadata` for whoever asks for it later.
pub fn metadata(cx: &Compile<'_>, metadata: Option<&core::Metadata>) -> Metadata {
    let fields = &metadata?.filter_metadata;
    let mut names: Vec<_> = fields.iter().collect();
    names.sort_by_key(|(name, _)| *name);
    let members =
        names.into_iter().map(|(name, object)| (name.clone(), Value::Object(json_object(object))));
    let members: Map<String, Value> = members.collect();
    (!members.is_empty()).then(|| cx.env.parts.metadata.share(members))
}

/// A `Struct` as JSON, its keys sorted.
pub fn json_object(object: &protobuf::Struct) -> Map<String, Value> {
    let mut members: Vec<_> = object.fields.iter().collect();
    members.sort_by_key(|(name, _)| *name);
    members.into_iter().map(|(name, value)| (name.clone(), json(value))).collect()
}

fn json(value: &protobuf::Value) -> Value {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(boolean)) => (*boolean).into(),
        Some(Kind::NumberValue(number)) if number.fract() == 0.0 && number.abs() < 9.0e15 => {
            (*number as i64).into()
        }
        Some(Kind::NumberValue(number)) => {
            Number::from_f64(*number).map_or(Value::Null, Value::Number)
        }
        Some(Kind::StringValue(text)) => text.clone().into(),
        Some(Kind::StructValue(object)) => Value::Object(json_object(object)),
        Some(Kind::ListValue(list)) => list.values.iter().map(json).collect(),
    }
}
