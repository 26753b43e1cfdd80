//! The constraints (`validate.rules`) on one field's values.

use std::cmp::Ordering;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use envoy_types::pb::validate::field_rules::Type;
use envoy_types::pb::validate::string_rules::WellKnown as Format;
use envoy_types::pb::validate::{
    AnyRules, BytesRules, DurationRules, EnumRules, FieldRules, MapRules, RepeatedRules,
    StringRules,
};
use prost::Message as _;

use crate::dump;
use crate::google::protobuf::{Any, Duration};
use crate::schema::{Field, Kind, WellKnown};
use crate::wire::{Fields, Value};

/// A broken rule: for an item of a list its index, and what is wrong.
pub type Broken = (Option<usize>, String);

/// The rules that the values of `field` break; `None` is a field that is not set.
pub fn broken(field: Field, rules: &FieldRules, values: Option<&[Value<'_>]>) -> Vec<Broken> {
    let required = rules.message.as_ref().is_some_and(|rules| rules.required());
    if required && values.is_none() {
        return vec![(None, format!("`{}` is required", field.name()))];
    }
    let Some(kind_rules) = &rules.r#type else { return Vec::new() };
    match kind_rules {
        Type::Repeated(rules) => repeated(field, rules, values.unwrap_or_default()),
        Type::Map(rules) => map(field, rules, values.unwrap_or_default()),
        _ => match values.and_then(<[_]>::last) {
            Some(value) => one(field.kind(), kind_rules, *value),
            None => absent(field, kind_rules),
        }
        .map(|text| vec![(None, text)])
        .unwrap_or_default(),
    }
}

/// A field that is not set has its default value, unless absence means something of its own.
fn absent(field: Field, rules: &Type) -> Option<String> {
    let required = match rules {
        Type::Duration(rules) => rules.required(),
        Type::Timestamp(rules) => rules.required(),
        Type::Any(rules) => rules.required(),
        _ => false,
    };
    if required {
        return Some(format!("`{}` is required", field.name()));
    }
    if field.has_presence() || matches!(field.kind(), Kind::Message(_)) {
        return None;
    }
    let default = match field.kind() {
        Kind::String | Kind::Bytes => Value::Bytes(&[]),
        Kind::Float | Kind::Fixed32 => Value::Fixed32(0),
        Kind::Double | Kind::Fixed64 => Value::Fixed64(0),
        _ => Value::Varint(0),
    };
    let broken = one(field.kind(), rules, default)?;
    let is_text = matches!(field.kind(), Kind::String | Kind::Bytes);
    Some(if is_text { format!("`{}` is required", field.name()) } else { broken })
}

fn repeated(field: Field, rules: &RepeatedRules, values: &[Value<'_>]) -> Vec<Broken> {
    let count = values.len() as u64;
    if count == 0 && rules.ignore_empty() {
        return Vec::new();
    }
    let mut broken = Vec::new();
    if let Some(text) = count_outside(count, rules.min_items, rules.max_items, "item") {
        let text = if count == 0 { format!("`{}` is required", field.name()) } else { text };
        broken.push((None, text));
    }
    if rules.unique() {
        let repeats = |index: &usize| values[..*index].contains(&values[*index]);
        let repeated = (0..values.len()).filter(repeats);
        broken.extend(repeated.map(|index| (Some(index), "is in the list already".to_owned())));
    }
    let Some(items) = &rules.items else { return broken };
    for (index, value) in values.iter().enumerate() {
        let text = items.r#type.as_ref().and_then(|rules| one(field.kind(), rules, *value));
        broken.extend(text.map(|text| (Some(index), text)));
    }
    broken
}

fn map(field: Field, rules: &MapRules, entries: &[Value<'_>]) -> Vec<Broken> {
    let count = entries.len() as u64;
    let mut broken = Vec::new();
    if let Some(text) = count_outside(count, rules.min_pairs, rules.max_pairs, "entry") {
        broken.push((None, text));
    }
    let of =
        |rules: &Option<Box<FieldRules>>| rules.as_ref().and_then(|rules| rules.r#type.clone());
    let (keys, values) = (of(&rules.keys), of(&rules.values));
    for entry in entries {
        for (number, value) in Fields::new(entry.bytes()).flatten() {
            let (kind, rules) =
                if number == 1 { (field.key_kind(), &keys) } else { (field.kind(), &values) };
            let text = rules.as_ref().and_then(|rules| one(kind, rules, value));
            broken.extend(text.map(|text| (None, text)));
        }
    }
    broken
}

fn count_outside(count: u64, min: Option<u64>, max: Option<u64>, noun: &str) -> Option<String> {
    let plural = |limit: u64| match (limit, noun) {
        (1, _) => noun.to_owned(),
        (_, "entry") => "entries".to_owned(),
        _ => format!("{noun}s"),
    };
    match (min, max) {
        (Some(min), _) if count < min => {
            Some(format!("needs at least {min} {}, has {count}", plural(min)))
        }
        (_, Some(max)) if count > max => {
            Some(format!("may have at most {max} {}, has {count}", plural(max)))
        }
        _ => None,
    }
}

/// What one value breaks.
fn one(kind: Kind, rules: &Type, value: Value<'_>) -> Option<String> {
    if let Kind::Message(message) = kind
        && message.well_known() == Some(WellKnown::Wrapper)
    {
        let inner = message.field_by_number(1)?;
        let default = match inner.kind() {
            Kind::String | Kind::Bytes => Value::Bytes(&[]),
            Kind::Double => Value::Fixed64(0),
            Kind::Float => Value::Fixed32(0),
            _ => Value::Varint(0),
        };
        let value = Fields::new(value.bytes()).flatten().last().map_or(default, |(_, value)| value);
        return one(inner.kind(), rules, value);
    }
    /// Rules on numbers have the same fields whatever the number.
    macro_rules! number {
        ($rules:expr, $value:expr) => {{
            let (rules, value) = ($rules, $value);
            let zero = value - value;
            if rules.ignore_empty() && value == zero {
                return None;
            }
            let bounds = Bounds { lt: rules.lt, lte: rules.lte, gt: rules.gt, gte: rules.gte };
            (rules.r#const.is_some_and(|only| only != value))
                .then(|| format!("must be {:?}", rules.r#const.unwrap_or_default()))
                .or_else(|| bounds.broken(value, |number| number.to_string()))
                .or_else(|| listed(&rules.r#in, &rules.not_in, &value, |number| number.to_string()))
        }};
    }
    match rules {
        Type::Float(rules) => number!(rules, f32::from_bits(value.number() as u32)),
        Type::Double(rules) => number!(rules, f64::from_bits(value.number())),
        Type::Int32(rules) => number!(rules, value.number() as i32),
        Type::Int64(rules) => number!(rules, value.number() as i64),
        Type::Uint32(rules) => number!(rules, value.number() as u32),
        Type::Uint64(rules) => number!(rules, value.number()),
        Type::Fixed32(rules) => number!(rules, value.number() as u32),
        Type::Fixed64(rules) => number!(rules, value.number()),
        Type::Bool(rules) => {
            let value = value.number() != 0;
            rules.r#const.filter(|only| *only != value).map(|only| format!("must be {only}"))
        }
        Type::String(rules) => string(rules, value.bytes()),
        Type::Bytes(rules) => bytes(rules, value.bytes()),
        Type::Enum(rules) => enumeration(rules, kind, value.number() as i32),
        Type::Duration(rules) => duration(rules, value.bytes()),
        Type::Any(rules) => any(rules, value.bytes()),
        // No configuration has rules of these kinds on a single value.
        Type::Sint32(_)
        | Type::Sint64(_)
        | Type::Sfixed32(_)
        | Type::Sfixed64(_)
        | Type::Timestamp(_) => None,
        Type::Repeated(_) | Type::Map(_) => None,
    }
}

/// Limits on an ordered value.
struct Bounds<T> {
    lt: Option<T>,
    lte: Option<T>,
    gt: Option<T>,
    gte: Option<T>,
}

impl<T: PartialOrd + Copy> Bounds<T> {
    /// Bounds that cross (`lt` ≤ `gt`) exclude what is between them; no configuration has such.
    fn broken(&self, value: T, show: impl Fn(T) -> String) -> Option<String> {
        let is = |limit: Option<T>, fits: fn(Ordering) -> bool| {
            limit.is_none_or(|limit| value.partial_cmp(&limit).is_some_and(fits))
        };
        let fits = is(self.lt, Ordering::is_lt)
            && is(self.lte, Ordering::is_le)
            && is(self.gt, Ordering::is_gt)
            && is(self.gte, Ordering::is_ge);
        if fits {
            return None;
        }
        let limits = [
            self.gt.map(|limit| format!("greater than {}", show(limit))),
            self.gte.map(|limit| format!("at least {}", show(limit))),
            self.lt.map(|limit| format!("less than {}", show(limit))),
            self.lte.map(|limit| format!("at most {}", show(limit))),
        ];
        let limits: Vec<_> = limits.into_iter().flatten().collect();
        Some(format!("must be {}, is {}", limits.join(" and "), show(value)))
    }
}

fn listed<T: PartialEq>(
    only: &[T],
    never: &[T],
    value: &T,
    show: impl Fn(&T) -> String,
) -> Option<String> {
    if !only.is_empty() && !only.contains(value) {
        let only: Vec<_> = only.iter().map(&show).collect();
        return Some(format!("must be one of {}, is {}", only.join(", "), show(value)));
    }
    never.contains(value).then(|| format!("must not be {}", show(value)))
}

fn string(rules: &StringRules, value: &[u8]) -> Option<String> {
    let Ok(text) = std::str::from_utf8(value) else { return Some("is not UTF-8".to_owned()) };
    if text.is_empty() && rules.ignore_empty() {
        return None;
    }
    let characters = text.chars().count() as u64;
    let bytes = text.len() as u64;
    let affix = |wanted: &Option<String>, has: fn(&str, &str) -> bool, what: &str| {
        wanted
            .as_deref()
            .filter(|wanted| !has(text, wanted))
            .map(|wanted| format!("must {what} `{wanted}`"))
    };
    if characters == 0 && (rules.min_len() > 0 || rules.min_bytes() > 0) {
        return Some("must not be empty".to_owned());
    }
    let only = rules
        .r#const
        .as_deref()
        .filter(|only| *only != text)
        .map(|only| format!("must be `{only}`"));
    only.or_else(|| {
        count_outside(
            characters,
            rules.len.or(rules.min_len),
            rules.len.or(rules.max_len),
            "character",
        )
    })
    .or_else(|| {
        let exact = rules.len_bytes;
        count_outside(bytes, exact.or(rules.min_bytes), exact.or(rules.max_bytes), "byte")
    })
    .or_else(|| affix(&rules.prefix, |text, prefix| text.starts_with(prefix), "begin with"))
    .or_else(|| affix(&rules.suffix, |text, suffix| text.ends_with(suffix), "end with"))
    .or_else(|| affix(&rules.contains, |text, part| text.contains(part), "contain"))
    .or_else(|| affix(&rules.not_contains, |text, part| !text.contains(part), "not contain"))
    .or_else(|| listed(&rules.r#in, &rules.not_in, &text.to_owned(), |text| format!("`{text}`")))
    .or_else(|| rules.pattern.as_deref().and_then(|pattern| against_pattern(pattern, text)))
    .or_else(|| format(rules, text))
}

fn against_pattern(pattern: &str, text: &str) -> Option<String> {
    let regex = regex_automata::meta::Regex::new(pattern).ok()?;
    (!regex.is_match(text)).then(|| format!("must match `{pattern}`"))
}

fn format(rules: &StringRules, text: &str) -> Option<String> {
    let strict = rules.strict.unwrap_or(true);
    let (fits, what) = match rules.well_known.as_ref()? {
        Format::Ip(true) => (text.parse::<IpAddr>().is_ok(), "an IP address"),
        Format::Ipv4(true) => (text.parse::<Ipv4Addr>().is_ok(), "an IPv4 address"),
        Format::Ipv6(true) => (text.parse::<Ipv6Addr>().is_ok(), "an IPv6 address"),
        Format::Hostname(true) => (is_host_name(text), "a host name"),
        Format::Address(true) => {
            (is_host_name(text) || text.parse::<IpAddr>().is_ok(), "a host name or an IP address")
        }
        Format::Uri(true) => (is_uri(text), "a URI"),
        Format::WellKnownRegex(1) => (is_header_name(text, strict), "a header name"),
        Format::WellKnownRegex(2) => (is_header_value(text, strict), "a header value"),
        _ => return None,
    };
    (!fits).then(|| format!("must be {what}, is {text:?}"))
}

fn is_host_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let text = text.strip_suffix('.').unwrap_or(text);
    text.len() <= 253 && text.split('.').all(label)
}

fn is_uri(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once(':') else { return false };
    scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
        && !rest.is_empty()
        && !rest.bytes().any(|byte| byte.is_ascii_control() || byte == b' ')
}

fn is_header_name(text: &str, strict: bool) -> bool {
    if !strict {
        return !text.contains(['\0', '\n', '\r']);
    }
    let name = text.strip_prefix(':').unwrap_or(text);
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_|~`".contains(&byte))
}

fn is_header_value(text: &str, strict: bool) -> bool {
    if strict {
        text.bytes().all(|byte| byte == b'\t' || !byte.is_ascii_control())
    } else {
        !text.contains(['\0', '\n', '\r'])
    }
}

fn bytes(rules: &BytesRules, value: &[u8]) -> Option<String> {
    if value.is_empty() && rules.ignore_empty() {
        return None;
    }
    let len = value.len() as u64;
    count_outside(len, rules.len.or(rules.min_len), rules.len.or(rules.max_len), "byte")
}

fn enumeration(rules: &EnumRules, kind: Kind, number: i32) -> Option<String> {
    let Kind::Enum(values) = kind else { return None };
    let name =
        |number: &i32| values.name_of(*number).map_or_else(|| number.to_string(), str::to_owned);
    if rules.defined_only() && values.name_of(number).is_none() {
        return Some(format!("{number} is no value of {}", values.name()));
    }
    let only =
        rules.r#const.filter(|only| *only != number).map(|only| format!("must be {}", name(&only)));
    only.or_else(|| listed(&rules.r#in, &rules.not_in, &number, name))
}

fn duration(rules: &DurationRules, value: &[u8]) -> Option<String> {
    let pair = |duration: &Duration| (duration.seconds, duration.nanos);
    let value = Duration::decode(value).ok()?;
    let limit = |limit: &Option<Duration>| limit.as_ref().map(pair);
    let show = |(seconds, nanos): (i64, i32)| dump::duration(seconds, nanos);
    let bounds = Bounds {
        lt: limit(&rules.lt),
        lte: limit(&rules.lte),
        gt: limit(&rules.gt),
        gte: limit(&rules.gte),
    };
    bounds.broken(pair(&value), show)
}

fn any(rules: &AnyRules, value: &[u8]) -> Option<String> {
    let any = Any::decode(value).ok()?;
    listed(&rules.r#in, &rules.not_in, &any.type_url, |type_url| format!("`{type_url}`"))
}
