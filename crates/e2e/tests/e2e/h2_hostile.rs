//! HTTP/2 as an attacker sends it: each attack known by a CVE has its test. After it the worker serves a well-behaved client, the
//! statistic that tells the operator has risen, and memory is what it was but for a bounded rest.

use anyhow::{Context, Result, ensure};
use e2e::{Act, Process, Proxy, Upstream, wait_until};

use crate::bootstrap::http_proxy_with;
use crate::h2_frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PRIORITY, Peer,
    SETTINGS, Told, block, cancel, field, frame, get, indexed_field, post, settings, window_update,
};

const ENHANCE_YOUR_CALM: u32 = 11;

/// What an attack may leave behind in the process, debug build and allocator's habits included.
pub const MEMORY: u64 = 24 << 20;

/// The proxy under attack and what is behind it.
struct Scene {
    upstream: Upstream,
    proxy: Proxy,
    memory: u64,
}

impl Scene {
    fn new() -> Result<Self> {
        Self::with("")
    }

    /// With fields of the connection manager.
    fn with(manager: &str) -> Result<Self> {
        let upstream = Upstream::doing(|request| match request.target() {
            "/stall" => Act::Stall,
            "/large" => Act::Answer(200, "x".repeat(4 << 20)),
            _ => Act::Answer(200, "hello".to_owned()),
        })?;
        let manager = format!("codec_type: HTTP2\n{manager}");
        let proxy = Proxy::start(&http_proxy_with(upstream.port(), "timeout: 60s", &manager))?;
        let scene = Self { upstream, proxy, memory: 0 };
        // What the first requests allocate is no attack's fault.
        for _ in 0..20 {
            scene.serves()?;
        }
        let memory = peak_memory(&scene.proxy.process)?;
        Ok(Self { memory, ..scene })
    }

    fn open(&self) -> Result<Peer> {
        Peer::open(self.proxy.listener("entrance")?)
    }

    /// A good client gets its answer.
    fn serves(&self) -> Result<()> {
        let mut peer = self.open()?;
        peer.send(&get(1, "/good"))?;
        ensure!(peer.told(1)? == Told::Status(200), "a good client is not served");
        Ok(())
    }

    /// Memory is bounded now, whatever goes on.
    fn is_bounded(&self) -> Result<()> {
        let grown = peak_memory(&self.proxy.process)?.saturating_sub(self.memory);
        ensure!(grown < MEMORY, "memory has grown by {} KiB", grown >> 10);
        Ok(())
    }

    /// After an attack: the statistic has risen (if there is one), a good client is served, memory is bounded.
    fn survived(&self, statistic: Option<&str>) -> Result<()> {
        if let Some(name) = statistic {
            wait_until(
                name,
                || Ok((self.proxy.stat(name)?.unwrap_or_default() > 0).then_some(())),
            )?;
        }
        for _ in 0..20 {
            self.serves()?;
        }
        self.is_bounded()
    }
}

/// The most bytes of memory that a process has had in use.
pub fn peak_memory(process: &Process) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? << 10)
}

/// The connection was ended for it: with ENHANCE_YOUR_CALM, or with that lost in the noise that the attacker still makes.
fn calmed(peer: &mut Peer) -> Result<()> {
    let told = peer.end()?;
    ensure!(matches!(told, Told::GoAway(ENHANCE_YOUR_CALM) | Told::Closed), "{told:?}");
    Ok(())
}

#[test]
fn cve_2019_9511_and_9517_windows_wide_open_and_nothing_read() -> Result<()> {
    let scene = Scene::new()?;
    let mut peer = Peer::open_with(scene.proxy.listener("entrance")?, &[(1, 0), (4, 0x7fff_ffff)])?;
    peer.send(&window_update(0, 0x7fff_0000))?;
    for stream in 0..50 {
        peer.send(&get(stream * 2 + 1, "/large"))?;
    }
    // 200 MiB want to come. The socket is full, and nothing piles up behind it.
    wait_until("the upstream to be asked", || {
        Ok((scene.upstream.received().len() >= 60).then_some(()))
    })?;
    scene.survived(None)
}

