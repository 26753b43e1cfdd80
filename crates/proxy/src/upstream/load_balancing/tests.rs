use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering;

use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::*;
use crate::upstream::host::{HostAddress, HostOptions};

fn host(port: u16, options: HostOptions) -> Arc<Host> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    Arc::new(Host::new(HostAddress::Tcp(address), options))
}

fn weighted(weights: &[u32]) -> Arc<HostSet> {
    let hosts = weights.iter().enumerate();
    let hosts = hosts.map(|(i, weight)| {
        host(i as u16 + 1, HostOptions { weight: *weight, ..HostOptions::default() })
    });
    Arc::new(HostSet::new(hosts.collect()))
}

fn cluster(lb_policy: LbPolicy) -> ClusterConfig {
    ClusterConfig { lb_policy, ..ClusterConfig::new("c") }
}

fn counts(balancer: &mut Balancer, rng: &mut SmallRng, picks: usize) -> Vec<usize> {
    let mut counts = vec![0; balancer.host_set().hosts.len()];
    for _ in 0..picks {
        counts[balancer.pick(rng).expect("a host")] += 1;
    }
    counts
}

#[test]
fn no_hosts_no_pick() {
    let mut rng = SmallRng::seed_from_u64(1);
    let mut balancer = Balancer::new(&cluster(LbPolicy::RoundRobin), Arc::default(), &mut rng);
    assert_eq!(balancer.pick(&mut rng), None);
}

#[test]
fn round_robin_serves_all_alike_and_by_weight() {
    let mut rng = SmallRng::seed_from_u64(2);
    let mut balancer =
        Balancer::new(&cluster(LbPolicy::RoundRobin), weighted(&[1, 1, 1]), &mut rng);
    assert_eq!(counts(&mut balancer, &mut rng, 300), [100, 100, 100]);
    let mut balancer =
        Balancer::new(&cluster(LbPolicy::RoundRobin), weighted(&[1, 2, 7]), &mut rng);
    let counted = counts(&mut balancer, &mut rng, 1000);
    for (count, expected) in counted.iter().zip([100_usize, 200, 700]) {
        assert!(count.abs_diff(expected) <= 2, "{counted:?}");
    }
}

#[test]
fn round_robin_starts_anywhere() {
    let firsts: std::collections::BTreeSet<_> = (0..32)
        .map(|seed| {
            let mut rng = SmallRng::seed_from_u64(seed);
            Balancer::new(&cluster(LbPolicy::RoundRobin), weighted(&[1, 1, 1, 1]), &mut rng)
                .pick(&mut rng)
        })
        .collect();
    assert!(firsts.len() > 1);
}

#[test]
fn least_request_avoids_the_busy() {
    let mut rng = SmallRng::seed_from_u64(3);
    let policy = LbPolicy::LeastRequest { choices: 8 };
    let set = weighted(&[1, 1]);
    set.hosts[0].counters.rq_active.store(50, Ordering::Relaxed);
    let mut balancer = Balancer::new(&cluster(policy.clone()), set, &mut rng);
    let counted = counts(&mut balancer, &mut rng, 200);
    assert!(counted[0] < 10, "{counted:?}");

    // With weights, load divides the weight: 4/(3+1) equals 1/(0+1).
    let set = weighted(&[4, 1]);
    set.hosts[0].counters.rq_active.store(3, Ordering::Relaxed);
    let mut balancer = Balancer::new(&cluster(policy), set, &mut rng);
    let counted = counts(&mut balancer, &mut rng, 200);
    assert!(counted[0].abs_diff(100) <= 4, "{counted:?}");
}

#[test]
fn the_unhealthy_are_left_out_until_panic() {
    let mut rng = SmallRng::seed_from_u64(4);
    let set = weighted(&[1; 10]);
    let mut balancer = Balancer::new(&cluster(LbPolicy::RoundRobin), Arc::clone(&set), &mut rng);
    for host in &set.hosts[..4] {
        host.set_discovered_health(DiscoveredHealth::Unhealthy);
    }
    set.health_changed();
    let counted = counts(&mut balancer, &mut rng, 60);
    assert_eq!(counted, [0, 0, 0, 0, 10, 10, 10, 10, 10, 10]);
    assert!(!balancer.is_panicking());
    for host in &set.hosts[4..6] {
        host.outlier.eject(0);
    }
    set.health_changed();
    assert_eq!(counts(&mut balancer, &mut rng, 100), [10; 10], "40 % healthy: all count");
    assert!(balancer.is_panicking());
}

#[test]
fn draining_hosts_get_nothing_even_in_panic() {
    let mut rng = SmallRng::seed_from_u64(5);
    let set = weighted(&[1, 1]);
    set.hosts[0].set_discovered_health(DiscoveredHealth::Draining);
    set.hosts[1].set_discovered_health(DiscoveredHealth::Unhealthy);
    let mut balancer = Balancer::new(&cluster(LbPolicy::RoundRobin), set, &mut rng);
    assert_eq!(counts(&mut balancer, &mut rng, 10), [0, 10]);
}

