//! `strftime` formats with Envoy's fractional seconds, compiled; and time zones for the `_LOCAL` operators.

use super::output::Piece;

/// A compiled format of a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TimeFormat {
    items: Box<[Item]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Item {
    Text(Box<str>),
    /// A conversion other than the ones below.
    Field(u8),
    /// So many digits of the second's fraction.
    Fraction(u8),
    /// `%ENS`: seconds with so many digits of the fraction; `%ENf` is the same with two digits before the point.
    Seconds(u8),
}

/// The conversions of [`Item::Field`].
const FIELDS: &[u8] = b"YmdeHMSIpyjaAbBhTFDRrsuwzZntC%";

const DAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// A moment with its offset from UTC.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment<'a> {
    /// Nanoseconds since the Unix epoch.
    pub unix_ns: u64,
    /// Seconds east of UTC.
    pub offset_seconds: i32,
    /// The time zone's abbreviation.
    pub zone: &'a str,
}

impl Moment<'_> {
    pub fn utc(unix_ns: u64) -> Moment<'static> {
        Moment { unix_ns, offset_seconds: 0, zone: "UTC" }
    }
}

impl TimeFormat {
    /// `2026-11-21T14:02:21.232Z`, Envoy's default.
    pub fn default_utc() -> Self {
        Self {
            items: Box::new([
                Item::Field(b'F'),
                Item::Text("T".into()),
                Item::Field(b'T'),
                Item::Text(".".into()),
                Item::Fraction(3),
                Item::Text("Z".into()),
            ]),
        }
    }

    /// Compiles a format; the error is the conversion that is not known.
    pub fn parse(format: &str) -> Result<Self, String> {
        let mut items = Vec::new();
        let mut rest = format;
        while let Some(at) = rest.find('%') {
            if at > 0 {
                items.push(Item::Text(rest[..at].into()));
            }
            let (item, used) = conversion(&rest.as_bytes()[at + 1..])
                .ok_or_else(|| rest[at..].chars().take(3).collect::<String>())?;
            items.push(item);
            rest = &rest[at + 1 + used..];
        }
        if !rest.is_empty() {
            items.push(Item::Text(rest.into()));
        }
        Ok(Self { items: items.into() })
    }

    /// Appends the moment.
    pub fn write(&self, moment: Moment<'_>, out: &mut Piece<'_>) {
        let nanos = moment.unix_ns % 1_000_000_000;
        let unix = (moment.unix_ns / 1_000_000_000) as i64;
        let civil = Civil::of(unix + i64::from(moment.offset_seconds));
        for item in &self.items {
            match item {
                Item::Text(text) => out.push(text.as_bytes()),
                Item::Field(field) => civil.field(*field, unix, moment, out),
                Item::Fraction(digits) => fraction(nanos, *digits, out),
                Item::Seconds(digits) => {
                    two(civil.second, b'0', out);
                    out.push(b".");
                    fraction(nanos, *digits, out);
                }
            }
        }
    }
}

fn conversion(bytes: &[u8]) -> Option<(Item, usize)> {
    match bytes {
        [b'f', ..] => Some((Item::Fraction(9), 1)),
        [digit @ b'1'..=b'9', b'f', ..] => Some((Item::Fraction(digit - b'0'), 2)),
        // Envoy takes `%3s` for `%s`.
        [b'1'..=b'9', b's', ..] => Some((Item::Field(b's'), 2)),
        [b'E', digit @ b'1'..=b'9', b'S', ..] => Some((Item::Seconds(digit - b'0'), 3)),
        [b'E', b'z', ..] => Some((Item::Field(b':'), 2)),
        [field, ..] if FIELDS.contains(field) => Some((Item::Field(*field), 1)),
        _ => None,
    }
}

fn fraction(nanos: u64, digits: u8, out: &mut Piece<'_>) {
    let mut all = *b"000000000";
    let mut left = nanos;
    for digit in all.iter_mut().rev() {
        *digit = b'0' + (left % 10) as u8;
        left /= 10;
    }
    out.push(&all[..digits as usize]);
}

fn two(value: u32, pad: u8, out: &mut Piece<'_>) {
    let tens = (value / 10 % 10) as u8;
    out.push(&[if tens == 0 { pad } else { b'0' + tens }, b'0' + (value % 10) as u8]);
}

