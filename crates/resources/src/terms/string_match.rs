//! Istio's `StringMatch`.

use crate::field::{Fields, Reason};

/// How a string is compared.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StringMatch {
    /// Equal.
    Exact(String),
    /// Starts with this.
    Prefix(String),
    /// The whole string matches this RE2 expression.
    Regex(String),
}

/// How a named value that may be missing is compared.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ValueMatch {
    /// It is there, whatever it says. Written as an empty match, `{}`.
    Present,
    /// It is there and matches.
    Matches(StringMatch),
}

impl StringMatch {
    /// Reads a match that must say `exact`, `prefix` or `regex`.
    pub fn read(fields: &mut Fields<'_>) -> Self {
        match Self::read_optional(fields) {
            Some(found) => found,
            None => {
                if fields.count(&["exact", "prefix", "regex"]) == 0 {
                    fields.error(Reason::Required, "one of exact, prefix, regex is required");
                }
                Self::Exact(String::new())
            }
        }
    }

    /// Reads a match that may be empty.
    pub fn read_optional(fields: &mut Fields<'_>) -> Option<Self> {
        let exact = fields.optional_text("exact");
        let prefix = fields.optional_text("prefix");
        let regex = fields.optional_text("regex");
        fields.at_most_one(&["exact", "prefix", "regex"]);
        if prefix.as_deref() == Some("") {
            fields.error_in(
                "prefix",
                Reason::Invalid,
                "an empty prefix matches everything: leave the match out instead",
            );
        }
        if let Some(regex) = &regex
            && let Err(error) = check_regex(regex)
        {
            fields.error_in("regex", Reason::Invalid, format!("invalid value {regex:?}: {error}"));
        }
        exact.map(Self::Exact).or(prefix.map(Self::Prefix)).or(regex.map(Self::Regex))
    }
}

impl ValueMatch {
    /// Reads a match that may be empty.
    pub fn read(fields: &mut Fields<'_>) -> Self {
        StringMatch::read_optional(fields).map_or(Self::Present, Self::Matches)
    }
}

/// Whether an expression is one that the data plane takes: RE2 syntax, 1 to 1024 characters.
pub fn check_regex(regex: &str) -> Result<(), String> {
    if regex.is_empty() {
        return Err("an expression may not be empty".to_owned());
    }
    if regex.len() > 1024 {
        return Err("an expression may have up to 1024 characters".to_owned());
    }
    match regex_syntax::parse(regex) {
        Ok(_) => Ok(()),
        Err(regex_syntax::Error::Parse(error)) => {
            Err(format!("{} at character {}", error.kind(), error.span().start.column))
        }
        Err(error) => Err(error.to_string()),
    }
}