#[test]
fn cve_2019_9512_pings_whose_answers_nobody_reads() -> Result<()> {
    let scene = Scene::new()?;
    let mut peer = Peer::open_deaf(scene.proxy.listener("entrance")?)?;
    peer.flood(2_000_000, |_| frame(PING, 0, 0, &[7; 8]));
    scene.survived(Some("http2.outbound_control_flood"))
}

#[test]
fn cve_2019_9513_priorities() -> Result<()> {
    let scene = Scene::new()?;
    let mut peer = scene.open()?;
    peer.flood(100_000, |round| frame(PRIORITY, 0, round as u32 * 2 + 1, &[0, 0, 0, 0, 16]));
    calmed(&mut peer)?;
    scene.survived(Some("http2.inbound_priority_frames_flood"))
}

#[test]
fn cve_2019_9514_resets_that_the_server_is_made_to_send() -> Result<()> {
    let scene = Scene::with("http2_protocol_options: { max_concurrent_streams: 1 }")?;
    let mut peer = Peer::open_deaf(scene.proxy.listener("entrance")?)?;
    // One stream too many is refused by RST_STREAM.
    peer.flood(1_500_000, |round| get(round as u32 * 2 + 1, "/stall"));
    scene.survived(Some("http2.outbound_control_flood"))
}

#[test]
fn cve_2019_9515_settings_whose_acknowledgements_nobody_reads() -> Result<()> {
    let scene = Scene::new()?;
    let mut peer = Peer::open_deaf(scene.proxy.listener("entrance")?)?;
    peer.flood(2_000_000, |_| settings(&[]));
    scene.survived(Some("http2.outbound_control_flood"))
}

#[test]
fn cve_2019_9516_fields_without_name() -> Result<()> {
    let scene = Scene::new()?;
    for _ in 0..50 {
        let mut peer = scene.open()?;
        let nameless: Vec<u8> = (0..2_000).flat_map(|_| indexed_field(b"", b"")).collect();
        let block = [block("GET", "/"), nameless].concat();
        peer.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)).ok();
        let told = peer.told(1)?;
        ensure!(!matches!(told, Told::Status(200)), "{told:?}");
    }
    scene.survived(None)
}

#[test]
fn cve_2019_9518_empty_frames() -> Result<()> {
    for (name, frames) in [
        ("DATA", [post(1, "/stall"), frame(DATA, 0, 1, &[])].concat()),
        ("padded DATA", [post(1, "/stall"), frame(DATA, 8, 1, &[3, 0, 0, 0])].concat()),
        ("CONTINUATION", [frame(HEADERS, 0, 1, &[0x82]), frame(CONTINUATION, 0, 1, &[])].concat()),
    ] {
        let scene = Scene::new()?;
        let mut peer = scene.open()?;
        let first = 9 + u32::from_be_bytes([0, frames[0], frames[1], frames[2]]) as usize;
        peer.send(&frames[..first])?;
        peer.flood(10_000, |_| frames[first..].to_vec());
        calmed(&mut peer).context(name)?;
        scene.survived(Some("http2.inbound_empty_frames_flood")).context(name)?;
    }
    Ok(())
}

#[test]
fn cve_2020_11080_settings_of_the_largest_size() -> Result<()> {
    let scene = Scene::new()?;
    let mut peer = scene.open()?;
    let entries: Vec<(u16, u32)> = (0..2_730).map(|_| (3, 100)).collect();
    let large = settings(&entries);
    peer.flood(2_000, |_| large.clone());
    scene.survived(None)
}

#[test]
fn cve_2020_12603_a_body_in_tiny_frames_that_nobody_takes() -> Result<()> {
    let scene = Scene::new()?;
    let mut peers = Vec::new();
    for _ in 0..6 {
        let mut peer = scene.open()?;
        peer.send(&post(1, "/stall"))?;
        peer.flood(60_000, |_| frame(DATA, 0, 1, b"x"));
        peers.push(peer);
    }
    scene.survived(None)
}

