//! What stands in an operator's parentheses.

use codec::headers::HeaderName;

use super::super::format::Environment;
use super::super::time::TimeFormat;

/// What an operator takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arguments {
    /// Nothing.
    Bare,
    /// `main?alternative` header names; length allowed.
    Headers,
    /// An optional `strftime` format.
    Time,
    /// `from:to[:unit]`.
    CommonDuration,
    /// An optional `CAMEL_STRING`, `SNAKE_STRING` or `NUMBER`.
    GrpcForm,
    /// An optional prefix length.
    Mask,
    /// `[WQ|NQ][:ORIG|PATH|ORIG_OR_PATH]`; length allowed.
    PathForm,
    /// `[ORIG|PATH|ORIG_OR_PATH]`; length allowed.
    QueryForm,
    /// `[SNI_ONLY|SNI_FIRST|HOST_FIRST][:ORIG|HOST|ORIG_OR_HOST]`.
    ServerName,
    /// Any text; length allowed.
    Text,
    /// `namespace[:key]*`; length allowed.
    Keys,
    /// `TYPE:namespace[:key]*`; length allowed.
    Typed,
    /// An environment variable's name, read now.
    Variable,
    /// Nothing; the host's name is read now.
    Hostname,
    /// Nothing; the process's instance number is read now.
    Instance,
}

/// Arguments once read.
#[derive(Clone, Debug)]
pub(super) enum Argument {
    None,
    Headers(HeaderName, Option<HeaderName>),
    Time(TimeFormat),
    Duration(Point, Point, u64),
    Grpc(GrpcForm),
    Prefix(u8),
    Path { with_query: bool, source: PathSource },
    ServerName { first: NameFirst, original: bool },
    Text(Box<str>),
    Keys(Box<[Box<str>]>),
    Metadata(MetadataOf, Box<[Box<str>]>),
    Instance(u64),
}

/// A moment of a stream, by Envoy's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Point {
    DownstreamRxBegin,
    DownstreamRxEnd,
    UpstreamConnectBegin,
    UpstreamHandshakeEnd,
    UpstreamTxBegin,
    UpstreamTxEnd,
    UpstreamRxBegin,
    UpstreamRxEnd,
    DownstreamTxBegin,
    DownstreamTxEnd,
}

