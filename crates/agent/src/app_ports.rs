//! Which port of 127.0.0.1 the application serves each port of the workload on.

use std::collections::BTreeMap;

use api::envoy::config::core::v3::Node;
use api::google::protobuf::{Struct, Value, value::Kind};

/// The metadata field in which the control plane reads them.
pub const APP_PORTS_FIELD: &str = "OUTRIGGER_APP_PORTS";

/// Ports of the workload (what its Services target) to ports of the application.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppPorts(pub BTreeMap<u16, u16>);

impl AppPorts {
    /// Every port of the workload on one port of the application.
    pub fn all_on(workload_ports: &[u16], app_port: u16) -> AppPorts {
        AppPorts(workload_ports.iter().map(|port| (*port, app_port)).collect())
    }

    /// Writes them into a node's metadata.
    pub(crate) fn write_to(&self, node: &mut Node) {
        let text = |port: &u16| Value { kind: Some(Kind::StringValue(port.to_string())) };
        let fields = self.0.iter().map(|(port, app)| (port.to_string(), text(app))).collect();
        let value = Value { kind: Some(Kind::StructValue(Struct { fields })) };
        node.metadata.get_or_insert_default().fields.insert(APP_PORTS_FIELD.to_owned(), value);
    }
}