#[test]
fn cve_2020_12604_a_window_that_is_never_opened() -> Result<()> {
    let scene = Scene::new()?;
    let mut peer = Peer::open_with(scene.proxy.listener("entrance")?, &[(1, 0), (4, 0)])?;
    for stream in 0..100 {
        peer.send(&get(stream * 2 + 1, "/large"))?;
    }
    wait_until("the upstream to be asked", || {
        Ok((scene.upstream.received().len() >= 120).then_some(()))
    })?;
    // 400 MiB want to come, and none of it is kept here.
    scene.survived(None)?;
    // One stream that is opened after all gets its body.
    peer.send(&settings(&[(4, 65_535)]))?;
    for stream in 1..100 {
        peer.send(&cancel(stream * 2 + 1))?;
    }
    ensure!(peer.body(1)? == 4 << 20);
    scene.survived(None)
}

#[test]
fn cve_2019_18801_a_large_field_on_its_way_to_http1() -> Result<()> {
    let scene = Scene::new()?;
    let mut peer = scene.open()?;
    let value = "x".repeat(55_000);
    let block = [block("GET", "/"), field(b"x-large", value.as_bytes())].concat();
    peer.send(&frame(HEADERS, END_STREAM, 1, &block[..16_384]))?;
    let rest: Vec<_> = block[16_384..].chunks(16_384).collect();
    for (at, part) in rest.iter().enumerate() {
        let last = if at + 1 == rest.len() { END_HEADERS } else { 0 };
        peer.send(&frame(CONTINUATION, last, 1, part))?;
    }
    ensure!(peer.told(1)? == Told::Status(200));
    let received = scene.upstream.received();
    let arrived = received.iter().find_map(|request| request.header("x-large"));
    ensure!(arrived == Some(value.as_str()), "the field has not arrived as it was");
    scene.survived(None)
}

#[test]
fn cve_2021_29258_frames_of_metadata() -> Result<()> {
    let scene = Scene::new()?;
    let mut peer = scene.open()?;
    peer.send(&post(1, "/"))?;
    peer.flood(10_000, |round| frame(0x4d, (round & 4) as u8, 1, &[]));
    peer.send(&frame(DATA, END_STREAM, 1, b"abc"))?;
    ensure!(peer.told(1)? == Told::Status(200));
    scene.survived(None)
}

#[test]
fn cve_2021_32778_many_streams_reset_at_once() -> Result<()> {
    let scene = Scene::new()?;
    for _ in 0..20 {
        let mut peer = scene.open()?;
        peer.flood(1_000, |round| get(round as u32 * 2 + 1, "/stall"));
        // The connection goes, and a thousand streams with it.
    }
    scene.survived(None)?;
    let active = "http.entrance.downstream_rq_active";
    wait_until(active, || Ok((scene.proxy.stat(active)? == Some(0)).then_some(())))
}

#[test]
fn cve_2021_32780_and_39162_goaway_and_settings_together() -> Result<()> {
    let scene = Scene::new()?;
    for last in [0u32, 1, 0x7fff_ffff] {
        let mut peer = scene.open()?;
        let goaway = frame(GOAWAY, 0, 0, &[&last.to_be_bytes()[..], &[0; 4]].concat());
        let none = settings(&[(3, 0), (4, 0)]);
        peer.send(
            &[get(1, "/stall"), goaway.clone(), none.clone(), goaway, none, get(3, "/")].concat(),
        )?;
        peer.send(&frame(SETTINGS, ACK, 0, &[])).ok();
    }
    scene.survived(None)
}

