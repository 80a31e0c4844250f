//! The yardstick: a loop written by hand on the `io-uring` crate, with nothing in between.
//!
//! Same ring flags, registered ring descriptor, registered files and registered buffers as the
//! engine under test, one `io_uring_enter` both to submit and to wait. What `mfio-engine` costs
//! is what `io_uring` costs more than this.
//!
//! Data flow: `queue` writes one SQE; `commit` or `reap` enters the kernel; `reap` copies CQEs.
//!
//! # Safety
//!
//! Unsafe is needed because the kernel writes to memory that no borrow describes. One rule
//! carries all blocks: the slots' memory is allocated here, is reached through raw pointers
//! only, and is freed only by a `Drop` that has seen the completion of every SQE; where it has
//! not, the memory is leaked on purpose.
//!
//! Not here: retries of short transfers, measuring (`run`).
#![allow(unsafe_code, reason = "the only place of this crate that shares memory with the kernel")]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::{self, NonNull};

use fio_compat::EngineOptions;
use io_uring::{IoUring, opcode, squeue, types};
use nix::errno::Errno;
use nix::libc;

use fio_compat::MemoryKind;

use super::buffers::align_bytes;
use super::psync::transfer_flags;
use super::{Event, Io, IoEngine, Operation, Queued, Setup, Traits};

mod calls;
mod mapping;

#[cfg(test)]
pub(crate) use calls::write_hint;
pub(crate) use calls::{discard, set_write_hint, sync_file_range};
pub(crate) use mapping::Mapping;

const ENTER_GETEVENTS: u32 = 1;
const ENTER_REGISTERED_RING: u32 = 1 << 4;
const REGISTER_RING_FDS: u32 = 20;
const FEATURE_NAMES: [&str; 5] =
    ["NO_SQARRAY", "DEFER_TASKRUN", "SINGLE_ISSUER", "COOP_TASKRUN", "SUBMIT_ALL"];

/// Page-aligned memory of all slots, reached through raw pointers only.
struct Memory {
    base: NonNull<u8>,
    layout: Layout,
    /// What it is part of, where the allocator is not where it comes from.
    mapping: Option<Mapping>,
    stride: usize,
    len: usize,
}

impl Memory {
    fn new(slots: u32, len_bytes: u32, memory: &fio_compat::Memory) -> io::Result<Self> {
        let (len, align) = (len_bytes as usize, align_bytes(memory));
        let stride = len.next_multiple_of(align).max(align);
        let size = stride.checked_mul(slots as usize).ok_or(io::ErrorKind::OutOfMemory)?;
        let layout = Layout::from_size_align(size, align).map_err(io::Error::other)?;
        if memory.kind != MemoryKind::Malloc {
            let mut mapping = Mapping::new(size + align, memory)?;
            let bytes = mapping.bytes();
            let first = bytes.as_mut_ptr().align_offset(align);
            let base = NonNull::from(&mut bytes[first..first + size]).cast();
            return Ok(Self { base, layout, mapping: Some(mapping), stride, len });
        }
        // SAFETY: the layout's size is at least one page: `slots` and `stride` are not 0.
        let base = unsafe { alloc_zeroed(layout) };
        let Some(base) = NonNull::new(base) else { handle_alloc_error(layout) };
        Ok(Self { base, layout, mapping: None, stride, len })
    }

    #[inline]
    fn at(&self, slot: u32, skip_bytes: u32) -> *mut u8 {
        let offset = slot as usize * self.stride + skip_bytes as usize;
        assert!(offset < self.layout.size(), "the slot exists");
        // SAFETY: in bounds of the allocation: checked on the line above.
        unsafe { self.base.as_ptr().add(offset) }
    }

    fn iovecs(&self) -> Vec<libc::iovec> {
        let slots = self.layout.size() / self.stride;
        let bases = (0..slots).map(|slot| self.at(u32::try_from(slot).unwrap_or(0), 0));
        bases.map(|base| libc::iovec { iov_base: base.cast(), iov_len: self.stride }).collect()
    }
}

