//! Writes `crates/api/src/schema.bin`: every message, field, enum and constraint of the configuration, packed so
//! that the program reads it in place. The layout is documented in `crates/api/src/schema.rs`.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use prost_reflect::prost::Message as _;
use prost_reflect::{
    DescriptorPool, DynamicMessage, EnumDescriptor, ExtensionDescriptor, FieldDescriptor, Kind,
    MessageDescriptor, Value,
};

/// Folder of the lists of supported fields, relative to the workspace's root.
const SUPPORTED: &str = "crates/api/supported";

const MAGIC: u32 = 0x4f53_4331;
const NONE: u32 = u32::MAX;

/// Flags of a field; the reader has the same numbers.
mod flag {
    pub const REPEATED: u16 = 1;
    pub const MAP: u16 = 2;
    pub const PRESENCE: u16 = 4;
    pub const SUPPORTED: u16 = 8;
    pub const DEPRECATED: u16 = 16;
    pub const SENSITIVE: u16 = 32;
}

/// Packs the descriptors of `pool` with the supported fields listed under `root`.
pub fn schema(root: &Path, pool: &DescriptorPool) -> Result<Vec<u8>> {
    let supported = Supported::read(&root.join(SUPPORTED), pool)?;
    Packer::new(pool, supported)?.pack()
}

/// What one field's line says: any value, or only those named.
type Values = Option<Vec<String>>;

/// The authored lists: message name → field name → values.
struct Supported(BTreeMap<String, BTreeMap<String, Values>>);

impl Supported {
    fn read(folder: &Path, pool: &DescriptorPool) -> Result<Self> {
        let mut lists = Self(BTreeMap::new());
        let mut paths: Vec<_> = fs::read_dir(folder)
            .with_context(|| format!("{}", folder.display()))?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<_, _>>()?;
        paths.sort();
        for path in paths {
            let text = fs::read_to_string(&path)?;
            lists.add(&text, pool).with_context(|| format!("{}", path.display()))?;
        }
        Ok(lists)
    }

    fn add(&mut self, text: &str, pool: &DescriptorPool) -> Result<()> {
        let mut message: Option<MessageDescriptor> = None;
        for (number, line) in text.lines().enumerate() {
            let place = format!("line {}", number + 1);
            let line = line.split('#').next().unwrap_or_default();
            if line.trim().is_empty() {
                continue;
            }
            if !line.starts_with(' ') {
                let name = line.trim();
                let found = pool.get_message_by_name(name);
                message = Some(found.with_context(|| format!("{place}: no message `{name}`"))?);
                self.0.entry(name.to_owned()).or_default();
                continue;
            }
            let message =
                message.as_ref().with_context(|| format!("{place}: a field before any message"))?;
            self.add_fields(line, message).context(place)?;
        }
        Ok(())
    }

    /// A line is either several field names, or `field = VALUE VALUE`.
    fn add_fields(&mut self, line: &str, message: &MessageDescriptor) -> Result<()> {
        let (names, values) = match line.split_once('=') {
            Some((name, values)) => {
                (name, Some(values.split_whitespace().map(str::to_owned).collect::<Vec<_>>()))
            }
            None => (line, None),
        };
        let fields = self.0.entry(message.full_name().to_owned()).or_default();
        for name in names.split_whitespace() {
            if message.get_field_by_name(name).is_none() {
                bail!("`{}` has no field `{name}`", message.full_name());
            }
            if fields.insert(name.to_owned(), values.clone()).is_some() {
                bail!("`{name}` of `{}` is listed twice", message.full_name());
            }
        }
        Ok(())
    }

    fn get(&self, field: &FieldDescriptor) -> Option<&Values> {
        self.0.get(field.parent_message().full_name())?.get(field.name())
    }
}

/// The tables while they are filled.
struct Packer {
    supported: Supported,
    rules_of_field: ExtensionDescriptor,
    required_oneof: ExtensionDescriptor,
    sensitive: ExtensionDescriptor,
    messages: Vec<MessageDescriptor>,
    enums: Vec<EnumDescriptor>,
    strings: Vec<u8>,
    string_index: HashMap<Vec<u8>, (u32, u32)>,
    message_table: Vec<u8>,
    field_table: Vec<u8>,
    oneof_table: Vec<u8>,
    enum_table: Vec<u8>,
    value_table: Vec<u8>,
    rule_table: Vec<u8>,
    rule_index: HashMap<Vec<u8>, u32>,
    allowed_table: Vec<u8>,
}

