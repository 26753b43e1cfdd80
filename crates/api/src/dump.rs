//! Wire bytes → JSON, as Envoy's `/config_dump` writes it: declared names, nothing that has its default value.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;
use serde_json::{Map, Number, Value as Json, json};

use crate::google::protobuf::{self, value};
use crate::schema::{Field, Kind, Message, Schema, WellKnown};
use crate::wire::{Fields, Value};

/// What stands for a sensitive value.
const REDACTED: &str = "[redacted]";

/// The JSON of the message in `bytes`. Keys and other sensitive values are redacted; what is malformed ends where it
/// is.
pub fn to_json(schema: &Schema, message: Message, bytes: &[u8]) -> Json {
    match message.well_known() {
        None => object(schema, message, bytes),
        Some(WellKnown::Any) => any(schema, bytes),
        Some(WellKnown::Wrapper) => {
            let Some(field) = message.field_by_number(1) else { return Json::Null };
            let value = Fields::new(bytes).flatten().last().map(|(_, value)| value);
            scalar(field.kind(), value.unwrap_or(Value::Varint(0)))
        }
        Some(WellKnown::Duration) => {
            let found = protobuf::Duration::decode(bytes).unwrap_or_default();
            duration(found.seconds, found.nanos).into()
        }
        Some(WellKnown::Timestamp) => {
            let found = protobuf::Timestamp::decode(bytes).unwrap_or_default();
            timestamp(found.seconds, found.nanos).into()
        }
        Some(WellKnown::Struct) => {
            free_object(&protobuf::Struct::decode(bytes).unwrap_or_default())
        }
        Some(WellKnown::Value) => free_value(&protobuf::Value::decode(bytes).unwrap_or_default()),
        Some(WellKnown::ListValue) => {
            let list = protobuf::ListValue::decode(bytes).unwrap_or_default();
            list.values.iter().map(free_value).collect()
        }
        Some(WellKnown::FieldMask) => {
            let paths: Vec<_> = Fields::new(bytes)
                .flatten()
                .map(|(_, value)| String::from_utf8_lossy(value.bytes()).into_owned())
                .collect();
            paths.join(",").into()
        }
    }
}

