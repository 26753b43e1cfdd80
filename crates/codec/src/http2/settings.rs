//! SETTINGS (RFC 9113 §6.5): what the peer has told us, and what we tell it.

use super::connection::Fault;
use super::frame::{
    DEFAULT_MAX_FRAME_SIZE, ErrorCode, HEAD_LEN, Kind, MAX_FRAME_SIZE_OF_SERVERS, head_bytes,
    number,
};
use super::{MAX_WINDOW, Options, RFC_WINDOW};

const HEADER_TABLE_SIZE: u16 = 1;
const ENABLE_PUSH: u16 = 2;
const MAX_CONCURRENT_STREAMS: u16 = 3;
const INITIAL_WINDOW_SIZE: u16 = 4;
const MAX_FRAME_SIZE: u16 = 5;
const MAX_HEADER_LIST_SIZE: u16 = 6;
const ENABLE_CONNECT_PROTOCOL: u16 = 8;

/// More entries than this in one frame are nothing that anybody needs.
const MOST_ENTRIES: usize = 32;
const ENTRY_LEN: usize = 6;

/// What holds for what we send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PeerSettings {
    pub header_table_size: u32,
    /// Streams that we may have open; unlimited unless said.
    pub max_concurrent_streams: u32,
    pub initial_window: u32,
    pub max_frame_size: u32,
    pub enable_connect_protocol: bool,
}

impl Default for PeerSettings {
    fn default() -> Self {
        PeerSettings {
            header_table_size: 4096,
            max_concurrent_streams: u32::MAX,
            initial_window: RFC_WINDOW,
            max_frame_size: DEFAULT_MAX_FRAME_SIZE,
            enable_connect_protocol: false,
        }
    }
}

impl PeerSettings {
    /// Takes the entries of a SETTINGS frame in their order. `from_server` says which end they come from.
    pub fn apply(&mut self, payload: &[u8], from_server: bool) -> Result<(), Fault> {
        if !payload.len().is_multiple_of(ENTRY_LEN) {
            return Err(Fault::new(ErrorCode::FrameSize, "SETTINGS of an odd length"));
        }
        if payload.len() > MOST_ENTRIES * ENTRY_LEN {
            return Err(Fault::flood("http2.settings_flood", "too many entries in SETTINGS"));
        }
        for entry in payload.chunks_exact(ENTRY_LEN) {
            let id = u16::from_be_bytes([entry[0], entry[1]]);
            self.apply_entry(id, number(&entry[2..]), from_server)?;
        }
        Ok(())
    }

    fn apply_entry(&mut self, id: u16, value: u32, from_server: bool) -> Result<(), Fault> {
        match id {
            HEADER_TABLE_SIZE => self.header_table_size = value,
            ENABLE_PUSH if value > u32::from(!from_server) => {
                return Err(Fault::protocol("bad ENABLE_PUSH"));
            }
            MAX_CONCURRENT_STREAMS => self.max_concurrent_streams = value,
            INITIAL_WINDOW_SIZE if value > MAX_WINDOW => {
                return Err(Fault::new(ErrorCode::FlowControl, "INITIAL_WINDOW_SIZE too large"));
            }
            INITIAL_WINDOW_SIZE => self.initial_window = value,
            MAX_FRAME_SIZE if !(DEFAULT_MAX_FRAME_SIZE..1 << 24).contains(&value) => {
                return Err(Fault::protocol("MAX_FRAME_SIZE out of range"));
            }
            MAX_FRAME_SIZE => self.max_frame_size = value,
            ENABLE_CONNECT_PROTOCOL if value > 1 || value == 0 && self.enable_connect_protocol => {
                return Err(Fault::protocol("bad ENABLE_CONNECT_PROTOCOL"));
            }
            ENABLE_CONNECT_PROTOCOL => self.enable_connect_protocol = value == 1,
            // MAX_HEADER_LIST_SIZE is advice: what is too large the peer refuses itself.
            _ => {}
        }
        Ok(())
    }
}

