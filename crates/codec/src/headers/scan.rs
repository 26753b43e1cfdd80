//! Looks for the bytes that end or spoil a part of a head, eight at a time.

const EACH: u64 = 0x0101_0101_0101_0101;

/// The first byte from `at` that text (values, reason phrases: HTAB, SP, VCHAR, obs-text) cannot have, or the input's end.
#[inline]
pub(crate) fn text_end(input: &[u8], mut at: usize) -> usize {
    loop {
        at = control_at(input, at);
        if input.get(at) != Some(&b'\t') {
            return at;
        }
        at += 1;
    }
}

/// The first control character (HTAB too) from `at`, or the input's end.
#[inline]
pub(crate) fn control_at(input: &[u8], at: usize) -> usize {
    first_below(input, at, b' ')
}

/// The first byte from `at` that a request target cannot have (space, controls), or the input's end. What is not ASCII passes.
#[inline]
pub(crate) fn target_end(input: &[u8], at: usize) -> usize {
    first_below(input, at, b'!')
}

/// The first byte from `at` that is below `lowest` or DEL, or the input's end.
#[inline]
fn first_below(input: &[u8], mut at: usize, lowest: u8) -> usize {
    // Long values, cookies say: the compiler makes vector instructions of this.
    while let Some(block) = input.get(at..).and_then(<[u8]>::first_chunk::<32>) {
        if block.iter().fold(false, |bad, byte| bad | (*byte < lowest) | (*byte == 0x7f)) {
            break;
        }
        at += block.len();
    }
    while let Some(eight) = input.get(at..).and_then(<[u8]>::first_chunk) {
        let word = u64::from_le_bytes(*eight);
        let del = word ^ (EACH * 0x7f);
        // A byte's high bit is set where it is lower than the one subtracted; borrows spoil higher bytes only.
        let below = word.wrapping_sub(EACH * u64::from(lowest)) & !word;
        let suspects = (below | del.wrapping_sub(EACH) & !del) & EACH << 7;
        if suspects != 0 {
            return at + suspects.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let rest = input.get(at..).unwrap_or_default();
    at + rest.iter().position(|byte| *byte < lowest || *byte == 0x7f).unwrap_or(rest.len())
}

/// Puts ASCII letters into lower case.
#[inline]
pub(super) fn lower_case(bytes: &mut [u8]) {
    let (eights, rest) = bytes.as_chunks_mut::<8>();
    for eight in eights {
        let word = u64::from_le_bytes(*eight);
        // The high bit of a sum is set from 'A' on, and from the one after 'Z' on; what is not ASCII stays.
        let seven = word & !(EACH << 7);
        let from_a = seven + EACH * (0x80 - u64::from(b'A'));
        let after_z = seven + EACH * (0x80 - u64::from(b'Z') - 1);
        let is_upper = from_a & !after_z & !word & EACH << 7;
        *eight = (word | is_upper >> 2).to_le_bytes();
    }
    rest.make_ascii_lowercase();
}

/// The set of ASCII letters, digits and these.
pub(super) const fn table(others: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut at = 0;
    while at < others.len() {
        table[others[at] as usize] = true;
        at += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_lowered_and_nothing_else() {
        let every: Vec<u8> = (0..=255).chain(0..=255).collect();
        for shift in 0..8 {
            let mut bytes = every[shift..].to_vec();
            lower_case(&mut bytes);
            assert_eq!(bytes, every[shift..].to_ascii_lowercase());
        }
    }

    #[test]
    fn ends_are_found_at_every_place() {
        for len in (0..20).chain(60..70) {
            for (place, byte) in (0..len).flat_map(|place| (0..=255).map(move |byte| (place, byte)))
            {
                let mut input = vec![b'a'; len];
                input[place] = byte;
                // What follows a suspect must not hide it.
                if place + 1 < len {
                    input[place + 1] = 0;
                }
                let first = |is_bad: fn(u8) -> bool| {
                    input.iter().position(|byte| is_bad(*byte)).unwrap_or(len)
                };
                assert_eq!(control_at(&input, 0), first(|byte| byte.is_ascii_control()));
                assert_eq!(
                    text_end(&input, 0),
                    first(|byte| byte != b'\t' && byte.is_ascii_control())
                );
                assert_eq!(target_end(&input, 0), first(|byte| byte <= b' ' || byte == 0x7f));
            }
        }
        assert_eq!((text_end(b"", 0), target_end(b"ab", 2)), (0, 2));
    }
}
