//! The TCP proxy: bytes both ways, ends kept apart, resets passed on.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use proxy::listener::config::FilterChainMatch;
use proxy::stream_info::{AccessLogger, AccessLoggers, LogRecord};

use crate::engine::{Chain, Engine, PATIENCE, backend, connect, nobody, read_all};

#[test]
fn bytes_go_both_ways_in_bulk_and_in_pieces() {
    let engine = Engine::start();
    let echo = backend(|mut stream| {
        let mut copy = stream.try_clone().unwrap();
        std::io::copy(&mut copy, &mut stream).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
    });
    let address = engine.listen(Vec::new(), vec![Chain::to(engine.cluster(&[echo], None))]);
    let mut client = connect(address);
    for n in 0..100_u8 {
        client.write_all(&[n]).unwrap();
        let mut answer = [0];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(answer, [n]);
    }
    // More than every buffer on the way: writer and reader must go on together.
    let sent: Vec<u8> = (0..8_000_000_u32).map(|n| (n >> 3) as u8).collect();
    let mut writer = client.try_clone().unwrap();
    let copy = sent.clone();
    let thread = std::thread::spawn(move || {
        writer.write_all(&copy).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let received = read_all(client);
    thread.join().unwrap();
    assert!(received == sent, "{} of {} bytes came back", received.len(), sent.len());
}

#[test]
fn one_side_may_end_before_the_other() {
    let engine = Engine::start();
    let upper = backend(|mut stream| {
        let all = read_all(&stream);
        stream.write_all(&all.to_ascii_uppercase()).unwrap();
    });
    let address = engine.listen(Vec::new(), vec![Chain::to(engine.cluster(&[upper], None))]);
    let mut client = connect(address);
    client.write_all(b"half closed").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(client), b"HALF CLOSED");

    let (heard, hears) = mpsc::channel();
    let speaks_first = backend(move |mut stream| {
        stream.write_all(b"bye").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        heard.send(read_all(stream)).unwrap();
    });
    let address = engine.listen(Vec::new(), vec![Chain::to(engine.cluster(&[speaks_first], None))]);
    let mut client = connect(address);
    assert_eq!(read_all(&client), b"bye");
    client.write_all(b"still here").unwrap();
    drop(client);
    assert_eq!(hears.recv_timeout(PATIENCE).unwrap(), b"still here");
}

#[test]
fn a_reset_stays_a_reset() {
    let engine = Engine::start();
    let reset_on_close = |stream: &std::net::TcpStream| {
        socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
    };
    let resets = backend(move |mut stream| {
        stream.read_exact(&mut [0; 4]).unwrap();
        reset_on_close(&stream);
    });
    let address = engine.listen(Vec::new(), vec![Chain::to(engine.cluster(&[resets], None))]);
    let mut client = connect(address);
    client.write_all(b"ping").unwrap();
    let error = client.read(&mut [0; 16]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);

    let (told, tells) = mpsc::channel();
    let listens = backend(move |mut stream| {
        stream.read_exact(&mut [0; 4]).unwrap();
        stream.write_all(b"pong").unwrap();
        told.send(stream.read(&mut [0; 16]).map_err(|error| error.kind())).unwrap();
    });
    let address = engine.listen(Vec::new(), vec![Chain::to(engine.cluster(&[listens], None))]);
    let mut client = connect(address);
    client.write_all(b"ping").unwrap();
    client.read_exact(&mut [0; 4]).unwrap();
    reset_on_close(&client);
    drop(client);
    assert_eq!(tells.recv_timeout(PATIENCE).unwrap(), Err(ErrorKind::ConnectionReset));
}

#[test]
fn without_a_host_the_connection_is_closed() {
    let engine = Engine::start();
    for hosts in [&[][..], &[nobody()][..]] {
        let address = engine.listen(Vec::new(), vec![Chain::to(engine.cluster(hosts, None))]);
        assert_eq!(read_all(connect(address)), b"");
    }
}

#[test]
fn silence_ends_a_session() {
    let engine = Engine::start();
    let silent = backend(|stream| drop(read_all(stream)));
    let idle_timeout = Some(Duration::from_millis(50));
    let chain = Chain { idle_timeout, ..Chain::to(engine.cluster(&[silent], None)) };
    let address = engine.listen(Vec::new(), vec![chain]);
    assert_eq!(read_all(connect(address)), b"");
}

/// Tells the response flags of every session.
#[derive(Debug)]
struct Flags(Mutex<mpsc::Sender<String>>);

impl AccessLogger for Flags {
    fn log(&self, record: &LogRecord<'_>) {
        let _ = self.0.lock().unwrap().send(record.info.flags.to_string());
    }
}

#[test]
fn a_listener_tells_of_connections_that_no_chain_takes_and_of_all_others() {
    let engine = Engine::start();
    let cluster = engine.cluster(&[backend(drop)], None);
    let serve = |chain: Chain| {
        let (told, tells) = mpsc::channel();
        let loggers: AccessLoggers = vec![Arc::new(Flags(Mutex::new(told)))];
        let address = engine.listen_logged(Vec::new(), vec![chain], loggers);
        let _ = read_all(connect(address));
        tells.recv_timeout(PATIENCE).unwrap()
    };
    let elsewhere = FilterChainMatch { destination_port: Some(1), ..FilterChainMatch::default() };
    assert_eq!(serve(Chain { criteria: elsewhere, ..Chain::to(cluster) }), "NR");
    assert_eq!(serve(Chain::to(cluster)), "-");
}

#[test]
fn flags_say_who_ended_a_session_as_in_envoy() {
    let engine = Engine::start();
    let reset_on_close = |stream: &std::net::TcpStream| {
        socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
    };
    let serve = |hosts: &[std::net::SocketAddr], idle_timeout| {
        let (told, tells) = mpsc::channel();
        let access_loggers: AccessLoggers = vec![Arc::new(Flags(Mutex::new(told)))];
        let cluster = engine.cluster(hosts, None);
        let chain = Chain { access_loggers, idle_timeout, ..Chain::to(cluster) };
        (engine.listen(Vec::new(), vec![chain]), tells)
    };
    let flags = |tells: &mpsc::Receiver<String>| tells.recv_timeout(PATIENCE).unwrap();

    let (address, tells) = serve(&[nobody()], None);
    let _ = read_all(connect(address));
    assert_eq!(flags(&tells), "UF,URX");

    let (address, tells) = serve(&[], None);
    let _ = read_all(connect(address));
    assert_eq!(flags(&tells), "UH");

    let resets = backend(move |mut stream| {
        stream.read_exact(&mut [0; 4]).unwrap();
        reset_on_close(&stream);
    });
    let (address, tells) = serve(&[resets], None);
    let mut client = connect(address);
    client.write_all(b"ping").unwrap();
    let _ = client.read(&mut [0; 16]);
    assert_eq!(flags(&tells), "UR");

    let listens = backend(|mut stream| {
        stream.write_all(b"hi").unwrap();
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    let (address, tells) = serve(&[listens], None);
    let mut client = connect(address);
    client.read_exact(&mut [0; 2]).unwrap();
    reset_on_close(&client);
    drop(client);
    assert_eq!(flags(&tells), "-");

    let (address, tells) = serve(&[listens], Some(Duration::from_millis(50)));
    let _ = read_all(connect(address));
    assert_eq!(flags(&tells), "-", "silence is told by the connection's termination details");
}
