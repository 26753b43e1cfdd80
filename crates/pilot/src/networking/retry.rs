//! Retries, as Istio has them by default and as routes write them.

use api::envoy::config::route::v3::RetryPolicy;
use api::envoy::config::route::v3::retry_policy::{
    RetryBackOff, RetryHostPredicate, retry_host_predicate,
};
use api::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use resources::kinds::networking::virtual_service::Retries;

use super::encoding::pack;
use super::values::{duration, number};
use crate::model::mesh::DefaultRetries;

/// What is retried on the way out when nobody says anything.
const OUTBOUND_RETRY_ON: &str =
    "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";
/// What is retried on the way in: what the application never began to read is safe to send again.
const INBOUND_RETRY_ON: &str = "reset-before-request";
const ATTEMPTS: u32 = 2;
/// How often another host is looked for when the chosen one was tried already.
const HOST_SELECTION_ATTEMPTS: i64 = 5;
const BY_STATUS: &str = "retriable-status-codes";

/// Retries of routes to services that say nothing.
pub fn outbound(default: &DefaultRetries) -> Option<RetryPolicy> {
    match default {
        None => Some(istios()),
        Some(written) => of_route(written),
    }
}

/// Retries on the way into a workload, which has one host: only how often, what and how soon matter.
pub fn inbound(default: &DefaultRetries) -> Option<RetryPolicy> {
    let istios = RetryPolicy {
        retry_on: INBOUND_RETRY_ON.to_owned(),
        num_retries: number(ATTEMPTS),
        ..Default::default()
    };
    match default {
        None => Some(istios),
        Some(written) if written.attempts == 0 => None,
        Some(written) => Some(written_over(istios, written)),
    }
}

/// A route's own. No policy for `attempts: 0`, which switches retries off.
pub fn of_route(written: &Retries) -> Option<RetryPolicy> {
    if written.attempts == 0 {
        return None;
    }
    let mut policy = written_over(istios(), written);
    policy.per_try_timeout = written.per_try_timeout.map(duration);
    if written.retry_ignore_previous_hosts == Some(false) {
        policy.retry_host_predicate.clear();
    }
    Some(policy)
}

fn istios() -> RetryPolicy {
    RetryPolicy {
        retry_on: OUTBOUND_RETRY_ON.to_owned(),
        num_retries: number(ATTEMPTS),
        retry_host_predicate: vec![previous_hosts()],
        host_selection_retry_max_attempts: HOST_SELECTION_ATTEMPTS,
        ..Default::default()
    }
}

/// How often, what and how soon, as written. Numbers among what is retried are statuses.
fn written_over(mut policy: RetryPolicy, written: &Retries) -> RetryPolicy {
    policy.num_retries = number(written.attempts);
    if !written.retry_on.is_empty() {
        let (codes, conditions): (Vec<&String>, Vec<&String>) =
            written.retry_on.iter().partition(|item| item.parse::<u32>().is_ok());
        policy.retriable_status_codes = codes.iter().filter_map(|code| code.parse().ok()).collect();
        let mut conditions: Vec<&str> = conditions.into_iter().map(String::as_str).collect();
        if !policy.retriable_status_codes.is_empty() && !conditions.contains(&BY_STATUS) {
            conditions.push(BY_STATUS);
        }
        policy.retry_on = conditions.join(",");
    }
    policy.retry_back_off = written
        .backoff
        .map(|base| RetryBackOff { base_interval: Some(duration(base)), ..Default::default() });
    policy
}

fn previous_hosts() -> RetryHostPredicate {
    RetryHostPredicate {
        name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
        config_type: Some(retry_host_predicate::ConfigType::TypedConfig(pack(
            &PreviousHostsPredicate {},
        ))),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn written(attempts: u32, retry_on: &[&str]) -> Retries {
        Retries {
            attempts,
            per_try_timeout: None,
            retry_on: retry_on.iter().map(|item| (*item).to_owned()).collect(),
            retry_remote_localities: None,
            retry_ignore_previous_hosts: None,
            backoff: None,
        }
    }

    #[test]
    fn the_way_in_retries_only_what_the_application_never_read() {
        let silent = inbound(&None).expect("Istio's own");
        assert_eq!((silent.retry_on.as_str(), silent.num_retries), (INBOUND_RETRY_ON, number(2)));
        assert!(silent.retry_host_predicate.is_empty());
        let five = Some(Arc::new(written(5, &[])));
        for (policy, retry_on) in
            [(inbound(&five), INBOUND_RETRY_ON), (outbound(&five), OUTBOUND_RETRY_ON)]
        {
            let policy = policy.expect("five");
            assert_eq!((policy.retry_on.as_str(), policy.num_retries), (retry_on, number(5)));
        }
        let off = Some(Arc::new(written(0, &[])));
        assert_eq!((inbound(&off), outbound(&off)), (None, None));
    }

    #[test]
    fn numbers_are_statuses() {
        let policy = of_route(&written(3, &["503", "reset"])).expect("a policy");
        assert_eq!(policy.retry_on, "reset,retriable-status-codes");
        assert_eq!(policy.retriable_status_codes, [503]);
    }
}
