//! A resource as the control plane hands it out: encoded once, then shared by every stream that gets it.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use prost::encoding::{self, WireType};

/// The version of one resource: a hash of its content, so that equal bytes have equal versions after a restart, and on
/// every replica. On the wire it is 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(NonZeroU64);

impl Version {
    /// The version of this content (FNV-1a, 64 bits, finished with a mixing step).
    pub fn of(content: &[u8]) -> Version {
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        for byte in content {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash ^= hash >> 33;
        Version(NonZeroU64::new(hash).unwrap_or(NonZeroU64::MIN))
    }

    /// Reads what [`fmt::Display`] wrote. `None` for anything else, for instance another control plane's version.
    pub fn parse(text: &str) -> Option<Version> {
        let canonical =
            text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        canonical
            .then(|| u64::from_str_radix(text, 16).ok().and_then(NonZeroU64::new).map(Version))
            .flatten()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One named resource, encoded. Cloning shares the bytes.
#[derive(Clone)]
pub struct Resource {
    name: Arc<str>,
    version: Version,
    wire: Bytes,
    any_at: usize,
}

impl Resource {
    /// Encodes a resource. `value` is its message, already encoded deterministically; `type_url` names that message.
    pub fn new(name: impl Into<Arc<str>>, type_url: &str, value: impl Into<Bytes>) -> Resource {
        let (name, value) = (name.into(), value.into());
        let version = Version::of(&value);
        let (name_field, version_field, type_url) =
            (name.to_string(), version.to_string(), type_url.to_owned());
        let any_len =
            encoding::string::encoded_len(1, &type_url) + encoding::bytes::encoded_len(2, &value);

        // `envoy.service.discovery.v3.Resource`; its body (field 2) goes last so that it is a slice of the whole.
        let mut wire = BytesMut::with_capacity(name_field.len() + any_len + 40);
        encoding::string::encode(3, &name_field, &mut wire);
        encoding::string::encode(1, &version_field, &mut wire);
        encoding::encode_key(2, WireType::LengthDelimited, &mut wire);
        encoding::encode_varint(any_len as u64, &mut wire);
        let any_at = wire.len();
        // `google.protobuf.Any`.
        encoding::string::encode(1, &type_url, &mut wire);
        encoding::bytes::encode(2, &value, &mut wire);
        Resource { name, version, wire: wire.freeze(), any_at }
    }

    /// The resource's name, shared.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The hash of the resource's content.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The encoded `envoy.service.discovery.v3.Resource`: name, version and body.
    pub fn wire(&self) -> &Bytes {
        &self.wire
    }

    /// The encoded `google.protobuf.Any` alone, as state-of-the-world responses carry it; a slice of [`Self::wire`].
    pub fn any(&self) -> Bytes {
        self.wire.slice(self.any_at..)
    }
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{} ({} bytes)", self.name, self.version, self.wire.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_survive_the_wire_and_foreign_ones_are_not_ours() {
        let version = Version::of(b"content");
        assert_eq!(Version::parse(&version.to_string()), Some(version));
        assert_ne!(version, Version::of(b"content "));
        for foreign in [
            "",
            "0",
            "0000000000000000",
            "2024-01-01/17",
            "+123456789abcdef",
            "0123456789ABCDEF",
            "0123456789abcdef0",
        ] {
            assert_eq!(Version::parse(foreign), None, "{foreign}");
        }
    }

    /// Versions are compared across restarts and replicas, so the hash is part of the protocol.
    #[test]
    fn the_hash_never_changes() {
        assert_eq!(Version::of(b"").to_string(), "ecba3df2c3383c52");
    }
}