const POINTS: &[(&str, Point)] = &[
    ("DS_RX_BEG", Point::DownstreamRxBegin),
    ("DS_RX_END", Point::DownstreamRxEnd),
    ("US_CX_BEG", Point::UpstreamConnectBegin),
    ("US_HS_END", Point::UpstreamHandshakeEnd),
    ("US_TX_BEG", Point::UpstreamTxBegin),
    ("US_TX_END", Point::UpstreamTxEnd),
    ("US_RX_BEG", Point::UpstreamRxBegin),
    ("US_RX_END", Point::UpstreamRxEnd),
    ("DS_TX_BEG", Point::DownstreamTxBegin),
    ("DS_TX_END", Point::DownstreamTxEnd),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GrpcForm {
    Camel,
    Snake,
    Number,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PathSource {
    Original,
    Path,
    OriginalOrPath,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NameFirst {
    SniOnly,
    Sni,
    Host,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MetadataOf {
    Dynamic,
    Cluster,
    Host,
}

impl Argument {
    /// The text, if it is one.
    pub fn text(&self) -> Option<&str> {
        match self {
            Argument::Text(text) => Some(text),
            _ => None,
        }
    }
}

impl Arguments {
    /// Whether `:length` may follow.
    pub fn takes_length(self) -> bool {
        use Arguments::{Headers, Keys, PathForm, QueryForm, Text, Typed};
        matches!(self, Headers | Keys | PathForm | QueryForm | Text | Typed)
    }

    /// Reads what stood in the parentheses; the error says what should.
    pub fn parse(self, given: Option<&str>, environment: &Environment) -> Result<Argument, String> {
        let given = given.filter(|text| !text.is_empty() || self == Arguments::Bare);
        match self {
            Arguments::Bare => nothing(given).map(|()| Argument::None),
            Arguments::Headers => headers(given.ok_or("needs a header name")?),
            Arguments::Time => time(given),
            Arguments::CommonDuration => duration(given.ok_or("needs two points in time")?),
            Arguments::GrpcForm => grpc(given),
            Arguments::Mask => mask(given),
            Arguments::PathForm => path(given),
            Arguments::QueryForm => {
                path_source(given).map(|source| Argument::Path { with_query: true, source })
            }
            Arguments::ServerName => server_name(given),
            Arguments::Text => Ok(Argument::Text(given.ok_or("needs a name")?.into())),
            Arguments::Keys => Ok(Argument::Keys(keys(given.ok_or("needs a namespace")?))),
            Arguments::Typed => typed(given.ok_or("needs a type and a namespace")?),
            Arguments::Variable => {
                let name = given.ok_or("needs a variable's name")?;
                Ok(Argument::Text(
                    (environment.variable)(name).unwrap_or_else(|| "-".to_owned()).into(),
                ))
            }
            Arguments::Hostname => {
                nothing(given).map(|()| Argument::Text(environment.hostname.as_ref().into()))
            }
            Arguments::Instance => {
                nothing(given).map(|()| Argument::Instance(environment.instance))
            }
        }
    }
}

fn nothing(given: Option<&str>) -> Result<(), String> {
    given.map_or(Ok(()), |_| Err("takes no arguments".to_owned()))
}

fn headers(given: &str) -> Result<Argument, String> {
    let mut names =
        given.split('?').map(|name| HeaderName::parse(name).map_err(|error| error.to_string()));
    let main = names.next().ok_or("needs a header name")??;
    let alternative = names.next().transpose()?;
    if names.next().is_some() {
        return Err("takes at most one alternative header".to_owned());
    }
    Ok(Argument::Headers(main, alternative))
}

fn time(given: Option<&str>) -> Result<Argument, String> {
    let format = match given {
        None => TimeFormat::default_utc(),
        Some(format) => TimeFormat::parse(format)
            .map_err(|unknown| format!("`{unknown}` is no time conversion"))?,
    };
    Ok(Argument::Time(format))
}

fn duration(given: &str) -> Result<Argument, String> {
    let mut parts = given.split(':');
    let mut point = || {
        let name = parts.next().ok_or("needs two points in time")?;
        POINTS
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, point)| *point)
            .ok_or_else(|| format!("`{name}` is no point in time that is kept"))
    };
    let (from, to) = (point()?, point()?);
    let unit = match parts.next() {
        None | Some("ms") => 1_000_000,
        Some("us") => 1000,
        Some("ns") => 1,
        Some(other) => return Err(format!("invalid duration precision `{other}`: ms, us or ns")),
    };
    parts.next().map_or(Ok(Argument::Duration(from, to, unit)), |_| {
        Err("takes from, to and unit".to_owned())
    })
}

fn grpc(given: Option<&str>) -> Result<Argument, String> {
    Ok(Argument::Grpc(match given {
        None | Some("CAMEL_STRING") => GrpcForm::Camel,
        Some("SNAKE_STRING") => GrpcForm::Snake,
        Some("NUMBER") => GrpcForm::Number,
        Some(_) => {
            return Err(
                "GrpcStatusFormatter only supports CAMEL_STRING, SNAKE_STRING or NUMBER".to_owned()
            );
        }
    }))
}

fn mask(given: Option<&str>) -> Result<Argument, String> {
    let Some(given) = given else { return Ok(Argument::None) };
    given.parse().map(Argument::Prefix).map_err(|_| format!("`{given}` is no prefix length"))
}

fn path_source(given: Option<&str>) -> Result<PathSource, String> {
    match given.unwrap_or_default() {
        "ORIG" => Ok(PathSource::Original),
        "PATH" => Ok(PathSource::Path),
        "" | "ORIG_OR_PATH" => Ok(PathSource::OriginalOrPath),
        other => Err(format!("`{other}` is not ORIG, PATH or ORIG_OR_PATH")),
    }
}

fn path(given: Option<&str>) -> Result<Argument, String> {
    let (query, source) = given
        .unwrap_or_default()
        .split_once(':')
        .map_or((given.unwrap_or_default(), None), |(q, s)| (q, Some(s)));
    let with_query = match query {
        "" | "WQ" => true,
        "NQ" => false,
        other => return Err(format!("`{other}` is not WQ or NQ")),
    };
    Ok(Argument::Path { with_query, source: path_source(source)? })
}

fn server_name(given: Option<&str>) -> Result<Argument, String> {
    let given = given.unwrap_or_default();
    let (first, host) = given.split_once(':').unwrap_or((given, ""));
    let first = match first {
        "" | "SNI_ONLY" => NameFirst::SniOnly,
        "SNI_FIRST" => NameFirst::Sni,
        "HOST_FIRST" => NameFirst::Host,
        other => return Err(format!("`{other}` is not SNI_ONLY, SNI_FIRST or HOST_FIRST")),
    };
    let original = match host {
        "" | "ORIG_OR_HOST" => true,
        "HOST" => false,
        "ORIG" => return Err("ORIG alone is not supported; use ORIG_OR_HOST".to_owned()),
        other => return Err(format!("`{other}` is not ORIG, HOST or ORIG_OR_HOST")),
    };
    Ok(Argument::ServerName { first, original })
}

fn keys(given: &str) -> Box<[Box<str>]> {
    given.split(':').map(Box::from).collect()
}

fn typed(given: &str) -> Result<Argument, String> {
    let (of, rest) = given.split_once(':').ok_or("needs a type and a namespace")?;
    let of = match of {
        "DYNAMIC" => MetadataOf::Dynamic,
        "CLUSTER" => MetadataOf::Cluster,
        "UPSTREAM_HOST" => MetadataOf::Host,
        "ROUTE" | "LISTENER" | "LISTENER_FILTER_CHAIN" | "VIRTUAL_HOST" => {
            return Err(format!("metadata of {of} is not kept"));
        }
        other => return Err(format!("`{other}` is not a supported type of metadata")),
    };
    Ok(Argument::Metadata(of, keys(rest)))
}
