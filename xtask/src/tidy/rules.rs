//! `layers.toml`, parsed.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::workspace::Workspace;

/// The rules' data. Unknown keys are refused, so that a misspelt rule is not a rule that never fires.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// Package → tier; imports go to lower tiers only.
    pub tiers: BTreeMap<String, u8>,
    /// Package → the packages it may depend on.
    pub edges: BTreeMap<String, Vec<String>>,
    pub protobuf_doors: Paths,
    pub anyhow: Crates,
    /// Module path → why it needs `unsafe`.
    pub unsafe_modules: BTreeMap<String, String>,
    /// `path::NAME` → why this static is not global state.
    pub statics: BTreeMap<String, String>,
    /// Folder of features → the file whose table has one row for each.
    pub registries: BTreeMap<String, String>,
    pub names: Names,
    pub sizes: Sizes,
    pub ratchet: Ratchet,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Paths {
    pub paths: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Crates {
    pub crates: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Names {
    pub banned_modules: Vec<String>,
}

/// Limits, in lines.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sizes {
    pub file: usize,
    pub function: usize,
}

/// What is over a limit today, and by how much it may be.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ratchet {
    pub files: BTreeMap<String, usize>,
    pub functions: BTreeMap<String, usize>,
}

impl Rules {
    pub fn read(workspace: &Workspace) -> Result<Self> {
        toml::from_str(&workspace.read("layers.toml")?).context("layers.toml")
    }
}
