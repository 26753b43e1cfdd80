//! The schema of the configuration: every message, field, enum and constraint, read in place from `schema.bin`.
//!
//! `cargo xtask generate` packs it from the `.proto` files and from `supported/*.txt`, the authored lists of the
//! fields that something reads. Only the pages that a look-up touches are ever resident.
//!
//! Layout (little endian): a magic number, the offsets of eight sections and the end, the sections. Records:
//! * messages, sorted by name: name offset, name length, first field, field count, first oneof, oneof count (u32)
//! * fields, by number within a message: number u32, name offset u32, name length u16, flags u16, kind u8
//!   (a map: key kind in the high half), three bytes unused, related type, oneof, rules, allowed values (u32)
//! * oneofs: name offset, name length, required (u32)
//! * enums, sorted by name: name offset, name length, first value, value count (u32)
//! * enum values: name offset, name length, number (u32)
//! * rules: offset and length of an encoded `validate.FieldRules` (u32)
//! * allowed values: offset and length of a string of words (u32)
//! * strings

use std::fmt;
use std::sync::OnceLock;

use envoy_types::pb::validate::FieldRules;
use prost::Message as _;

static BYTES: &[u8] = include_bytes!("schema.bin");

const MAGIC: u32 = 0x4f53_4331;
const NONE: u32 = u32::MAX;
const MESSAGE_SIZE: u32 = 24;
const FIELD_SIZE: u32 = 32;
const ONEOF_SIZE: u32 = 12;
const ENUM_SIZE: u32 = 16;
const VALUE_SIZE: u32 = 12;
const PAIR_SIZE: u32 = 8;

/// Sections in the order of the file.
#[derive(Clone, Copy)]
enum Section {
    Messages,
    Fields,
    Oneofs,
    Enums,
    Values,
    Rules,
    Allowed,
    Strings,
}

/// A handle on the schema. It keeps the constraints that were looked up decoded, so make one and pass it around.
pub struct Schema {
    rules: Vec<OnceLock<Option<Box<FieldRules>>>>,
}

impl Default for Schema {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schema").field("messages", &message_count()).finish_non_exhaustive()
    }
}

impl Schema {
    /// A handle with nothing decoded.
    pub fn new() -> Self {
        debug_assert_eq!(word(0), MAGIC);
        let count = section_len(Section::Rules) / PAIR_SIZE;
        Self { rules: (0..count).map(|_| OnceLock::new()).collect() }
    }