/// A ring without an engine. With `NOP`, each I/O is a no-op that says it has moved all it was
/// to (Linux 6.10).
pub(crate) struct RawUring<const NOP: bool = false> {
    ring: IoUring,
    /// What `enter` is called with: a registered index where the kernel has that, else the fd.
    enter_fd: i32,
    enter_flags: u32,
    unsubmitted: u32,
    in_flight: u32,
    fixed_buffers: bool,
    fixed_files: bool,
    plain_fds: Vec<i32>,
    /// Where transfers carry flags; apart, so that those without pay one test.
    flagged: Option<Box<Flagged>>,
    memory: Memory,
    traits: Traits,
}

/// Flags of transfers.
struct Flagged {
    reads: i32,
    writes: i32,
    /// Every so many transfers go to a worker of the kernel; 0 is none.
    async_every: u32,
    to_async: u32,
}

impl Flagged {
    fn of(options: &EngineOptions) -> Option<Box<Self>> {
        let (reads, writes) = transfer_flags(options);
        let async_every = options.force_async;
        let (reads, writes) = (reads.cast_signed(), writes.cast_signed());
        let flagged = Self { reads, writes, async_every, to_async: async_every };
        (writes != 0 || async_every > 0).then(|| Box::new(flagged))
    }

    /// Whether the next transfer goes to a worker of the kernel.
    fn is_async(&mut self) -> bool {
        if self.async_every == 0 {
            return false;
        }
        self.to_async -= 1;
        let due = self.to_async == 0;
        if due {
            self.to_async = self.async_every;
        }
        due
    }
}

fn build(entries: u32) -> io::Result<(IoUring, usize)> {
    let mut refused = 0;
    loop {
        let mut builder = IoUring::builder();
        builder.setup_cqsize(entries.max(2) * 2);
        if refused < 1 {
            builder.setup_no_sqarray();
        }
        if refused < 2 {
            builder.setup_defer_taskrun();
        }
        if refused < 3 {
            builder.setup_single_issuer();
        }
        if refused < 4 {
            builder.setup_coop_taskrun();
        }
        if refused < 5 {
            builder.setup_submit_all();
        }
        match builder.build(entries) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) && refused < 5 => refused += 1,
            Err(error) => return Err(error),
            Ok(ring) => return Ok((ring, refused)),
        }
    }
}

/// Says what else there is, where there is no io_uring; the yardstick has no fallback.
fn unavailable(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES | libc::ENOSYS) => io::Error::new(
            error.kind(),
            format!(
                "io_uring is not available ({error}), and raw_uring is nothing else; \
                 ioengine=io_uring falls back to threads, ioengine=psync never needs it"
            ),
        ),
        _ => error,
    }
}

/// Registers the ring's own descriptor, which saves a lookup in every `enter`.
fn register_ring_fd(ring: &IoUring) -> Option<i32> {
    #[repr(C)]
    struct RsrcUpdate {
        offset: u32,
        reserved: u32,
        data: u64,
    }
    let fd = ring.as_raw_fd();
    let data = u64::try_from(fd).ok()?;
    let mut update = RsrcUpdate { offset: u32::MAX, reserved: 0, data };
    // SAFETY: the kernel reads and writes one RsrcUpdate, which lives on this stack; the fd is
    // the ring's own.
    let registered = unsafe {
        libc::syscall(libc::SYS_io_uring_register, fd, REGISTER_RING_FDS, &raw mut update, 1)
    };
    if registered == 1 { i32::try_from(update.offset).ok() } else { None }
}

