//! Names of STRICT_DNS clusters, resolved again and again.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use tokio::task::JoinHandle;

use super::control::Control;
use crate::snapshot::DnsTask;
use crate::snapshot::clusters::LookupFamily;

/// With `respect_dns_ttl`, names are asked for no oftener than this.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// One task a cluster.
#[derive(Debug, Default)]
pub struct Resolutions {
    tasks: HashMap<Arc<str>, JoinHandle<()>>,
}

impl Resolutions {
    /// Starts, replaces or (with `None`) ends the resolution of a cluster's names.
    pub fn change(&mut self, cluster: Arc<str>, task: Option<DnsTask>, control: &Arc<Control>) {
        if let Some(running) = self.tasks.remove(&cluster) {
            running.abort();
        }
        if let Some(task) = task {
            let running =
                tokio::spawn(resolve(Arc::clone(&cluster), task, Arc::downgrade(control)));
            self.tasks.insert(cluster, running);
        }
    }
}

impl Drop for Resolutions {
    fn drop(&mut self) {
        self.tasks.values().for_each(JoinHandle::abort);
    }
}

async fn resolve(cluster: Arc<str>, task: DnsTask, control: Weak<Control>) {
    let resolver = match resolver(task.options.family) {
        Ok(resolver) => Some(resolver),
        Err(error) => {
            tracing::error!("cluster {cluster}: no resolver: {error}");
            None
        }
    };
    let mut addresses: HashMap<String, Vec<IpAddr>> = HashMap::new();
    loop {
        let mut interval = task.options.refresh_rate;
        let mut failures = 0;
        for name in &task.names {
            let Some(resolver) = &resolver else {
                failures += 1;
                continue;
            };
            match resolver.lookup_ip(name.as_str()).await {
                Ok(found) => {
                    if task.options.respect_ttl {
                        let left = found.valid_until().saturating_duration_since(Instant::now());
                        interval = interval.min(left).max(MIN_INTERVAL);
                    }
                    addresses.insert(name.clone(), in_stable_order(found.iter()));
                }
                // The addresses known go on being used: a failing resolver must not empty a cluster.
                Err(error) => {
                    failures += 1;
                    tracing::warn!("cluster {cluster}: {name}: {error}");
                }
            }
        }
        let Some(control) = control.upgrade() else { return };
        control.resolved(&cluster, addresses.clone(), task.names.len() as u64, failures);
        drop(control);
        tokio::time::sleep(interval).await;
    }
}

/// The system's resolver (`/etc/resolv.conf`, `/etc/hosts`).
fn resolver(family: LookupFamily) -> Result<TokioResolver, hickory_resolver::net::NetError> {
    let mut builder = TokioResolver::builder_tokio()?;
    builder.options_mut().ip_strategy = match family {
        LookupFamily::Auto => LookupIpStrategy::Ipv6thenIpv4,
        LookupFamily::V4Only => LookupIpStrategy::Ipv4Only,
        LookupFamily::V6Only => LookupIpStrategy::Ipv6Only,
        LookupFamily::V4Preferred => LookupIpStrategy::Ipv4thenIpv6,
        LookupFamily::All => LookupIpStrategy::Ipv4AndIpv6,
    };
    builder.build()
}

/// Round-robin DNS turns its answers around; that is no change. The family that is preferred stays in front.
fn in_stable_order(found: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = found.collect();
    let first_is_v6 = found.first().is_some_and(IpAddr::is_ipv6);
    found.sort_by_key(|address| (address.is_ipv6() != first_is_v6, *address));
    found.dedup();
    found
}