#[test]
fn without_panic_nothing_healthy_is_nothing() {
    let mut rng = SmallRng::seed_from_u64(6);
    let set = weighted(&[1]);
    set.hosts[0].set_discovered_health(DiscoveredHealth::Unhealthy);
    let config = ClusterConfig { healthy_panic_threshold: 0.0, ..cluster(LbPolicy::Random) };
    assert_eq!(Balancer::new(&config, set, &mut rng).pick(&mut rng), None);
}

#[test]
fn load_spills_to_the_next_priority() {
    let mut rng = SmallRng::seed_from_u64(7);
    let at =
        |port, priority| host(port, HostOptions { priority, weight: 1, ..HostOptions::default() });
    let set = Arc::new(HostSet::new(vec![at(1, 0), at(2, 0), at(3, 0), at(4, 0), at(5, 1)]));
    let mut balancer = Balancer::new(&cluster(LbPolicy::RoundRobin), Arc::clone(&set), &mut rng);
    assert_eq!(counts(&mut balancer, &mut rng, 100)[4], 0, "priority 1 waits");
    // Two of four: 140 % of 50 % is 70 %, so 30 % spill.
    set.hosts[0].outlier.eject(0);
    set.hosts[1].outlier.eject(0);
    set.health_changed();
    let counted = counts(&mut balancer, &mut rng, 10_000);
    assert!(counted[4].abs_diff(3_000) < 300, "{counted:?}");
    assert_eq!(counted[0] + counted[1], 0);
}

#[test]
fn a_retry_goes_elsewhere_if_it_can() {
    let mut rng = SmallRng::seed_from_u64(8);
    let mut balancer = Balancer::new(&cluster(LbPolicy::RoundRobin), weighted(&[1, 1]), &mut rng);
    for _ in 0..20 {
        let picked = balancer.pick_avoiding(&mut rng, 5, |host| host.address_text.ends_with(":1"));
        assert_eq!(picked, Some(1));
    }
    let mut alone = Balancer::new(&cluster(LbPolicy::RoundRobin), weighted(&[1]), &mut rng);
    assert_eq!(alone.pick_avoiding(&mut rng, 5, |_| true), Some(0), "better the same than none");
}

#[test]
fn localities_share_by_weight_and_lose_it_with_their_hosts() {
    use crate::upstream::host::Locality;
    let zone = |zone: &str| Arc::new(Locality { zone: zone.into(), ..Locality::default() });
    let (a, b, c) = (zone("a"), zone("b"), zone("c"));
    let of = |port: u16, locality: &Arc<Locality>, weight: u32| {
        let locality = Arc::clone(locality);
        host(port, HostOptions { locality, locality_weight: weight, ..HostOptions::default() })
    };
    // Of zone b every other host is ill; zone c has no weight.
    let hosts = vec![of(1, &a, 3), of(2, &b, 1), of(3, &b, 1), of(4, &c, 0)];
    let set = Arc::new(HostSet::new(hosts));
    let mut rng = SmallRng::seed_from_u64(9);
    let config = ClusterConfig { locality_weighted: true, ..cluster(LbPolicy::RoundRobin) };
    let mut balancer = Balancer::new(&config, Arc::clone(&set), &mut rng);
    let counted = counts(&mut balancer, &mut rng, 4000);
    assert!(counted[0].abs_diff(3000) < 150, "{counted:?}");
    assert!(counted[1].abs_diff(500) < 75 && counted[2].abs_diff(500) < 75, "{counted:?}");
    assert_eq!(counted[3], 0);
    set.hosts[1].set_active_check_failed(true);
    set.health_changed();
    let counted = counts(&mut balancer, &mut rng, 4000);
    // Half of its hosts times 1.4 makes 70 % of its weight.
    let expected = 4000.0 * 0.7 / 3.7;
    assert_eq!((counted[1], counted[3]), (0, 0));
    assert!((counted[2] as f64 - expected).abs() < 100.0, "{counted:?}");
}

#[test]
fn degraded_hosts_take_what_healthy_ones_cannot() {
    let of = |health: &[DiscoveredHealth]| {
        let hosts = health.iter().enumerate().map(|(i, health)| {
            host(i as u16 + 1, HostOptions { health: *health, ..HostOptions::default() })
        });
        Arc::new(HostSet::new(hosts.collect()))
    };
    use DiscoveredHealth::{Degraded, Healthy, Unhealthy};
    // (hosts, share of each in percent): a half that is healthy can take 70 %, two thirds 93 %, three quarters everything.
    let table: &[(&[DiscoveredHealth], &[usize])] = &[
        (&[Healthy, Degraded], &[70, 30]),
        (&[Healthy, Healthy, Degraded], &[47, 46, 7]),
        (&[Healthy, Healthy, Healthy, Degraded], &[34, 33, 33, 0]),
        (&[Degraded, Unhealthy], &[100, 0]),
        (&[Degraded, Degraded], &[50, 50]),
    ];
    for (health, shares) in table {
        let mut rng = SmallRng::seed_from_u64(3);
        let mut balancer = Balancer::new(&cluster(LbPolicy::RoundRobin), of(health), &mut rng);
        let counted = counts(&mut balancer, &mut rng, 4000);
        for (count, share) in counted.iter().zip(*shares) {
            assert!(count.abs_diff(share * 40) <= 120, "{health:?}: {counted:?}");
        }
    }
}