impl Packer {
    fn new(pool: &DescriptorPool, supported: Supported) -> Result<Self> {
        let extension = |name: &str| {
            pool.get_extension_by_name(name).with_context(|| format!("no extension {name}"))
        };
        let mut messages: Vec<_> = pool
            .all_messages()
            .filter(|message| !message.is_map_entry() && !is_foreign(message.full_name()))
            .collect();
        messages.sort_by(|a, b| a.full_name().cmp(b.full_name()));
        let mut enums: Vec<_> =
            pool.all_enums().filter(|found| !is_foreign(found.full_name())).collect();
        enums.sort_by(|a, b| a.full_name().cmp(b.full_name()));
        Ok(Self {
            supported,
            rules_of_field: extension("validate.rules")?,
            required_oneof: extension("validate.required")?,
            sensitive: extension("udpa.annotations.sensitive")?,
            messages,
            enums,
            strings: Vec::new(),
            string_index: HashMap::new(),
            message_table: Vec::new(),
            field_table: Vec::new(),
            oneof_table: Vec::new(),
            enum_table: Vec::new(),
            value_table: Vec::new(),
            rule_table: Vec::new(),
            rule_index: HashMap::new(),
            allowed_table: Vec::new(),
        })
    }

    fn pack(mut self) -> Result<Vec<u8>> {
        for message in self.messages.clone() {
            self.message(&message)?;
        }
        for found in self.enums.clone() {
            self.enumeration(&found);
        }
        let sections = [
            self.message_table,
            self.field_table,
            self.oneof_table,
            self.enum_table,
            self.value_table,
            self.rule_table,
            self.allowed_table,
            self.strings,
        ];
        let mut out = Vec::new();
        put(&mut out, MAGIC);
        let mut offset = 4 + 4 * sections.len() as u32 + 4;
        for section in &sections {
            put(&mut out, offset);
            offset += u32::try_from(section.len())?;
        }
        put(&mut out, offset);
        for section in sections {
            out.extend(section);
        }
        Ok(out)
    }

    fn string(&mut self, bytes: &[u8]) -> (u32, u32) {
        if let Some(found) = self.string_index.get(bytes) {
            return *found;
        }
        let place = (self.strings.len() as u32, bytes.len() as u32);
        self.strings.extend_from_slice(bytes);
        self.string_index.insert(bytes.to_vec(), place);
        place
    }

    fn message(&mut self, message: &MessageDescriptor) -> Result<()> {
        let name = self.string(message.full_name().as_bytes());
        let first_field = self.field_table.len() as u32 / 32;
        let mut fields: Vec<_> = message.fields().collect();
        fields.sort_by_key(FieldDescriptor::number);
        let first_oneof = self.oneof_table.len() as u32 / 12;
        let oneofs: Vec<_> = message.oneofs().filter(|oneof| !oneof.is_synthetic()).collect();
        for oneof in &oneofs {
            let name = self.string(oneof.name().as_bytes());
            let options = oneof.options();
            let required =
                matches!(&*options.get_extension(&self.required_oneof), Value::Bool(true));
            put(&mut self.oneof_table, name.0);
            put(&mut self.oneof_table, name.1);
            put(&mut self.oneof_table, u32::from(required));
        }
        for field in &fields {
            let oneof = field.containing_oneof().filter(|oneof| !oneof.is_synthetic());
            let oneof = oneof.and_then(|oneof| oneofs.iter().position(|found| *found == oneof));
            self.field(field, oneof.map_or(NONE, |index| index as u32))?;
        }
        for number in
            [name.0, name.1, first_field, fields.len() as u32, first_oneof, oneofs.len() as u32]
        {
            put(&mut self.message_table, number);
        }
        Ok(())
    }

    fn field(&mut self, field: &FieldDescriptor, oneof: u32) -> Result<()> {
        let name = self.string(field.name().as_bytes());
        let (kind, related) = self.kind(&field.kind(), field)?;
        let options = field.options();
        let mut flags = 0;
        if field.is_map() {
            flags |= flag::MAP;
        } else if field.is_list() {
            flags |= flag::REPEATED;
        }
        if field.supports_presence() {
            flags |= flag::PRESENCE;
        }
        let supported = self.supported.get(field).cloned();
        if supported.is_some() {
            flags |= flag::SUPPORTED;
        }
        if matches!(
            &*options.get_field_by_name("deprecated").context("no deprecated")?,
            Value::Bool(true)
        ) {
            flags |= flag::DEPRECATED;
        }
        if matches!(&*options.get_extension(&self.sensitive), Value::Bool(true)) {
            flags |= flag::SENSITIVE;
        }
        let rules = self.rules(&options);
        let allowed = self.allowed(supported.flatten());
        put(&mut self.field_table, field.number());
        put(&mut self.field_table, name.0);
        self.field_table.extend_from_slice(&(name.1 as u16).to_le_bytes());
        self.field_table.extend_from_slice(&flags.to_le_bytes());
        self.field_table.extend_from_slice(&kind.to_le_bytes());
        self.field_table.extend_from_slice(&[0; 3]);
        for number in [related, oneof, rules, allowed] {
            put(&mut self.field_table, number);
        }
        Ok(())
    }

