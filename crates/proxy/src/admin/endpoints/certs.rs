//! `/certs`: `admin.v3.Certificates`.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use super::super::CertificateStatus;
use super::{AdminContext, Endpoint, Query, Reply};
use crate::stream_info::CertificateInfo;

pub(super) const ENDPOINT: Endpoint = Endpoint {
    path: "/certs",
    changes: false,
    help: "print certs on machine",
    parameters: &[],
    handle,
};

fn handle(context: &AdminContext, _: &Query) -> Reply {
    let certificates: Vec<Value> = context.state.certificates().iter().map(contextual).collect();
    Reply::json(&json!({"certificates": certificates}))
}

fn contextual(status: &CertificateStatus) -> Value {
    let all = |list: &[(CertificateInfo, Option<std::path::PathBuf>)]| -> Value {
        list.iter().map(|(info, path)| certificate(info, path.as_deref())).collect()
    };
    json!({"ca_cert": all(&status.authorities), "cert_chain": all(&status.chain)})
}

fn certificate(info: &CertificateInfo, path: Option<&Path>) -> Value {
    let name = |kind: &str, value: String| {
        Value::Object(Map::from_iter([(kind.to_owned(), json!(value))]))
    };
    let names = (info.uri_sans.iter().map(|uri| name("uri", uri.clone())))
        .chain(info.dns_sans.iter().map(|dns| name("dns", dns.clone())))
        .chain(info.ip_sans.iter().map(|ip| name("ip_address", ip.to_string())));
    json!({
        "path": path.map_or_else(|| "<inline>".to_owned(), |path| path.display().to_string()),
        "serial_number": info.serial,
        "subject_alt_names": names.collect::<Vec<_>>(),
        "days_until_expiration": days_until(info.not_after).to_string(),
        "valid_from": timestamp(info.not_before),
        "expiration_time": timestamp(info.not_after),
    })
}

/// Whole days until a moment in seconds since the epoch; 0 when it is past.
pub fn days_until(unix: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs() as i64);
    (unix - now).max(0) / 86_400
}

/// RFC 3339 in UTC.
fn timestamp(unix: i64) -> Option<String> {
    jiff::Timestamp::from_second(unix).ok().map(|time| time.to_string())
}
