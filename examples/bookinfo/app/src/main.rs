//! The bookinfo example: four small services in one binary, told by their first argument which one to be.
//!
//! `productpage` renders a page from what `details` and `reviews` say; `reviews` asks `ratings` for stars, black ones
//! in version v2 and red ones in v3. They call each other by name through the sidecar that `HTTP_PROXY` names, and hand on
//! the trace headers of the request they are serving. Nothing here knows of a mesh.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an application's log is its output")]

mod client;
mod details;
mod productpage;
mod ratings;
mod reviews;
mod server;
mod stars;

use std::net::TcpListener;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};

use client::Client;
use server::{Request, Response};

/// Serve one of bookinfo's services.
#[derive(Parser)]
#[command(name = "bookinfo")]
struct Arguments {
    service: Service,
    /// The port to serve on; 0 takes a free one and says which.
    #[arg(long, env = "PORT", default_value_t = 9080)]
    port: u16,
    /// The address to serve on.
    #[arg(long, default_value = "127.0.0.1")]
    address: String,
    /// The service's version; it decides about the stars of `reviews`.
    #[arg(long, env = "SERVICE_VERSION", default_value = "v1")]
    version: String,
    /// The HTTP proxy for calls to other services, `http://[user:password@]host:port`.
    #[arg(long, env = "HTTP_PROXY")]
    proxy: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Service {
    Productpage,
    Details,
    Reviews,
    Ratings,
}

type Handler = Arc<dyn Fn(&Request) -> Response + Send + Sync>;

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let client = Client::through(arguments.proxy.as_deref())?;
    let version = arguments.version;
    let handler: Handler = match arguments.service {
        Service::Productpage => Arc::new(move |request| productpage::serve(&client, request)),
        Service::Details => Arc::new(details::serve),
        Service::Reviews => Arc::new(move |request| reviews::serve(&client, &version, request)),
        Service::Ratings => Arc::new(ratings::serve),
    };
    let listener = TcpListener::bind((arguments.address.as_str(), arguments.port))
        .with_context(|| format!("cannot listen on {}:{}", arguments.address, arguments.port))?;
    println!("listening on {}", listener.local_addr()?);
    server::run(&listener, &handler)
}
