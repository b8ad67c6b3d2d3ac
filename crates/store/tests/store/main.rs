//! The rules of the store, held from outside: through its public interface, on a disk that can fail.

#![expect(clippy::unwrap_used, reason = "a test stops at the first thing that is not as it must be")]

mod carrying;
mod damage;
mod durability;
mod fixture;
mod lifecycle;
mod reading;
mod space;
mod transaction;
mod watching;