impl<const NOP: bool> RawUring<NOP> {
    #[inline]
    fn enter(&mut self, min: u32, flags: u32) -> io::Result<()> {
        // SAFETY: every SQE between head and tail was written by `queue`, and its memory and
        // files outlive it (see the header); no argument points to memory.
        let consumed = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                self.enter_fd,
                self.unsubmitted,
                min,
                self.enter_flags | flags,
                ptr::null::<libc::c_void>(),
                0_usize,
            )
        };
        if consumed >= 0 {
            self.unsubmitted -= u32::try_from(consumed).unwrap_or(0);
            return Ok(());
        }
        match Errno::last() {
            Errno::EINTR | Errno::EAGAIN | Errno::EBUSY => Ok(()),
            errno => Err(errno.into()),
        }
    }

    #[inline(always)]
    fn entry(&self, io: Io) -> squeue::Entry {
        if NOP {
            return no_op(io);
        }
        let memory = self.memory.at(io.slot, io.skip_bytes);
        if self.fixed_files {
            self.entry_on(types::Fixed(io.file), io, memory)
        } else {
            self.entry_on(types::Fd(self.plain_fds[io.file as usize]), io, memory)
        }
        .user_data(u64::from(io.slot))
    }

    /// As `entry`, with the flags that the job asks for.
    #[cold]
    fn flagged(&mut self, io: Io) -> squeue::Entry {
        use types_file::UseFile;
        let moves = matches!(io.operation, Operation::Read | Operation::Write);
        let Some(flagged) = self.flagged.as_mut().filter(|_| moves) else { return self.entry(io) };
        let flags = if io.operation == Operation::Read { flagged.reads } else { flagged.writes };
        let force = if flagged.is_async() { squeue::Flags::ASYNC } else { squeue::Flags::empty() };
        let memory = self.memory.at(io.slot, io.skip_bytes);
        let fd = self.plain_fds[io.file as usize];
        let entry = match (self.fixed_files, self.fixed_buffers) {
            (true, true) => types::Fixed(io.file).flagged_fixed(memory, io, flags),
            (true, false) => types::Fixed(io.file).flagged(memory, io, flags),
            (false, true) => types::Fd(fd).flagged_fixed(memory, io, flags),
            (false, false) => types::Fd(fd).flagged(memory, io, flags),
        };
        entry.flags(force).user_data(u64::from(io.slot))
    }

    #[inline(always)]
    fn entry_on<F>(&self, file: F, io: Io, memory: *mut u8) -> squeue::Entry
    where
        F: types_file::UseFile,
    {
        let (len, offset) = (io.len_bytes, io.offset_bytes);
        match (io.operation, self.fixed_buffers) {
            (Operation::Read, true) => file.read_fixed(memory, len, offset, io.slot),
            (Operation::Write, true) => file.write_fixed(memory, len, offset, io.slot),
            (Operation::Read, false) => file.read(memory, len, offset),
            (Operation::Write, false) => file.write(memory, len, offset),
            (Operation::Fsync, _) => file.sync(types::FsyncFlags::empty()),
            // Trims and range syncs are executed by the worker.
            (_, _) => file.sync(types::FsyncFlags::DATASYNC),
        }
    }
}

/// A no-op whose result is the length of `io`, which the crate has no builder for.
#[inline(always)]
fn no_op(io: Io) -> squeue::Entry {
    const INJECT_RESULT: u64 = 1;
    let length = u64::from(io.len_bytes) | INJECT_RESULT << 32;
    let words = [0, 0, 0, length.to_le(), u64::from(io.slot), 0, 0, 0];
    // SAFETY: an entry is the `repr(C)` form of `struct io_uring_sqe`: 64 bytes, all of integers,
    // so any bytes are a valid one. Opcode 0 is a no-op and names no memory.
    unsafe { std::mem::transmute::<[u64; 8], squeue::Entry>(words) }
}

/// The crate's two ways to name a file are two types under a sealed trait; this joins them.
mod types_file {
    use super::{Io, Operation, opcode, squeue, types};

