//! `istio.alpn`: the ALPN offered upstream follows the protocol that is spoken there, so that an Istio server can tell its
//! mesh's HTTP from other traffic.

use std::rc::Rc;
use std::sync::Arc;

use api::istio::alpn::FilterConfig;
use api::istio::alpn::filter_config::Protocol;
use api::text::Problem;
use prost::Message;
use proxy::filter_manager::{
    FilterContext, HeadersStatus, HttpFilter, HttpFilterFactory, Phases, WorkerContext,
};
use proxy::snapshot::registry::CompileContext;
use proxy::stream_info::UpstreamAlpn;

#[derive(Debug)]
struct Factory(UpstreamAlpn);

struct Alpn(Rc<UpstreamAlpn>);

/// Reads an encoded `FilterConfig`.
pub(super) fn compile(
    bytes: &[u8],
    _: &CompileContext<'_>,
) -> Result<Arc<dyn HttpFilterFactory>, Vec<Problem>> {
    let config =
        FilterConfig::decode(bytes).map_err(|error| vec![Problem::new("", error.to_string())])?;
    let (mut http10, mut http11, mut http2) = (None, None, None);
    for item in &config.alpn_override {
        let protocols = item.alpn_override.iter().map(|name| name.clone().into_bytes()).collect();
        match item.upstream_protocol() {
            Protocol::Http10 => http10 = Some(protocols),
            Protocol::Http11 => http11 = Some(protocols),
            Protocol::Http2 => http2 = Some(protocols),
        }
    }
    Ok(Arc::new(Factory(UpstreamAlpn::new(http10, http11, http2))))
}

impl HttpFilterFactory for Factory {
    fn create(&self, _: &WorkerContext) -> Box<dyn HttpFilter> {
        Box::new(Alpn(Rc::new(self.0.clone())))
    }

    fn phases(&self) -> Phases {
        Phases { decode_headers: true, ..Phases::default() }
    }
}

impl HttpFilter for Alpn {
    fn decode_headers(&mut self, cx: &mut FilterContext<'_>, _: bool) -> HeadersStatus {
        cx.info.filter_state.set_shared(Rc::clone(&self.0));
        HeadersStatus::Continue
    }

    fn reset(&mut self) {}
}
