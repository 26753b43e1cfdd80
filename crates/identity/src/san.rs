//! Subject alternative names and how a peer's are matched: by type, by whole length, never across types.

use std::net::IpAddr;

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;

/// A name in a certificate. Texts hold printable ASCII only: a name with a NUL, a control character or another alphabet
/// in it is not a name that anything may match.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum San {
    /// A URI, for instance a SPIFFE id.
    Uri(String),
    /// A DNS name, which may start with `*.`.
    Dns(String),
    /// An e-mail address.
    Email(String),
    /// An IP address.
    Ip(IpAddr),
}

/// The kinds of names that a matcher can look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SanType {
    /// URIs.
    Uri,
    /// DNS names.
    Dns,
    /// E-mail addresses.
    Email,
    /// IP addresses, matched as text.
    Ip,
}

/// How a text is matched. Comparison is over the whole name.
#[derive(Clone, Debug)]
pub enum TextMatch {
    /// The same text; for DNS names the certificate's leading `*` stands for one label.
    Exact(String),
    /// Starts with.
    Prefix(String),
    /// Ends with.
    Suffix(String),
    /// Has within.
    Contains(String),
    /// A regular expression over the whole name.
    Regex(Regex),
}

/// A compiled regular expression that must match a whole name.
#[derive(Clone, Debug)]
pub struct Regex {
    compiled: regex_automata::meta::Regex,
    text: String,
}

/// One entry of `match_typed_subject_alt_names`.
#[derive(Clone, Debug)]
pub struct SanMatcher {
    /// Which names it looks at.
    pub san_type: SanType,
    /// What they must be.
    pub text: TextMatch,
    /// Whether letters match without regard to case (not for regular expressions).
    pub ignore_case: bool,
}

impl Regex {
    /// Compiles an expression. The error says what is wrong with it.
    pub fn new(text: &str) -> Result<Regex, String> {
        regex_automata::meta::Regex::new(&format!(r"\A(?:{text})\z"))
            .map(|compiled| Regex { compiled, text: text.to_owned() })
            .map_err(|error| error.to_string())
    }
}

impl PartialEq for Regex {
    fn eq(&self, other: &Regex) -> bool {
        self.text == other.text
    }
}

impl Eq for Regex {}

impl PartialEq for TextMatch {
    fn eq(&self, other: &TextMatch) -> bool {
        match (self, other) {
            (TextMatch::Exact(a), TextMatch::Exact(b))
            | (TextMatch::Prefix(a), TextMatch::Prefix(b))
            | (TextMatch::Suffix(a), TextMatch::Suffix(b))
            | (TextMatch::Contains(a), TextMatch::Contains(b)) => a == b,
            (TextMatch::Regex(a), TextMatch::Regex(b)) => a == b,
            _ => false,
        }
    }
}

impl Eq for TextMatch {}

impl PartialEq for SanMatcher {
    fn eq(&self, other: &SanMatcher) -> bool {
        self.san_type == other.san_type
            && self.text == other.text
            && self.ignore_case == other.ignore_case
    }
}

impl Eq for SanMatcher {}

impl SanMatcher {
    /// A matcher for one exact URI.
    pub fn exact_uri(uri: impl Into<String>) -> SanMatcher {
        SanMatcher {
            san_type: SanType::Uri,
            text: TextMatch::Exact(uri.into()),
            ignore_case: false,
        }
    }

    /// A matcher for one exact DNS name.
    pub fn exact_dns(name: impl Into<String>) -> SanMatcher {
        SanMatcher {
            san_type: SanType::Dns,
            text: TextMatch::Exact(name.into()),
            ignore_case: false,
        }
    }

    /// Whether a name is of the right type and matches.
    pub fn matches(&self, name: &San) -> bool {
        match (self.san_type, name) {
            (SanType::Dns, San::Dns(text)) => self.matches_dns(text),
            (SanType::Uri, San::Uri(text)) | (SanType::Email, San::Email(text)) => {
                self.matches_text(text)
            }
            (SanType::Ip, San::Ip(ip)) => self.matches_text(&ip.to_string()),
            _ => false,
        }
    }

    fn matches_dns(&self, presented: &str) -> bool {
        match &self.text {
            TextMatch::Exact(wanted) => dns_name_matches(presented, wanted),
            _ => self.matches_text(presented),
        }
    }

    fn matches_text(&self, text: &str) -> bool {
        if self.ignore_case && !matches!(self.text, TextMatch::Regex(_)) {
            return self.text.to_ascii_lowercase().matches(&text.to_ascii_lowercase());
        }
        self.text.matches(text)
    }
}

impl TextMatch {
    fn matches(&self, text: &str) -> bool {
        match self {
            TextMatch::Exact(wanted) => text == wanted,
            TextMatch::Prefix(wanted) => text.starts_with(wanted),
            TextMatch::Suffix(wanted) => text.ends_with(wanted),
            TextMatch::Contains(wanted) => text.contains(wanted),
            TextMatch::Regex(regex) => regex.compiled.is_match(text),
        }
    }

    fn to_ascii_lowercase(&self) -> TextMatch {
        match self {
            TextMatch::Exact(text) => TextMatch::Exact(text.to_ascii_lowercase()),
            TextMatch::Prefix(text) => TextMatch::Prefix(text.to_ascii_lowercase()),
            TextMatch::Suffix(text) => TextMatch::Suffix(text.to_ascii_lowercase()),
            TextMatch::Contains(text) => TextMatch::Contains(text.to_ascii_lowercase()),
            TextMatch::Regex(regex) => TextMatch::Regex(regex.clone()),
        }
    }
}

