//! `exportTo`: which namespaces may see an object.

use std::collections::BTreeSet;

use crate::field::{Fields, Reason};
use crate::rules;

/// Which namespaces may see an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ExportTo {
    /// Nothing said: the mesh's default applies.
    #[default]
    Default,
    /// Every namespace (`*`).
    Public,
    /// No namespace (`~`).
    Nobody,
    /// These namespaces; `.` is resolved to the object's own.
    Namespaces(BTreeSet<String>),
}

impl ExportTo {
    /// Reads `exportTo` of an object in `namespace`.
    pub fn read(fields: &mut Fields<'_>, namespace: &str) -> Self {
        let entries = fields.texts("exportTo");
        let mut seen = BTreeSet::new();
        for (index, entry) in entries.iter().enumerate() {
            let resolved = if entry == "." { namespace } else { entry };
            if !matches!(resolved, "*" | "~") && rules::name::dns_label(resolved).is_err() {
                let expected = format!("invalid value {entry:?}: must be *, ., ~ or a namespace");
                fields.error_at("exportTo", index, Reason::Invalid, expected);
            }
            if !seen.insert(resolved.to_owned()) {
                fields.error_at(
                    "exportTo",
                    index,
                    Reason::Duplicate,
                    format!("{entry:?} is there already"),
                );
            }
        }
        for alone in ["*", "~"] {
            if seen.contains(alone) && seen.len() > 1 {
                fields.error_in("exportTo", Reason::Invalid, format!("{alone} must stand alone"));
            }
        }
        match seen {
            seen if seen.is_empty() => Self::Default,
            seen if seen.contains("*") => Self::Public,
            seen if seen.contains("~") => Self::Nobody,
            seen => Self::Namespaces(seen),
        }
    }
}
