//! The fields that every peer knows (RFC 7541, appendix A).

use super::Pseudo;
use super::table::{Line, Name};
use crate::headers::{KnownName, names};

/// The number of entries; the dynamic table begins at the next index.
pub(super) const LEN: usize = 61;

/// An entry, laid out as it lies in the buffer of a head: `name: value\r\n`.
struct Entry {
    line: &'static str,
    name_len: usize,
    name: Name,
}

macro_rules! pseudo {
    ($pseudo:ident, $name:literal, $value:literal) => {
        Entry {
            line: concat!($name, ": ", $value, "\r\n"),
            name_len: $name.len(),
            name: Name::Pseudo(Pseudo::$pseudo),
        }
    };
}

macro_rules! field {
    (NONE, $name:literal, $value:literal) => {
        field!(@ KnownName::NONE, $name, $value)
    };
    ($known:ident, $name:literal, $value:literal) => {
        field!(@ names::$known, $name, $value)
    };
    (@ $known:expr, $name:literal, $value:literal) => {
        Entry {
            line: concat!($name, ": ", $value, "\r\n"),
            name_len: $name.len(),
            name: Name::Field($known),
        }
    };
}

static ENTRIES: [Entry; LEN] = [
    pseudo!(Authority, ":authority", ""),
    pseudo!(Method, ":method", "GET"),
    pseudo!(Method, ":method", "POST"),
    pseudo!(Path, ":path", "/"),
    pseudo!(Path, ":path", "/index.html"),
    pseudo!(Scheme, ":scheme", "http"),
    pseudo!(Scheme, ":scheme", "https"),
    pseudo!(Status, ":status", "200"),
    pseudo!(Status, ":status", "204"),
    pseudo!(Status, ":status", "206"),
    pseudo!(Status, ":status", "304"),
    pseudo!(Status, ":status", "400"),
    pseudo!(Status, ":status", "404"),
    pseudo!(Status, ":status", "500"),
    field!(NONE, "accept-charset", ""),
    field!(ACCEPT_ENCODING, "accept-encoding", "gzip, deflate"),
    field!(ACCEPT_LANGUAGE, "accept-language", ""),
    field!(NONE, "accept-ranges", ""),
    field!(ACCEPT, "accept", ""),
    field!(NONE, "access-control-allow-origin", ""),
    field!(NONE, "age", ""),
    field!(NONE, "allow", ""),
    field!(AUTHORIZATION, "authorization", ""),
    field!(CACHE_CONTROL, "cache-control", ""),
    field!(NONE, "content-disposition", ""),
    field!(CONTENT_ENCODING, "content-encoding", ""),
    field!(NONE, "content-language", ""),
    field!(CONTENT_LENGTH, "content-length", ""),
    field!(NONE, "content-location", ""),
    field!(NONE, "content-range", ""),
    field!(CONTENT_TYPE, "content-type", ""),
    field!(COOKIE, "cookie", ""),
    field!(DATE, "date", ""),
    field!(ETAG, "etag", ""),
    field!(EXPECT, "expect", ""),
    field!(NONE, "expires", ""),
    field!(NONE, "from", ""),
    field!(HOST, "host", ""),
    field!(NONE, "if-match", ""),
    field!(IF_MODIFIED_SINCE, "if-modified-since", ""),
    field!(IF_NONE_MATCH, "if-none-match", ""),
    field!(NONE, "if-range", ""),
    field!(NONE, "if-unmodified-since", ""),
    field!(LAST_MODIFIED, "last-modified", ""),
    field!(NONE, "link", ""),
    field!(LOCATION, "location", ""),
    field!(NONE, "max-forwards", ""),
    field!(PROXY_AUTHENTICATE, "proxy-authenticate", ""),
    field!(PROXY_AUTHORIZATION, "proxy-authorization", ""),
    field!(NONE, "range", ""),
    field!(REFERER, "referer", ""),
    field!(NONE, "refresh", ""),
    field!(RETRY_AFTER, "retry-after", ""),
    field!(SERVER, "server", ""),
    field!(SET_COOKIE, "set-cookie", ""),
    field!(NONE, "strict-transport-security", ""),
    field!(TRANSFER_ENCODING, "transfer-encoding", ""),
    field!(USER_AGENT, "user-agent", ""),
    field!(VARY, "vary", ""),
    field!(VIA, "via", ""),
    field!(NONE, "www-authenticate", ""),
];

