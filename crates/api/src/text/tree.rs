//! A YAML or JSON document as a tree in which everything knows its place.

use std::collections::HashMap;

use granit_parser::{Event, Parser, ScalarStyle, Span};

use super::source::{Place, Problem};

/// Deeper documents are refused: nothing real is, and a hostile one would exhaust the stack.
const MAX_DEPTH: usize = 128;
/// Aliases may make a document grow to so many nodes.
const MAX_NODES: usize = 2_000_000;

/// A value and its place.
#[derive(Debug, Clone)]
pub struct Node {
    pub place: Place,
    pub value: Value,
}

/// What a node holds.
#[derive(Debug, Clone)]
pub enum Value {
    /// A scalar; a plain one (without quotes) may mean a number, a boolean or null, which its reader decides.
    Scalar { text: String, plain: bool },
    /// A list.
    List(Vec<Node>),
    /// An object, in the order of the text.
    Object(Vec<Entry>),
}

/// A key with its value.
#[derive(Debug, Clone)]
pub struct Entry {
    pub key: String,
    pub key_place: Place,
    pub value: Node,
}

impl Node {
    /// Is it null: an empty value, `~` or `null` without quotes?
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true }
            if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// How a message calls it.
    pub fn describe(&self) -> String {
        match &self.value {
            Value::Scalar { .. } if self.is_null() => "nothing".to_owned(),
            Value::Scalar { text, plain: true } => format!("`{}`", shorten(text)),
            Value::Scalar { text, plain: false } => format!("the string \"{}\"", shorten(text)),
            Value::List(_) => "a list".to_owned(),
            Value::Object(_) => "an object".to_owned(),
        }
    }
}

fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(40).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short.escape_debug().to_string()
}

/// Parses one document. Everything wrong with the syntax is one problem (a parser cannot go on), repeated keys are
/// one each.
pub fn parse(text: &str, source: u8) -> Result<Node, Vec<Problem>> {
    let mut builder = Builder {
        parser: Parser::new_from_str(text),
        source,
        anchors: HashMap::new(),
        nodes: 0,
        problems: Vec::new(),
    };
    match builder.document() {
        Ok(node) if builder.problems.is_empty() => Ok(node),
        Ok(_) => Err(builder.problems),
        Err(problem) => {
            builder.problems.push(*problem);
            Err(builder.problems)
        }
    }
}

type Fallible<T> = Result<T, Box<Problem>>;

struct Builder<'a> {
    parser: Parser<'a, granit_parser::StrInput<'a>>,
    source: u8,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    problems: Vec<Problem>,
}

impl<'a> Builder<'a> {
    fn place(&self, span: Span) -> Place {
        let (start, end) = (span.start, span.end);
        let width =
            if start.line() == end.line() { end.col().saturating_sub(start.col()) } else { 1 };
        Place {
            source: self.source,
            line: start.line() as u32,
            column: start.col() as u32 + 1,
            width: width as u32,
        }
    }

    fn problem(&self, span: Span, message: impl Into<String>) -> Box<Problem> {
        Box::new(Problem { place: Some(self.place(span)), ..Problem::new("", message) })
    }

    fn next(&mut self) -> Fallible<(Event<'a>, Span)> {
        loop {
            match self.parser.next_event() {
                Some(Ok((Event::Comment(..) | Event::Anchor(..), _))) => {}
                Some(Ok(found)) => return Ok(found),
                Some(Err(error)) => {
                    let at = Span::empty(*error.marker());
                    return Err(self.problem(at, format!("not YAML: {}", error.info())));
                }
                None => return Ok((Event::StreamEnd, Span::default())),
            }
        }
    }

    fn document(&mut self) -> Fallible<Node> {
        let mut root = None;
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => break,
                (Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd, _) => {}
                (_, span) if root.is_some() => {
                    return Err(self.problem(span, "more than one document in the file"));
                }
                (event, span) => root = Some(self.node(event, span, 0)?),
            }
        }
        let place = Place { source: self.source, line: 1, column: 1, width: 1 };
        Ok(root.unwrap_or(Node { place, value: Value::Object(Vec::new()) }))
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Fallible<Node> {
        self.nodes += 1;
        if depth > MAX_DEPTH || self.nodes > MAX_NODES {
            return Err(self.problem(span, "too deep or too large"));
        }
        let place = self.place(span);
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let forced =
                    tag.is_some_and(|tag| tag.suffix() == "str" || tag.suffix().is_empty());
                let plain = style == ScalarStyle::Plain && !forced;
                (Value::Scalar { text: text.into_owned(), plain }, anchor)
            }
            Event::SequenceStart(_, anchor, _) => (self.list(depth)?, anchor),
            Event::MappingStart(_, anchor, _) => (self.object(depth)?, anchor),
            Event::Alias(anchor) => {
                let grown = self.anchors.get(&anchor).map(|node| self.nodes + size(node));
                self.nodes =
                    grown.ok_or_else(|| self.problem(span, "an alias to what encloses it"))?;
                if self.nodes > MAX_NODES {
                    return Err(self.problem(span, "aliases make the document too large"));
                }
                return Ok(self.anchors[&anchor].clone());
            }
            _ => return Err(self.problem(span, "not YAML: a value is missing")),
        };
        let node = Node { place, value };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Fallible<Value> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Value::List(items)),
                (event, span) => items.push(self.node(event, span, depth + 1)?),
            }
        }
    }

    fn object(&mut self, depth: usize) -> Fallible<Value> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut inherited = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                break;
            }
            let key_place = self.place(span);
            let Node { value: Value::Scalar { text: key, plain }, .. } =
                self.node(event, span, depth + 1)?
            else {
                return Err(self.problem(span, "a key must be a scalar"));
            };
            let (event, span) = self.next()?;
            let value = self.node(event, span, depth + 1)?;
            if plain && key == "<<" {
                inherited.push(value);
            } else if entries.iter().any(|entry| entry.key == key) {
                let message = format!("`{key}` is set twice in one object");
                self.problems.push(Problem { place: Some(key_place), ..Problem::new("", message) });
            } else {
                entries.push(Entry { key, key_place, value });
            }
        }
        for node in inherited {
            inherit(&mut entries, node);
        }
        Ok(Value::Object(entries))
    }
}

