//! How a workload becomes a member of a mesh: through the control socket of one on this machine, or with what
//! `outrigger token create` printed on another.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use agent::credential::{NoToken, TokenFuture, TokenSource};
use anyhow::{Context, bail};
use apiserver::control_socket::client::ControlClient;
use apiserver::control_socket::protocol::{Registration, WishedPort};
use identity::TrustDomain;
use serde::Deserialize;
use tokio::sync::Mutex;

/// A token is not used in the last part of its life: it must survive the way.
const TOKEN_MARGIN: Duration = Duration::from_secs(60);

/// What the user says of the workload.
#[derive(Clone, Debug)]
pub struct Wish {
    /// A WorkloadGroup that is there.
    pub group: Option<String>,
    /// The service's name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// `version` label.
    pub version: Option<String>,
    /// Further labels.
    pub labels: BTreeMap<String, String>,
    /// Service account.
    pub service_account: Option<String>,
    /// Ports that it is reached at.
    pub ports: Vec<WishedPort>,
    /// Which of its group's workloads it is.
    pub instance: Option<String>,
}

/// What a member knows.
pub struct Membership {
    /// The mesh's name.
    pub mesh: String,
    /// Its trust domain.
    pub trust_domain: TrustDomain,
    /// What it trusts, PEM.
    pub roots_pem: String,
    /// `host:15012`.
    pub control_plane: String,
    /// Tokens for the control plane.
    pub tokens: Arc<dyn TokenSource>,
    /// Namespace.
    pub namespace: String,
    /// The WorkloadGroup.
    pub group: String,
    /// Which of its workloads.
    pub instance: String,
    /// Service account.
    pub service_account: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// The workload's address.
    pub address: IpAddr,
    /// Ports that it is reached at.
    pub ports: Vec<u16>,
    /// A private directory of its own.
    pub directory: PathBuf,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// Joins the mesh whose state is in `state_dir`.
pub async fn join_local(state_dir: &Path, wish: &Wish) -> anyhow::Result<Membership> {
    let client = ControlClient::new(&state_dir.join("control.sock"));
    let registered = client
        .register(&Registration {
            group: wish.group.clone(),
            name: wish.name.clone(),
            namespace: wish.namespace.clone(),
            version: wish.version.clone(),
            labels: wish.labels.clone(),
            service_account: wish.service_account.clone(),
            ports: wish.ports.clone(),
            instance: wish.instance.clone(),
        })
        .await?;
    let fresh_until = Instant::now() + Duration::from_secs(registered.token_expires_in_seconds);
    let tokens = SocketTokens {
        client,
        namespace: registered.namespace.clone(),
        service_account: registered.service_account.clone(),
        current: Mutex::new((registered.token, fresh_until)),
    };
    let made = registered
        .service_made
        .map(|name| format!("no Service of yours selects it: Service {name} was made for it"));
    let directory = private_directory(
        state_dir,
        &registered.namespace,
        &registered.group,
        &registered.instance,
    )?;
    Ok(Membership {
        mesh: registered.mesh.mesh,
        trust_domain: registered.mesh.trust_domain.parse().context("the mesh's trust domain")?,
        roots_pem: registered.mesh.root_certificate,
        control_plane: registered.mesh.xds_address,
        tokens: Arc::new(tokens),
        namespace: registered.namespace,
        group: registered.group,
        instance: registered.instance,
        service_account: registered.service_account,
        labels: registered.labels,
        address: registered.address,
        ports: registered.ports,
        directory,
        notes: made.into_iter().collect(),
    })
}

/// What `outrigger token create` prints.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Invitation {
    address: String,
    trust_domain: String,
    token: String,
    root_certificate: String,
    #[serde(default)]
    #[allow(dead_code)]
    expires_in_seconds: Option<u64>,
}

/// The token of an invitation, read anew whenever one is needed: whoever writes a fresh invitation to the file, as
/// `outrigger token create` prints it, lets a workload in again whose certificate ended while it was away.
struct InvitationTokens {
    file: PathBuf,
}

impl TokenSource for InvitationTokens {
    fn token(&self) -> TokenFuture<'_> {
        Box::pin(async {
            let invitation =
                read_invitation(&self.file).await.map_err(|error| NoToken(format!("{error:#}")))?;
            match identity::token::expiry(&invitation.token) {
                Some(expired) if expired <= SystemTime::now() => Err(NoToken(format!(
                    "the token in {} is no longer valid; put what `outrigger token create` prints there",
                    self.file.display()
                ))),
                _ => Ok(invitation.token.trim().to_owned()),
            }
        })
    }
}

async fn read_invitation(file: &Path) -> anyhow::Result<Invitation> {
    let text = tokio::fs::read_to_string(file).await.with_context(|| file.display().to_string())?;
    serde_saphyr::from_str(&text).map_err(|error| anyhow::anyhow!("{}: {error}", file.display()))
}

