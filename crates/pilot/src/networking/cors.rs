//! A VirtualService's cross-origin policy, as the CORS filter takes it from a route.

use api::envoy::config::core::v3::RuntimeFractionalPercent;
use api::envoy::extensions::filters::http::cors::v3::CorsPolicy;
use api::envoy::r#type::v3::{FractionalPercent, fractional_percent::DenominatorType};
use resources::kinds::networking::virtual_service::{CorsPolicy as Written, UnmatchedPreflights};

use super::route_match::text;
use super::values::boolean;

/// The policy.
pub fn policy(written: &Written) -> CorsPolicy {
    CorsPolicy {
        allow_origin_string_match: written.allow_origins.iter().map(text).collect(),
        allow_methods: written.allow_methods.join(","),
        allow_headers: written.allow_headers.join(","),
        expose_headers: written.expose_headers.join(","),
        max_age: written.max_age.map(|age| age.as_secs().to_string()).unwrap_or_default(),
        allow_credentials: written.allow_credentials.and_then(boolean),
        filter_enabled: Some(RuntimeFractionalPercent {
            default_value: Some(FractionalPercent {
                numerator: 100,
                denominator: DenominatorType::Hundred as i32,
            }),
            ..Default::default()
        }),
        forward_not_matching_preflights: match written.unmatched_preflights {
            UnmatchedPreflights::Forward => None,
            UnmatchedPreflights::Ignore => boolean(false),
        },
        ..Default::default()
    }
}
