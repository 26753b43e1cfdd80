//! `x-request-id`: random UUIDs (RFC 9562 §5.4). They tell requests apart and are no secrets.

use codec::headers::{RequestHead, names};

use crate::http::config::RequestIdOptions;
use crate::worker::random::Random;

/// Gives the request an id, unless it may keep one. What a client at the edge says is believed only if configured.
pub(super) fn set(
    head: &mut RequestHead,
    rules: &RequestIdOptions,
    is_edge: bool,
    random: &mut Random,
) {
    if !rules.generate {
        return;
    }
    let is_ours_to_set = is_edge && !rules.preserve_external;
    let has_one = head.fields.get(names::X_REQUEST_ID).is_some_and(|id| !id.is_empty());
    if is_ours_to_set || !has_one {
        head.fields.set_with(names::X_REQUEST_ID, |out| write_uuid(random, out));
    }
}

/// Appends a random UUID in its usual spelling, 36 bytes.
pub fn write_uuid(random: &mut Random, out: &mut Vec<u8>) {
    const VERSION: u64 = 4 << 12;
    const VARIANT: u64 = 2 << 62;

    let high = random.draw() & !(0xf << 12) | VERSION;
    let low = random.draw() & !(3 << 62) | VARIANT;
    let (high, low) = (hexadecimal(high), hexadecimal(low));
    let mut text = [b'-'; 36];
    text[..8].copy_from_slice(&high[..8]);
    text[9..13].copy_from_slice(&high[8..12]);
    text[14..18].copy_from_slice(&high[12..]);
    text[19..23].copy_from_slice(&low[..4]);
    text[24..].copy_from_slice(&low[4..]);
    out.extend_from_slice(&text);
}

/// Sixteen digits, eight at a time.
fn hexadecimal(number: u64) -> [u8; 16] {
    const EACH: u64 = 0x0101_0101_0101_0101;

    let digits = |half: u64| {
        // Spreads eight half-bytes over eight bytes, then adds '0', and the way from '9' to 'a' where one is above 9.
        let half = (half << 16 | half) & 0x0000_ffff_0000_ffff;
        let half = (half << 8 | half) & 0x00ff_00ff_00ff_00ff;
        let half = (half << 4 | half) & (EACH * 0x0f);
        let letters = (half + EACH * 6) >> 4 & EACH;
        half + EACH * u64::from(b'0') + letters * u64::from(b'a' - b'0' - 10)
    };
    let mut text = [0; 16];
    text[..8].copy_from_slice(&digits(number >> 32).to_be_bytes());
    text[8..].copy_from_slice(&digits(number & 0xffff_ffff).to_be_bytes());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_are_of_version_4() {
        let (mut random, mut seen) = (Random::new(7), std::collections::HashSet::new());
        for _ in 0..1000 {
            let mut out = Vec::new();
            write_uuid(&mut random, &mut out);
            let text = String::from_utf8(out).unwrap();
            let uuid = uuid::Uuid::parse_str(&text).unwrap();
            assert_eq!((uuid.get_version_num(), uuid.get_variant()), (4, uuid::Variant::RFC4122));
            assert_eq!(uuid.to_string(), text);
            assert!(seen.insert(text));
        }
    }
}
