//! YAML (and JSON) documents, with the place of every field, so that an error about a field can say file and line.
//!
//! The dialect is what kubectl takes: YAML 1.2 with the booleans `yes`, `no`, `on` and `off` of YAML 1.1, merge keys
//! and several documents a file. A key that is there twice is an error.

mod scalar;
mod tree;

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use crate::field::{FieldPath, Segment};
use crate::object::Object;

pub use tree::parse_tree;

/// A place in a text. Both count from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Line.
    pub line: usize,
    /// Column, in characters.
    pub column: usize,
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FilePlace {
    /// The file, as its reader calls it.
    pub file: Arc<str>,
    /// The place in it; none if the file as a whole is meant.
    pub place: Option<Place>,
}

impl fmt::Display for FilePlace {
    /// `file.yaml:3:5`, which terminals and editors know to open.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Some(place) => write!(f, "{}:{}:{}", self.file, place.line, place.column),
            None => f.write_str(&self.file),
        }
    }
}

/// Something wrong in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileProblem {
    /// Where.
    pub at: FilePlace,
    /// What.
    pub message: String,
}

impl fmt::Display for FileProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.message)
    }
}

/// Where a value and everything in it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    place: Place,
    children: Vec<(Segment, Places)>,
}

impl Places {
    /// Where a field was written, or the nearest thing around it that was.
    pub fn find(&self, path: &FieldPath) -> Place {
        let mut here = self;
        for segment in &path.0 {
            // Whether a map's key is a field or free text only its reader knows.
            let same = |written: &Segment| match (written, segment) {
                (
                    Segment::Field(written) | Segment::Key(written),
                    Segment::Field(name) | Segment::Key(name),
                ) => written == name,
                (written, asked) => written == asked,
            };
            match here.children.iter().find(|(written, _)| same(written)) {
                Some((_, child)) => here = child,
                None => break,
            }
        }
        here.place
    }

    /// The places within one element or field.
    pub fn child(&self, segment: &Segment) -> Option<&Self> {
        self.children.iter().find(|(written, _)| written == segment).map(|(_, child)| child)
    }
}

/// One object of a file.
#[derive(Clone, Debug)]
pub struct Document {
    /// The object.
    pub object: Object,
    /// The file it is from.
    pub file: Arc<str>,
    /// Where its fields were written.
    pub places: Places,
}

impl Document {
    /// Where a field was written, or the nearest thing around it.
    pub fn place_of(&self, path: &FieldPath) -> FilePlace {
        FilePlace { file: Arc::clone(&self.file), place: Some(self.places.find(path)) }
    }

    /// A problem with one of its fields.
    pub fn problem(&self, path: &FieldPath, message: impl Into<String>) -> FileProblem {
        FileProblem { at: self.place_of(path), message: message.into() }
    }
}

/// Reads every object of a text: documents, and the items of `List`s. All problems at once.
pub fn load(file: &str, text: &str) -> Result<Vec<Document>, Vec<FileProblem>> {
    let file: Arc<str> = file.into();
    let problem = |place, message| FileProblem {
        at: FilePlace { file: Arc::clone(&file), place: Some(place) },
        message,
    };
    let (trees, broken) = parse_tree(text);
    let mut problems: Vec<FileProblem> =
        broken.into_iter().map(|(place, message)| problem(place, message)).collect();
    let mut documents = Vec::new();
    for (value, places) in trees {
        for (value, places) in flattened(value, places) {
            match Object::from_value(value) {
                Ok(object) => documents.push(Document { object, file: Arc::clone(&file), places }),
                Err(error) => problems.push(problem(places.place, error.to_string())),
            }
        }
    }
    if problems.is_empty() { Ok(documents) } else { Err(problems) }
}

/// The items of a `List`, or the value itself; nothing for an empty document.
fn flattened(value: Value, places: Places) -> Vec<(Value, Places)> {
    if value.is_null() {
        return Vec::new();
    }
    let is_list = value.get("kind").and_then(Value::as_str).is_some_and(|kind| kind == "List");
    match value {
        Value::Object(mut fields) if is_list => {
            let Some(Value::Array(items)) = fields.shift_remove("items") else { return Vec::new() };
            let within = places.child(&Segment::Field("items".to_owned()));
            let place_of =
                |index| within.and_then(|items| items.child(&Segment::Index(index))).cloned();
            let place = |index| place_of(index).unwrap_or_else(|| places.clone());
            items.into_iter().enumerate().map(|(index, item)| (item, place(index))).collect()
        }
        value => vec![(value, places)],
    }
}

#[cfg(test)]
mod tests;
