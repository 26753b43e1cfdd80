//! Where an application really listens: the sockets that its process group accepts connections on. Linux's `/proc` says.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::path::Path;

/// `TCP_LISTEN` in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// The TCP ports on which processes of this group listen so that 127.0.0.1 reaches them. Empty where nothing can be known.
pub fn listening_ports(process_group: u32) -> BTreeSet<u16> {
    let inodes = socket_inodes(process_group);
    if inodes.is_empty() {
        return BTreeSet::new();
    }
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok())
        .flat_map(|table| listeners(&table, &inodes))
        .collect()
}

/// The inodes of all sockets that processes of a group have open.
fn socket_inodes(process_group: u32) -> HashSet<u64> {
    let Ok(processes) = fs::read_dir("/proc") else { return HashSet::new() };
    processes
        .filter_map(Result::ok)
        .filter(|process| group_of(&process.path()) == Some(process_group))
        .filter_map(|process| fs::read_dir(process.path().join("fd")).ok())
        .flatten()
        .filter_map(Result::ok)
        .filter_map(|file| fs::read_link(file.path()).ok())
        .filter_map(|link| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok())
        .collect()
}

/// The fifth field of `/proc/<pid>/stat`; the second is a name in parentheses that may hold anything.
fn group_of(process: &Path) -> Option<u32> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(2)?.parse().ok()
}

fn listeners(table: &str, inodes: &HashSet<u64>) -> Vec<u16> {
    table.lines().skip(1).filter_map(|line| listener(line, inodes)).collect()
}

fn listener(line: &str, inodes: &HashSet<u64>) -> Option<u16> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (address, port) = fields.get(1)?.split_once(':')?;
    let ours = *fields.get(3)? == LISTEN && inodes.contains(&fields.get(9)?.parse().ok()?);
    (ours && reached_by_loopback(address)).then(|| u16::from_str_radix(port, 16).ok())?
}

/// Any address, 127.0.0.1, or the same in IPv6's clothes. Words are in the machine's byte order.
fn reached_by_loopback(address: &str) -> bool {
    let any = address.bytes().all(|digit| digit == b'0');
    let loopback = format!("{:08X}", u32::from_ne_bytes([127, 0, 0, 1]));
    let mapped =
        format!("0000000000000000{:08X}{loopback}", u32::from_ne_bytes([0, 0, 0xff, 0xff]));
    any || address == loopback || address == mapped
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn our_own_listener_is_found_and_gone_when_closed() {
        let group = group_of(Path::new("/proc/self")).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(listening_ports(group).contains(&port));
        drop(listener);
        assert!(!listening_ports(group).contains(&port));
    }

    #[test]
    fn another_address_of_loopback_is_not_reached_by_127_0_0_1() {
        let group = group_of(Path::new("/proc/self")).unwrap();
        let listener = TcpListener::bind("127.0.0.77:0").unwrap();
        assert!(!listening_ports(group).contains(&listener.local_addr().unwrap().port()));
        let any = TcpListener::bind("0.0.0.0:0").unwrap();
        assert!(listening_ports(group).contains(&any.local_addr().unwrap().port()));
    }
}
