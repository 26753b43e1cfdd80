//! TLS contexts and the secrets that flow into them.
//!
//! Contexts that compile from the same bytes are one context, so that a new version of a cluster or a listener keeps its
//! hosts, its sessions and its connections. A secret is taken into use by every context that names it, or by none.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use api::envoy::config::core::v3::DataSource;
use api::envoy::config::core::v3::data_source::Specifier;
use api::envoy::extensions::transport_sockets::tls::v3 as proto;
use identity::chain::TrustRoots;
use identity::san::{Regex, SanMatcher, SanType, TextMatch};
use identity::tls::{Certificate, Parameters, Validation, Version};
use prost::Message;

use super::compile::Compile;
use super::fingerprint::{Fingerprint, Print};
use super::source;
use crate::admin::CertificateStatus;
use crate::network::tls::{
    ClientSide, DownstreamTls, DownstreamTlsSettings, Secrets, ServerSide, TlsError, UpstreamTls,
    UpstreamTlsSettings,
};
use crate::stream_info::CertificateInfo;
use api::envoy::r#type::matcher::v3::StringMatcher;
use api::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use api::text::Problem;
use proto::common_tls_context::ValidationContextType;
use proto::subject_alt_name_matcher::SanType as ProtoSanType;
use proto::tls_parameters::TlsProtocol;

/// Every secret and every context that is in use.
#[derive(Debug, Default)]
pub struct TlsStore {
    secrets: HashMap<Arc<str>, SecretValue>,
    contexts: HashMap<Fingerprint, Live>,
}

/// A secret as it came.
#[derive(Debug, Clone)]
enum SecretValue {
    Certificate(Certificate),
    Validation(Validation),
}

/// A context with what its secrets are made of.
#[derive(Debug)]
struct Live {
    context: WeakContext,
    recipe: Recipe,
}

#[derive(Debug)]
enum WeakContext {
    Server(Weak<DownstreamTls>),
    Client(Weak<UpstreamTls>),
}

/// What is ready to be taken into use.
enum Prepared {
    Server(Arc<DownstreamTls>, Arc<ServerSide>),
    Client(Arc<UpstreamTls>, Arc<ClientSide>),
}

/// Where a context's secrets come from.
#[derive(Debug, Clone, Default)]
struct Recipe {
    certificates: Vec<CertificateSource>,
    validation: Option<Validation>,
    validation_secret: Option<Arc<str>>,
}

#[derive(Debug, Clone)]
enum CertificateSource {
    Inline(Certificate),
    Secret(Arc<str>),
}

impl Recipe {
    fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        let certificates = self.certificates.iter().filter_map(|source| match source {
            CertificateSource::Secret(name) => Some(name),
            CertificateSource::Inline(_) => None,
        });
        certificates.chain(&self.validation_secret)
    }

    /// The secrets as they are now; `None` while one is missing.
    fn secrets(&self, known: &HashMap<Arc<str>, SecretValue>) -> Option<Secrets> {
        let mut certificates = Vec::with_capacity(self.certificates.len());
        for source in &self.certificates {
            certificates.push(match source {
                CertificateSource::Inline(certificate) => certificate.clone(),
                CertificateSource::Secret(name) => match known.get(name)? {
                    SecretValue::Certificate(certificate) => certificate.clone(),
                    SecretValue::Validation(_) => return None,
                },
            });
        }
        let mut validation = self.validation.clone();
        if let Some(name) = &self.validation_secret {
            let SecretValue::Validation(found) = known.get(name)? else { return None };
            let mut whole = found.clone();
            if let Some(base) = validation {
                whole.roots = whole.roots.or(base.roots);
                whole.names.extend(base.names);
                whole.certificate_hashes.extend(base.certificate_hashes);
                whole.public_key_hashes.extend(base.public_key_hashes);
            }
            validation = Some(whole);
        }
        Some(Secrets { certificates, validation })
    }
}

impl TlsStore {
    /// Has this secret come?
    pub fn has(&self, name: &str) -> bool {
        self.secrets.contains_key(name)
    }

