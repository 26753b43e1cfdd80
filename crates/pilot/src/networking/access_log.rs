//! Access logs: Istio's default text format to the file that the mesh configuration names.

use api::envoy::config::accesslog::v3::{
    AccessLog, AccessLogFilter, ResponseFlagFilter, access_log, access_log_filter::FilterSpecifier,
};
use api::envoy::config::core::v3::{
    DataSource, SubstitutionFormatString, data_source, substitution_format_string::Format,
};
use api::envoy::extensions::access_loggers::file::v3::{
    FileAccessLog, file_access_log::AccessLogFormat,
};
use api::google::protobuf::Struct;

use super::encoding::pack;
use super::values::text_value;
use crate::model::mesh::{AccessLogEncoding, MeshConfig};

/// Istio's text format.
pub const DEFAULT_TEXT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \
\"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \
\"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% \
%DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n";

/// Istio's JSON format: key and operator.
const DEFAULT_JSON: [(&str, &str); 23] = [
    ("start_time", "%START_TIME%"),
    ("route_name", "%ROUTE_NAME%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    ("connection_termination_details", "%CONNECTION_TERMINATION_DETAILS%"),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("duration", "%DURATION%"),
    ("upstream_service_time", "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%"),
    ("x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
    ("user_agent", "%REQ(USER-AGENT)%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("authority", "%REQ(:AUTHORITY)%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER_RAW%"),
    ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
];

/// The access loggers of a listener itself: they tell of connections that no filter chain takes, of which no other
/// logger hears.
pub fn listener_access_logs(mesh: &MeshConfig) -> Vec<AccessLog> {
    let no_route = ResponseFlagFilter { flags: vec!["NR".to_owned()] };
    let filter =
        AccessLogFilter { filter_specifier: Some(FilterSpecifier::ResponseFlagFilter(no_route)) };
    let mut all = access_logs(mesh);
    all.iter_mut().for_each(|logger| logger.filter = Some(filter.clone()));
    all
}

/// The access loggers of every filter chain: none where the mesh configuration switches them off.
pub fn access_logs(mesh: &MeshConfig) -> Vec<AccessLog> {
    if mesh.access_log_file.is_empty() {
        return Vec::new();
    }
    let format = match mesh.access_log_encoding {
        AccessLogEncoding::Text => Format::TextFormatSource(DataSource {
            specifier: Some(data_source::Specifier::InlineString(text_format(mesh))),
            ..Default::default()
        }),
        AccessLogEncoding::Json => Format::JsonFormat(json_format(mesh)),
    };
    let logger = FileAccessLog {
        path: mesh.access_log_file.clone(),
        access_log_format: Some(AccessLogFormat::LogFormat(SubstitutionFormatString {
            format: Some(format),
            ..Default::default()
        })),
    };
    vec![AccessLog {
        name: "envoy.access_loggers.file".to_owned(),
        config_type: Some(access_log::ConfigType::TypedConfig(pack(&logger))),
        ..Default::default()
    }]
}

fn text_format(mesh: &MeshConfig) -> String {
    match mesh.access_log_format.as_str() {
        "" => DEFAULT_TEXT.to_owned(),
        // Istio ends a user's format with a line feed if it has none.
        own if own.ends_with('\n') => own.to_owned(),
        own => format!("{own}\n"),
    }
}

/// The user's JSON format is an object whose values are formats; its parse has been checked where it was read.
fn json_format(mesh: &MeshConfig) -> Struct {
    let own: Option<std::collections::BTreeMap<String, String>> =
        serde_json::from_str(&mesh.access_log_format).ok();
    let fields = match own {
        Some(own) => own.iter().map(|(key, format)| (key.clone(), text_value(format))).collect(),
        None => DEFAULT_JSON
            .iter()
            .map(|(key, format)| ((*key).to_owned(), text_value(format)))
            .collect(),
    };
    Struct { fields }
}
