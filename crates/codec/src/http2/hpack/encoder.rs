//! Heads into header blocks.
//!
//! Fields of the connection (`connection`, `keep-alive`, `upgrade` and the like), `host`, and a `te` other than `trailers` are not
//! written. Values that are secrets are written as never to be indexed (RFC 7541 §7.1.3), as are those that came so.

use super::recollection::{Recall, Recollection, hash};
use super::table::{Name, Table};
use super::{DEFAULT_TABLE_SIZE, ENTRY_OVERHEAD, Pseudo, huffman, integer, static_table};
use crate::headers::{
    Fields, KnownName, Method, NameRef, NameSet, RequestHead, ResponseHead, names,
};

/// Values that must not be guessed by watching how well they compress.
const SECRET: NameSet = NameSet::of(&[
    names::AUTHORIZATION,
    names::PROXY_AUTHORIZATION,
    names::COOKIE,
    names::SET_COOKIE,
]);

/// What HTTP/2 has no field for.
const OF_THE_CONNECTION: NameSet = NameSet::of(&[
    names::CONNECTION,
    names::KEEP_ALIVE,
    names::PROXY_CONNECTION,
    names::TRANSFER_ENCODING,
    names::UPGRADE,
    names::HTTP2_SETTINGS,
    names::HOST,
]);

/// Longer values are not worth a place in the table.
const LONGEST_INDEXED: usize = 512;

/// The encoding end of one direction of a connection.
#[derive(Debug)]
pub struct Encoder {
    table: Table,
    /// Whole fields.
    fields: Recollection,
    /// Names that are not in the static table.
    names: Recollection,
    uses_huffman: bool,
    /// The most memory for the table, whatever the peer would allow.
    most: usize,
    /// The smallest size that the table had since the last block, if it was changed.
    smallest: Option<usize>,
}

impl Encoder {
    /// An encoder as a connection begins. `max_table_size` bounds the table whatever the peer allows. It allocates nothing.
    ///
    /// Huffman coding saves a fifth of what is not indexed, and costs both sides time.
    pub fn new(uses_huffman: bool, max_table_size: u32) -> Encoder {
        let mut encoder = Encoder {
            table: Table::default(),
            fields: Recollection::default(),
            names: Recollection::default(),
            uses_huffman,
            most: max_table_size as usize,
            smallest: None,
        };
        encoder.set_peer_table_size(DEFAULT_TABLE_SIZE);
        encoder
    }

    /// The peer's SETTINGS_HEADER_TABLE_SIZE. The next block says what came of it.
    pub fn set_peer_table_size(&mut self, size: u32) {
        let size = (size as usize).min(self.most);
        if size != self.table.max_size() {
            self.table.set_max_size(size);
            self.smallest = Some(self.smallest.unwrap_or(size).min(size));
        }
    }

    /// Appends the block of a request. Without a scheme, `http` is written.
    pub fn request(&mut self, head: &RequestHead, out: &mut Vec<u8>) {
        self.size_update(out);
        self.pseudo(Pseudo::Method, head.method(), out);
        if head.method_kind() != Method::Connect || !head.protocol().is_empty() {
            let scheme = head.scheme();
            self.pseudo(Pseudo::Scheme, if scheme.is_empty() { b"http" } else { scheme }, out);
            self.pseudo(Pseudo::Path, head.path(), out);
        }
        for (pseudo, value) in
            [(Pseudo::Authority, head.authority()), (Pseudo::Protocol, head.protocol())]
        {
            if !value.is_empty() {
                self.pseudo(pseudo, value, out);
            }
        }
        self.fields(&head.fields, out);
    }

    /// Appends the block of a response.
    pub fn response(&mut self, head: &ResponseHead, out: &mut Vec<u8>) {
        self.size_update(out);
        self.pseudo(Pseudo::Status, itoa::Buffer::new().format(head.status).as_bytes(), out);
        self.fields(&head.fields, out);
    }

    /// Appends the block of trailers.
    pub fn trailers(&mut self, fields: &Fields, out: &mut Vec<u8>) {
        self.size_update(out);
        self.fields(fields, out);
    }

    fn size_update(&mut self, out: &mut Vec<u8>) {
        let Some(smallest) = self.smallest.take() else {
            return;
        };
        let size = self.table.max_size();
        if smallest < size {
            integer::encode(smallest, 5, 0b0010_0000, out);
        }
        integer::encode(size, 5, 0b0010_0000, out);
    }

