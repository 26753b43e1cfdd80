//! Requests that are sent to another cluster, too, and whose answers nobody looks at (`request_mirror_policies`).
//!
//! A copy goes out once its request is whole, so that a slow client holds only one host; a body beyond the buffer limit
//! is not copied at all. It is an ordinary stream without a client.

use codec::headers::RequestHead;
use smallvec::SmallVec;

use super::config::Mirror;
use crate::arena::Key;
use crate::filter_manager::OutgoingRequest;
use crate::http::stream::Stream;
use crate::upstream::config::ClusterRef;
use crate::worker::Worker;

/// Copies that are to be sent once the request is whole.
#[derive(Debug, Default)]
pub struct Mirroring {
    /// Where to, with the policy that says so by its position in the route's.
    targets: SmallVec<[(ClusterRef, usize); 1]>,
    body: Vec<u8>,
    limit: usize,
}

impl Worker {
    /// A request goes out: draws which of its route's policies copy it.
    pub(super) fn begin_mirroring(&mut self, key: Key<Box<Stream>>) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        let Some(action) = stream.info.route.as_ref().and_then(|route| route.route_action()) else {
            return;
        };
        let policy = &action.policy;
        if policy.mirrors.is_empty() {
            return;
        }
        let mut mirroring = Mirroring::default();
        for (index, mirror) in policy.mirrors.iter().enumerate() {
            let is_drawn = mirror.fraction.is_none_or(|part| part.admits(self.random.draw()));
            let to = is_drawn.then(|| self.upstreams.resolve(&mirror.cluster, &stream.request));
            mirroring.targets.extend(to.flatten().map(|cluster| (cluster, index)));
        }
        if mirroring.targets.is_empty() {
            return;
        }
        let by_connection = stream.downstream.and_then(|down| self.downs.get(down));
        let limit = by_connection.map_or(usize::MAX, |down| down.buffer_limit);
        mirroring.limit = policy.most_kept_of_body(limit);
        stream.router.mirroring = Some(Box::new(mirroring));
        if stream.request_ready {
            self.send_mirrors(key);
        }
    }

    /// More of the request has come, perhaps the rest of it.
    pub(super) fn mirror_data(&mut self, key: Key<Box<Stream>>, data: &[u8]) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        let Some(mirroring) = &mut stream.router.mirroring else { return };
        if mirroring.body.len() + data.len() > mirroring.limit {
            stream.router.mirroring = None;
            return;
        }
        mirroring.body.extend_from_slice(data);
        if stream.request_ready {
            self.send_mirrors(key);
        }
    }

    fn send_mirrors(&mut self, key: Key<Box<Stream>>) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        let Some(mirroring) = stream.router.mirroring.take() else { return };
        let Some(route) = stream.info.route.clone() else { return };
        let Some(action) = route.route_action() else { return };
        let (timeout, protocol) = (stream.router.timeout, stream.info.protocol);
        for (cluster, index) in mirroring.targets {
            let Some(stream) = self.streams.get(key) else { return };
            let mut head = stream.request.clone();
            rename(&action.policy.mirrors[index], &mut head);
            let request = OutgoingRequest { head, body: mirroring.body.clone(), timeout };
            let copy = self.open_call(None, cluster, request);
            if let Some(copy) = self.streams.get_mut(copy) {
                copy.info.protocol = protocol;
            }
            self.begin_attempt(copy);
            self.arm_stream(copy);
        }
    }
}

/// Gives a copy the authority that shows that it is one.
fn rename(mirror: &Mirror, head: &mut RequestHead) {
    if let Some(host) = &mirror.host {
        head.set_authority(host.as_bytes());
    } else if mirror.marks_host {
        let authority = head.authority().to_vec();
        let port = memchr::memrchr(b':', &authority)
            .filter(|colon| authority[colon + 1..].iter().all(u8::is_ascii_digit))
            .unwrap_or(authority.len());
        head.set_authority(&[&authority[..port], b"-shadow", &authority[port..]].concat());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::config::ClusterChoice;

    #[test]
    fn copies_show_in_their_host() {
        let table = [
            ("example.com", None, true, "example.com-shadow"),
            ("example.com:8080", None, true, "example.com-shadow:8080"),
            ("[::1]", None, true, "[::1]-shadow"),
            ("[::1]:80", None, true, "[::1]-shadow:80"),
            ("example.com", None, false, "example.com"),
            ("example.com", Some("other"), true, "other"),
        ];
        for (authority, host, marks_host, expected) in table {
            let mirror = Mirror {
                cluster: ClusterChoice::Cluster(ClusterRef::NONE),
                fraction: None,
                marks_host,
                host: host.map(Into::into),
            };
            let mut head = RequestHead::new();
            head.set_authority(authority.as_bytes());
            rename(&mirror, &mut head);
            assert_eq!(head.authority(), expected.as_bytes());
        }
    }
}
