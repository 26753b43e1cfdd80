//! The Huffman code of strings (RFC 7541 §5.2, appendix B).
//!
//! The code is canonical: shorter codes come first, and among equals smaller symbols, so the lengths say it all. Decoding looks
//! up the next twelve bits, which give two symbols of ordinary text at a time; longer codes are found by comparing with the first
//! code of each length.

use super::BlockError;

/// The length in bits of each byte's code, and of EOS at the end.
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, //
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28, //
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, //
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, //
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, //
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, //
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, //
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, //
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, //
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, //
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, //
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, //
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, //
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, //
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, //
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, //
    30,
];

const EOS: usize = 256;
const LONGEST: usize = 30;
/// Bits that one look-up settles.
const STEP: u32 = 12;

/// What the next bits begin with: as many whole codes as fit, two at most.
#[derive(Clone, Copy)]
struct Step {
    symbols: [u8; 2],
    /// 0 where the first code is longer than the step.
    count: u8,
    /// Bits of the codes together.
    bits: u8,
}

/// The code built from its lengths.
struct Code {
    /// The bits of each symbol.
    bits: [u32; 257],
    /// Symbols in the order of their codes.
    order: [u16; 257],
    /// By length: one past the last code of that length, its bits at the top of the word. Never falls.
    limits: [u32; LONGEST + 1],
    /// By length: the place in `order` of the first symbol of that length less the value of its code.
    offsets: [i32; LONGEST + 1],
    steps: [Step; 1 << STEP],
}

static CODE: Code = build();

const fn build() -> Code {
    let mut code = Code {
        bits: [0; 257],
        order: [0; 257],
        limits: [0; LONGEST + 1],
        offsets: [0; LONGEST + 1],
        steps: [Step { symbols: [0; 2], count: 0, bits: 0 }; 1 << STEP],
    };
    let (mut length, mut next, mut placed) = (1, 0u32, 0);
    while length <= LONGEST {
        next <<= 1;
        code.offsets[length] = placed as i32 - next as i32;
        let mut symbol = 0;
        while symbol < LENGTHS.len() {
            if LENGTHS[symbol] as usize == length {
                code.bits[symbol] = next;
                code.order[placed] = symbol as u16;
                next += 1;
                placed += 1;
            }
            symbol += 1;
        }
        // The last code, EOS, is all ones: only there would this leave the word.
        code.limits[length] =
            if length == LONGEST { u32::MAX } else { next << (32 - length as u32) };
        length += 1;
    }
    let mut bits = 0;
    while bits < code.steps.len() {
        code.steps[bits] = step(&code, (bits as u32) << (32 - STEP));
        bits += 1;
    }
    code
}

/// The codes at the top of the word that lie within its first `STEP` bits.
const fn step(code: &Code, word: u32) -> Step {
    let mut step = Step { symbols: [0; 2], count: 0, bits: 0 };
    while step.count < 2 {
        let (symbol, length) = code.first(word << step.bits);
        if step.bits as u32 + length > STEP {
            break;
        }
        step.symbols[step.count as usize] = symbol as u8;
        step.count += 1;
        step.bits += length as u8;
    }
    step
}

impl Code {
    /// The symbol whose code is at the top of the word, and the length of the code.
    const fn first(&self, word: u32) -> (u16, u32) {
        let mut length = 5;
        while length < LONGEST && word >= self.limits[length] {
            length += 1;
        }
        let place = (word >> (32 - length as u32)) as i32 + self.offsets[length];
        (self.order[place as usize], length as u32)
    }
}

/// Appends the decoded string. Padding of eight bits or more, padding other than ones, and EOS are errors.
pub(super) fn decode(input: &[u8], out: &mut Vec<u8>) -> Result<(), BlockError> {
    let start = out.len();
    // No code is shorter than five bits, and a step writes two symbols even where it means one.
    out.resize(start + input.len() * 8 / 5 + 2, 0);
    let slots = &mut out[start..];
    let mut bits = Bits { window: 0, valid: 0, input };
    let mut at = 0;
    loop {
        bits.refill();
        while bits.valid >= STEP {
            let step = CODE.steps[(bits.window >> (64 - STEP)) as usize];
            if step.count == 0 {
                break;
            }
            slots[at..at + 2].copy_from_slice(&step.symbols);
            at += usize::from(step.count);
            bits.take(u32::from(step.bits));
        }
        if bits.valid < STEP && !bits.input.is_empty() {
            continue;
        }
        // A long code, or what is left at the end.
        let Some(symbol) = bits.next_symbol()? else { break };
        slots[at] = symbol;
        at += 1;
    }
    out.truncate(start + at);
    Ok(())
}

const PADDING: BlockError = BlockError::Compression("Huffman padding is not the start of EOS");

/// The bits of the input that are still to be decoded, the next one at the top of the window.
struct Bits<'a> {
    window: u64,
    valid: u32,
    input: &'a [u8],
}

