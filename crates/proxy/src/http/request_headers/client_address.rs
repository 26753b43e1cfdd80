//! Who the client is: `x-forwarded-for`, `x-forwarded-proto`, `x-forwarded-port` and the scheme.

use std::io::Write;
use std::net::IpAddr;

use codec::headers::{Fields, RequestHead, names};

use super::Caller;
use crate::http::config::ClientAddress;
use crate::stream_info::ConnectionInfo;

/// Finds the client's address and adds what the next hop is to know of it.
pub(super) fn find(
    head: &mut RequestHead,
    rules: &ClientAddress,
    connection: &ConnectionInfo,
) -> Caller {
    let peer = connection.remote_address.map(|address| address.ip());
    join_forwarded_for(&mut head.fields);
    let hops = rules.xff_num_trusted_hops as usize;
    // Only a single address can be internal: a list has passed a proxy that we do not know.
    let (address, may_be_internal) = if rules.use_remote_address {
        let is_first_hop = !head.fields.contains(names::X_FORWARDED_FOR);
        let trusted = hops.checked_sub(1).and_then(|skipped| last_forwarded(&head.fields, skipped));
        if !rules.skip_xff_append
            && let Some(peer) = peer
        {
            head.fields.append_to_with(names::X_FORWARDED_FOR, b",", |out| write(peer, out));
        }
        (trusted.map(|(address, _)| address).or(peer), is_first_hop)
    } else {
        last_forwarded(&head.fields, hops)
            .map_or((None, false), |(address, is_single)| (Some(address), is_single))
    };
    tell_scheme(head, rules, connection);
    let is_internal = may_be_internal && address.is_some_and(|address| rules.is_internal(address));
    Caller {
        address: address.filter(|address| Some(*address) != peer),
        is_internal,
        is_edge: rules.use_remote_address && !is_internal,
    }
}

/// `10.1.2.3`, without brackets for IPv6.
pub(super) fn write(address: IpAddr, out: &mut Vec<u8>) {
    // Writing to memory cannot fail.
    let _ = write!(out, "{}", address.to_canonical());
}

/// Several fields are one list, as in Envoy: what is appended must come last.
fn join_forwarded_for(fields: &mut Fields) {
    if fields.get_all(names::X_FORWARDED_FOR).nth(1).is_none() {
        return;
    }
    let joined = fields.get_all(names::X_FORWARDED_FOR).collect::<Vec<_>>().join(&b","[..]);
    fields.set(names::X_FORWARDED_FOR, &joined);
}

/// The last address of the list but `skipped`, and whether it is the only one.
fn last_forwarded(fields: &Fields, skipped: usize) -> Option<(IpAddr, bool)> {
    let list = fields.get(names::X_FORWARDED_FOR)?;
    let element = list.rsplit(|byte| *byte == b',').nth(skipped)?;
    let address = std::str::from_utf8(element).ok()?.trim().parse().ok()?;
    Some((address, element.len() == list.len()))
}

fn tell_scheme(head: &mut RequestHead, rules: &ClientAddress, connection: &ConnectionInfo) {
    let of_connection: &[u8] = if connection.tls.is_some() { b"https" } else { b"http" };
    let is_trusted = !rules.use_remote_address || rules.xff_num_trusted_hops > 0;
    if !is_trusted || !head.fields.contains(names::X_FORWARDED_PROTO) {
        head.fields.set(names::X_FORWARDED_PROTO, of_connection);
    }
    if rules.append_x_forwarded_port
        && (!is_trusted || !head.fields.contains(names::X_FORWARDED_PORT))
        && let Some(local) = connection.local_address
    {
        head.fields.set_number(names::X_FORWARDED_PORT, u64::from(local.port()));
    }
    if let Some(scheme) = &rules.scheme_overwrite {
        head.set_scheme(scheme.as_bytes());
        head.fields.set(names::X_FORWARDED_PROTO, scheme.as_bytes());
        return;
    }
    if !head.scheme().is_empty() {
        // The codec gives nothing but `http` and `https`, in lower case.
        return;
    }
    match head.fields.get(names::X_FORWARDED_PROTO) {
        Some(told) if told.eq_ignore_ascii_case(b"https") => head.set_scheme(b"https"),
        Some(told) if told.eq_ignore_ascii_case(b"http") => head.set_scheme(b"http"),
        _ => head.set_scheme(of_connection),
    }
}