/// Writes our SETTINGS: what differs from the protocol's defaults.
pub(super) fn write(options: &Options, is_server: bool, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; HEAD_LEN]);
    let mut entry = |id: u16, value: u32| {
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    };
    if options.header_table_size != PeerSettings::default().header_table_size {
        entry(HEADER_TABLE_SIZE, options.header_table_size);
    }
    if is_server {
        entry(MAX_CONCURRENT_STREAMS, options.max_concurrent_streams);
        if options.allow_connect {
            entry(ENABLE_CONNECT_PROTOCOL, 1);
        }
    } else {
        entry(ENABLE_PUSH, 0);
        entry(MAX_FRAME_SIZE, MAX_FRAME_SIZE_OF_SERVERS);
    }
    if options.initial_stream_window != RFC_WINDOW {
        entry(INITIAL_WINDOW_SIZE, options.initial_stream_window);
    }
    entry(MAX_HEADER_LIST_SIZE, u32::try_from(options.max_head_bytes).unwrap_or(u32::MAX));
    let len = out.len() - start - HEAD_LEN;
    out[start..start + HEAD_LEN].copy_from_slice(&head_bytes(len, Kind::Settings, 0, 0));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(entries: &[(u16, u32)], from_server: bool) -> Result<PeerSettings, ErrorCode> {
        let mut payload = Vec::new();
        for (id, value) in entries {
            payload.extend_from_slice(&id.to_be_bytes());
            payload.extend_from_slice(&value.to_be_bytes());
        }
        let mut settings = PeerSettings::default();
        settings.apply(&payload, from_server).map(|()| settings).map_err(|fault| fault.code)
    }

    #[test]
    fn values_are_checked() {
        use ErrorCode::{EnhanceYourCalm, FlowControl, Protocol};
        let table: &[(&[(u16, u32)], bool, Option<ErrorCode>)] = &[
            (&[(ENABLE_PUSH, 0)], true, None),
            (&[(ENABLE_PUSH, 1)], true, Some(Protocol)),
            (&[(ENABLE_PUSH, 1)], false, None),
            (&[(ENABLE_PUSH, 2)], false, Some(Protocol)),
            (&[(INITIAL_WINDOW_SIZE, 0x7fff_ffff)], false, None),
            (&[(INITIAL_WINDOW_SIZE, 0x8000_0000)], false, Some(FlowControl)),
            (&[(MAX_FRAME_SIZE, 16_383)], false, Some(Protocol)),
            (&[(MAX_FRAME_SIZE, 16_777_215)], false, None),
            (&[(MAX_FRAME_SIZE, 16_777_216)], false, Some(Protocol)),
            (&[(ENABLE_CONNECT_PROTOCOL, 2)], true, Some(Protocol)),
            (&[(ENABLE_CONNECT_PROTOCOL, 0)], true, None),
            (&[(ENABLE_CONNECT_PROTOCOL, 1), (ENABLE_CONNECT_PROTOCOL, 0)], true, Some(Protocol)),
            (&[(0xaaaa, 7)], false, None),
            (&[(0xaaaa, 7); 32], false, None),
            (&[(0xaaaa, 7); 33], false, Some(EnhanceYourCalm)),
        ];
        for (entries, from_server, wanted) in table {
            assert_eq!(applied(entries, *from_server).err(), *wanted, "{entries:?}");
        }
        let last_wins = applied(&[(MAX_CONCURRENT_STREAMS, 5), (MAX_CONCURRENT_STREAMS, 7)], true);
        assert_eq!(last_wins.map(|settings| settings.max_concurrent_streams), Ok(7));
        let odd = PeerSettings::default().apply(&[0; 5], false);
        assert_eq!(odd.map_err(|fault| fault.code), Err(ErrorCode::FrameSize));
    }

    #[test]
    fn ours_say_what_differs() {
        let mut out = Vec::new();
        let options = Options {
            allow_connect: true,
            initial_stream_window: 1 << 20,
            header_table_size: 0,
            ..Options::default()
        };
        write(&options, true, &mut out);
        let mut told = PeerSettings::default();
        assert!(told.apply(&out[HEAD_LEN..], true).is_ok());
        assert_eq!(
            told,
            PeerSettings {
                header_table_size: 0,
                max_concurrent_streams: 1024,
                initial_window: 1 << 20,
                enable_connect_protocol: true,
                ..PeerSettings::default()
            }
        );
        out.clear();
        write(&Options::default(), false, &mut out);
        let mut told = PeerSettings::default();
        assert!(told.apply(&out[HEAD_LEN..], false).is_ok());
        assert_eq!(told.max_frame_size, MAX_FRAME_SIZE_OF_SERVERS);
    }
}
