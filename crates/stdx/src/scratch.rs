//! A buffer for what grows while it is made, so that what is kept of it is exactly as large as it must be.
//!
//! A buffer that is cut to its size leaves what was cut off beside it, and one that grows leaves each size it had: gaps that
//! nothing else fits into, for as long as what was kept stays.

use std::cell::RefCell;

/// The room that each thread keeps.
const BYTES_MAX: usize = 64 << 10;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Lends an empty buffer of this thread.
pub fn scratch<R>(make: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    // Taken, so that who makes something with one buffer may ask for another.
    let mut buffer = SCRATCH.take();
    let made = make(&mut buffer);
    buffer.clear();
    buffer.shrink_to(BYTES_MAX);
    SCRATCH.set(buffer);
    made
}

#[cfg(test)]
mod tests {
    use super::{BYTES_MAX, scratch};

    #[test]
    fn a_buffer_is_empty_when_it_is_lent_and_bounded_when_it_is_back() {
        let large = scratch(|out| {
            out.resize(BYTES_MAX * 2, 1);
            scratch(|inner| (inner.len(), out.len()))
        });
        assert_eq!(large, (0, BYTES_MAX * 2));
        let (len, capacity) = scratch(|out| (out.len(), out.capacity()));
        assert_eq!(len, 0);
        assert!(capacity < BYTES_MAX * 2, "{capacity} bytes are kept");
    }
}
