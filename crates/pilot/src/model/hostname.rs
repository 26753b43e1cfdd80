//! Host names as Istio's objects write them: short names, full names, wildcards.

/// The full name of `host` as an object in `namespace` means it: a name without a dot is a service of that namespace.
///
/// Istio: `ResolveShortnameToFQDN`.
pub fn resolve(host: &str, namespace: &str, domain_suffix: &str) -> String {
    if host.contains('.') || host.starts_with('*') || namespace.is_empty() {
        return host.to_owned();
    }
    format!("{host}.{namespace}.svc.{domain_suffix}")
}

/// The full name of the Kubernetes service `name` in `namespace`.
pub fn of_service(name: &str, namespace: &str, domain_suffix: &str) -> String {
    format!("{name}.{namespace}.svc.{domain_suffix}")
}

/// Whether `host` (a full name or itself a wildcard) is among what `pattern` stands for: `*`, `*.example.com`, a name.
pub fn covers(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        None => pattern == host,
        Some(suffix) => {
            host.strip_prefix('*').unwrap_or(host).ends_with(suffix) && host.len() >= pattern.len()
        }
    }
}

/// The narrower of two overlapping patterns; `None` when no name is in both.
pub fn intersection<'a>(a: &'a str, b: &'a str) -> Option<&'a str> {
    if covers(a, b) {
        Some(b)
    } else if covers(b, a) {
        Some(a)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_belong_to_the_namespace() {
        assert_eq!(
            resolve("reviews", "default", "cluster.local"),
            "reviews.default.svc.cluster.local"
        );
        assert_eq!(resolve("reviews.prod", "default", "cluster.local"), "reviews.prod");
        assert_eq!(resolve("*", "default", "cluster.local"), "*");
    }

    #[test]
    fn wildcards_cover_suffixes() {
        for (pattern, host, expected) in [
            ("*", "a.b", true),
            ("*", "*", true),
            ("*.example.com", "a.example.com", true),
            ("*.example.com", "a.b.example.com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", "*.a.example.com", true),
            ("*.a.example.com", "*.example.com", false),
            ("example.com", "example.com", true),
            ("example.com", "*.com", false),
        ] {
            assert_eq!(covers(pattern, host), expected, "{pattern} {host}");
        }
        assert_eq!(intersection("*.example.com", "a.example.com"), Some("a.example.com"));
        assert_eq!(intersection("*", "*.org"), Some("*.org"));
        assert_eq!(intersection("a.com", "b.com"), None);
    }
}
