//! The frame layer (RFC 9113 §4 and §6): heads of frames, flags, error codes, and the frames that fit in a few bytes.

/// Bytes of a frame's head.
pub(super) const HEAD_LEN: usize = 9;
/// The payload that everybody must take (RFC 9113 §4.2), and the most that we take.
pub(super) const DEFAULT_MAX_FRAME_SIZE: u32 = 16_384;

/// The longest frame that we take of a server, as our SETTINGS say: what it has read at once it can say in one frame, which is
/// passed on in one piece. Body bytes are given out as they arrive, so that costs no memory. Of clients, who are anybody, the
/// protocol's default is enough.
pub(super) const MAX_FRAME_SIZE_OF_SERVERS: u32 = 80 * 1024;
/// What a client says first (RFC 9113 §3.4).
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(super) const END_STREAM: u8 = 0x1;
pub(super) const ACK: u8 = 0x1;
pub(super) const END_HEADERS: u8 = 0x4;
pub(super) const PADDED: u8 = 0x8;
pub(super) const PRIORITY: u8 = 0x20;

/// Types of frames. Others are skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Data,
    Headers,
    Priority,
    RstStream,
    Settings,
    PushPromise,
    Ping,
    GoAway,
    WindowUpdate,
    Continuation,
    Unknown,
}

impl Kind {
    const ALL: [Kind; 10] = [
        Kind::Data,
        Kind::Headers,
        Kind::Priority,
        Kind::RstStream,
        Kind::Settings,
        Kind::PushPromise,
        Kind::Ping,
        Kind::GoAway,
        Kind::WindowUpdate,
        Kind::Continuation,
    ];

    fn from_wire(kind: u8) -> Kind {
        Kind::ALL.get(usize::from(kind)).copied().unwrap_or(Kind::Unknown)
    }
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHead {
    /// Bytes of payload: 24 bits.
    pub len: usize,
    pub kind: Kind,
    pub flags: u8,
    /// 31 bits; the reserved one is ignored.
    pub stream: u32,
}

impl FrameHead {
    /// `None` until nine bytes are there.
    #[inline]
    pub fn read(input: &[u8]) -> Option<FrameHead> {
        let head = input.first_chunk::<HEAD_LEN>()?;
        Some(FrameHead {
            len: u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize,
            kind: Kind::from_wire(head[3]),
            flags: head[4],
            stream: number(&head[5..]) & 0x7fff_ffff,
        })
    }

    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// The bytes of a frame's head. `kind` is one that we send.
#[inline]
pub(super) fn head_bytes(len: usize, kind: Kind, flags: u8, stream: u32) -> [u8; HEAD_LEN] {
    debug_assert!(kind != Kind::Unknown && len < 1 << 24);
    let [_, l0, l1, l2] = (len as u32).to_be_bytes();
    let [s0, s1, s2, s3] = stream.to_be_bytes();
    [l0, l1, l2, kind as u8, flags, s0, s1, s2, s3]
}

/// The four bytes at the front as a number; fewer count as 0.
#[inline]
pub(super) fn number(bytes: &[u8]) -> u32 {
    bytes.first_chunk::<4>().map_or(0, |four| u32::from_be_bytes(*four))
}

pub(super) fn write_rst_stream(stream: u32, code: ErrorCode, out: &mut Vec<u8>) {
    out.extend_from_slice(&head_bytes(4, Kind::RstStream, 0, stream));
    out.extend_from_slice(&(code as u32).to_be_bytes());
}

pub(super) fn write_window_update(stream: u32, increment: u32, out: &mut Vec<u8>) {
    debug_assert!(increment > 0 && increment >> 31 == 0);
    out.extend_from_slice(&head_bytes(4, Kind::WindowUpdate, 0, stream));
    out.extend_from_slice(&increment.to_be_bytes());
}

pub(super) fn write_ping(flags: u8, data: &[u8; 8], out: &mut Vec<u8>) {
    out.extend_from_slice(&head_bytes(8, Kind::Ping, flags, 0));
    out.extend_from_slice(data);
}

/// `reason` goes along as debug data, for whoever looks at the other end.
pub(super) fn write_goaway(last: u32, code: ErrorCode, reason: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(&head_bytes(8 + reason.len(), Kind::GoAway, 0, 0));
    out.extend_from_slice(&last.to_be_bytes());
    out.extend_from_slice(&(code as u32).to_be_bytes());
    out.extend_from_slice(reason.as_bytes());
}

/// RFC 9113 §7.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum ErrorCode {
    NoError = 0,
    Protocol = 1,
    Internal = 2,
    FlowControl = 3,
    StreamClosed = 5,
    FrameSize = 6,
    RefusedStream = 7,
    Cancel = 8,
    Compression = 9,
    EnhanceYourCalm = 11,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_reads_as_it_was_written() {
        for kind in Kind::ALL {
            let bytes = head_bytes(0x01_02_03, kind, 0x25, 0x7fff_fffe);
            let read = FrameHead::read(&bytes);
            assert_eq!(
                read,
                Some(FrameHead { len: 0x01_02_03, kind, flags: 0x25, stream: 0x7fff_fffe })
            );
            assert_eq!(FrameHead::read(&bytes[..8]), None);
        }
    }

    #[test]
    fn the_reserved_bit_and_odd_types_are_let_be() {
        let bytes = [0, 0, 1, 0xaa, 0, 0x80, 0, 0, 3];
        let head = FrameHead::read(&bytes).map(|head| (head.kind, head.stream));
        assert_eq!(head, Some((Kind::Unknown, 3)));
    }
}
