//! JSON formats: nested objects and lists whose strings are formats, typed where a string is a single operator.

use super::format::{Environment, Format, FormatError};
use crate::stream_info::LogRecord;

/// What is to be compiled: a JSON value whose strings are formats.
pub type JsonTemplate = serde_json::Value;

/// A compiled JSON format. Keys are sorted, as in Envoy.
#[derive(Clone, Debug)]
pub struct JsonFormat {
    root: Node,
    omit_empty: bool,
}

#[derive(Clone, Debug)]
enum Node {
    /// Written as it is.
    Constant(Box<[u8]>),
    Format(Format),
    List(Box<[Node]>),
    /// Keys quoted and escaped, with the colon.
    Object(Box<[(Box<[u8]>, Node)]>),
}

impl JsonFormat {
    /// Compiles a template. With `omit_empty`, keys without a value are left out instead of being `null`.
    ///
    /// # Errors
    /// When one of its strings is not a format.
    pub fn compile(
        template: &JsonTemplate,
        omit_empty: bool,
        environment: &Environment,
    ) -> Result<Self, FormatError> {
        Ok(Self { root: Node::compile(template, omit_empty, environment)?, omit_empty })
    }

    /// Appends the evaluated object; no end of line.
    pub fn append(&self, record: &LogRecord<'_>, out: &mut Vec<u8>) {
        self.root.append(record, self.omit_empty, out);
    }
}

impl Node {
    fn compile(
        template: &JsonTemplate,
        omit_empty: bool,
        environment: &Environment,
    ) -> Result<Self, FormatError> {
        let constant = |value: &JsonTemplate| Node::Constant(value.to_string().into_bytes().into());
        Ok(match template {
            JsonTemplate::String(text) => {
                let format = if omit_empty {
                    Format::parse_omitting_empty(text, environment)?
                } else {
                    Format::parse(text, environment)?
                };
                match format.as_literal() {
                    Some(text) => constant(&String::from_utf8_lossy(text).into_owned().into()),
                    None => Node::Format(format),
                }
            }
            JsonTemplate::Array(items) => {
                let nodes = items.iter().map(|item| Self::compile(item, omit_empty, environment));
                Node::List(nodes.collect::<Result<_, _>>()?)
            }
            JsonTemplate::Object(map) => {
                let mut fields: Vec<_> = map.iter().collect();
                fields.sort_by_key(|(key, _)| *key);
                let nodes = fields.into_iter().map(|(key, value)| {
                    let key = format!("{}:", JsonTemplate::from(key.as_str())).into_bytes();
                    Ok((key.into(), Self::compile(value, omit_empty, environment)?))
                });
                Node::Object(nodes.collect::<Result<_, FormatError>>()?)
            }
            value => constant(value),
        })
    }

    /// Answers whether there was a value.
    fn append(&self, record: &LogRecord<'_>, omit_empty: bool, out: &mut Vec<u8>) -> bool {
        match self {
            Node::Constant(bytes) => {
                out.extend_from_slice(bytes);
                true
            }
            Node::Format(format) => format.append_json(record, out),
            Node::List(items) => {
                out.push(b'[');
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    item.append(record, omit_empty, out);
                }
                out.push(b']');
                true
            }
            Node::Object(fields) => {
                out.push(b'{');
                let mut separator = false;
                for (key, value) in fields {
                    let before = out.len();
                    if separator {
                        out.push(b',');
                    }
                    out.extend_from_slice(key);
                    if !value.append(record, omit_empty, out) && omit_empty {
                        out.truncate(before);
                    } else {
                        separator = true;
                    }
                }
                out.push(b'}');
                true
            }
        }
    }
}