    /// Takes a secret: every context that names it serves new handshakes with it, or nothing changes.
    pub fn update(&mut self, cx: &mut Compile<'_>, secret: &proto::Secret) -> Option<()> {
        use proto::secret::Type;
        let value = match secret.r#type.as_ref() {
            Some(Type::TlsCertificate(certificate)) => SecretValue::Certificate(
                cx.at("tls_certificate", |cx| self::certificate(cx, certificate))?,
            ),
            Some(Type::ValidationContext(validation)) => SecretValue::Validation(
                cx.at("validation_context", |cx| self::validation(cx, validation))?,
            ),
            _ => {
                cx.problem("only `tls_certificate` and `validation_context` are supported");
                return None;
            }
        };
        let name: Arc<str> = secret.name.as_str().into();
        let mut secrets = self.secrets.clone();
        secrets.insert(Arc::clone(&name), value);
        match self.prepare(&name, &secrets) {
            Ok(prepared) => {
                for context in prepared {
                    match context {
                        Prepared::Server(context, side) => context.set(side),
                        Prepared::Client(context, side) => context.set(side),
                    }
                }
                self.secrets = secrets;
                Some(())
            }
            Err(error) => {
                cx.problem(error.to_string());
                None
            }
        }
    }

    /// The certificates of every context in use.
    pub fn certificates(&self) -> Vec<CertificateStatus> {
        let secrets = self.contexts.values().filter_map(|live| live.context.secrets());
        let mut all: Vec<_> = secrets.map(|secrets| certificate_status(&secrets)).collect();
        // In an order that stays, whatever the hashes.
        all.sort_by(|a, b| a.first_fingerprints().cmp(&b.first_fingerprints()));
        all
    }

    fn prepare(
        &mut self,
        name: &Arc<str>,
        secrets: &HashMap<Arc<str>, SecretValue>,
    ) -> Result<Vec<Prepared>, TlsError> {
        self.contexts.retain(|_, live| live.context.is_alive());
        let mut prepared = Vec::new();
        for live in
            self.contexts.values().filter(|live| live.recipe.names().any(|needed| needed == name))
        {
            let Some(secrets) = live.recipe.secrets(secrets) else { continue };
            match &live.context {
                WeakContext::Server(context) => {
                    let Some(context) = context.upgrade() else { continue };
                    let side = context.prepare(secrets)?;
                    prepared.push(Prepared::Server(context, side));
                }
                WeakContext::Client(context) => {
                    let Some(context) = context.upgrade() else { continue };
                    let side = context.prepare(secrets)?;
                    prepared.push(Prepared::Client(context, side));
                }
            }
        }
        Ok(prepared)
    }

    /// Compiles a `DownstreamTlsContext`.
    pub fn server(&mut self, cx: &mut Compile<'_>, bytes: &[u8]) -> Option<Arc<DownstreamTls>> {
        let message: proto::DownstreamTlsContext = cx.decode(bytes)?;
        let common = message.common_tls_context.unwrap_or_default();
        let before = cx.problems.len();
        let (recipe, mut print) = recipe(cx, &common);
        if common.tls_certificates.is_empty()
            && common.tls_certificate_sds_secret_configs.is_empty()
        {
            cx.problem_at(
                "common_tls_context",
                "a server needs a certificate: `tls_certificates` or its SDS configs",
            );
        }
        let settings = DownstreamTlsSettings {
            parameters: cx.at("common_tls_context", |cx| parameters(cx, &common)),
            require_client_certificate: message.require_client_certificate.is_some_and(|wanted| wanted.value),
            no_tickets: matches!(
                message.session_ticket_keys_type,
                Some(proto::downstream_tls_context::SessionTicketKeysType::DisableStatelessSessionResumption(true))
            ),
        };
        if cx.problems.len() > before {
            return None;
        }
        print.add(("server", bytes));
        let print = print.finish();
        if let Some(WeakContext::Server(known)) =
            self.contexts.get(&print).map(|live| &live.context)
            && let Some(context) = known.upgrade()
        {
            return Some(context);
        }
        let context = Arc::new(DownstreamTls::new(settings));
        if let Some(secrets) = recipe.secrets(&self.secrets) {
            let side =
                context.prepare(secrets).map_err(|error| cx.problem(error.to_string())).ok()?;
            context.set(side);
        }
        self.contexts
            .insert(print, Live { context: WeakContext::Server(Arc::downgrade(&context)), recipe });
        Some(context)
    }

    /// Compiles an `UpstreamTlsContext`; `auto_sni` is the cluster's.
    pub fn client(
        &mut self,
        cx: &mut Compile<'_>,
        bytes: &[u8],
        auto_sni: bool,
    ) -> Option<Arc<UpstreamTls>> {
        let message: proto::UpstreamTlsContext = cx.decode(bytes)?;
        let common = message.common_tls_context.unwrap_or_default();
        let before = cx.problems.len();
        let (recipe, mut print) = recipe(cx, &common);
        if recipe.certificates.len() > 1 {
            cx.problem_at(
                "common_tls_context",
                "a client presents one certificate, and there are several",
            );
        }
        let settings = UpstreamTlsSettings {
            parameters: cx.at("common_tls_context", |cx| parameters(cx, &common)),
            sni: (!message.sni.is_empty()).then(|| message.sni.as_str().into()),
            auto_sni,
            match_server_name: message.auto_sni_san_validation,
            no_resumption: message.max_session_keys.is_some_and(|keys| keys.value == 0),
        };
        if cx.problems.len() > before {
            return None;
        }
        print.add(("client", auto_sni, bytes));
        let print = print.finish();
        if let Some(WeakContext::Client(known)) =
            self.contexts.get(&print).map(|live| &live.context)
            && let Some(context) = known.upgrade()
        {
            return Some(context);
        }
        let context = Arc::new(UpstreamTls::new(settings));
        if let Some(secrets) = recipe.secrets(&self.secrets) {
            let side =
                context.prepare(secrets).map_err(|error| cx.problem(error.to_string())).ok()?;
            context.set(side);
        }
        self.contexts
            .insert(print, Live { context: WeakContext::Client(Arc::downgrade(&context)), recipe });
        Some(context)
    }
}

