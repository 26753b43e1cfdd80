//! How a host is picked.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::field::{Fields, Names, Reason};

/// How a host is picked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoadBalancer {
    /// The policy; the mesh's where nothing was said.
    pub policy: Option<Policy>,
    /// How traffic keeps to localities; the mesh's where nothing was said.
    pub locality: Option<LocalityLb>,
    /// How traffic keeps to zones by their capacity.
    pub zone_aware: Option<ZoneAwareLb>,
    /// How a new host gets its share.
    pub warmup: Option<Warmup>,
}

/// The policy by which a host is picked.
#[derive(Clone, Debug, PartialEq)]
pub enum Policy {
    /// Without regard to the request.
    Simple(SimpleLb),
    /// By a hash of something in the request.
    ConsistentHash(ConsistentHash),
    /// By load that hosts report.
    BackendUtilization(BackendUtilization),
}

/// Policies without regard to the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SimpleLb {
    /// The mesh's choice: least request.
    Unspecified,
    /// Any.
    Random,
    /// The address that the client asked for.
    Passthrough,
    /// One after the other.
    RoundRobin,
    /// Of two, the one with fewer requests in flight.
    LeastRequest,
}

impl Names for SimpleLb {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("UNSPECIFIED", Self::Unspecified),
        ("LEAST_CONN", Self::LeastRequest),
        ("RANDOM", Self::Random),
        ("PASSTHROUGH", Self::Passthrough),
        ("ROUND_ROBIN", Self::RoundRobin),
        ("LEAST_REQUEST", Self::LeastRequest),
    ];
}

/// Hashing of requests.
#[derive(Clone, Debug, PartialEq)]
pub struct ConsistentHash {
    /// What is hashed.
    pub key: HashKey,
    /// How hashes are mapped to hosts.
    pub algorithm: HashAlgorithm,
}

/// What of a request is hashed.
#[derive(Clone, Debug, PartialEq)]
pub enum HashKey {
    /// A header.
    Header(String),
    /// A cookie, made if it is not there.
    Cookie {
        /// Name.
        name: String,
        /// Path of a cookie that is made.
        path: Option<String>,
        /// Life of a cookie that is made; zero is a session cookie; none makes no cookie.
        ttl: Option<Duration>,
        /// Further attributes of a cookie that is made.
        attributes: Vec<CookieAttribute>,
    },
    /// The client's address.
    SourceIp,
    /// A query parameter.
    QueryParameter(String),
}

/// An attribute of a cookie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookieAttribute {
    /// Name.
    pub name: String,
    /// Value, if it has one.
    pub value: Option<String>,
}

/// How hashes are mapped to hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashAlgorithm {
    /// A ring with at least so many points.
    RingHash {
        /// Points; 1024 where nothing was said.
        minimum_ring_size: u64,
    },
    /// Maglev tables.
    Maglev {
        /// Entries, a prime; 65537 where nothing was said.
        table_size: u64,
    },
}

/// Load that hosts report.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BackendUtilization {
    /// Metrics that count as utilisation.
    pub metric_names: Vec<String>,
    /// Weight of errors, in percent.
    pub error_utilization_penalty_percent: Option<u32>,
    /// Time between changes of weights.
    pub weight_update_period: Option<Duration>,
    /// Time that a new host's reports are not believed.
    pub weight_stabilization_period: Option<Duration>,
    /// Time after which a silent host's weight is forgotten.
    pub weight_expiration_period: Option<Duration>,
}

/// How traffic keeps to localities.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LocalityLb {
    /// Whether it is on; the mesh's where nothing was said.
    pub enabled: Option<bool>,
    /// Shares by locality.
    pub distribute: Vec<Distribute>,
    /// Regions to go to when one fails.
    pub failover: Vec<Failover>,
    /// Labels in order of importance: hosts that share more of them come first.
    pub failover_priority: Vec<String>,
}

/// Shares of the traffic of one locality.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distribute {
    /// `region/zone/subzone`, with `*` for the rest.
    pub from: String,
    /// Percentages by locality, adding up to 100.
    pub to: BTreeMap<String, u32>,
}

