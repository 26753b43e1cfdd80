//! A reading of Rust text that is exact enough for tidiness checks: comments and literals blanked out,
//! test code marked, functions found. No parser, so that it never lags behind the language.

/// One source file, ready to be searched.
pub struct RustSource {
    /// The text with every comment, string and character literal replaced by blanks; same length, same lines.
    pub code: String,
    /// Per line: does it belong to a `#[cfg(test)]` item?
    in_test: Vec<bool>,
}

/// A function with a body.
pub struct Function<'a> {
    pub name: &'a str,
    /// Lines from the signature to the closing brace.
    pub lines: usize,
}

impl RustSource {
    pub fn new(text: &str) -> Self {
        let code = blank_comments_and_literals(text);
        let in_test = mark_test_items(&code);
        Self { code, in_test }
    }

    /// Lines that are neither tests nor blank space after them.
    pub fn non_test_lines(&self) -> usize {
        self.in_test.iter().filter(|test| !**test).count()
    }

    /// Lines of code (numbered from 1) outside tests.
    pub fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.lines().enumerate().filter(|(i, _)| !self.in_test[*i]).map(|(i, l)| (i + 1, l))
    }

    /// Names of modules declared as `mod name;` under `#[cfg(test)]`: their files are tests.
    pub fn test_modules(&self) -> Vec<&str> {
        let lines = self.code.lines().zip(&self.in_test).filter(|(_, test)| **test);
        lines.filter_map(|(line, _)| declared_module(line)).collect()
    }

    /// Every function outside tests.
    pub fn functions(&self) -> Vec<Function<'_>> {
        let bytes = self.code.as_bytes();
        let mut found = Vec::new();
        for (at, _) in self.code.match_indices("fn ") {
            if at > 0 && is_word(bytes[at - 1]) {
                continue;
            }
            let rest = &self.code[at + 3..];
            let name = &rest[..rest.bytes().take_while(|b| is_word(*b)).count()];
            let line = 1 + count_lines(&self.code[..at]);
            if name.is_empty() || self.in_test[line - 1] {
                continue;
            }
            if let Some(end) = body_end(bytes, at) {
                found.push(Function { name, lines: 1 + count_lines(&self.code[at..end]) });
            }
        }
        found
    }
}

/// `mod name;` → `name`, whatever its visibility.
fn declared_module(line: &str) -> Option<&str> {
    let line = line.trim().strip_suffix(';')?;
    let (before, name) = line.rsplit_once("mod ")?;
    let visibility = before.trim();
    let is_declaration =
        visibility.is_empty() || visibility.ends_with("pub") || visibility.ends_with([')', ']']);
    (is_declaration && name.bytes().all(is_word)).then_some(name)
}

fn is_word(byte: u8) -> bool {
    byte == b'_' || byte.is_ascii_alphanumeric()
}

fn count_lines(text: &str) -> usize {
    text.bytes().filter(|b| *b == b'\n').count()
}

/// Where the body of the function (or other item) that starts at `at` ends; `None` if it has no body.
fn body_end(bytes: &[u8], at: usize) -> Option<usize> {
    let mut brackets = 0i32;
    let mut i = at;
    loop {
        match bytes.get(i)? {
            b'(' | b'[' => brackets += 1,
            b')' | b']' => brackets -= 1,
            b';' if brackets == 0 => return None,
            b'{' if brackets == 0 => break,
            _ => {}
        }
        i += 1;
    }
    let mut depth = 0i32;
    for (offset, byte) in bytes[i..].iter().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(i + offset + 1);
        }
    }
    None
}

/// Marks the lines of every item that stands under `#[cfg(test)]` (or under `#![cfg(test)]`, the whole file).
fn mark_test_items(code: &str) -> Vec<bool> {
    let mut marks = vec![code.contains("#![cfg(test)]"); code.lines().count()];
    for marker in ["#[cfg(test)]", "#[cfg(all(test", "#[cfg(any(test"] {
        for (at, _) in code.match_indices(marker) {
            let item = at + code[at..].find(']').map_or(0, |end| end + 1);
            let end = body_end(code.as_bytes(), item)
                .or_else(|| code[item..].find(';').map(|semicolon| item + semicolon + 1))
                .unwrap_or(code.len());
            let first = count_lines(&code[..at]);
            let last = count_lines(&code[..end]).min(marks.len() - 1);
            marks[first..=last].fill(true);
        }
    }
    marks
}

