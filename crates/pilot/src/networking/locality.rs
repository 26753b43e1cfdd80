//! How a client's requests keep to localities: shares that a rule writes, else the nearest first where failing instances
//! are told from others.

use resources::terms::traffic_policy::{LocalityLb, PolicySettings};

use crate::model::instance::Locality;

/// Which instances a client prefers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Preference {
    /// The nearest.
    Near {
        /// Where the client is.
        client: Locality,
        /// The region that comes after its own, if a rule names one.
        failover: Option<String>,
    },
    /// So many of a hundred requests to each `region/zone/subzone`, and none to others.
    Shares(Vec<(String, u32)>),
}

/// The preference of a client, if it has one. A rule's setting replaces the mesh's whole; near instances come first only
/// where it can be told that they fail.
pub fn preference(
    settings: &PolicySettings,
    mesh: &LocalityLb,
    client: &Locality,
) -> Option<Preference> {
    let rule = in_force(settings, mesh)?;
    if *client == Locality::default() {
        return None;
    }
    if !rule.distribute.is_empty() {
        let own = rule.distribute.iter().find(|shares| matches(&shares.from, client))?;
        let shares = own.to.iter().map(|(locality, share)| (locality.clone(), *share));
        return Some(Preference::Shares(shares.collect()));
    }
    settings.outlier_detection.as_ref()?;
    let failover = rule.failover.iter().find(|failover| failover.from == client.region);
    Some(Preference::Near {
        client: client.clone(),
        failover: failover.map(|failover| failover.to.clone()),
    })
}

/// Whether a cluster's localities are chosen by weight.
pub fn is_by_weight(settings: &PolicySettings, mesh: &LocalityLb) -> bool {
    in_force(settings, mesh).is_some_and(|rule| !rule.distribute.is_empty())
}

fn in_force<'a>(settings: &'a PolicySettings, mesh: &'a LocalityLb) -> Option<&'a LocalityLb> {
    let written = settings.load_balancer.as_ref().and_then(|balancer| balancer.locality.as_ref());
    Some(written.unwrap_or(mesh)).filter(|rule| rule.enabled != Some(false))
}

/// Whether a locality is meant by `region/zone/subzone`, of which the end may be missing or `*`.
pub fn matches(pattern: &str, locality: &Locality) -> bool {
    let parts = [&locality.region, &locality.zone, &locality.subzone];
    let mut wanted = pattern.split('/');
    parts.into_iter().all(|part| wanted.next().is_none_or(|wanted| wanted == "*" || wanted == part))
}

impl Preference {
    /// How far a locality is from being preferred; 0 is nearest. `None` for one that gets nothing.
    pub fn distance(&self, locality: &Locality) -> Option<u32> {
        match self {
            Preference::Shares(shares) => {
                shares.iter().any(|(pattern, _)| matches(pattern, locality)).then_some(0)
            }
            Preference::Near { client, failover } => Some(if locality.region != client.region {
                let elsewhere = failover.as_ref().is_some_and(|region| *region != locality.region);
                3 + u32::from(elsewhere)
            } else if locality.zone != client.zone {
                2
            } else {
                u32::from(locality.subzone != client.subzone)
            }),
        }
    }

    /// A locality's weight, of those that the instances of all localities add up to: its part of the share that its
    /// pattern has.
    pub fn weight(&self, locality: &Locality, own: u32, all: &[(&Locality, u32)]) -> u32 {
        let Preference::Shares(shares) = self else { return own };
        let Some((pattern, share)) = shares.iter().find(|(pattern, _)| matches(pattern, locality))
        else {
            return own;
        };
        let alike = all.iter().filter(|(other, _)| matches(pattern, other));
        let total: u64 = alike.map(|(_, weight)| u64::from(*weight)).sum();
        let part = u64::from(own) * u64::from(*share);
        u32::try_from(part.div_ceil(total.max(1))).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use resources::terms::traffic_policy::{Distribute, Failover, OutlierDetection};

    fn at(text: &str) -> Locality {
        let mut parts = text.split('/').map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        Locality { region: next(), zone: next(), subzone: next() }
    }

    #[test]
    fn the_nearest_come_first_and_then_the_region_that_is_named() {
        let settings = PolicySettings {
            outlier_detection: Some(OutlierDetection::default()),
            ..Default::default()
        };
        let mesh = LocalityLb {
            failover: vec![Failover { from: "eu".into(), to: "us".into() }],
            ..Default::default()
        };
        let found = preference(&settings, &mesh, &at("eu/a/1")).expect("a preference");
        let distances = ["eu/a/1", "eu/a/2", "eu/b/1", "us/a/1", "asia/a/1"]
            .map(|locality| found.distance(&at(locality)));
        assert_eq!(distances, [Some(0), Some(1), Some(2), Some(3), Some(4)]);
        assert_eq!(preference(&settings, &mesh, &Locality::default()), None, "nobody knows where");
        assert_eq!(preference(&PolicySettings::default(), &mesh, &at("eu/a/1")), None);
    }

    #[test]
    fn shares_are_of_the_first_rule_that_means_the_client() {
        let mesh = LocalityLb {
            distribute: vec![Distribute {
                from: "eu/*".into(),
                to: [("eu/a/*".to_owned(), 80), ("us".to_owned(), 20)].into(),
            }],
            ..Default::default()
        };
        let found =
            preference(&PolicySettings::default(), &mesh, &at("eu/b/1")).expect("a preference");
        let all = [(at("eu/a/1"), 3), (at("eu/a/2"), 1), (at("us/a/1"), 5), (at("eu/b/1"), 9)];
        let all: Vec<(&Locality, u32)> = all.iter().map(|(at, weight)| (at, *weight)).collect();
        let weights: Vec<u32> =
            all.iter().map(|(at, weight)| found.weight(at, *weight, &all)).collect();
        assert_eq!(weights[..3], [60, 20, 20]);
        assert_eq!(found.distance(all[3].0), None, "its own zone is not in the list");
        assert_eq!(preference(&PolicySettings::default(), &mesh, &at("asia/a/1")), None);
        assert!(is_by_weight(&PolicySettings::default(), &mesh));
        let off = LocalityLb { enabled: Some(false), ..mesh };
        assert!(!is_by_weight(&PolicySettings::default(), &off));
    }
}
