//! The fields of a head or of trailers.

use std::sync::Arc;

use super::names::{self, KnownName, NameSet};
use super::scan;

/// A place in the buffer of a head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    pub start: u32,
    pub len: u32,
}

impl Span {
    pub fn new(start: usize, len: usize) -> Span {
        Span { start: start as u32, len: len as u32 }
    }

    pub fn end(self) -> usize {
        self.start as usize + self.len as usize
    }

    #[inline]
    pub fn of(self, buffer: &[u8]) -> &[u8] {
        buffer.get(self.start as usize..self.end()).unwrap_or_default()
    }
}

/// One field. 16 bytes, so that an ordinary head's index is a few cache lines.
#[derive(Clone, Copy, Debug)]
struct Entry {
    name_start: u32,
    value_start: u32,
    value_len: u32,
    name_len: u16,
    known: KnownName,
    flags: u8,
}

/// The entry is gone; its place keeps the order of the others.
const REMOVED: u8 = 1;
/// The buffer holds `name: value\r\n` at `name_start`, exactly as it goes to the wire.
const WIRE: u8 = 2;
/// Not a field to look-ups and iteration, but written to an HTTP/1 wire: the `host` line that is the head's authority.
const HIDDEN: u8 = 4;
/// No compression context may remember the value (RFC 7541 §7.1.3).
const NEVER_INDEXED: u8 = 8;

impl Entry {
    fn is_removed(&self) -> bool {
        self.flags & REMOVED != 0
    }

    fn is_visible(&self) -> bool {
        self.flags & (REMOVED | HIDDEN) == 0
    }

    fn name<'a>(&self, buffer: &'a [u8]) -> &'a [u8] {
        Span { start: self.name_start, len: u32::from(self.name_len) }.of(buffer)
    }

    fn name_ref<'a>(&self, buffer: &'a [u8]) -> NameRef<'a> {
        match self.known {
            KnownName::NONE => NameRef::Other(self.name(buffer)),
            known => NameRef::Known(known),
        }
    }

    fn value<'a>(&self, buffer: &'a [u8]) -> &'a [u8] {
        Span { start: self.value_start, len: self.value_len }.of(buffer)
    }

    fn value_end(&self) -> usize {
        self.value_start as usize + self.value_len as usize
    }

    /// Where the line ends, its CRLF included, if the entry is `WIRE`.
    fn line_end(&self) -> usize {
        self.value_end() + 2
    }
}

/// A name to look up: by number where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRef<'a> {
    /// A numbered name.
    Known(KnownName),
    /// Any other, in lower case.
    Other(&'a [u8]),
}

impl<'a> NameRef<'a> {
    /// The lower-case bytes of the name.
    pub fn as_bytes(self) -> &'a [u8] {
        match self {
            NameRef::Known(known) => known.as_str().as_bytes(),
            NameRef::Other(bytes) => bytes,
        }
    }
}

impl From<KnownName> for NameRef<'_> {
    fn from(known: KnownName) -> Self {
        NameRef::Known(known)
    }
}

/// The name must be in lower case already; see [`HeaderName`] for names from configuration.
impl<'a> From<&'a [u8]> for NameRef<'a> {
    fn from(lower_case: &'a [u8]) -> Self {
        match KnownName::lookup(lower_case) {
            Some(known) => NameRef::Known(known),
            None => NameRef::Other(lower_case),
        }
    }
}

/// The name must be in lower case already; see [`HeaderName`] for names from configuration.
impl<'a> From<&'a str> for NameRef<'a> {
    fn from(lower_case: &'a str) -> Self {
        NameRef::from(lower_case.as_bytes())
    }
}

impl<'a> From<&'a HeaderName> for NameRef<'a> {
    fn from(name: &'a HeaderName) -> Self {
        name.as_name_ref()
    }
}

/// An owned name, checked and lower-cased once: what configuration compiles to.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum HeaderName {
    /// A numbered name.
    Known(KnownName),
    /// Any other, in lower case. A leading `:` makes it a pseudo field.
    Other(Arc<str>),
}

/// What is not a field name by RFC 9110 §5.1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a header name")]
pub struct InvalidHeaderName(pub String);

impl HeaderName {
    /// Lower-cases and checks a name; pseudo names such as `:path` are allowed.
    pub fn parse(name: &str) -> Result<HeaderName, InvalidHeaderName> {
        let token = name.strip_prefix(':').unwrap_or(name);
        if token.is_empty()
            || name.len() > usize::from(u16::MAX)
            || !token.bytes().all(is_token_byte)
        {
            return Err(InvalidHeaderName(name.to_owned()));
        }
        let lower = name.to_ascii_lowercase();
        Ok(match KnownName::lookup(lower.as_bytes()) {
            Some(known) => HeaderName::Known(known),
            None => HeaderName::Other(lower.into()),
        })
    }

