//! What the agent asks of the engine beside it, over the engine's admin address: is it ready, and its numbers.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

const TIMEOUT: Duration = Duration::from_secs(5);
/// More than any engine's statistics.
const MAX_ANSWER: usize = 256 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[error("engine at {address}: {reason}")]
pub struct EngineError {
    address: SocketAddr,
    reason: String,
}

/// The engine's admin interface.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Engine {
    pub(crate) admin: SocketAddr,
}

/// Requests from the mesh to the application.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Inbound {
    /// Under way.
    pub(crate) active: u64,
    /// Ever.
    pub(crate) total: u64,
}

impl Inbound {
    fn of_stats(text: &str) -> Inbound {
        let mut inbound = Inbound::default();
        for (name, value) in text.lines().filter_map(|line| line.split_once(": ")) {
            let value = value.parse().unwrap_or(0);
            match name.rsplit_once("downstream_rq_") {
                Some((_, "active")) => inbound.active += value,
                Some((_, "total")) => inbound.total += value,
                _ => {}
            }
        }
        inbound
    }
}

impl Engine {
    /// Whether the engine serves its first whole configuration.
    pub(crate) async fn is_ready(self) -> bool {
        matches!(self.get("/ready").await, Ok((200, _)))
    }

    /// The engine's statistics in Prometheus' format.
    pub(crate) async fn prometheus(self) -> Result<Bytes, EngineError> {
        match self.get("/stats/prometheus?usedonly").await? {
            (200, body) => Ok(body),
            (status, _) => Err(self.error(format!("/stats/prometheus answers {status}"))),
        }
    }

    /// What came in over HTTP so far.
    pub(crate) async fn inbound(self) -> Result<Inbound, EngineError> {
        // `^http\.inbound.*downstream_rq_(active|total)$`
        let path = "/stats?filter=%5Ehttp%5C.inbound.%2Adownstream_rq_%28active%7Ctotal%29%24";
        match self.get(path).await? {
            (200, body) => Ok(Inbound::of_stats(&String::from_utf8_lossy(&body))),
            (status, _) => Err(self.error(format!("/stats answers {status}"))),
        }
    }

    async fn get(self, path: &str) -> Result<(u16, Bytes), EngineError> {
        match tokio::time::timeout(TIMEOUT, self.exchange(path)).await {
            Ok(answer) => answer.map_err(|error| self.error(error.to_string())),
            Err(_) => Err(self.error(format!("no answer to {path}"))),
        }
    }

    async fn exchange(
        self,
        path: &str,
    ) -> Result<(u16, Bytes), Box<dyn std::error::Error + Send + Sync>> {
        let socket = TokioIo::new(TcpStream::connect(self.admin).await?);
        let (mut client, connection) = http1::handshake(socket).await?;
        let driver = tokio::spawn(connection);
        let request = http::Request::get(path)
            .header("host", self.admin.to_string())
            .body(Empty::<Bytes>::new())?;
        let answer = client.send_request(request).await?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await?.to_bytes();
        driver.abort();
        Ok((status, body))
    }

    fn error(self, reason: String) -> EngineError {
        EngineError { address: self.admin, reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_added_up_over_listeners() {
        let text = "http.inbound_127.0.0.1_80.downstream_rq_active: 2\n\
                    http.inbound_127.0.0.1_80.downstream_rq_total: 40\n\
                    http.inbound_127.0.0.1_81.downstream_rq_active: 1\n\
                    http.inbound_127.0.0.1_81.downstream_rq_total: 2\n";
        assert_eq!(Inbound::of_stats(text), Inbound { active: 3, total: 42 });
        assert_eq!(Inbound::of_stats(""), Inbound::default());
    }
}
