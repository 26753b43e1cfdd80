//! ServiceAccount.

use crate::field::Fields;
use crate::kinds::{Kind, KindInfo, Meta, check};
use crate::object::Collection;

/// A service account: that it exists is what matters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceAccount;

impl Kind for ServiceAccount {
    const INFO: &'static KindInfo = &KindInfo {
        collection: Collection::of("", "serviceaccounts"),
        kind: "ServiceAccount",
        short_names: &["sa"],
        versions: &["v1"],
        namespaced: true,
        has_status: false,
        check: check::<Self>,
    };

    fn read(fields: &mut Fields<'_>, _meta: &Meta) -> Self {
        fields.kept(&["secrets", "imagePullSecrets", "automountServiceAccountToken"]);
        Self
    }
}
