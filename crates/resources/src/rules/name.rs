//! Names: RFC 1123 labels and subdomains, as Kubernetes uses them.

/// A DNS label: `[a-z0-9]([-a-z0-9]*[a-z0-9])?`, 63 characters at most.
pub fn dns_label(text: &str) -> Result<(), String> {
    let ok = !text.is_empty()
        && text.len() <= 63
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-');
    if ok {
        Ok(())
    } else {
        Err("must be lower-case letters, digits and '-', not at either end, 63 at most".to_owned())
    }
}

/// A DNS subdomain: labels joined by dots, 253 characters at most.
pub fn dns_subdomain(text: &str) -> Result<(), String> {
    if text.len() <= 253 && text.split('.').all(|label| dns_label(label).is_ok()) {
        return Ok(());
    }
    Err("must be lower-case letters, digits, '-' and '.', starting and ending with a letter or digit".to_owned())
}

/// A port name as Kubernetes has it: 15 characters of `[a-z0-9-]`, one letter at least.
pub fn port_name(text: &str) -> Result<(), String> {
    let ok = dns_label(text).is_ok()
        && text.len() <= 15
        && text.bytes().any(|b| b.is_ascii_lowercase())
        && !text.contains("--");
    if ok {
        Ok(())
    } else {
        Err("must be up to 15 lower-case letters, digits and '-', with a letter among them"
            .to_owned())
    }
}

/// A name of Istio's that need not be lower case (subset and port names): a DNS label in either case.
pub fn mixed_case_label(text: &str) -> Result<(), String> {
    dns_label(&text.to_ascii_lowercase()).map_err(|_| {
        "must be letters, digits and '-', starting and ending with a letter or digit, 63 at most".to_owned()
    })
}
