//! Names and values of HTTP messages.

/// A header name: an RFC 9110 token.
pub fn header_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("a header name may not be empty".to_owned());
    }
    if name.bytes().all(is_token_byte) {
        return Ok(());
    }
    Err("must be letters, digits and any of !#$%&'*+-.^_`|~".to_owned())
}

/// A header that a request may be given: `:authority` and `Host` rewrite the authority, other pseudo headers may not be set.
pub fn request_header_operation(name: &str) -> Result<(), String> {
    match name {
        ":authority" => Ok(()),
        name if name.starts_with(':') => {
            Err("a pseudo header other than :authority may not be changed".to_owned())
        }
        name => header_name(name),
    }
}

/// A header that may be added to or removed from a message: no pseudo header and not `Host`.
pub fn header_operation(name: &str) -> Result<(), String> {
    if name.starts_with(':') {
        return Err("a pseudo header may not be changed".to_owned());
    }
    if name.eq_ignore_ascii_case("host") {
        return Err("the Host header may not be changed".to_owned());
    }
    header_name(name)
}

/// A header value: no control characters but tab.
pub fn header_value(value: &str) -> Result<(), String> {
    if value.bytes().any(|b| (b < 0x20 && b != b'\t') || b == 0x7f) {
        return Err("may not hold control characters".to_owned());
    }
    Ok(())
}

/// A method: an RFC 9110 token.
pub fn method(name: &str) -> Result<(), String> {
    if !name.is_empty() && name.bytes().all(is_token_byte) {
        Ok(())
    } else {
        Err("is no HTTP method".to_owned())
    }
}

fn is_token_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}
