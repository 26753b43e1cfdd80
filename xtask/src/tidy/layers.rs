//! Imports go down a tier only, along the edges that `layers.toml` lists.

use anyhow::Result;

use super::{Findings, Tree};

pub fn check(tree: &Tree, findings: &mut Findings) -> Result<()> {
    let rules = &tree.rules;
    for package in tree.workspace.packages()? {
        let name = &package.name;
        let (Some(tier), Some(allowed)) = (rules.tiers.get(name), rules.edges.get(name)) else {
            findings.add(format_args!("crate `{name}` has no tier or no edges in layers.toml"));
            continue;
        };
        for dependency in package.dependencies.iter().map(|d| &d.name) {
            let Some(below) = rules.tiers.get(dependency) else { continue };
            if !allowed.contains(dependency) {
                findings.add(format_args!(
                    "`{name}` may not depend on `{dependency}`: no such edge in layers.toml"
                ));
            }
            if below >= tier {
                findings.add(format_args!(
                    "`{name}` (tier {tier}) depends upwards on `{dependency}` (tier {below})"
                ));
            }
        }
    }
    Ok(())
}
