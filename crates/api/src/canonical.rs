//! One encoding for each configuration, so that equal ones have equal bytes: protobuf's own has no order of maps and
//! fields.

use prost::Message as _;

use crate::google::protobuf::Any;
use crate::schema::{Field, Kind, Message, Schema, WellKnown};
use crate::wire::{Fields, Value, put_bytes, put_value};

/// The canonical encoding of the message in `bytes`: fields by number, maps by key, also within every `Any`. Unknown
/// fields keep their place at the end; what is malformed stays as it is.
pub fn encode(schema: &Schema, message: Message, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    if append(schema, message, bytes, &mut out).is_none() {
        out.clear();
        out.extend_from_slice(bytes);
    }
    out
}

fn append(schema: &Schema, message: Message, bytes: &[u8], out: &mut Vec<u8>) -> Option<()> {
    if message.well_known() == Some(WellKnown::Any) {
        return append_any(schema, bytes, out);
    }
    let mut fields: Vec<(u32, Value<'_>)> = Fields::new(bytes).collect::<Result<_, _>>().ok()?;
    let order = |number: u32| (message.field_by_number(number).is_none(), number);
    // Stable: the items of a list keep their order.
    fields.sort_by_key(|(number, _)| order(*number));
    let mut rest = &fields[..];
    while let Some((number, _)) = rest.first() {
        let end = rest.iter().position(|(other, _)| other != number).unwrap_or(rest.len());
        let (same, others) = rest.split_at(end);
        rest = others;
        match message.field_by_number(*number) {
            Some(field) => append_field(schema, field, same, out)?,
            None => same.iter().for_each(|(number, value)| put_value(out, *number, *value)),
        }
    }
    Some(())
}

fn append_field(
    schema: &Schema,
    field: Field,
    values: &[(u32, Value<'_>)],
    out: &mut Vec<u8>,
) -> Option<()> {
    let number = field.number();
    if field.is_map() {
        let mut entries = Vec::with_capacity(values.len());
        for (_, entry) in values {
            entries.push(map_entry(schema, field, entry.bytes())?);
        }
        entries.sort();
        entries.iter().for_each(|entry| put_bytes(out, number, entry));
        return Some(());
    }
    let Kind::Message(message) = field.kind() else {
        values.iter().for_each(|(_, value)| put_value(out, number, *value));
        return Some(());
    };
    let mut inner = Vec::new();
    if field.is_repeated() {
        for (_, value) in values {
            inner.clear();
            append(schema, message, value.bytes(), &mut inner)?;
            put_bytes(out, number, &inner);
        }
    } else if let [(_, value)] = values {
        append(schema, message, value.bytes(), &mut inner)?;
        put_bytes(out, number, &inner);
    } else {
        // A message in several parts is their concatenation.
        let whole: Vec<u8> = values.iter().flat_map(|(_, value)| value.bytes()).copied().collect();
        append(schema, message, &whole, &mut inner)?;
        put_bytes(out, number, &inner);
    }
    Some(())
}

fn map_entry(schema: &Schema, field: Field, entry: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(entry.len());
    let mut parts: Vec<(u32, Value<'_>)> = Fields::new(entry).collect::<Result<_, _>>().ok()?;
    parts.sort_by_key(|(number, _)| *number);
    for (number, value) in parts {
        match field.kind() {
            Kind::Message(message) if number == 2 => {
                let mut inner = Vec::new();
                append(schema, message, value.bytes(), &mut inner)?;
                put_bytes(&mut out, 2, &inner);
            }
            _ => put_value(&mut out, number, value),
        }
    }
    Some(out)
}

fn append_any(schema: &Schema, bytes: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let any = Any::decode(bytes).ok()?;
    put_bytes(out, 1, any.type_url.as_bytes());
    match schema.message_of_type_url(&any.type_url) {
        Some(message) => {
            let mut inner = Vec::new();
            append(schema, message, &any.value, &mut inner)?;
            put_bytes(out, 2, &inner);
        }
        None => put_bytes(out, 2, &any.value),
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::{Sources, load};

    #[test]
    fn the_order_of_fields_and_maps_does_not_matter() {
        let schema = Schema::new();
        let cluster = schema.message("envoy.config.cluster.v3.Cluster").unwrap();
        let bytes = |yaml: &str| {
            let loaded = load(&schema, cluster, &Sources::one("test", yaml));
            assert_eq!(loaded.all_problems(), []);
            encode(&schema, cluster, &loaded.bytes)
        };
        let one =
            bytes("{name: c, type: EDS, metadata: {filter_metadata: {a: {x: 1, y: 2}, b: {}}}}");
        let same =
            bytes("{type: EDS, metadata: {filter_metadata: {b: {}, a: {y: 2, x: 1}}}, name: c}");
        let other =
            bytes("{name: c, type: EDS, metadata: {filter_metadata: {a: {x: 1, y: 3}, b: {}}}}");
        assert_eq!(one, same);
        assert_ne!(one, other);
    }
}
