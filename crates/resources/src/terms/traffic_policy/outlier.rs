//! When a host that fails is left out.

use std::time::Duration;

use crate::field::{Fields, Reason};

/// When a host that fails is left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OutlierDetection {
    /// Consecutive 5xx answers and local failures; `Some(0)` switches it off. 5 where nothing was said.
    pub consecutive_5xx_errors: Option<u32>,
    /// Consecutive 502, 503 and 504 answers; `Some(0)` switches it off.
    pub consecutive_gateway_errors: Option<u32>,
    /// Consecutive failures to connect, counted apart from answers.
    pub consecutive_local_origin_failures: Option<u32>,
    /// Whether failures to connect are counted apart from answers.
    pub split_external_local_origin_errors: bool,
    /// Time between sweeps; 10 s where nothing was said.
    pub interval: Option<Duration>,
    /// Time of a first ejection; 30 s where nothing was said.
    pub base_ejection_time: Option<Duration>,
    /// Most hosts that may be left out, in percent; 10 where nothing was said.
    pub max_ejection_percent: Option<u32>,
    /// Healthy hosts, in percent, below which all are used; 0 where nothing was said.
    pub min_health_percent: Option<u32>,
    /// HTTP statuses that count as failures, in place of 5xx.
    pub http_error_codes: Vec<u16>,
}

impl OutlierDetection {
    pub(super) fn read(fields: &mut Fields<'_>) -> Self {
        fields
            .deprecated("consecutiveErrors", "consecutive5xxErrors (or consecutiveGatewayErrors)");
        let old = fields.non_negative("consecutiveErrors");
        let split = fields.flag("splitExternalLocalOriginErrors").unwrap_or_default();
        let local = fields.u32("consecutiveLocalOriginFailures");
        if local.is_some_and(|failures| failures > 0) && !split {
            let message = "has no effect unless splitExternalLocalOriginErrors is true";
            fields.error_in("consecutiveLocalOriginFailures", Reason::Forbidden, message);
        }
        let gateway = fields.u32("consecutiveGatewayErrors");
        Self {
            consecutive_5xx_errors: fields.u32("consecutive5xxErrors"),
            // What consecutiveErrors always meant: 502, 503 and 504.
            consecutive_gateway_errors: gateway.or(old),
            consecutive_local_origin_failures: local,
            split_external_local_origin_errors: split,
            interval: fields.duration("interval"),
            base_ejection_time: fields.duration("baseEjectionTime"),
            max_ejection_percent: fields.integer("maxEjectionPercent", 0..=100),
            min_health_percent: fields.integer("minHealthPercent", 0..=100),
            http_error_codes: fields
                .integers("outlierDetectionHttpErrorCodes", 100..=599)
                .into_iter()
                .filter_map(|code| u16::try_from(code).ok())
                .collect(),
        }
    }
}
