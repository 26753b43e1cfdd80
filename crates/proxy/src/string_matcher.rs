//! How a configured pattern meets a string: Envoy's `type.matcher.v3.StringMatcher`, compiled.

mod re2;

use std::fmt;

use regex_automata::MatchKind;
use regex_automata::meta::Regex;

/// What the subject is compared with.
#[derive(Clone)]
pub enum StringPattern {
    /// The whole string.
    Exact(Box<str>),
    /// The string's beginning.
    Prefix(Box<str>),
    /// The string's end.
    Suffix(Box<str>),
    /// Anywhere in the string.
    Contains(Box<str>),
    /// The whole string, RE2 syntax. `ignore_case` does not apply to it (as in Envoy).
    Regex(Regex),
}

/// One compiled string matcher.
#[derive(Clone)]
pub struct StringMatcher {
    pattern: StringPattern,
    ignore_case: bool,
}

/// Why a regular expression could not be used.
#[derive(Debug, thiserror::Error)]
#[error("invalid regular expression `{pattern}`: {reason}")]
pub struct RegexError {
    /// The pattern as configured.
    pub pattern: String,
    /// What the compiler said.
    pub reason: String,
}

impl StringMatcher {
    /// A matcher on a literal pattern. With `ignore_case`, ASCII case is ignored.
    pub fn new(pattern: StringPattern, ignore_case: bool) -> Self {
        Self { pattern, ignore_case }
    }

    /// The whole string must equal `text`.
    pub fn exact(text: &str) -> Self {
        Self::new(StringPattern::Exact(text.into()), false)
    }

    /// A full match of an RE2 pattern.
    ///
    /// # Errors
    /// When the pattern does not compile or is too large.
    pub fn regex(pattern: &str) -> Result<Self, RegexError> {
        Ok(Self::new(StringPattern::Regex(full_match_regex(pattern)?), false))
    }

    /// Does `subject` match?
    pub fn matches(&self, subject: &[u8]) -> bool {
        match &self.pattern {
            StringPattern::Exact(text) => self.eq(subject, text.as_bytes()),
            StringPattern::Prefix(text) => {
                subject.len() >= text.len() && self.eq(&subject[..text.len()], text.as_bytes())
            }
            StringPattern::Suffix(text) => {
                subject.len() >= text.len()
                    && self.eq(&subject[subject.len() - text.len()..], text.as_bytes())
            }
            StringPattern::Contains(text) => self.contains(subject, text.as_bytes()),
            StringPattern::Regex(regex) => regex.is_match(subject),
        }
    }

    fn eq(&self, a: &[u8], b: &[u8]) -> bool {
        if self.ignore_case { a.eq_ignore_ascii_case(b) } else { a == b }
    }

    fn contains(&self, subject: &[u8], needle: &[u8]) -> bool {
        if needle.is_empty() {
            return true;
        }
        if self.ignore_case {
            return subject.windows(needle.len()).any(|window| window.eq_ignore_ascii_case(needle));
        }
        memchr::memmem::find(subject, needle).is_some()
    }
}

/// Compiles a pattern that must match the whole subject, as Envoy's `safe_regex` does.
///
/// # Errors
/// When the pattern does not compile, is not RE2, or is too large.
pub fn full_match_regex(pattern: &str) -> Result<Regex, RegexError> {
    full_match_regexes(&[pattern], MatchKind::LeftmostFirst)
}

/// As [`full_match_regex`], for several patterns in one automaton.
///
/// # Errors
/// As [`full_match_regex`]; the error names the first pattern if it is not known which one is at fault.
pub fn full_match_regexes(patterns: &[&str], kind: MatchKind) -> Result<Regex, RegexError> {
    let anchored: Vec<String> = patterns
        .iter()
        .map(|pattern| Ok(format!(r"\A(?:{})\z", to_rust(pattern)?)))
        .collect::<Result<_, RegexError>>()?;
    build(&anchored, kind).map_err(|reason| refused(patterns.first().unwrap_or(&""), reason))
}

/// Compiles a pattern that may match anywhere in the subject: for substitutions.
///
/// # Errors
/// As [`full_match_regex`].
pub fn search_regex(pattern: &str) -> Result<Regex, RegexError> {
    build(&[to_rust(pattern)?], MatchKind::LeftmostFirst).map_err(|reason| refused(pattern, reason))
}

fn to_rust(pattern: &str) -> Result<String, RegexError> {
    re2::translate(pattern).map_err(|reason| refused(pattern, reason))
}

fn refused(pattern: &str, reason: String) -> RegexError {
    RegexError { pattern: pattern.to_owned(), reason }
}

fn build(patterns: &[String], kind: MatchKind) -> Result<Regex, String> {
    /// An automaton is compiled from configuration, which comes from others: it must not eat the memory.
    const NFA_BYTES: usize = 4 << 20;
    /// Of lazily built states, per worker that searches.
    const CACHE_BYTES: usize = 512 << 10;

    let config = Regex::config()
        .nfa_size_limit(Some(NFA_BYTES))
        .hybrid_cache_capacity(CACHE_BYTES)
        .match_kind(kind);
    Regex::builder()
        .configure(config)
        .syntax(regex_automata::util::syntax::Config::new().utf8(false))
        .build_many(patterns)
        .map_err(|error| {
            let cause = std::error::Error::source(&error)
                .map(|cause| format!(": {cause}"))
                .unwrap_or_default();
            format!("{error}{cause}")
        })
}

impl fmt::Debug for StringMatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, text) = match &self.pattern {
            StringPattern::Exact(text) => ("exact", &**text),
            StringPattern::Prefix(text) => ("prefix", &**text),
            StringPattern::Suffix(text) => ("suffix", &**text),
            StringPattern::Contains(text) => ("contains", &**text),
            StringPattern::Regex(_) => ("regex", "…"),
        };
        write!(f, "{kind}({text}{})", if self.ignore_case { ", ignore case" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals() {
        let m = |p, i| StringMatcher::new(p, i);
        assert!(m(StringPattern::Exact("a.b".into()), false).matches(b"a.b"));
        assert!(!m(StringPattern::Exact("a.b".into()), false).matches(b"A.b"));
        assert!(m(StringPattern::Exact("a.b".into()), true).matches(b"A.B"));
        assert!(m(StringPattern::Prefix("spiffe://".into()), false).matches(b"spiffe://x"));
        assert!(!m(StringPattern::Prefix("spiffe://".into()), false).matches(b"spiffe"));
        assert!(m(StringPattern::Suffix(".com".into()), true).matches(b"x.COM"));
        assert!(m(StringPattern::Contains("bc".into()), false).matches(b"abcd"));
        assert!(!m(StringPattern::Contains("bd".into()), false).matches(b"abcd"));
    }

    #[test]
    fn regex_matches_the_whole_subject() {
        let m = StringMatcher::regex("a|ab").unwrap();
        assert!(m.matches(b"ab"));
        assert!(!m.matches(b"abc"));
        assert!(StringMatcher::regex("(").is_err());
    }
}
