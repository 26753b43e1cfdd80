//! Fields that are between two hops and go no further (RFC 9110 §7.6.1).

use codec::headers::{Fields, NameRef, NameSet, RequestHead, names};

use super::Rejection;

/// More names than this in `connection` have no honest use; Envoy's limit.
const MOST_NOMINATED: usize = 10;

/// Removes the fields of the connection, and those that `connection` names.
pub(super) fn remove(head: &mut RequestHead) -> Result<(), Rejection> {
    const ALWAYS: NameSet = NameSet::of(&[
        names::KEEP_ALIVE,
        names::PROXY_CONNECTION,
        names::TRANSFER_ENCODING,
        names::HTTP2_SETTINGS,
    ]);

    if head.fields.contains(names::CONNECTION) {
        remove_nominated(&mut head.fields)?;
    }
    head.fields.remove_any(ALWAYS);
    if !head.is_upgrade {
        head.fields.remove_any(NameSet::of(&[names::CONNECTION, names::UPGRADE]));
    }
    let keeps_te = head.fields.get(names::TE).is_none_or(|te| te.eq_ignore_ascii_case(b"trailers"));
    if !keeps_te {
        let has_trailers = has_trailers_token(&head.fields);
        head.fields.remove(names::TE);
        if has_trailers {
            head.fields.set(names::TE, b"trailers");
        }
    }
    Ok(())
}

fn has_trailers_token(fields: &Fields) -> bool {
    let mut tokens = fields.get_all(names::TE).flat_map(|value| value.split(|byte| *byte == b','));
    tokens.any(|token| token.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// A client may not have us drop what tells the next hop where the request came from.
fn remove_nominated(fields: &mut Fields) -> Result<(), Rejection> {
    const NOT_TO_BE_NOMINATED: NameSet = NameSet::of(&[
        names::HOST,
        names::X_FORWARDED_FOR,
        names::X_FORWARDED_HOST,
        names::X_FORWARDED_PROTO,
    ]);
    const REJECTED: Rejection =
        Rejection::bad_request("http1.connection_header_rejected", "Bad Request");

    let mut nominated = smallvec::SmallVec::<[smallvec::SmallVec<[u8; 32]>; 2]>::new();
    let tokens =
        fields.get_all(names::CONNECTION).flat_map(|value| value.split(|byte| *byte == b','));
    for token in tokens.map(<[u8]>::trim_ascii).filter(|token| !token.is_empty()) {
        let is_own = [&b"close"[..], b"keep-alive", b"upgrade", b"te", b"http2-settings"]
            .iter()
            .any(|own| token.eq_ignore_ascii_case(own));
        if is_own {
            continue;
        }
        let mut lower = smallvec::SmallVec::from_slice(token);
        lower.make_ascii_lowercase();
        let is_protected = matches!(NameRef::from(&lower[..]), NameRef::Known(name) if NOT_TO_BE_NOMINATED.contains(name));
        if is_protected || lower.starts_with(b":") || nominated.len() == MOST_NOMINATED {
            return Err(REJECTED);
        }
        nominated.push(lower);
    }
    for name in nominated {
        fields.remove(&name[..]);
    }
    Ok(())
}
