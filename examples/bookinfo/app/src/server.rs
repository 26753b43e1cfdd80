//! A small HTTP/1.1 server: a thread for each connection, kept alive between requests.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::Handler;

const LARGEST_HEAD: u64 = 64 * 1024;
const LARGEST_BODY: usize = 64 * 1024;

/// A request, read whole.
pub struct Request {
    pub method: String,
    /// The path without its query.
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// A response, sent whole.
pub struct Response {
    pub status: u16,
    pub content_type: &'static str,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
}

impl Request {
    /// The first header of that (lower-case) name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Reads the next request of a connection; `None` at its end.
    fn read(reader: &mut BufReader<TcpStream>) -> Result<Option<Self>> {
        let mut head = reader.by_ref().take(LARGEST_HEAD);
        let mut line = String::new();
        if head.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut words = line.split_whitespace();
        let (Some(method), Some(target)) = (words.next(), words.next()) else {
            bail!("not a request line")
        };
        let path = target.split('?').next().unwrap_or(target).to_owned();
        let mut request =
            Self { method: method.to_owned(), path, headers: Vec::new(), body: Vec::new() };
        loop {
            let mut line = String::new();
            if head.read_line(&mut line)? == 0 {
                bail!("the head ends early or is too long");
            }
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').context("a header without a colon")?;
            request.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let length: usize = request.header("content-length").map_or(Ok(0), str::parse)?;
        if length > LARGEST_BODY || request.header("transfer-encoding").is_some() {
            bail!("only bodies of up to {LARGEST_BODY} bytes with a length are read");
        }
        request.body.resize(length, 0);
        reader.read_exact(&mut request.body)?;
        Ok(Some(request))
    }
}

impl Response {
    pub fn json(status: u16, value: &Value) -> Self {
        Self {
            status,
            content_type: "application/json",
            headers: Vec::new(),
            body: value.to_string(),
        }
    }

    pub fn html(body: String) -> Self {
        Self { status: 200, content_type: "text/html; charset=utf-8", headers: Vec::new(), body }
    }

    pub fn not_found() -> Self {
        Self::json(404, &serde_json::json!({ "error": "there is nothing here" }))
    }

    pub fn redirect(location: &str, cookie: String) -> Self {
        let headers = vec![("location", location.to_owned()), ("set-cookie", cookie)];
        Self { status: 302, content_type: "text/plain", headers, body: String::new() }
    }

    fn write(&self, stream: &mut TcpStream) -> Result<()> {
        let Self { status, content_type, headers, body } = self;
        let mut text = format!(
            "HTTP/1.1 {status} {status}\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n",
            body.len()
        );
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        text.push_str(body);
        stream.write_all(text.as_bytes()).context("writing a response")
    }
}

/// Accepts connections for ever.
pub fn run(listener: &TcpListener, handler: &Handler) -> Result<()> {
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        let handler = Arc::clone(handler);
        thread::spawn(move || {
            if let Err(error) = serve_connection(stream, &handler) {
                eprintln!("connection: {error:#}");
            }
        });
    }
    Ok(())
}

fn serve_connection(mut stream: TcpStream, handler: &Handler) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    while let Some(request) = Request::read(&mut reader)? {
        let response = handler(&request);
        println!("{} {} {}", request.method, request.path, response.status);
        response.write(&mut stream)?;
        if request.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            break;
        }
    }
    Ok(())
}
