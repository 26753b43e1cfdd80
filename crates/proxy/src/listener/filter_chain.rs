//! Step 3: which filter chain serves a connection.
//!
//! As Envoy, criteria are looked at one after another in a fixed order (destination port, destination address, SNI,
//! transport protocol, application protocol, direct source address, source type, source address, source port). At each
//! one only the chains with the most specific value that matches go on; a chain that loses at one never comes back.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::config::{CidrRange, FilterChain, FilterChainMatch, SourceType};

/// What is known of a connection when its chain is chosen.
#[derive(Debug, Clone, Copy, Default)]
pub struct ConnectionFacts<'a> {
    /// Our end; `None` on Unix sockets.
    pub local: Option<SocketAddr>,
    /// The peer of the socket.
    pub direct_remote: Option<SocketAddr>,
    /// The client (original_src, PROXY protocol).
    pub remote: Option<SocketAddr>,
    /// SNI, lower case; empty for none.
    pub server_name: &'a str,
    /// TLS was detected.
    pub is_tls: bool,
    /// ALPN as offered, or what http_inspector found.
    pub application_protocols: &'a [&'a [u8]],
}

/// Two chains that no connection could tell apart.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("filter chains {first} and {second} have the same match")]
pub struct AmbiguousMatch {
    /// Index of the first.
    pub first: usize,
    /// Index of the second.
    pub second: usize,
}

/// The match over a listener's chains.
#[derive(Debug, Default)]
pub struct FilterChainIndex {
    criteria: Vec<FilterChainMatch>,
    /// One chain without criteria: nothing to look at.
    only_catch_all: bool,
}

/// How many chains are followed without memory of their own.
type Candidates = smallvec::SmallVec<[u32; 32]>;

impl FilterChainIndex {
    /// Compiles the match over `chains`.
    ///
    /// # Errors
    /// When two chains have a combination of criteria in common: one connection would match both equally well.
    pub fn build(chains: &[Arc<FilterChain>]) -> Result<Self, AmbiguousMatch> {
        let criteria: Vec<_> = chains.iter().map(|chain| chain.criteria.clone()).collect();
        refuse_ambiguous(&criteria)?;
        let only_catch_all = criteria.len() == 1 && criteria[0] == FilterChainMatch::default();
        Ok(Self { criteria, only_catch_all })
    }

    /// The index of the chain for this connection.
    pub fn find(&self, facts: &ConnectionFacts<'_>) -> Option<usize> {
        if self.only_catch_all {
            return Some(0);
        }
        let mut left: Candidates = (0..self.criteria.len() as u32).collect();
        let local_ip = facts.local.map(|a| a.ip());
        let direct_ip = facts.direct_remote.map(|a| a.ip());
        let remote_ip = facts.remote.map(|a| a.ip());
        self.narrow(&mut left, |c| scalar(c.destination_port, facts.local.map(|a| a.port())));
        self.narrow(&mut left, |c| longest_prefix(&c.prefix_ranges, local_ip));
        self.narrow(&mut left, |c| server_name(&c.server_names, facts.server_name));
        let transport = if facts.is_tls { "tls" } else { "raw_buffer" };
        self.narrow(&mut left, |c| text(&c.transport_protocol, transport));
        self.narrow(&mut left, |c| {
            application_protocol(&c.application_protocols, facts.application_protocols)
        });
        self.narrow(&mut left, |c| longest_prefix(&c.direct_source_prefix_ranges, direct_ip));
        self.narrow(&mut left, |c| source_type(c.source_type, remote_ip, local_ip));
        self.narrow(&mut left, |c| longest_prefix(&c.source_prefix_ranges, remote_ip));
        self.narrow(&mut left, |c| one_of(&c.source_ports, facts.remote.map(|a| a.port())));
        left.first().map(|index| *index as usize)
    }

    /// Keeps the candidates with the highest rank; `None` is no match.
    fn narrow(&self, left: &mut Candidates, rank: impl Fn(&FilterChainMatch) -> Option<u32>) {
        let best = left.iter().filter_map(|index| rank(&self.criteria[*index as usize])).max();
        left.retain(|index| best.is_some() && rank(&self.criteria[*index as usize]) == best);
    }
}

