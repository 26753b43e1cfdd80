//! Protobuf stays behind its doors, and `anyhow` out of the libraries.

use anyhow::Result;

use super::{Findings, Tree};

const PROTOBUF_CRATES: [&str; 6] =
    ["api::", "envoy_types::", "prost::", "prost_reflect::", "tonic::", "tonic_prost::"];

pub fn check(tree: &Tree, findings: &mut Findings) -> Result<()> {
    protobuf(tree, findings);
    anyhow_in_libraries(tree, findings)
}

fn protobuf(tree: &Tree, findings: &mut Findings) {
    let doors = &tree.rules.protobuf_doors.paths;
    let is_door = |path: &str| {
        doors.iter().any(|door| {
            path.strip_prefix(door.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    };
    for file in
        tree.sources.iter().filter(|file| file.path.starts_with("crates/") && !is_door(&file.path))
    {
        for (number, line) in file.source.code_lines() {
            if let Some(name) = PROTOBUF_CRATES.iter().find(|name| names_crate(line, name)) {
                findings.add(format_args!(
                    "{}:{number}: `{name}` outside the doors of layers.toml",
                    file.path
                ));
            }
        }
    }
}

/// Whether `line` has `name` (which ends in `::`) as the first segment of a path.
fn names_crate(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| {
        let before = line[..at].chars().next_back().unwrap_or(' ');
        let after_root = line[..at].trim_end().ends_with("use ::");
        after_root || !(before.is_alphanumeric() || before == '_' || before == ':')
    })
}

fn anyhow_in_libraries(tree: &Tree, findings: &mut Findings) -> Result<()> {
    let allowed = &tree.rules.anyhow.crates;
    for package in tree.workspace.packages()? {
        if package.dependencies.iter().any(|d| d.name == "anyhow")
            && !allowed.contains(&package.name)
        {
            findings.add(format_args!(
                "`{}` is a library: its errors are `thiserror` enums, not `anyhow`",
                package.name
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_segment_counts() {
        assert!(names_crate("use api::envoy::config;", "api::"));
        assert!(names_crate("fn f(x: &api::Any) {}", "api::"));
        assert!(!names_crate("use kube_api::x;", "api::"));
        assert!(!names_crate("use crate::api::x;", "api::"));
    }
}
