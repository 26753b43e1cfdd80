//! Where statistics live: a dotted prefix whose variable parts are tags.

use std::sync::Arc;

/// The prefix of a set of statistics, for example `cluster.reviews`, of which `reviews` is the tag `envoy.cluster_name`.
///
/// Envoy finds tags by regular expressions over the finished name; here whoever makes the scope says which part is a
/// value, so a name with dots in it stays whole. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Scope {
    parts: Arc<[Part]>,
    /// `istio_requests_total` and its like carry no `envoy_` prefix in Prometheus output.
    unprefixed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Part {
    Text(&'static str),
    /// Tag name, value.
    Tag(&'static str, Box<str>),
    /// A label that shows as `.name.value` in the dotted name and not at all in the metric's name.
    Label(&'static str, Box<str>),
}

impl Scope {
    /// The root.
    pub fn new() -> Self {
        Self::default()
    }

    /// A metric family outside Envoy's namespace: no `envoy_` before its name in Prometheus output, and `name.value`
    /// pairs of its labels in the dotted name, as Envoy shows statistics made with explicit tags.
    pub fn custom(labels: impl IntoIterator<Item = (&'static str, Box<str>)>) -> Self {
        Self {
            parts: labels.into_iter().map(|(name, value)| Part::Label(name, value)).collect(),
            unprefixed: true,
        }
    }

    /// This scope and a fixed word below it.
    pub fn text(&self, word: &'static str) -> Self {
        self.with(Part::Text(word))
    }

    /// This scope and a value below it, which Prometheus output shows as the label `tag` (Envoy's dotted name, such as
    /// `envoy.cluster_name`). `:` becomes `_`, as in Envoy's statistics.
    pub fn tag(&self, tag: &'static str, value: &str) -> Self {
        self.with(Part::Tag(tag, value.replace(':', "_").into()))
    }

    /// `cluster.<name>`.
    pub fn cluster(name: &str) -> Self {
        Self::new().text("cluster").tag("envoy.cluster_name", name)
    }

    /// `http.<stat_prefix>`.
    pub fn http(stat_prefix: &str) -> Self {
        Self::new().text("http").tag("envoy.http_conn_manager_prefix", stat_prefix)
    }

    /// `tcp.<stat_prefix>`.
    pub fn tcp(stat_prefix: &str) -> Self {
        Self::new().text("tcp").tag("envoy.tcp_prefix", stat_prefix)
    }

    /// `listener.<address>`, for example `listener.0.0.0.0_10000` (the listener's `stat_prefix` when it has one).
    pub fn listener(address: &str) -> Self {
        Self::new().text("listener").tag("envoy.listener_address", address)
    }

    /// `listener.<address>.http.<stat_prefix>`.
    pub fn listener_http(address: &str, stat_prefix: &str) -> Self {
        Self::listener(address).text("http").tag("envoy.http_conn_manager_prefix", stat_prefix)
    }

    fn with(&self, part: Part) -> Self {
        Self {
            parts: self.parts.iter().cloned().chain([part]).collect(),
            unprefixed: self.unprefixed,
        }
    }

    /// Appends the dotted name of `leaf` below this scope.
    pub(super) fn write_name(&self, leaf: &str, out: &mut String) {
        let labelled = self.unprefixed;
        if labelled {
            out.push_str(leaf);
        }
        for part in self.parts.iter() {
            if !out.is_empty() && !out.ends_with('.') {
                out.push('.');
            }
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Tag(_, value) => out.push_str(value),
                Part::Label(name, value) => {
                    out.push_str(name);
                    out.push('.');
                    out.push_str(value);
                }
            }
        }
        if !labelled {
            if !self.parts.is_empty() {
                out.push('.');
            }
            out.push_str(leaf);
        }
    }

    /// Appends the name of `leaf` with tags and their values taken out, still dotted.
    pub(super) fn write_extracted(&self, leaf: &str, out: &mut String) {
        for part in self.parts.iter() {
            if let Part::Text(text) = part {
                out.push_str(text);
                out.push('.');
            }
        }
        out.push_str(leaf);
    }

    /// Tags in the order Envoy shows them: the innermost first; labels in the order given.
    pub(super) fn tags(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let labels = self.parts.iter().filter_map(|part| match part {
            Part::Label(name, value) => Some((*name, &**value)),
            _ => None,
        });
        let tags = self.parts.iter().rev().filter_map(|part| match part {
            Part::Tag(name, value) => Some((*name, &**value)),
            _ => None,
        });
        tags.chain(labels)
    }

    /// Whether Prometheus output goes without the `envoy_` prefix.
    pub(super) fn is_custom(&self) -> bool {
        self.unprefixed
    }
}
