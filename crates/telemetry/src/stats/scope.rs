//! Where statistics live: a dotted prefix whose variable parts are tags.

use std::sync::Arc;

use smallvec::SmallVec;

/// The prefix of a set of statistics, for example `cluster.reviews`, of which `reviews` is the tag `envoy.cluster_name`.
///
/// Envoy finds tags by regular expressions over the finished name; here whoever makes the scope says which part is a
/// value, so a name with dots in it stays whole. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Scope(Arc<Parts>);

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Parts {
    parts: SmallVec<[Part; 2]>,
    /// `istio_requests_total` and its like: their parts are labels, which show as `.name.value` in the dotted name and not
    /// at all in the metric's name, and carry no `envoy_` prefix in Prometheus output.
    is_custom: bool,
}

/// A fixed word; or a tag's name, with its value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Part {
    word: &'static str,
    value: Option<Arc<str>>,
}

impl Scope {
    /// The root.
    pub fn new() -> Self {
        Self::default()
    }

    /// A metric family outside Envoy's namespace: no `envoy_` before its name in Prometheus output, and `name.value`
    /// pairs of its labels in the dotted name, as Envoy shows statistics made with explicit tags.
    pub fn custom(labels: impl IntoIterator<Item = (&'static str, Box<str>)>) -> Self {
        let label = |(word, value): (_, Box<str>)| Part { word, value: Some(value.into()) };
        let parts = labels.into_iter().map(label).collect();
        Self(Arc::new(Parts { parts, is_custom: true }))
    }

    /// This scope and a fixed word below it.
    pub fn text(&self, word: &'static str) -> Self {
        self.with(Part { word, value: None })
    }

    /// This scope and a value below it, which Prometheus output shows as the label `tag` (Envoy's dotted name, such as
    /// `envoy.cluster_name`). `:` becomes `_`, as in Envoy's statistics. A value that is an `Arc` already is shared.
    pub fn tag(&self, tag: &'static str, value: impl Into<Arc<str>>) -> Self {
        let mut value = value.into();
        if value.contains(':') {
            value = value.replace(':', "_").into();
        }
        self.with(Part { word: tag, value: Some(value) })
    }

    /// `cluster.<name>`.
    pub fn cluster(name: impl Into<Arc<str>>) -> Self {
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
        let mut parts = SmallVec::with_capacity(self.0.parts.len() + 1);
        parts.extend(self.0.parts.iter().cloned());
        parts.push(part);
        Self(Arc::new(Parts { parts, is_custom: self.0.is_custom }))
    }

    /// Appends the dotted name of `leaf` below this scope.
    pub(super) fn write_name(&self, leaf: &str, out: &mut String) {
        let labelled = self.0.is_custom;
        if labelled {
            out.push_str(leaf);
        }
        for part in &self.0.parts {
            if !out.is_empty() && !out.ends_with('.') {
                out.push('.');
            }
            match &part.value {
                Some(value) if labelled => {
                    out.push_str(part.word);
                    out.push('.');
                    out.push_str(value);
                }
                Some(value) => out.push_str(value),
                None => out.push_str(part.word),
            }
        }
        if !labelled {
            if !self.0.parts.is_empty() {
                out.push('.');
            }
            out.push_str(leaf);
        }
    }

    /// Appends the name of `leaf` with tags and their values taken out, still dotted.
    pub(super) fn write_extracted(&self, leaf: &str, out: &mut String) {
        for part in self.0.parts.iter().filter(|part| part.value.is_none()) {
            out.push_str(part.word);
            out.push('.');
        }
        out.push_str(leaf);
    }

    /// Tags in the order Envoy shows them: the innermost first; labels in the order given.
    pub(super) fn tags(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let (tags, labels): (&[Part], &[Part]) =
            if self.0.is_custom { (&[], &self.0.parts) } else { (&self.0.parts, &[]) };
        tags.iter().rev().chain(labels).filter_map(|part| Some((part.word, part.value.as_deref()?)))
    }

    /// Whether Prometheus output goes without the `envoy_` prefix.
    pub(super) fn is_custom(&self) -> bool {
        self.0.is_custom
    }
}