impl Bits<'_> {
    #[inline]
    fn take(&mut self, bits: u32) {
        self.window <<= bits;
        self.valid -= bits;
    }

    #[inline]
    fn refill(&mut self) {
        if self.valid > 32 {
            return;
        }
        if let Some((four, rest)) = self.input.split_first_chunk::<4>() {
            self.window |= u64::from(u32::from_be_bytes(*four)) << (32 - self.valid);
            self.valid += 32;
            self.input = rest;
            return;
        }
        while let Some((byte, rest)) = self.input.split_first() {
            self.window |= u64::from(*byte) << (56 - self.valid);
            self.valid += 8;
            self.input = rest;
        }
    }

    /// The next byte, of a code of any length; none where only padding is left.
    fn next_symbol(&mut self) -> Result<Option<u8>, BlockError> {
        self.refill();
        let top = (self.window >> 32) as u32;
        if self.valid < 8 && top | u32::MAX >> self.valid == u32::MAX {
            return Ok(None);
        }
        let (symbol, length) = CODE.first(top);
        if length > self.valid {
            return Err(PADDING);
        }
        self.take(length);
        u8::try_from(symbol)
            .map(Some)
            .map_err(|_| BlockError::Compression("EOS in a Huffman string"))
    }
}

/// Bytes that a string takes when it is coded.
pub(super) fn encoded_len(string: &[u8]) -> usize {
    string.iter().map(|byte| usize::from(LENGTHS[usize::from(*byte)])).sum::<usize>().div_ceil(8)
}

/// Appends a coded string.
pub(super) fn encode(string: &[u8], out: &mut Vec<u8>) {
    let (mut window, mut valid) = (0u64, 0u32);
    for byte in string {
        let symbol = usize::from(*byte);
        let length = u32::from(LENGTHS[symbol]);
        window = window << length | u64::from(CODE.bits[symbol]);
        valid += length;
        if valid >= 32 {
            valid -= 32;
            out.extend_from_slice(&((window >> valid) as u32).to_be_bytes());
        }
    }
    if valid > 0 {
        // The padding is the start of EOS: ones.
        let padded =
            (window << (32 - valid)) as u32 | u32::MAX.checked_shr(valid).unwrap_or_default();
        out.extend_from_slice(&padded.to_be_bytes()[..valid.div_ceil(8) as usize]);
    }
}

const _: () = assert!(LENGTHS[EOS] as usize == LONGEST && CODE_IS_COMPLETE);

/// Kraft's sum is one: every sequence of bits is the start of a code, and there is one code for each.
const CODE_IS_COMPLETE: bool = {
    let (mut sum, mut symbol) = (0u64, 0);
    while symbol < LENGTHS.len() {
        sum += 1 << (LONGEST - LENGTHS[symbol] as usize);
        symbol += 1;
    }
    sum == 1 << LONGEST
};

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decoded(wire: &[u8]) -> Result<Vec<u8>, BlockError> {
        let mut out = b"before".to_vec();
        decode(wire, &mut out)?;
        Ok(out.split_off(6))
    }

    #[test]
    fn codes_of_the_appendix() {
        for (symbol, bits) in [
            (0usize, 0x1ff8),
            (1, 0x7fffd8),
            (10, 0x3ffffffc),
            (48, 0x0),
            (92, 0x7fff0),
            (122, 0x7b),
            (128, 0xfffe6),
            (255, 0x3ffffee),
            (EOS, 0x3fffffff),
        ] {
            assert_eq!(CODE.bits[symbol], bits, "{symbol}");
        }
        // RFC 7541 C.4.1
        assert_eq!(
            decoded(&[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff]),
            Ok(b"www.example.com".to_vec())
        );
    }

    #[test]
    fn every_byte_survives_at_every_offset() {
        for byte in 0..=255u8 {
            for before in 0..16 {
                let string = [vec![b'a'; before], vec![byte; 3]].concat();
                let mut wire = Vec::new();
                encode(&string, &mut wire);
                assert_eq!(wire.len(), encoded_len(&string));
                assert_eq!(decoded(&wire).as_ref(), Ok(&string));
            }
        }
    }

    #[test]
    fn wrong_padding_and_eos_are_refused() {
        // '0' is 00000: the padding that follows must be ones.
        assert_eq!(decoded(&[0b0000_0111]), Ok(b"0".to_vec()));
        for wire in [
            &[0b0000_0110][..],
            &[0b0000_0011],
            // A whole byte of padding, and more of it.
            &[0b0000_0111, 0xff],
            &[0xff],
            &[0xff, 0xff, 0xff],
            // EOS itself, and with more behind it.
            &[0xff, 0xff, 0xff, 0xff],
            &[0xff, 0xff, 0xff, 0xfc, 0x00],
            // The first half of a long code.
            &[0xff, 0xc0],
        ] {
            assert!(decoded(wire).is_err(), "{wire:x?}");
        }
        assert_eq!(decoded(&[]), Ok(Vec::new()));
    }

    proptest! {
        #[test]
        fn strings_survive(string in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut wire = Vec::new();
            encode(&string, &mut wire);
            prop_assert_eq!(wire.len(), encoded_len(&string));
            prop_assert_eq!(decoded(&wire), Ok(string));
        }

        /// A string has one coding: whatever is taken is what would have been written.
        #[test]
        fn what_is_taken_is_canonical(wire in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(string) = decoded(&wire) {
                let mut again = Vec::new();
                encode(&string, &mut again);
                prop_assert_eq!(again, wire);
            }
        }
    }
}
