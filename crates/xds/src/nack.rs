//! How a client says which resources of a response it rejected, and how a server reads it.
//!
//! The protocol's NACK carries one `google.rpc.Status` for a whole response. Our clients add one
//! `envoy.service.discovery.v3.ResourceError` per rejected resource to its details; Envoy names them in its message only
//! (`Error adding/updating cluster(s) a: <why>, b: <why>`).

use std::sync::Arc;

use api::envoy::service::discovery::v3::{ResourceError, ResourceName};
use api::google::protobuf::Any;
use api::google::rpc::Status;
use prost::{Message, Name};

/// `INVALID_ARGUMENT` of gRPC: what a client that rejects a configuration answers.
const INVALID_ARGUMENT: i32 = 3;

/// One resource of a response that the client did not apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The resource's name.
    pub name: Arc<str>,
    /// Why, with the path of the field inside the resource.
    pub reason: String,
}

/// The error detail of a request that rejects these resources of a response.
pub fn to_status(rejections: &[Rejection]) -> Status {
    let message = rejections
        .iter()
        .map(|r| format!("{}: {}", r.name, r.reason))
        .collect::<Vec<_>>()
        .join(", ");
    Status { code: INVALID_ARGUMENT, message, details: rejections.iter().map(detail).collect() }
}

fn detail(rejection: &Rejection) -> Any {
    let error = ResourceError {
        resource_name: Some(ResourceName {
            name: rejection.name.to_string(),
            ..Default::default()
        }),
        error_detail: Some(Status {
            code: INVALID_ARGUMENT,
            message: rejection.reason.clone(),
            details: Vec::new(),
        }),
    };
    Any { type_url: ResourceError::type_url(), value: error.encode_to_vec() }
}

/// Which of the resources that were sent a NACK rejects. If it names none of them, all are rejected: the client has
/// said no, and has not said to what.
pub fn from_status<'a>(
    status: &Status,
    sent: impl Iterator<Item = &'a Arc<str>> + Clone,
) -> Vec<Rejection> {
    let mut named: Vec<Rejection> =
        status.details.iter().filter_map(|detail| read_detail(detail, sent.clone())).collect();
    if named.is_empty() {
        let whole =
            |name: &Arc<str>| Rejection { name: name.clone(), reason: status.message.clone() };
        named = sent.clone().filter(|name| is_named_in(&status.message, name)).map(whole).collect();
        if named.is_empty() {
            named = sent.map(whole).collect();
        }
    }
    named
}

fn read_detail<'a>(
    detail: &Any,
    mut sent: impl Iterator<Item = &'a Arc<str>>,
) -> Option<Rejection> {
    if detail.type_url != ResourceError::type_url() {
        return None;
    }
    let error = ResourceError::decode(detail.value.as_slice()).ok()?;
    let name = error.resource_name?.name;
    let name = sent.find(|known| known.as_ref() == name)?.clone();
    Some(Rejection {
        name,
        reason: error.error_detail.map(|status| status.message).unwrap_or_default(),
    })
}

/// Whether `message` has `name` followed by a colon, not as the tail of a longer name.
fn is_named_in(message: &str, name: &str) -> bool {
    message.match_indices(name).any(|(at, _)| {
        let starts = message[..at]
            .chars()
            .next_back()
            .is_none_or(|before| before.is_whitespace() || before == '\'');
        let rest = message[at + name.len()..].trim_start_matches('\'');
        starts && rest.starts_with(':')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<Arc<str>> {
        list.iter().map(|name| Arc::from(*name)).collect()
    }

    #[test]
    fn our_own_nack_names_each_resource_with_its_reason() {
        let sent = names(&["a", "b", "c"]);
        let rejections = vec![
            Rejection { name: "a".into(), reason: "connect_timeout: must be above 0".into() },
            Rejection { name: "c".into(), reason: "b: is not supported".into() },
        ];
        assert_eq!(from_status(&to_status(&rejections), sent.iter()), rejections);
    }

    #[test]
    fn a_client_cannot_blame_what_it_was_not_sent() {
        let sent = names(&["a"]);
        let stranger = [Rejection { name: "zzz".into(), reason: "no".into() }];
        let read = from_status(&to_status(&stranger), sent.iter());
        assert_eq!(read.iter().map(|r| r.name.as_ref()).collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn envoys_message_is_read_by_whole_names() {
        let table: [(&str, &[&str]); 4] = [
            (
                "Error adding/updating cluster(s) outbound|80||a: unknown, outbound|80||c: bad",
                &["outbound|80||a", "outbound|80||c"],
            ),
            (
                "Error adding/updating listener(s) x-outbound|80||a: unknown",
                &["outbound|80||a", "80||a", "outbound|80||c"],
            ),
            ("Proto constraint validation failed", &["outbound|80||a", "80||a", "outbound|80||c"]),
            ("", &["outbound|80||a", "80||a", "outbound|80||c"]),
        ];
        let sent = names(&["outbound|80||a", "80||a", "outbound|80||c"]);
        for (message, expected) in table {
            let status = Status { code: 13, message: message.into(), details: Vec::new() };
            let read = from_status(&status, sent.iter());
            assert_eq!(
                read.iter().map(|r| r.name.as_ref()).collect::<Vec<_>>(),
                expected,
                "{message}"
            );
        }
    }
}
