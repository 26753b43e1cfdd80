//! A VirtualService's faults, as the fault filter takes them from a route.

use api::envoy::extensions::filters::common::fault::v3::FaultDelay;
use api::envoy::extensions::filters::common::fault::v3::fault_delay::FaultDelaySecifier as DelayKind;
use api::envoy::extensions::filters::http::fault::v3::fault_abort::ErrorType;
use api::envoy::extensions::filters::http::fault::v3::{FaultAbort, HttpFault};
use resources::kinds::networking::virtual_service::{Abort, AbortStatus, Delay, Fault};

use super::values::{duration, share};

/// The faults.
pub fn faults(written: &Fault) -> HttpFault {
    HttpFault {
        delay: written.delay.as_ref().map(delay),
        abort: written.abort.as_ref().map(abort),
        ..Default::default()
    }
}

fn delay(written: &Delay) -> FaultDelay {
    FaultDelay {
        percentage: Some(share(written.percentage)),
        fault_delay_secifier: Some(DelayKind::FixedDelay(duration(written.fixed))),
    }
}

fn abort(written: &Abort) -> FaultAbort {
    FaultAbort {
        percentage: Some(share(written.percentage)),
        error_type: Some(match written.status {
            AbortStatus::Http(status) => ErrorType::HttpStatus(status.into()),
            AbortStatus::Grpc(status) => ErrorType::GrpcStatus(status.into()),
        }),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn shares_are_parts_of_a_million() {
        let faults = faults(&Fault {
            delay: Some(Delay { fixed: Duration::from_secs(7), percentage: 0.0001 }),
            abort: Some(Abort { status: AbortStatus::Grpc(14), percentage: 12.5 }),
        });
        let (delay, abort) = (faults.delay.unwrap(), faults.abort.unwrap());
        assert_eq!(delay.percentage.unwrap().numerator, 1);
        assert_eq!(abort.percentage.unwrap().numerator, 125_000);
        assert_eq!(abort.error_type, Some(ErrorType::GrpcStatus(14)));
        let seven = duration(Duration::from_secs(7));
        assert_eq!(delay.fault_delay_secifier, Some(DelayKind::FixedDelay(seven)));
    }
}
