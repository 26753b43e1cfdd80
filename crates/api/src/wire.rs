//! Protobuf's wire format, field by field, without types.

use bytes::Buf;
use prost::encoding::{decode_varint, encode_varint};

/// One field's value as it is on the wire.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1.
    Fixed64(u64),
    /// Wire type 2: text, bytes, a message or packed scalars.
    Bytes(&'a [u8]),
    /// Wire type 5.
    Fixed32(u32),
}

impl<'a> Value<'a> {
    /// The bytes of a length-delimited value; nothing for others.
    pub fn bytes(self) -> &'a [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            _ => &[],
        }
    }

    /// The number of a varint or a fixed value.
    pub fn number(self) -> u64 {
        match self {
            Self::Varint(number) | Self::Fixed64(number) => number,
            Self::Fixed32(number) => number.into(),
            Self::Bytes(_) => 0,
        }
    }
}

/// The bytes are not protobuf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed protobuf")]
pub struct Malformed;

/// Reads the fields of one message in wire order: (number, value).
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// The fields of the message in `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8], Malformed> {
        let len = usize::try_from(len).map_err(|_| Malformed)?;
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        decode_varint(&mut self.rest).map_err(|_| Malformed)
    }

    fn read(&mut self) -> Result<(u32, Value<'a>), Malformed> {
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).map_err(|_| Malformed)?;
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(self.take(8)?.get_u64_le()),
            2 => {
                let len = self.varint()?;
                Value::Bytes(self.take(len)?)
            }
            5 => Value::Fixed32(self.take(4)?.get_u32_le()),
            _ => return Err(Malformed),
        };
        if number == 0 { Err(Malformed) } else { Ok((number, value)) }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.read();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

/// Appends a length-delimited field.
pub fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    encode_varint(u64::from(number) << 3 | 2, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// Appends a scalar field.
pub fn put_value(out: &mut Vec<u8>, number: u32, value: Value<'_>) {
    let key = u64::from(number) << 3;
    match value {
        Value::Varint(varint) => {
            encode_varint(key, out);
            encode_varint(varint, out);
        }
        Value::Fixed64(fixed) => {
            encode_varint(key | 1, out);
            out.extend_from_slice(&fixed.to_le_bytes());
        }
        Value::Bytes(bytes) => put_bytes(out, number, bytes),
        Value::Fixed32(fixed) => {
            encode_varint(key | 5, out);
            out.extend_from_slice(&fixed.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_read_back() {
        let mut out = Vec::new();
        let values =
            [Value::Varint(300), Value::Fixed64(7), Value::Bytes(b"abc"), Value::Fixed32(9)];
        for (number, value) in values.into_iter().enumerate() {
            put_value(&mut out, number as u32 + 1, value);
        }
        let read: Vec<_> = Fields::new(&out).map(|field| field.unwrap().1).collect();
        assert_eq!(read, values);
    }

    #[test]
    fn malformed_ends_the_iteration() {
        for bytes in [&[0x0a, 5, 1][..], &[0x00, 1], &[0x0b], &[0xff; 12]] {
            let fields: Vec<_> = Fields::new(bytes).collect();
            assert_eq!(fields, [Err(Malformed)], "{bytes:?}");
        }
    }
}
