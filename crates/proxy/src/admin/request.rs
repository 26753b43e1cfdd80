//! Requests and replies of the admin interface.

use serde_json::Value;

/// What a request wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// GET or HEAD: read.
    Read,
    /// POST: change.
    Write,
}

/// The decoded query parameters, in order.
#[derive(Clone, Debug, Default)]
pub struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    /// Reads what follows the `?`.
    pub fn parse(query: &str) -> Self {
        let decode = |text: &str| {
            let spaced = text.replace('+', " ");
            percent_encoding::percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
        };
        let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        });
        Self { pairs: pairs.collect() }
    }

    /// The first value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Whether a parameter is there, with or without a value.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// All parameters.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The parameters that an endpoint does not have.
    pub fn unknown<'a>(&'a self, known: &'a [(&str, &str)]) -> impl Iterator<Item = &'a str> {
        self.iter()
            .map(|(name, _)| name)
            .filter(|name| !known.iter().any(|(other, _)| other == name))
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// `content-type`.
    pub content_type: &'static str,
    /// The body.
    pub body: Vec<u8>,
}

impl Reply {
    const TEXT: &'static str = "text/plain; charset=UTF-8";

    /// 200 with text.
    pub fn text(body: impl Into<String>) -> Self {
        Self::error(200, body)
    }

    /// A status with text.
    pub fn error(status: u16, body: impl Into<String>) -> Self {
        Self { status, content_type: Self::TEXT, body: body.into().into_bytes() }
    }

    /// 200 with indented JSON, as Envoy's.
    pub fn json(value: &Value) -> Self {
        let mut body = Vec::new();
        let indented = serde_json::ser::PrettyFormatter::with_indent(b" ");
        let mut serializer = serde_json::Serializer::with_formatter(&mut body, indented);
        if let Err(error) = serde::Serialize::serialize(value, &mut serializer) {
            return Self::error(500, error.to_string());
        }
        body.push(b'\n');
        Self { status: 200, content_type: "application/json", body }
    }

    /// 200 with HTML.
    pub fn html(body: String) -> Self {
        Self { status: 200, content_type: "text/html; charset=UTF-8", body: body.into_bytes() }
    }
}
