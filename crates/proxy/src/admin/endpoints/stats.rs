//! `/stats` and `/stats/prometheus`.

use telemetry::stats::{Exposition, HistogramView, KindFilter, Selection, Snapshot};

use super::{AdminContext, Endpoint, Query, Reply, regex};

pub(super) const TEXT: Endpoint = Endpoint {
    path: "/stats",
    changes: false,
    help: "print server stats",
    parameters: &[
        ("usedonly", "Only include stats that have been written by system since restart"),
        ("filter", "Regular expression for filtering stats"),
        ("invert_filter", "Invert the filter regex"),
        ("format", "Format to use; One of (text, json, prometheus)"),
        (
            "type",
            "Stat types to include.; One of (All, Counters, Histograms, Gauges, TextReadouts)",
        ),
        (
            "histogram_buckets",
            "Histogram bucket display mode; One of (cumulative, disjoint, summary)",
        ),
        ("pretty", "With format=json: indent"),
    ],
    handle: text,
};

pub(super) const PROMETHEUS: Endpoint = Endpoint {
    path: "/stats/prometheus",
    changes: false,
    help: "print server stats in prometheus format",
    parameters: &[
        ("usedonly", "Only include stats that have been written by system since restart"),
        ("filter", "Regular expression for filtering stats"),
        ("invert_filter", "Invert the filter regex"),
        ("text_readouts", "Render texts as gauges with value 0 and the text as a label"),
        ("histogram_buckets", "Histogram bucket display mode; One of (cumulative, summary)"),
    ],
    handle: prometheus,
};

fn text(context: &AdminContext, query: &Query) -> Reply {
    let kind = match query.get("type") {
        None | Some("" | "All") => KindFilter::All,
        Some("Counters") => KindFilter::Counters,
        Some("Gauges") => KindFilter::Gauges,
        Some("Histograms") => KindFilter::Histograms,
        Some("TextReadouts") => KindFilter::TextReadouts,
        Some(_) => return Reply::error(400, "invalid &type= param"),
    };
    let view = match query.get("histogram_buckets") {
        None | Some("" | "summary") => HistogramView::Summary,
        Some("cumulative") => HistogramView::Cumulative,
        Some("disjoint") => HistogramView::Disjoint,
        Some(_) => {
            return Reply::error(
                400,
                "usage: /stats?histogram_buckets=(cumulative|disjoint|summary)\n",
            );
        }
    };
    let render: fn(&Snapshot, &Selection<'_>, HistogramView) -> Reply = match query.get("format") {
        None | Some("" | "text") => {
            |snapshot, selection, view| Reply::text(snapshot.to_text(selection, view))
        }
        Some("json") if query.has("pretty") => {
            |snapshot, selection, view| Reply::json(&snapshot.to_json(selection, view))
        }
        Some("json") => |snapshot, selection, view| Reply {
            status: 200,
            content_type: "application/json",
            body: snapshot.to_json(selection, view).to_string().into_bytes(),
        },
        Some("prometheus") => {
            |snapshot, selection, _| Reply::text(snapshot.to_prometheus(selection))
        }
        Some(_) => return Reply::error(400, "usage: /stats?format=(json|prometheus|text)\n\n"),
    };
    select(context, query, kind, &|snapshot, selection| render(snapshot, selection, view))
}

fn prometheus(context: &AdminContext, query: &Query) -> Reply {
    let summaries = match query.get("histogram_buckets") {
        None | Some("" | "cumulative") => false,
        Some("summary") => true,
        Some(_) => {
            let usage = "usage: /stats/prometheus?histogram_buckets=(cumulative|summary)\n";
            return Reply::error(400, usage);
        }
    };
    let how = Exposition { summaries, texts: query.has("text_readouts") };
    select(context, query, KindFilter::All, &|snapshot, selection| {
        Reply::text(snapshot.to_prometheus_as(selection, how))
    })
}

/// Reads the statistics and renders those that the query, and the configured matcher, select.
fn select(
    context: &AdminContext,
    query: &Query,
    kind: KindFilter,
    render: &dyn Fn(&Snapshot, &Selection<'_>) -> Reply,
) -> Reply {
    let filter = match query.get("filter").map(regex).transpose() {
        Ok(filter) => filter,
        Err(reply) => return reply,
    };
    let invert = query.has("invert_filter");
    let admits = |name: &str| {
        filter.as_ref().is_none_or(|filter| filter.is_match(name.as_bytes()) != invert)
            && context.stats_matcher.as_ref().is_none_or(|matcher| matcher(name))
    };
    let everything = filter.is_none() && context.stats_matcher.is_none();
    let name: Option<&dyn Fn(&str) -> bool> = if everything { None } else { Some(&admits) };
    context.refresh();
    let selection = Selection { used_only: query.has("usedonly"), kind, name };
    render(&Snapshot::take(&context.registry), &selection)
}