/// Whether a certificate's DNS name covers a host: equal without regard to case, or `*.` before exactly one label less.
pub fn dns_name_matches(presented: &str, host: &str) -> bool {
    if presented.eq_ignore_ascii_case(host) {
        return true;
    }
    let Some(parent) = presented.strip_prefix("*.") else { return false };
    host.split_once('.').is_some_and(|(label, rest)| {
        !label.is_empty()
            && !label.contains('*')
            && rest.contains('.')
            && rest.eq_ignore_ascii_case(parent)
    })
}

/// The names of a certificate. The error stands for an extension that is malformed or given twice.
pub(crate) fn of_certificate(certificate: &X509Certificate<'_>) -> Result<Vec<San>, ()> {
    let Some(extension) = certificate.subject_alternative_name().map_err(|_| ())? else {
        return Ok(Vec::new());
    };
    Ok(extension.value.general_names.iter().filter_map(of_general_name).collect())
}

fn of_general_name(name: &GeneralName<'_>) -> Option<San> {
    let printable =
        |text: &str| text.bytes().all(|b| b.is_ascii_graphic()).then(|| text.to_owned());
    match name {
        GeneralName::URI(text) => printable(text).map(San::Uri),
        GeneralName::DNSName(text) => printable(text).map(San::Dns),
        GeneralName::RFC822Name(text) => printable(text).map(San::Email),
        GeneralName::IPAddress(bytes) => ip_address(bytes).map(San::Ip),
        _ => None,
    }
}

fn ip_address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matcher(san_type: SanType, text: TextMatch) -> SanMatcher {
        SanMatcher { san_type, text, ignore_case: false }
    }

    #[test]
    fn a_wildcard_stands_for_one_label() {
        let table = [
            ("*.example.com", "a.example.com", true),
            ("*.example.com", "A.EXAMPLE.com", true),
            ("*.example.com", "a.b.example.com", false),
            ("*.example.com", "example.com", false),
            ("*.example.com", ".example.com", false),
            ("*.example.com", "*.example.com", true),
            ("*.com", "example.com", false),
            ("a*.example.com", "ab.example.com", false),
            ("example.com", "EXAMPLE.com", true),
        ];
        for (presented, host, expected) in table {
            assert_eq!(dns_name_matches(presented, host), expected, "{presented} {host}");
        }
    }

    /// A URI that reads like a DNS name is none (CVE-2022-21656).
    #[test]
    fn types_are_never_confused() {
        let dns = SanMatcher::exact_dns("api.example.com");
        assert!(dns.matches(&San::Dns("api.example.com".into())));
        assert!(!dns.matches(&San::Uri("api.example.com".into())));
        assert!(!dns.matches(&San::Email("api.example.com".into())));
        assert!(!SanMatcher::exact_uri("spiffe://td/a").matches(&San::Dns("spiffe://td/a".into())));
        assert!(
            !matcher(SanType::Ip, TextMatch::Exact("10.0.0.1".into()))
                .matches(&San::Dns("10.0.0.1".into()))
        );
        assert!(
            matcher(SanType::Ip, TextMatch::Exact("10.0.0.1".into()))
                .matches(&San::Ip("10.0.0.1".parse().unwrap()))
        );
    }

    /// What cannot be printed is no name: a NUL must not end a comparison (CVE-2026-47778).
    #[test]
    fn a_name_with_a_nul_is_no_name() {
        assert_eq!(of_general_name(&GeneralName::URI("spiffe://td/ns/a/sa/b\0.evil")), None);
        assert_eq!(of_general_name(&GeneralName::DNSName("good.example.com\0.evil.com")), None);
        assert_eq!(of_general_name(&GeneralName::DNSName("bücher.example")), None);
        assert_eq!(of_general_name(&GeneralName::DNSName("a b")), None);
    }

    #[test]
    fn texts_match_whole() {
        let uri = |text: &str| San::Uri(text.into());
        let regex = |text: &str| TextMatch::Regex(Regex::new(text).unwrap());
        let table = [
            (TextMatch::Exact("spiffe://td/a".into()), "spiffe://td/a", true),
            (TextMatch::Exact("spiffe://td/a".into()), "spiffe://td/ab", false),
            (TextMatch::Prefix("spiffe://td/ns/a/".into()), "spiffe://td/ns/a/sa/b", true),
            (TextMatch::Prefix("spiffe://td/ns/a/".into()), "x-spiffe://td/ns/a/sa/b", false),
            (TextMatch::Suffix("/sa/b".into()), "spiffe://td/ns/a/sa/b", true),
            (TextMatch::Suffix("/sa/b".into()), "spiffe://td/ns/a/sa/bb", false),
            (TextMatch::Contains("/ns/a/".into()), "spiffe://td/ns/a/sa/b", true),
            (regex("spiffe://td/ns/a/sa/.*"), "spiffe://td/ns/a/sa/b", true),
            (regex("a|spiffe://td"), "spiffe://td/ns", false),
            (regex("ns/a"), "spiffe://td/ns/a/sa/b", false),
        ];
        for (text, name, expected) in table {
            assert_eq!(
                matcher(SanType::Uri, text.clone()).matches(&uri(name)),
                expected,
                "{text:?} {name}"
            );
        }
        assert!(Regex::new("(").is_err());
        let folded = SanMatcher {
            san_type: SanType::Uri,
            text: TextMatch::Exact("A".into()),
            ignore_case: true,
        };
        assert!(folded.matches(&uri("a")));
    }
}