/// Authorities and chains, with the files they came from.
fn certificate_status(secrets: &Secrets) -> CertificateStatus {
    let file = |path: Option<&Path>| path.map(Path::to_owned);
    let roots = secrets.validation.as_ref().and_then(|validation| validation.roots.as_ref());
    CertificateStatus {
        authorities: roots
            .into_iter()
            .flat_map(|roots| roots.certificates().map(|info| (info, file(roots.file()))))
            .map(|(info, file)| (CertificateInfo::from(&info), file))
            .collect(),
        chain: secrets
            .certificates
            .iter()
            .flat_map(|own| own.chain().map(|info| (info, file(own.file()))))
            .map(|(info, file)| (CertificateInfo::from(&info), file))
            .collect(),
    }
}

impl WeakContext {
    /// What handshakes take now; `None` when nobody uses the context, or its secrets are missing.
    fn secrets(&self) -> Option<Secrets> {
        match self {
            Self::Server(context) => Some(context.upgrade()?.current()?.secrets.clone()),
            Self::Client(context) => Some(context.upgrade()?.current()?.secrets.clone()),
        }
    }

    fn is_alive(&self) -> bool {
        match self {
            Self::Server(context) => context.strong_count() > 0,
            Self::Client(context) => context.strong_count() > 0,
        }
    }
}

/// Where a context's secrets come from, and a hash of the files that it read.
fn recipe(cx: &mut Compile<'_>, common: &proto::CommonTlsContext) -> (Recipe, Print) {
    let mut recipe = Recipe::default();
    let outer = std::mem::take(&mut cx.read);
    cx.at("common_tls_context", |cx| {
        let inline = cx.each("tls_certificates", &common.tls_certificates, certificate);
        recipe.certificates.extend(inline.into_iter().map(CertificateSource::Inline));
        let secrets = cx.each(
            "tls_certificate_sds_secret_configs",
            &common.tls_certificate_sds_secret_configs,
            secret_name,
        );
        recipe.certificates.extend(secrets.into_iter().map(CertificateSource::Secret));
        match &common.validation_context_type {
            None => {}
            Some(ValidationContextType::ValidationContext(context)) => {
                recipe.validation = cx.at("validation_context", |cx| validation(cx, context));
            }
            Some(ValidationContextType::ValidationContextSdsSecretConfig(config)) => {
                recipe.validation_secret =
                    cx.at("validation_context_sds_secret_config", |cx| secret_name(cx, config));
            }
            Some(ValidationContextType::CombinedValidationContext(both)) => {
                cx.at("combined_validation_context", |cx| {
                    let base = both.default_validation_context.clone().unwrap_or_default();
                    recipe.validation =
                        cx.at("default_validation_context", |cx| validation(cx, &base));
                    let config =
                        both.validation_context_sds_secret_config.clone().unwrap_or_default();
                    recipe.validation_secret = cx
                        .at("validation_context_sds_secret_config", |cx| secret_name(cx, &config));
                });
            }
            Some(_) => cx.problem("this kind of validation context is not supported yet"),
        }
    });
    let print = std::mem::replace(&mut cx.read, outer);
    cx.read.add(print.finish());
    (recipe, print)
}

