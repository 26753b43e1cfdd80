//! Secret.

use std::collections::BTreeMap;
use std::fmt;

use super::config_map::read_bytes;
use crate::field::{Fields, Reason};
use crate::kinds::{Kind, KindInfo, Meta, check};
use crate::object::Collection;

/// Bytes by name that nobody else should see. `Debug` shows names only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret {
    /// Type, `kubernetes.io/tls`; `Opaque` where nothing was said.
    pub kind: String,
    /// Bytes, decoded; `stringData` is merged in.
    pub data: BTreeMap<String, Vec<u8>>,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").field("kind", &self.kind).field("data", &self.data.keys()).finish()
    }
}

impl Kind for Secret {
    const INFO: &'static KindInfo = &KindInfo {
        collection: Collection::of("", "secrets"),
        kind: "Secret",
        short_names: &[],
        versions: &["v1"],
        namespaced: true,
        has_status: false,
        check: check::<Self>,
    };

    fn read(fields: &mut Fields<'_>, _meta: &Meta) -> Self {
        fields.kept(&["immutable"]);
        let kind = fields.optional_text("type").filter(|kind| !kind.is_empty());
        let mut data = read_bytes(fields, "data");
        data.extend(
            fields.text_map("stringData").into_iter().map(|(key, text)| (key, text.into_bytes())),
        );
        let kind = kind.unwrap_or_else(|| "Opaque".to_owned());
        if kind == "kubernetes.io/tls" {
            for key in ["tls.crt", "tls.key"] {
                if !data.contains_key(key) {
                    fields.error_key(
                        "data",
                        key,
                        Reason::Required,
                        "required for type kubernetes.io/tls",
                    );
                }
            }
        }
        Self { kind, data }
    }
}