/// A date and time of day of the proleptic Gregorian calendar.
struct Civil {
    year: i64,
    month: u32,
    day: u32,
    hour: u32,
    minute: u32,
    second: u32,
    week_day: u32,
    year_day: u32,
}

impl Civil {
    /// From seconds since 1970-01-01, by eras of 400 years that begin in March.
    fn of(seconds: i64) -> Self {
        let days = seconds.div_euclid(86_400);
        let time = seconds.rem_euclid(86_400) as u32;
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let from_march = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * from_march + 2) / 153;
        let day = (from_march - (153 * month_from_march + 2) / 5 + 1) as u32;
        let month =
            if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 } as u32;
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
        let year_day =
            if month > 2 { from_march + 60 + i64::from(leap) } else { from_march - 305 } as u32;
        Self {
            year,
            month,
            day,
            hour: time / 3600,
            minute: time / 60 % 60,
            second: time % 60,
            week_day: (days + 4).rem_euclid(7) as u32,
            year_day,
        }
    }

    fn field(&self, field: u8, unix: i64, moment: Moment<'_>, out: &mut Piece<'_>) {
        let month = MONTHS[self.month as usize - 1];
        let day = DAYS[self.week_day as usize];
        match field {
            b'Y' => number(self.year, out),
            b'C' => two((self.year / 100) as u32, b'0', out),
            b'y' => two((self.year % 100) as u32, b'0', out),
            b'm' => two(self.month, b'0', out),
            b'd' => two(self.day, b'0', out),
            b'e' => two(self.day, b' ', out),
            b'H' => two(self.hour, b'0', out),
            b'I' => two((self.hour + 11) % 12 + 1, b'0', out),
            b'M' => two(self.minute, b'0', out),
            b'S' => two(self.second, b'0', out),
            b'p' => out.push(if self.hour < 12 { b"AM" } else { b"PM" }),
            b'j' => {
                out.push(&[b'0' + (self.year_day / 100) as u8]);
                two(self.year_day % 100, b'0', out);
            }
            b'a' => out.push(&day.as_bytes()[..3]),
            b'A' => out.push(day.as_bytes()),
            b'b' | b'h' => out.push(&month.as_bytes()[..3]),
            b'B' => out.push(month.as_bytes()),
            b's' => number(unix, out),
            b'u' => number(i64::from((self.week_day + 6) % 7 + 1), out),
            b'w' => number(i64::from(self.week_day), out),
            b'z' => offset(moment.offset_seconds, b"", out),
            b':' => offset(moment.offset_seconds, b":", out),
            b'Z' => out.push(moment.zone.as_bytes()),
            b'n' => out.push(b"\n"),
            b't' => out.push(b"\t"),
            b'%' => out.push(b"%"),
            composed => self.composed(composed, unix, moment, out),
        }
    }

    fn composed(&self, field: u8, unix: i64, moment: Moment<'_>, out: &mut Piece<'_>) {
        let (fields, separator): (&[u8], &[u8]) = match field {
            b'T' => (b"HMS", b":"),
            b'R' => (b"HM", b":"),
            b'F' => (b"Ymd", b"-"),
            b'D' => (b"mdy", b"/"),
            _ => (b"IMS", b":"),
        };
        for (i, part) in fields.iter().enumerate() {
            if i > 0 {
                out.push(separator);
            }
            self.field(*part, unix, moment, out);
        }
        if field == b'r' {
            out.push(b" ");
            self.field(b'p', unix, moment, out);
        }
    }
}

fn number(value: i64, out: &mut Piece<'_>) {
    out.push(itoa::Buffer::new().format(value).as_bytes());
}

fn offset(seconds: i32, separator: &[u8], out: &mut Piece<'_>) {
    let minutes = seconds.unsigned_abs() / 60;
    out.push(if seconds < 0 { b"-" } else { b"+" });
    two(minutes / 60, b'0', out);
    out.push(separator);
    two(minutes % 60, b'0', out);
}

#[cfg(test)]
pub(super) fn to_string(format: &TimeFormat, moment: Moment<'_>) -> String {
    let mut bytes = Vec::new();
    super::output::Output { bytes: &mut bytes, mode: super::output::Mode::Raw, limit: None }
        .write(|piece| format.write(moment, piece));
    String::from_utf8(bytes).unwrap()
}