/// The secret that is meant, noted as needed.
fn secret_name(cx: &mut Compile<'_>, config: &proto::SdsSecretConfig) -> Option<Arc<str>> {
    let name: Arc<str> = config.name.as_str().into();
    match &config.sds_config {
        Some(found) => {
            let source = cx.at("sds_config", |cx| source::fetch(cx, Some(found)))?;
            cx.needs.secrets.insert(Arc::clone(&name), source);
        }
        None if cx.static_secrets.contains(&*name) => {}
        None => {
            let message =
                format!("there is no secret `{name}` in static_resources, and no `sds_config`");
            cx.problem_at("name", message);
            return None;
        }
    }
    Some(name)
}

fn text(cx: &mut Compile<'_>, bytes: Vec<u8>) -> Option<String> {
    String::from_utf8(bytes).map_err(|_| cx.problem("is not PEM")).ok()
}

/// The file that a data source is, if it is one.
fn file_name(source: Option<&DataSource>) -> Option<&Path> {
    match source?.specifier.as_ref()? {
        Specifier::Filename(file) => Some(Path::new(file)),
        _ => None,
    }
}

fn certificate(cx: &mut Compile<'_>, value: &proto::TlsCertificate) -> Option<Certificate> {
    let mut part = |field: &str, source: &Option<_>| {
        let Some(source) = source else {
            cx.problem_at(field, format!("`{field}` is required"));
            return None;
        };
        cx.at(field, |cx| cx.data(source).and_then(|bytes| text(cx, bytes)))
    };
    let chain = part("certificate_chain", &value.certificate_chain);
    let key = part("private_key", &value.private_key);
    let read = Certificate::from_pem(&chain?, &key?);
    let read = read.map_err(|error| cx.problem(error.to_string())).ok()?;
    Some(match file_name(value.certificate_chain.as_ref()) {
        Some(file) => read.from_file(file),
        None => read,
    })
}

fn validation(
    cx: &mut Compile<'_>,
    value: &proto::CertificateValidationContext,
) -> Option<Validation> {
    let before = cx.problems.len();
    let mut validation = Validation::default();
    if let Some(source) = &value.trusted_ca {
        validation.roots = cx.at("trusted_ca", |cx| roots(cx, source));
    }
    if let Some(source) = &value.crl {
        cx.at("crl", |cx| {
            let Some(pem) = cx.data(source).and_then(|bytes| text(cx, bytes)) else { return };
            match validation
                .roots
                .take()
                .map(|roots| roots.with_revocation_lists(&pem, value.only_verify_leaf_cert_crl))
            {
                Some(Ok(roots)) => validation.roots = Some(roots),
                Some(Err(error)) => cx.problem(error.to_string()),
                None => cx.problem("a revocation list needs `trusted_ca`"),
            }
        });
    }
    validation.names = cx.each(
        "match_typed_subject_alt_names",
        &value.match_typed_subject_alt_names,
        |cx, matcher| {
            let kind = match matcher.san_type() {
                ProtoSanType::Email => SanType::Email,
                ProtoSanType::Dns => SanType::Dns,
                ProtoSanType::IpAddress => SanType::Ip,
                _ => SanType::Uri,
            };
            let text = matcher.matcher.clone().unwrap_or_default();
            cx.at("matcher", |cx| san_matcher(cx, &text, kind))
        },
    );
    #[allow(deprecated)]
    let untyped = &value.match_subject_alt_names;
    for kind in [SanType::Dns, SanType::Uri, SanType::Email, SanType::Ip] {
        let names =
            cx.each("match_subject_alt_names", untyped, |cx, text| san_matcher(cx, text, kind));
        validation.names.extend(names);
    }
    validation.certificate_hashes =
        cx.each("verify_certificate_hash", &value.verify_certificate_hash, |cx, text| {
            let hex: String = text.chars().filter(|letter| *letter != ':').collect();
            let bytes: Option<Vec<u8>> = (0..hex.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok())
                .collect();
            hash(cx, bytes, "64 hexadecimal digits")
        });
    validation.public_key_hashes =
        cx.each("verify_certificate_spki", &value.verify_certificate_spki, |cx, text| {
            use base64::Engine as _;
            hash(
                cx,
                base64::engine::general_purpose::STANDARD.decode(text).ok(),
                "32 bytes in base64",
            )
        });
    (cx.problems.len() == before).then_some(validation)
}