    /// The lower-case name.
    pub fn as_str(&self) -> &str {
        match self {
            HeaderName::Known(known) => known.as_str(),
            HeaderName::Other(name) => name,
        }
    }

    /// For look-ups.
    pub fn as_name_ref(&self) -> NameRef<'_> {
        match self {
            HeaderName::Known(known) => NameRef::Known(*known),
            HeaderName::Other(name) => NameRef::Other(name.as_bytes()),
        }
    }

    /// True for `:method` and the like.
    pub fn is_pseudo(&self) -> bool {
        self.as_str().starts_with(':')
    }
}

impl From<KnownName> for HeaderName {
    fn from(known: KnownName) -> Self {
        HeaderName::Known(known)
    }
}

impl std::fmt::Debug for HeaderName {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// RFC 9110 §5.6.2 `tchar`.
#[inline]
pub(crate) fn is_token_byte(byte: u8) -> bool {
    static TOKEN: [bool; 256] = scan::table(b"!#$%&'*+-.^_`|~");
    TOKEN[usize::from(byte)]
}

/// The fields of a head, or trailers.
///
/// Names are lower-case. Values are bytes without CR, LF and NUL: [`set`](Fields::set) and its like replace those by spaces
/// (RFC 9110 §5.5), so that no value that comes from elsewhere, a certificate say, can break a message in two.
#[derive(Clone, Default)]
pub struct Fields {
    pub(super) buffer: Vec<u8>,
    entries: Vec<Entry>,
    /// Names with a number that are, or were, there: a look-up of an absent one ends here.
    seen: u128,
}

impl Fields {
    /// No fields, and no allocation yet.
    pub fn new() -> Fields {
        Fields::default()
    }

    /// Forgets the fields and keeps the memory.
    pub fn clear(&mut self) {
        self.buffer.clear();
        self.entries.clear();
        self.seen = 0;
    }

    /// The number of fields; one that occurs twice counts twice.
    pub fn len(&self) -> usize {
        self.entries.iter().filter(|entry| entry.is_visible()).count()
    }

    /// True without any field.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of names and values, what Envoy calls a header map's byte size.
    pub fn byte_size(&self) -> usize {
        self.visible().map(|entry| usize::from(entry.name_len) + entry.value_len as usize).sum()
    }

    /// Bytes of memory held, whether in use or not.
    pub fn capacity(&self) -> usize {
        self.buffer.capacity() + self.entries.capacity() * size_of::<Entry>()
    }

    /// The first value of a field.
    #[inline]
    pub fn get<'n>(&self, name: impl Into<NameRef<'n>>) -> Option<&[u8]> {
        let position = self.position(name.into(), 0)?;
        Some(self.entries[position].value(&self.buffer))
    }