/// The entry of an index from 1 to [`LEN`].
#[inline]
pub(super) fn get(index: usize) -> Option<Line<'static>> {
    let entry = ENTRIES.get(index.wrapping_sub(1))?;
    Some(Line {
        bytes: entry.line.as_bytes(),
        name_len: entry.name_len,
        name: entry.name,
        is_good: true,
    })
}

/// The first index with this name.
pub(super) fn index_of(name: Name, bytes: &[u8]) -> Option<usize> {
    match name {
        Name::Pseudo(Pseudo::Authority) => Some(1),
        Name::Pseudo(Pseudo::Method) => Some(2),
        Name::Pseudo(Pseudo::Path) => Some(4),
        Name::Pseudo(Pseudo::Scheme) => Some(6),
        Name::Pseudo(Pseudo::Status) => Some(8),
        Name::Field(KnownName::NONE) => index_of_other(bytes),
        Name::Field(known) => match BY_KNOWN_NAME[usize::from(known.number())] {
            0 => None,
            index => Some(usize::from(index)),
        },
        _ => None,
    }
}

/// By the number of a name: its index, or 0.
static BY_KNOWN_NAME: [u8; 128] = {
    let mut indexes = [0; 128];
    let mut at = LEN;
    while at > 0 {
        at -= 1;
        if let Name::Field(known) = ENTRIES[at].name {
            indexes[known.number() as usize] = at as u8 + 1;
        }
    }
    indexes
};

/// The names without a number of their own.
fn index_of_other(name: &[u8]) -> Option<usize> {
    Some(match name {
        b"accept-charset" => 15,
        b"accept-ranges" => 18,
        b"access-control-allow-origin" => 20,
        b"age" => 21,
        b"allow" => 22,
        b"content-disposition" => 25,
        b"content-language" => 27,
        b"content-location" => 29,
        b"content-range" => 30,
        b"expires" => 36,
        b"from" => 37,
        b"if-match" => 39,
        b"if-range" => 42,
        b"if-unmodified-since" => 43,
        b"link" => 45,
        b"max-forwards" => 47,
        b"range" => 50,
        b"refresh" => 52,
        b"strict-transport-security" => 56,
        b"www-authenticate" => 61,
        _ => return None,
    })
}

/// The index of a whole field, value included.
pub(super) fn index_of_field(name: Name, value: &[u8]) -> Option<usize> {
    Some(match (name, value) {
        (Name::Pseudo(Pseudo::Method), b"GET") => 2,
        (Name::Pseudo(Pseudo::Method), b"POST") => 3,
        (Name::Pseudo(Pseudo::Path), b"/") => 4,
        (Name::Pseudo(Pseudo::Path), b"/index.html") => 5,
        (Name::Pseudo(Pseudo::Scheme), b"http") => 6,
        (Name::Pseudo(Pseudo::Scheme), b"https") => 7,
        (Name::Pseudo(Pseudo::Status), b"200") => 8,
        (Name::Pseudo(Pseudo::Status), b"204") => 9,
        (Name::Pseudo(Pseudo::Status), b"206") => 10,
        (Name::Pseudo(Pseudo::Status), b"304") => 11,
        (Name::Pseudo(Pseudo::Status), b"400") => 12,
        (Name::Pseudo(Pseudo::Status), b"404") => 13,
        (Name::Pseudo(Pseudo::Status), b"500") => 14,
        (Name::Field(names::ACCEPT_ENCODING), b"gzip, deflate") => 16,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_what_its_bytes_say_and_is_found() {
        for index in 1..=LEN {
            let line = get(index).unwrap();
            let name = line.name_bytes();
            assert_eq!(Name::classify(name), line.name, "{index}");
            let first = (1..=index).find(|at| get(*at).unwrap().name_bytes() == name);
            assert_eq!(index_of(line.name, name), first, "{index}");
            if !line.value().is_empty() {
                assert_eq!(index_of_field(line.name, line.value()), Some(index));
            }
        }
        assert!(get(0).is_none() && get(LEN + 1).is_none());
    }
}
