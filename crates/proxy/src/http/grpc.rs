//! What of gRPC a proxy must know (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>): which requests are
//! gRPC, how its statuses and HTTP's stand for each other, the deadline in `grpc-timeout`, and answers made here.

use std::time::Duration;

use codec::headers::{Fields, Method, RequestHead, ResponseHead, names};

use crate::filter_manager::LocalReply;

/// `DEADLINE_EXCEEDED`.
pub const DEADLINE_EXCEEDED: u8 = 4;
/// `RESOURCE_EXHAUSTED`.
pub const RESOURCE_EXHAUSTED: u8 = 8;

/// The greatest number that `grpc-timeout` may have: eight digits.
const MAX_TIMEOUT_NUMBER: u64 = 99_999_999;

/// Is it gRPC? `application/grpc-web` is not.
pub fn is_grpc(request: &RequestHead) -> bool {
    has_grpc_type(&request.fields)
}

/// Is its content of the type `application/grpc`, or of that with a `+` and an encoding?
pub fn has_grpc_type(fields: &Fields) -> bool {
    let Some(content_type) = fields.get(names::CONTENT_TYPE) else { return false };
    matches!(content_type.strip_prefix(b"application/grpc"), Some([] | [b'+', ..]))
}

/// The status in a head or in trailers.
pub fn status_in(fields: &Fields) -> Option<u64> {
    fields.get_str(names::GRPC_STATUS)?.parse().ok()
}