/// Joins a mesh elsewhere. Group and Service must be there: only the mesh's owner makes them.
pub async fn join_remote(file: &Path, wish: &Wish) -> anyhow::Result<Membership> {
    let invitation = read_invitation(file).await?;
    let Some(group) = wish.group.clone() else {
        bail!("--join needs --group: the WorkloadGroup to join, which says what the workload is");
    };
    let service_account = wish.service_account.clone().unwrap_or_else(|| group.clone());
    let instance = wish.instance.clone().unwrap_or_else(|| "0".to_owned());
    let directory = std::env::temp_dir().join(format!("outrigger-{}", std::process::id()));
    make_private(&directory)?;
    Ok(Membership {
        mesh: String::new(),
        trust_domain: invitation
            .trust_domain
            .parse()
            .with_context(|| format!("{}: trustDomain", file.display()))?,
        roots_pem: invitation.root_certificate,
        address: local_address_towards(&invitation.address)?,
        control_plane: invitation.address,
        tokens: Arc::new(InvitationTokens { file: file.to_owned() }),
        namespace: wish.namespace.clone(),
        group,
        instance,
        service_account,
        labels: wish.labels.clone(),
        ports: wish.ports.iter().map(|wished| wished.port).collect(),
        directory,
        notes: Vec::new(),
    })
}

/// The address by which this machine reaches a host, which is the one by which it is reached. Nothing is sent.
fn local_address_towards(host_and_port: &str) -> anyhow::Result<IpAddr> {
    use std::net::ToSocketAddrs;
    let towards = || format!("the control plane's address {host_and_port}");
    let remote =
        host_and_port.to_socket_addrs().with_context(towards)?.next().with_context(towards)?;
    let any: SocketAddr =
        if remote.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.connect(remote).with_context(towards)?;
    Ok(socket.local_addr()?.ip())
}

/// `<state>/run/<namespace>.<group>.<instance>`, or a short one where that would be too long for a socket.
fn private_directory(
    state_dir: &Path,
    namespace: &str,
    group: &str,
    instance: &str,
) -> anyhow::Result<PathBuf> {
    let directory = state_dir.join("run").join(format!("{namespace}.{group}.{instance}"));
    let directory = match agent::bootstrap::socket_path_in(&directory) {
        Some(_) => directory,
        None => std::env::temp_dir().join(format!("outrigger-{}", std::process::id())),
    };
    make_private(&directory)?;
    Ok(directory)
}

fn make_private(directory: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt};
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.with_context(|| directory.display().to_string())?;
    let metadata = std::fs::symlink_metadata(directory)?;
    let mine = metadata.uid() == rustix::process::geteuid().as_raw();
    if !metadata.is_dir() || metadata.mode() & 0o077 != 0 || !mine {
        bail!("{}: must be a directory that only you can enter (mode 0700)", directory.display());
    }
    Ok(())
}

/// Tokens from the control socket: the one that came with the registration while it is good, then new ones.
struct SocketTokens {
    client: ControlClient,
    namespace: String,
    service_account: String,
    current: Mutex<(String, Instant)>,
}

impl TokenSource for SocketTokens {
    fn token(&self) -> TokenFuture<'_> {
        Box::pin(async {
            let mut current = self.current.lock().await;
            if current.1.saturating_duration_since(Instant::now()) < TOKEN_MARGIN {
                let answer = self.client.token(&self.namespace, &self.service_account).await;
                let answer = answer.map_err(|error| NoToken(error.to_string()))?;
                *current =
                    (answer.token, Instant::now() + Duration::from_secs(answer.expires_in_seconds));
            }
            Ok(current.0.clone())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_others_can_enter_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let temporary = tempfile::tempdir().unwrap();
        let directory = private_directory(temporary.path(), "default", "reviews-v1", "0").unwrap();
        assert!(directory.ends_with("run/default.reviews-v1.0"));
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(private_directory(temporary.path(), "default", "reviews-v1", "0").is_err());
    }

    #[test]
    fn our_address_towards_loopback_is_loopback() {
        assert!(local_address_towards("127.0.0.1:15012").unwrap().is_loopback());
        assert!(local_address_towards("nonsense").is_err());
    }

    #[tokio::test]
    async fn joining_elsewhere_needs_a_group_and_a_whole_invitation() {
        let temporary = tempfile::tempdir().unwrap();
        let file = temporary.path().join("invitation.yaml");
        let wish = Wish {
            group: Some("reviews-v1".into()),
            name: String::new(),
            namespace: "default".into(),
            version: None,
            labels: BTreeMap::new(),
            service_account: None,
            ports: vec![WishedPort { port: 9080, protocol: "http".into() }],
            instance: None,
        };
        let text =
            "address: 127.0.0.1:15012\ntrustDomain: td\ntoken: x\nrootCertificate: |\n  pem\n";
        std::fs::write(&file, text).unwrap();
        let member = join_remote(&file, &wish).await.unwrap();
        assert_eq!(
            (member.group.as_str(), member.service_account.as_str()),
            ("reviews-v1", "reviews-v1")
        );
        assert!(join_remote(&file, &Wish { group: None, ..wish.clone() }).await.is_err());
        // A fresh invitation is taken without starting anew; one that has ended is said to have.
        assert_eq!(member.tokens.token().await.unwrap(), "x");
        std::fs::write(&file, text.replace("token: x", "token: y")).unwrap();
        assert_eq!(member.tokens.token().await.unwrap(), "y");
        let issuer = identity::token::TokenIssuer::new(
            identity::PrivateKey::generate().unwrap(),
            "https://mesh",
        );
        let past = SystemTime::now() - Duration::from_secs(7200);
        let minute = Duration::from_secs(60);
        let old = issuer.unwrap().issue("default", "reviews", "istio-ca", minute, past).unwrap();
        std::fs::write(&file, text.replace("token: x", &format!("token: {old}"))).unwrap();
        let refused = member.tokens.token().await.unwrap_err().to_string();
        assert!(refused.contains("outrigger token create"), "{refused}");
        std::fs::write(&file, "address: a\n").unwrap();
        assert!(join_remote(&file, &wish).await.is_err());
    }
}