/// YAML's merge key: what the object itself has wins.
fn inherit(entries: &mut Vec<Entry>, node: Node) {
    match node.value {
        Value::Object(inherited) => {
            for entry in inherited {
                if !entries.iter().any(|own| own.key == entry.key) {
                    entries.push(entry);
                }
            }
        }
        Value::List(nodes) => nodes.into_iter().for_each(|node| inherit(entries, node)),
        Value::Scalar { .. } => {}
    }
}

fn size(node: &Node) -> usize {
    1 + match &node.value {
        Value::Scalar { .. } => 0,
        Value::List(items) => items.iter().map(size).sum(),
        Value::Object(entries) => entries.iter().map(|entry| size(&entry.value)).sum(),
    }
}

/// Lays `over` on `base`: objects merge, lists append, everything else is replaced.
pub fn merge(base: &mut Node, over: Node) {
    match (&mut base.value, over.value) {
        (Value::Object(entries), Value::Object(added)) if same_type(entries, &added) => {
            for entry in added {
                match entries.iter_mut().find(|own| own.key == entry.key) {
                    Some(own) => merge(&mut own.value, entry.value),
                    None => entries.push(entry),
                }
            }
        }
        (Value::List(items), Value::List(added)) => items.extend(added),
        (value, over_value) => {
            *value = over_value;
            base.place = over.place;
        }
    }
}

/// Two objects of different `@type`s do not merge: the later replaces the earlier, as it does for an `Any`.
fn same_type(a: &[Entry], b: &[Entry]) -> bool {
    let type_of = |entries: &[Entry]| {
        entries.iter().find(|entry| entry.key == "@type").map(|entry| match &entry.value.value {
            Value::Scalar { text, .. } => text.clone(),
            _ => String::new(),
        })
    };
    type_of(b).is_none() || type_of(b) == type_of(a)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(node: &Node) -> String {
        match &node.value {
            Value::Scalar { text, plain: true } => text.clone(),
            Value::Scalar { text, plain: false } => format!("{text:?}"),
            Value::List(items) => {
                format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(" "))
            }
            Value::Object(entries) => {
                let entries =
                    entries.iter().map(|entry| format!("{}:{}", entry.key, show(&entry.value)));
                format!("{{{}}}", entries.collect::<Vec<_>>().join(" "))
            }
        }
    }

    #[test]
    fn documents() {
        for (text, shown) in [
            ("a: 1\nb: [x, 'y']\n", "{a:1 b:[x \"y\"]}"),
            ("{\"a\": {\"b\": null}}", "{a:{b:null}}"),
            ("", "{}"),
            ("a: &x {k: v}\nb: *x\nc: {<<: *x, k: w, m: n}\n", "{a:{k:v} b:{k:v} c:{k:w m:n}}"),
            ("a: |\n  one\n  two\n", "{a:\"one\\ntwo\\n\"}"),
        ] {
            assert_eq!(show(&parse(text, 0).unwrap()), shown, "{text}");
        }
    }

    #[test]
    fn places() {
        let node = parse("a:\n  - bcd: 1\n", 3).unwrap();
        let Value::Object(entries) = &node.value else { panic!() };
        assert_eq!(entries[0].key_place, Place { source: 3, line: 1, column: 1, width: 1 });
        let Value::List(items) = &entries[0].value.value else { panic!() };
        let Value::Object(inner) = &items[0].value else { panic!() };
        assert_eq!(inner[0].key_place, Place { source: 3, line: 2, column: 5, width: 3 });
    }

    #[test]
    fn bad_documents() {
        for (text, line, message) in [
            ("a: [1\n", 1, "not YAML"),
            ("a: 1\nb: 2\na: 3\n", 3, "`a` is set twice"),
            ("a: 1\n---\nb: 2\n", 3, "more than one document"),
        ] {
            let problems = parse(text, 0).unwrap_err();
            assert!(problems[0].message.contains(message), "{text}: {problems:?}");
            assert_eq!(problems[0].place.unwrap().line, line, "{text}: {problems:?}");
        }
        assert!(parse(&"[".repeat(1000), 0).is_err());
    }

    #[test]
    fn merging() {
        let mut base = parse("a: {b: 1, c: [x]}\nd: {'@type': t, e: 1}\n", 0).unwrap();
        merge(&mut base, parse("a: {b: 2, c: [y]}\nd: {'@type': u, f: 1}\n", 1).unwrap());
        assert_eq!(show(&base), "{a:{b:2 c:[x y]} d:{@type:u f:1}}");
    }
}
