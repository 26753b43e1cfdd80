//! Paths made safe, as Envoy does with Chromium's canonicalisation (RFC 3986 §6.2.2.3, and back slashes are slashes).
//!
//! A dot segment with parameters (`/a/..;x/b`) is a dot segment: upstreams that drop the parameters would go up after us.

use codec::headers::RequestHead;

use super::Rejection;
use crate::http::config::{EscapedSlashesAction, PathNormalization};

const REJECTED: Rejection = Rejection::bad_request("path_normalization_failed", "");

/// Normalises the path as configured. A fragment is always refused: who strips it reads another path.
pub(super) fn normalise(
    head: &mut RequestHead,
    rules: &PathNormalization,
) -> Result<(), Rejection> {
    let original = head.path();
    let query_at = memchr::memchr2(b'?', b'#', original).unwrap_or(original.len());
    let (mut path, query) = original.split_at(query_at);
    if memchr::memchr(b'#', query).is_some() {
        return Err(REJECTED);
    }
    let mut unescaped = Vec::new();
    let has_escaped_slash = rules.escaped_slashes != EscapedSlashesAction::KeepUnchanged
        && unescape_slashes(path, &mut unescaped);
    if has_escaped_slash {
        if rules.escaped_slashes == EscapedSlashesAction::RejectRequest {
            return Err(REJECTED);
        }
        path = &unescaped;
    }
    let mut canonical = Vec::new();
    if rules.normalize_path && !is_canonical(path) {
        canonicalise(path, &mut canonical)?;
        path = &canonical;
    }
    let mut merged = Vec::new();
    if rules.merge_slashes && path.windows(2).any(|pair| pair == b"//") {
        merge_slashes(path, &mut merged);
        path = &merged;
    }
    if path.as_ptr() == original.as_ptr() && path.len() + query.len() == original.len() {
        return Ok(());
    }
    let full = [path, query].concat();
    head.set_path(&full);
    if has_escaped_slash && rules.escaped_slashes == EscapedSlashesAction::UnescapeAndRedirect {
        return Err(Rejection { location: Some(full), ..Rejection::new(307, "path_normalized") });
    }
    Ok(())
}

/// `%2F` and `%5C` become what they stand for; false if there are none.
fn unescape_slashes(path: &[u8], out: &mut Vec<u8>) -> bool {
    let mut rest = path;
    while let Some(percent) = memchr::memchr(b'%', rest) {
        let slash = match rest.get(percent + 1..percent + 3) {
            Some([b'2', b'f' | b'F']) => b'/',
            Some([b'5', b'c' | b'C']) => b'\\',
            _ => {
                out.extend_from_slice(&rest[..=percent]);
                rest = &rest[percent + 1..];
                continue;
            }
        };
        out.extend_from_slice(&rest[..percent]);
        out.push(slash);
        rest = &rest[percent + 3..];
    }
    out.extend_from_slice(rest);
    out.len() != path.len()
}

/// Whether `canonicalise` would change nothing: nearly always.
fn is_canonical(path: &[u8]) -> bool {
    let mut after_slash = false;
    for byte in path {
        if *byte == b'%' || *byte == b'\\' || needs_escape(*byte) || after_slash && *byte == b'.' {
            return false;
        }
        after_slash = *byte == b'/';
    }
    true
}

fn needs_escape(byte: u8) -> bool {
    matches!(byte, 0..=b' ' | b'"' | b'#' | b'<' | b'>' | b'?' | b'^' | b'`' | b'{' | b'|' | b'}' | 0x7f..)
}

fn canonicalise(path: &[u8], out: &mut Vec<u8>) -> Result<(), Rejection> {
    let mut segments = path.split(|byte| matches!(byte, b'/' | b'\\')).peekable();
    // What stands before the first slash is nothing: paths begin with one.
    segments.next();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match dots(segment) {
            Dots::None => {
                out.push(b'/');
                append_segment(segment, out)?;
            }
            Dots::One if is_last => out.push(b'/'),
            Dots::One => {}
            Dots::Two => {
                let parent = memchr::memrchr(b'/', out).unwrap_or_default();
                out.truncate(parent);
                if is_last {
                    out.push(b'/');
                }
            }
        }
    }
    if out.is_empty() {
        out.push(b'/');
    }
    Ok(())
}

enum Dots {
    None,
    One,
    Two,
}

/// Dots may be escaped, and have parameters after them.
fn dots(segment: &[u8]) -> Dots {
    let mut rest = segment;
    let mut count = 0;
    loop {
        rest = match rest {
            [b'.', rest @ ..] | [b'%', b'2', b'e' | b'E', rest @ ..] => rest,
            [] | [b';', ..] if count == 1 => return Dots::One,
            [] | [b';', ..] if count == 2 => return Dots::Two,
            _ => return Dots::None,
        };
        count += 1;
    }
}

