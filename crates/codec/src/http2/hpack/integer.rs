//! Integers with a prefix (RFC 7541 §5.1).

use super::BlockError;

/// Continuation bytes that an integer may take: 28 bits are more than any length or index that could be meant, and a
/// sender cannot spin the decoder with zeros.
const MOST_CONTINUATIONS: u32 = 4;

/// Reads the integer in the low `prefix` bits of the first byte and in what follows. Gives it and the rest of the input.
#[inline]
pub(super) fn decode(input: &[u8], prefix: u32) -> Result<(usize, &[u8]), BlockError> {
    const TRUNCATED: BlockError = BlockError::Compression("block ends within an integer");

    let (first, mut rest) = input.split_first().ok_or(TRUNCATED)?;
    let mask = (1usize << prefix) - 1;
    let mut value = usize::from(*first) & mask;
    if value < mask {
        return Ok((value, rest));
    }
    for position in 0..MOST_CONTINUATIONS {
        let (byte, after) = rest.split_first().ok_or(TRUNCATED)?;
        rest = after;
        value += usize::from(byte & 0x7f) << (7 * position);
        if byte & 0x80 == 0 {
            return Ok((value, rest));
        }
    }
    Err(BlockError::Compression("integer is too large"))
}

/// Writes an integer: `flags` are the bits of the first byte above the prefix.
#[inline]
pub(super) fn encode(value: usize, prefix: u32, flags: u8, out: &mut Vec<u8>) {
    let mask = (1usize << prefix) - 1;
    if value < mask {
        out.push(flags | value as u8);
        return;
    }
    out.push(flags | mask as u8);
    let mut rest = value - mask;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_rfc_and_the_edges_survive_the_round_trip() {
        // RFC 7541 C.1
        for (value, prefix, wire) in [
            (10, 5, &b"\x0a"[..]),
            (1337, 5, b"\x1f\x9a\x0a"),
            (42, 8, b"\x2a"),
            (127, 7, b"\x7f\0"),
        ] {
            let mut out = Vec::new();
            encode(value, prefix, 0, &mut out);
            assert_eq!(out, wire);
        }
        for prefix in 4..=8 {
            for value in (0..600).chain([16_383, 16_384, 65_535, 1 << 20, (1 << 28) - 1]) {
                let mut out = Vec::new();
                encode(value, prefix, 0, &mut out);
                out.push(0xee);
                assert_eq!(decode(&out, prefix), Ok((value, &[0xee][..])), "{value} in {prefix}");
                for end in 0..out.len() - 1 {
                    assert!(decode(&out[..end], prefix).is_err());
                }
            }
        }
    }

    #[test]
    fn integers_that_never_end_are_refused() {
        assert!(decode(b"\x7f\x80\x80\x80\x80\x01", 7).is_err());
        assert!(decode(b"\x7f\xff\xff\xff\xff\x0f", 7).is_err());
        assert!(decode(b"\x7f\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\0", 7).is_err());
        assert_eq!(decode(b"\x7f\xff\xff\xff\x7f", 7).map(|parsed| parsed.0), Ok((1 << 28) + 126));
    }
}
