//! What an event or a timer is about, in 64 bits.

use crate::arena::Key;
use crate::http::stream::Stream;
use crate::listener::ActiveListener;
use crate::network::downstream::Downstream;
use crate::tcp_proxy::upstream::TcpUpstream;
use crate::upstream::connection::UpstreamConnection;

/// The owner of a socket or of a timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// A listening socket.
    Listener(Key<ActiveListener>),
    /// A client's connection.
    Downstream(Key<Downstream>),
    /// A connection to a host.
    Upstream(Key<UpstreamConnection>),
    /// A stream's own timer (those without a client's connection).
    Stream(Key<Box<Stream>>),
    /// An L4 session's connection to its host.
    TcpUpstream(Key<TcpUpstream>),
    /// The worker's own chores.
    Chores,
    /// The mailbox.
    Mailbox,
}

/// The mailbox's token.
pub const MAILBOX: u64 = u64::MAX;

impl Owner {
    /// As a token.
    pub fn token(self) -> u64 {
        let (kind, index, generation) = match self {
            Self::Listener(key) => (0, key.index(), key.generation()),
            Self::Downstream(key) => (1, key.index(), key.generation()),
            Self::Upstream(key) => (2, key.index(), key.generation()),
            Self::Stream(key) => (3, key.index(), key.generation()),
            Self::Chores => (4, 0, 0),
            Self::TcpUpstream(key) => (5, key.index(), key.generation()),
            Self::Mailbox => return MAILBOX,
        };
        kind << 60 | u64::from(generation) << 32 | u64::from(index)
    }

    /// From a token.
    pub fn from_token(token: u64) -> Self {
        let (index, generation) = (token as u32, (token >> 32) as u32 & 0x0fff_ffff);
        match token >> 60 {
            0 => Self::Listener(Key::from_parts(index, generation)),
            1 => Self::Downstream(Key::from_parts(index, generation)),
            2 => Self::Upstream(Key::from_parts(index, generation)),
            3 => Self::Stream(Key::from_parts(index, generation)),
            4 => Self::Chores,
            5 => Self::TcpUpstream(Key::from_parts(index, generation)),
            _ => Self::Mailbox,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_keep_index_and_generation() {
        for owner in [
            Owner::Listener(Key::from_parts(3, 9)),
            Owner::Downstream(Key::from_parts(u32::MAX, 0x0fff_ffff)),
            Owner::Upstream(Key::from_parts(0, 1)),
            Owner::Stream(Key::from_parts(7, 0)),
            Owner::Chores,
            Owner::TcpUpstream(Key::from_parts(1, 2)),
            Owner::Mailbox,
        ] {
            assert_eq!(Owner::from_token(owner.token()), owner);
        }
    }
}
