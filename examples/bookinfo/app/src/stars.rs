//! The one difference between the versions of `reviews`.

/// The colour of the stars that a version of `reviews` shows; `None` if it shows none.
pub fn colour(version: &str) -> Option<&'static str> {
    match version {
        "v2" => Some("black"),
        "v3" => Some("red"),
        _ => None,
    }
}