/// Unreserved characters are unescaped, what may not stand in a path is escaped, the rest stays as it came.
fn append_segment(segment: &[u8], out: &mut Vec<u8>) -> Result<(), Rejection> {
    let mut rest = segment;
    while let [byte, after @ ..] = rest {
        rest = after;
        match (*byte, after) {
            (b'%', [high, low, after @ ..])
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                match hex(*high) << 4 | hex(*low) {
                    0 => return Err(REJECTED),
                    plain if plain.is_ascii_alphanumeric() || b"-._~".contains(&plain) => {
                        out.push(plain)
                    }
                    _ => out.extend_from_slice(&[b'%', *high, *low]),
                }
                rest = after;
            }
            (0, _) => return Err(REJECTED),
            (byte, _) if needs_escape(byte) => {
                const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
                out.extend_from_slice(&[
                    b'%',
                    DIGITS[usize::from(byte >> 4)],
                    DIGITS[usize::from(byte & 15)],
                ]);
            }
            (byte, _) => out.push(byte),
        }
    }
    Ok(())
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

fn merge_slashes(path: &[u8], out: &mut Vec<u8>) {
    for byte in path {
        if *byte != b'/' || out.last() != Some(&b'/') {
            out.push(*byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normalised(path: &str, rules: &PathNormalization) -> Result<String, Rejection> {
        let mut head = RequestHead::new();
        head.set_path(path.as_bytes());
        normalise(&mut head, rules)?;
        Ok(String::from_utf8_lossy(head.path()).into_owned())
    }

    #[test]
    fn paths_become_canonical() {
        let rules = PathNormalization { normalize_path: true, ..PathNormalization::default() };
        let table = [
            ("/xyz", "/xyz"),
            ("/x/y/z?q=/../%2e", "/x/y/z?q=/../%2e"),
            ("/a/b/../c", "/a/c"),
            ("/a/b/./c", "/a/b/c"),
            ("/a/b/../../../../c", "/c"),
            ("/a/..\\c", "/c"),
            ("/a\\b", "/a/b"),
            ("/%c0%af", "/%c0%af"),
            ("/%5c%25", "/%5c%25"),
            ("/a/b/%2E%2e/c", "/a/c"),
            ("/a/.%2e", "/"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/a/./", "/a/"),
            ("/..", "/"),
            ("/.", "/"),
            ("/A/B", "/A/B"),
            ("/a/%2F%2f/c", "/a/%2F%2f/c"),
            ("/%61%7E%2D%5F", "/a~-_"),
            ("/...", "/..."),
            ("/.a/..b/c..", "/.a/..b/c.."),
            ("/a b\"<>`{}\u{e9}", "/a%20b%22%3C%3E%60%7B%7D%C3%A9"),
            ("/%zz/%4", "/%zz/%4"),
            ("//a//../b", "//a/b"),
            ("/a;p/b", "/a;p/b"),
            ("/a/..;/b", "/b"),
            ("/a/.;x", "/a/"),
            ("/a/%2e%2E;x;y/b", "/b"),
            ("/...;/..a;", "/...;/..a;"),
            ("/^|[]!$&'()*+,;=:@", "/%5E%7C[]!$&'()*+,;=:@"),
        ];
        for (path, expected) in table {
            assert_eq!(normalised(path, &rules).as_deref(), Ok(expected), "{path}");
        }
        for path in ["/a%00b", "/a#f"] {
            assert_eq!(normalised(path, &rules), Err(REJECTED), "{path}");
        }
    }

    #[test]
    fn nothing_is_touched_unless_asked() {
        let rules = PathNormalization::default();
        for path in ["/a/../b", "/a//b", "/a%2Fb", "/a/..;/b", "/a\\b"] {
            assert_eq!(normalised(path, &rules).as_deref(), Ok(path));
        }
        assert_eq!(normalised("/a#f", &rules), Err(REJECTED));
    }

    #[test]
    fn slashes_are_merged_after_all_else() {
        let rules = PathNormalization {
            normalize_path: true,
            merge_slashes: true,
            ..PathNormalization::default()
        };
        let table = [
            ("//a///b//", "/a/b/"),
            ("/a//../b", "/a/b"),
            ("/a?b//c", "/a?b//c"),
            ("/a/.//b", "/a/b"),
            ("//", "/"),
        ];
        for (path, expected) in table {
            assert_eq!(normalised(path, &rules).as_deref(), Ok(expected), "{path}");
        }
    }

    #[test]
    fn escaped_slashes_are_dealt_with_first() {
        use EscapedSlashesAction::*;
        let rules = |escaped_slashes| PathNormalization {
            normalize_path: true,
            merge_slashes: true,
            escaped_slashes,
        };
        assert_eq!(normalised("/a%2Fb", &rules(KeepUnchanged)).as_deref(), Ok("/a%2Fb"));
        assert_eq!(normalised("/a%2fb", &rules(RejectRequest)), Err(REJECTED));
        assert_eq!(normalised("/a?%2f", &rules(RejectRequest)).as_deref(), Ok("/a?%2f"));
        assert_eq!(
            normalised("/a%2f..%5C%2Fb?%2f", &rules(UnescapeAndForward)).as_deref(),
            Ok("/b?%2f")
        );
        let redirect = normalised("/a%5cb?c", &rules(UnescapeAndRedirect)).unwrap_err();
        assert_eq!((redirect.status, redirect.location.as_deref()), (307, Some(&b"/a/b?c"[..])));
        assert_eq!(redirect.details, "path_normalized");
    }
}