    /// The wire kind and, for messages and enums, the index of the type. A map's are those of its value, and its
    /// key's kind is the high half.
    fn kind(&mut self, kind: &Kind, field: &FieldDescriptor) -> Result<(u8, u32)> {
        if field.is_map() {
            let Kind::Message(entry) = kind else { bail!("{} is an odd map", field.full_name()) };
            let (key, _) = self.scalar_kind(&entry.map_entry_key_field().kind())?;
            let (value, related) = self.scalar_kind(&entry.map_entry_value_field().kind())?;
            return Ok((key << 4 | value, related));
        }
        self.scalar_kind(kind)
    }

    fn scalar_kind(&self, kind: &Kind) -> Result<(u8, u32)> {
        Ok(match kind {
            Kind::String => (0, NONE),
            Kind::Bytes => (1, NONE),
            Kind::Bool => (2, NONE),
            Kind::Int32 => (3, NONE),
            Kind::Int64 => (4, NONE),
            Kind::Uint32 => (5, NONE),
            Kind::Uint64 => (6, NONE),
            Kind::Float => (7, NONE),
            Kind::Double => (8, NONE),
            Kind::Enum(found) => {
                (9, position(&self.enums, found.full_name(), EnumDescriptor::full_name)?)
            }
            Kind::Message(found) => {
                (10, position(&self.messages, found.full_name(), MessageDescriptor::full_name)?)
            }
            Kind::Sint32 => (11, NONE),
            Kind::Sint64 => (12, NONE),
            Kind::Fixed32 => (13, NONE),
            Kind::Fixed64 => (14, NONE),
            Kind::Sfixed32 | Kind::Sfixed64 => bail!("sfixed is not used by any configuration"),
        })
    }

    fn rules(&mut self, options: &DynamicMessage) -> u32 {
        if !options.has_extension(&self.rules_of_field) {
            return NONE;
        }
        let Value::Message(rules) = &*options.get_extension(&self.rules_of_field) else {
            return NONE;
        };
        let bytes = rules.encode_to_vec();
        if let Some(index) = self.rule_index.get(&bytes) {
            return *index;
        }
        let place = self.string(&bytes);
        let index = self.rule_table.len() as u32 / 8;
        put(&mut self.rule_table, place.0);
        put(&mut self.rule_table, place.1);
        self.rule_index.insert(bytes, index);
        index
    }

    /// The values that a supported field may have, as one string of words.
    fn allowed(&mut self, values: Values) -> u32 {
        let Some(values) = values else { return NONE };
        let place = self.string(values.join(" ").as_bytes());
        let index = self.allowed_table.len() as u32 / 8;
        put(&mut self.allowed_table, place.0);
        put(&mut self.allowed_table, place.1);
        index
    }

    fn enumeration(&mut self, found: &EnumDescriptor) {
        let name = self.string(found.full_name().as_bytes());
        let first = self.value_table.len() as u32 / 12;
        let values: Vec<_> = found.values().collect();
        for value in &values {
            let name = self.string(value.name().as_bytes());
            put(&mut self.value_table, name.0);
            put(&mut self.value_table, name.1);
            put(&mut self.value_table, value.number() as u32);
        }
        for number in [name.0, name.1, first, values.len() as u32] {
            put(&mut self.enum_table, number);
        }
    }
}

/// Types that no configuration can hold: descriptors and the options of fields.
fn is_foreign(name: &str) -> bool {
    name.starts_with("validate.") || name.starts_with("google.protobuf.") && !is_well_known(name)
}

fn is_well_known(name: &str) -> bool {
    let name = name.trim_start_matches("google.protobuf.");
    name.ends_with("Value")
        || matches!(name, "Any" | "Duration" | "Timestamp" | "Struct" | "Empty" | "FieldMask")
}

fn position<T>(sorted: &[T], name: &str, key: impl Fn(&T) -> &str) -> Result<u32> {
    let found = sorted.binary_search_by(|candidate| key(candidate).cmp(name));
    Ok(found.map_err(|_| anyhow::anyhow!("{name} is used but left out"))? as u32)
}

fn put(out: &mut Vec<u8>, number: u32) {
    out.extend_from_slice(&number.to_le_bytes());
}
