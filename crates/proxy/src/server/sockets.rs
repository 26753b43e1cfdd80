//! Listening sockets: bound here, one a worker, and owned for the address's life.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use socket2::{Domain, SockAddr, Socket, Type};

use crate::listener::config::ListenAddress;
use crate::snapshot::Binder;
use crate::snapshot::listeners::SocketOptions;
use crate::worker::ListenerId;

/// Every bound socket of the process's listeners.
#[derive(Debug)]
pub struct Sockets {
    workers: usize,
    bound: HashMap<ListenerId, Bound>,
}

/// One listener's sockets.
#[derive(Debug)]
struct Bound {
    /// With the port that the kernel chose.
    address: ListenAddress,
    /// One a worker; a Unix domain socket is one for all.
    sockets: Vec<Socket>,
    backlog: i32,
}

impl Sockets {
    /// For so many workers.
    pub fn new(workers: usize) -> Self {
        Self { workers: workers.max(1), bound: HashMap::new() }
    }

    /// Begins to listen and gives every worker a descriptor of its own. A worker without one (the process is out of
    /// descriptors) does not serve the listener, which is logged.
    pub fn listen(&mut self, id: ListenerId) -> Vec<Option<OwnedFd>> {
        let Some(bound) = self.bound.get(&id) else { return Vec::new() };
        let descriptor = |index: usize| {
            let socket = &bound.sockets[index % bound.sockets.len()];
            let copy = socket.listen(bound.backlog).and_then(|()| socket.try_clone());
            copy.map(OwnedFd::from)
                .map_err(|error| tracing::error!("cannot listen on {}: {error}", bound.address))
                .ok()
        };
        (0..self.workers).map(descriptor).collect()
    }

    /// Lets go of a listener's sockets; the workers' copies live on.
    pub fn close(&mut self, id: ListenerId) {
        if let Some(bound) = self.bound.remove(&id)
            && let ListenAddress::Pipe(path) = &bound.address
        {
            // Nobody can connect to it any more; a file that is gone already is as good.
            let _ = std::fs::remove_file(path);
        }
    }

    /// Lets go of every socket.
    pub fn close_all(&mut self) {
        let ids: Vec<_> = self.bound.keys().copied().collect();
        ids.into_iter().for_each(|id| self.close(id));
    }

    /// The address a listener is bound to.
    pub fn address(&self, id: ListenerId) -> Option<ListenAddress> {
        self.bound.get(&id).map(|bound| bound.address.clone())
    }

    /// The same, for messages.
    pub fn describe(&self, id: ListenerId) -> String {
        self.address(id).map_or_else(|| "no address".to_owned(), |address| address.to_string())
    }
}

impl Binder for Sockets {
    fn bind(
        &mut self,
        id: ListenerId,
        _name: &str,
        address: &ListenAddress,
        options: &SocketOptions,
    ) -> Result<(), String> {
        let bound = match address {
            ListenAddress::Tcp(address) => {
                bind_tcp(*address, options, self.workers).map_err(|error| explain(*address, &error))
            }
            ListenAddress::Pipe(path) => bind_pipe(path, options)
                .map_err(|error| format!("cannot bind {}: {}", path.display(), plain(&error))),
        };
        self.bound.insert(id, bound?);
        Ok(())
    }

    fn release(&mut self, id: ListenerId) {
        self.close(id);
    }
}

/// Binds one socket a worker. `SO_REUSEPORT` would let two processes share a port without a word, so that the address is
/// first bound without it: a port that is taken is an error.
fn bind_tcp(address: SocketAddr, options: &SocketOptions, workers: usize) -> io::Result<Bound> {
    if address.port() != 0 {
        let probe = tcp_socket(address, options)?;
        probe.bind(&address.into())?;
    }
    let mut sockets = Vec::with_capacity(workers);
    let mut actual = address;
    for _ in 0..workers {
        let socket = tcp_socket(actual, options)?;
        socket.set_reuse_port(true)?;
        socket.bind(&actual.into())?;
        if let Some(bound) = socket.local_addr()?.as_socket() {
            actual = bound;
        }
        sockets.push(socket);
    }
    Ok(Bound { address: ListenAddress::Tcp(actual), sockets, backlog: options.backlog })
}