#[test]
fn cve_2023_27491_bytes_that_http1_upstreams_would_read_otherwise() -> Result<()> {
    let scene = Scene::new()?;
    for (name, value) in [
        (":path", "/a HTTP/1.1\r\nx: y\r\n\r\nGET /b"),
        (":path", "/\u{e9}"),
        (":path", "/\0"),
        (":method", "GET /evil HTTP/1.1\r\n\r\nGET"),
        (":method", "G\u{e9}T"),
        (":authority", "a\r\nx: y"),
        (":scheme", "http\r\n"),
        ("x", "a\r\n\r\nGET /evil HTTP/1.1"),
        ("x\r\ny", "a"),
        ("transfer-encoding", "chunked"),
    ] {
        let usual = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")];
        let mut fields = usual.to_vec();
        match fields.iter_mut().find(|(known, _)| *known == name) {
            Some(found) => found.1 = value,
            None => fields.push((name, value)),
        }
        let block: Vec<u8> = fields
            .iter()
            .flat_map(|(name, value)| field(name.as_bytes(), value.as_bytes()))
            .collect();
        let mut peer = scene.open()?;
        peer.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block))?;
        let told = peer.told(1)?;
        ensure!(!matches!(told, Told::Status(200..=399)), "{name}: {value:?}: {told:?}");
    }
    let strange = scene.upstream.received().into_iter().find(|request| request.target() != "/good");
    ensure!(strange.is_none(), "{strange:?}");
    scene.survived(None)
}

#[test]
fn cve_2023_44487_rapid_reset() -> Result<()> {
    let scene = Scene::new()?;
    let mut peer = scene.open()?;
    peer.flood(100_000, |round| {
        let stream = round as u32 * 2 + 1;
        [get(stream, "/stall"), cancel(stream)].concat()
    });
    calmed(&mut peer)?;
    scene.survived(Some("http2.rx_reset"))?;
    let asked = scene.upstream.received().len();
    ensure!(asked < 3_000, "{asked} requests went on");
    Ok(())
}

#[test]
fn cve_2023_35945_streams_that_end_while_the_connection_does() -> Result<()> {
    let scene = Scene::new()?;
    let goaway = frame(GOAWAY, 0, 0, &[0; 8]);
    for _ in 0..300 {
        let mut peer = scene.open()?;
        let streams = (0..10).flat_map(|at| get(at * 2 + 1, "/stall"));
        let resets = (0..10).flat_map(|at| cancel(at * 2 + 1));
        peer.send(&streams.chain(goaway.clone()).chain(resets).collect::<Vec<_>>())?;
    }
    scene.survived(Some("http2.rx_reset"))
}

#[test]
fn cve_2024_27919_and_30255_continuations_without_end() -> Result<()> {
    for filler in [field(b"x-filler", &[b'x'; 1_000]), field(b"x", b"y"), vec![0x82]] {
        let scene = Scene::new()?;
        let mut peer = scene.open()?;
        peer.send(&frame(HEADERS, 0, 1, &block("GET", "/")))?;
        peer.flood(100_000, |_| frame(CONTINUATION, 0, 1, &filler));
        calmed(&mut peer)?;
        scene.survived(None)?;
    }
    Ok(())
}

#[test]
fn cve_2026_47774_crumbs_of_cookies_by_index() -> Result<()> {
    let scene = Scene::new()?;
    for name in [&b"cookie"[..], b"x-filler"] {
        let mut peer = scene.open()?;
        let bomb =
            [block("GET", "/"), indexed_field(name, &[b'x'; 4_000]), vec![0xbe; 12_000]].concat();
        peer.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &bomb[..16_384.min(bomb.len())]))?;
        for stream in 1..200 {
            let bomb = [block("GET", "/"), vec![0xbe; 16_000]].concat();
            peer.send(&frame(HEADERS, END_HEADERS | END_STREAM, stream * 2 + 1, &bomb)).ok();
        }
        let told = peer.told(1)?;
        ensure!(matches!(told, Told::Reset(_) | Told::GoAway(_)), "{told:?}");
        scene.survived(Some("http2.header_overflow"))?;
    }
    Ok(())
}

#[test]
fn cve_2026_73513_trailers_that_do_not_end_the_stream() -> Result<()> {
    let scene = Scene::new()?;
    for _ in 0..50 {
        let mut peer = scene.open()?;
        let trailers = frame(HEADERS, END_HEADERS, 1, &field(b"x", b"y"));
        let more = frame(DATA, END_STREAM, 1, b"more");
        peer.send(&[post(1, "/"), frame(DATA, 0, 1, b"abc"), trailers, more].concat())?;
        let told = peer.told(1)?;
        ensure!(matches!(told, Told::Reset(_) | Told::GoAway(_)), "{told:?}");
    }
    scene.survived(Some("http2.rx_messaging_error"))
}

