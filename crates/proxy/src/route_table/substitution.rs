//! `RegexMatchAndSubstitute`: RE2's global replace.

use regex_automata::Input;
use regex_automata::meta::Regex;
use regex_automata::util::captures::Captures;

use crate::string_matcher::{RegexError, search_regex};

/// Replaces every match of a pattern; `\1` to `\9` stand for groups, `\0` for the match, `\\` for a backslash.
#[derive(Clone, Debug)]
pub struct Substitution {
    regex: Regex,
    parts: Box<[Part]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Box<[u8]>),
    Group(usize),
}

/// Why a substitution was refused.
#[derive(Debug, thiserror::Error)]
pub enum SubstitutionError {
    /// The pattern.
    #[error(transparent)]
    Pattern(#[from] RegexError),
    /// The replacement.
    #[error("invalid substitution `{0}`: {1}")]
    Replacement(String, &'static str),
}

impl Substitution {
    /// Compiles a pattern in RE2 syntax and its replacement.
    ///
    /// # Errors
    /// When the pattern does not compile, or the replacement names a group that it does not have.
    pub fn new(pattern: &str, replacement: &str) -> Result<Substitution, SubstitutionError> {
        let regex = search_regex(pattern)?;
        let refuse = |reason| SubstitutionError::Replacement(replacement.to_owned(), reason);
        let parts = parse(replacement).map_err(refuse)?;
        let groups = regex.captures_len();
        if parts.iter().any(|part| matches!(part, Part::Group(group) if *group >= groups)) {
            return Err(refuse("the pattern has fewer groups"));
        }
        Ok(Substitution { regex, parts })
    }

    /// Appends `subject` with every match replaced.
    pub fn append(&self, subject: &[u8], out: &mut Vec<u8>) {
        let mut captures = self.regex.create_captures();
        let mut written = 0;
        let mut at = 0;
        while at <= subject.len() {
            self.regex.search_captures(&Input::new(subject).range(at..), &mut captures);
            let Some(found) = captures.get_match() else { break };
            // RE2: no empty match right after a match.
            if found.is_empty() && found.start() == written && written > 0 {
                at = found.end() + 1;
                continue;
            }
            out.extend_from_slice(&subject[written..found.start()]);
            self.append_replacement(subject, &captures, out);
            written = found.end();
            at = if found.is_empty() { found.end() + 1 } else { found.end() };
        }
        out.extend_from_slice(&subject[written..]);
    }

    fn append_replacement(&self, subject: &[u8], captures: &Captures, out: &mut Vec<u8>) {
        for part in &self.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text),
                Part::Group(group) => {
                    let span =
                        captures.get_group(*group).map(|span| span.range()).unwrap_or_default();
                    out.extend_from_slice(&subject[span]);
                }
            }
        }
    }
}

fn parse(replacement: &str) -> Result<Box<[Part]>, &'static str> {
    let mut parts = Vec::new();
    let mut text = Vec::new();
    let mut bytes = replacement.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            text.push(byte);
            continue;
        }
        match bytes.next() {
            Some(b'\\') => text.push(b'\\'),
            Some(digit @ b'0'..=b'9') => {
                if !text.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut text).into()));
                }
                parts.push(Part::Group(usize::from(digit - b'0')));
            }
            Some(_) => return Err("a backslash is followed by neither a digit nor a backslash"),
            None => return Err("it ends in a backslash"),
        }
    }
    if !text.is_empty() {
        parts.push(Part::Text(text.into()));
    }
    Ok(parts.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_as_re2_does() {
        let table = [
            (
                "^/service/([^/]+)(/.*)$",
                r"\2/instance/\1",
                "/service/foo/v1/api",
                "/v1/api/instance/foo",
            ),
            ("one", "two", "/xxx/one/yyy/one/zzz", "/xxx/two/yyy/two/zzz"),
            ("^(.*?)one(.*)$", r"\1two\2", "/xxx/one/yyy/one/zzz", "/xxx/two/yyy/one/zzz"),
            ("(?i)/xxx/", "/yyy/", "/aaa/XxX/bbb", "/aaa/yyy/bbb"),
            ("/", r"\\\0", "/a/", r"\/a\/"),
            ("x*", "-", "abc", "-a-b-c-"),
            ("b*", "-", "abc", "-a-c-"),
            ("nothing", "x", "/abc", "/abc"),
        ];
        for (pattern, replacement, subject, expected) in table {
            let mut out = Vec::new();
            Substitution::new(pattern, replacement).unwrap().append(subject.as_bytes(), &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected, "s/{pattern}/{replacement}/");
        }
    }

    #[test]
    fn replacements_are_checked() {
        for (pattern, replacement) in
            [("(a)", r"\2"), ("a", r"\1"), ("a", r"\x"), ("a", "\\"), ("(", "")]
        {
            assert!(Substitution::new(pattern, replacement).is_err(), "s/{pattern}/{replacement}/");
        }
    }
}
