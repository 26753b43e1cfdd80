//! `envoy.filters.http.grpc_web`: browsers' gRPC (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md>), binary
//! and text, towards gRPC's servers: trailers travel in the body, and for text all of it is in base64.

use std::sync::Arc;

use api::text::Problem;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use codec::grpc::{Framing, TRAILERS_FLAG, prefix};
use codec::headers::{Fields, names};
use proxy::filter_manager::{
    DataStatus, FilterContext, HeadersStatus, HttpFilter, HttpFilterFactory, LocalReply, Phases,
    TrailersStatus, WorkerContext,
};
use proxy::http::grpc;
use proxy::snapshot::registry::CompileContext;

use crate::grpc::calls::{CallCounters, Calls, method_of};

/// Of an answer that is not gRPC so many bytes become the message of its status.
const MAX_MESSAGE: usize = 16 * 1024;

#[derive(Debug)]
struct Factory(Arc<CallCounters>);

/// One stream.
struct GrpcWeb {
    counters: Arc<CallCounters>,
    is_web: bool,
    /// The request is in base64.
    text_request: bool,
    /// The answer is to be.
    text_response: bool,
    method: String,
    /// Less than four characters of the request that are not decoded yet.
    undecoded: Vec<u8>,
    /// The answer's bytes that are not encoded yet: less than three.
    unencoded: Vec<u8>,
    requests: Framing,
    counted: u64,
    responses: Framing,
    /// The answer's frames as the text encoder follows them: each is padded for itself.
    encoded: Framing,
    /// The answer is not gRPC: what it says is gathered here for the status' message.
    foreign: Option<Vec<u8>>,
}

impl GrpcWeb {
    /// For a request that has not been looked at yet.
    fn new(counters: Arc<CallCounters>) -> GrpcWeb {
        GrpcWeb {
            counters,
            is_web: false,
            text_request: false,
            text_response: false,
            method: String::new(),
            undecoded: Vec::new(),
            unencoded: Vec::new(),
            requests: Framing::default(),
            counted: 0,
            responses: Framing::default(),
            encoded: Framing::default(),
            foreign: None,
        }
    }
}

/// Takes an encoded `GrpcWeb`, which says nothing.
pub(super) fn compile(
    _: &[u8],
    cx: &CompileContext<'_>,
) -> Result<Arc<dyn HttpFilterFactory>, Vec<Problem>> {
    Ok(Arc::new(Factory(Arc::new(CallCounters::new(cx.registry, "grpc-web", false)))))
}

impl HttpFilterFactory for Factory {
    fn create(&self, _: &WorkerContext) -> Box<dyn HttpFilter> {
        Box::new(GrpcWeb::new(Arc::clone(&self.0)))
    }

    fn phases(&self) -> Phases {
        Phases::ALL
    }
}

/// Is this gRPC-Web, and is it text?
fn web_type(content_type: &[u8]) -> Option<bool> {
    match content_type {
        b"application/grpc-web" | b"application/grpc-web+proto" => Some(false),
        b"application/grpc-web-text" | b"application/grpc-web-text+proto" => Some(true),
        _ => None,
    }
}

impl GrpcWeb {
    fn count_requests(&mut self, cx: &FilterContext<'_>) {
        let new = self.requests.messages() - self.counted;
        if new > 0
            && let Some(block) = self.counters.of(cx, &self.method)
        {
            cx.worker.recorder.add(&block, Calls::REQUEST_MESSAGE_COUNT, new);
            self.counted += new;
        }
    }

    fn response_type(&self) -> &'static [u8] {
        if self.text_response {
            b"application/grpc-web-text+proto"
        } else {
            b"application/grpc-web+proto"
        }
    }

    /// An answer that is not gRPC becomes one that has nothing but a status; HTTP's stays, as in Envoy.
    fn answer_for_foreign(&mut self, cx: &mut FilterContext<'_>) {
        let message = self.foreign.take().unwrap_or_default();
        let content_type = self.response_type();
        let fields = &mut cx.response.fields;
        if !fields.contains(names::GRPC_STATUS) {
            let status = grpc::status_of_http(cx.response.status);
            fields.set_number(names::GRPC_STATUS, status.into());
        }
        if !message.is_empty() {
            fields.set_with(names::GRPC_MESSAGE, |out| grpc::encode_message(&message, out));
        }
        fields.set_number(names::CONTENT_LENGTH, 0);
        fields.set(names::CONTENT_TYPE, content_type);
    }

    /// Base64 of the answer's bytes, every frame padded for itself, so that no frame waits for the next.
    fn encode_text(&mut self, data: &[u8], out: &mut Vec<u8>) {
        let mut at = 0;
        while at < data.len() {
            let len = self.encoded.advance(&data[at..]);
            self.unencoded.extend_from_slice(&data[at..at + len]);
            at += len;
            let whole = match self.encoded.is_between() {
                true => self.unencoded.len(),
                false => self.unencoded.len() / 3 * 3,
            };
            append_base64(&self.unencoded[..whole], out);
            self.unencoded.drain(..whole);
        }
    }
}

