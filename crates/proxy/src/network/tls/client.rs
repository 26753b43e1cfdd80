//! rustls configuration for the client side.

use std::sync::Arc;

use super::{ClientSide, UpstreamTlsSettings, Secrets, TlsError};

pub(super) fn build(
    _settings: &UpstreamTlsSettings,
    _secrets: &Secrets,
    _previous: Option<&ClientSide>,
) -> Result<Arc<rustls::ClientConfig>, TlsError> {
    Err(TlsError::Settings("not there yet".into()))
}
