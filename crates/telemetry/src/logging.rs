//! Log levels by component, changeable while the process runs (`POST /logging`).
//!
//! Whoever sets logging up asks [`Levels::enabled`] for every event; a component is found by the longest matching prefix
//! of the event's target (a module path).

use std::sync::atomic::{AtomicU8, Ordering};

/// Envoy's levels, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// Everything.
    Trace,
    /// What helps to find a fault.
    Debug,
    /// What an operator wants to know.
    Info,
    /// What may be wrong.
    Warning,
    /// What is wrong.
    Error,
    /// What ends the process.
    Critical,
    /// Nothing.
    Off,
}

impl Level {
    /// All of them, in order.
    pub const ALL: [Level; 7] = [
        Level::Trace,
        Level::Debug,
        Level::Info,
        Level::Warning,
        Level::Error,
        Level::Critical,
        Level::Off,
    ];

    /// Envoy's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Level::Trace => "trace",
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warning => "warning",
            Level::Error => "error",
            Level::Critical => "critical",
            Level::Off => "off",
        }
    }

    /// Reads a name (`warn` too, as on Envoy's command line).
    pub fn parse(name: &str) -> Option<Level> {
        if name == "warn" {
            return Some(Level::Warning);
        }
        Level::ALL.into_iter().find(|level| level.as_str() == name)
    }
}

/// Components by Envoy's logger names, and the module paths that belong to each.
const COMPONENTS: &[(&str, &[&str])] = &[
    ("admin", &["proxy::admin"]),
    ("ca", &["identity", "agent"]),
    ("config", &["proxy::bootstrap", "proxy::snapshot", "proxy::config_sync", "xds", "api"]),
    ("conn_handler", &["proxy::listener", "proxy::worker"]),
    ("connection", &["proxy::network"]),
    ("file", &["proxy::access_log"]),
    ("filter", &["proxy::filter_manager", "proxy::tcp_proxy", "extensions"]),
    ("http", &["proxy::http", "codec", "proxy::route_table"]),
    ("main", &["proxy::server", "outrigger"]),
    ("misc", &[""]),
    ("pilot", &["pilot", "apiserver", "resources"]),
    ("router", &["proxy::router"]),
    ("stats", &["telemetry"]),
    ("upstream", &["proxy::upstream"]),
];

/// The level of every component. Reading one is a relaxed load.
#[derive(Debug)]
pub struct Levels {
    levels: [AtomicU8; COMPONENTS.len()],
}

/// A component that is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown logger name `{0}`")]
pub struct UnknownLogger(pub String);

impl Levels {
    /// All components at one level.
    pub fn new(level: Level) -> Self {
        Self { levels: std::array::from_fn(|_| AtomicU8::new(level as u8)) }
    }

    /// Sets all components.
    pub fn set_all(&self, level: Level) {
        self.levels.iter().for_each(|slot| slot.store(level as u8, Ordering::Relaxed));
    }

    /// Sets one component.
    ///
    /// # Errors
    /// When there is no such component.
    pub fn set(&self, component: &str, level: Level) -> Result<(), UnknownLogger> {
        let index = COMPONENTS.iter().position(|(name, _)| *name == component);
        let slot = index
            .and_then(|i| self.levels.get(i))
            .ok_or_else(|| UnknownLogger(component.to_owned()))?;
        slot.store(level as u8, Ordering::Relaxed);
        Ok(())
    }

    /// Components with their levels, by name.
    pub fn list(&self) -> impl Iterator<Item = (&'static str, Level)> {
        COMPONENTS.iter().zip(&self.levels).map(|((name, _), slot)| (*name, load(slot)))
    }

    /// The lowest level any component logs at: what is below needs no look.
    pub fn lowest(&self) -> Level {
        self.levels.iter().map(load).min().unwrap_or(Level::Off)
    }

    /// Whether an event of that target (a module path) and level is to be written.
    pub fn enabled(&self, target: &str, level: Level) -> bool {
        let longest = COMPONENTS.iter().zip(&self.levels).filter_map(|((_, prefixes), slot)| {
            let matching = prefixes
                .iter()
                .filter(|prefix| is_under(target, prefix))
                .map(|prefix| prefix.len());
            matching.max().map(|len| (len, slot))
        });
        longest.max_by_key(|(len, _)| *len).is_some_and(|(_, slot)| level >= load(slot))
    }
}

fn load(slot: &AtomicU8) -> Level {
    Level::ALL[usize::from(slot.load(Ordering::Relaxed)).min(Level::ALL.len() - 1)]
}

fn is_under(target: &str, prefix: &str) -> bool {
    prefix.is_empty()
        || target.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_decides() {
        let levels = Levels::new(Level::Warning);
        levels.set("http", Level::Debug).unwrap();
        levels.set("misc", Level::Off).unwrap();
        assert!(levels.enabled("proxy::http::stream", Level::Debug));
        assert!(!levels.enabled("proxy::http::stream", Level::Trace));
        assert!(!levels.enabled("proxy::router", Level::Info));
        assert!(levels.enabled("proxy::router", Level::Error));
        assert!(!levels.enabled("proxy::httpx", Level::Error), "a prefix ends at a module");
        assert_eq!(levels.lowest(), Level::Debug);
        assert_eq!(levels.set("nope", Level::Info), Err(UnknownLogger("nope".to_owned())));
    }

    #[test]
    fn names_are_envoys() {
        for level in Level::ALL {
            assert_eq!(Level::parse(level.as_str()), Some(level));
        }
        assert_eq!(Level::parse("warn"), Some(Level::Warning));
        assert_eq!(Level::parse("loud"), None);
    }
}