fn object(schema: &Schema, message: Message, bytes: &[u8]) -> Json {
    let mut fields: Vec<(Field, Vec<Value<'_>>)> = Vec::new();
    for (number, value) in Fields::new(bytes).flatten() {
        let Some(field) = message.field_by_number(number) else { continue };
        match fields.iter_mut().find(|(known, _)| *known == field) {
            Some((_, values)) => values.push(value),
            None => fields.push((field, vec![value])),
        }
    }
    fields.sort_by_key(|(field, _)| field.number());
    let mut out = Map::new();
    for (field, values) in fields {
        if let Some(json) = member(schema, field, &values) {
            out.insert(field.name().to_owned(), json);
        }
    }
    Json::Object(out)
}

fn member(schema: &Schema, field: Field, values: &[Value<'_>]) -> Option<Json> {
    if field.is_sensitive() {
        return Some(redacted(field, values));
    }
    if field.is_map() {
        return Some(map(schema, field, values));
    }
    if field.is_repeated() {
        let items = values.iter().flat_map(|value| unpacked(field.kind(), *value));
        return Some(items.map(|value| single(schema, field.kind(), value)).collect());
    }
    if let Kind::Message(message) = field.kind() {
        let whole: Vec<u8> = values.iter().flat_map(|value| value.bytes()).copied().collect();
        return Some(to_json(schema, message, &whole));
    }
    let value = *values.last()?;
    let is_default = match value {
        Value::Bytes(bytes) => bytes.is_empty(),
        other => other.number() == 0,
    };
    (field.has_presence() || !is_default).then(|| scalar(field.kind(), value))
}

fn redacted(field: Field, values: &[Value<'_>]) -> Json {
    match field.kind() {
        Kind::Bytes => STANDARD.encode(REDACTED).into(),
        // A data source keeps its shape, with the content gone.
        Kind::Message(message) if message.name() == "envoy.config.core.v3.DataSource" => {
            let bytes = values.last().map_or(&[][..], |value| value.bytes());
            let which = Fields::new(bytes)
                .flatten()
                .last()
                .and_then(|(number, _)| message.field_by_number(number));
            match which.map(Field::name) {
                Some("inline_bytes") => json!({ "inline_bytes": STANDARD.encode(REDACTED) }),
                Some(name) => json!({ name: REDACTED }),
                None => json!({}),
            }
        }
        _ => REDACTED.into(),
    }
}

fn map(schema: &Schema, field: Field, entries: &[Value<'_>]) -> Json {
    let mut pairs: Vec<(String, Json)> = Vec::new();
    for entry in entries {
        let (mut key, mut value) = (String::new(), None);
        for (number, part) in Fields::new(entry.bytes()).flatten() {
            match number {
                1 => {
                    key = match scalar(field.key_kind(), part) {
                        Json::String(text) => text,
                        other => other.to_string(),
                    }
                }
                _ => value = Some(single(schema, field.kind(), part)),
            }
        }
        let value = value.unwrap_or_else(|| single(schema, field.kind(), Value::Bytes(&[])));
        pairs.retain(|(known, _)| *known != key);
        pairs.push((key, value));
    }
    pairs.sort_by(|a, b| a.0.cmp(&b.0));
    Json::Object(pairs.into_iter().collect())
}

fn single(schema: &Schema, kind: Kind, value: Value<'_>) -> Json {
    match kind {
        Kind::Message(message) => to_json(schema, message, value.bytes()),
        _ => scalar(kind, value),
    }
}

/// The values of a list's entry: packed scalars come many in one.
fn unpacked(kind: Kind, value: Value<'_>) -> Vec<Value<'_>> {
    let Value::Bytes(mut bytes) = value else { return vec![value] };
    let mut out = Vec::new();
    match kind {
        Kind::String | Kind::Bytes | Kind::Message(_) => out.push(value),
        Kind::Double | Kind::Fixed64 => {
            out.extend(
                bytes
                    .as_chunks::<8>()
                    .0
                    .iter()
                    .map(|chunk| Value::Fixed64(u64::from_le_bytes(*chunk))),
            );
        }
        Kind::Float | Kind::Fixed32 => {
            out.extend(
                bytes
                    .as_chunks::<4>()
                    .0
                    .iter()
                    .map(|chunk| Value::Fixed32(u32::from_le_bytes(*chunk))),
            );
        }
        _ => {
            while let Ok(number) = prost::encoding::decode_varint(&mut bytes) {
                out.push(Value::Varint(number));
            }
        }
    }
    out
}

fn scalar(kind: Kind, value: Value<'_>) -> Json {
    let number = value.number();
    match kind {
        Kind::String => String::from_utf8_lossy(value.bytes()).into_owned().into(),
        Kind::Bytes => STANDARD.encode(value.bytes()).into(),
        Kind::Bool => (number != 0).into(),
        Kind::Int32 => (number as i32).into(),
        Kind::Uint32 | Kind::Fixed32 => (number as u32).into(),
        // 64-bit integers are text in protobuf's JSON.
        Kind::Int64 => (number as i64).to_string().into(),
        Kind::Uint64 | Kind::Fixed64 => number.to_string().into(),
        Kind::Sint32 => (unzigzag(number) as i32).into(),
        Kind::Sint64 => unzigzag(number).to_string().into(),
        Kind::Float => float(shortest(f32::from_bits(number as u32))),
        Kind::Double => float(f64::from_bits(number)),
        Kind::Enum(values) => {
            let number = number as i32;
            values.name_of(number).map_or_else(|| number.into(), Json::from)
        }
        Kind::Message(_) => Json::Null,
    }
}

/// The double that prints as the float does (0.1, not 0.10000000149).
fn shortest(number: f32) -> f64 {
    number.to_string().parse().unwrap_or_else(|_| number.into())
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -((number & 1).cast_signed())
}

/// Whole numbers print without a fraction.
fn float(number: f64) -> Json {
    if number.fract() == 0.0 && number.abs() < 9.0e15 {
        return (number as i64).into();
    }
    Number::from_f64(number).map_or_else(|| number.to_string().into(), Json::Number)
}

fn any(schema: &Schema, bytes: &[u8]) -> Json {
    let any = protobuf::Any::decode(bytes).unwrap_or_default();
    let mut out = Map::new();
    out.insert("@type".to_owned(), any.type_url.clone().into());
    let Some(message) = schema.message_of_type_url(&any.type_url) else {
        out.insert("value".to_owned(), STANDARD.encode(&any.value).into());
        return Json::Object(out);
    };
    match to_json(schema, message, &any.value) {
        Json::Object(members) if message.well_known().is_none() => out.extend(members),
        other => {
            out.insert("value".to_owned(), other);
        }
    }
    Json::Object(out)
}

fn free_object(object: &protobuf::Struct) -> Json {
    let mut members: Vec<_> = object.fields.iter().collect();
    members.sort_by_key(|(key, _)| *key);
    Json::Object(members.into_iter().map(|(key, value)| (key.clone(), free_value(value))).collect())
}

fn free_value(value: &protobuf::Value) -> Json {
    match &value.kind {
        None | Some(value::Kind::NullValue(_)) => Json::Null,
        Some(value::Kind::BoolValue(boolean)) => (*boolean).into(),
        Some(value::Kind::NumberValue(number)) => float(*number),
        Some(value::Kind::StringValue(text)) => text.clone().into(),
        Some(value::Kind::StructValue(object)) => free_object(object),
        Some(value::Kind::ListValue(list)) => list.values.iter().map(free_value).collect(),
    }
}

/// A duration as protobuf's JSON has it: 0, 3, 6 or 9 digits, `0.250s`.
pub fn duration(seconds: i64, nanos: i32) -> String {
    let sign = if seconds < 0 || nanos < 0 { "-" } else { "" };
    format!("{sign}{}{}s", seconds.unsigned_abs(), fraction(nanos.unsigned_abs()))
}

fn fraction(nanos: u32) -> String {
    match nanos {
        0 => String::new(),
        _ if nanos.is_multiple_of(1_000_000) => format!(".{:03}", nanos / 1_000_000),
        _ if nanos.is_multiple_of(1000) => format!(".{:06}", nanos / 1000),
        _ => format!(".{nanos:09}"),
    }
}

fn timestamp(seconds: i64, nanos: i32) -> String {
    let Ok(time) = jiff::Timestamp::new(seconds, 0) else { return String::new() };
    let whole = time.to_string();
    format!("{}{}Z", whole.trim_end_matches('Z'), fraction(nanos.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::{Sources, load};

    fn round_trip(message: &str, yaml: &str) -> Json {
        let schema = Schema::new();
        let message = schema.message(message).unwrap();
        let loaded = load(&schema, message, &Sources::one("test", yaml));
        assert_eq!(loaded.all_problems(), []);
        to_json(&schema, message, &loaded.bytes)
    }

    #[test]
    fn what_is_read_is_written_in_declared_names() {
        let yaml = "{name: c, connectTimeout: 0.25s, type: STRICT_DNS, perConnectionBufferLimitBytes: 1024,
            metadata: {filter_metadata: {envoy.lb: {a: 50000, b: 1.5, c: [true, null, x]}}},
            load_assignment: {cluster_name: c, endpoints: [{priority: 1}, {}]}}";
        assert_eq!(
            round_trip("envoy.config.cluster.v3.Cluster", yaml),
            json!({
                "name": "c",
                "type": "STRICT_DNS",
                "connect_timeout": "0.250s",
                "per_connection_buffer_limit_bytes": 1024,
                "metadata": {"filter_metadata": {"envoy.lb": {"a": 50000, "b": 1.5, "c": [true, null, "x"]}}},
                "load_assignment": {"cluster_name": "c", "endpoints": [{"priority": 1}, {}]},
            })
        );
    }

    #[test]
    fn secrets_are_redacted_and_any_is_opened() {
        let yaml = "{name: tls, typed_config: {common_tls_context: {tls_certificates: [
            {certificate_chain: {filename: a.pem}, private_key: {inline_string: secret}}]},
            '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext}}";
        assert_eq!(
            round_trip("envoy.config.core.v3.TransportSocket", yaml),
            json!({
                "name": "tls",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                    "common_tls_context": {"tls_certificates": [{
                        "certificate_chain": {"filename": "a.pem"},
                        "private_key": {"inline_string": "[redacted]"},
                    }]},
                },
            })
        );
    }

    #[test]
    fn times() {
        assert_eq!(duration(-1, -500_000_000), "-1.500s");
        assert_eq!(duration(3, 1000), "3.000001s");
        assert_eq!(timestamp(0, 5), "1970-01-01T00:00:00.000000005Z");
    }
}
