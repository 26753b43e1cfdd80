//! `exportTo`: which namespaces may see an object, the mesh's default applied.

use std::collections::BTreeSet;

use resources::terms::export::ExportTo as Written;

/// The namespaces that see an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExportTo {
    /// Every one.
    All,
    /// Only these.
    Namespaces(BTreeSet<String>),
}

impl ExportTo {
    /// What an object in `namespace` says; `default` where it says nothing.
    pub fn of(written: &Written, namespace: &str, default: &Written) -> ExportTo {
        match (written, default) {
            (Written::Public, _) | (Written::Default, Written::Public | Written::Default) => {
                ExportTo::All
            }
            (Written::Nobody, _) | (Written::Default, Written::Nobody) => {
                ExportTo::Namespaces(BTreeSet::new())
            }
            (Written::Namespaces(namespaces), _) => ExportTo::Namespaces(namespaces.clone()),
            // In the mesh's default, `.` means the namespace of whatever object it is applied to.
            (Written::Default, Written::Namespaces(namespaces)) => ExportTo::Namespaces(
                namespaces
                    .iter()
                    .map(|n| if n == "." { namespace.to_owned() } else { n.clone() })
                    .collect(),
            ),
        }
    }

    /// How public an object in `own` is to a client that sees it. Of two that speak for the same, Istio takes the less
    /// public one: the client's own namespace's, then one that is for some, then everybody's.
    pub fn publicity(&self, own: &str, client: &str) -> u8 {
        match self {
            ExportTo::Namespaces(_) => u8::from(own != client),
            ExportTo::All => 2,
        }
    }

    /// Whether everybody who sees an object of `narrower` sees this one's, too.
    pub fn includes(&self, narrower: &ExportTo) -> bool {
        match (self, narrower) {
            (ExportTo::All, _) => true,
            (ExportTo::Namespaces(all), ExportTo::Namespaces(some)) => some.is_subset(all),
            (ExportTo::Namespaces(_), ExportTo::All) => false,
        }
    }

    /// Whether a client in `namespace` sees the object.
    pub fn reaches(&self, namespace: &str) -> bool {
        match self {
            ExportTo::All => true,
            ExportTo::Namespaces(namespaces) => namespaces.contains(namespace),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_applies_where_nothing_is_said() {
        let only =
            |names: &[&str]| Written::Namespaces(names.iter().map(|n| (*n).to_owned()).collect());
        assert!(ExportTo::of(&Written::Default, "a", &Written::Public).reaches("b"));
        assert!(!ExportTo::of(&Written::Default, "a", &only(&["."])).reaches("b"));
        assert!(ExportTo::of(&Written::Default, "a", &only(&["."])).reaches("a"));
        assert!(ExportTo::of(&Written::Public, "a", &only(&["."])).reaches("b"));
        assert!(!ExportTo::of(&Written::Nobody, "a", &Written::Public).reaches("a"));
        assert!(ExportTo::of(&only(&["b"]), "a", &Written::Public).reaches("b"));
    }
}