fn refuse_ambiguous(criteria: &[FilterChainMatch]) -> Result<(), AmbiguousMatch> {
    let mut seen = std::collections::HashMap::new();
    for (second, criteria) in criteria.iter().enumerate() {
        for combination in combinations(criteria) {
            match seen.insert(combination, second) {
                Some(first) if first != second => return Err(AmbiguousMatch { first, second }),
                _ => {}
            }
        }
    }
    Ok(())
}

/// A match with one value for each criterion that has several, for every combination of them.
fn combinations(criteria: &FilterChainMatch) -> Vec<FilterChainMatch> {
    fn spread<T: Clone>(
        of: Vec<FilterChainMatch>,
        values: impl Fn(&mut FilterChainMatch) -> &mut Vec<T>,
    ) -> Vec<FilterChainMatch> {
        let mut spread = Vec::with_capacity(of.len());
        for mut combination in of {
            let several = std::mem::take(values(&mut combination));
            if several.is_empty() {
                spread.push(combination);
                continue;
            }
            for value in several {
                *values(&mut combination) = vec![value];
                spread.push(combination.clone());
            }
        }
        spread
    }
    let mut all = vec![criteria.clone()];
    all = spread(all, |it| &mut it.prefix_ranges);
    all = spread(all, |it| &mut it.server_names);
    all = spread(all, |it| &mut it.application_protocols);
    all = spread(all, |it| &mut it.direct_source_prefix_ranges);
    all = spread(all, |it| &mut it.source_prefix_ranges);
    spread(all, |it| &mut it.source_ports)
}

/// 0 for "any", 1 for a match.
fn scalar(wanted: Option<u16>, actual: Option<u16>) -> Option<u32> {
    match wanted {
        None => Some(0),
        Some(port) if actual == Some(port) => Some(1),
        Some(_) => None,
    }
}

fn one_of(wanted: &[u16], actual: Option<u16>) -> Option<u32> {
    if wanted.is_empty() {
        return Some(0);
    }
    actual.filter(|port| wanted.contains(port)).map(|_| 1)
}

fn text(wanted: &str, actual: &str) -> Option<u32> {
    match wanted {
        "" => Some(0),
        _ if wanted == actual => Some(1),
        _ => None,
    }
}

/// 0 for "any", else 1 + the length of the longest range that contains the address.
fn longest_prefix(ranges: &[CidrRange], address: Option<IpAddr>) -> Option<u32> {
    if ranges.is_empty() {
        return Some(0);
    }
    let address = address?;
    ranges
        .iter()
        .filter(|range| range.contains(address))
        .map(|range| u32::from(range.length()) + 1)
        .max()
}

/// 0 for "any"; an exact name beats every wildcard; a longer wildcard beats a shorter.
fn server_name(names: &[String], actual: &str) -> Option<u32> {
    if names.is_empty() {
        return Some(0);
    }
    names
        .iter()
        .filter_map(|name| match name.strip_prefix('*') {
            // `*.example.com` covers any number of labels before `.example.com`, but not `example.com` itself.
            Some(suffix) => (actual.len() > suffix.len() && actual.ends_with(suffix))
                .then_some(suffix.len() as u32),
            None => (name == actual).then_some(u32::MAX),
        })
        .max()
}

fn application_protocol(wanted: &[String], offered: &[&[u8]]) -> Option<u32> {
    if wanted.is_empty() {
        return Some(0);
    }
    // The client's order decides, as in Envoy: an earlier offer ranks higher.
    offered
        .iter()
        .position(|protocol| wanted.iter().any(|name| name.as_bytes() == *protocol))
        .map(|position| u32::MAX - position as u32)
}

fn source_type(wanted: SourceType, remote: Option<IpAddr>, local: Option<IpAddr>) -> Option<u32> {
    // A Unix socket's peer is on this machine.
    let is_local =
        remote.is_none_or(|address| address.to_canonical().is_loopback() || Some(address) == local);
    match wanted {
        SourceType::Any => Some(0),
        SourceType::SameIpOrLoopback => is_local.then_some(1),
        SourceType::External => (!is_local).then_some(1),
    }
}

#[cfg(test)]
mod tests;
