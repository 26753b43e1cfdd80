//! How a connection to a host comes to be open: TCP, then TLS if the host wants it. Pools and L4 sessions share this.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::host::{Host, HostAddress};
use crate::buffer::BufferPool;
use crate::network::io::Io;
use crate::network::tls::session::TlsSession;
use crate::network::tls::{ClientSide, info};
use crate::stream_info::{AlpnList, ConnectionInfo};

/// How far a connection is.
#[derive(Debug)]
pub enum Opening {
    /// The socket is connecting.
    Connecting,
    /// The TLS handshake is going on, with these secrets.
    Handshaking(Arc<ClientSide>),
    /// Bytes may flow.
    Open,
}

/// What a step came to.
#[derive(Debug)]
pub enum Progress {
    /// Not open yet.
    Pending,
    /// Open now.
    Opened,
    /// It will not be; why, for logs.
    Failed(String),
}

impl Opening {
    /// Not open yet.
    pub fn is_pending(&self) -> bool {
        !matches!(self, Self::Open)
    }

    /// The socket says that its connect has ended. With TLS, `alpn` is offered instead of the host's own protocols, and
    /// `fallback` where there are none.
    pub fn connect_ended(
        &mut self,
        io: &mut Io,
        host: &Host,
        alpn: Option<&AlpnList>,
        fallback: Option<&AlpnList>,
        pool: &mut BufferPool,
    ) -> Progress {
        if let Err(error) = io.socket.take_error() {
            return Progress::Failed(error.to_string());
        }
        (io.readable, io.writable) = (true, true);
        let Some(tls) = &host.tls else {
            *self = Self::Open;
            return Progress::Opened;
        };
        let Some(side) = tls.current() else {
            return Progress::Failed("TLS_error: the secret has not been received yet".to_owned());
        };
        let alpn = alpn.or(fallback.filter(|_| side.config.alpn_protocols.is_empty()));
        let ip = match &host.address {
            HostAddress::Tcp(address) => address.ip(),
            HostAddress::Pipe(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        };
        let begun = TlsSession::client(side.offering(alpn), tls.server_name(None, ip))
            .and_then(|session| io.secure(session, pool));
        match begun {
            Ok(()) => {
                *self = Self::Handshaking(side);
                Progress::Pending
            }
            Err(failure) => Progress::Failed(failure.to_string()),
        }
    }

    /// After a read: has the handshake ended? Fills in what is known of the connection then.
    pub fn handshake_step(&mut self, io: &mut Io) -> bool {
        matches!(self, Self::Handshaking(_)) && io.handshake_has_ended()
    }

    /// The connection is open: what is known of it.
    pub fn finish(
        &mut self,
        io: &Io,
        host: &Host,
        id: u64,
        start_ns: u64,
        now_ns: u64,
    ) -> ConnectionInfo {
        let tls = match (std::mem::replace(self, Self::Open), io.tls()) {
            (Self::Handshaking(side), Some(session)) => {
                let presented = side.secrets.presented(None);
                Some(Arc::new(info::of(session.state(), &side.secrets, presented)))
            }
            _ => None,
        };
        ConnectionInfo {
            id,
            remote_address: match &host.address {
                HostAddress::Tcp(address) => Some(*address),
                HostAddress::Pipe(_) => None,
            },
            local_address: io.socket.local_address(),
            requested_server_name: host.tls.as_ref().and_then(|tls| tls.settings().sni.clone()),
            handshake_done_ns: if tls.is_some() { now_ns } else { 0 },
            tls,
            start_ns,
            ..ConnectionInfo::default()
        }
    }
}
