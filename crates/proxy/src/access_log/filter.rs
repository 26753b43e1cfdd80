//! Which streams a log wants: Envoy's access-log filters that need nothing but the stream.

use super::operators::{grpc_number, log_type};
use crate::http::grpc;
use crate::route_table::config::HeaderMatcher;
use crate::stream_info::{LogRecord, ResponseFlags};

/// A compiled filter.
#[derive(Clone, Debug)]
pub enum Filter {
    /// The status sent (0 when none was).
    StatusCode(Comparison),
    /// Milliseconds from the first byte to the end.
    Duration(Comparison),
    /// Not a health check; no stream is marked as one, so every stream passes.
    NotHealthCheck,
    /// All must hold.
    And(Box<[Filter]>),
    /// One must hold.
    Or(Box<[Filter]>),
    /// The request's header.
    Header(HeaderMatcher),
    /// Any of these flags; when empty, any flag at all.
    ResponseFlag(ResponseFlags),
    /// The gRPC status is (or, with `exclude`, is not) one of these.
    GrpcStatus {
        /// Status numbers.
        statuses: Box<[u64]>,
        /// Not one of these.
        exclude: bool,
    },
    /// The log entry's type is (or is not) one of these.
    LogType {
        /// Envoy's names, such as `DownstreamEnd`.
        types: Box<[&'static str]>,
        /// Not one of these.
        exclude: bool,
    },
    /// So many of so many, at random.
    Sampled {
        /// Logged ones.
        numerator: u32,
        /// Of these.
        denominator: u32,
    },
}

/// A number compared with a constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// How.
    pub operator: ThresholdOperator,
    /// With what.
    pub value: u64,
}

/// Envoy's `ComparisonFilter.Op`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThresholdOperator {
    /// Equal.
    Equal,
    /// At least.
    GreaterOrEqual,
    /// At most.
    LessOrEqual,
    /// Not equal.
    NotEqual,
}

impl Comparison {
    fn holds(self, actual: u64) -> bool {
        match self.operator {
            ThresholdOperator::Equal => actual == self.value,
            ThresholdOperator::GreaterOrEqual => actual >= self.value,
            ThresholdOperator::LessOrEqual => actual <= self.value,
            ThresholdOperator::NotEqual => actual != self.value,
        }
    }
}

impl Filter {
    /// Whether the stream is to be logged.
    pub fn admits(&self, record: &LogRecord<'_>) -> bool {
        match self {
            Filter::StatusCode(comparison) => comparison.holds(record.info.response_code.into()),
            Filter::Duration(comparison) => {
                let timings = &record.info.timings;
                let end = if timings.end_ns == 0 { record.now_ns } else { timings.end_ns };
                comparison.holds(end.saturating_sub(timings.start_ns) / 1_000_000)
            }
            Filter::NotHealthCheck => true,
            Filter::And(all) => all.iter().all(|filter| filter.admits(record)),
            Filter::Or(any) => any.iter().any(|filter| filter.admits(record)),
            Filter::Header(matcher) => {
                record.request.is_some_and(|request| matcher.matches(request))
            }
            Filter::ResponseFlag(flags) if flags.is_empty() => !record.info.flags.is_empty(),
            Filter::ResponseFlag(flags) => record.info.flags.intersects(*flags),
            Filter::GrpcStatus { statuses, exclude } => {
                // Envoy's filter has a status for every answer, gRPC or not.
                let of_http = || grpc::status_of_http(record.info.response_code).into();
                let status = grpc_number(record).unwrap_or_else(of_http);
                statuses.contains(&status) != *exclude
            }
            Filter::LogType { types, exclude } => types.contains(&log_type(record)) != *exclude,
            Filter::Sampled { numerator, denominator } => {
                rand::random_range(0..(*denominator).max(1)) < *numerator
            }
        }
    }
}