fn blank_comments_and_literals(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let after_word = i > 0 && is_word(bytes[i - 1]);
        let end = literal_or_comment_end(bytes, i, after_word);
        if end == i {
            out.push(bytes[i]);
            i += 1;
        } else {
            out.extend(bytes[i..end].iter().map(|b| if *b == b'\n' { b'\n' } else { b' ' }));
            i = end;
        }
    }
    // Multi-byte characters survive whole or are blanked whole, but stay safe if a literal was cut short.
    String::from_utf8_lossy(&out).into_owned()
}

/// The end of the comment or literal that starts at `i`, or `i` itself if none does.
fn literal_or_comment_end(bytes: &[u8], i: usize, after_word: bool) -> usize {
    let rest = &bytes[i..];
    if rest.starts_with(b"//") {
        return i + rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
    }
    if rest.starts_with(b"/*") {
        return i + block_comment_length(rest);
    }
    if let Some(length) = raw_string_length(rest).filter(|_| !after_word) {
        return i + length;
    }
    match rest[0] {
        b'"' => i + quoted_length(rest),
        b'\'' => i + char_literal_length(rest),
        _ => i,
    }
}

fn block_comment_length(rest: &[u8]) -> usize {
    let mut depth = 0usize;
    let mut i = 0;
    while i < rest.len() {
        if rest[i..].starts_with(b"/*") {
            depth += 1;
            i += 2;
        } else if rest[i..].starts_with(b"*/") {
            depth -= 1;
            i += 2;
            if depth == 0 {
                return i;
            }
        } else {
            i += 1;
        }
    }
    rest.len()
}

/// `r"…"`, `r#"…"#`, `br"…"`, `cr"…"`.
fn raw_string_length(rest: &[u8]) -> Option<usize> {
    let prefix = match rest {
        [b'r', ..] => 1,
        [b'b' | b'c', b'r', ..] => 2,
        _ => return None,
    };
    let hashes = rest[prefix..].iter().take_while(|b| **b == b'#').count();
    let open = prefix + hashes;
    if rest.get(open) != Some(&b'"') {
        return None;
    }
    let mut close = vec![b'"'];
    close.resize(1 + hashes, b'#');
    let body = &rest[open + 1..];
    let end =
        body.windows(close.len()).position(|w| w == close).unwrap_or(body.len() - close.len());
    Some(open + 1 + end + close.len())
}

fn quoted_length(rest: &[u8]) -> usize {
    let mut i = 1;
    while i < rest.len() {
        match rest[i] {
            b'\\' => i += 2,
            b'"' => return i + 1,
            _ => i += 1,
        }
    }
    rest.len()
}

/// `'x'`, `'\n'`, `'\u{1f}'`; a lifetime has length 0 (it is not a literal).
fn char_literal_length(rest: &[u8]) -> usize {
    if rest.get(1) == Some(&b'\\') {
        let after = rest.iter().skip(3).position(|b| *b == b'\'');
        return after.map_or(0, |end| end + 4);
    }
    let text = String::from_utf8_lossy(&rest[1..rest.len().min(6)]).into_owned();
    let width = text.chars().next().map_or(0, char::len_utf8);
    if width > 0 && rest.get(1 + width) == Some(&b'\'') { width + 2 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_and_comments_do_not_count() {
        let source = RustSource::new(
            "fn a() { let x = \"{ fn b() {\"; /* { */ let c = '{'; } // fn z() {\n",
        );
        let names: Vec<_> = source.functions().iter().map(|f| f.name.to_owned()).collect();
        assert_eq!(names, ["a"]);
        assert!(RustSource::new("let s = r#\"a \" fn b() {} \"#;").functions().is_empty());
        assert_eq!(
            RustSource::new("fn f<'a>(x: &'a str) -> [u8; 3] {\n\n}").functions()[0].lines,
            3
        );
    }

    #[test]
    fn test_items_are_marked() {
        let source =
            RustSource::new("fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\nfn c() {}\n");
        assert_eq!(source.non_test_lines(), 2);
        assert_eq!(source.functions().len(), 2);
        assert_eq!(
            RustSource::new("#[cfg(test)]\npub(crate) mod fakes;\n").test_modules(),
            ["fakes"]
        );
    }

    #[test]
    fn a_trait_method_without_a_body_is_no_function() {
        assert!(RustSource::new("trait T { fn a(&self) -> [u8; 2]; }").functions().is_empty());
    }
}
