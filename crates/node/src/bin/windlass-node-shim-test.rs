//! The shim as a program of its own, for this crate's tests: what `windlass shim …` is in the real binary. It is the CNI plugin
//! of runtimes as well, as the real binary is.

fn main() -> std::process::ExitCode {
    if windlass_node::cni::is_called() {
        return windlass_node::cni::main();
    }
    windlass_runtime::shim_main(std::env::args_os().skip(2))
}