/// Where the traffic of a region goes when it fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failover {
    /// Region that fails.
    pub from: String,
    /// Region to go to.
    pub to: String,
}

/// How traffic keeps to zones by their capacity.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ZoneAwareLb {
    /// Whether it is on.
    pub enabled: Option<bool>,
    /// Regions to go to when one fails.
    pub failover: Vec<Failover>,
    /// Labels in order of importance.
    pub failover_priority: Vec<String>,
    /// Hosts below which zones are ignored.
    pub min_cluster_size: Option<u32>,
}

/// How a new host gets its share.
#[derive(Clone, Debug, PartialEq)]
pub struct Warmup {
    /// How long it takes.
    pub duration: Duration,
    /// Share to begin with, in percent; 10 where nothing was said.
    pub minimum_percent: Option<f64>,
    /// Shape of the curve; 1 is linear.
    pub aggression: Option<f64>,
}

impl LoadBalancer {
    pub(super) fn read(fields: &mut Fields<'_>, has_outlier_detection: bool) -> Self {
        fields.at_most_one(&["simple", "consistentHash", "backendUtilization"]);
        fields.at_most_one(&["localityLbSetting", "zoneAwareLbSetting"]);
        fields.deprecated("warmupDurationSecs", "warmup.duration");
        if fields.raw("simple").and_then(|simple| simple.as_str()) == Some("LEAST_CONN") {
            fields.warn_in("simple", "LEAST_CONN is deprecated, use LEAST_REQUEST instead");
        }
        let simple = fields.choice("simple").map(Policy::Simple);
        let hash =
            fields.object("consistentHash", ConsistentHash::read).map(Policy::ConsistentHash);
        let load = fields
            .object("backendUtilization", BackendUtilization::read)
            .map(Policy::BackendUtilization);
        let old_warmup = fields.duration("warmupDurationSecs");
        let old_warmup =
            old_warmup.map(|duration| Warmup { duration, minimum_percent: None, aggression: None });
        let locality = fields.object("localityLbSetting", LocalityLb::read);
        let needs_outliers = locality
            .as_ref()
            .is_some_and(|it| !it.failover.is_empty() || !it.failover_priority.is_empty());
        if needs_outliers && !has_outlier_detection {
            fields.warn_in(
                "localityLbSetting",
                "failover happens only with outlierDetection beside loadBalancer",
            );
        }
        Self {
            policy: simple.or(hash).or(load),
            locality,
            zone_aware: fields.object("zoneAwareLbSetting", |fields| ZoneAwareLb {
                enabled: fields.flag("enabled"),
                failover: read_failover(fields),
                failover_priority: fields.texts("failoverPriority"),
                min_cluster_size: fields.integer("minClusterSize", 1..=u32::MAX),
            }),
            warmup: fields.object("warmup", Warmup::read).or(old_warmup),
        }
    }
}

impl ConsistentHash {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.exactly_one(&[
            "httpHeaderName",
            "httpCookie",
            "useSourceIp",
            "httpQueryParameterName",
        ]);
        fields.at_most_one(&["ringHash", "maglev", "minimumRingSize"]);
        fields.deprecated("minimumRingSize", "ringHash.minimumRingSize");
        let header = fields.optional_text("httpHeaderName").map(HashKey::Header);
        let cookie = fields.object("httpCookie", read_cookie);
        let source = fields.flag("useSourceIp").map(|_| HashKey::SourceIp);
        let parameter = fields.optional_text("httpQueryParameterName").map(HashKey::QueryParameter);
        let old_size = fields.integer("minimumRingSize", 0..=i64::MAX);
        let ring = fields
            .object("ringHash", |ring| ring.integer("minimumRingSize", 0..=i64::MAX))
            .flatten();
        let maglev = fields.object("maglev", |maglev| maglev.integer("tableSize", 0..=i64::MAX));
        let algorithm = match maglev {
            Some(size) => {
                let table_size = size.unwrap_or(65_537).unsigned_abs();
                if table_size >= 5_000_011 || !is_prime(table_size) {
                    fields.error_in(
                        "maglev",
                        Reason::Invalid,
                        "tableSize must be a prime below 5000011",
                    );
                }
                HashAlgorithm::Maglev { table_size }
            }
            None => HashAlgorithm::RingHash {
                minimum_ring_size: ring.or(old_size).unwrap_or(1024).unsigned_abs(),
            },
        };
        let key = header.or(cookie).or(source).or(parameter).unwrap_or(HashKey::SourceIp);
        Self { key, algorithm }
    }
}

