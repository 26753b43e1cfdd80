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
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    const VERSION: u128 = 4 << 76;
    const VARIANT: u128 = 2 << 62;

    let bits = u128::from(random.draw()) << 64 | u128::from(random.draw());
    let bits = bits & !(0xf << 76) & !(3 << 62) | VERSION | VARIANT;
    let mut text = [b'-'; 36];
    let mut at = 0;
    for (position, byte) in bits.to_be_bytes().into_iter().enumerate() {
        if matches!(position, 4 | 6 | 8 | 10) {
            at += 1;
        }
        text[at] = DIGITS[usize::from(byte >> 4)];
        text[at + 1] = DIGITS[usize::from(byte & 15)];
        at += 2;
    }
    out.extend_from_slice(&text);
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
