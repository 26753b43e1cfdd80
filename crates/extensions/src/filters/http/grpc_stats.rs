//! `envoy.filters.http.grpc_stats`: calls and messages of each method, or of all together.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::envoy::extensions::filters::http::grpc_stats::v3::FilterConfig;
use api::envoy::extensions::filters::http::grpc_stats::v3::filter_config::PerMethodStatSpecifier;
use api::text::Problem;
use codec::grpc::Framing;
use codec::headers::names;
use prost::Message;
use proxy::filter_manager::{
    DataStatus, FilterContext, HeadersStatus, HttpFilter, HttpFilterFactory, Phases,
    TrailersStatus, WorkerContext,
};
use proxy::http::grpc;
use proxy::snapshot::registry::CompileContext;

use crate::grpc::calls::{CallCounters, Calls, method_of};
use crate::grpc::messages::GrpcMessages;

/// Which methods have statistics of their own.
#[derive(Debug)]
enum Methods {
    /// All of them.
    All,
    /// These (`service/method`); the others, maybe all, share theirs.
    Listed(BTreeSet<String>),
}

#[derive(Debug)]
struct Settings {
    methods: Methods,
    /// Record how long the upstream takes.
    times: bool,
    /// Leave the numbers of messages in the stream's state.
    emits_state: bool,
    counters: CallCounters,
}

#[derive(Debug)]
struct Factory(Arc<Settings>);

/// One stream.
struct GrpcStats {
    settings: Arc<Settings>,
    is_grpc: bool,
    /// Calls of this stream are counted under [`Self::method`].
    counts: bool,
    /// `service/method`; empty for what all share.
    method: String,
    requests: Framing,
    responses: Framing,
    /// Request messages that are counted already.
    counted: u64,
    is_grpc_response: bool,
}

/// Reads an encoded `FilterConfig`.
pub(super) fn compile(
    bytes: &[u8],
    cx: &CompileContext<'_>,
) -> Result<Arc<dyn HttpFilterFactory>, Vec<Problem>> {
    let config =
        FilterConfig::decode(bytes).map_err(|error| vec![Problem::new("", error.to_string())])?;
    let methods = match config.per_method_stat_specifier {
        Some(PerMethodStatSpecifier::StatsForAllMethods(all)) if all.value => Methods::All,
        Some(PerMethodStatSpecifier::IndividualMethodStatsAllowlist(list)) => {
            let names = list.services.iter().flat_map(|service| {
                service.method_names.iter().map(move |name| format!("{}/{name}", service.name))
            });
            Methods::Listed(names.collect())
        }
        _ => Methods::Listed(BTreeSet::new()),
    };
    let replaces_dots = config.replace_dots_in_grpc_service_name && matches!(methods, Methods::All);
    Ok(Arc::new(Factory(Arc::new(Settings {
        methods,
        times: config.enable_upstream_stats,
        emits_state: config.emit_filter_state,
        counters: CallCounters::new(cx.registry, "grpc", replaces_dots),
    }))))
}

impl HttpFilterFactory for Factory {
    fn create(&self, _: &WorkerContext) -> Box<dyn HttpFilter> {
        Box::new(GrpcStats {
            settings: Arc::clone(&self.0),
            is_grpc: false,
            counts: false,
            method: String::new(),
            requests: Framing::default(),
            responses: Framing::default(),
            counted: 0,
            is_grpc_response: false,
        })
    }

    fn phases(&self) -> Phases {
        Phases::ALL
    }
}

impl GrpcStats {
    /// Counts request messages once it is known for which cluster.
    fn count_requests(&mut self, cx: &FilterContext<'_>) {
        let new = self.requests.messages() - self.counted;
        if new == 0 || !self.counts {
            return;
        }
        if let Some(block) = self.settings.counters.of(cx, &self.method) {
            cx.worker.recorder.add(&block, Calls::REQUEST_MESSAGE_COUNT, new);
            self.counted += new;
        }
    }

    fn ended(&self, cx: &FilterContext<'_>, status: Option<&[u8]>) {
        if self.counts {
            self.settings.counters.ended(cx, &self.method, status);
        }
    }

    fn took(&self, cx: &FilterContext<'_>) {
        if self.counts && self.settings.times {
            self.settings.counters.took(cx, &self.method);
        }
    }
}

impl HttpFilter for GrpcStats {
    fn decode_headers(&mut self, cx: &mut FilterContext<'_>, _: bool) -> HeadersStatus {
        self.is_grpc = grpc::is_grpc(cx.request);
        if self.is_grpc
            && let Some(method) = method_of(cx.request.path())
        {
            self.counts = true;
            let is_own = match &self.settings.methods {
                Methods::All => true,
                Methods::Listed(listed) => listed.contains(method),
            };
            if is_own {
                self.method.push_str(method);
            }
        }
        HeadersStatus::Continue
    }

    fn decode_data(&mut self, cx: &mut FilterContext<'_>, data: &[u8], _: bool) -> DataStatus {
        if self.is_grpc {
            self.requests.count(data);
            self.count_requests(cx);
        }
        DataStatus::Continue
    }

    fn encode_headers(&mut self, cx: &mut FilterContext<'_>, end: bool) -> HeadersStatus {
        if self.counts {
            self.count_requests(cx);
            self.is_grpc_response =
                !end && cx.response.status == 200 && grpc::has_grpc_type(&cx.response.fields);
            self.ended(cx, cx.response.fields.get(names::GRPC_STATUS));
            if end {
                self.took(cx);
            }
        }
        HeadersStatus::Continue
    }

    fn encode_data(&mut self, cx: &mut FilterContext<'_>, data: &[u8], _: bool) -> DataStatus {
        if self.is_grpc_response {
            let new = self.responses.count(data);
            if new > 0
                && let Some(block) = self.settings.counters.of(cx, &self.method)
            {
                cx.worker.recorder.add(&block, Calls::RESPONSE_MESSAGE_COUNT, new);
            }
        }
        DataStatus::Continue
    }

    fn encode_trailers(&mut self, cx: &mut FilterContext<'_>) -> TrailersStatus {
        if self.counts {
            let trailers = cx.response_trailers.as_ref();
            self.ended(cx, trailers.and_then(|fields| fields.get(names::GRPC_STATUS)));
            self.took(cx);
        }
        TrailersStatus::Continue
    }

    fn on_stream_complete(&mut self, cx: &mut FilterContext<'_>) {
        self.count_requests(cx);
        if self.is_grpc && self.settings.emits_state {
            let (requests, responses) = (self.requests.messages(), self.responses.messages());
            cx.info.filter_state.set(GrpcMessages { requests, responses });
        }
    }

    fn reset(&mut self) {
        (self.is_grpc, self.counts, self.is_grpc_response) = (false, false, false);
        self.method.clear();
        (self.requests, self.responses) = (Framing::default(), Framing::default());
        self.counted = 0;
    }
}
