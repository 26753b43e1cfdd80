//! Scalars of YAML and JSON as protobuf's JSON mapping reads them.

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};

use super::suggest::closest;
use super::tree::{Node, Value};
use crate::schema::{Enum, Kind};

/// A scalar ready for the wire.
#[derive(Debug, PartialEq)]
pub enum Scalar {
    /// Integers, booleans, enums.
    Varint(u64),
    /// 64-bit floats and fixed integers.
    Fixed64(u64),
    /// 32-bit floats and fixed integers.
    Fixed32(u32),
    /// Text and bytes.
    Bytes(Vec<u8>),
}

impl Scalar {
    /// Is it the value that absence means?
    pub fn is_default(&self) -> bool {
        match self {
            Self::Varint(number) | Self::Fixed64(number) => *number == 0,
            Self::Fixed32(number) => *number == 0,
            Self::Bytes(bytes) => bytes.is_empty(),
        }
    }
}

/// Reads a node as a scalar of `kind`, or says what was expected.
pub fn read(node: &Node, kind: Kind) -> Result<Scalar, String> {
    let Value::Scalar { text, plain } = &node.value else {
        return Err(format!("expected {}, found {}", expected(kind), node.describe()));
    };
    let scalar = match kind {
        Kind::String => return string(node, text, *plain),
        Kind::Bytes => decode_base64(text).map(Scalar::Bytes),
        Kind::Bool => {
            if *plain { boolean(text) } else { None }.map(|value| Scalar::Varint(value.into()))
        }
        Kind::Int32 => integer(text, i32::MIN.into(), i32::MAX.into()).map(varint),
        Kind::Int64 => integer(text, i64::MIN.into(), i64::MAX.into()).map(varint),
        Kind::Uint32 => integer(text, 0, u32::MAX.into()).map(varint),
        Kind::Uint64 => integer(text, 0, u64::MAX.into()).map(varint),
        Kind::Sint32 => integer(text, i32::MIN.into(), i32::MAX.into()).map(zigzag),
        Kind::Sint64 => integer(text, i64::MIN.into(), i64::MAX.into()).map(zigzag),
        Kind::Fixed32 => {
            integer(text, 0, u32::MAX.into()).map(|number| Scalar::Fixed32(number as u32))
        }
        Kind::Fixed64 => {
            integer(text, 0, u64::MAX.into()).map(|number| Scalar::Fixed64(number as u64))
        }
        Kind::Float => float(text).map(|number| Scalar::Fixed32((number as f32).to_bits())),
        Kind::Double => float(text).map(|number| Scalar::Fixed64(number.to_bits())),
        Kind::Enum(values) => return enumeration(node, text, values),
        Kind::Message(_) => None,
    };
    scalar.ok_or_else(|| format!("expected {}, found {}", expected(kind), node.describe()))
}

/// Numbers and booleans are not text: Envoy refuses them too, and they are mostly a slip. Words that only YAML 1.1
/// takes for booleans (`on`, `y`) are text here.
fn string(node: &Node, text: &str, plain: bool) -> Result<Scalar, String> {
    let other = plain
        && (matches!(text, "true" | "false" | "True" | "False" | "TRUE" | "FALSE")
            || float(text).is_some());
    if other {
        return Err(format!("expected a string, found {}; put it in quotes", node.describe()));
    }
    Ok(Scalar::Bytes(text.as_bytes().to_vec()))
}

fn enumeration(node: &Node, text: &str, values: Enum) -> Result<Scalar, String> {
    if let Some(number) = values.number_of(text) {
        return Ok(varint(number.into()));
    }
    if let Some(number) = integer(text, i32::MIN.into(), i32::MAX.into()) {
        return Ok(varint(number));
    }
    let mut message = format!("{} is no value of {}", node.describe(), values.name());
    match closest(text, values.values().map(|(name, _)| name)) {
        Some(name) => message.push_str(&format!(", did you mean `{name}`?")),
        None => {
            let names: Vec<_> = values.values().map(|(name, _)| name).collect();
            message.push_str(&format!("; its values are {}", names.join(", ")));
        }
    }
    Err(message)
}

fn expected(kind: Kind) -> String {
    match kind {
        Kind::String => "a string".to_owned(),
        Kind::Bytes => "base64 text".to_owned(),
        Kind::Bool => "true or false".to_owned(),
        Kind::Int32 | Kind::Sint32 => format!("a whole number from {} to {}", i32::MIN, i32::MAX),
        Kind::Int64 | Kind::Sint64 => "a whole number".to_owned(),
        Kind::Uint32 | Kind::Fixed32 => format!("a whole number from 0 to {}", u32::MAX),
        Kind::Uint64 | Kind::Fixed64 => "a whole number from 0".to_owned(),
        Kind::Float | Kind::Double => "a number".to_owned(),
        Kind::Enum(values) => format!("a value of {}", values.name()),
        Kind::Message(message) => format!("an object ({})", message.name()),
    }
}

fn varint(number: i128) -> Scalar {
    Scalar::Varint(number as u64)
}

fn zigzag(number: i128) -> Scalar {
    let number = number as i64;
    Scalar::Varint((number << 1 ^ number >> 63).cast_unsigned())
}

/// A boolean as Envoy's YAML reader knows it.
pub fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" | "y" | "Y" => {
            Some(true)
        }
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" | "n" | "N" => {
            Some(false)
        }
        _ => None,
    }
}