    fn fields(&mut self, fields: &Fields, out: &mut Vec<u8>) {
        for (name, value, never_indexed) in fields.iter_to_compress() {
            let known = match name {
                NameRef::Known(known) => known,
                NameRef::Other(_) => KnownName::NONE,
            };
            if OF_THE_CONNECTION.contains(known) || known == names::TE && value != b"trailers" {
                continue;
            }
            let (name, bytes) = (Name::Field(known), name.as_bytes());
            if never_indexed || SECRET.contains(known) {
                self.literal(
                    static_table::index_of(name, bytes),
                    bytes,
                    value,
                    4,
                    0b0001_0000,
                    out,
                );
            } else {
                self.field(name, bytes, value, out);
            }
        }
    }

    #[inline]
    fn pseudo(&mut self, pseudo: Pseudo, value: &[u8], out: &mut Vec<u8>) {
        self.field(Name::Pseudo(pseudo), pseudo.as_str().as_bytes(), value, out);
    }

    /// Writes a field that may be indexed.
    fn field(&mut self, name: Name, bytes: &[u8], value: &[u8], out: &mut Vec<u8>) {
        if let Some(index) = static_table::index_of_field(name, value) {
            integer::encode(index, 7, 0b1000_0000, out);
            return;
        }
        let static_name = static_table::index_of(name, bytes);
        let size = bytes.len() + value.len() + ENTRY_OVERHEAD;
        if value.len() > LONGEST_INDEXED || size > self.table.max_size() / 2 {
            self.literal(static_name, bytes, value, 4, 0, out);
            return;
        }
        let name_hash = match (static_name, name) {
            (Some(index), _) => index as u32,
            (None, Name::Field(known)) if known != KnownName::NONE => {
                64 + u32::from(known.number())
            }
            _ => hash(0, bytes),
        };
        let field_hash = hash(name_hash, value);
        let mut enters_table = match self.fields.recall(field_hash) {
            Recall::Entered(number) => match self.index_of_entry(number, bytes, Some(value)) {
                Some(index) => return integer::encode(index, 7, 0b1000_0000, out),
                None => true,
            },
            Recall::Seen => true,
            Recall::New => false,
        };
        let mut name_index = static_name;
        if static_name.is_none() {
            match self.names.recall(name_hash) {
                Recall::Entered(number) => {
                    name_index = self.index_of_entry(number, bytes, None);
                    enters_table |= name_index.is_none();
                }
                // The name repeats, if not the value.
                Recall::Seen => enters_table = true,
                Recall::New => {}
            }
        }
        if !enters_table {
            self.literal(name_index, bytes, value, 4, 0, out);
            return;
        }
        self.literal(name_index, bytes, value, 6, 0b0100_0000, out);
        let number = self.table.next_number();
        self.table.insert(name, bytes, value, true);
        self.fields.enter(field_hash, number);
        if static_name.is_none() {
            self.names.enter(name_hash, number);
        }
    }

    /// The index of the entry with this number, if it is still there and is what it is taken for.
    #[inline]
    fn index_of_entry(&self, number: u32, name: &[u8], value: Option<&[u8]>) -> Option<usize> {
        let position = self.table.position(number);
        let line = self.table.get(position)?;
        let is_it = line.name_bytes() == name && value.is_none_or(|value| line.value() == value);
        is_it.then_some(static_table::LEN + 1 + position)
    }

    fn literal(
        &self,
        name_index: Option<usize>,
        name: &[u8],
        value: &[u8],
        prefix: u32,
        flags: u8,
        out: &mut Vec<u8>,
    ) {
        integer::encode(name_index.unwrap_or_default(), prefix, flags, out);
        if name_index.is_none() {
            self.string(name, out);
        }
        self.string(value, out);
    }

    fn string(&self, string: &[u8], out: &mut Vec<u8>) {
        if self.uses_huffman {
            let len = huffman::encoded_len(string);
            if len < string.len() {
                integer::encode(len, 7, 0b1000_0000, out);
                huffman::encode(string, out);
                return;
            }
        }
        integer::encode(string.len(), 7, 0, out);
        out.extend_from_slice(string);
    }

    #[cfg(test)]
    pub(super) fn table(&self) -> &Table {
        &self.table
    }
}