fn read_cookie(fields: &mut Fields<'_>) -> HashKey {
    let name = fields.required_text("name");
    let attributes = fields.list("attributes", |fields| CookieAttribute {
        name: fields.required_text("name"),
        value: fields.optional_text("value"),
    });
    for (index, attribute) in attributes.iter().enumerate() {
        if attributes[..index].iter().any(|earlier| earlier.name == attribute.name) {
            let message = format!("{:?} is there already", attribute.name);
            fields.error_at("attributes", index, Reason::Duplicate, message);
        }
    }
    HashKey::Cookie {
        name,
        path: fields.optional_text("path"),
        ttl: fields.duration_or_zero("ttl"),
        attributes,
    }
}

impl BackendUtilization {
    fn read(fields: &mut Fields<'_>) -> Self {
        Self {
            metric_names: fields.texts("metricNamesForComputingUtilization"),
            error_utilization_penalty_percent: fields.u32("errorUtilizationPenaltyPercent"),
            weight_update_period: fields.duration_or_zero("weightUpdatePeriod"),
            weight_stabilization_period: fields.duration_or_zero("weightStabilizationPeriod"),
            weight_expiration_period: fields.duration_or_zero("weightExpirationPeriod"),
        }
    }
}

impl LocalityLb {
    /// Reads the settings; MeshConfig has them too.
    pub fn read(fields: &mut Fields<'_>) -> Self {
        fields.at_most_one(&["distribute", "failover"]);
        fields.at_most_one(&["distribute", "failoverPriority"]);
        let distribute = fields.list("distribute", |fields| {
            let from = fields.required_text("from");
            let to = fields.u32_map("to");
            let total: u64 = to.values().map(|share| u64::from(*share)).sum();
            if total != 100 {
                fields.error_in(
                    "to",
                    Reason::Invalid,
                    format!("the shares add up to {total}, not 100"),
                );
            }
            Distribute { from, to }
        });
        Self {
            enabled: fields.flag("enabled"),
            distribute,
            failover: read_failover(fields),
            failover_priority: fields.texts("failoverPriority"),
        }
    }
}

fn read_failover(fields: &mut Fields<'_>) -> Vec<Failover> {
    fields.list("failover", |fields| {
        let read = Failover { from: fields.required_text("from"), to: fields.required_text("to") };
        if !read.from.is_empty() && read.from == read.to {
            fields.error_in("to", Reason::Invalid, "must be another region than from");
        }
        for (name, region) in [("from", &read.from), ("to", &read.to)] {
            if region.contains(['/', '*']) {
                fields.error_in(
                    name,
                    Reason::Invalid,
                    "must be a region, without zone or wildcard",
                );
            }
        }
        read
    })
}

impl Warmup {
    fn read(fields: &mut Fields<'_>) -> Self {
        if !fields.has("duration") {
            fields.require("duration");
        }
        let aggression = fields.number("aggression", 0.0..=f64::MAX);
        if aggression == Some(0.0) {
            fields.error_in("aggression", Reason::Invalid, "must be greater than 0");
        }
        Self {
            duration: fields.duration("duration").unwrap_or_default(),
            minimum_percent: fields.number("minimumPercent", 0.0..=100.0),
            aggression,
        }
    }
}

fn is_prime(number: u64) -> bool {
    number > 1
        && (2..)
            .take_while(|factor| factor * factor <= number)
            .all(|factor| !number.is_multiple_of(factor))
}