    /// The first value, if it is UTF-8.
    pub fn get_str<'n>(&self, name: impl Into<NameRef<'n>>) -> Option<&str> {
        std::str::from_utf8(self.get(name)?).ok()
    }

    /// Every value of a field, in order.
    pub fn get_all<'a, 'n: 'a>(
        &'a self,
        name: impl Into<NameRef<'n>>,
    ) -> impl Iterator<Item = &'a [u8]> + 'a {
        let name = name.into();
        let mut from = 0;
        std::iter::from_fn(move || {
            let position = self.position(name, from)?;
            from = position + 1;
            Some(self.entries[position].value(&self.buffer))
        })
    }

    /// Whether there is such a field.
    #[inline]
    pub fn contains<'n>(&self, name: impl Into<NameRef<'n>>) -> bool {
        self.position(name.into(), 0).is_some()
    }

    /// Names and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.visible().map(|entry| (entry.name(&self.buffer), entry.value(&self.buffer)))
    }

    /// As [`iter`](Fields::iter), with names as look-ups take them.
    pub fn iter_names(&self) -> impl Iterator<Item = (NameRef<'_>, &[u8])> {
        self.visible().map(|entry| (entry.name_ref(&self.buffer), entry.value(&self.buffer)))
    }

    /// Replaces every value of a field by this one, at the place of the first; adds the field at the end if it was absent.
    pub fn set<'n>(&mut self, name: impl Into<NameRef<'n>>, value: &[u8]) {
        let name = name.into();
        let Some(first) = self.position(name, 0) else {
            self.append(name, value);
            return;
        };
        let span = self.store_value(value);
        self.replace_value(first, span);
        self.remove_from(name, first + 1);
    }

    /// Adds a field at the end, whether or not there is one of that name.
    pub fn append<'n>(&mut self, name: impl Into<NameRef<'n>>, value: &[u8]) {
        self.append_with(name.into(), |out| out.extend_from_slice(value));
    }

    /// Adds to the first value of a field, after a separator; adds the field if it was absent.
    pub fn append_to<'n>(&mut self, name: impl Into<NameRef<'n>>, separator: &[u8], value: &[u8]) {
        self.append_to_with(name, separator, |out| out.extend_from_slice(value));
    }

    /// As [`append_to`](Fields::append_to), for a value that `write` appends to what it is given.
    pub fn append_to_with<'n>(
        &mut self,
        name: impl Into<NameRef<'n>>,
        separator: &[u8],
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let name = name.into();
        let Some(first) = self.position(name, 0) else {
            self.append_with(name, write);
            return;
        };
        let old = self.entries[first];
        let start = self.buffer.len();
        self.buffer.extend_from_within(
            old.value_start as usize..(old.value_start + old.value_len) as usize,
        );
        self.buffer.extend_from_slice(separator);
        write(&mut self.buffer);
        make_safe(&mut self.buffer[start..]);
        self.replace_value(first, Span::new(start, self.buffer.len() - start));
    }

    /// As [`set`](Fields::set), for a value that `write` appends to what it is given.
    pub fn set_with<'n>(&mut self, name: impl Into<NameRef<'n>>, write: impl FnOnce(&mut Vec<u8>)) {
        let name = name.into();
        let Some(first) = self.position(name, 0) else {
            self.append_with(name, write);
            return;
        };
        let start = self.buffer.len();
        write(&mut self.buffer);
        make_safe(&mut self.buffer[start..]);
        self.replace_value(first, Span::new(start, self.buffer.len() - start));
        self.remove_from(name, first + 1);
    }

    fn append_with(&mut self, name: NameRef<'_>, write: impl FnOnce(&mut Vec<u8>)) {
        let bytes = name.as_bytes();
        debug_assert!(!bytes.iter().any(u8::is_ascii_uppercase), "names are given in lower case");
        let name_start = self.buffer.len() as u32;
        self.buffer.extend_from_slice(bytes);
        self.buffer.extend_from_slice(b": ");
        let start = self.buffer.len();
        write(&mut self.buffer);
        make_safe(&mut self.buffer[start..]);
        let value = Span::new(start, self.buffer.len() - start);
        self.buffer.extend_from_slice(b"\r\n");
        self.push(Entry {
            name_start,
            value_start: value.start,
            value_len: value.len,
            name_len: bytes.len() as u16,
            known: match name {
                NameRef::Known(known) => known,
                NameRef::Other(other) => names::number(other),
            },
            flags: WIRE,
        });
    }

    /// Removes every field whose name is in the set, in one pass; a pass is made only if there may be one.
    pub fn remove_any(&mut self, names: NameSet) {
        if self.seen & names.0 == 0 {
            return;
        }
        for entry in self.entries.iter_mut().filter(|entry| entry.is_visible()) {
            if names.contains(entry.known) {
                entry.flags |= REMOVED;
            }
        }
    }

    /// Sets a field to a decimal number.
    pub fn set_number<'n>(&mut self, name: impl Into<NameRef<'n>>, number: u64) {
        self.set(name, itoa::Buffer::new().format(number).as_bytes());
    }

    /// Removes every field of this name; says whether there was one.
    #[inline]
    pub fn remove<'n>(&mut self, name: impl Into<NameRef<'n>>) -> bool {
        let name = name.into();
        !self.never_had(name) && self.remove_from(name, 0)
    }

    /// Removes the fields that `keep` says no to.
    pub fn retain(&mut self, mut keep: impl FnMut(NameRef<'_>, &[u8]) -> bool) {
        for entry in self.entries.iter_mut().filter(|entry| entry.is_visible()) {
            if !keep(entry.name_ref(&self.buffer), entry.value(&self.buffer)) {
                entry.flags |= REMOVED;
            }
        }
    }

    fn visible(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.is_visible())
    }

    /// There never was such a field: all that most look-ups come to.
    #[inline]
    fn never_had(&self, name: NameRef<'_>) -> bool {
        matches!(name, NameRef::Known(known) if self.seen & (1 << known.0) == 0)
    }

    #[inline]
    fn position(&self, name: NameRef<'_>, from: usize) -> Option<usize> {
        if self.never_had(name) { None } else { self.search(name, from) }
    }

    fn search(&self, name: NameRef<'_>, from: usize) -> Option<usize> {
        let rest = self.entries.get(from..)?;
        let found = match name {
            NameRef::Known(known) => {
                rest.iter().position(|entry| entry.known == known && entry.is_visible())
            }
            NameRef::Other(bytes) => rest.iter().position(|entry| {
                entry.known == KnownName::NONE
                    && usize::from(entry.name_len) == bytes.len()
                    && entry.is_visible()
                    && entry.name(&self.buffer) == bytes
            }),
        };
        found.map(|position| position + from)
    }

    fn remove_from(&mut self, name: NameRef<'_>, from: usize) -> bool {
        let mut next = from;
        while let Some(position) = self.position(name, next) {
            self.entries[position].flags |= REMOVED;
            next = position + 1;
        }
        next != from
    }

    pub(super) fn store_value(&mut self, value: &[u8]) -> Span {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(value);
        make_safe(&mut self.buffer[start..]);
        Span::new(start, value.len())
    }

    fn replace_value(&mut self, position: usize, span: Span) {
        let entry = &mut self.entries[position];
        entry.value_start = span.start;
        entry.value_len = span.len;
        entry.flags &= !WIRE;
    }

    #[inline]
    fn push(&mut self, entry: Entry) {
        self.seen |= 1 << entry.known.0;
        self.entries.push(entry);
    }
}

