//! Which virtual host a host name belongs to: exact names, then `*.suffix`, then `prefix.*`, longest first, then `*`.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use ahash::RandomState;
use smallvec::SmallVec;

type ByName = HashMap<Box<[u8]>, u32, RandomState>;

/// An index from host names to the positions of virtual hosts.
#[derive(Debug, Default)]
pub(super) struct DomainIndex {
    exact: ByName,
    suffixes: ByLength,
    prefixes: ByLength,
    any: Option<u32>,
}

/// Names by length, the longest first: one look-up a length.
#[derive(Debug, Default)]
struct ByLength(Vec<(usize, ByName)>);

impl DomainIndex {
    /// Adds a domain of the virtual host at `position`; false if another has it already.
    pub fn insert(&mut self, domain: &str, position: u32) -> bool {
        let domain = domain.to_ascii_lowercase();
        match domain.as_bytes() {
            b"*" => {
                let is_new = self.any.is_none();
                self.any.get_or_insert(position);
                is_new
            }
            [b'*', suffix @ ..] => self.suffixes.insert(suffix, position),
            [prefix @ .., b'*'] => self.prefixes.insert(prefix, position),
            exact => insert(&mut self.exact, exact, position),
        }
    }

    /// The virtual host of a `:authority`, in any case.
    pub fn find(&self, authority: &[u8], ignore_port: bool) -> Option<u32> {
        let host = if ignore_port { &authority[..port_start(authority)] } else { authority };
        if self.exact.is_empty() && self.suffixes.0.is_empty() && self.prefixes.0.is_empty() {
            return self.any;
        }
        if host.iter().any(u8::is_ascii_uppercase) {
            let mut lower: SmallVec<[u8; 256]> = SmallVec::from_slice(host);
            lower.make_ascii_lowercase();
            return self.find_lower(&lower);
        }
        self.find_lower(host)
    }

    fn find_lower(&self, host: &[u8]) -> Option<u32> {
        self.exact
            .get(host)
            .copied()
            // A wildcard stands for at least one character.
            .or_else(|| self.suffixes.find(host, |len| &host[host.len() - len..]))
            .or_else(|| self.prefixes.find(host, |len| &host[..len]))
            .or(self.any)
    }
}

impl ByLength {
    fn insert(&mut self, name: &[u8], position: u32) -> bool {
        let place =
            self.0.binary_search_by(|(len, _)| name.len().cmp(len)).unwrap_or_else(|place| {
                self.0.insert(place, (name.len(), ByName::default()));
                place
            });
        insert(&mut self.0[place].1, name, position)
    }

    fn find<'h>(&self, host: &'h [u8], part: impl Fn(usize) -> &'h [u8]) -> Option<u32> {
        let shorter = self.0.iter().filter(|(len, _)| *len < host.len());
        shorter.into_iter().find_map(|(len, names)| names.get(part(*len)).copied())
    }
}

fn insert(names: &mut ByName, name: &[u8], position: u32) -> bool {
    match names.entry(name.into()) {
        Entry::Occupied(_) => false,
        Entry::Vacant(vacant) => {
            vacant.insert(position);
            true
        }
    }
}

/// Where the port of an authority starts, its colon included; the end if there is none. As Envoy, whatever follows the
/// colon is taken for a port.
pub(crate) fn port_start(authority: &[u8]) -> usize {
    let Some(colon) = memchr::memrchr(b':', authority) else {
        return authority.len();
    };
    let host = &authority[..colon];
    // The colons of an IPv6 address stand within brackets; without them nobody can tell.
    let ends_host =
        if host.starts_with(b"[") { host.ends_with(b"]") } else { !host.contains(&b':') };
    if ends_host { colon } else { authority.len() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(domains: &[&str]) -> DomainIndex {
        let mut index = DomainIndex::default();
        for (position, domain) in domains.iter().enumerate() {
            assert!(index.insert(domain, position as u32), "{domain}");
        }
        index
    }

    #[test]
    fn precedence() {
        let domains = [
            "*",
            "Foo.com",
            "*.foo.com",
            "*.bar.foo.com",
            "foo.*",
            "foo.bar.*",
            "*-baz.com",
            "x.com:80",
            "[::1]:80",
        ];
        let index = index(&domains);
        let table = [
            ("foo.com", "Foo.com"),
            ("FOO.com", "Foo.com"),
            ("a.foo.com", "*.foo.com"),
            ("a.bar.foo.com", "*.bar.foo.com"),
            (".foo.com", "*"),
            ("foo.org", "foo.*"),
            ("foo.bar.org", "foo.bar.*"),
            ("foo.", "*"),
            ("my-baz.com", "*-baz.com"),
            ("-baz.com", "*"),
            ("x.com", "*"),
            ("x.com:80", "x.com:80"),
            ("foo.com:80", "foo.*"),
            ("[::1]:80", "[::1]:80"),
            ("other", "*"),
        ];
        for (host, expected) in table {
            let found =
                index.find(host.as_bytes(), false).map(|position| domains[position as usize]);
            assert_eq!(found, Some(expected), "{host}");
        }
    }

    #[test]
    fn suffixes_come_before_prefixes() {
        let index = index(&["a.*", "*.b"]);
        assert_eq!(index.find(b"a.x.b", false), Some(1));
        assert_eq!(index.find(b"none", false), None);
    }

    #[test]
    fn ports_may_be_ignored() {
        let index = index(&["foo.com", "[::1]", "::1"]);
        let table = [
            ("foo.com:8080", Some(0)),
            ("[::1]:80", Some(1)),
            ("[::1]", Some(1)),
            ("::1", Some(2)),
            ("foo.com:x", Some(0)),
            ("foo.com:", Some(0)),
            ("[::1", None),
        ];
        for (host, expected) in table {
            assert_eq!(index.find(host.as_bytes(), true), expected, "{host}");
        }
        assert_eq!(index.find(b"foo.com:8080", false), None);
    }

    #[test]
    fn a_domain_belongs_to_one() {
        let mut index = index(&["*", "a.com", "*.a.com", "a.*"]);
        for domain in ["*", "A.com", "*.a.COM", "a.*"] {
            assert!(!index.insert(domain, 9), "{domain}");
        }
    }
}