/// A whole number within bounds; `1e3` and `2.0` are whole too.
fn integer(text: &str, min: i128, max: i128) -> Option<i128> {
    let number = match text.strip_prefix("0x") {
        Some(hex) => i128::from_str_radix(hex, 16).ok()?,
        None => match text.parse::<i128>() {
            Ok(number) => number,
            Err(_) => {
                let number = float(text)?;
                if number.fract() != 0.0 || number.abs() > 9.0e15 {
                    return None;
                }
                number as i128
            }
        },
    };
    (min..=max).contains(&number).then_some(number)
}

/// A number, or one of JSON's names for the special ones.
pub fn float(text: &str) -> Option<f64> {
    match text {
        "NaN" | ".nan" | ".NaN" => Some(f64::NAN),
        "Infinity" | ".inf" => Some(f64::INFINITY),
        "-Infinity" | "-.inf" => Some(f64::NEG_INFINITY),
        _ if text.starts_with(|first: char| {
            first.is_ascii_digit() || matches!(first, '-' | '+' | '.')
        }) =>
        {
            text.parse().ok()
        }
        _ => None,
    }
}

/// Base64 of either alphabet, padded or not; line breaks count for nothing.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let config =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let text: String = text
        .chars()
        .filter(|letter| !letter.is_ascii_whitespace())
        .map(|letter| match letter {
            '-' => '+',
            '_' => '/',
            other => other,
        })
        .collect();
    GeneralPurpose::new(&base64::alphabet::STANDARD, config).decode(text).ok()
}

/// `1.5s` → seconds and nanoseconds, of the same sign.
pub fn duration(text: &str) -> Option<(i64, i32)> {
    const LIMIT: i64 = 315_576_000_000;
    let number = text.strip_suffix('s')?;
    let (negative, number) = match number.strip_prefix('-') {
        Some(number) => (true, number),
        None => (false, number),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() && fraction.is_empty()
        || !digits(whole)
        || !digits(fraction)
        || fraction.len() > 9
    {
        return None;
    }
    let seconds: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let nanos: i32 = format!("{fraction:0<9}").parse().ok()?;
    if seconds > LIMIT {
        return None;
    }
    Some(if negative { (-seconds, -nanos) } else { (seconds, nanos) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Schema;
    use crate::text::tree::parse;

    fn read_text(text: &str, kind: Kind) -> Result<Scalar, String> {
        read(&parse(text, 0).unwrap(), kind)
    }

    #[test]
    fn scalars() {
        let bytes = |text: &str| Ok(Scalar::Bytes(text.as_bytes().to_vec()));
        for (text, kind, value) in [
            ("abc", Kind::String, bytes("abc")),
            ("'1'", Kind::String, bytes("1")),
            ("on", Kind::String, bytes("on")),
            ("YWJj", Kind::Bytes, bytes("abc")),
            ("true", Kind::Bool, Ok(Scalar::Varint(1))),
            ("off", Kind::Bool, Ok(Scalar::Varint(0))),
            ("-1", Kind::Int32, Ok(Scalar::Varint(u64::MAX))),
            ("'7'", Kind::Uint64, Ok(Scalar::Varint(7))),
            ("1e3", Kind::Uint32, Ok(Scalar::Varint(1000))),
            ("0x10", Kind::Uint32, Ok(Scalar::Varint(16))),
            ("-2", Kind::Sint64, Ok(Scalar::Varint(3))),
            ("0.5", Kind::Double, Ok(Scalar::Fixed64(0.5f64.to_bits()))),
        ] {
            assert_eq!(read_text(text, kind), value, "{text} as {kind:?}");
        }
    }

    #[test]
    fn bad_scalars_say_what_was_expected() {
        let protocol = Schema::new().message("envoy.config.core.v3.SocketAddress").unwrap();
        let protocol = protocol.field_by_name("protocol").unwrap().kind();
        for (text, kind, message) in [
            ("12", Kind::String, "expected a string, found `12`; put it in quotes"),
            ("'true'", Kind::Bool, "expected true or false, found the string \"true\""),
            (
                "4294967296",
                Kind::Uint32,
                "expected a whole number from 0 to 4294967295, found `4294967296`",
            ),
            (
                "1.5",
                Kind::Int32,
                "expected a whole number from -2147483648 to 2147483647, found `1.5`",
            ),
            ("[1]", Kind::Bool, "expected true or false, found a list"),
            ("%%", Kind::Bytes, "expected base64 text, found `%%`"),
            (
                "udp",
                protocol,
                "`udp` is no value of envoy.config.core.v3.SocketAddress.Protocol, did you mean `UDP`?",
            ),
        ] {
            let text = if text == "%%" { "'%%'" } else { text };
            let message = message.replace("`%%`", "the string \"%%\"");
            assert_eq!(read_text(text, kind).unwrap_err(), message);
        }
    }

    #[test]
    fn durations() {
        assert_eq!(duration("1.5s"), Some((1, 500_000_000)));
        assert_eq!(duration("-.25s"), Some((0, -250_000_000)));
        assert_eq!(duration("0s"), Some((0, 0)));
        for bad in ["5", "s", "5m", "1.s5", "1,5s", "+1s", "1.0000000001s", "999999999999s"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }
}