fn tcp_socket(address: SocketAddr, options: &SocketOptions) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!options.ipv4_compat)?;
    }
    if options.freebind {
        match address {
            SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
            SocketAddr::V6(_) => socket.set_freebind_v6(true)?,
        }
    }
    Ok(socket)
}

fn bind_pipe(path: &Path, options: &SocketOptions) -> io::Result<Bound> {
    let address = match path.to_string_lossy().strip_prefix('@') {
        // An abstract name: Envoy writes the NUL as `@`.
        Some(name) => SockAddr::unix(format!("\0{name}"))?,
        None => {
            remove_stale(path)?;
            SockAddr::unix(path)?
        }
    };
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address)?;
    if options.mode != 0 {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(options.mode))?;
    }
    Ok(Bound {
        address: ListenAddress::Pipe(path.into()),
        sockets: vec![socket],
        backlog: options.backlog,
    })
}

/// A socket's file that nobody listens on is left from a process that ended without removing it.
fn remove_stale(path: &Path) -> io::Result<()> {
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(io::Error::from(io::ErrorKind::AddrInUse)),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
        }
        Err(_) => Ok(()),
    }
}

fn explain(address: SocketAddr, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("port {} is taken: {address} is in use by another process", address.port())
        }
        io::ErrorKind::PermissionDenied if address.port() < 1024 => {
            format!(
                "cannot bind {address}: ports below 1024 need the privilege CAP_NET_BIND_SERVICE"
            )
        }
        io::ErrorKind::AddrNotAvailable => {
            format!("cannot bind {address}: no interface has this address")
        }
        _ => format!("cannot bind {address}: {}", plain(error)),
    }
}

fn plain(error: &io::Error) -> String {
    crate::snapshot::compile::error_text(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: SocketOptions =
        SocketOptions { ipv4_compat: false, freebind: false, backlog: 128, mode: 0 };

    #[test]
    fn every_worker_has_a_socket_on_the_port_that_the_kernel_chose() {
        let mut sockets = Sockets::new(3);
        let any = ListenAddress::Tcp("127.0.0.1:0".parse().unwrap());
        sockets.bind(ListenerId(1), "a", &any, &OPTIONS).unwrap();
        let Some(ListenAddress::Tcp(address)) = sockets.address(ListenerId(1)) else { panic!() };
        assert_ne!(address.port(), 0);
        assert_eq!(sockets.listen(ListenerId(1)).iter().flatten().count(), 3);
        std::net::TcpStream::connect(address).unwrap();
    }

    #[test]
    fn a_taken_port_is_named() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let mut sockets = Sockets::new(2);
        let error =
            sockets.bind(ListenerId(1), "a", &ListenAddress::Tcp(address), &OPTIONS).unwrap_err();
        assert!(error.contains(&format!("port {} is taken", address.port())), "{error}");
    }

    #[test]
    fn a_stale_socket_file_is_replaced_and_a_live_one_is_not() {
        let directory =
            std::env::temp_dir().join(format!("outrigger-sockets-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("a.sock");
        let pipe = ListenAddress::Pipe(path.clone());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let mut sockets = Sockets::new(1);
        sockets.bind(ListenerId(1), "a", &pipe, &OPTIONS).unwrap();
        sockets.listen(ListenerId(1));
        let error = Sockets::new(1).bind(ListenerId(2), "b", &pipe, &OPTIONS).unwrap_err();
        assert!(error.contains("cannot bind"), "{error}");
        sockets.close(ListenerId(1));
        assert!(!path.exists());
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
