//! `config.accesslog.v3.AccessLog` → loggers.

use std::sync::Arc;

use api::envoy::config::accesslog::v3 as proto;
use api::envoy::config::core::v3::SubstitutionFormatString;
use api::envoy::config::core::v3::substitution_format_string::Format as FormatKind;
use api::envoy::data::accesslog::v3::AccessLogType;
use api::envoy::extensions::access_loggers::file::v3 as file;
use api::envoy::extensions::access_loggers::stream::v3 as stream;
use api::google::protobuf::Struct;
use proto::access_log::ConfigType;
use proto::access_log_filter::FilterSpecifier;
use proto::comparison_filter::Op;

use super::compile::{Compile, error_text};
use super::{routes, values};
use crate::access_log::sink::Destination;
use crate::access_log::{
    Comparison, DEFAULT_FORMAT, Filter, Format, JsonFormat, Layout, Log, ThresholdOperator,
};
use crate::stream_info::{AccessLogger, AccessLoggers, ResponseFlags};

/// Compiles a list of access logs.
pub fn access_logs(
    cx: &mut Compile<'_>,
    logs: &[proto::AccessLog],
    stat_prefix: &str,
) -> AccessLoggers {
    cx.each("access_log", logs, |cx, log| access_log(cx, log, stat_prefix))
}

fn access_log(
    cx: &mut Compile<'_>,
    log: &proto::AccessLog,
    stat_prefix: &str,
) -> Option<Arc<dyn AccessLogger>> {
    let filter = match &log.filter {
        None => None,
        Some(filter) => Some(cx.at("filter", |cx| self::filter(cx, filter))?),
    };
    let any = log.config_type.as_ref().map(|ConfigType::TypedConfig(any)| any);
    let (name, bytes) = cx.extension("typed_config", any)?;
    cx.at("typed_config", |cx| {
        let (destination, layout) = match name.as_str() {
            "envoy.extensions.access_loggers.file.v3.FileAccessLog" => {
                let message: file::FileAccessLog = cx.decode(&bytes)?;
                (Destination::File(message.path.clone().into()), file_layout(cx, &message)?)
            }
            "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog" => {
                use stream::stdout_access_log::AccessLogFormat::LogFormat;
                let message: stream::StdoutAccessLog = cx.decode(&bytes)?;
                let format = message.access_log_format.map(|LogFormat(format)| format);
                (Destination::Stdout, cx.at("log_format", |cx| layout(cx, format.as_ref()))?)
            }
            "envoy.extensions.access_loggers.stream.v3.StderrAccessLog" => {
                use stream::stderr_access_log::AccessLogFormat::LogFormat;
                let message: stream::StderrAccessLog = cx.decode(&bytes)?;
                let format = message.access_log_format.map(|LogFormat(format)| format);
                (Destination::Stderr, cx.at("log_format", |cx| layout(cx, format.as_ref()))?)
            }
            _ => return extension(cx, &name, &bytes, filter.is_some(), stat_prefix),
        };
        match cx.env.sinks.open(&destination) {
            Ok(sink) => Some(Arc::new(Log { filter, layout, sink }) as Arc<dyn AccessLogger>),
            Err(error) => {
                cx.problem(format!("{destination:?}: {}", error_text(&error)));
                None
            }
        }
    })
}

fn extension(
    cx: &mut Compile<'_>,
    name: &str,
    bytes: &[u8],
    filtered: bool,
    stat_prefix: &str,
) -> Option<Arc<dyn AccessLogger>> {
    let Some(row) = cx.env.extensions.access_logger(name) else {
        cx.problem(format!("{name} is no access logger"));
        return None;
    };
    if filtered {
        cx.problem(format!("a `filter` on {} is not supported yet", row.name));
    }
    let compiled = (row.compile)(bytes, &cx.context(stat_prefix));
    compiled.map_err(|problems| cx.problems_under(problems)).ok()
}

fn file_layout(cx: &mut Compile<'_>, message: &file::FileAccessLog) -> Option<Layout> {
    use file::file_access_log::AccessLogFormat;
    #[allow(deprecated)]
    match &message.access_log_format {
        None => layout(cx, None),
        Some(AccessLogFormat::LogFormat(format)) => {
            cx.at("log_format", |cx| layout(cx, Some(format)))
        }
        Some(AccessLogFormat::Format(text)) => cx.at("format", |cx| text_layout(cx, text, false)),
        Some(AccessLogFormat::JsonFormat(object) | AccessLogFormat::TypedJsonFormat(object)) => {
            cx.at("json_format", |cx| json_layout(cx, object, false))
        }
    }
}

