//! TLS down and up, and the chain that a ClientHello leads to.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use identity::tls::{ClientOptions, Validation};
use proxy::listener::config::{FilterChainMatch, ListenerFilter};
use proxy::network::tls::Secrets;
use proxy::router::config::RoutePolicy;
use rustls::{ClientConnection, StreamOwned};

use crate::engine::{Authority, Chain, Engine, backend, connect, read_all};
use crate::web::{Backend, route};

const INSPECT_TLS: ListenerFilter =
    ListenerFilter::TlsInspector { max_client_hello_size: 16 * 1024 };

/// A backend that says its name to whoever speaks to it.
fn named(name: &'static str) -> SocketAddr {
    backend(move |mut stream| {
        let mut word = [0; 5];
        stream.read_exact(&mut word).unwrap();
        write!(stream, "{name} heard {}", String::from_utf8_lossy(&word)).unwrap();
    })
}

fn client(
    address: SocketAddr,
    sni: &str,
    trust: Validation,
) -> StreamOwned<ClientConnection, TcpStream> {
    let options = ClientOptions { validation: trust, ..ClientOptions::default() };
    let config = identity::tls::client_config(&options).unwrap();
    let connection = ClientConnection::new(config, sni.to_owned().try_into().unwrap()).unwrap();
    StreamOwned::new(connection, connect(address))
}

fn by_name(authority: &Authority) -> Validation {
    Validation { match_server_name: true, ..authority.validation() }
}

#[test]
fn the_client_hello_leads_to_its_chain_and_certificate() {
    let engine = Engine::start();
    let authority = Authority::new();
    let chain = |name: &str, cluster| Chain {
        criteria: FilterChainMatch {
            server_names: vec![name.to_owned()],
            transport_protocol: "tls".into(),
            ..FilterChainMatch::default()
        },
        tls: Some(authority.server(&[name])),
        ..Chain::to(cluster)
    };
    let chains = vec![
        chain("a.example", engine.cluster(&[named("a")], None)),
        chain("b.example", engine.cluster(&[named("b")], None)),
        Chain {
            criteria: FilterChainMatch {
                transport_protocol: "raw_buffer".into(),
                ..Default::default()
            },
            ..Chain::to(engine.cluster(&[named("plain")], None))
        },
    ];
    let address = engine.listen(vec![INSPECT_TLS], chains);
    for name in ["a", "b"] {
        let host = format!("{name}.example");
        let mut client = client(address, &host, by_name(&authority));
        client.write_all(b"hello").unwrap();
        assert_eq!(String::from_utf8(read_all(client)).unwrap(), format!("{name} heard hello"));
    }
    let mut plain = connect(address);
    plain.write_all(b"howdy").unwrap();
    assert_eq!(read_all(plain), b"plain heard howdy");
    let mut stranger = client(address, "c.example", authority.validation());
    assert!(
        stranger.write_all(b"hello").and_then(|()| stranger.read(&mut [0])).is_err(),
        "no chain"
    );
}

#[test]
fn several_certificates_are_chosen_from_by_name_without_an_inspector() {
    let engine = Engine::start();
    let authority = Authority::new();
    let tls = Some(authority.server(&["one.example", "two.example"]));
    let chain = Chain { tls, ..Chain::to(engine.cluster(&[named("any")], None)) };
    let address = engine.listen(Vec::new(), vec![chain]);
    for host in ["one.example", "two.example"] {
        let mut client = client(address, host, by_name(&authority));
        client.write_all(b"hello").unwrap();
        assert_eq!(read_all(client), b"any heard hello");
    }
}

#[test]
fn one_hop_seals_what_the_next_opens() {
    let engine = Engine::start();
    let authority = Authority::new();
    let inner = Chain {
        tls: Some(authority.server(&["inner.example"])),
        ..Chain::to(engine.cluster(&[named("inner")], None))
    };
    let inner = engine.listen(Vec::new(), vec![inner]);
    let sealed = engine.cluster(&[inner], Some(authority.client("inner.example")));
    let outer = engine.listen(Vec::new(), vec![Chain::to(sealed)]);
    let mut client = connect(outer);
    client.write_all(b"hello").unwrap();
    assert_eq!(read_all(client), b"inner heard hello");

    // A host with another name, or vouched for by somebody else, gets nothing.
    for client_side in [authority.client("other.example"), Authority::new().client("inner.example")]
    {
        let cluster = engine.cluster(&[inner], Some(client_side));
        let outer = engine.listen(Vec::new(), vec![Chain::to(cluster)]);
        let mut client = connect(outer);
        // The proxy may close before or after the word is written.
        let _ = client.write_all(b"hello");
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer);
        assert_eq!(answer, b"");
    }
}

#[test]
fn megabytes_cross_two_hops_of_tls() {
    let engine = Engine::start();
    let authority = Authority::new();
    let echo = backend(|mut stream| {
        let all = read_all(&stream);
        stream.write_all(&all).unwrap();
    });
    let inner = Chain {
        tls: Some(authority.server(&["inner.example"])),
        ..Chain::to(engine.cluster(&[echo], None))
    };
    let inner = engine.listen(Vec::new(), vec![inner]);
    let sealed = engine.cluster(&[inner], Some(authority.client("inner.example")));
    let outer = engine.listen(Vec::new(), vec![Chain::to(sealed)]);
    let sent: Vec<u8> = (0..3_000_000_u32).map(|n| (n >> 5) as u8).collect();
    let mut client = connect(outer);
    client.write_all(&sent).unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(read_all(client) == sent);
}

#[test]
fn a_new_certificate_serves_new_handshakes_and_closes_nothing() {
    let engine = Engine::start();
    let (old, new) = (Authority::new(), Authority::new());
    let echo = backend(|mut stream| {
        let mut copy = stream.try_clone().unwrap();
        std::io::copy(&mut copy, &mut stream).unwrap();
    });
    let tls = old.server(&["a.example"]);
    let chain = Chain { tls: Some(Arc::clone(&tls)), ..Chain::to(engine.cluster(&[echo], None)) };
    let address = engine.listen(Vec::new(), vec![chain]);
    let mut early = client(address, "a.example", old.validation());
    let ask = |stream: &mut StreamOwned<ClientConnection, TcpStream>| {
        let mut answer = [0; 4];
        stream
            .write_all(b"ping")
            .and_then(|()| stream.read_exact(&mut answer))
            .map(|()| answer == *b"ping")
    };
    assert!(ask(&mut early).unwrap());
    let secrets = Secrets { certificates: vec![new.certificate("a.example")], validation: None };
    tls.set(tls.prepare(secrets).unwrap());
    assert!(ask(&mut early).unwrap(), "what is open stays open");
    assert!(ask(&mut client(address, "a.example", new.validation())).unwrap());
    assert!(
        ask(&mut client(address, "a.example", old.validation())).is_err(),
        "the old root is not enough"
    );
}

#[test]
fn the_last_answer_is_followed_by_a_goodbye() {
    let engine = Engine::start();
    let authority = Authority::new();
    let cluster = engine.cluster(&[Backend::echo().address], None);
    let tls = Some(authority.server(&["a.example"]));
    let address = engine.serve_https(tls, route(cluster, RoutePolicy::default()), |_| {});
    let mut client = client(address, "a.example", by_name(&authority));
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
    // Without close_notify this would be an error: whoever reads to the end could not tell it from a truncation.
    let all = String::from_utf8(read_all(&mut client)).unwrap();
    assert!(all.starts_with("HTTP/1.1 200 OK\r\n"), "{all}");
}