/// The status of an answer that has none of its own, as the protocol says.
pub fn status_of_http(status: u16) -> u8 {
    match status {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}

/// What HTTP would have said: what outlier detection and success rates count a status as. Envoy's table.
pub fn http_of_status(status: u64) -> u16 {
    match status {
        0 => 200,
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => 500,
    }
}

/// The status that an answer counts as for its host: of gRPC, that of a trailers-only answer, else HTTP's.
pub fn outcome(request: &RequestHead, response: &ResponseHead) -> u16 {
    if !response.fields.contains(names::GRPC_STATUS) || !is_grpc(request) {
        return response.status;
    }
    status_in(&response.fields).map_or(response.status, http_of_status)
}

/// Is it known only from the trailers how a request went?
pub fn tells_in_trailers(request: &RequestHead, response: &ResponseHead) -> bool {
    is_grpc(request)
        && (200..300).contains(&response.status)
        && !response.fields.contains(names::GRPC_STATUS)
}

/// How long the client will wait, to the millisecond above; `None` where it does not say so in at most eight digits and
/// a unit.
pub fn timeout(fields: &Fields) -> Option<Duration> {
    let text = fields.get(names::GRPC_TIMEOUT)?;
    let (unit, digits) = text.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    // Eight digits of hours are some 10^14 ms: nothing here can overflow.
    let millis = match unit {
        b'H' => number * 3_600_000,
        b'M' => number * 60_000,
        b'S' => number * 1_000,
        b'm' => number,
        b'u' => number.div_ceil(1_000),
        b'n' => number.div_ceil(1_000_000),
        _ => return None,
    };
    Some(Duration::from_millis(millis))
}

/// Tells the other side how long it is waited for, in the smallest unit that eight digits hold.
pub fn set_timeout(fields: &mut Fields, timeout: Duration) {
    let mut number = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    let mut unit = b'H';
    for (larger, factor) in [(b'm', 1_000), (b'S', 60), (b'M', 60)] {
        if number <= MAX_TIMEOUT_NUMBER {
            unit = larger;
            break;
        }
        number /= factor;
    }
    let number = number.min(MAX_TIMEOUT_NUMBER);
    fields.set_with(names::GRPC_TIMEOUT, |out| {
        out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
        out.push(unit);
    });
}

/// Writes an answer made here as a gRPC client understands it: HTTP's 200, and the status with the reply's body for its
/// message in a head that ends the stream.
pub fn write_reply_head(response: &mut ResponseHead, reply: &LocalReply, request: &RequestHead) {
    response.clear();
    response.status = 200;
    let fields = &mut response.fields;
    fields.set(names::CONTENT_TYPE, b"application/grpc");
    let status = reply.grpc_status.unwrap_or_else(|| status_of_http(reply.status));
    fields.set_number(names::GRPC_STATUS, status.into());
    if !reply.body.is_empty() && request.method_kind() != Method::Head {
        fields.set_with(names::GRPC_MESSAGE, |out| encode_message(reply.body.as_bytes(), out));
    }
    let about_body = ["content-type", "content-length"];
    for (name, value) in &reply.headers {
        if !about_body.contains(&&**name) {
            fields.append(&**name, value.as_bytes());
        }
    }
}

/// Percent-encodes as the protocol wants it for `grpc-message`, and `~`, as Envoy does.
pub fn encode_message(text: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text {
        match byte {
            b' '..b'~' if *byte != b'%' => out.push(*byte),
            _ => out.extend([b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_grpc() {
        let table = [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc-web", false),
            ("application/grpcx", false),
            ("application/json", false),
        ];
        for (content_type, expected) in table {
            let mut request = RequestHead::new();
            request.fields.set(names::CONTENT_TYPE, content_type.as_bytes());
            assert_eq!(is_grpc(&request), expected, "{content_type}");
        }
        assert!(!is_grpc(&RequestHead::new()));
    }

    #[test]
    fn timeouts_are_read_to_the_millisecond_above() {
        let ms = |millis| Some(Duration::from_millis(millis));
        let table = [
            ("1H", ms(3_600_000)),
            ("2M", ms(120_000)),
            ("3S", ms(3_000)),
            ("4m", ms(4)),
            ("5u", ms(1)),
            ("1001u", ms(2)),
            ("6n", ms(1)),
            ("0m", ms(0)),
            // CVE-2021-28682: no number may overflow.
            ("99999999H", ms(359_999_996_400_000)),
            ("100000000m", None),
            ("9223372036854775807H", None),
            ("-1m", None),
            ("+1m", None),
            ("1", None),
            ("m", None),
            ("", None),
            ("1x", None),
            ("1 m", None),
        ];
        for (text, expected) in table {
            let mut fields = Fields::new();
            fields.set(names::GRPC_TIMEOUT, text.as_bytes());
            assert_eq!(timeout(&fields), expected, "{text}");
        }
        assert_eq!(timeout(&Fields::new()), None);
    }

    #[test]
    fn timeouts_are_told_in_eight_digits() {
        let table = [
            (0, "0m"),
            (99_999_999, "99999999m"),
            (100_000_000, "100000S"),
            (99_999_999_999, "99999999S"),
            (100_000_000_000, "1666666M"),
            (359_999_996_400_000, "99999999H"),
        ];
        for (millis, expected) in table {
            let mut fields = Fields::new();
            set_timeout(&mut fields, Duration::from_millis(millis));
            assert_eq!(fields.get_str(names::GRPC_TIMEOUT), Some(expected));
        }
    }

    #[test]
    fn statuses_stand_for_each_other() {
        for (http, grpc) in
            [(400, 13), (401, 16), (403, 7), (404, 12), (429, 14), (503, 14), (500, 2), (200, 2)]
        {
            assert_eq!(status_of_http(http), grpc, "{http}");
        }
        for (grpc, http) in
            [(0, 200), (1, 499), (4, 504), (8, 429), (14, 503), (13, 500), (99, 500)]
        {
            assert_eq!(http_of_status(grpc), http, "{grpc}");
        }
    }

    #[test]
    fn an_answer_made_here_is_trailers_only() {
        let reply = LocalReply {
            status: 503,
            body: "no healthy upstream: 100% é\n".into(),
            headers: vec![
                ("content-type".into(), "text/html".into()),
                ("x-envoy-overloaded".into(), "true".into()),
            ],
            ..LocalReply::default()
        };
        let mut response = ResponseHead::new(0);
        write_reply_head(&mut response, &reply, &RequestHead::new());
        assert_eq!(response.status, 200);
        let expected: &[(&[u8], &[u8])] = &[
            (b"content-type", b"application/grpc"),
            (b"grpc-status", b"14"),
            (b"grpc-message", b"no healthy upstream: 100%25 %C3%A9%0A"),
            (b"x-envoy-overloaded", b"true"),
        ];
        assert_eq!(response.fields.iter().collect::<Vec<_>>(), expected);
        let limited = LocalReply { grpc_status: Some(RESOURCE_EXHAUSTED), ..reply };
        write_reply_head(&mut response, &limited, &RequestHead::new());
        assert_eq!(status_in(&response.fields), Some(8));
    }

    #[test]
    fn an_outcome_is_of_the_head_alone() {
        let mut request = RequestHead::new();
        let mut response = ResponseHead::new(200);
        response.fields.set(names::GRPC_STATUS, b"14");
        assert_eq!(outcome(&request, &response), 200, "not gRPC");
        request.fields.set(names::CONTENT_TYPE, b"application/grpc");
        assert_eq!(outcome(&request, &response), 503);
        assert_eq!(outcome(&request, &ResponseHead::new(502)), 502);
    }
}
