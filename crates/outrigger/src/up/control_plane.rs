//! The control plane in this process: objects, certificates, discovery and the control socket.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use apiserver::control_socket::protocol::MeshInfo;
use apiserver::control_socket::{self, ControlSocket, Services};
use apiserver::directory::{DirectorySource, Pass};
use apiserver::state_dir::StateDir;
use apiserver::storage;
use apiserver::tokens::Tokens;
use pilot::Pilot;
use resources::kinds::mesh::mesh_config::MeshConfig;
use resources::store::{StoreError, Versioned};

use super::board::Board;
use super::{Options, gateway};

/// How long a workload that went away without a word stays registered.
const DISCONNECT_GRACE: Duration = Duration::from_secs(10);

/// A control plane that runs.
pub struct ControlPlane {
    /// The objects.
    pub store: Arc<Versioned>,
    /// Namespace whose policies are the mesh's.
    pub root_namespace: String,
    directory: DirectorySource,
    pilot: Arc<Pilot>,
    socket: ControlSocket,
}

impl ControlPlane {
    /// Reads the directory and, if nothing is wrong with it, starts to serve. Nothing is answered before that, so
    /// that no proxy is ever told of a mesh that is only half there.
    pub async fn start(
        options: &Options,
        state: &StateDir,
        board: &Arc<Board>,
    ) -> anyhow::Result<Result<(Self, Pass), Pass>> {
        let store = Arc::new(storage::open(state)?);
        let root_namespace = MeshConfig::default().root_namespace;
        gateway::make_objects(&store, &root_namespace, options.gateway.is_some()).await?;
        // What the control plane does not do yet is told with the place where it was asked for.
        let directory =
            DirectorySource::new(&options.directory, Arc::clone(&store), &root_namespace)
                .with_advice(pilot::not_translated);
        let pass = directory.pass().await?;
        if !pass.problems.is_empty() {
            return Ok(Err(pass));
        }
        let tokens = Tokens::load_or_create(&*store, &root_namespace).await?;
        let pilot = pilot::start(pilot::Options {
            store: Arc::clone(&store) as _,
            tokens: tokens.verifier()?,
            listen: options.xds_address,
            plaintext_listen: options.plaintext_xds,
            monitoring_listen: options.monitoring_address,
            server_names: vec![options.xds_address.ip().to_string()],
            workload_certificate_ttl: options.workload_cert_ttl,
            disconnect_grace: DISCONNECT_GRACE,
        });
        let pilot = Arc::new(pilot.await?);
        pilot.ready().await;
        let mesh = MeshInfo {
            mesh: options.mesh.clone(),
            trust_domain: pilot.trust_domain(),
            root_namespace: root_namespace.clone(),
            root_certificate: pilot.root_certificate().to_owned(),
            xds_address: pilot.address().to_string(),
        };
        let services = Services {
            store: Arc::clone(&store) as _,
            tokens,
            mesh,
            status: board.status_of(&pilot, &store),
        };
        let path = state.socket();
        let socket =
            control_socket::serve(&path, services).with_context(|| path.display().to_string())?;
        board.set_xds_address(pilot.address());
        Ok(Ok((Self { store, root_namespace, directory, pilot, socket }, pass)))
    }

    /// Where it listens.
    pub fn xds_address(&self) -> SocketAddr {
        self.pilot.address()
    }

    /// What serves the objects.
    pub fn pilot(&self) -> &Pilot {
        &self.pilot
    }

    /// Brings the objects in line with the directory once more.
    pub async fn pass(&self) -> Result<Pass, StoreError> {
        self.directory.pass().await
    }

    /// Stops serving.
    pub async fn stop(self) {
        self.socket.stop().await;
        match Arc::try_unwrap(self.pilot) {
            Ok(pilot) => pilot.shutdown().await,
            // Somebody still asks for its status; it ends with the process.
            Err(_) => tracing::debug!("the control plane was still in use when it stopped"),
        }
    }
}
