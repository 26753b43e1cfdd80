//! What TLS connections come to, as statistics: `ssl.*` of a listener or a cluster.

use telemetry::stats::sets::Tls;
use telemetry::stats::{Block, Recorder};

use super::session::TlsFailure;
use crate::stream_info::TlsInfo;
use identity::tls::PeerRefusal;

/// Counts a finished handshake.
pub fn handshake(recorder: &Recorder, block: Option<&Block<Tls>>, tls: &TlsInfo) {
    if let Some(block) = block {
        recorder.local(block).handshake(&tls.outcome());
    }
}

/// Counts a connection that TLS ended: by what was wrong with the peer's certificate, or as an error. As in Envoy, a
/// peer that just went away is neither.
pub fn failure(recorder: &Recorder, block: Option<&Block<Tls>>, failure: Option<&TlsFailure>) {
    let (Some(block), Some(failure)) = (block, failure) else { return };
    recorder.inc(
        block,
        match failure.refusal {
            None => Tls::CONNECTION_ERROR,
            Some(PeerRefusal::NoCertificate) => Tls::FAIL_VERIFY_NO_CERT,
            Some(PeerRefusal::Chain) => Tls::FAIL_VERIFY_ERROR,
            Some(PeerRefusal::Name) => Tls::FAIL_VERIFY_SAN,
            Some(PeerRefusal::Fingerprint) => Tls::FAIL_VERIFY_CERT_HASH,
        },
    );
}
