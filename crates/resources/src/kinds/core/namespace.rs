//! Namespace.

use crate::field::Fields;
use crate::kinds::{Kind, KindInfo, Meta, check};
use crate::object::Collection;

/// A namespace: its labels are what matters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace;

impl Kind for Namespace {
    const INFO: &'static KindInfo = &KindInfo {
        collection: Collection::of("", "namespaces"),
        kind: "Namespace",
        short_names: &["ns"],
        versions: &["v1"],
        namespaced: false,
        has_status: true,
        check: check::<Self>,
    };

    fn read(fields: &mut Fields<'_>, _meta: &Meta) -> Self {
        fields.object("spec", |spec| drop(spec.texts("finalizers")));
        Self
    }
}
