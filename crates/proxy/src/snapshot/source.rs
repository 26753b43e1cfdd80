//! Where dynamic resources come from.

use std::time::Duration;

use api::envoy::config::core::v3::api_config_source::ApiType;
use api::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use api::envoy::config::core::v3::grpc_service::TargetSpecifier;
use api::envoy::config::core::v3::{ApiConfigSource, ConfigSource, PathConfigSource};

use super::compile::{Compile, error_text};
use super::values;
use crate::config_sync::sink::{FileSource, GrpcSource, Source};

/// How long a resource may be waited for unless its source says otherwise (Envoy: 15 s).
const INITIAL_FETCH_TIMEOUT: Duration = Duration::from_secs(15);

/// A source, with how long to wait for the first answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Fetch {
    /// Who is asked.
    pub source: Source,
    /// After so long what waits goes on without; `None` waits for ever.
    pub initial_timeout: Option<Duration>,
}

/// Compiles a `ConfigSource`.
pub fn fetch(cx: &mut Compile<'_>, source: Option<&ConfigSource>) -> Option<Fetch> {
    let source = source?;
    let initial_timeout =
        values::limit(source.initial_fetch_timeout.as_ref(), Some(INITIAL_FETCH_TIMEOUT));
    let source = match source.config_source_specifier.as_ref()? {
        ConfigSourceSpecifier::Ads(_) => Source::Ads,
        ConfigSourceSpecifier::ApiConfigSource(api) => {
            Source::Grpc(cx.at("api_config_source", |cx| grpc(cx, api))?)
        }
        #[allow(deprecated)]
        ConfigSourceSpecifier::Path(path) => {
            let message = PathConfigSource { path: path.clone(), ..PathConfigSource::default() };
            Source::File(file(cx, "path", &message)?)
        }
        ConfigSourceSpecifier::PathConfigSource(path) => {
            Source::File(cx.at("path_config_source", |cx| file(cx, "path", path))?)
        }
        _ => {
            cx.problem("this kind of source is not supported yet");
            return None;
        }
    };
    Some(Fetch { source, initial_timeout })
}

fn file(cx: &mut Compile<'_>, field: &str, message: &PathConfigSource) -> Option<FileSource> {
    if let Err(error) = std::fs::metadata(&message.path) {
        cx.problem_at(field, format!("{}: {}", message.path, error_text(&error)));
        return None;
    }
    let poll_interval = values::limit(message.poll_interval.as_ref(), None);
    let watched = message.watched_directory.as_ref().map(|folder| folder.path.as_str().into());
    if poll_interval.is_some() && watched.is_some() {
        cx.problem_at("poll_interval", "cannot be set together with `watched_directory`");
    }
    Some(FileSource {
        path: message.path.as_str().into(),
        watched_directory: watched,
        poll_interval,
    })
}

/// Compiles an `ApiConfigSource`, also that of `ads_config`.
pub fn grpc(cx: &mut Compile<'_>, source: &ApiConfigSource) -> Option<GrpcSource> {
    let [service] = &source.grpc_services[..] else {
        cx.problem_at("grpc_services", "exactly one service is supported");
        return None;
    };
    let Some(TargetSpecifier::EnvoyGrpc(target)) = &service.target_specifier else {
        cx.problem_at("grpc_services[0]", "only `envoy_grpc` is supported");
        return None;
    };
    let metadata =
        service.initial_metadata.iter().map(|header| (header.key.clone(), header.value.clone()));
    Some(GrpcSource {
        cluster: target.cluster_name.clone(),
        authority: Some(target.authority.clone()).filter(|authority| !authority.is_empty()),
        timeout: values::limit(service.timeout.as_ref(), None),
        delta: source.api_type() == ApiType::DeltaGrpc,
        initial_metadata: metadata.collect(),
    })
}