#[test]
fn ghsa_w44g_8m76_8gc5_methods_in_another_case() -> Result<()> {
    let scene = Scene::new()?;
    for method in ["get", "Delete", "pOST", "options", "cONNECT"] {
        let mut peer = scene.open()?;
        peer.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(method, "/")))?;
        let told = peer.told(1)?;
        ensure!(matches!(told, Told::Reset(_) | Told::GoAway(_)), "{method}: {told:?}");
    }
    scene.survived(None)
}

#[test]
fn cve_2026_73550_host_again_and_again() -> Result<()> {
    let scene = Scene::new()?;
    for _ in 0..50 {
        let mut peer = scene.open()?;
        let hosts = [indexed_field(b"host", &[b'a'; 1_000]), vec![0xbe; 12_000]].concat();
        peer.send(&frame(
            HEADERS,
            END_HEADERS | END_STREAM,
            1,
            &[block("GET", "/"), hosts].concat(),
        ))?;
        let told = peer.told(1)?;
        ensure!(matches!(told, Told::Reset(_) | Told::GoAway(_)), "{told:?}");
    }
    scene.survived(None)
}

#[test]
fn cve_2026_73547_connect_without_a_path() -> Result<()> {
    let scene = Scene::new()?;
    let mut peer = scene.open()?;
    let connect = [field(b":method", b"CONNECT"), field(b":authority", b"a:443")].concat();
    peer.send(&frame(HEADERS, END_HEADERS, 1, &connect))?;
    ensure!(peer.told(1)? == Told::Status(404));
    scene.survived(None)
}

#[test]
fn windows_opened_too_often() -> Result<()> {
    let scene = Scene::new()?;
    let mut peer = scene.open()?;
    peer.flood(100_000, |_| window_update(0, 1));
    calmed(&mut peer)?;
    scene.survived(Some("http2.inbound_window_update_frames_flood"))
}

#[test]
fn heads_beyond_the_limits_cost_their_stream_alone() -> Result<()> {
    let scene = Scene::new()?;
    let mut peer = scene.open()?;
    let many: Vec<u8> = (0..200).flat_map(|_| field(b"cookie", b"a=b")).collect();
    peer.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &[block("GET", "/"), many].concat()))?;
    ensure!(matches!(peer.told(1)?, Told::Reset(_) | Told::Status(431)));
    let large: Vec<u8> = (0..5).flat_map(|_| field(b"x", &[b'x'; 15_000])).collect();
    let large = [block("GET", "/"), large].concat();
    peer.send(&frame(HEADERS, END_STREAM, 3, &large[..16_384]))?;
    let rest = large[16_384..].chunks(16_384);
    let last = rest.len() - 1;
    for (at, part) in rest.enumerate() {
        peer.send(&frame(CONTINUATION, if at == last { END_HEADERS } else { 0 }, 3, part))?;
    }
    ensure!(matches!(peer.told(3)?, Told::Reset(_) | Told::Status(431)));
    peer.send(&get(5, "/good"))?;
    ensure!(peer.told(5)? == Told::Status(200), "the connection goes on");
    scene.survived(Some("http2.header_overflow"))
}

#[test]
fn more_streams_than_allowed_are_refused_and_nothing_else() -> Result<()> {
    let scene = Scene::with("http2_protocol_options: { max_concurrent_streams: 4 }")?;
    let mut peer = scene.open()?;
    for stream in 0..6 {
        peer.send(&get(stream * 2 + 1, "/stall"))?;
    }
    for stream in [9, 11] {
        ensure!(peer.told(stream)? == Told::Reset(7), "REFUSED_STREAM");
    }
    peer.send(&[cancel(1), get(13, "/good")].concat())?;
    ensure!(peer.told(13)? == Told::Status(200), "a place that is free is given again");
    scene.survived(Some("http2.stream_refused_errors"))
}
