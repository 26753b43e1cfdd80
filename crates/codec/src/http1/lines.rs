//! Finds the lines of a head, strictly by RFC 9112 and in one pass: words of start lines, fields, the empty line.
//!
//! What is lenient elsewhere is a fault here: bare LF or CR, folded lines, space before a colon, control characters. A fault
//! counts once its line is complete, so that the answer to the same bytes is the same however they arrive.

use super::Refusal;
use crate::headers::scan::text_end;
use crate::headers::{Fields, Span, is_token_byte};

pub(super) const TOO_LARGE: Refusal =
    Refusal { status: 431, details: "http1.headers_too_large", reason: "head is too large" };
const TOO_MANY: Refusal =
    Refusal { status: 431, details: "http1.too_many_headers", reason: "too many fields" };
pub(super) const BARE_LF: Refusal = Refusal::codec_error("line does not end in CRLF");
const BAD_NAME: Refusal = Refusal::codec_error("bad byte in a field name");
const BAD_VALUE: Refusal = Refusal::codec_error("bad byte in a field value");

/// What was found, `None` when the input ends before it.
pub(super) type Found<T> = Result<Option<T>, Refusal>;

/// A fault at `at` in a line that may not be complete.
#[cold]
pub(super) fn fault<T>(input: &[u8], at: usize, refusal: Refusal) -> Found<T> {
    match memchr::memchr(b'\n', &input[at..]) {
        Some(_) => Err(refusal),
        None => Ok(None),
    }
}

/// Notes the field lines that begin at `at` and finds where the empty line after them ends.
pub(super) fn fields(
    input: &[u8],
    mut at: usize,
    most: usize,
    fields: &mut Fields,
) -> Found<usize> {
    let mut count = 0;
    loop {
        let colon = token_end(input, at);
        match input.get(colon) {
            Some(b':') if colon > at => {}
            Some(b'\r') if colon == at => return empty_line(input, at),
            Some(b'\n') if colon == at => return Err(BARE_LF),
            Some(_) => return fault(input, colon, BAD_NAME),
            None => return Ok(None),
        }
        let mut start = colon + 1;
        while matches!(input.get(start), Some(b' ' | b'\t')) {
            start += 1;
        }
        let line_end = text_end(input, start);
        match (input.get(line_end), input.get(line_end + 1)) {
            (Some(b'\r'), Some(b'\n')) => {}
            (Some(b'\r'), None) | (None, _) => return Ok(None),
            (Some(b'\n'), _) => return Err(BARE_LF),
            _ => return fault(input, line_end, BAD_VALUE),
        }
        let mut end = line_end;
        while end > start && matches!(input[end - 1], b' ' | b'\t') {
            end -= 1;
        }
        if count == most {
            return Err(TOO_MANY);
        }
        count += 1;
        let name = Span::new(at, colon - at);
        if name.len > u32::from(u16::MAX) {
            return Err(TOO_LARGE);
        }
        let is_canonical = end == line_end && start == colon + 2 && input[colon + 1] == b' ';
        fields.note_line(name, Span::new(start, end - start), is_canonical);
        at = line_end + 2;
    }
}

/// The end of the CRLF at `at`, where a CR is.
pub(super) fn empty_line(input: &[u8], at: usize) -> Found<usize> {
    match input.get(at + 1) {
        Some(b'\n') => Ok(Some(at + 2)),
        Some(_) => fault(input, at, BARE_LF),
        None => Ok(None),
    }
}

/// The first byte from `at` that a token (RFC 9110 §5.6.2) cannot have, or the input's end.
#[inline]
pub(super) fn token_end(input: &[u8], at: usize) -> usize {
    let rest = input.get(at..).unwrap_or_default();
    at + rest.iter().position(|byte| !is_token_byte(*byte)).unwrap_or(rest.len())
}
