//! `/logging`: log levels by component.

use std::fmt::Write;

use telemetry::logging::{Level, Levels};

use super::{AdminContext, Endpoint, Query, Reply};

pub(super) const ENDPOINT: Endpoint = Endpoint {
    path: "/logging",
    changes: true,
    help: "query/change logging levels",
    parameters: &[
        (
            "paths",
            "Change multiple logging levels by setting to <logger_name1>:<desired_level1>,<logger_name2>:<desired_level2>",
        ),
        (
            "level",
            "desired logging level, this will change all loggers's level; One of (, trace, debug, info, warning, error, critical, off)",
        ),
    ],
    handle,
};

fn handle(context: &AdminContext, query: &Query) -> Reply {
    let levels = &context.levels;
    // All changes are read before the first is made.
    match query.iter().map(|(name, value)| changes(name, value)).collect::<Result<Vec<_>, _>>() {
        Ok(changes) => {
            let changes: Vec<_> = changes.into_iter().flatten().collect();
            let unknown =
                |name: &str| !name.is_empty() && !levels.list().any(|(known, _)| known == name);
            if changes.iter().any(|(name, _)| unknown(name)) {
                return refuse("unknown logger name", levels);
            }
            for (name, level) in &changes {
                if name.is_empty() {
                    levels.set_all(*level);
                } else if levels.set(name, *level).is_err() {
                    return refuse("unknown logger name", levels);
                }
            }
            Reply::text(active(levels))
        }
        Err(error) => refuse(error, levels),
    }
}

/// The changes a parameter asks for; an empty name is every logger.
fn changes<'a>(name: &'a str, value: &'a str) -> Result<Vec<(&'a str, Level)>, &'static str> {
    const UNKNOWN: &str = "unknown logger level";
    match name {
        "level" if value.is_empty() => Ok(Vec::new()),
        "level" => Ok(vec![("", Level::parse(value).ok_or(UNKNOWN)?)]),
        "group" => Err("logger groups are not supported"),
        "paths" => {
            let pair = |pair: &'a str| {
                let (logger, level) = pair.split_once(':').ok_or("paths are <name>:<level>,...")?;
                Ok((logger, Level::parse(level).ok_or(UNKNOWN)?))
            };
            value.split(',').map(pair).collect()
        }
        logger => Ok(vec![(logger, Level::parse(value).ok_or(UNKNOWN)?)]),
    }
}

fn refuse(error: &str, levels: &Levels) -> Reply {
    let known = Level::ALL.map(Level::as_str).join(" ");
    let usage = format!(
        "error: {error}\n\nusage: /logging?<name>=<level> (change single level)\n\
         usage: /logging?paths=name1:level1,name2:level2,... (change multiple levels)\n\
         usage: /logging?level=<level> (change all levels)\nlevels: {known} \n"
    );
    Reply::error(400, usage + &active(levels))
}

fn active(levels: &Levels) -> String {
    let mut out = "active loggers:\n".to_owned();
    for (name, level) in levels.list() {
        let _ = writeln!(out, "  {name}: {}", level.as_str());
    }
    out + "\n"
}
