//! No allocation per operation once warm, in the default configuration: owned packets, values in
//! the future, completion queues, blocking calls.
#![allow(unsafe_code, reason = "an allocator that counts")]
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use mfio_core::mem::Mem;
use mfio_core::{
    BlockingRead, BlockingWrite, CompletionQueue, Inline, IoRead, IoWrite, Packet, PacketIoExt,
    Read, Write, block_on,
};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call is handed to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const ROUNDS: u64 = if cfg!(miri) { 5 } else { 1000 };

/// Allocations that [`ROUNDS`] rounds make beyond those of one round.
fn of_many(mut rounds: impl FnMut(u64)) -> u64 {
    let mut count = |n| {
        let before = ALLOCATIONS.with(Cell::get);
        rounds(n);
        ALLOCATIONS.with(Cell::get) - before
    };
    count(10);
    let one = count(1);
    count(1 + ROUNDS) - one
}

async fn awaited(target: &Mem, buffer: Vec<u8>, rounds: u64) -> Vec<u8> {
    let mut buffer = buffer;
    for at in 0..rounds {
        let read = target.io(at % 8, Packet::<Read, _>::new(buffer)).await;
        assert!(read.is_ok());
        let write = target.io(at % 8, Packet::<Write, _>::new(read.into_buffer())).await;
        buffer = write.into_buffer();
        let value = target.read_value::<u64>(at % 8).await.unwrap();
        target.write_value(at % 8, value).await.unwrap();
        let inline = target.io(0, Packet::<Read, _>::new(Inline(0_u64))).await;
        assert!(inline.is_ok());
    }
    buffer
}

#[test]
fn operations_allocate_nothing_once_warm() {
    for target in [Mem::from(vec![1; 64]), Mem::polled(vec![1; 64], 16)] {
        let mut buffer = Some(vec![0; 32]);
        let awaiting = of_many(|rounds| {
            let taken = buffer.take().unwrap();
            buffer = Some(block_on(&target, awaited(&target, taken, rounds)).unwrap());
        });
        assert_eq!(awaiting, 0, "awaited packets and values");

        let mut queue = CompletionQueue::<Read, Vec<u8>>::new();
        for tag in 0..8 {
            queue.send(&target, tag, Packet::new(vec![0; 8]), tag).unwrap();
        }
        let queued = of_many(|rounds| {
            let all = async {
                for _ in 0..rounds {
                    let next = std::future::poll_fn(|cx| queue.poll_pop(cx)).await;
                    let (tag, done) = next.expect("eight are under way");
                    queue.send(&target, tag, done.into_packet(), tag).unwrap();
                }
            };
            block_on(&target, all).unwrap();
        });
        assert_eq!(queued, 0, "queued packets");

        // Each call makes one waker, which is the caller's to avoid by awaiting.
        let mut bytes = [0; 16];
        let blocking = of_many(|rounds| {
            for _ in 0..rounds {
                target.blocking_read_exact(0, &mut bytes).unwrap();
                target.blocking_write_exact(0, &bytes).unwrap();
            }
        });
        assert!(blocking <= 2 * ROUNDS, "{blocking} allocations in {} blocking calls", 2 * ROUNDS);
    }
}
