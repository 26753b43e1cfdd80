//! The crates that `deny.toml` bans are in no build, whether or not cargo-deny is installed; and no text of the
//! repository speaks of a machine it was written on.

use anyhow::{Context, Result};
use serde::Deserialize;

use super::{Findings, Tree};

#[derive(Deserialize)]
struct Deny {
    bans: Bans,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Banned>,
}

#[derive(Deserialize)]
struct Banned {
    #[serde(rename = "crate")]
    name: String,
    reason: String,
}

pub fn check(tree: &Tree, findings: &mut Findings) -> Result<()> {
    let deny: Deny = toml::from_str(&tree.workspace.read("deny.toml")?).context("deny.toml")?;
    let compiled = tree.workspace.compiled_crates()?;
    for Banned { name, reason } in deny.bans.deny {
        if let Some(versions) = compiled.get(&name) {
            findings.add(format_args!(
                "`{name}` {} would be compiled in: {reason}",
                versions.join(", ")
            ));
        }
    }
    machine_paths(tree, findings)
}

/// A path of somebody's machine in a committed file helps nobody else.
fn machine_paths(tree: &Tree, findings: &mut Findings) -> Result<()> {
    // Assembled, so that this file does not find itself.
    let machine = [["/wo", "rk/"].concat(), ["/tmp/", "plan"].concat(), ["/ro", "ot/"].concat()];
    let text_ends = [".rs", ".md", ".toml", ".yaml", ".yml", ".sh", ".proto", ".html", "/run"];
    for path in
        tree.workspace.files.iter().filter(|path| text_ends.iter().any(|end| path.ends_with(end)))
    {
        for (number, line) in tree.workspace.read(path)?.lines().enumerate() {
            if let Some(found) = machine.iter().find(|machine| line.contains(machine.as_str())) {
                findings.add(format_args!(
                    "{path}:{}: names a path of one machine (`{found}`)",
                    number + 1
                ));
            }
        }
    }
    Ok(())
}
