//! What the documentation names exists: links, anchors, and paths in code spans.

use std::path::Path;

use anyhow::Result;

use super::{Findings, Tree};

pub fn check(tree: &Tree, findings: &mut Findings) -> Result<()> {
    for page in tree.workspace.files.iter().filter(|file| file.ends_with(".md")) {
        let text = tree.workspace.read(page)?;
        for (number, line) in prose_lines(&text) {
            for target in link_targets(line) {
                if let Some(problem) = broken_link(tree, page, target)? {
                    findings.add(format_args!("{page}:{number}: {problem}"));
                }
            }
            for span in code_spans(line).filter(|span| looks_like_a_path(span)) {
                if !path_exists(tree, page, span) {
                    findings.add(format_args!("{page}:{number}: `{span}` does not exist"));
                }
            }
        }
    }
    Ok(())
}

/// Lines outside fenced code, numbered from 1.
fn prose_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(i, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        (!fenced && !fence).then_some((i + 1, line))
    })
}

fn link_targets(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

fn code_spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

fn broken_link(tree: &Tree, page: &str, target: &str) -> Result<Option<String>> {
    if target.contains("://") || target.starts_with("mailto:") {
        return Ok(None);
    }
    let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
    let file = if file.is_empty() { page.to_owned() } else { resolve(page, file) };
    if !tree.workspace.has(&file) {
        return Ok(Some(format!("link to `{target}`, which does not exist")));
    }
    if anchor.is_empty() || !file.ends_with(".md") {
        return Ok(None);
    }
    let text = tree.workspace.read(&file)?;
    let found =
        prose_lines(&text).any(|(_, line)| line.starts_with('#') && anchor_of(line) == anchor);
    Ok((!found).then(|| format!("link to `{target}`: {file} has no such heading")))
}

/// The anchor that GitHub and most renderers give to a heading.
fn anchor_of(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    text.chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

/// `target` as seen from `page`, relative to the root.
fn resolve(page: &str, target: &str) -> String {
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// A repository path, as opposed to a URL, a flag, a type URL or a pattern.
fn looks_like_a_path(span: &str) -> bool {
    let odd = |c: char| c.is_whitespace() || "<>{}*$:|=()\"'…".contains(c);
    let repository_folder =
        ["crates/", "docs/", "examples/", "xtask/", ".ci/"].iter().any(|f| span.starts_with(f));
    let file = Path::new(span).extension().is_some_and(|e| e == "rs") && !span.starts_with('.');
    !span.contains(odd) && !span.contains("..") && (repository_folder || file)
}

/// Whether the path exists from the root, beside the page, or (as docs about one crate write them) at the end of
/// some file's path.
fn path_exists(tree: &Tree, page: &str, span: &str) -> bool {
    let from_page = resolve(page, span);
    let ending = format!("/{}", span.trim_end_matches('/'));
    tree.workspace.has(span)
        || tree.workspace.has(&from_page)
        || tree.workspace.files.iter().any(|file| file.ends_with(&ending))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_links_are_found() {
        assert_eq!(code_spans("see `a/b.rs` and `c`").collect::<Vec<_>>(), ["a/b.rs", "c"]);
        assert_eq!(
            link_targets("[x](docs/a.md#b), [y](z)").collect::<Vec<_>>(),
            ["docs/a.md#b", "z"]
        );
        assert_eq!(resolve("docs/x/a.md", "../b.md"), "docs/b.md");
        assert_eq!(anchor_of("## What it is, and why"), "what-it-is-and-why");
    }

    #[test]
    fn only_repository_paths_are_checked() {
        assert!(looks_like_a_path("crates/proxy/src/lib.rs"));
        assert!(looks_like_a_path("http/stream.rs"));
        assert!(!looks_like_a_path("extensions/src/<name>.rs"));
        assert!(!looks_like_a_path("/stats/prometheus"));
        assert!(!looks_like_a_path("type.googleapis.com/envoy.config"));
    }
}
