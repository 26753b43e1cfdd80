//! `typed_per_filter_config`: what tables, virtual hosts, routes and weighted clusters say of the filters in the chain.
//! Levels are merged here, the most specific last, so that a request looks at one list.

use std::collections::HashMap;
use std::sync::Arc;

use api::envoy::config::route::v3::FilterConfig;
use api::google::protobuf::Any;

use super::compile::Compile;
use crate::route_table::config::{FilterOverride, FilterOverrides};

/// The message in which a configuration may be wrapped.
pub const FILTER_CONFIG: &str = "envoy.config.route.v3.FilterConfig";

const FIELD: &str = "typed_per_filter_config";

/// Compiles one level and lays it over what the levels around it say.
pub fn overrides(
    cx: &mut Compile<'_>,
    message: &HashMap<String, Any>,
    around: &FilterOverrides,
) -> FilterOverrides {
    if message.is_empty() {
        return around.clone();
    }
    let mut entries: Vec<_> = message.iter().collect();
    entries.sort_by_key(|(filter, _)| *filter);
    let compiled = entries.into_iter().filter_map(|(filter, any)| one(cx, filter, any));
    around.with(compiled.collect())
}

fn one(cx: &mut Compile<'_>, filter: &str, any: &Any) -> Option<FilterOverride> {
    let field = format!("{FIELD}[{filter:?}]");
    let (name, bytes) = cx.extension(&field, Some(any))?;
    let mut result = FilterOverride { filter: filter.into(), disabled: false, config: None };
    if name != FILTER_CONFIG {
        result.config = Some(cx.at(&field, |cx| config(cx, &name, &bytes))?);
        return Some(result);
    }
    let wrapped: FilterConfig = cx.decode(&bytes)?;
    if wrapped.disabled {
        result.disabled = true;
        return Some(result);
    }
    let Some(inner) = &wrapped.config else {
        cx.problem_at(&field, format!("neither `disabled` nor a `config` for filter `{filter}`"));
        return None;
    };
    // An empty `config` takes a filter in that the chain leaves out by default.
    if !inner.type_url.is_empty() {
        result.config = cx.at(&field, |cx| {
            let (name, bytes) = cx.extension("config", Some(inner))?;
            cx.at("config", |cx| config(cx, &name, &bytes))
        });
        result.config.as_ref()?;
    }
    Some(result)
}

fn config(
    cx: &mut Compile<'_>,
    name: &str,
    bytes: &[u8],
) -> Option<Arc<dyn std::any::Any + Send + Sync>> {
    let Some(row) = cx.env.extensions.route_filter(name) else {
        cx.problem(format!("{name} is no configuration of a filter for a route"));
        return None;
    };
    let compiled = (row.compile)(bytes, &cx.context(""));
    compiled.map_err(|problems| cx.problems_under(problems)).ok()
}
