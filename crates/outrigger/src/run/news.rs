//! What is said of a workload while it runs: that it is ready and where, that its application is elsewhere than it was
//! told to be, that it asks for what is not there, and that the control plane is lost.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use agent::Agent;
use agent::app_listener::listening_ports;
use agent::app_ports::AppPorts;
use agent::health::{Health, accepts};

use super::membership::Membership;
use crate::tell;

/// A control plane that is back sooner was hardly gone.
const LOSS_WORTH_SAYING: Duration = Duration::from_secs(1);
/// An application that does not accept where it should is looked for elsewhere after this.
const FOLLOW_AFTER: Duration = Duration::from_secs(2);
/// A workload that is not ready after this is worth a word.
const SLOW_START: Duration = Duration::from_secs(5);

/// Says when the workload is ready, and follows an application that turns out to be elsewhere.
pub async fn readiness(
    agent: &Agent,
    member: &Membership,
    ports: &AppPorts,
    group: Option<u32>,
    is_announced: bool,
) {
    let mut health = agent.health();
    let mut follow = tokio::time::interval(FOLLOW_AFTER);
    follow.tick().await;
    let mut followed = None;
    let slow = tokio::time::sleep(SLOW_START);
    tokio::pin!(slow);
    let mut is_slow = false;
    loop {
        tokio::select! {
            healthy = health.wait_for(|health| *health == Health::Healthy) => {
                if healthy.is_err() {
                    return;
                }
                break;
            }
            _ = follow.tick() => {
                if let Some(found) = group.and_then(|group| elsewhere(group, ports))
                    && followed.replace(found) != Some(found)
                {
                    tell(&format!("the application does not listen on the port it was given (PORT), but on {found}: followed"));
                    agent.follow_app(AppPorts::all_on(&member.ports, found));
                }
            }
            () = &mut slow, if !is_slow => {
                is_slow = true;
                if let Health::Unhealthy(why) = &*agent.health().borrow() {
                    tell(&format!("not ready yet: {why}"));
                }
            }
        }
    }
    if is_announced {
        return;
    }
    let name = format!("{}.{}", member.group, member.namespace);
    match places(member.address, &member.ports).as_str() {
        "" => tell(&format!("{name} is ready")),
        places => tell(&format!("{name} is ready at {places}")),
    }
}

/// Where a workload is reached.
pub fn places(address: IpAddr, ports: &[u16]) -> String {
    let places = ports.iter().map(|port| SocketAddr::new(address, *port).to_string());
    places.collect::<Vec<_>>().join(", ")
}

/// Says which of the destinations that the application calls by TCP nobody knows: their ports are not open.
pub async fn upstreams(upstreams: &[String], address: IpAddr) {
    tokio::time::sleep(FOLLOW_AFTER).await;
    for upstream in upstreams {
        let port = upstream.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        if let Some(port) = port
            && !accepts(SocketAddr::new(address, port)).await
        {
            tell(&format!(
                "the mesh has no {upstream} to call by TCP: {address}:{port} opens as soon as there is a Service with that port"
            ));
        }
    }
}

/// Says when the control plane is lost, and when it is back. A stream that is reopened at once is not worth a word.
pub async fn control_plane(agent: &Agent) {
    let mut relay = agent.relay();
    loop {
        if relay.wait_for(|relay| relay.streams > 0).await.is_err()
            || relay.wait_for(|relay| relay.streams == 0).await.is_err()
        {
            return;
        }
        let back = relay.wait_for(|relay| relay.streams > 0);
        if tokio::time::timeout(LOSS_WORTH_SAYING, back).await.is_ok() {
            continue;
        }
        tell("the control plane is lost; everything stays as it is until it is back");
        if relay.wait_for(|relay| relay.streams > 0).await.is_ok() {
            tell("the control plane is back");
        }
    }
}

/// Where an application listens that does not listen where it should: on a port of the workload, else the lowest.
fn elsewhere(group: u32, ports: &AppPorts) -> Option<u16> {
    let found = listening_ports(group);
    if ports.0.values().any(|expected| found.contains(expected)) {
        return None;
    }
    ports.0.keys().copied().find(|port| found.contains(port)).or_else(|| found.first().copied())
}