    pub(super) trait UseFile {
        fn read_fixed(self, memory: *mut u8, len: u32, offset: u64, slot: u32) -> squeue::Entry;
        fn write_fixed(self, memory: *mut u8, len: u32, offset: u64, slot: u32) -> squeue::Entry;
        fn read(self, memory: *mut u8, len: u32, offset: u64) -> squeue::Entry;
        fn write(self, memory: *mut u8, len: u32, offset: u64) -> squeue::Entry;
        fn sync(self, flags: types::FsyncFlags) -> squeue::Entry;
        fn flagged(self, memory: *mut u8, io: Io, flags: i32) -> squeue::Entry;
        fn flagged_fixed(self, memory: *mut u8, io: Io, flags: i32) -> squeue::Entry;
    }

    /// `open` does not register buffers for more slots than an index can name.
    #[inline]
    fn index(slot: u32) -> u16 {
        u16::try_from(slot).unwrap_or(u16::MAX)
    }

    macro_rules! use_file {
        ($file:ty) => {
            impl UseFile for $file {
                #[inline]
                fn read_fixed(self, at: *mut u8, len: u32, off: u64, slot: u32) -> squeue::Entry {
                    opcode::ReadFixed::new(self, at, len, index(slot)).offset(off).build()
                }
                #[inline]
                fn write_fixed(self, at: *mut u8, len: u32, off: u64, slot: u32) -> squeue::Entry {
                    opcode::WriteFixed::new(self, at, len, index(slot)).offset(off).build()
                }
                #[inline]
                fn read(self, at: *mut u8, len: u32, off: u64) -> squeue::Entry {
                    opcode::Read::new(self, at, len).offset(off).build()
                }
                #[inline]
                fn write(self, at: *mut u8, len: u32, off: u64) -> squeue::Entry {
                    opcode::Write::new(self, at, len).offset(off).build()
                }
                #[inline]
                fn sync(self, flags: types::FsyncFlags) -> squeue::Entry {
                    opcode::Fsync::new(self).flags(flags).build()
                }
                fn flagged(self, at: *mut u8, io: Io, flags: i32) -> squeue::Entry {
                    let (len, off) = (io.len_bytes, io.offset_bytes);
                    if io.operation == Operation::Read {
                        return opcode::Read::new(self, at, len)
                            .offset(off)
                            .rw_flags(flags)
                            .build();
                    }
                    opcode::Write::new(self, at, len).offset(off).rw_flags(flags).build()
                }
                fn flagged_fixed(self, at: *mut u8, io: Io, flags: i32) -> squeue::Entry {
                    let (len, off, slot) = (io.len_bytes, io.offset_bytes, index(io.slot));
                    if io.operation == Operation::Read {
                        return opcode::ReadFixed::new(self, at, len, slot)
                            .offset(off)
                            .rw_flags(flags)
                            .build();
                    }
                    opcode::WriteFixed::new(self, at, len, slot).offset(off).rw_flags(flags).build()
                }
            }
        };
    }
    use_file!(types::Fixed);
    use_file!(types::Fd);
}

impl<const NOP: bool> IoEngine for RawUring<NOP> {
    fn open(setup: &Setup<'_>) -> io::Result<Self> {
        let memory = Memory::new(setup.depth, setup.buffer_bytes, &setup.memory)?;
        let (ring, refused) = build(setup.depth.next_power_of_two()).map_err(unavailable)?;
        let mut traits = Traits::default();
        for name in &FEATURE_NAMES[refused..] {
            traits.in_use.push((*name).into());
        }
        for name in &FEATURE_NAMES[..refused] {
            traits.degraded.push(format!("{name}: the kernel refused the flag (EINVAL)"));
        }
        let iovecs = memory.iovecs();
        let plain_fds: Vec<i32> = setup.files.iter().map(AsRawFd::as_raw_fd).collect();
        let mut fixed_buffers = setup.fixed_buffers && setup.depth <= u32::from(u16::MAX);
        if fixed_buffers {
            // SAFETY: the ranges tile `memory`, which is freed only after the ring is gone.
            let registered = unsafe { ring.submitter().register_buffers(&iovecs) };
            match registered {
                Ok(()) => traits.in_use.push("fixed buffers".into()),
                Err(error) => {
                    fixed_buffers = false;
                    traits.degraded.push(format!("fixed buffers: {error}; raise RLIMIT_MEMLOCK"));
                }
            }
        }
        let mut fixed_files = setup.fixed_files;
        if fixed_files {
            match ring.submitter().register_files(&plain_fds) {
                Ok(()) => traits.in_use.push("fixed files".into()),
                Err(error) => {
                    fixed_files = false;
                    traits.degraded.push(format!("fixed files: {error}"));
                }
            }
        }
        let registered = register_ring_fd(&ring);
        if registered.is_some() {
            traits.in_use.push("registered ring".into());
        }
        Ok(Self {
            enter_fd: registered.unwrap_or_else(|| ring.as_raw_fd()),
            enter_flags: if registered.is_some() { ENTER_REGISTERED_RING } else { 0 },
            ring,
            unsubmitted: 0,
            in_flight: 0,
            fixed_buffers,
            fixed_files,
            plain_fds,
            flagged: Flagged::of(&setup.options),
            memory,
            traits,
        })
    }

