//! Frames out of fuzzed bytes, so that most of what is tried is not refused for its framing alone; and a look at what is answered.

/// One frame, or bytes as they are, for each step of the input: kind, flags, stream, length, so many bytes.
pub fn wire(preface: &[u8], mut data: &[u8]) -> Vec<u8> {
    let mut out = preface.to_vec();
    while let [kind, flags, stream, len, rest @ ..] = data {
        let (payload, rest) = rest.split_at(usize::from(*len).min(rest.len()));
        data = rest;
        if *kind == 0xff {
            out.extend_from_slice(payload);
            continue;
        }
        let stream = if *stream == 0xff { 0x7fff_ffff } else { u32::from(*stream) };
        out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
        // Frames that mean something come oftener than they would by chance.
        out.extend_from_slice(&[kind % 12, *flags]);
        out.extend_from_slice(&stream.to_be_bytes());
        out.extend_from_slice(payload);
    }
    out
}

/// What was written is whole frames of a legal size; says how many.
pub fn check_frames(mut wire: &[u8]) -> usize {
    let mut frames = 0;
    while let Some((head, rest)) = wire.split_first_chunk::<9>() {
        let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        assert!(len <= 16_384 && head[3] <= 9, "a frame of kind {} with {len} bytes", head[3]);
        wire = rest.get(len..).expect("a frame is cut off");
        frames += 1;
    }
    assert!(wire.is_empty(), "the head of a frame is cut off");
    frames
}
