//! gRPC's framing: each message has a byte of flags and four bytes of length before it
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).

/// The length of what is before each message.
pub const PREFIX: usize = 5;

/// The flag of the frame in which gRPC-Web carries trailers.
pub const TRAILERS_FLAG: u8 = 0x80;

/// Follows the messages of one direction of a stream, however they are cut into pieces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Framing {
    /// Bytes of the prefix that have been seen; all of them while a message goes on.
    seen: u8,
    /// The length as far as it has been seen.
    length: u32,
    /// Bytes of the message that are still to come.
    left: u32,
    messages: u64,
}

impl Framing {
    /// Messages that have begun.
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// Is the next byte the first of a message (or the end)?
    pub fn is_between(&self) -> bool {
        self.seen == 0
    }

    /// Follows the next bytes up to the end of the message that they belong to, or of the bytes: says how many those are.
    pub fn advance(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while usize::from(self.seen) < PREFIX {
            let Some(byte) = bytes.get(at) else { return at };
            match self.seen {
                0 => {
                    self.messages += 1;
                    self.length = 0;
                }
                _ => self.length = self.length << 8 | u32::from(*byte),
            }
            self.seen += 1;
            self.left = self.length;
            at += 1;
        }
        let taken = (bytes.len() - at).min(self.left as usize);
        self.left -= taken as u32;
        if self.left == 0 {
            self.seen = 0;
        }
        at + taken
    }

    /// Follows all of the next bytes; says how many messages begin in them.
    pub fn count(&mut self, bytes: &[u8]) -> u64 {
        let before = self.messages;
        let mut at = 0;
        while at < bytes.len() {
            at += self.advance(&bytes[at..]);
        }
        self.messages - before
    }
}

/// Appends what goes before a message of `length` bytes.
pub fn prefix(flags: u8, length: usize, out: &mut Vec<u8>) {
    out.push(flags);
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(bodies: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        for body in bodies {
            prefix(0, body.len(), &mut out);
            out.extend_from_slice(body);
        }
        out
    }

    #[test]
    fn messages_are_counted_however_they_are_cut() {
        let bytes = messages(&[b"one", b"", b"three and more", &[7; 300]]);
        for size in 1..bytes.len() {
            let mut framing = Framing::default();
            let counted: u64 = bytes.chunks(size).map(|piece| framing.count(piece)).sum();
            assert_eq!((counted, framing.messages()), (4, 4), "pieces of {size}");
            assert!(framing.is_between());
        }
    }

    #[test]
    fn a_message_ends_where_its_length_says() {
        let bytes = messages(&[b"one", b"two"]);
        let mut framing = Framing::default();
        assert_eq!(framing.advance(&bytes[..4]), 4);
        assert!(!framing.is_between());
        assert_eq!(framing.advance(&bytes[4..]), 4);
        assert!(framing.is_between());
        assert_eq!(framing.advance(&bytes[8..]), 8);
        assert!(framing.is_between());
        // The longest length there is overflows nothing.
        assert_eq!(framing.count(&[0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3]), 1);
        assert!(!framing.is_between());
    }
}
