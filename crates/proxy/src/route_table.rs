//! Step 9: virtual host and route search in the compiled table.

pub mod config;

pub use config::{Action, Redirect, RouteMatch, RouteTable};
