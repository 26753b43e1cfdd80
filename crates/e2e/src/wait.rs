//! Waiting on conditions.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Long enough for a loaded machine; a condition that comes true ends the wait at once.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Looks at `condition` until it yields something.
///
/// # Errors
/// After [`PATIENCE`], naming `what` was waited for and the last error that the condition gave.
pub fn wait_until<T>(what: &str, condition: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    wait_at_most(PATIENCE, what, condition)
}

/// As [`wait_until`], with a patience of its own.
///
/// # Errors
/// After `patience`.
pub fn wait_at_most<T>(
    patience: Duration,
    what: &str,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        let last = match condition() {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => String::new(),
            Err(error) => format!(" (last: {error:#})"),
        };
        if Instant::now() > deadline {
            bail!("waited in vain for {what}{last}");
        }
        pause();
    }
}

/// Between two looks at a condition.
#[allow(
    clippy::disallowed_methods,
    reason = "the pause of a loop that waits on a condition with a deadline"
)]
pub fn pause() {
    std::thread::sleep(Duration::from_millis(5));
}
