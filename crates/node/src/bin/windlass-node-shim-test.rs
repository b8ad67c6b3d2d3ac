//! The shim as a program of its own, for this crate's tests: what `windlass shim …` is in the real binary.

fn main() -> ! {
    windlass_runtime::shim_main(std::env::args_os().skip(2))
}
