//! The `postrider` binary: runs the command line and returns its exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Two libraries speak TLS, and both must use the same implementation of it.
    drop(rustls::crypto::ring::default_provider().install_default());
    postrider::cli::main(std::env::args_os()).into()
}