    fn traits(&self) -> Traits {
        self.traits.clone()
    }

    fn synchronous(&self) -> bool {
        false
    }

    #[inline]
    fn buffer(&mut self, slot: u32) -> &mut [u8] {
        let at = self.memory.at(slot, 0);
        // SAFETY: `len` bytes from the start of an existing slot lie in one live allocation; the
        // kernel does not touch them, because a slot with an I/O in flight is not asked for
        // (trait contract); `&mut self` makes the borrow the only one.
        unsafe { std::slice::from_raw_parts_mut(at, self.memory.len) }
    }

    #[inline(always)]
    fn queue(&mut self, io: Io) -> Queued {
        assert!((io.skip_bytes as usize + io.len_bytes as usize) <= self.memory.stride);
        let entry = if self.flagged.is_some() { self.flagged(io) } else { self.entry(io) };
        let mut queue = self.ring.submission();
        // SAFETY: the memory is the slot's, whose length was checked above, and stays allocated
        // until the completion has been reaped (see the header).
        let pushed = unsafe { queue.push(&entry) };
        pushed.expect("the queue has an entry per slot");
        self.unsubmitted += 1;
        self.in_flight += 1;
        Queued::Pending
    }

    #[inline]
    fn commit(&mut self) -> io::Result<()> {
        while self.unsubmitted > 0 {
            // Deferred task work runs only where events are asked for.
            self.enter(0, ENTER_GETEVENTS)?;
        }
        Ok(())
    }

    #[inline]
    fn reap(&mut self, min: u32, max: u32, events: &mut Vec<Event>) -> io::Result<()> {
        let min = min.min(self.in_flight);
        if self.unsubmitted > 0 || self.ring.completion().len() < min as usize || min == 0 {
            self.enter(min, ENTER_GETEVENTS)?;
        }
        let before = events.len();
        let completions = self.ring.completion().take(max as usize);
        events.extend(completions.map(|cqe| Event {
            // The user data is the slot, so the conversion cannot fail.
            slot: u32::try_from(cqe.user_data()).unwrap_or(u32::MAX),
            result: cqe.result(),
        }));
        self.in_flight -= u32::try_from(events.len() - before).unwrap_or(0);
        Ok(())
    }
}

impl<const NOP: bool> Drop for RawUring<NOP> {
    fn drop(&mut self) {
        let mut events = Vec::new();
        while self.in_flight > 0 {
            if self.reap(1, u32::MAX, &mut events).is_err() {
                // The kernel may still write to the slots: their memory is never reused.
                if let Some(mapping) = &mut self.memory.mapping {
                    mapping.leak();
                }
                return;
            }
        }
        if self.memory.mapping.is_some() {
            return;
        }
        // SAFETY: allocated in `Memory::new` with this layout; no SQE is in flight, so neither
        // the kernel nor a borrow reaches it any more. Registered pages stay pinned by the
        // kernel itself until the ring, which is dropped after this, is gone.
        unsafe { dealloc(self.memory.base.as_ptr(), self.memory.layout) };
    }
}
