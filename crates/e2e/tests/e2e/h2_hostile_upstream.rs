//! HTTP/2 as a hostile or broken upstream answers it: the client is told of a failure and never of a success that was none, memory
//! is bounded, and the next answer of the same upstream arrives.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Result, bail, ensure};
use e2e::Proxy;

use crate::bootstrap::http_proxy_with;
use crate::h2_frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, Peer, RST_STREAM,
    SETTINGS, Told, field, frame, get, indexed_field, post, settings, window_update,
};
use crate::h2_h2spec::HTTP2_CLUSTER;
use crate::h2_hostile::{MEMORY, peak_memory};

/// What a hostile upstream does to the stream of a request.
type Attack = fn(&mut Peer, u32);

/// An HTTP/2 server that attacks as long as it is told to, and answers 200 afterwards.
struct Upstream {
    address: SocketAddr,
    is_hostile: Arc<AtomicBool>,
    is_over: Arc<AtomicBool>,
}

impl Upstream {
    fn start(attack: Attack) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let upstream = Self { address, is_hostile: Arc::default(), is_over: Arc::default() };
        let (is_hostile, is_over) = (upstream.is_hostile.clone(), upstream.is_over.clone());
        thread::spawn(move || {
            while let Ok(peer) = Peer::accept(&listener) {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                let is_hostile = is_hostile.clone();
                // Most attacks end with the proxy hanging up.
                thread::spawn(move || serve(peer, &is_hostile, attack).ok());
            }
        });
        Ok(upstream)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        TcpStream::connect(self.address).ok();
    }
}

fn serve(mut peer: Peer, is_hostile: &AtomicBool, attack: Attack) -> Result<()> {
    peer.preface()?;
    peer.send(&settings(&[(1, 0)]))?;
    while let Some(next) = peer.next()? {
        match next.kind {
            SETTINGS if next.flags & ACK == 0 => peer.send(&frame(SETTINGS, ACK, 0, &[]))?,
            PING if next.flags & ACK == 0 => peer.send(&frame(PING, ACK, 0, &next.payload))?,
            HEADERS if is_hostile.load(Ordering::Relaxed) => attack(&mut peer, next.stream),
            HEADERS => peer.send(&head(END_STREAM, next.stream, &[]))?,
            _ => {}
        }
    }
    Ok(())
}

/// The head of a 200 with more in its block.
fn head(flags: u8, stream: u32, more: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | flags, stream, &[&[0x88][..], more].concat())
}

/// Lets the upstream attack so many requests, one after the other, and gives what each client is told.
fn attacked(requests: usize, attack: Attack) -> Result<Vec<Told>> {
    let upstream = Upstream::start(attack)?;
    let manager = "codec_type: HTTP2\ndelayed_close_timeout: 0.05s";
    let bootstrap =
        http_proxy_with(upstream.address.port(), "timeout: 5s", manager) + HTTP2_CLUSTER;
    let proxy = Proxy::start(&bootstrap)?;
    let ask = |request: &[u8]| -> Result<Told> {
        let mut peer = Peer::open(proxy.listener("entrance")?)?;
        peer.send(request)?;
        peer.told(1)
    };
    for _ in 0..10 {
        ensure!(ask(&get(1, "/"))? == Told::Status(200), "before the attack");
    }
    let before = peak_memory(&proxy.process)?;
    upstream.is_hostile.store(true, Ordering::Relaxed);
    let told = (0..requests).map(|_| ask(&get(1, "/"))).collect::<Result<Vec<_>>>()?;
    let grown = peak_memory(&proxy.process)?.saturating_sub(before);
    ensure!(grown < MEMORY, "memory has grown by {} KiB", grown >> 10);
    upstream.is_hostile.store(false, Ordering::Relaxed);
    // A connection that is not yet known to be dead may still take one.
    for _ in 0..3 {
        if ask(&get(1, "/"))? == Told::Status(200) {
            return Ok(told);
        }
    }
    bail!("good answers do not arrive after the attack");
}

fn refused(requests: usize, attack: Attack) -> Result<()> {
    for told in attacked(requests, attack)? {
        ensure!(matches!(told, Told::Status(502 | 503)), "{told:?}");
    }
    Ok(())
}

#[test]
fn cve_2021_32780_and_39162_goaway_and_settings_together() -> Result<()> {
    refused(20, |peer, _| {
        let goaway = frame(GOAWAY, 0, 0, &[0; 8]);
        let none = settings(&[(3, 0), (4, 0)]);
        peer.send(&[goaway.clone(), none.clone(), goaway, none].concat()).ok();
    })
}

#[test]
fn cve_2023_35945_a_reset_after_goaway() -> Result<()> {
    refused(300, |peer, stream| {
        let goaway = frame(GOAWAY, 0, 0, &[&stream.to_be_bytes()[..], &[0; 4]].concat());
        let reset = frame(RST_STREAM, 0, stream, &2u32.to_be_bytes());
        peer.send(&[goaway, reset.clone(), reset].concat()).ok();
    })
}

#[test]
fn cve_2026_47774_fields_by_index() -> Result<()> {
    refused(20, |peer, stream| {
        let bomb = [indexed_field(b"set-cookie", &[b'x'; 4_000]), vec![0xbe; 12_000]].concat();
        peer.send(&head(END_STREAM, stream, &bomb)).ok();
    })
}

#[test]
fn cve_2024_27919_continuations_without_end() -> Result<()> {
    refused(3, |peer, stream| {
        peer.send(&frame(HEADERS, 0, stream, &[0x88])).ok();
        peer.flood(100_000, |_| frame(CONTINUATION, 0, stream, &field(b"x", b"y")));
    })
}

