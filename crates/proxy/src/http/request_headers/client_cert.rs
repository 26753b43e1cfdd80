//! `x-forwarded-client-cert`: what the client's certificate says, told to the upstream in Envoy's words.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use codec::headers::{RequestHead, names};

use crate::http::config::{ForwardClientCert, ForwardClientCertDetails};
use crate::stream_info::{CertificateInfo, TlsInfo};

/// Forwards, removes, extends or replaces the field.
pub(super) fn forward(head: &mut RequestHead, rules: &ForwardClientCert, tls: Option<&TlsInfo>) {
    use ForwardClientCertDetails::*;

    let peer = tls.and_then(|tls| Some((tls, tls.peer.as_ref()?)));
    match (rules.details, peer) {
        (AlwaysForwardOnly, _) | (ForwardOnly, Some(_)) => {}
        (Sanitize, _) | (_, None) => {
            head.fields.remove(names::X_FORWARDED_CLIENT_CERT);
        }
        (AppendForward, Some((tls, peer))) => {
            let write = |out: &mut Vec<u8>| write_element(rules, tls, peer, out);
            head.fields.append_to_with(names::X_FORWARDED_CLIENT_CERT, b",", write);
        }
        (SanitizeSet, Some((tls, peer))) => {
            let write = |out: &mut Vec<u8>| write_element(rules, tls, peer, out);
            head.fields.set_with(names::X_FORWARDED_CLIENT_CERT, write);
        }
    }
}

/// `By=...;Hash=...;Cert="...";Chain="...";Subject="...";URI=...;DNS=...`, what is configured of it.
fn write_element(
    rules: &ForwardClientCert,
    tls: &TlsInfo,
    peer: &CertificateInfo,
    out: &mut Vec<u8>,
) {
    let start = out.len();
    let mut pair = |name: &str, value: &dyn Fn(&mut Vec<u8>)| {
        if out.len() > start {
            out.push(b';');
        }
        out.extend_from_slice(name.as_bytes());
        value(out);
    };
    if let Some(own) = tls.local.as_ref().and_then(|local| local.uri_sans.first()) {
        pair("By=", &|out| plain(own, out));
    }
    if !peer.fingerprint_256.is_empty() {
        pair("Hash=", &|out| plain(&peer.fingerprint_256, out));
    }
    if rules.cert
        && let Some(leaf) = tls.peer_chain.first()
    {
        pair("Cert=", &|out| quoted_pem([leaf.as_ref()], out));
    }
    if rules.chain && !tls.peer_chain.is_empty() {
        pair("Chain=", &|out| {
            quoted_pem(tls.peer_chain.iter().map(|certificate| certificate.as_ref()), out)
        });
    }
    if rules.subject {
        pair("Subject=", &|out| quoted(&peer.subject, out));
    }
    if rules.uri {
        match &peer.uri_sans[..] {
            [] => pair("URI=", &|_| {}),
            names => names.iter().for_each(|name| pair("URI=", &|out| plain(name, out))),
        }
    }
    if rules.dns {
        peer.dns_sans.iter().for_each(|name| pair("DNS=", &|out| plain(name, out)));
    }
}

/// Names come from the peer: what would end the element, or the list, is quoted.
fn plain(value: &str, out: &mut Vec<u8>) {
    if value.contains([',', ';', '=', '"']) {
        quoted(value, out)
    } else {
        out.extend_from_slice(value.as_bytes())
    }
}

fn quoted(value: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in value.bytes() {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}

/// PEM, percent-encoded so that it is one line.
fn quoted_pem<'c>(certificates: impl IntoIterator<Item = &'c [u8]>, out: &mut Vec<u8>) {
    out.push(b'"');
    for certificate in certificates {
        out.extend_from_slice(b"-----BEGIN%20CERTIFICATE-----%0A");
        for line in STANDARD.encode(certificate).as_bytes().chunks(64) {
            for byte in line {
                match byte {
                    b'+' => out.extend_from_slice(b"%2B"),
                    b'/' => out.extend_from_slice(b"%2F"),
                    b'=' => out.extend_from_slice(b"%3D"),
                    other => out.push(*other),
                }
            }
            out.extend_from_slice(b"%0A");
        }
        out.extend_from_slice(b"-----END%20CERTIFICATE-----%0A");
    }
    out.push(b'"');
}