fn append_base64(bytes: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    // The room is what the padded form takes, so this does not fail.
    let written = STANDARD.encode_slice(bytes, &mut out[start..]).unwrap_or(0);
    out.truncate(start + written);
}

/// Decodes base64 in which every run may be padded for itself.
fn decode_base64(text: &[u8], out: &mut Vec<u8>) -> bool {
    text.chunks_exact(4).all(|four| {
        let mut three = [0; 3];
        match STANDARD.decode_slice(four, &mut three) {
            Ok(len) => {
                out.extend_from_slice(&three[..len]);
                true
            }
            Err(_) => false,
        }
    })
}

/// The frame that carries trailers: each a line, as HTTP/1 would have it.
fn trailers_frame(trailers: &Fields, out: &mut Vec<u8>) {
    let length: usize = trailers.iter().map(|(name, value)| name.len() + value.len() + 3).sum();
    prefix(TRAILERS_FLAG, length, out);
    for (name, value) in trailers.iter() {
        out.extend_from_slice(name);
        out.push(b':');
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
}

impl HttpFilter for GrpcWeb {
    fn decode_headers(&mut self, cx: &mut FilterContext<'_>, _: bool) -> HeadersStatus {
        let fields = &mut cx.request.fields;
        let is_text = fields.get(names::CONTENT_TYPE).and_then(web_type);
        let Some(is_text) = is_text else { return HeadersStatus::Continue };
        self.is_web = true;
        self.text_request = is_text;
        let accept = fields.get(names::ACCEPT).and_then(web_type);
        self.text_response = accept == Some(true);
        // The length is of what HTTP/1 carries, which is not what goes on.
        fields.remove(names::CONTENT_LENGTH);
        fields.set(names::CONTENT_TYPE, b"application/grpc");
        fields.set(names::TE, b"trailers");
        fields.set(names::GRPC_ACCEPT_ENCODING, b"identity,deflate,gzip");
        self.method.push_str(method_of(cx.request.path()).unwrap_or_default());
        HeadersStatus::Continue
    }

    fn decode_data(&mut self, cx: &mut FilterContext<'_>, data: &[u8], end: bool) -> DataStatus {
        if !self.is_web {
            return DataStatus::Continue;
        }
        if !self.text_request {
            self.requests.count(data);
            self.count_requests(cx);
            return DataStatus::Continue;
        }
        self.undecoded.extend_from_slice(data);
        let whole = self.undecoded.len() / 4 * 4;
        let is_cut = end && whole < self.undecoded.len();
        if is_cut || !decode_base64(&self.undecoded[..whole], cx.replacement) {
            cx.send_local_reply(LocalReply {
                status: 400,
                body: "Bad gRPC-web request, invalid base64 data.".into(),
                details: "grpc_base_64_decode_failed",
                ..LocalReply::default()
            });
            return DataStatus::StopNoBuffer;
        }
        self.undecoded.drain(..whole);
        self.requests.count(cx.replacement);
        self.count_requests(cx);
        DataStatus::Replace
    }

    fn encode_headers(&mut self, cx: &mut FilterContext<'_>, end: bool) -> HeadersStatus {
        if !self.is_web {
            return HeadersStatus::Continue;
        }
        self.count_requests(cx);
        self.counters.ended(cx, &self.method, cx.response.fields.get(names::GRPC_STATUS));
        let is_grpc = cx.response.status == 200
            && (grpc::has_grpc_type(&cx.response.fields)
                || cx.response.fields.get(names::CONTENT_TYPE).and_then(web_type).is_some());
        if is_grpc {
            cx.response.fields.remove(names::CONTENT_LENGTH);
            cx.response.fields.set(names::CONTENT_TYPE, self.response_type());
            return HeadersStatus::Continue;
        }
        self.foreign = Some(Vec::new());
        if end {
            self.answer_for_foreign(cx);
            return HeadersStatus::Continue;
        }
        HeadersStatus::StopIteration
    }

    fn encode_data(&mut self, cx: &mut FilterContext<'_>, data: &[u8], end: bool) -> DataStatus {
        if !self.is_web {
            return DataStatus::Continue;
        }
        if let Some(message) = &mut self.foreign {
            let room = MAX_MESSAGE - message.len();
            message.extend_from_slice(&data[..data.len().min(room)]);
            if !end {
                return DataStatus::StopNoBuffer;
            }
            self.answer_for_foreign(cx);
            return DataStatus::Replace;
        }
        let new = self.responses.count(data);
        if new > 0
            && let Some(block) = self.counters.of(cx, &self.method)
        {
            cx.worker.recorder.add(&block, Calls::RESPONSE_MESSAGE_COUNT, new);
        }
        if !self.text_response {
            return DataStatus::Continue;
        }
        self.encode_text(data, cx.replacement);
        DataStatus::Replace
    }

    fn encode_trailers(&mut self, cx: &mut FilterContext<'_>) -> TrailersStatus {
        if !self.is_web {
            return TrailersStatus::Continue;
        }
        let status =
            cx.response_trailers.as_ref().and_then(|fields| fields.get(names::GRPC_STATUS));
        self.counters.ended(cx, &self.method, status);
        if self.foreign.is_some() {
            self.answer_for_foreign(cx);
            return TrailersStatus::Replace;
        }
        let Some(trailers) = &cx.response_trailers else { return TrailersStatus::Continue };
        if self.text_response {
            let mut frame = Vec::new();
            trailers_frame(trailers, &mut frame);
            // What a cut-off message left over goes with it.
            append_base64(&self.unencoded, cx.replacement);
            append_base64(&frame, cx.replacement);
        } else {
            trailers_frame(trailers, cx.replacement);
        }
        TrailersStatus::Replace
    }

    fn on_stream_complete(&mut self, cx: &mut FilterContext<'_>) {
        self.count_requests(cx);
    }

    fn reset(&mut self) {
        (self.is_web, self.text_request, self.text_response) = (false, false, false);
        self.method.clear();
        self.undecoded.clear();
        self.unencoded.clear();
        (self.requests, self.responses) = (Framing::default(), Framing::default());
        self.encoded = Framing::default();
        self.counted = 0;
        self.foreign = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_decoded_run_by_run() {
        let mut out = Vec::new();
        assert!(decode_base64(b"AAAAAAE=AAAA", &mut out));
        assert_eq!(out, [0, 0, 0, 0, 1, 0, 0, 0]);
        assert!(!decode_base64(b"AA*A", &mut Vec::new()));
        assert!(!decode_base64(b"A===", &mut Vec::new()));
    }

    #[test]
    fn trailers_are_lines_in_a_frame() {
        let mut trailers = Fields::new();
        trailers.append("grpc-status", b"0");
        trailers.append("grpc-message", b"fine");
        let mut out = Vec::new();
        trailers_frame(&trailers, &mut out);
        assert_eq!(out[..5], [0x80, 0, 0, 0, 34]);
        assert_eq!(&out[5..], b"grpc-status:0\r\ngrpc-message:fine\r\n");
    }

    #[test]
    fn every_frame_is_padded_for_itself_however_it_comes() {
        let registry = telemetry::stats::Registry::new();
        let factory = Factory(Arc::new(CallCounters::new(&registry, "grpc-web", false)));
        let mut bytes = Vec::new();
        for body in [&b"a"[..], b"", b"more than that"] {
            prefix(0, body.len(), &mut bytes);
            bytes.extend_from_slice(body);
        }
        let expected: String =
            [&bytes[..6], &bytes[6..11], &bytes[11..]].map(|frame| STANDARD.encode(frame)).concat();
        for size in 1..bytes.len() {
            let mut filter = web(&factory);
            let mut out = Vec::new();
            bytes.chunks(size).for_each(|piece| filter.encode_text(piece, &mut out));
            assert_eq!(String::from_utf8(out).unwrap(), expected, "pieces of {size}");
        }
    }

    fn web(factory: &Factory) -> GrpcWeb {
        GrpcWeb {
            is_web: true,
            text_request: true,
            text_response: true,
            ..GrpcWeb::new(Arc::clone(&factory.0))
        }
    }
}
