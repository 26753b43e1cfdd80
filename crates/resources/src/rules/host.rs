//! Host names, addresses and networks.

use std::net::IpAddr;

use super::name::dns_label;

/// A host name without wildcards, in either case, a trailing dot allowed.
pub fn fqdn(host: &str) -> Result<(), String> {
    let plain = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    if plain.is_empty() || plain.len() > 255 {
        return Err("must be a host name of 1 to 255 characters".to_owned());
    }
    match plain.split('.').find(|label| dns_label(&label.replace('_', "-")).is_err()) {
        Some(label) => Err(format!("{label:?} is no valid part of a host name")),
        None => Ok(()),
    }
}

/// A host name, `*`, or `*.` and a host name (a wildcard may also start the first label: `*-api.example.com`).
pub fn wildcard_host(host: &str) -> Result<(), String> {
    match host.strip_prefix('*') {
        Some("") => Ok(()),
        Some(rest) => match rest.strip_prefix('.') {
            Some(domain) => fqdn(domain),
            None => fqdn(rest.trim_start_matches('-')),
        },
        None if host.contains('*') => Err("a wildcard may only be at the start".to_owned()),
        None => fqdn(host),
    }
}

/// A host as VirtualServices name it: an IP address or a name with an optional wildcard.
pub fn host_or_address(host: &str) -> Result<(), String> {
    if host.parse::<IpAddr>().is_ok() { Ok(()) } else { wildcard_host(host) }
}

/// An IP address.
pub fn address(text: &str) -> Result<(), String> {
    text.parse::<IpAddr>().map(drop).map_err(|_| "must be an IP address".to_owned())
}

/// An IP address or a network in CIDR notation.
pub fn subnet(text: &str) -> Result<(), String> {
    const EXPECTED: &str = "must be an IP address or a network such as 10.0.0.0/8";
    let (ip, bits) = match text.split_once('/') {
        Some((ip, bits)) => (ip, Some(bits)),
        None => (text, None),
    };
    let ip: IpAddr = ip.parse().map_err(|_| EXPECTED)?;
    let most = if ip.is_ipv4() { 32 } else { 128 };
    match bits.map(str::parse::<u8>) {
        None => Ok(()),
        Some(Ok(bits)) if bits <= most => Ok(()),
        Some(_) => Err(EXPECTED.to_owned()),
    }
}

/// Whether one host pattern covers another: `*.b.c` covers `a.b.c` and `*.a.b.c`; `*` covers all.
pub fn covers(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) => host.strip_prefix('*').unwrap_or(host).ends_with(suffix),
        None => pattern == host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for good in [
            "reviews",
            "a.b.svc.cluster.local",
            "*",
            "*.example.com",
            "1.2.3.4",
            "::1",
            "A.com",
            "*-api.x.com",
        ] {
            assert_eq!(host_or_address(good), Ok(()), "{good}");
        }
        for bad in ["", "a..b", "a.*.b", "-a", "a b", "*.", "http://x", "a/b"] {
            assert!(host_or_address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn subnets() {
        for good in ["10.0.0.0/8", "1.2.3.4", "2001:db8::/32"] {
            assert_eq!(subnet(good), Ok(()), "{good}");
        }
        for bad in ["10.0.0.0/33", "10.0.0/8", "x", "1.2.3.4/", ""] {
            assert!(subnet(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn covering() {
        assert!(covers("*", "a.b"));
        assert!(covers("*.b", "*.a.b"));
        assert!(!covers("*.b", "b"));
        assert!(!covers("a.b", "*.b"));
    }
}