    /// The message with this full name (`envoy.config.listener.v3.Listener`).
    pub fn message(&self, full_name: &str) -> Option<Message> {
        let (mut low, mut high) = (0, message_count());
        while low < high {
            let middle = (low + high) / 2;
            let message = Message { index: middle };
            match message.name().cmp(full_name) {
                std::cmp::Ordering::Equal => return Some(message),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    /// The message that a type URL names: what follows its last slash.
    pub fn message_of_type_url(&self, type_url: &str) -> Option<Message> {
        self.message(type_url.rsplit_once('/')?.1)
    }

    /// Every message.
    pub fn messages(&self) -> impl Iterator<Item = Message> + use<> {
        (0..message_count()).map(|index| Message { index })
    }

    /// The constraints of a field, decoded once.
    pub fn rules(&self, field: Field) -> Option<&FieldRules> {
        let index = field.word(24);
        let cell = self.rules.get(index as usize)?;
        cell.get_or_init(|| {
            let bytes = pair(Section::Rules, index);
            FieldRules::decode(bytes).ok().map(Box::new)
        })
        .as_deref()
    }
}

/// A message type.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Message {
    index: u32,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Message {
    fn at(self) -> u32 {
        section(Section::Messages) + self.index * MESSAGE_SIZE
    }

    /// The full name.
    pub fn name(self) -> &'static str {
        text(word(self.at()), word(self.at() + 4))
    }

    /// Its fields by number.
    pub fn fields(self) -> impl Iterator<Item = Field> {
        let first = word(self.at() + 8);
        (first..first + word(self.at() + 12)).map(|index| Field { index })
    }

    /// The field with this number.
    pub fn field_by_number(self, number: u32) -> Option<Field> {
        let (mut low, mut high) = (word(self.at() + 8), word(self.at() + 8) + word(self.at() + 12));
        while low < high {
            let middle = (low + high) / 2;
            let field = Field { index: middle };
            match field.number().cmp(&number) {
                std::cmp::Ordering::Equal => return Some(field),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    /// The field with this name, as declared or in its JSON form (`lowerCamelCase`).
    pub fn field_by_name(self, name: &str) -> Option<Field> {
        self.fields().find(|field| field.name() == name || is_camel_case_of(name, field.name()))
    }

    /// Its oneofs.
    pub fn oneofs(self) -> impl Iterator<Item = Oneof> {
        let first = word(self.at() + 16);
        (0..word(self.at() + 20)).map(move |position| Oneof { index: first + position, position })
    }

    /// The type's special JSON form, if it has one.
    pub fn well_known(self) -> Option<WellKnown> {
        let name = self.name().strip_prefix("google.protobuf.")?;
        Some(match name {
            "Any" => WellKnown::Any,
            "Duration" => WellKnown::Duration,
            "Timestamp" => WellKnown::Timestamp,
            "Struct" => WellKnown::Struct,
            "Value" => WellKnown::Value,
            "ListValue" => WellKnown::ListValue,
            "FieldMask" => WellKnown::FieldMask,
            "Empty" => return None,
            _ => WellKnown::Wrapper,
        })
    }
}

/// Messages whose JSON form is not an object of their fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WellKnown {
    /// `google.protobuf.Any`.
    Any,
    /// `google.protobuf.Duration`: `"1.5s"`.
    Duration,
    /// `google.protobuf.Timestamp`: RFC 3339.
    Timestamp,
    /// `google.protobuf.Struct`: any object.
    Struct,
    /// `google.protobuf.Value`: any value.
    Value,
    /// `google.protobuf.ListValue`: any list.
    ListValue,
    /// `google.protobuf.FieldMask`: `"a,b.c"`.
    FieldMask,
    /// `google.protobuf.UInt32Value` and its kind: the bare scalar.
    Wrapper,
}

/// The type of a field's value, without repetition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8 text.
    String,
    /// Bytes.
    Bytes,
    /// A boolean.
    Bool,
    /// A signed 32-bit varint.
    Int32,
    /// A signed 64-bit varint.
    Int64,
    /// An unsigned 32-bit varint.
    Uint32,
    /// An unsigned 64-bit varint.
    Uint64,
    /// A 32-bit float.
    Float,
    /// A 64-bit float.
    Double,
    /// An enum.
    Enum(Enum),
    /// A message.
    Message(Message),
    /// A zigzag 32-bit varint.
    Sint32,
    /// A zigzag 64-bit varint.
    Sint64,
    /// Four bytes, unsigned.
    Fixed32,
    /// Eight bytes, unsigned.
    Fixed64,
}

impl Kind {
    fn new(number: u8, related: u32) -> Self {
        match number {
            0 => Self::String,
            1 => Self::Bytes,
            2 => Self::Bool,
            3 => Self::Int32,
            4 => Self::Int64,
            5 => Self::Uint32,
            6 => Self::Uint64,
            7 => Self::Float,
            8 => Self::Double,
            9 => Self::Enum(Enum { index: related }),
            10 => Self::Message(Message { index: related }),
            11 => Self::Sint32,
            12 => Self::Sint64,
            13 => Self::Fixed32,
            _ => Self::Fixed64,
        }
    }
}

/// A field of a message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Field {
    index: u32,
}

impl fmt::Debug for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Field {
    fn word(self, offset: u32) -> u32 {
        word(section(Section::Fields) + self.index * FIELD_SIZE + offset)
    }

    /// The field's number on the wire.
    pub fn number(self) -> u32 {
        self.word(0)
    }

    /// The declared name, `snake_case`.
    pub fn name(self) -> &'static str {
        text(self.word(4), self.word(8) & 0xffff)
    }

    fn has_flag(self, flag: u32) -> bool {
        self.word(8) >> 16 & flag != 0
    }

    /// Is it a list?
    pub fn is_repeated(self) -> bool {
        self.has_flag(1)
    }

    /// Is it a map?
    pub fn is_map(self) -> bool {
        self.has_flag(2)
    }

    /// Does absence differ from the default value?
    pub fn has_presence(self) -> bool {
        self.has_flag(4)
    }

    /// Does something read it?
    pub fn is_supported(self) -> bool {
        self.has_flag(8)
    }

    /// Is it deprecated?
    pub fn is_deprecated(self) -> bool {
        self.has_flag(16)
    }

    /// Must dumps hide it?
    pub fn is_sensitive(self) -> bool {
        self.has_flag(32)
    }

    /// The type of its value, of a list's items, or of a map's values.
    pub fn kind(self) -> Kind {
        Kind::new((self.word(12) & 0xf) as u8, self.word(16))
    }

    /// The type of a map's keys.
    pub fn key_kind(self) -> Kind {
        Kind::new((self.word(12) >> 4 & 0xf) as u8, NONE)
    }

    /// The position of its oneof among the message's.
    pub fn oneof(self) -> Option<u32> {
        Some(self.word(20)).filter(|position| *position != NONE)
    }

    /// The values that are supported, when not all are.
    pub fn allowed_values(self) -> Option<&'static str> {
        let index = self.word(28);
        (index != NONE)
            .then(|| std::str::from_utf8(pair(Section::Allowed, index)).unwrap_or_default())
    }
}

/// A group of fields of which one at most is set.
#[derive(Clone, Copy)]
pub struct Oneof {
    index: u32,
    /// Its position within the message.
    pub position: u32,
}