fn layout(cx: &mut Compile<'_>, format: Option<&SubstitutionFormatString>) -> Option<Layout> {
    let Some(format) = format else { return text_layout(cx, DEFAULT_FORMAT, false) };
    #[allow(deprecated)]
    match format.format.as_ref()? {
        FormatKind::TextFormat(text) => {
            cx.at("text_format", |cx| text_layout(cx, text, format.omit_empty_values))
        }
        FormatKind::JsonFormat(object) => {
            cx.at("json_format", |cx| json_layout(cx, object, format.omit_empty_values))
        }
        FormatKind::TextFormatSource(source) => cx.at("text_format_source", |cx| {
            let bytes = cx.data(source)?;
            let text = String::from_utf8(bytes).map_err(|_| cx.problem("is not UTF-8")).ok()?;
            text_layout(cx, &text, format.omit_empty_values)
        }),
    }
}

fn text_layout(cx: &mut Compile<'_>, text: &str, omit_empty: bool) -> Option<Layout> {
    let parse = if omit_empty { Format::parse_omitting_empty } else { Format::parse };
    parse(text, &cx.env.formats)
        .map(Layout::Text)
        .map_err(|error| cx.problem(error.to_string()))
        .ok()
}

fn json_layout(cx: &mut Compile<'_>, object: &Struct, omit_empty: bool) -> Option<Layout> {
    let template = serde_json::Value::Object(values::json_object(object));
    let format = JsonFormat::compile(&template, omit_empty, &cx.env.formats);
    format.map(Layout::Json).map_err(|error| cx.problem(error.to_string())).ok()
}

fn filter(cx: &mut Compile<'_>, filter: &proto::AccessLogFilter) -> Option<Filter> {
    match filter.filter_specifier.as_ref()? {
        FilterSpecifier::StatusCodeFilter(filter) => {
            Some(Filter::StatusCode(comparison(filter.comparison.as_ref()?)))
        }
        FilterSpecifier::DurationFilter(filter) => {
            Some(Filter::Duration(comparison(filter.comparison.as_ref()?)))
        }
        FilterSpecifier::NotHealthCheckFilter(_) => Some(Filter::NotHealthCheck),
        FilterSpecifier::RuntimeFilter(filter) => {
            let percent = filter.percent_sampled.unwrap_or_default();
            Some(Filter::Sampled {
                numerator: percent.numerator,
                denominator: values::denominator(&percent),
            })
        }
        FilterSpecifier::AndFilter(all) => {
            Some(Filter::And(filters(cx, "and_filter", &all.filters)?))
        }
        FilterSpecifier::OrFilter(any) => Some(Filter::Or(filters(cx, "or_filter", &any.filters)?)),
        FilterSpecifier::HeaderFilter(filter) => cx.at("header_filter.header", |cx| {
            Some(Filter::Header(routes::header_matcher(cx, filter.header.as_ref()?)?))
        }),
        FilterSpecifier::ResponseFlagFilter(filter) => {
            let mut flags = ResponseFlags::default();
            for (index, name) in filter.flags.iter().enumerate() {
                match ResponseFlags::ALL.iter().find(|(_, short, _)| short == name) {
                    Some((flag, _, _)) => flags.insert(*flag),
                    None => cx.problem_at(
                        &format!("response_flag_filter.flags[{index}]"),
                        format!("`{name}` is no response flag"),
                    ),
                }
            }
            Some(Filter::ResponseFlag(flags))
        }
        FilterSpecifier::GrpcStatusFilter(filter) => {
            let number = |status: &i32| u64::try_from(*status).ok();
            Some(Filter::GrpcStatus {
                statuses: filter.statuses.iter().filter_map(number).collect(),
                exclude: filter.exclude,
            })
        }
        FilterSpecifier::LogTypeFilter(filter) => Some(Filter::LogType {
            types: filter.types().filter_map(log_type).collect(),
            exclude: filter.exclude,
        }),
        _ => {
            cx.problem("this filter is not supported yet");
            None
        }
    }
}

/// The name of a type as log entries have it; types that no entry here has match none.
fn log_type(found: AccessLogType) -> Option<&'static str> {
    match found {
        AccessLogType::DownstreamEnd => Some("DownstreamEnd"),
        AccessLogType::TcpConnectionEnd => Some("TcpConnectionEnd"),
        _ => None,
    }
}

fn filters(
    cx: &mut Compile<'_>,
    field: &str,
    all: &[proto::AccessLogFilter],
) -> Option<Box<[Filter]>> {
    let compiled = cx.at(field, |cx| cx.each("filters", all, filter));
    (compiled.len() == all.len()).then(|| compiled.into())
}

fn comparison(comparison: &proto::ComparisonFilter) -> Comparison {
    Comparison {
        operator: match comparison.op() {
            Op::Eq => ThresholdOperator::Equal,
            Op::Ge => ThresholdOperator::GreaterOrEqual,
            Op::Le => ThresholdOperator::LessOrEqual,
            Op::Ne => ThresholdOperator::NotEqual,
        },
        value: comparison.value.as_ref().map_or(0, |value| value.default_value.into()),
    }
}