/// What decoders and encoders do with fields; spans are places in the buffer that `load` filled.
impl Fields {
    /// Notes one line of a head that is being read, by its places there; `take_wire` follows when the head is whole.
    /// `is_canonical` says that the line is `name: value\r\n`.
    #[inline]
    pub(crate) fn note_line(&mut self, name: Span, value: Span, is_canonical: bool) {
        self.entries.push(Entry {
            name_start: name.start,
            value_start: value.start,
            value_len: value.len,
            name_len: name.len as u16,
            known: KnownName::NONE,
            flags: if is_canonical { WIRE } else { 0 },
        });
    }

    /// Takes the bytes of the head whose lines were noted, and puts their names into lower case.
    pub(crate) fn take_wire(&mut self, wire: &[u8]) {
        self.buffer.clear();
        self.buffer.extend_from_slice(wire);
        for entry in &mut self.entries {
            let start = entry.name_start as usize;
            let name = &mut self.buffer[start..start + usize::from(entry.name_len)];
            scan::lower_case(name);
            entry.known = names::number(name);
            self.seen |= 1 << entry.known.0;
        }
    }

    /// The end of the buffer is where a decoder of compressed fields writes lines before it indexes them.
    pub(crate) fn buffer_mut(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// Indexes a line that was written to the buffer; the name is in lower case and this is its number.
    #[inline]
    pub(crate) fn index_written(
        &mut self,
        name: Span,
        value: Span,
        known: KnownName,
        is_canonical: bool,
        never_indexed: bool,
    ) {
        let wire = if is_canonical { WIRE } else { 0 };
        self.push(Entry {
            name_start: name.start,
            value_start: value.start,
            value_len: value.len,
            name_len: name.len as u16,
            known,
            flags: wire | if never_indexed { NEVER_INDEXED } else { 0 },
        });
    }

    /// Whether any line was indexed, removed or not.
    pub(crate) fn has_lines(&self) -> bool {
        !self.entries.is_empty()
    }

    /// Makes one field of all that have this name, at the place of the first. Empty ones add nothing.
    pub(crate) fn join(&mut self, name: KnownName, separator: &[u8]) {
        let Some(first) = self.position(name.into(), 0) else {
            return;
        };
        let Some(mut next) = self.position(name.into(), first + 1) else {
            return;
        };
        let start = self.buffer.len();
        let range = |entry: Entry| entry.value_start as usize..entry.value_end();
        self.buffer.extend_from_within(range(self.entries[first]));
        loop {
            let other = self.entries[next];
            if self.buffer.len() > start && other.value_len > 0 {
                self.buffer.extend_from_slice(separator);
            }
            self.buffer.extend_from_within(range(other));
            self.entries[first].flags |= other.flags & NEVER_INDEXED;
            self.entries[next].flags |= REMOVED;
            match self.position(name.into(), next + 1) {
                Some(position) => next = position,
                None => break,
            }
        }
        self.replace_value(first, Span::new(start, self.buffer.len() - start));
    }

    /// As [`iter_names`](Fields::iter_names), and whether the value must never be indexed by a compression context.
    pub(crate) fn iter_to_compress(&self) -> impl Iterator<Item = (NameRef<'_>, &[u8], bool)> {
        self.visible().map(|entry| {
            let never_indexed = entry.flags & NEVER_INDEXED != 0;
            (entry.name_ref(&self.buffer), entry.value(&self.buffer), never_indexed)
        })
    }

    pub(crate) fn bytes(&self, span: Span) -> &[u8] {
        span.of(&self.buffer)
    }

    /// Takes the first `host` field out of sight: it has become the head's authority. Gives the place of its value.
    pub(crate) fn hide_host(&mut self) -> Option<Span> {
        let position = self.position(NameRef::Known(names::HOST), 0)?;
        let entry = &mut self.entries[position];
        entry.flags |= HIDDEN;
        Some(Span { start: entry.value_start, len: entry.value_len })
    }

    /// The authority has changed, or comes from elsewhere: the `host` line is not to be written any more.
    pub(super) fn drop_hidden_host(&mut self) {
        for entry in &mut self.entries {
            if entry.flags & HIDDEN != 0 {
                entry.flags |= REMOVED;
            }
        }
    }

    pub(super) fn has_hidden_host(&self) -> bool {
        self.entries.iter().any(|entry| entry.flags & (HIDDEN | REMOVED) == HIDDEN)
    }

    /// Writes `name: value\r\n` for every field that is not in `skip`, whole runs of untouched lines at once.
    pub(crate) fn write_lines(&self, out: &mut Vec<u8>, skip: NameSet) {
        let may_skip = self.seen & skip.0 != 0;
        let mut run = 0..0;
        for entry in &self.entries {
            if entry.is_removed() || may_skip && skip.contains(entry.known) {
                continue;
            }
            if entry.flags & WIRE != 0 && run.end == entry.name_start as usize {
                run.end = entry.line_end();
                continue;
            }
            out.extend_from_slice(&self.buffer[run]);
            if entry.flags & WIRE != 0 {
                run = entry.name_start as usize..entry.line_end();
                continue;
            }
            run = 0..0;
            out.extend_from_slice(entry.name(&self.buffer));
            out.extend_from_slice(b": ");
            out.extend_from_slice(entry.value(&self.buffer));
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(&self.buffer[run]);
    }
}

#[inline]
fn make_safe(value: &mut [u8]) {
    if scan::control_at(value, 0) < value.len() {
        replace_breaks(value);
    }
}

#[cold]
fn replace_breaks(value: &mut [u8]) {
    for byte in value.iter_mut().filter(|byte| matches!(**byte, b'\r' | b'\n' | 0)) {
        *byte = b' ';
    }
}

impl std::fmt::Debug for Fields {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut map = formatter.debug_map();
        for (name, value) in self.iter() {
            map.entry(&String::from_utf8_lossy(name), &String::from_utf8_lossy(value));
        }
        map.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(fields: &Fields) -> String {
        let mut out = Vec::new();
        fields.write_lines(&mut out, NameSet::of(&[]));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn edits_keep_order_and_the_rest() {
        let mut fields = Fields::new();
        for (name, value) in [("a", "1"), ("via", "x"), ("a", "2"), ("b", "3")] {
            fields.append(name, value.as_bytes());
        }
        fields.set("a", b"4");
        fields.append_to("b", b", ", b"5");
        fields.append_to("c", b", ", b"6");
        fields.set_with(names::VIA, |out| out.extend_from_slice(b"y"));
        fields.set_with("d", |out| out.extend_from_slice(b"7\r\n8"));
        assert_eq!(lines(&fields), "a: 4\r\nvia: y\r\nb: 3, 5\r\nc: 6\r\nd: 7  8\r\n");
        assert_eq!(fields.len(), 5);
        assert_eq!(fields.get_all("a").collect::<Vec<_>>(), [b"4"]);
        assert!(fields.remove("a") && !fields.remove("a"));
        fields.remove_any(NameSet::of(&[names::VIA, names::HOST]));
        fields.retain(|name, _| name != NameRef::from("c"));
        assert_eq!(lines(&fields), "b: 3, 5\r\nd: 7  8\r\n");
        assert_eq!(fields.byte_size(), "b3, 5d7  8".len());
        assert!(!fields.contains(names::VIA) && fields.get("c").is_none());
    }

    #[test]
    fn names_of_configuration_are_checked() {
        for bad in ["", ":", "a b", "a:", "a\n", "\u{e9}"] {
            assert!(HeaderName::parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(HeaderName::parse("X-Request-ID"), Ok(HeaderName::Known(names::X_REQUEST_ID)));
        assert_eq!(
            HeaderName::parse("X-Foo").map(|name| name.as_str().to_owned()),
            Ok("x-foo".to_owned())
        );
        assert!(HeaderName::parse(":Path").is_ok_and(|name| name.is_pseudo()));
    }
}
