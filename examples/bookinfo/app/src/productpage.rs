//! `productpage`: the page that people see, made of what the other services say.

use std::fmt::Write;

use anyhow::Result;
use serde_json::{Value, json};

use crate::client::Client;
use crate::server::{Request, Response};

const STYLE: &str = include_str!("productpage.css");
const USER_COOKIE: &str = "user=";
const MOST_STARS: u64 = 5;

/// The page, its API, log-in and log-out, `/static` and `/health`.
pub fn serve(client: &Client, request: &Request) -> Response {
    let path = request.path.as_str();
    match (request.method.as_str(), path) {
        ("GET", "/" | "/productpage") => page(client, request),
        ("GET", "/health") => Response::json(200, &json!({ "status": "Product page is healthy" })),
        ("GET", "/static/productpage.css") => {
            Response { content_type: "text/css", ..Response::html(STYLE.to_owned()) }
        }
        ("POST", "/login") => {
            let form = String::from_utf8_lossy(&request.body).into_owned();
            let name = form
                .split('&')
                .find_map(|field| field.strip_prefix("username="))
                .unwrap_or_default();
            let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
            Response::redirect(
                "/productpage",
                format!("{USER_COOKIE}{name}; Path=/; HttpOnly; SameSite=Lax"),
            )
        }
        ("GET", "/logout") => {
            Response::redirect("/productpage", format!("{USER_COOKIE}; Path=/; Max-Age=0"))
        }
        ("GET", _) => match path.strip_prefix("/api/v1/products") {
            Some(rest) => api(client, request, rest.trim_matches('/')),
            None => Response::not_found(),
        },
        _ => Response::not_found(),
    }
}

/// `/api/v1/products[/{id}[/reviews|/ratings]]`.
fn api(client: &Client, request: &Request, rest: &str) -> Response {
    let (id, what) = rest.split_once('/').unwrap_or((rest, ""));
    if id.is_empty() {
        return Response::json(200, &json!([{ "id": 0, "title": "The Comedy of Errors" }]));
    }
    let Ok(id) = id.parse::<u64>() else { return Response::not_found() };
    let service = match what {
        "" => "details",
        "reviews" | "ratings" => what,
        _ => return Response::not_found(),
    };
    match ask(client, request, service, id) {
        Ok(answer) => Response::json(200, &answer),
        Err(error) => Response::json(503, &json!({ "error": format!("{error:#}") })),
    }
}

fn ask(client: &Client, request: &Request, service: &str, id: u64) -> Result<Value> {
    let on_behalf = on_behalf_of_user(request);
    let answer = client.get(&on_behalf, &format!("{service}:9080"), &format!("/{service}/{id}"));
    answer.inspect_err(|error| eprintln!("{service}: {error:#}"))
}

/// The request as the other services see it: who is logged in is said by a header that routes can match.
fn on_behalf_of_user(request: &Request) -> Request {
    let mut headers = request.headers.clone();
    if let Some(user) = logged_in(request) {
        headers.retain(|(name, _)| name != "end-user");
        headers.push(("end-user".to_owned(), user.to_owned()));
    }
    Request { method: "GET".to_owned(), path: request.path.clone(), headers, body: Vec::new() }
}

fn logged_in(request: &Request) -> Option<&str> {
    let cookies = request.header("cookie")?.split(';');
    cookies
        .filter_map(|cookie| cookie.trim().strip_prefix(USER_COOKIE))
        .find(|user| !user.is_empty())
}

fn page(client: &Client, request: &Request) -> Response {
    let details = ask(client, request, "details", 0);
    let reviews = ask(client, request, "reviews", 0);
    let user = match logged_in(request) {
        Some(user) => format!("<p class=user>{} · <a href=/logout>log out</a></p>", escape(user)),
        None => "<form class=user method=post action=/login><input name=username placeholder=name> <button>log in</button></form>".to_owned(),
    };
    Response::html(format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>Bookinfo</title>\
         <link rel=stylesheet href=/static/productpage.css>\n<header><h1>The Comedy of Errors</h1>{user}</header>\n\
         <main><section id=details><h2>Details</h2>{}</section>\n<section id=reviews><h2>Reviews</h2>{}</section></main>\n",
        details.map_or_else(|_| unavailable("details"), |details| details_table(&details)),
        reviews.map_or_else(|_| unavailable("reviews"), |reviews| review_list(&reviews)),
    ))
}

fn unavailable(what: &str) -> String {
    format!("<p class=error>Sorry, {what} are not available at the moment.</p>")
}

fn details_table(details: &Value) -> String {
    let rows = ["author", "type", "pages", "publisher", "language", "ISBN-10", "ISBN-13"];
    let rows = rows.map(|name| format!("<tr><th>{name}<td>{}", escape(&text(&details[name]))));
    format!("<table>{}</table>", rows.concat())
}

fn review_list(reviews: &Value) -> String {
    let mut html = String::new();
    for review in reviews["reviews"].as_array().into_iter().flatten() {
        let (reviewer, words) =
            (escape(&text(&review["reviewer"])), escape(&text(&review["text"])));
        let _ = write!(
            html,
            "<blockquote><p>{words}</p>{}<cite>{reviewer}</cite></blockquote>",
            stars(&review["rating"])
        );
    }
    let _ = write!(
        html,
        "<p class=version>served by reviews {}</p>",
        escape(&text(&reviews["version"]))
    );
    html
}

fn stars(rating: &Value) -> String {
    if rating.get("error").is_some() {
        return unavailable("ratings");
    }
    let (Some(count), Some(colour)) = (rating["stars"].as_u64(), rating["color"].as_str()) else {
        return String::new();
    };
    let count = count.min(MOST_STARS) as usize;
    let (full, empty) = ("★".repeat(count), "☆".repeat(MOST_STARS as usize - count));
    format!("<p class=\"stars {}\" aria-label=\"{count} stars\">{full}{empty}</p>", escape(colour))
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_are_shown_in_their_colour_and_nothing_else_is_trusted() {
        let shown = stars(&json!({ "stars": 4, "color": "red" }));
        assert!(shown.contains("class=\"stars red\"") && shown.contains("★★★★☆"), "{shown}");
        assert_eq!(stars(&Value::Null), "");
        assert!(!details_table(&json!({ "author": "<script>" })).contains("<script>"));
    }

    #[test]
    fn who_is_logged_in_becomes_a_header() {
        let headers = vec![
            ("end-user".to_owned(), "mallory".to_owned()),
            ("cookie".to_owned(), "a=b; user=jason".to_owned()),
        ];
        let request = Request {
            method: "GET".into(),
            path: "/productpage".into(),
            headers,
            body: Vec::new(),
        };
        assert_eq!(on_behalf_of_user(&request).header("end-user"), Some("jason"));
    }
}
