//! Deterministic protobuf: equal messages have equal bytes, although protobuf maps here are hash maps.
//!
//! A resource's version is the hash of its bytes, so the bytes must not depend on a hash map's seed. Protobuf writes a
//! map as a run of entry messages; this module puts those runs in the order of their keys. It knows where maps are by
//! the static [`Shape`]s of the few messages this control plane emits maps in, and copies everything else as it is.

use api::google::protobuf::Any;
use prost::{Message, Name};

/// Where the maps are in a message type: its fields that are maps or contain maps.
struct Shape(&'static [(u32, Field)]);

enum Field {
    /// A singular or repeated message that has maps further down.
    Message(&'static Shape),
    /// A map whose values are messages of this shape.
    Map(&'static Shape),
}

static NO_MAPS: Shape = Shape(&[]);
static STRUCT: Shape = Shape(&[(1, Field::Map(&VALUE))]);
static VALUE: Shape = Shape(&[(5, Field::Message(&STRUCT)), (6, Field::Message(&LIST_VALUE))]);
static LIST_VALUE: Shape = Shape(&[(1, Field::Message(&VALUE))]);
static METADATA: Shape = Shape(&[(1, Field::Map(&STRUCT))]);
static TRANSPORT_SOCKET_MATCH: Shape = Shape(&[(2, Field::Message(&STRUCT))]);
static CLUSTER: Shape = Shape(&[
    (25, Field::Message(&METADATA)),
    (33, Field::Message(&LOAD_ASSIGNMENT)),
    (36, Field::Map(&NO_MAPS)),
    (43, Field::Message(&TRANSPORT_SOCKET_MATCH)),
]);
static LOAD_ASSIGNMENT: Shape = Shape(&[(2, Field::Message(&LOCALITY_ENDPOINTS))]);
static LOCALITY_ENDPOINTS: Shape = Shape(&[(2, Field::Message(&LB_ENDPOINT))]);
static LB_ENDPOINT: Shape = Shape(&[(3, Field::Message(&METADATA))]);
static ROUTE_CONFIGURATION: Shape =
    Shape(&[(2, Field::Message(&VIRTUAL_HOST)), (16, Field::Map(&NO_MAPS))]);
static VIRTUAL_HOST: Shape = Shape(&[(3, Field::Message(&ROUTE)), (15, Field::Map(&NO_MAPS))]);
static ROUTE: Shape = Shape(&[(4, Field::Message(&METADATA)), (13, Field::Map(&NO_MAPS))]);
static LISTENER: Shape =
    Shape(&[(3, Field::Message(&FILTER_CHAIN)), (6, Field::Message(&METADATA))]);
static FILTER_CHAIN: Shape = Shape(&[(5, Field::Message(&METADATA))]);
static HTTP_CONNECTION_MANAGER: Shape = Shape(&[(4, Field::Message(&ROUTE_CONFIGURATION))]);
static ACCESS_LOG: Shape =
    Shape(&[(4, Field::Message(&STRUCT)), (5, Field::Message(&SUBSTITUTION_FORMAT))]);
static SUBSTITUTION_FORMAT: Shape = Shape(&[(2, Field::Message(&STRUCT))]);

fn shape_of(type_name: &str) -> &'static Shape {
    match type_name {
        "envoy.config.cluster.v3.Cluster" => &CLUSTER,
        "envoy.config.endpoint.v3.ClusterLoadAssignment" => &LOAD_ASSIGNMENT,
        "envoy.config.route.v3.RouteConfiguration" => &ROUTE_CONFIGURATION,
        "envoy.config.route.v3.VirtualHost" => &VIRTUAL_HOST,
        "envoy.config.listener.v3.Listener" => &LISTENER,
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager" => {
            &HTTP_CONNECTION_MANAGER
        }
        "envoy.extensions.access_loggers.file.v3.FileAccessLog" => &ACCESS_LOG,
        "google.protobuf.Struct" => &STRUCT,
        _ => &NO_MAPS,
    }
}

/// The deterministic bytes of a message.
pub fn encode<M: Message + Name>(message: &M) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    let shape = shape_of(&M::full_name());
    if shape.0.is_empty() {
        return bytes;
    }
    let mut ordered = Vec::with_capacity(bytes.len());
    order(&bytes, shape, &mut ordered);
    ordered
}

/// The message in an `Any`, its bytes deterministic.
pub fn pack<M: Message + Name>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: encode(message) }
}

/// One field of an encoded message: its number and the bytes of the whole field, and of its payload if it has a length.
struct Record<'a> {
    number: u32,
    whole: &'a [u8],
    payload: Option<&'a [u8]>,
}

