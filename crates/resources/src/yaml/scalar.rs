//! What a plain scalar means.

use serde_json::{Number, Value};

/// Null, a boolean, a number, or else text.
pub(super) fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => {
            return Value::Bool(true);
        }
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => {
            return Value::Bool(false);
        }
        _ => {}
    }
    match number(text) {
        Some(number) => Value::Number(number),
        None => Value::String(text.to_owned()),
    }
}

fn number(text: &str) -> Option<Number> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    if let Some(whole) = integer(digits) {
        return match negative {
            false => Some(Number::from(whole)),
            true => i64::try_from(whole).ok().map(|whole| Number::from(-whole)),
        };
    }
    let float = digits.contains(['.', 'e', 'E']) && digits.contains(|c: char| c.is_ascii_digit());
    let plain =
        digits.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-'));
    if !float || !plain {
        return None;
    }
    // The text is kept where JSON has the same, so that 1.50 stays 1.50.
    let signed = if negative { format!("-{digits}") } else { digits.to_owned() };
    serde_json::from_str(&signed).ok().or_else(|| Number::from_f64(signed.parse().ok()?))
}

fn integer(digits: &str) -> Option<u64> {
    let (radix, digits) = match digits.get(..2) {
        Some("0x" | "0X") => (16, &digits[2..]),
        Some("0o" | "0O") => (8, &digits[2..]),
        Some("0b" | "0B") => (2, &digits[2..]),
        // YAML 1.1's octal, as file modes are written.
        Some(two) if two.starts_with('0') && digits.bytes().all(|b| (b'0'..=b'7').contains(&b)) => {
            (8, &digits[1..])
        }
        _ => (10, digits),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return None;
    }
    u64::from_str_radix(digits, radix).ok()
}
