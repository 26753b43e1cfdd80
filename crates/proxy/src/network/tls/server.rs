//! rustls configuration for the server side.

use std::sync::Arc;

use super::{ServerSide, DownstreamTlsSettings, Secrets, TlsError};

pub(super) fn build(
    _settings: &DownstreamTlsSettings,
    _secrets: &Secrets,
    _previous: Option<&ServerSide>,
) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    Err(TlsError::Settings("not there yet".into()))
}
