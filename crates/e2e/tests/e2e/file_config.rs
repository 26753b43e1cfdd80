//! Configuration in files that are moved into place, beside the real Envoy.

use std::path::Path;

use anyhow::{Context, Result};
use e2e::{Engine, Proxy, Upstream, wait_until};

use crate::bootstrap::http_proxy;

const ROUTES: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";

/// Replaces a file as configuration is replaced: another is moved into its place.
fn put(folder: &Path, name: &str, text: &str) -> Result<()> {
    let new = folder.join("new");
    std::fs::write(&new, text)?;
    std::fs::rename(&new, folder.join(name)).context("moving")
}

fn routes(cluster: &str) -> String {
    format!(
        "version_info: '1'\nresources:\n- {{ '@type': {ROUTES}, name: routes, virtual_hosts: [{{ name: all, domains: ['*'], routes: [{{ match: {{ prefix: / }}, route: {{ cluster: {cluster} }} }}] }}] }}\n"
    )
}

fn clusters(named: &[(&str, u16)]) -> String {
    let one = |(name, port): &(&str, u16)| {
        format!(
            "- {{ '@type': {CLUSTER}, name: {name}, connect_timeout: 2s, load_assignment: {{ cluster_name: {name}, endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }} }} }}] }}] }} }}\n"
        )
    };
    format!("resources:\n{}", named.iter().map(one).collect::<String>())
}

#[test]
fn files_that_are_replaced_are_read_again() -> Result<()> {
    for engine in Engine::available() {
        let (one, two) = (Upstream::saying("one")?, Upstream::saying("two")?);
        let folder = tempfile::tempdir()?;
        put(folder.path(), "cds.yaml", &clusters(&[("one", one.port()), ("two", two.port())]))?;
        put(folder.path(), "rds.yaml", &routes("one"))?;
        let at = folder.path().display();
        let text = http_proxy(1);
        let inline = text.find("          route_config:").context("no routes")?;
        let filters = text.find("          http_filters:").context("no filters")?;
        let rds = format!(
            "          rds: {{ route_config_name: routes, config_source: {{ path_config_source: {{ path: {at}/rds.yaml }} }} }}\n"
        );
        let bootstrap = format!(
            "node: {{ id: node, cluster: c }}\ndynamic_resources: {{ cds_config: {{ path_config_source: {{ path: {at}/cds.yaml, watched_directory: {{ path: {at} }} }} }} }}\n{}{rds}{}",
            &text[..inline],
            &text[filters..]
        );
        let proxy = Proxy::start_engine(engine, &bootstrap)?;
        let until = |expected: &str| {
            wait_until(expected, || {
                let found = proxy.connect("entrance")?.get("a", "/")?;
                Ok((found.text() == expected).then_some(()))
            })
            .with_context(|| format!("{engine:?}"))
        };
        until("one")?;
        put(folder.path(), "rds.yaml", &routes("two"))?;
        until("two")?;
        // What is wrong changes nothing.
        put(folder.path(), "rds.yaml", "resources: [{]")?;
        put(folder.path(), "cds.yaml", &clusters(&[("two", two.port())]))?;
        wait_until("the cluster to go", || {
            let text = proxy.admin_get("/clusters")?.text();
            Ok((!text.starts_with("one::") && !text.contains("\none::")).then_some(()))
        })
        .with_context(|| format!("{engine:?}"))?;
        until("two")?;
    }
    Ok(())
}
