//! `/`: the table as a page.

use std::fmt::Write;

use super::{AdminContext, ENDPOINTS, Endpoint, Query, Reply};

pub(super) const ENDPOINT: Endpoint =
    Endpoint { path: "/", changes: false, help: "Admin home page", parameters: &[], handle };

const HEAD: &str = "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>Outrigger admin</title>\n\
<style>body{font-family:sans-serif}td{padding:.2em 1em;vertical-align:top}form{display:inline}</style>\n</head>\n<body>\n\
<table>\n<tr><th>Command</th><th>Description</th></tr>\n";

/// Nothing in the table needs escaping: it is our own text.
fn handle(_: &AdminContext, _: &Query) -> Reply {
    let mut page = HEAD.to_owned();
    for Endpoint { path, changes, help, .. } in ENDPOINTS {
        let name = path.trim_start_matches('/');
        let _ = if *changes {
            writeln!(
                page,
                "<tr><td><form action=\"{name}\" method=\"post\"><button>{name}</button></form></td><td>{help}</td></tr>"
            )
        } else {
            writeln!(page, "<tr><td><a href=\"{path}\">{path}</a></td><td>{help}</td></tr>")
        };
    }
    page.push_str("</table>\n</body>\n</html>\n");
    Reply::html(page)
}
