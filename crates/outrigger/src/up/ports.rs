//! Seeing that nothing is in the way, and who it is if something is.

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::Path;

use anyhow::bail;

use super::Options;
use super::gateway::GATEWAY_PORTS;

/// Refuses to go on if a port that is needed is taken; all of them are told.
pub fn check(options: &Options) -> anyhow::Result<()> {
    let mut wanted = vec![
        (options.xds_address, "the control plane", "--xds-address"),
        (options.monitoring_address, "the control plane's metrics", "--monitoring-address"),
    ];
    wanted
        .extend(options.plaintext_xds.map(|address| (address, "plaintext xDS", "--plaintext-xds")));
    if let Some(gateway) = &options.gateway {
        let ports = GATEWAY_PORTS.map(|port| SocketAddr::new(gateway.address, port));
        wanted.extend(ports.map(|address| (address, "the ingress gateway", "--gateway-address")));
    }
    let problems: Vec<String> = wanted
        .into_iter()
        .filter_map(|(address, what, flag)| {
            problem(address)
                .map(|why| format!("{address}, for {what}, {why} ({flag} takes another)"))
        })
        .collect();
    match problems.as_slice() {
        [] => Ok(()),
        [one] => bail!("{one}"),
        several => bail!("something is in the way:\n  {}", several.join("\n  ")),
    }
}

/// Why an address cannot be listened on.
fn problem(address: SocketAddr) -> Option<String> {
    let error = TcpListener::bind(address).err()?;
    Some(match error.kind() {
        ErrorKind::AddrInUse => match holder(address) {
            Some(holder) => format!("is taken by {holder}"),
            None => "is taken by a process of another user".to_owned(),
        },
        ErrorKind::AddrNotAvailable => "is no address of this machine".to_owned(),
        _ => format!("cannot be listened on: {error}"),
    })
}

/// Who listens on an address: name and number of the process.
fn holder(address: SocketAddr) -> Option<String> {
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"].iter().find_map(|table| {
        let table = fs::read_to_string(table).ok()?;
        table.lines().skip(1).find_map(|line| listening_inode(line, address).map(str::to_owned))
    })?;
    let wanted = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").ok()?.flatten();
    // Not `self` and its like, which are other names of the same.
    let is_process =
        |entry: &fs::DirEntry| entry.file_name().to_string_lossy().parse::<u32>().is_ok();
    for process in processes.filter(is_process) {
        let Ok(files) = fs::read_dir(process.path().join("fd")) else { continue };
        let holds = |file: fs::DirEntry| {
            fs::read_link(file.path()).is_ok_and(|link| link.as_os_str() == &*wanted)
        };
        if files.flatten().any(holds) {
            let name = name_of(&process.path());
            return Some(format!("{name} (process {})", process.file_name().to_string_lossy()));
        }
    }
    None
}

/// A process's name: its program's, else what it calls itself.
fn name_of(process: &Path) -> String {
    let program = fs::read_link(process.join("exe")).ok();
    let name = program
        .as_deref()
        .and_then(Path::file_name)
        .map(|name| name.to_string_lossy().into_owned());
    let name = name.or_else(|| fs::read_to_string(process.join("comm")).ok()).unwrap_or_default();
    // A program that was replaced while it runs.
    name.trim().trim_end_matches(" (deleted)").to_owned()
}

/// The socket's inode if a line of `/proc/net/tcp` is a listener that is in the way of `address`.
fn listening_inode(line: &str, address: SocketAddr) -> Option<&str> {
    const LISTEN: &str = "0A";
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (&local, &state, &inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
    let (ip, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let ip = parse_ip(ip)?;
    let in_the_way = ip == address.ip() || ip.is_unspecified() || address.ip().is_unspecified();
    (state == LISTEN && port == address.port() && in_the_way).then_some(inode)
}

/// An address as the kernel prints it: words of 32 bits in the machine's order, in hex.
fn parse_ip(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        u32::from_str_radix(hex.get(at * 8..at * 8 + 8)?, 16).ok().map(u32::to_ne_bytes)
    };
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut bytes = [0; 16];
            for at in 0..4 {
                bytes[at * 4..at * 4 + 4].copy_from_slice(&word(at)?);
            }
            let ip = Ipv6Addr::from(bytes);
            Some(ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_names_its_holder() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let why = problem(address).unwrap();
        assert!(why.ends_with(&format!("(process {})", std::process::id())), "{why}");
        drop(listener);
        assert_eq!(problem(address), None);
        let foreign: SocketAddr = "192.0.2.1:80".parse().unwrap();
        assert_eq!(problem(foreign).as_deref(), Some("is no address of this machine"));
    }

    #[test]
    fn addresses_of_the_kernel() {
        assert_eq!(parse_ip("0100007F"), Some("127.0.0.1".parse().unwrap()));
        assert_eq!(parse_ip("00000000000000000000000001000000"), Some("::1".parse().unwrap()));
        assert_eq!(
            parse_ip("0000000000000000FFFF00000100007F"),
            Some("127.0.0.1".parse().unwrap())
        );
        assert_eq!(parse_ip("xx"), None);
    }
}
