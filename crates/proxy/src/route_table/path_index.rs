//! Which routes of a virtual host a path can match, in order, without looking at the others.

use std::collections::HashMap;

use ahash::RandomState;
use regex_automata::meta::Regex;
use regex_automata::{Anchored, Input, MatchKind, PatternSet};
use smallvec::SmallVec;

use super::config::{Criteria, PathMatch};
use super::prefix_tree::PrefixTree;
use crate::string_matcher::{RegexError, full_match_regexes};

/// Memory that searches reuse; each worker has one.
#[derive(Debug, Default)]
pub struct RouteScratch {
    patterns: Option<PatternSet>,
    matched: Vec<u32>,
    lower: Vec<u8>,
}

/// The index of one virtual host.
#[derive(Debug, Default)]
pub(super) struct PathIndex {
    exact: ByPath,
    prefixes: PrefixTree,
    /// The same for routes to which case does not matter, in lower case.
    folded_exact: ByPath,
    folded_prefixes: PrefixTree,
    regexes: Option<Regexes>,
    connect: Vec<u32>,
}

type ByPath = HashMap<Box<[u8]>, Vec<u32>, RandomState>;

/// Every regular expression of a virtual host in one automaton.
#[derive(Debug)]
struct Regexes {
    automaton: Regex,
    /// The route of each pattern, in order.
    routes: Vec<u32>,
}

/// A path matches few prefixes: more lists than this would be a very deep table, and cost an allocation.
type Lists<'a> = SmallVec<[&'a [u32]; 16]>;

impl PathIndex {
    /// Indexes the criteria of routes in order.
    pub fn build<'c>(
        criteria: impl Iterator<Item = &'c Criteria>,
    ) -> Result<PathIndex, RegexError> {
        let mut index = PathIndex::default();
        let mut patterns: Vec<&str> = Vec::new();
        let mut pattern_routes = Vec::new();
        for (route, criteria) in (0..).zip(criteria) {
            let (exact, prefixes) = match criteria.case_sensitive {
                true => (&mut index.exact, &mut index.prefixes),
                false => (&mut index.folded_exact, &mut index.folded_prefixes),
            };
            let fold = |text: &str| match criteria.case_sensitive {
                true => text.as_bytes().to_vec(),
                false => text.to_ascii_lowercase().into_bytes(),
            };
            match &criteria.path {
                PathMatch::Exact(path) => exact.entry(fold(path).into()).or_default().push(route),
                PathMatch::Prefix(prefix) => prefixes.insert(&fold(prefix), false, route),
                PathMatch::SeparatedPrefix(prefix) => prefixes.insert(&fold(prefix), true, route),
                PathMatch::Connect => index.connect.push(route),
                PathMatch::Regex(pattern) => {
                    patterns.push(pattern);
                    pattern_routes.push(route);
                }
            }
        }
        if !patterns.is_empty() {
            let automaton = full_match_regexes(&patterns, MatchKind::All)?;
            index.regexes = Some(Regexes { automaton, routes: pattern_routes });
        }
        Ok(index)
    }

    /// The first route whose path criterion matches and that `accepts`. `path` has no query.
    pub fn find(
        &self,
        path: &[u8],
        is_connect: bool,
        scratch: &mut RouteScratch,
        mut accepts: impl FnMut(u32) -> bool,
    ) -> Option<u32> {
        let RouteScratch { patterns, matched, lower } = scratch;
        let mut lists = Lists::new();
        if is_connect && !self.connect.is_empty() {
            lists.push(&self.connect);
        }
        // A CONNECT without a path is taken by nothing but its own matcher.
        let has_path = !path.is_empty();
        if has_path {
            self.collect_literals(path, lower, &mut lists);
        }
        let mut regexes =
            self.regexes.as_ref().filter(|_| has_path).map(|regexes| (regexes, patterns, matched));
        loop {
            let next = lists.iter().map(|list| list[0]).min();
            // The automaton runs only if one of its routes could come before.
            if let Some((regexes, patterns, matched)) =
                regexes.take_if(|(regexes, ..)| next.is_none_or(|next| regexes.routes[0] < next))
            {
                regexes.search(path, patterns, matched);
                if !matched.is_empty() {
                    lists.push(matched);
                }
                continue;
            }
            let next = next?;
            if accepts(next) {
                return Some(next);
            }
            drop_first(&mut lists, next);
        }
    }

    fn collect_literals<'a>(&'a self, path: &[u8], lower: &mut Vec<u8>, lists: &mut Lists<'a>) {
        if !self.exact.is_empty()
            && let Some(routes) = self.exact.get(path)
        {
            lists.push(routes);
        }
        self.prefixes.walk(path, |routes| lists.push(routes));
        if self.folded_exact.is_empty() && self.folded_prefixes.is_empty() {
            return;
        }
        lower.clear();
        lower.extend_from_slice(path);
        lower.make_ascii_lowercase();
        if let Some(routes) = self.folded_exact.get(&lower[..]) {
            lists.push(routes);
        }
        self.folded_prefixes.walk(lower, |routes| lists.push(routes));
    }
}

/// A route is in one list only.
fn drop_first(lists: &mut Lists<'_>, route: u32) {
    let Some(position) = lists.iter().position(|list| list[0] == route) else {
        return;
    };
    match &lists[position][1..] {
        [] => {
            lists.swap_remove(position);
        }
        rest => lists[position] = rest,
    }
}

impl Regexes {
    /// Puts the routes whose patterns match into `matched`, in order.
    fn search(&self, path: &[u8], patterns: &mut Option<PatternSet>, matched: &mut Vec<u32>) {
        let count = self.automaton.pattern_len();
        let patterns = match patterns {
            Some(patterns) if patterns.capacity() >= count => {
                patterns.clear();
                patterns
            }
            _ => patterns.insert(PatternSet::new(count)),
        };
        let input = Input::new(path).anchored(Anchored::Yes);
        self.automaton.which_overlapping_matches(&input, patterns);
        matched.clear();
        matched.extend(patterns.iter().map(|pattern| self.routes[pattern.as_usize()]));
    }
}
