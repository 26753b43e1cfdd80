//! "Did you mean …?"

/// The candidate nearest to `name`, if it is near enough to be what was meant.
pub fn closest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let folded = fold(name);
    let limit = (folded.len() / 3).clamp(1, 5);
    candidates
        .map(|candidate| (distance(&folded, &fold(candidate)), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Case and separators are the commonest mistakes, so they count for nothing.
fn fold(name: &str) -> Vec<u8> {
    name.bytes()
        .filter(|byte| !matches!(byte, b'_' | b'-'))
        .map(|byte| byte.to_ascii_lowercase())
        .collect()
}

/// The optimal string alignment distance: insertions, deletions, substitutions, neighbours swapped.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let substituted = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = substituted.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        let fields = ["route_config", "rds", "http_filters", "stat_prefix"];
        let closest = |name| closest(name, fields.into_iter());
        assert_eq!(closest("route_confg"), Some("route_config"));
        assert_eq!(closest("routeconfig"), Some("route_config"));
        assert_eq!(closest("htpp_filter"), Some("http_filters"));
        assert_eq!(closest("rsd"), Some("rds"));
        assert_eq!(closest("listeners"), None);
    }
}
