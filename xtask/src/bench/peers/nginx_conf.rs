//! nginx configured for the same duty: one worker, upstream keep-alive, no logs.

use std::fmt::Write;
use std::path::Path;

use super::{Hop, Role, Shape};

pub fn render(hop: &Hop<'_>, folder: &Path) -> String {
    let folder = folder.display();
    let listen = hop.listen;
    let mut text = format!(
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\n\
         user root;\nworker_processes 1;\nworker_rlimit_nofile 60000;\ndaemon off;\n\
         pid {folder}/nginx-{port}.pid;\nerror_log stderr crit;\n\
         events {{ worker_connections 50000; }}\n",
        port = listen.port()
    );
    if hop.setting.shape == Shape::Tcp {
        let servers = servers(hop);
        let _ = write!(
            text,
            "stream {{\n  access_log off;\n  upstream backend {{ {servers} }}\n\
             \x20 server {{ listen {listen} backlog=4096; proxy_pass backend; tcp_nodelay on; proxy_buffer_size 16k; }}\n}}\n"
        );
        return text;
    }
    let (listen_tls, server_tls) = downstream_tls(hop);
    let (scheme, upstream_tls) = upstream_tls(hop);
    let listen_http2 = if hop.setting.http2 { " http2" } else { "" };
    let pass = if hop.setting.shape == Shape::Grpc {
        "grpc_pass grpc://backend;\n".to_owned()
    } else {
        format!(
            "proxy_pass {scheme}://backend;\n      proxy_http_version 1.1;\n\
             \x20     proxy_set_header Connection \"\";\n      proxy_set_header Host $host;\n{upstream_tls}"
        )
    };
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("  {kind}_temp_path {folder}/nginx-temp-{kind};\n"))
        .collect();
    let _ = write!(
        text,
        "http {{\n  access_log off;\n  keepalive_requests 1000000000;\n  keepalive_timeout 3600s;\n  tcp_nodelay on;\n{temporary}\
         \x20 upstream backend {{ {servers} keepalive 1024; keepalive_requests 1000000000; keepalive_timeout 3600s; }}\n\
         \x20 server {{\n    listen {listen}{listen_tls}{listen_http2} backlog=4096;\n{server_tls}\
         \x20   location / {{\n      {pass}    }}\n  }}\n}}\n",
        servers = servers(hop)
    );
    text
}

fn servers(hop: &Hop<'_>) -> String {
    hop.upstreams.iter().map(|address| format!("server {address}; ")).collect()
}

fn downstream_tls(hop: &Hop<'_>) -> (&'static str, String) {
    let files = hop.setting.certificates;
    let mut lines = format!(
        "    ssl_certificate {};\n    ssl_certificate_key {};\n    ssl_protocols TLSv1.2 TLSv1.3;\n",
        files.certificate.display(),
        files.key.display()
    );
    match (hop.setting.shape, hop.role) {
        (Shape::Tls, _) => (" ssl", lines),
        (Shape::Mesh, Role::Second) => {
            let _ = writeln!(lines, "    ssl_client_certificate {};", files.authority.display());
            lines.push_str("    ssl_verify_client on;\n");
            (" ssl", lines)
        }
        _ => ("", String::new()),
    }
}

fn upstream_tls(hop: &Hop<'_>) -> (&'static str, String) {
    if (hop.setting.shape, hop.role) != (Shape::Mesh, Role::First) {
        return ("http", String::new());
    }
    let files = hop.setting.certificates;
    let lines = format!(
        "      proxy_ssl_certificate {};\n      proxy_ssl_certificate_key {};\n      proxy_ssl_trusted_certificate {};\n\
         \x20     proxy_ssl_verify on;\n      proxy_ssl_name bench.local;\n      proxy_ssl_server_name on;\n\
         \x20     proxy_ssl_protocols TLSv1.3;\n",
        files.certificate.display(),
        files.key.display(),
        files.authority.display()
    );
    ("https", lines)
}
