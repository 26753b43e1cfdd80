//! Header blocks into heads.
//!
//! A field is written to the end of the head's buffer as the line it would be in HTTP/1, so that passing it on to such a peer is
//! a copy of the whole run. What a name means comes with its index; only a name that is spelled out is looked at. After the first
//! fault of a message, and after the limits are reached, nothing is kept any more, but the table stays in step.

use super::sinks::{Field, RequestSink, ResponseSink, Sink, TrailersSink};
use super::table::{Line, Name, Table};
use super::{
    BlockError, DEFAULT_TABLE_SIZE, ENTRY_OVERHEAD, Limits, huffman, integer, static_table,
};
use crate::headers::{Fields, RequestHead, ResponseHead, Span};

/// The decoding end of one direction of a connection.
#[derive(Clone, Debug)]
pub struct Decoder {
    table: Table,
    /// The size that the peer may choose for the table: what our SETTINGS say, once they are acknowledged.
    allowed: usize,
    /// The size was lowered: the next block must begin by saying that it knows.
    owes_update: bool,
}

impl Default for Decoder {
    fn default() -> Self {
        Decoder::new()
    }
}

impl Decoder {
    /// A decoder as a connection begins, with [`DEFAULT_TABLE_SIZE`]. It allocates nothing.
    pub fn new() -> Decoder {
        Decoder {
            table: Table::default(),
            allowed: DEFAULT_TABLE_SIZE as usize,
            owes_update: false,
        }
    }

    /// Our SETTINGS_HEADER_TABLE_SIZE has been acknowledged.
    pub fn set_table_size(&mut self, size: u32) {
        self.allowed = size as usize;
        self.owes_update = self.table.max_size() > self.allowed;
    }

    /// Decodes a whole block into the head of a request, which is cleared before, and after any error.
    pub fn request(
        &mut self,
        block: &[u8],
        limits: Limits,
        head: &mut RequestHead,
    ) -> Result<(), BlockError> {
        head.clear();
        let done = self.block(block, limits, RequestSink::new(head));
        if done.is_err() {
            head.clear();
        }
        done
    }

    /// Decodes a whole block into the head of a response, which is cleared before, and after any error.
    pub fn response(
        &mut self,
        block: &[u8],
        limits: Limits,
        head: &mut ResponseHead,
    ) -> Result<(), BlockError> {
        head.clear();
        let done = self.block(block, limits, ResponseSink::new(head));
        if done.is_err() {
            head.clear();
        }
        done
    }

    /// Decodes a whole block into trailers, which are cleared before, and after any error.
    pub fn trailers(
        &mut self,
        block: &[u8],
        limits: Limits,
        fields: &mut Fields,
    ) -> Result<(), BlockError> {
        fields.clear();
        let done = self.block(block, limits, TrailersSink { fields });
        if done.is_err() {
            fields.clear();
        }
        done
    }

    /// Follows a block of a stream that is gone, to keep the table in step. The only error is that of the compression.
    pub fn skip(&mut self, block: &[u8]) -> Result<(), BlockError> {
        const NOTHING: Limits = Limits { max_bytes: 0, max_fields: 0 };

        let mut scratch = Fields::new();
        match self.block(block, NOTHING, TrailersSink { fields: &mut scratch }) {
            Err(error @ BlockError::Compression(_)) => Err(error),
            _ => Ok(()),
        }
    }

    #[cfg(test)]
    pub(super) fn table(&mut self) -> &mut Table {
        &mut self.table
    }

    fn block<S: Sink>(
        &mut self,
        block: &[u8],
        limits: Limits,
        mut sink: S,
    ) -> Result<(), BlockError> {
        let mut input = self.size_updates(block)?;
        let mut tally = Tally { limits, bytes: 0, fields: 0 };
        let mut verdict = Ok(());
        while let Some(first) = input.first() {
            if first & 0b1000_0000 != 0 && verdict.is_err() {
                // Nobody wants it: it is enough that there is such an entry.
                let (index, rest) = integer::decode(input, 7)?;
                self.line(index)?;
                input = rest;
                continue;
            }
            let start = sink.fields().buffer_mut().len();
            let (field, rest) = self.representation(*first, input, sink.fields().buffer_mut())?;
            input = rest;
            if verdict.is_ok() {
                verdict = tally.count(&field).and_then(|()| sink.take(field));
            }
            if verdict.is_err() {
                sink.fields().buffer_mut().truncate(start);
            }
        }
        verdict?;
        sink.finish().map_err(BlockError::Malformed)
    }

