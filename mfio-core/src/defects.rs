//! Programs that must not compile: mistakes that a type, not a test, has to prevent.
//!
//! Compiled only as documentation tests. Each twin that does compile shows that the other fails
//! for the reason it is here for.

/// C2: what hears of a packet's parts outlives the caller, so it cannot borrow from it.
///
/// ```compile_fail,E0373
/// use mfio_core::{Packet, Read, output_fn};
/// use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
/// let mut packet = Packet::<Read, _>::new(vec![0; 8]);
/// let count = AtomicU32::new(0);
/// packet.set_output(Some(output_fn(|_| _ = count.fetch_add(1, Relaxed))));
/// ```
///
/// ```
/// use mfio_core::{Packet, Read, output_fn};
/// use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
/// let mut packet = Packet::<Read, _>::new(vec![0; 8]);
/// let count = std::sync::Arc::new(AtomicU32::new(0));
/// packet.set_output(Some(output_fn(move |_| _ = count.fetch_add(1, Relaxed))));
/// ```
pub struct C02OutputThatBorrowsDoesNotCompile;

/// C17: padding is not data, so only plain values are written.
///
/// ```compile_fail,E0277
/// use mfio_core::{IoWrite, block_on, mem::Mem};
/// #[derive(Clone, Copy)]
/// #[repr(C)]
/// struct Padded(u8, u32);
/// let target = Mem::from(vec![0; 8]);
/// block_on(&target, target.write_value(0, Padded(1, 2))).unwrap().unwrap();
/// ```
///
/// ```
/// use mfio_core::{IoWrite, block_on, mem::Mem};
/// let target = Mem::from(vec![0; 8]);
/// block_on(&target, target.write_value(0, [1_u32, 2])).unwrap().unwrap();
/// ```
pub struct C17ValueWithPaddingDoesNotCompile;

/// C5: a packet in flight cannot be looked at.
///
/// ```compile_fail,E0382
/// use mfio_core::{Packet, PacketIoExt, Read, mem::Mem};
/// let target = Mem::from(vec![0; 8]);
/// let packet = Packet::<Read, _>::new(vec![0; 8]);
/// let future = target.io(0, packet);
/// let bytes = packet.buffer();
/// ```
pub struct C05PacketInFlightIsOutOfReach;
