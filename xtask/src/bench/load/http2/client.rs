//! Closed-loop clients with many streams on each connection: a stream that ends is followed by another.

use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::OwnedFd;

use super::super::backend::size_of;
use super::super::{CLIENT, Plan, Tally, client};
use super::{Block, END_STREAM, Frame, Frames, MESSAGE, Multiplexed, kind, message};

/// `:status: 200`, from the static table.
const STATUS_200: u8 = 0x88;
/// A change of the dynamic table's size, which a block may begin with.
const SIZE_UPDATE: std::ops::Range<u8> = 0x20..0x40;

pub struct Clients {
    plan: Plan,
    /// Streams at once on each connection.
    streams: usize,
    block: Block,
    /// The request's message, if it has one.
    message: Option<Vec<u8>>,
    /// Bytes of DATA that each answer has.
    body: usize,
    connections: Vec<Client>,
}

struct Client {
    frames: Frames,
    next_stream: u32,
    streams: Vec<Stream>,
    /// Requests that wait for the connection's window.
    waiting: usize,
    flags: EventFlags,
}

struct Stream {
    id: u32,
    sent_at: Instant,
    is_200: bool,
    body: usize,
}

impl Clients {
    pub fn open(plan: &Plan, load: Multiplexed, epoll: &OwnedFd) -> Result<Self> {
        let (path, is_grpc) = (plan.path, load.grpc);
        let block = if is_grpc { Block::call(path) } else { Block::get(path) };
        let message = is_grpc.then(message);
        let body = if is_grpc { MESSAGE + 5 } else { size_of(path).context("an unknown path")? };
        let (plan, connections) = (plan.clone(), Vec::new());
        let mut clients = Self { plan, streams: load.streams, block, message, body, connections };
        for index in 0..clients.plan.connections {
            let client = clients.connect(index, epoll)?;
            clients.connections.push(client);
        }
        Ok(clients)
    }

    pub fn ready(
        &mut self,
        index: usize,
        epoll: &OwnedFd,
        scratch: &mut [u8],
        tally: &mut Tally,
    ) -> Result<()> {
        let client = &mut self.connections[index];
        let outcome = client
            .receive(scratch, self.body, tally)
            .and_then(|()| client.ask(&self.block, self.message.as_deref()))
            .and_then(|()| client.flush(index, epoll));
        if let Err(error) = outcome {
            tally.error(format!("{error:#}"));
            if tally.errors > 1000 && tally.responses == 0 {
                bail!(
                    "nothing but errors, the first: {}",
                    tally.first_error.as_deref().unwrap_or("")
                );
            }
            self.connections[index] = self.connect(index, epoll)?;
        }
        Ok(())
    }

    fn connect(&self, index: usize, epoll: &OwnedFd) -> Result<Client> {
        let socket = client::connect(self.plan.target, None)?;
        let flags = EventFlags::IN | EventFlags::OUT;
        epoll::add(epoll, &socket, EventData::new_u64(CLIENT | index as u64), flags)?;
        let (frames, streams) = (Frames::client(socket), Vec::with_capacity(self.streams));
        Ok(Client { frames, next_stream: 1, streams, waiting: self.streams, flags })
    }
}

impl Client {
    fn receive(&mut self, scratch: &mut [u8], expected: usize, tally: &mut Tally) -> Result<()> {
        let (streams, waiting) = (&mut self.streams, &mut self.waiting);
        let now = Instant::now();
        let mut ended = |stream: Stream| {
            *waiting += 1;
            if stream.is_200 && stream.body == expected {
                tally.responses += 1;
                tally.latencies.push((now - stream.sent_at).as_micros() as u32);
            } else {
                tally.error(format!("200: {}, {} bytes", stream.is_200, stream.body));
            }
        };
        let bytes = self.frames.receive(scratch, |_, frame| {
            let of_stream = matches!(frame.kind, kind::HEADERS | kind::DATA | kind::RST_STREAM);
            let place = streams.iter().position(|stream| stream.id == frame.stream);
            let Some(place) = place.filter(|_| of_stream) else { return Ok(()) };
            ensure!(frame.kind != kind::RST_STREAM, "a stream was reset: {:?}", frame.payload);
            if streams[place].take(frame) {
                ended(streams.swap_remove(place));
            }
            Ok(())
        })?;
        tally.bytes += bytes as u64;
        Ok(())
    }

    /// Sends as many requests as wait and have room.
    fn ask(&mut self, block: &Block, message: Option<&[u8]>) -> Result<()> {
        let needed = message.map_or(0, <[u8]>::len) as i64;
        while self.waiting > 0 && self.frames.room() >= needed {
            let id = self.next_stream;
            ensure!(id < 1 << 31, "a connection has used up its streams");
            self.next_stream += 2;
            self.waiting -= 1;
            let block = block.at(id == 1);
            match message {
                None => self.frames.headers(id, END_STREAM, block),
                Some(message) => {
                    self.frames.headers(id, 0, block);
                    self.frames.data(id, END_STREAM, message);
                }
            }
            self.streams.push(Stream { id, sent_at: Instant::now(), is_200: false, body: 0 });
        }
        Ok(())
    }

    fn flush(&mut self, index: usize, epoll: &OwnedFd) -> Result<()> {
        let all_gone = self.frames.flush()?;
        let flags = if all_gone { EventFlags::IN } else { EventFlags::IN | EventFlags::OUT };
        if flags != self.flags {
            let token = EventData::new_u64(CLIENT | index as u64);
            epoll::modify(epoll, &self.frames.socket, token, flags)?;
            self.flags = flags;
        }
        Ok(())
    }
}

impl Stream {
    /// Whether the stream ends with this frame.
    fn take(&mut self, frame: &Frame<'_>) -> bool {
        if frame.kind == kind::DATA {
            self.body += frame.payload.len();
        } else {
            let first = frame.payload.iter().find(|byte| !SIZE_UPDATE.contains(byte));
            self.is_200 |= first == Some(&STATUS_200);
        }
        frame.flags & END_STREAM != 0
    }
}
