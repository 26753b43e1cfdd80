use std::io::Write as _;

use mio::net::UnixStream;

use super::*;

const SIZE: usize = 64 * 1024;

/// A connection, and its peer.
fn connection() -> (Io, UnixStream) {
    let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
    (Io::new(Socket::Unix(ours), true), theirs)
}

/// What a read gives, in words.
fn read(io: &mut Io, ahead: Option<Landed>, scratch: &mut ReadScratch) -> String {
    match io.read(ahead, scratch, &mut BufferPool::default()) {
        ReadResult::Data(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => format!("{other:?}"),
    }
}

#[test]
fn what_is_read_ahead_waits_side_by_side() {
    let mut scratch = ReadScratch::new(SIZE);
    let (mut one, mut its_peer) = connection();
    let (mut other, mut others_peer) = connection();
    its_peer.write_all(b"of one").expect("room");
    others_peer.write_all(b"of the other").expect("room");
    let of_one = one.read_ahead(&mut scratch);
    let of_other = other.read_ahead(&mut scratch);
    // A read in its turn meanwhile does not touch them.
    let (mut third, mut thirds_peer) = connection();
    thirds_peer.write_all(b"of a third").expect("room");
    assert_eq!(read(&mut third, None, &mut scratch), "of a third");
    assert_eq!(read(&mut other, of_other, &mut scratch), "of the other");
    assert_eq!(read(&mut one, of_one, &mut scratch), "of one");
    assert!(!one.readable && !other.readable, "short reads have drained the sockets");
}

#[test]
fn nothing_is_read_ahead_without_a_place_for_it() {
    let mut scratch = ReadScratch::new(SIZE);
    let (mut io, mut peer) = connection();
    for _ in 0..3 {
        peer.write_all(&[b'x'; SIZE]).expect("room");
    }
    let (first, second) = (io.read_ahead(&mut scratch), io.read_ahead(&mut scratch));
    assert!(io.read_ahead(&mut scratch).is_none(), "two reads have filled the place");
    for ahead in [first, second, None] {
        assert_eq!(read(&mut io, ahead, &mut scratch).len(), SIZE);
        assert!(io.readable, "a full read may have left something");
    }
    scratch.forget_ahead();
    assert!(io.read_ahead(&mut scratch).is_some());
}

#[test]
fn an_end_read_ahead_is_one() {
    let mut scratch = ReadScratch::new(SIZE);
    let (mut io, peer) = connection();
    let nothing = io.read_ahead(&mut scratch);
    assert_eq!(read(&mut io, nothing, &mut scratch), "WouldBlock");
    assert!(!io.readable && !io.eof);
    drop(peer);
    let end = io.read_ahead(&mut scratch);
    assert_eq!(read(&mut io, end, &mut scratch), "Eof");
    assert!(io.eof);
}
