//! How routes name the gateways that they are for.

use crate::field::{Fields, Reason};
use crate::rules;

/// A gateway that a route is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GatewayRef {
    /// Every sidecar of the mesh (`mesh`).
    Mesh,
    /// One Gateway object.
    Gateway {
        /// Its namespace; the route's own where none was written.
        namespace: String,
        /// Its name.
        name: String,
    },
}

impl GatewayRef {
    /// Reads a list of gateways named by an object in `namespace`.
    pub fn read_list(fields: &mut Fields<'_>, name: &'static str, namespace: &str) -> Vec<Self> {
        let mut gateways = Vec::new();
        for (index, text) in fields.texts(name).into_iter().enumerate() {
            match Self::parse(&text, namespace) {
                Ok(gateway) => {
                    if !text.contains('/') && text.contains('.') {
                        fields.warn_in(
                            name,
                            format!("{text:?}: write the gateway as <namespace>/<name> instead"),
                        );
                    }
                    gateways.push(gateway);
                }
                Err(error) => {
                    fields.error_at(
                        name,
                        index,
                        Reason::Invalid,
                        format!("invalid value {text:?}: {error}"),
                    );
                }
            }
        }
        gateways
    }

    /// Reads `mesh`, `name`, `namespace/name` or the old `name.namespace[.svc...]`.
    fn parse(text: &str, own: &str) -> Result<Self, String> {
        const EXPECTED: &str = "must be mesh, the name of a Gateway or <namespace>/<name>";
        if text == "mesh" {
            return Ok(Self::Mesh);
        }
        let (namespace, name) = match (text.split_once('/'), text.split_once('.')) {
            (Some(("." | "", _)), _) | (_, Some((_, ""))) => return Err(EXPECTED.to_owned()),
            (Some((namespace, name)), _) => (namespace, name),
            (None, Some((name, rest))) => (rest.split('.').next().unwrap_or(rest), name),
            (None, None) => (own, text),
        };
        rules::name::dns_label(if namespace.is_empty() { "default" } else { namespace })
            .map_err(|_| EXPECTED)?;
        rules::name::dns_subdomain(name).map_err(|_| EXPECTED)?;
        Ok(Self::Gateway { namespace: namespace.to_owned(), name: name.to_owned() })
    }
}