fn order(message: &[u8], shape: &Shape, out: &mut Vec<u8>) {
    let records = Records(message).collect::<Vec<_>>();
    let mut rest = records.as_slice();
    while let Some(first) = rest.first() {
        let field =
            shape.0.iter().find(|(number, _)| *number == first.number).map(|(_, field)| field);
        match (field, first.payload) {
            (Some(Field::Map(value)), Some(_)) => {
                let run = rest.iter().take_while(|record| record.number == first.number).count();
                write_map(&rest[..run], value, out);
                rest = &rest[run..];
                continue;
            }
            (Some(Field::Message(inner)), Some(payload)) => {
                let mut ordered = Vec::with_capacity(payload.len());
                order(payload, inner, &mut ordered);
                write_length_delimited(first.number, &ordered, out);
            }
            _ => out.extend_from_slice(first.whole),
        }
        rest = &rest[1..];
    }
}

fn write_map(entries: &[Record<'_>], value_shape: &Shape, out: &mut Vec<u8>) {
    let mut sorted: Vec<(&[u8], &[u8])> = entries
        .iter()
        .filter_map(|entry| entry.payload)
        .map(|entry| {
            let key =
                Records(entry).find(|field| field.number == 1).and_then(|field| field.payload);
            (key.unwrap_or_default(), entry)
        })
        .collect();
    sorted.sort_unstable_by_key(|(key, _)| *key);
    let entry_shape_is_plain = value_shape.0.is_empty();
    for (_, entry) in sorted {
        let number = entries[0].number;
        if entry_shape_is_plain {
            write_length_delimited(number, entry, out);
            continue;
        }
        let mut ordered = Vec::with_capacity(entry.len());
        for field in Records(entry) {
            match field.payload {
                Some(payload) if field.number == 2 => {
                    let mut value = Vec::with_capacity(payload.len());
                    order(payload, value_shape, &mut value);
                    write_length_delimited(2, &value, &mut ordered);
                }
                _ => ordered.extend_from_slice(field.whole),
            }
        }
        write_length_delimited(number, &ordered, out);
    }
}

fn write_length_delimited(number: u32, payload: &[u8], out: &mut Vec<u8>) {
    prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, out);
    prost::encoding::encode_varint(payload.len() as u64, out);
    out.extend_from_slice(payload);
}

/// The fields of a message this process encoded itself; malformed bytes end the walk.
struct Records<'a>(&'a [u8]);

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        let start = self.0;
        let mut rest = start;
        let key = varint(&mut rest)?;
        let number = (key >> 3) as u32;
        let payload = match key & 7 {
            0 => {
                varint(&mut rest)?;
                None
            }
            1 => {
                rest = rest.get(8..)?;
                None
            }
            2 => {
                let length = varint(&mut rest)? as usize;
                let payload = rest.get(..length)?;
                rest = &rest[length..];
                Some(payload)
            }
            5 => {
                rest = rest.get(4..)?;
                None
            }
            _ => return None,
        };
        self.0 = rest;
        Some(Record { number, whole: &start[..start.len() - rest.len()], payload })
    }
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    prost::encoding::decode_varint(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::envoy::config::cluster::v3::Cluster;
    use api::envoy::config::core::v3::Metadata;
    use api::google::protobuf::{ListValue, Struct, Value, value::Kind};

    fn nested(depth: usize) -> Struct {
        let mut fields = std::collections::HashMap::new();
        for name in ["delta", "alpha", "charlie", "bravo"] {
            let kind = match depth {
                0 => Kind::StringValue(name.to_owned()),
                _ if name == "bravo" => Kind::ListValue(ListValue {
                    values: vec![Value { kind: Some(Kind::StructValue(nested(depth - 1))) }],
                }),
                _ => Kind::StructValue(nested(depth - 1)),
            };
            fields.insert(name.to_owned(), Value { kind: Some(kind) });
        }
        Struct { fields }
    }

    #[test]
    fn maps_come_out_in_the_order_of_their_keys_whatever_the_seed() {
        let cluster = || Cluster {
            name: "outbound|80||a".to_owned(),
            metadata: Some(Metadata {
                filter_metadata: ["istio", "a", "z"].map(|key| (key.to_owned(), nested(2))).into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let first = encode(&cluster());
        for _ in 0..20 {
            assert_eq!(encode(&cluster()), first);
        }
        assert_eq!(Cluster::decode(first.as_slice()).expect("still a cluster"), cluster());
    }
}
