//! Just enough of HTTP/1 to know where a response with a `Content-Length` ends and whether it is a 200.

/// Reads one response after the other; keeps nothing of a body.
#[derive(Default)]
pub struct ResponseReader {
    head: Vec<u8>,
    body_left: u64,
    ok: bool,
}

/// What a read has led to.
#[derive(Debug, PartialEq, Eq)]
pub enum Reading {
    More,
    /// The response ended with these bytes.
    Done {
        ok: bool,
    },
    /// It cannot be understood, or says more than one response may.
    Broken,
}

impl ResponseReader {
    pub fn feed(&mut self, bytes: &[u8]) -> Reading {
        if self.body_left > 0 {
            return self.body(bytes.len());
        }
        let whole: &[u8] = if self.head.is_empty() {
            bytes
        } else {
            self.head.extend_from_slice(bytes);
            &self.head
        };
        let Some(end) = whole.windows(4).position(|w| w == b"\r\n\r\n") else {
            if self.head.is_empty() {
                self.head.extend_from_slice(bytes);
            }
            return Reading::More;
        };
        let (head, after) = (&whole[..end], whole.len() - end - 4);
        let Some(length) = content_length(head) else { return Reading::Broken };
        self.ok = head.starts_with(b"HTTP/1.1 200");
        self.head.clear();
        self.body_left = length;
        self.body(after)
    }

    fn body(&mut self, count: usize) -> Reading {
        let count = count as u64;
        if count > self.body_left {
            return Reading::Broken;
        }
        self.body_left -= count;
        if self.body_left > 0 { Reading::More } else { Reading::Done { ok: self.ok } }
    }
}

fn content_length(head: &[u8]) -> Option<u64> {
    const NAME: &[u8] = b"content-length:";
    let lines = head.split(|b| *b == b'\n');
    let line = lines
        .into_iter()
        .find(|l| l.len() > NAME.len() && l[..NAME.len()].eq_ignore_ascii_case(NAME))?;
    std::str::from_utf8(&line[NAME.len()..]).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_end_where_their_length_says() {
        let mut reader = ResponseReader::default();
        assert_eq!(reader.feed(b"HTTP/1.1 200 OK\r\nContent-Le"), Reading::More);
        assert_eq!(reader.feed(b"ngth: 4\r\n\r\nab"), Reading::More);
        assert_eq!(reader.feed(b"cd"), Reading::Done { ok: true });
        assert_eq!(
            reader.feed(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n"),
            Reading::Done { ok: false }
        );
        assert_eq!(reader.feed(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nab"), Reading::Broken);
    }
}
