//! Step 9: virtual host and route search in the compiled table.
//!
//! [`config`] is what a table is compiled from. The unit of compilation is the [`VirtualHost`]: a table is an index of them,
//! and a changed virtual host is swapped alone. A search takes the virtual host by hash, the routes whose path can match from
//! a prefix tree, a hash and one automaton for all regular expressions, and then the first of those, in configuration order,
//! whose other criteria hold. It allocates nothing.

mod apply;
pub mod config;
mod criteria;
mod domains;
mod path_index;
mod prefix_tree;
mod redirect;
mod substitution;
mod table;
mod virtual_host;

#[cfg(test)]
mod tests;

pub use apply::{ApplyOptions, set_authority};
pub use config::{Action, DirectResponse, Redirect, RouteAction};
pub use criteria::RouteInput;
pub(crate) use domains::port_start;
pub use path_index::RouteScratch;
pub use substitution::SubstitutionError;
pub use table::{RouteMatch, RouteTable};
pub use virtual_host::{BuildError, VirtualHost};
