//! The program `mfio-netfs-server`.
fn main() {}
