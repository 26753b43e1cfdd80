//! A radix tree from prefixes to the routes that have them.

/// Finds every prefix of a path that some route has, in one walk.
#[derive(Debug)]
pub(super) struct PrefixTree {
    /// The first is the root, whose label is empty.
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    /// What the path must go on with, after the parent's.
    label: Box<[u8]>,
    /// Routes whose prefix ends here, in order.
    routes: Vec<u32>,
    /// Routes whose path-separated prefix ends here, in order.
    separated: Vec<u32>,
    /// By the first byte of their labels, sorted.
    children: Vec<(u8, u32)>,
}

impl Default for PrefixTree {
    fn default() -> Self {
        PrefixTree { nodes: vec![Node::default()] }
    }
}

impl PrefixTree {
    /// True without any route.
    pub fn is_empty(&self) -> bool {
        self.nodes.len() == 1
            && self.nodes[0].routes.is_empty()
            && self.nodes[0].separated.is_empty()
    }

    /// Adds a route; routes are added in order.
    pub fn insert(&mut self, prefix: &[u8], is_separated: bool, route: u32) {
        let node = self.node_for(prefix);
        let node = &mut self.nodes[node];
        if is_separated { &mut node.separated } else { &mut node.routes }.push(route);
    }

    /// Calls `found` with the routes of every prefix of `path`.
    pub fn walk<'t>(&'t self, path: &[u8], mut found: impl FnMut(&'t [u32])) {
        let mut node = &self.nodes[0];
        let mut rest = path;
        loop {
            if !node.routes.is_empty() {
                found(&node.routes);
            }
            if !node.separated.is_empty() && matches!(rest, [] | [b'/', ..]) {
                found(&node.separated);
            }
            let Some(child) = rest.first().and_then(|first| node.child(*first)) else {
                return;
            };
            node = &self.nodes[child as usize];
            match rest.strip_prefix(&*node.label) {
                Some(after) => rest = after,
                None => return,
            }
        }
    }

    /// The node where `prefix` ends, made if need be.
    fn node_for(&mut self, prefix: &[u8]) -> usize {
        let mut at = 0;
        let mut rest = prefix;
        while let Some(first) = rest.first() {
            let Some(child) = self.nodes[at].child(*first) else {
                return self.add_child(at, rest, Node { label: rest.into(), ..Node::default() });
            };
            let child = child as usize;
            let label = &self.nodes[child].label;
            let common = label.iter().zip(rest).take_while(|(a, b)| a == b).count();
            if common < label.len() {
                self.split(child, common);
            }
            at = child;
            rest = &rest[common..];
        }
        at
    }

    /// Cuts a node's label in two: the node keeps the first part, a new child gets the rest and all that the node had.
    fn split(&mut self, at: usize, len: usize) {
        let old = &mut self.nodes[at];
        let (head, tail): (Box<[u8]>, Box<[u8]>) =
            (old.label[..len].into(), old.label[len..].into());
        let old = std::mem::replace(old, Node { label: head, ..Node::default() });
        let first = tail.to_vec();
        self.add_child(at, &first, Node { label: tail, ..old });
    }

    fn add_child(&mut self, parent: usize, label: &[u8], node: Node) -> usize {
        let position = self.nodes.len();
        self.nodes.push(node);
        let children = &mut self.nodes[parent].children;
        let place = children.partition_point(|(first, _)| *first < label[0]);
        children.insert(place, (label[0], position as u32));
        position
    }
}

impl Node {
    fn child(&self, first: u8) -> Option<u32> {
        let place = self.children.binary_search_by_key(&first, |(first, _)| *first).ok()?;
        Some(self.children[place].1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_every_prefix() {
        let prefixes: &[(&str, bool)] = &[
            ("/api/v1", false),
            ("/", false),
            ("/api", true),
            ("/app", false),
            ("/api/v1/x", true),
            ("", false),
            ("/ap", false),
            ("/api", false),
        ];
        let mut tree = PrefixTree::default();
        for (route, (prefix, is_separated)) in prefixes.iter().enumerate() {
            tree.insert(prefix.as_bytes(), *is_separated, route as u32);
        }
        for path in [
            "",
            "/",
            "/a",
            "/ap",
            "/api",
            "/apis",
            "/api/",
            "/api/v1",
            "/api/v1/x",
            "/api/v1/xy",
            "/app/z",
            "x",
        ] {
            let mut found = Vec::new();
            tree.walk(path.as_bytes(), |routes| found.extend_from_slice(routes));
            found.sort_unstable();
            let expected: Vec<u32> = (0..)
                .zip(prefixes)
                .filter(|(_, (prefix, is_separated))| {
                    path.strip_prefix(prefix).is_some_and(|rest| {
                        !is_separated || rest.is_empty() || rest.starts_with('/')
                    })
                })
                .map(|(route, _)| route)
                .collect();
            assert_eq!(found, expected, "{path}");
        }
    }
}
