//! A device of one's own, and a way of one's own to wait for it, without `std`.
//!
//! Data flow: packet → the device's queue → "interrupt" → [`Drive::poll_drive`] → packet
//! completed → [`block_on_with`] returns. Build it with `--no-default-features`; for a bare
//! target, compile the module `machine` into a crate with a panic handler and an allocator.
//!
//! Not here: a real interrupt controller. The parker plays its part: where it would execute
//! `wfi`, it lets the device work and raises the interrupt.

#[path = "no_std_parker/machine.rs"]
mod machine;

fn main() {
    let read = machine::run();
    assert_eq!(read, [0x5a; 8]);
}