#[test]
fn answers_that_are_none() -> Result<()> {
    let attacks: &[(&str, Attack)] = &[
        ("no status", |peer, stream| {
            peer.send(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &field(b"x", b"y"))).ok();
        }),
        ("a status that is none", |peer, stream| {
            let block = field(b":status", b"2000");
            peer.send(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &block)).ok();
        }),
        ("a pseudo field of requests", |peer, stream| {
            peer.send(&head(END_STREAM, stream, &field(b":path", b"/"))).ok();
        }),
        ("a name in upper case", |peer, stream| {
            peer.send(&head(END_STREAM, stream, &field(b"X", b"y"))).ok();
        }),
        ("a line break in a value", |peer, stream| {
            peer.send(&head(END_STREAM, stream, &field(b"x", b"y\r\nset-cookie: a=b"))).ok();
        }),
        ("transfer-encoding", |peer, stream| {
            peer.send(&head(END_STREAM, stream, &field(b"transfer-encoding", b"chunked"))).ok();
        }),
        ("101", |peer, stream| {
            peer.send(&frame(HEADERS, END_HEADERS, stream, &field(b":status", b"101"))).ok();
        }),
        ("a 1xx that ends the stream", |peer, stream| {
            let block = field(b":status", b"103");
            peer.send(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &block)).ok();
        }),
        ("a length and no body", |peer, stream| {
            peer.send(&head(END_STREAM, stream, &field(b"content-length", b"3"))).ok();
        }),
        ("DATA before the head", |peer, stream| {
            peer.send(&frame(DATA, END_STREAM, stream, b"abc")).ok();
        }),
        ("a stream that nobody asked for", |peer, stream| {
            peer.send(&head(END_STREAM, stream + 2, &[])).ok();
        }),
        ("PUSH_PROMISE", |peer, stream| {
            peer.send(&frame(5, END_HEADERS, stream, &[0, 0, 0, 2, 0x82])).ok();
        }),
        ("compression out of step", |peer, stream| {
            peer.send(&head(END_STREAM, stream, &[0xfe])).ok();
        }),
        ("HTTP/1", |peer, _| {
            peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").ok();
        }),
    ];
    for (name, attack) in attacks {
        for told in attacked(2, *attack)? {
            ensure!(matches!(told, Told::Status(502 | 503)), "{name}: {told:?}");
        }
    }
    Ok(())
}

#[test]
fn early_answers_without_end() -> Result<()> {
    for told in attacked(2, |peer, stream| {
        let early = frame(HEADERS, END_HEADERS, stream, &field(b":status", b"103"));
        peer.flood(200_000, |_| early.clone());
    })? {
        ensure!(!matches!(told, Told::Status(200..=399)), "{told:?}");
    }
    Ok(())
}

#[test]
fn more_body_than_the_window_allows() -> Result<()> {
    let upstream = Upstream::start(|peer, stream| {
        peer.send(&head(0, stream, &[])).ok();
        peer.flood(4_000, |_| frame(DATA, 0, stream, &[b'x'; 16_384]));
    })?;
    let manager = "codec_type: HTTP2\ndelayed_close_timeout: 0.05s";
    let bootstrap =
        http_proxy_with(upstream.address.port(), "timeout: 5s", manager) + HTTP2_CLUSTER;
    let proxy = Proxy::start(&bootstrap)?;
    let before = peak_memory(&proxy.process)?;
    upstream.is_hostile.store(true, Ordering::Relaxed);
    // A client that takes nothing: the upstream's window stays shut, and what comes all the same ends the connection.
    let mut peer = Peer::open_with(proxy.listener("entrance")?, &[(1, 0), (4, 0)])?;
    peer.send(&get(1, "/"))?;
    ensure!(peer.told(1)? == Told::Status(200));
    ensure!(matches!(peer.told(1)?, Told::Reset(_)), "the overrun is told");
    let grown = peak_memory(&proxy.process)?.saturating_sub(before);
    ensure!(grown < MEMORY, "memory has grown by {} KiB", grown >> 10);
    Ok(())
}

#[test]
fn floods_of_control_frames() -> Result<()> {
    let attacks: &[Attack] = &[
        |peer, _| {
            peer.flood(300_000, |_| frame(PING, 0, 0, &[7; 8]));
        },
        |peer, _| {
            peer.flood(300_000, |_| settings(&[]));
        },
        |peer, _| {
            peer.flood(300_000, |_| window_update(0, 1));
        },
        |peer, stream| {
            peer.send(&head(0, stream, &[])).ok();
            peer.flood(300_000, |_| frame(DATA, 0, stream, &[]));
        },
    ];
    for attack in attacks {
        attacked(2, *attack)?;
    }
    Ok(())
}

#[test]
fn a_whole_answer_before_the_whole_request() -> Result<()> {
    let upstream = Upstream::start(|peer, stream| {
        let enough = frame(RST_STREAM, 0, stream, &[0; 4]);
        peer.send(&[head(END_STREAM, stream, &[]), enough].concat()).ok();
    })?;
    upstream.is_hostile.store(true, Ordering::Relaxed);
    let bootstrap = http_proxy_with(upstream.address.port(), "timeout: 5s", "codec_type: HTTP2")
        + HTTP2_CLUSTER;
    let proxy = Proxy::start(&bootstrap)?;
    let mut peer = Peer::open(proxy.listener("entrance")?)?;
    for stream in [1, 3, 5] {
        peer.send(&post(stream, "/"))?;
        ensure!(peer.told(stream)? == Told::Status(200));
    }
    Ok(())
}
