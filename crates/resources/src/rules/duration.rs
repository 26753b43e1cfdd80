//! Durations as Go and Istio write them: `300ms`, `1.5s`, `1h30m`.

use std::time::Duration;

/// Reads a duration: decimal numbers with units `h`, `m`, `s`, `ms`, `us`, `ns`, largest first or not; a bare `0` is fine.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    const EXPECTED: &str = "expected a duration such as 10s, 500ms or 1h30m";
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.starts_with('-') {
        return Err("a duration may not be negative".to_owned());
    }
    let mut rest = text;
    let mut total = 0f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or(EXPECTED)?;
        let (number, after) = rest.split_at(digits);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return Err(EXPECTED.to_owned()),
        };
        let number: f64 = number.parse().map_err(|_| EXPECTED)?;
        total += number * seconds;
        rest = after;
    }
    if text.is_empty() || !total.is_finite() {
        return Err(EXPECTED.to_owned());
    }
    // Whole nanoseconds, so that 0.1s + 0.2s is exactly 300ms.
    Duration::try_from_secs_f64((total * 1e9).round() / 1e9)
        .map_err(|_| "too long a duration".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_go_reads() {
        for (text, millis) in [
            ("10s", 10_000),
            ("500ms", 500),
            ("1h30m", 5_400_000),
            ("1.5s", 1_500),
            ("0s", 0),
            ("0", 0),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "10", "s", "-1s", "1x", "1s5", "1..5s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