    /// Changes of the table's size come before the first field (RFC 7541 §4.2).
    fn size_updates<'b>(&mut self, mut input: &'b [u8]) -> Result<&'b [u8], BlockError> {
        while let Some(0b0010_0000..=0b0011_1111) = input.first() {
            let (size, rest) = integer::decode(input, 5)?;
            if size > self.allowed {
                return Err(BlockError::Compression("table size is larger than allowed"));
            }
            self.table.set_max_size(size);
            self.owes_update = false;
            input = rest;
        }
        if self.owes_update {
            return Err(BlockError::Compression("the lower table size is not acknowledged"));
        }
        Ok(input)
    }

    /// Writes the field at the front of the input to the end of the buffer, and enters it into the table if it says so.
    #[inline]
    fn representation<'b>(
        &mut self,
        first: u8,
        input: &'b [u8],
        buffer: &mut Vec<u8>,
    ) -> Result<(Field, &'b [u8]), BlockError> {
        let start = buffer.len();
        if first & 0b1000_0000 != 0 {
            let (index, rest) = integer::decode(input, 7)?;
            let line = self.line(index)?;
            buffer.extend_from_slice(line.bytes);
            let (name_len, name, is_good) = (line.name_len, line.name, line.is_good);
            let field = Field::new(start, name_len, buffer.len(), name, is_good, false);
            return Ok((field, rest));
        }
        let (prefix, enters_table) = match first >> 4 {
            0b0100..=0b0111 => (6, true),
            0b0000 | 0b0001 => (4, false),
            _ => return Err(BlockError::Compression("table size changes after a field")),
        };
        let (index, rest) = integer::decode(input, prefix)?;
        let (name, rest) = self.literal_name(index, rest, buffer)?;
        let value_start = buffer.len();
        let rest = literal(rest, buffer)?;
        let is_good = has_only_value_bytes(&buffer[value_start..]);
        let name_len = value_start - 2 - start;
        if enters_table {
            let (name_bytes, value) = buffer[start..].split_at(name_len);
            self.table.insert(name, name_bytes, &value[2..], is_good);
        }
        buffer.extend_from_slice(b"\r\n");
        let never_indexed = first >> 4 == 0b0001;
        Ok((Field::new(start, name_len, buffer.len(), name, is_good, never_indexed), rest))
    }

    /// Writes a name and `: `.
    #[inline]
    fn literal_name<'b>(
        &self,
        index: usize,
        input: &'b [u8],
        buffer: &mut Vec<u8>,
    ) -> Result<(Name, &'b [u8]), BlockError> {
        if index != 0 {
            let line = self.line(index)?;
            buffer.extend_from_slice(line.name_with_colon());
            return Ok((line.name, input));
        }
        let start = buffer.len();
        let rest = literal(input, buffer)?;
        let name = Name::classify(&buffer[start..]);
        buffer.extend_from_slice(b": ");
        Ok((name, rest))
    }

    #[inline]
    fn line(&self, index: usize) -> Result<Line<'_>, BlockError> {
        let line = match index.checked_sub(static_table::LEN + 1) {
            Some(position) => self.table.get(position),
            None => static_table::get(index),
        };
        line.ok_or(BlockError::Compression("index of no entry"))
    }
}

/// Counts what a block holds.
struct Tally {
    limits: Limits,
    bytes: usize,
    fields: usize,
}

impl Tally {
    #[inline]
    fn count(&mut self, field: &Field) -> Result<(), BlockError> {
        self.bytes += (field.name.len + field.value.len) as usize + ENTRY_OVERHEAD;
        self.fields += 1;
        if self.bytes > self.limits.max_bytes {
            return Err(BlockError::TooLarge);
        }
        if self.fields > self.limits.max_fields { Err(BlockError::TooMany) } else { Ok(()) }
    }
}

impl Field {
    fn new(
        start: usize,
        name_len: usize,
        end: usize,
        meaning: Name,
        is_good: bool,
        never_indexed: bool,
    ) -> Field {
        let value_start = start + name_len + 2;
        Field {
            name: Span::new(start, name_len),
            value: Span::new(value_start, end - 2 - value_start),
            meaning,
            is_good,
            never_indexed,
        }
    }
}

/// Appends the string at the front of the input.
#[inline]
fn literal<'b>(input: &'b [u8], buffer: &mut Vec<u8>) -> Result<&'b [u8], BlockError> {
    let is_coded = input.first().is_some_and(|first| first & 0b1000_0000 != 0);
    let (len, rest) = integer::decode(input, 7)?;
    let Some((string, rest)) = rest.split_at_checked(len) else {
        return Err(BlockError::Compression("block ends within a string"));
    };
    if is_coded {
        huffman::decode(string, buffer)?;
    } else {
        buffer.extend_from_slice(string);
    }
    Ok(rest)
}

/// RFC 9113 §8.2.1 forbids NUL, CR and LF; no other control character has business in a field, and HTTP/1 parsers refuse them.
#[inline]
fn has_only_value_bytes(value: &[u8]) -> bool {
    let bad = |byte: u8| (byte < b' ') & (byte != b'\t') | (byte == 0x7f);
    !value.iter().fold(false, |found, byte| found | bad(*byte))
}
