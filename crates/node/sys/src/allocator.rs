//! The one setting of the allocator that matters here. It is not a system call, but C all the same.

use std::ffi::c_long;
use std::time::Duration;

/// `mi_option_purge_delay` in mimalloc 2's `mimalloc.h`; the crate names only a few of its options.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Memory that was freed goes back to the kernel this long after: mimalloc's own ten milliseconds have a server under load give away and fault in the
/// same pages all the time. `MIMALLOC_PURGE_DELAY` in the environment goes first. For the start of a program, before it has threads.
pub fn keep_freed_memory_for(delay: Duration) {
    let milliseconds = c_long::try_from(delay.as_millis()).unwrap_or(c_long::MAX);
    // SAFETY: the call writes one entry of mimalloc's own table; by the contract above no other thread is there to read it.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, milliseconds) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delay() -> c_long {
        // SAFETY: it reads one entry of mimalloc's own table, which no other test touches.
        unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) }
    }

    #[test]
    fn it_is_the_option_that_is_meant() {
        // Upstream's default tells the option from its neighbours.
        assert_eq!(delay(), 10);
        keep_freed_memory_for(Duration::from_secs(1));
        assert_eq!(delay(), 1000);
    }
}