fn roots(cx: &mut Compile<'_>, source: &DataSource) -> Option<TrustRoots> {
    let pem = cx.data(source).and_then(|bytes| text(cx, bytes))?;
    let roots = TrustRoots::from_pem(&pem).map_err(|error| cx.problem(error.to_string())).ok()?;
    Some(match file_name(Some(source)) {
        Some(file) => roots.from_file(file),
        None => roots,
    })
}

fn hash(cx: &mut Compile<'_>, bytes: Option<Vec<u8>>, expected: &str) -> Option<[u8; 32]> {
    let hash = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    if hash.is_none() {
        cx.problem(format!("expected a SHA-256 as {expected}"));
    }
    hash
}

fn san_matcher(
    cx: &mut Compile<'_>,
    value: &StringMatcher,
    san_type: SanType,
) -> Option<SanMatcher> {
    let text = match value.match_pattern.as_ref()? {
        MatchPattern::Exact(text) => TextMatch::Exact(text.clone()),
        MatchPattern::Prefix(text) => TextMatch::Prefix(text.clone()),
        MatchPattern::Suffix(text) => TextMatch::Suffix(text.clone()),
        MatchPattern::Contains(text) => TextMatch::Contains(text.clone()),
        MatchPattern::SafeRegex(regex) => match Regex::new(&regex.regex) {
            Ok(regex) => TextMatch::Regex(regex),
            Err(error) => {
                cx.problem_at("safe_regex.regex", error);
                return None;
            }
        },
        MatchPattern::Custom(_) => {
            cx.problem_at("custom", "`custom` is not supported yet");
            return None;
        }
    };
    Some(SanMatcher { san_type, text, ignore_case: value.ignore_case })
}

fn parameters(cx: &mut Compile<'_>, common: &proto::CommonTlsContext) -> Parameters {
    let params = common.tls_params.clone().unwrap_or_default();
    let version = |protocol: TlsProtocol| match protocol {
        TlsProtocol::TlSv12 => Some(Version::Tls12),
        TlsProtocol::TlSv13 => Some(Version::Tls13),
        _ => None,
    };
    let cipher_suites = cx.at("tls_params", |cx| {
        cx.each("cipher_suites", &params.cipher_suites, |cx, suite| {
            let known = identity::tls::cipher_suite(suite);
            known.map_err(|error| cx.problem(error.to_string())).ok().map(|_| suite.clone())
        })
    });
    Parameters {
        alpn: common.alpn_protocols.iter().map(|protocol| protocol.clone().into_bytes()).collect(),
        min_version: version(params.tls_minimum_protocol_version()),
        max_version: version(params.tls_maximum_protocol_version()),
        cipher_suites,
    }
}

/// Reads a secret's message.
pub fn decode_secret(bytes: &[u8]) -> Result<proto::Secret, Problem> {
    proto::Secret::decode(bytes).map_err(|_| Problem::new("", "malformed protobuf"))
}

/// The files that an encoded secret refers to: it changes when they do.
pub fn files_of(secret: &[u8]) -> Vec<PathBuf> {
    use proto::secret::Type;
    let Ok(secret) = proto::Secret::decode(secret) else { return Vec::new() };
    let sources = match secret.r#type {
        Some(Type::TlsCertificate(found)) => vec![found.certificate_chain, found.private_key],
        Some(Type::ValidationContext(found)) => vec![found.trusted_ca, found.crl],
        _ => Vec::new(),
    };
    let file = |source: DataSource| match source.specifier {
        Some(Specifier::Filename(path)) => Some(PathBuf::from(path)),
        _ => None,
    };
    sources.into_iter().flatten().filter_map(file).collect()
}
