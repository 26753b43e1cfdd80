//! From parser events to values with their places.

use std::collections::HashMap;

use serde_json::{Map, Value};
use serde_saphyr::granit_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span, Tag};

use super::{Place, Places, scalar};
use crate::field::Segment;

/// Most values of a text, aliases counted as what they stand for: a small file must not fill the memory.
const MAX_VALUES: usize = 1_000_000;

type Tree = (Value, Places);

/// Every document of a text with the places of its values, and what was wrong. A document with a problem is left
/// out; after bad syntax nothing more is read.
pub fn parse_tree(text: &str) -> (Vec<Tree>, Vec<(Place, String)>) {
    let mut reader = Reader {
        events: Parser::new_from_str(text),
        anchors: HashMap::new(),
        problems: Vec::new(),
        values: 0,
    };
    let mut documents = Vec::new();
    loop {
        let before = reader.problems.len();
        match reader.document() {
            Ok(Some(tree)) if reader.problems.len() == before => documents.push(tree),
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(stop) => {
                reader.problems.push(stop);
                break;
            }
        }
    }
    (documents, reader.problems)
}

/// A problem after which the text cannot be read on.
type Stop = (Place, String);

struct Reader<'t> {
    events: Parser<'t, serde_saphyr::granit_parser::StrInput<'t>>,
    anchors: HashMap<usize, Tree>,
    problems: Vec<(Place, String)>,
    values: usize,
}

impl<'t> Reader<'t> {
    /// The next event that is not a comment; none at the end.
    fn next(&mut self) -> Result<Option<(Event<'t>, Span)>, Stop> {
        loop {
            match self.events.next() {
                None => return Ok(None),
                Some(Ok((Event::Comment(..), _))) => {}
                Some(Ok(event)) => return Ok(Some(event)),
                Some(Err(error)) => return Err(stop(&error)),
            }
        }
    }

    fn document(&mut self) -> Result<Option<Tree>, Stop> {
        self.anchors.clear();
        loop {
            match self.next()? {
                None | Some((Event::StreamEnd, _)) => return Ok(None),
                Some((Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd, _)) => {}
                Some((event, span)) => return self.node(event, span).map(Some),
            }
        }
    }

    fn node(&mut self, event: Event<'t>, span: Span) -> Result<Tree, Stop> {
        let place = place_of(&span.start);
        self.count(1, place)?;
        let (anchor, tree) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                (anchor, (self.scalar(&text, style, tag.as_deref(), place), leaf(place)))
            }
            Event::SequenceStart(_, anchor, _) => (anchor, self.sequence(place)?),
            Event::MappingStart(_, anchor, _) => (anchor, self.mapping(place)?),
            Event::Alias(anchor) => return self.alias(anchor, place),
            other => return Err((place, format!("unexpected {other:?}"))),
        };
        if anchor > 0 {
            self.anchors.insert(anchor, tree.clone());
        }
        Ok(tree)
    }

    fn count(&mut self, values: usize, place: Place) -> Result<(), Stop> {
        self.values += values;
        if self.values > MAX_VALUES {
            return Err((place, format!("more than {MAX_VALUES} values, aliases counted")));
        }
        Ok(())
    }

    fn alias(&mut self, anchor: usize, place: Place) -> Result<Tree, Stop> {
        let Some((value, mut places)) = self.anchors.get(&anchor).cloned() else {
            return Err((place, "an alias may not be within what it stands for".to_owned()));
        };
        self.count(size(&places), place)?;
        places.place = place;
        Ok((value, places))
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>, place: Place) -> Value {
        match tag.map(|tag| tag.suffix()) {
            None if style == ScalarStyle::Plain => scalar::plain(text),
            None | Some("str") => Value::String(text.to_owned()),
            Some("null" | "bool" | "int" | "float") => scalar::plain(text),
            Some(other) => {
                self.problems.push((place, format!("the tag {other:?} is not supported")));
                Value::Null
            }
        }
    }

    fn sequence(&mut self, place: Place) -> Result<Tree, Stop> {
        let (mut items, mut children) = (Vec::new(), Vec::new());
        loop {
            match self.next()? {
                Some((Event::SequenceEnd, _)) => break,
                Some((event, span)) => {
                    let (item, places) = self.node(event, span)?;
                    children.push((Segment::Index(items.len()), places));
                    items.push(item);
                }
                None => return Err((place, "the list has no end".to_owned())),
            }
        }
        Ok((Value::Array(items), Places { place, children }))
    }

    fn mapping(&mut self, place: Place) -> Result<Tree, Stop> {
        let mut fields = Map::new();
        let mut children: Vec<(Segment, Places)> = Vec::new();
        let mut merges = Vec::new();
        loop {
            let (key, key_place) = match self.next()? {
                Some((Event::MappingEnd, _)) => break,
                Some((event, span)) => {
                    let (key, places) = self.node(event, span)?;
                    (key, places.place)
                }
                None => return Err((place, "the map has no end".to_owned())),
            };
            let Some((event, span)) = self.next()? else {
                return Err((place, "the map has no end".to_owned()));
            };
            let (value, mut places) = self.node(event, span)?;
            // A field's place is its name's: that is where a person looks.
            places.place = key_place;
            match key_text(&key) {
                Some(key) if key == "<<" => merges.push((value, places)),
                Some(key) => {
                    if fields.contains_key(&key) {
                        self.problems
                            .push((key_place, format!("the key {key:?} is there already")));
                    }
                    children.push((Segment::Field(key.clone()), places));
                    fields.insert(key, value);
                }
                None => self.problems.push((key_place, "a key must be text".to_owned())),
            }
        }
        for (value, places) in merges {
            self.merge(&mut fields, &mut children, value, &places);
        }
        Ok((Value::Object(fields), Places { place, children }))
    }

    /// Takes over the fields of `<<: *other`, or of a list of such, that are not there themselves.
    fn merge(
        &mut self,
        fields: &mut Map<String, Value>,
        children: &mut Vec<(Segment, Places)>,
        value: Value,
        places: &Places,
    ) {
        match value {
            Value::Object(other) => {
                for (key, value) in other {
                    if !fields.contains_key(&key) {
                        let segment = Segment::Field(key.clone());
                        let from =
                            places.child(&segment).cloned().unwrap_or_else(|| leaf(places.place));
                        children.push((segment, from));
                        fields.insert(key, value);
                    }
                }
            }
            Value::Array(others) => {
                for (index, other) in others.into_iter().enumerate() {
                    let within = places.child(&Segment::Index(index)).cloned().unwrap_or_default();
                    self.merge(fields, children, other, &within);
                }
            }
            _ => self.problems.push((places.place, "<< takes a map or a list of maps".to_owned())),
        }
    }
}

fn key_text(key: &Value) -> Option<String> {
    match key {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn leaf(place: Place) -> Places {
    Places { place, children: Vec::new() }
}

fn size(places: &Places) -> usize {
    1 + places.children.iter().map(|(_, child)| size(child)).sum::<usize>()
}

fn place_of(marker: &Marker) -> Place {
    Place { line: marker.line(), column: marker.col() + 1 }
}

fn stop(error: &ScanError) -> Stop {
    (place_of(error.marker()), error.info().to_string())
}
