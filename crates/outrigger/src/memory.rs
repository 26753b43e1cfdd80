//! Memory that is not needed any more goes back to the system.
//!
//! The allocator gives freed pages back while it is at work. A process that has read its configuration, or a big change of
//! it, and then rests would keep the room that took, several times what the compiled configuration needs.
#![allow(unsafe_code)]

use std::time::Duration;

/// From the first look to the longest pause between two.
const PAUSES: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(300)..=Duration::from_secs(16);

/// When the pauses are longer than this, what the process began with has been read.
const START: Duration = Duration::from_secs(2);

/// `mi_option_purge_delay`: after how many milliseconds freed pages go back.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
/// The allocator's own choice.
const USUAL_DELAY: std::ffi::c_long = 1000;

/// From now on what is freed goes back at once, until [`give_back`] finds that the start is over: a start frees several
/// times what it leaves, and the allocator does not find all of that again later.
pub fn return_at_once() {
    set_purge_delay(0);
}

/// Gives freed memory back: soon after the start, and every so often. To be run on the thread that reads configuration.
pub async fn give_back() {
    // At once: what the first connections run is not to be fetched twice.
    if let Err(error) = forget_start() {
        tracing::debug!(%error, "the pages of the program's code are not known");
    }
    let mut pause = *PAUSES.start();
    loop {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(*PAUSES.end());
        // SAFETY: the function takes no pointers, keeps every live allocation, and may be called at any time.
        unsafe { libmimalloc_sys::mi_collect(true) };
        if pause > START {
            // Those who serve are not to give back what they need again in a moment.
            set_purge_delay(USUAL_DELAY);
        }
    }
}

fn set_purge_delay(milliseconds: std::ffi::c_long) {
    // SAFETY: the function takes no pointers. It writes one aligned word, which the allocator reads whole and for which
    // either number is good at any time.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, milliseconds) };
}

/// Lets go of the program's code: most of what the start needed (the parsers, the command line) is never run again, and
/// what is run comes back from the page cache at its next step.
fn forget_start() -> std::io::Result<()> {
    let program = std::fs::read_link("/proc/self/exe")?;
    let program = program.to_string_lossy();
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    for line in maps.lines().filter(|line| line.ends_with(&*program)) {
        let mut words = line.split(' ');
        let (Some(range), Some("r-xp")) = (words.next(), words.next()) else { continue };
        let bounds = range
            .split_once('-')
            .map(|(from, to)| (usize::from_str_radix(from, 16), usize::from_str_radix(to, 16)));
        let Some((Ok(from), Ok(to))) = bounds else { continue };
        // SAFETY: the range is this program's code, mapped from its file and never written: every page of it can be
        // mapped again as it was.
        unsafe { libc::madvise(from as *mut libc::c_void, to - from, libc::MADV_DONTNEED) };
    }
    Ok(())
}
