//! Well over five hundred requests under seventeen configurations, the same over raw sockets to Outrigger and to the real
//! Envoy: what the client is answered and what the upstream was asked must be the same, but for the differences below,
//! which `docs/compat/http1.md` gives the reasons for.

mod configurations;
mod requests;

use std::collections::HashMap;
use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use e2e::{Act, Connection, Engine, Proxy, Upstream, binaries};

use requests::Request;

/// Whether a difference is to be expected of a request.
type Concerns = fn(&Request) -> bool;

/// Requests that are answered otherwise on purpose, and the words of the compatibility page that say why.
const DIFFERENCES: &[(Concerns, &str)] = &[
    (
        |r| r.configuration == "normalized" && r.line == "GET // HTTP/1.1",
        "`merge_slashes` makes `/` of `//`",
    ),
    (|r| r.headers.contains("expect: 100-continue"), "`Expect: 100-continue` without a body"),
    (|r| r.headers.contains("accept: a\r\naccept: b"), "Repeated fields stay repeated"),
    (|r| r.headers == "Host: \r\n", "an empty `Host`"),
];

#[test]
fn requests_are_answered_and_passed_on_as_by_envoy() -> Result<()> {
    if binaries::envoy().is_none() {
        binaries::skip("requests_are_answered_and_passed_on_as_by_envoy", "envoy");
        return Ok(());
    }
    let requests = requests::all();
    let (ours, envoys) = std::thread::scope(|scope| {
        let envoys = scope.spawn(|| answers(Engine::Envoy, &requests));
        (answers(Engine::Outrigger, &requests), envoys.join())
    });
    let envoys = envoys.map_err(|_| anyhow::anyhow!("the thread of Envoy panicked"))??;
    let mut unexplained = Vec::new();
    let mut explained = vec![0; DIFFERENCES.len()];
    for ((request, ours), envoys) in requests.iter().zip(ours?).zip(envoys) {
        if ours == envoys {
            continue;
        }
        match DIFFERENCES.iter().position(|(applies, _)| applies(request)) {
            Some(known) => explained[known] += 1,
            None => unexplained.push(difference(request, &ours, &envoys)),
        }
    }
    ensure!(unexplained.is_empty(), "{} differ:\n{}", unexplained.len(), unexplained.join("\n"));
    for ((_, reason), count) in DIFFERENCES.iter().zip(explained) {
        ensure!(count > 0, "nothing differs any more about: {reason}");
    }
    Ok(())
}

#[test]
fn what_differs_from_envoy_is_documented() -> Result<()> {
    let page = std::fs::read_to_string(binaries::root().join("docs/compat/http1.md"))?;
    for (_, reason) in DIFFERENCES {
        ensure!(page.contains(reason), "docs/compat/http1.md does not say why: {reason}");
    }
    Ok(())
}

/// What every request led to: the lines of the answer and of the request that the upstream got, without what is different
/// each time.
fn answers(engine: Engine, requests: &[Request]) -> Result<Vec<Vec<String>>> {
    let upstream = Upstream::doing(|request| {
        let (head, length) = (&request.head, request.head.len());
        let answer =
            format!("HTTP/1.1 200 OK\r\nx-upstream: yes\r\ncontent-length: {length}\r\n\r\n{head}");
        Act::Send(answer.into_bytes())
    })?;
    let proxy = Proxy::start_engine(engine, &configurations::bootstrap(upstream.port()))?;
    let mut listeners: HashMap<&str, SocketAddr> = HashMap::new();
    let mut all = Vec::with_capacity(requests.len());
    for request in requests {
        let address = match listeners.get(request.configuration) {
            Some(known) => *known,
            None => proxy.listener(request.configuration)?,
        };
        listeners.insert(request.configuration, address);
        let answer = ask(address, request)
            .with_context(|| format!("{engine:?}, {}: {}", request.configuration, request.line))?;
        all.push(answer);
    }
    Ok(all)
}

fn ask(address: SocketAddr, request: &Request) -> Result<Vec<String>> {
    let mut connection = Connection::open(address)?;
    connection.send(request.bytes())?;
    let mut lines = Vec::new();
    loop {
        let (status, headers, body) = if request.is_head() {
            let (status, headers) = connection.head()?;
            (status, headers, String::new())
        } else {
            let response = connection.response()?;
            let body = response.text();
            (response.status, response.headers, body)
        };
        lines.push(status.to_string());
        lines.extend(comparable(address, request, headers));
        if status >= 200 {
            lines.push("--".to_owned());
            lines.extend(asked(address, request, &body));
            return Ok(lines);
        }
    }
}

/// A body, which is the upstream's request, if it was asked.
fn asked(address: SocketAddr, request: &Request, body: &str) -> Vec<String> {
    let mut lines = body.split("\r\n");
    let first = lines.next().unwrap_or_default().to_owned();
    let headers = lines.filter_map(|line| line.split_once(':'));
    let headers = headers.map(|(n, v)| (n.to_ascii_lowercase(), v.trim().to_owned())).collect();
    std::iter::once(first).chain(comparable(address, request, headers)).collect()
}

/// Header lines, sorted, without what is different each time or says how long something took.
fn comparable(
    address: SocketAddr,
    request: &Request,
    headers: Vec<(String, String)>,
) -> Vec<String> {
    let port = address.port().to_string();
    let mut lines: Vec<String> = headers
        .into_iter()
        .filter(|(name, _)| {
            !matches!(&**name, "date" | "content-length" | "x-envoy-upstream-service-time")
        })
        .map(|(name, value)| {
            let value = match &*name {
                "x-request-id" if !request.headers.contains(&value) => "made up".to_owned(),
                // Envoy puts the machine's own address where the peer is on loopback.
                "x-forwarded-for" | "x-envoy-external-address" => {
                    let hops = value.split(',').map(str::trim);
                    let known = |hop: &str| {
                        if hop != "127.0.0.1" && request.headers.contains(hop) {
                            hop.to_owned()
                        } else {
                            "peer".to_owned()
                        }
                    };
                    hops.map(known).collect::<Vec<_>>().join(", ")
                }
                _ => value.replace(&port, "PORT"),
            };
            format!("{name}: {value}")
        })
        .collect();
    lines.sort();
    lines
}

fn difference(request: &Request, ours: &[String], envoys: &[String]) -> String {
    let only = |a: &[String], b: &[String]| -> Vec<String> {
        a.iter().filter(|line| !b.contains(line)).cloned().collect()
    };
    format!(
        "{}: {} {:?}\n  only Envoy: {:?}\n  only Outrigger: {:?}",
        request.configuration,
        request.line,
        request.headers,
        only(envoys, ours),
        only(ours, envoys)
    )
}
