//! The format language: text between operators, `%NAME(arguments):length%`, and `%%` for a percent sign.

use std::sync::Arc;

use super::operators::{self, Operator};
use super::output::{Mode, Output};
use crate::stream_info::LogRecord;

/// Looks an environment variable up.
pub type Variables = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// What operators need that is not in the stream: taken once, when a format is compiled.
#[derive(Clone)]
pub struct Environment {
    /// For `%HOSTNAME%`.
    pub hostname: Arc<str>,
    /// For `%ENVIRONMENT(NAME)%`.
    pub variable: Variables,
    /// A random number of this process, so that `%STREAM_ID%` differs between processes.
    pub instance: u64,
}

impl Default for Environment {
    /// No variables, and a fresh instance number.
    fn default() -> Self {
        Self { hostname: "-".into(), variable: Arc::new(|_| None), instance: rand::random() }
    }
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Environment({})", self.hostname)
    }
}

/// Why a format was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// A `%` that begins nothing.
    #[error("incorrect configuration: {0}. Couldn't find valid command at position {1}")]
    Syntax(String, usize),
    /// No such operator in Envoy either.
    #[error("Not supported field in StreamInfo: {0}")]
    Unknown(String),
    /// Envoy has it; here it has nothing to say yet.
    #[error("%{0}% is not supported: {1}")]
    Unsupported(&'static str, &'static str),
    /// Arguments or length where there must be none, or the reverse.
    #[error("%{0}%: {1}")]
    Arguments(String, String),
}

/// A compiled text format. Evaluating one allocates nothing once the output's buffer is large enough.
#[derive(Clone, Debug)]
pub struct Format {
    parts: Box<[Part]>,
    omit_empty: bool,
}

#[derive(Clone, Debug)]
enum Part {
    Text(Box<[u8]>),
    Operator(Operator),
}

impl Format {
    /// Compiles a format whose missing values show as `-`.
    ///
    /// # Errors
    /// When it is not a format, or uses an operator that is not there.
    pub fn parse(text: &str, environment: &Environment) -> Result<Self, FormatError> {
        Self::compile(text, environment, false)
    }

    /// As [`Format::parse`], but missing values show as nothing: header values, and logs with `omit_empty_values`.
    ///
    /// # Errors
    /// As [`Format::parse`].
    pub fn parse_omitting_empty(
        text: &str,
        environment: &Environment,
    ) -> Result<Self, FormatError> {
        Self::compile(text, environment, true)
    }

    fn compile(
        text: &str,
        environment: &Environment,
        omit_empty: bool,
    ) -> Result<Self, FormatError> {
        let mut parts = Vec::new();
        let mut literal = Vec::new();
        let mut at = 0;
        while let Some(byte) = text.as_bytes().get(at) {
            if *byte != b'%' {
                literal.push(*byte);
                at += 1;
            } else if text.as_bytes().get(at + 1) == Some(&b'%') {
                literal.push(b'%');
                at += 2;
            } else {
                let command = Command::parse(&text[at + 1..])
                    .ok_or_else(|| FormatError::Syntax(text.to_owned(), at))?;
                if !literal.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut literal).into()));
                }
                parts.push(Part::Operator(operators::compile(&command, environment)?));
                at += 1 + command.len;
            }
        }
        if !literal.is_empty() {
            parts.push(Part::Text(literal.into()));
        }
        Ok(Self { parts: parts.into(), omit_empty })
    }

    /// The whole text, when it has no operator.
    pub fn as_literal(&self) -> Option<&[u8]> {
        match &*self.parts {
            [] => Some(b""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Appends the evaluated format as it is: for header values and bodies.
    pub fn append(&self, record: &LogRecord<'_>, out: &mut Vec<u8>) {
        self.evaluate(record, Mode::Raw, out);
    }

    /// Appends the evaluated format with every value escaped so that it cannot forge a line or leave its quotes.
    pub fn append_line(&self, record: &LogRecord<'_>, out: &mut Vec<u8>) {
        self.evaluate(record, Mode::Line, out);
    }

    /// Appends the evaluated format as one JSON value: typed if the format is a single operator, else a string. Answers
    /// whether there was a value.
    pub(super) fn append_json(&self, record: &LogRecord<'_>, out: &mut Vec<u8>) -> bool {
        if let [Part::Operator(operator)] = &*self.parts {
            let there = operator.write(
                record,
                &mut Output { bytes: out, mode: Mode::JsonValue, limit: operator.limit },
            );
            if !there {
                out.extend_from_slice(b"null");
            }
            return there;
        }
        out.push(b'"');
        self.evaluate(record, Mode::JsonString, out);
        out.push(b'"');
        true
    }

    fn evaluate(&self, record: &LogRecord<'_>, mode: Mode, out: &mut Vec<u8>) {
        for part in &self.parts {
            match part {
                // The text is the administrator's own: only JSON needs it escaped.
                Part::Text(text) if mode == Mode::JsonString => {
                    Output { bytes: out, mode, limit: None }.text(text);
                }
                Part::Text(text) => out.extend_from_slice(text),
                Part::Operator(operator) => {
                    let there = operator
                        .write(record, &mut Output { bytes: out, mode, limit: operator.limit });
                    if !there && !self.omit_empty {
                        out.push(b'-');
                    }
                }
            }
        }
    }
}

/// One `NAME(arguments):length%` as written.
pub(super) struct Command<'a> {
    pub name: &'a str,
    pub arguments: Option<&'a str>,
    pub length: Option<usize>,
    /// Bytes after the opening percent sign, the closing one included.
    len: usize,
}

impl<'a> Command<'a> {
    /// Reads what follows a `%`. Arguments end at the first `)` that `%` or `:length%` follows.
    fn parse(text: &'a str) -> Option<Self> {
        let name_len = text
            .bytes()
            .take_while(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || *b == b'_')
            .count();
        let name = text.get(..name_len).filter(|name| !name.is_empty())?;
        let rest = &text[name_len..];
        let Some(inner) = rest.strip_prefix('(') else {
            let (length, used) = tail(rest)?;
            return Some(Self { name, arguments: None, length, len: name_len + used });
        };
        let closings = inner.match_indices(')');
        closings.into_iter().find_map(|(at, _)| {
            let (length, used) = tail(&inner[at + 1..])?;
            Some(Self {
                name,
                arguments: Some(&inner[..at]),
                length,
                len: name_len + 1 + at + 1 + used,
            })
        })
    }
}

/// `%` or `:length%`.
fn tail(text: &str) -> Option<(Option<usize>, usize)> {
    if text.starts_with('%') {
        return Some((None, 1));
    }
    let digits = text.strip_prefix(':')?;
    let end = digits.find('%')?;
    Some((Some(digits[..end].parse().ok()?), end + 2))
}