impl Oneof {
    fn at(self) -> u32 {
        section(Section::Oneofs) + self.index * ONEOF_SIZE
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        text(word(self.at()), word(self.at() + 4))
    }

    /// Must one of its fields be set?
    pub fn is_required(self) -> bool {
        word(self.at() + 8) != 0
    }
}

/// An enum type.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Enum {
    index: u32,
}

impl fmt::Debug for Enum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Enum {
    fn at(self) -> u32 {
        section(Section::Enums) + self.index * ENUM_SIZE
    }

    /// The full name.
    pub fn name(self) -> &'static str {
        text(word(self.at()), word(self.at() + 4))
    }

    /// Names and numbers.
    pub fn values(self) -> impl Iterator<Item = (&'static str, i32)> {
        let first = word(self.at() + 8);
        (first..first + word(self.at() + 12)).map(|index| {
            let at = section(Section::Values) + index * VALUE_SIZE;
            (text(word(at), word(at + 4)), word(at + 8).cast_signed())
        })
    }

    /// The name of a number.
    pub fn name_of(self, number: i32) -> Option<&'static str> {
        self.values().find(|(_, found)| *found == number).map(|(name, _)| name)
    }

    /// The number of a name.
    pub fn number_of(self, name: &str) -> Option<i32> {
        self.values().find(|(found, _)| *found == name).map(|(_, number)| number)
    }
}

/// Is `name` what protobuf's JSON calls the field `declared`?
fn is_camel_case_of(name: &str, declared: &str) -> bool {
    let mut name = name.bytes();
    let mut upper = false;
    for byte in declared.bytes() {
        if byte == b'_' {
            upper = true;
            continue;
        }
        let wanted = if upper { byte.to_ascii_uppercase() } else { byte };
        upper = false;
        if name.next() != Some(wanted) {
            return false;
        }
    }
    name.next().is_none()
}

fn word(offset: u32) -> u32 {
    let offset = offset as usize;
    match BYTES.get(offset..offset + 4) {
        Some(&[a, b, c, d]) => u32::from_le_bytes([a, b, c, d]),
        _ => 0,
    }
}

fn section(section: Section) -> u32 {
    word(4 + 4 * section as u32)
}

fn section_len(which: Section) -> u32 {
    word(8 + 4 * which as u32) - section(which)
}

fn message_count() -> u32 {
    section_len(Section::Messages) / MESSAGE_SIZE
}

fn bytes(offset: u32, len: u32) -> &'static [u8] {
    let start = (section(Section::Strings) + offset) as usize;
    BYTES.get(start..start + len as usize).unwrap_or_default()
}

fn text(offset: u32, len: u32) -> &'static str {
    std::str::from_utf8(bytes(offset, len)).unwrap_or_default()
}

fn pair(table: Section, index: u32) -> &'static [u8] {
    let at = section(table) + index * PAIR_SIZE;
    bytes(word(at), word(at + 4))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_found_with_its_fields() {
        let schema = Schema::new();
        let address = schema.message("envoy.config.core.v3.SocketAddress").unwrap();
        let port = address.field_by_name("portValue").unwrap();
        assert_eq!((port.name(), port.number(), port.kind()), ("port_value", 3, Kind::Uint32));
        assert_eq!(address.field_by_number(3), Some(port));
        assert!(
            address.oneofs().any(|oneof| oneof.name() == "port_specifier" && oneof.is_required())
        );
        assert!(schema.message("envoy.config.core.v3.SocketAddres").is_none());
        let Kind::Enum(protocol) = address.field_by_name("protocol").unwrap().kind() else {
            panic!()
        };
        assert_eq!(protocol.number_of("UDP"), Some(1));
    }

    #[test]
    fn every_message_is_found_by_its_own_name() {
        let schema = Schema::new();
        assert!(schema.messages().count() > 1400);
        for message in schema.messages() {
            assert_eq!(schema.message(message.name()), Some(message));
        }
    }

    #[test]
    fn constraints_decode() {
        let schema = Schema::new();
        let cluster = schema.message("envoy.config.cluster.v3.Cluster").unwrap();
        let rules = schema.rules(cluster.field_by_name("name").unwrap()).unwrap();
        assert!(format!("{rules:?}").contains("min_len: Some(1)"), "{rules:?}");
        let map = cluster.field_by_name("typed_extension_protocol_options").unwrap();
        assert!(map.is_map() && map.key_kind() == Kind::String);
        assert!(
            matches!(map.kind(), Kind::Message(any) if any.well_known() == Some(WellKnown::Any))
        );
    }

    #[test]
    fn camel_case_names() {
        assert!(is_camel_case_of("filterChains", "filter_chains"));
        assert!(is_camel_case_of("http2ProtocolOptions", "http2_protocol_options"));
        assert!(!is_camel_case_of("filterchains", "filter_chains"));
        assert!(!is_camel_case_of("filterChainsX", "filter_chains"));
    }
}
