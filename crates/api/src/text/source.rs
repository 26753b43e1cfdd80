//! Where things are in the text, and how a problem is shown.

use std::collections::HashMap;
use std::fmt::Write as _;

/// A text that configuration is read from.
#[derive(Debug, Clone)]
pub struct Source {
    /// What to call it in messages: a file's name, `--config-yaml`.
    pub name: String,
    /// The whole text.
    pub text: String,
}

/// The texts of one configuration, the later over the earlier.
#[derive(Debug, Clone, Default)]
pub struct Sources(Vec<Source>);

impl Sources {
    /// One text.
    pub fn one(name: &str, text: &str) -> Self {
        let mut sources = Self::default();
        sources.push(name, text);
        sources
    }

    /// Lays another text over those before.
    pub fn push(&mut self, name: &str, text: &str) {
        self.0.push(Source { name: name.to_owned(), text: text.to_owned() });
    }

    /// The texts in order.
    pub fn iter(&self) -> impl Iterator<Item = &Source> {
        self.0.iter()
    }

    /// Shows a problem with file, line, column and the line itself, several lines of text.
    pub fn render(&self, problem: &Problem) -> String {
        let mut out = problem.to_string();
        let Some(place) = problem.place else { return out };
        let Some(source) = self.0.get(usize::from(place.source)) else { return out };
        let line =
            source.text.lines().nth(place.line.saturating_sub(1) as usize).unwrap_or_default();
        let (line, caret) = excerpt(line, place.column.saturating_sub(1) as usize);
        let margin = place.line.to_string().len();
        let width =
            (place.width.max(1) as usize).min(line.chars().count().saturating_sub(caret).max(1));
        let _ = write!(
            out,
            "\n{:margin$}--> {}:{}:{}\n{:margin$} |\n{} | {}\n{:margin$} | {}{}",
            "",
            source.name,
            place.line,
            place.column,
            "",
            place.line,
            line,
            "",
            " ".repeat(caret),
            "^".repeat(width),
        );
        out
    }
}

/// As much of a line as is shown, and where `caret` is in it: a long one is cut around it.
fn excerpt(line: &str, caret: usize) -> (String, usize) {
    const SHOWN: usize = 160;
    const BEFORE_CARET: usize = 100;

    let len = line.chars().count();
    if len <= SHOWN {
        return (line.to_owned(), caret);
    }
    let from = if caret < SHOWN - 10 { 0 } else { caret - BEFORE_CARET };
    let mut shown = if from > 0 { "…".to_owned() } else { String::new() };
    let caret = caret - from + shown.chars().count();
    shown.extend(line.chars().skip(from).take(SHOWN));
    if from + SHOWN < len {
        shown.push('…');
    }
    (shown, caret)
}

/// A place in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Which of the sources.
    pub source: u8,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// Characters to underline on that line.
    pub width: u32,
}

/// One thing that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{}{message}", path, if path.is_empty() { "" } else { ": " })]
pub struct Problem {
    /// The path to it from the root, `static_resources.listeners[0].name`; empty for the whole.
    pub path: String,
    /// What is wrong and, where known, what would be right.
    pub message: String,
    /// Where it is, when it came from text.
    pub place: Option<Place>,
}

impl Problem {
    /// A problem at a path.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into(), place: None }
    }

    /// The same problem with `prefix` before its path.
    #[must_use]
    pub fn under(mut self, prefix: &str) -> Self {
        if self.path.is_empty() {
            prefix.clone_into(&mut self.path);
        } else if self.path.starts_with('[') {
            self.path = format!("{prefix}{}", self.path);
        } else if !prefix.is_empty() {
            self.path = format!("{prefix}.{}", self.path);
        }
        self
    }
}

/// The place of every path of a document.
#[derive(Debug, Clone, Default)]
pub struct Spans(HashMap<Box<str>, Place>);

impl Spans {
    pub(super) fn insert(&mut self, path: &str, place: Place) {
        self.0.insert(path.into(), place);
    }

    /// The place of `path`, or of the nearest thing that encloses it.
    pub fn find(&self, path: &str) -> Option<Place> {
        let mut path = path;
        loop {
            if let Some(place) = self.0.get(path) {
                return Some(*place);
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }

    /// Gives a problem its place.
    #[must_use]
    pub fn locate(&self, mut problem: Problem) -> Problem {
        if problem.place.is_none() {
            problem.place = self.find(&problem.path);
        }
        problem
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_shown_around_the_problem() {
        let line = format!("{}WRONG{}", "a".repeat(300), "b".repeat(300));
        let sources = Sources::one("--config-yaml", &line);
        let place = Place { source: 0, line: 1, column: 301, width: 5 };
        let shown = sources.render(&Problem { place: Some(place), ..Problem::new("x", "is bad") });
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines[1].ends_with("--> --config-yaml:1:301"), "{shown}");
        let caret = lines[4].find('^').expect("a caret");
        // The line begins with an ellipsis, which is one character of three bytes.
        let under: String = lines[3].chars().skip(caret).take(5).collect();
        assert_eq!((under.as_str(), lines[4].matches('^').count()), ("WRONG", 5), "{shown}");
        assert!(lines[3].chars().count() < 180 && lines[3].ends_with('…'), "{shown}");
    }

    #[test]
    fn a_problem_is_shown_with_its_line() {
        let sources = Sources::one("a.yaml", "x: 1\nlong: true\n");
        let place = Place { source: 0, line: 2, column: 1, width: 4 };
        let problem = Problem { place: Some(place), ..Problem::new("long", "is too long") };
        assert_eq!(
            sources.render(&problem),
            "long: is too long\n --> a.yaml:2:1\n  |\n2 | long: true\n  | ^^^^"
        );
    }

    #[test]
    fn a_path_without_a_place_has_that_of_what_encloses_it() {
        let mut spans = Spans::default();
        let place = Place { source: 0, line: 3, column: 2, width: 1 };
        spans.insert("a.b[1]", place);
        assert_eq!(spans.find("a.b[1].c.d[0]"), Some(place));
        assert_eq!(spans.find("a.c"), None);
    }

    #[test]
    fn prefixes_join() {
        assert_eq!(Problem::new("b", "m").under("a[0]").path, "a[0].b");
        assert_eq!(Problem::new("[1]", "m").under("a").path, "a[1]");
        assert_eq!(Problem::new("", "m").under("a").path, "a");
    }
}
