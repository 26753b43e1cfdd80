//! ConfigMap.

use std::collections::BTreeMap;

use base64::Engine;

use crate::field::{Fields, Reason};
use crate::kinds::{Kind, KindInfo, Meta, check};
use crate::object::Collection;

/// Texts by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigMap {
    /// Texts.
    pub data: BTreeMap<String, String>,
    /// Bytes, decoded from base64.
    pub binary_data: BTreeMap<String, Vec<u8>>,
}

impl Kind for ConfigMap {
    const INFO: &'static KindInfo = &KindInfo {
        collection: Collection::of("", "configmaps"),
        kind: "ConfigMap",
        short_names: &["cm"],
        versions: &["v1"],
        namespaced: true,
        has_status: false,
        check: check::<Self>,
    };

    fn read(fields: &mut Fields<'_>, _meta: &Meta) -> Self {
        fields.kept(&["immutable"]);
        let data = fields.text_map("data");
        Self { binary_data: read_bytes(fields, "binaryData"), data }
    }
}

/// Reads a map of base64 values; Secrets have one too.
pub(super) fn read_bytes(fields: &mut Fields<'_>, name: &'static str) -> BTreeMap<String, Vec<u8>> {
    let mut bytes = BTreeMap::new();
    for (key, text) in fields.text_map(name) {
        // Kubernetes takes line breaks within base64, which people paste.
        let packed: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        match base64::engine::general_purpose::STANDARD.decode(packed) {
            Ok(value) => drop(bytes.insert(key, value)),
            Err(error) => {
                fields.error_key(name, &key, Reason::Invalid, format!("is no base64: {error}"))
            }
        }
    }
    bytes
}
