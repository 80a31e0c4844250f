//! What the engine believes of the kernel, asked of the kernel itself and not through the engine:
//! one test for each fact on which a decision rests. A kernel that changes its mind fails here,
//! by the name of the fact, and not somewhere above in the shape of a riddle.
//!
//! Data flow: a bare ring of the `io-uring` crate → one situation → what the kernel did.
//!
//! Not here: what the engine makes of it (`shard`, `target`).
#![allow(clippy::print_stdout, reason = "a skipped test says why, others say what they saw")]

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use io_uring::squeue::{Entry, Flags};
use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{Builder, IoUring, opcode};
use mfio_core::AlignedBuf;
use nix::errno::Errno;

use super::fork_tests::{End, in_child};
use super::{KernelConfig, KernelRing};
use crate::sys;
use crate::target::loop_device::Loop;

const MIB: usize = 1 << 20;
/// Set in a process that a test starts to have it killed, or limited.
const CHILD: &str = "MFIO_FACT_CHILD";

type Setup = fn(&mut Builder);

/// A bare ring; `None`, with the reason printed, where io_uring is not to be had.
fn ring(entries: u32, setup: Setup) -> Option<IoUring> {
    let mut builder = IoUring::builder();
    setup(&mut builder);
    match builder.build(entries) {
        Ok(ring) => Some(ring),
        Err(error) => {
            println!("SKIP: no ring: {error}; the thread ring needs none of these facts");
            None
        }
    }
}

fn plain(_: &mut Builder) {}

/// Anonymous memory that nothing is reserved for.
struct Mapping {
    at: *mut u8,
    len: usize,
}

impl Mapping {
    fn new(len: usize) -> Self {
        Self::map(core::ptr::null_mut(), len, 0)
    }

    /// Another one at the same address. There is no moment between the two in which somebody
    /// else could get that memory.
    fn replaced(self) -> Self {
        let gone = core::mem::ManuallyDrop::new(self);
        Self::map(gone.at, gone.len, libc::MAP_FIXED)
    }

    fn map(hint: *mut u8, len: usize, flags: i32) -> Self {
        let flags = flags | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: lifetime, aliasing: a new mapping; in place of another only where `replaced`
        // has taken that from its owner. Bounds: the kernel chooses what it has.
        let at = unsafe { libc::mmap(hint.cast(), len, access, flags, -1, 0) };
        assert_ne!(at, libc::MAP_FAILED, "mmap: {}", Errno::last());
        Self { at: at.cast(), len }
    }

    fn fill(&self, byte: u8) {
        // SAFETY: lifetime: mapped as long as `self`. Aliasing: no op of the kernel names it at
        // the moment, and no reference to it is ever made. Bounds: all of the mapping.
        unsafe { self.at.write_bytes(byte, self.len) };
    }

    fn filled(self, byte: u8) -> Self {
        self.fill(byte);
        self
    }

    /// One byte, which the kernel may be writing.
    fn byte(&self, at: usize) -> u8 {
        assert!(at < self.len);
        let place = self.at.wrapping_add(at);
        // SAFETY: lifetime: as in `fill`. Aliasing: volatile, because the kernel writes too; a
        // byte is never torn. Bounds: asserted.
        unsafe { place.read_volatile() }
    }

    /// Whether all of it is `byte`, looking at one byte per 512.
    fn is_all(&self, byte: u8) -> bool {
        (0..self.len).step_by(512).all(|at| self.byte(at) == byte)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: lifetime: the tests wait for every op on it first. Aliasing: no reference to
        // it exists. Bounds: exactly what was mapped.
        let unmapped = unsafe { libc::munmap(self.at.cast(), self.len) };
        assert_eq!(unmapped, 0, "munmap");
    }
}

fn push(ring: &IoUring, entry: &Entry) {
    // SAFETY: aliasing: one submission queue at a time, dropped at once; the tests share a ring
    // between threads only where one of them uses it.
    let mut queue = unsafe { ring.submission_shared() };
    // SAFETY: the memory of every entry outlives its completion, which each test waits for; the
    // one that unmaps it first puts other memory of its own there.
    let pushed = unsafe { queue.push(entry) };
    assert!(pushed.is_ok(), "the queue has room");
}

/// The next completion: its tag and its result. Panics after ten seconds without.
fn completion(ring: &mut IoUring) -> (u64, i32) {
    // Looks by itself now and then: what a kernel worker posts for a thread that has gone wakes
    // nobody who waits.
    let limit = Timespec::new().nsec(50_000_000);
    for _ in 0..200 {
        let next = ring.completion().next();
        if let Some(done) = next {
            return (done.user_data(), done.result());
        }
        let waited = ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&limit));
        if let Err(error) = waited {
            let errno = error.raw_os_error().map(Errno::from_raw);
            assert!(matches!(errno, Some(Errno::EINTR | Errno::ETIME)), "{error}");
        }
    }
    panic!("nothing completes");
}

/// As many completions, by their tags.
fn completions(ring: &mut IoUring, count: usize) -> Vec<(u64, i32)> {
    let mut all: Vec<_> = (0..count).map(|_| completion(ring)).collect();
    all.sort_unstable();
    all
}

const fn minus(errno: Errno) -> i32 {
    -(errno as i32)
}

fn fd(file: &impl AsRawFd) -> Fd {
    Fd(file.as_raw_fd())
}

/// Beside the test binary, which is not on a tmpfs.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(std::env::current_exe().unwrap().parent().unwrap()).unwrap()
}

fn direct(path: &Path) -> Option<File> {
    let mut how = OpenOptions::new();
    let opened = how.read(true).write(true).custom_flags(libc::O_DIRECT).open(path);
    opened.map_err(|error| println!("SKIP: no O_DIRECT: {error}")).ok()
}

/// A tmpfs of that many MiB, gone with it.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn new(mib: u32) -> Option<Self> {
        let place = directory();
        let size = format!("size={mib}m");
        let mut mount = Command::new("mount");
        let mount = mount.args(["-t", "tmpfs", "-o", &size, "none"]).arg(place.path()).output();
        if mount.is_ok_and(|done| done.status.success()) {
            return Some(Self(place));
        }
        println!("SKIP: mounting a tmpfs takes root; `f42_…` and the simulation run out of space");
        None
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let gone = Command::new("umount").arg("-l").arg(self.0.path()).status();
        assert!(gone.is_ok_and(|status| status.success()), "a tmpfs stays behind");
    }
}

const READS: usize = 128;

/// Direct reads of 1 MiB each of a file of 0x5a into memory of 0xee, all in flight.
struct Reads {
    _directory: tempfile::TempDir,
    file: File,
    memory: Mapping,
}

impl Reads {
    fn new() -> Option<Self> {
        let directory = directory();
        let path = directory.path().join("read");
        std::fs::write(&path, vec![0x5a; READS * MIB]).unwrap();
        File::open(&path).unwrap().sync_all().unwrap();
        let file = direct(&path)?;
        Some(Self { _directory: directory, file, memory: Mapping::new(READS * MIB) })
    }

    fn start(&self) -> Option<IoUring> {
        self.memory.fill(0xee);
        let ring = ring(256, plain)?;
        for read in 0..READS {
            let at = self.memory.at.wrapping_add(read * MIB);
            let entry = opcode::Read::new(fd(&self.file), at, 1 << 20).offset((read * MIB) as u64);
            push(&ring, &entry.build().user_data(read as u64));
        }
        assert_eq!(ring.submitter().submit().unwrap(), READS);
        Some(ring)
    }

    /// How many of the buffers the kernel has yet to write.
    fn outstanding(&self) -> usize {
        let last = |read: usize| self.memory.byte((read + 1) * MIB - 1);
        (0..READS).filter(|&read| last(read) == 0xee).count()
    }

    /// Waits for writes that nothing tells of.
    fn settle(&self) {
        for _ in 0..3000 {
            if self.memory.is_all(0x5a) {
                return;
            }
            sys::pause(Duration::from_millis(10));
        }
        panic!("{} buffers were never written", self.outstanding());
    }
}

/// Fact 1: `close` returns at once, and the kernel fills the buffers afterwards (F02).
#[test]
fn kernel_drop_of_a_ring_waits_for_nothing() {
    let Some(reads) = Reads::new() else { return };
    for _ in 0..8 {
        let Some(ring) = reads.start() else { return };
        let before_ns = sys::now_ns();
        drop(ring);
        let (took_ns, late) = (sys::now_ns() - before_ns, reads.outstanding());
        reads.settle();
        println!("dropped in {} us, {late} of {READS} buffers written later", took_ns / 1000);
        if late > 0 {
            return;
        }
    }
    panic!("dropping a ring waits now: draining by hand may be needless");
}

/// Fact 2: cancelling everything, synchronously, is no barrier; reaping is (F02, F03).
#[test]
fn kernel_sync_cancel_of_everything_is_no_barrier_and_reaping_is() {
    let Some(reads) = Reads::new() else { return };
    for _ in 0..8 {
        let Some(mut ring) = reads.start() else { return };
        let cancelled = ring.submitter().register_sync_cancel(None, CancelBuilder::any());
        let late = reads.outstanding();
        let done = completions(&mut ring, READS);
        assert_eq!(reads.outstanding(), 0, "reaped, and still to be written");
        assert!(done.iter().all(|(_, result)| *result == 1 << 20), "reads are not torn out");
        println!("{cancelled:?}, {late} of {READS} buffers written later");
        if late > 0 {
            return;
        }
    }
    panic!("a synchronous cancel waits now");
}

/// Bytes of a device that hold `byte`, past the page cache.
fn count_direct(path: &Path, byte: u8, len: usize) -> usize {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path).unwrap();
    let mut bytes = AlignedBuf::new(len, 4096);
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes.iter().filter(|&&found| found == byte).count()
}

/// Fact 3: a flush fails once, then succeeds over what is lost (F37).
#[test]
fn kernel_second_flush_succeeds_over_lost_data() {
    const LEN: usize = 8 * MIB;
    for through_ring in [false, true] {
        let script = "d=$(mktemp -d) && mount -t tmpfs -o size=1m none $d && \
                      truncate -s 8m $d/f && losetup --find --show $d/f; umount -l $d; rmdir $d";
        let Some(device) = Loop::attached_by("unshare", &["-m", "sh", "-c", script]) else {
            return println!("SKIP: needs root and loop devices; the simulation loses sectors so");
        };
        let mut file = OpenOptions::new().write(true).open(device.path()).unwrap();
        file.write_all(&vec![7; LEN]).unwrap();
        let flush = || -> Option<i32> {
            if !through_ring {
                let errno = file.sync_all().err().and_then(|error| error.raw_os_error());
                return Some(-errno.unwrap_or(0));
            }
            let mut ring = ring(4, plain)?;
            push(&ring, &opcode::Fsync::new(fd(&file)).build());
            Some(completion(&mut ring).1)
        };
        let Some(first) = flush() else { return };
        assert_eq!((first, flush()), (minus(Errno::EIO), Some(0)), "ring: {through_ring}");
        let left = count_direct(device.path(), 7, LEN);
        println!("{left} of {LEN} bytes are left after a flush that succeeded");
        assert!(left < LEN);
    }
}

/// Fact 4: a write that meets the end of the space is short and breaks its chain; the next one
/// fails (F14, F42).
#[test]
fn kernel_write_is_short_where_space_ends_and_breaks_its_chain() {
    let Some(small) = Tmpfs::new(4) else { return };
    let Some(mut ring) = ring(4, plain) else { return };
    let file = File::create(small.0.path().join("full")).unwrap();
    let memory = Mapping::new(16 * MIB);
    let write = |at: u64| opcode::Write::new(fd(&file), memory.at, 16 << 20).offset(at).build();
    push(&ring, &write(0).flags(Flags::IO_LINK).user_data(1));
    push(&ring, &opcode::Fsync::new(fd(&file)).build().user_data(2));
    assert_eq!(completions(&mut ring, 2), [(1, 4 << 20), (2, minus(Errno::ECANCELED))]);
    push(&ring, &write(4 << 20).user_data(3));
    assert_eq!(completion(&mut ring), (3, minus(Errno::ENOSPC)));
}

/// Fact 5: a link ends at a short or empty read, a hard one does not, and both end where their
/// submit ends (F12, F15).
#[test]
fn kernel_links_end_at_short_transfers_and_at_submits() {
    let Some(mut ring) = ring(8, plain) else { return };
    let directory = directory();
    let path = directory.path().join("short");
    std::fs::write(&path, [1; 6000]).unwrap();
    let file = File::open(path).unwrap();
    let memory = Mapping::new(MIB);
    let read = |at: u64| opcode::Read::new(fd(&file), memory.at, 8192).offset(at).build();
    let nop = || opcode::Nop::new().build().user_data(2);
    for (at, moved) in [(0, 6000), (1 << 20, 0)] {
        push(&ring, &read(at).flags(Flags::IO_LINK).user_data(1));
        push(&ring, &nop());
        assert_eq!(completions(&mut ring, 2), [(1, moved), (2, minus(Errno::ECANCELED))]);
        push(&ring, &read(at).flags(Flags::IO_HARDLINK).user_data(1));
        push(&ring, &nop());
        assert_eq!(completions(&mut ring, 2), [(1, moved), (2, 0)]);
        // The head is told to be linked; what it was to be linked to comes with the next call.
        push(&ring, &read(at).flags(Flags::IO_LINK).user_data(1));
        assert_eq!(ring.submit().unwrap(), 1);
        push(&ring, &nop());
        assert_eq!(completions(&mut ring, 2), [(1, moved), (2, 0)]);
    }
}

/// Fact 6: one transfer moves at most 0x7ffff000 bytes (F09).
#[test]
fn kernel_transfer_is_clipped_below_two_gibibytes() {
    let Some(mut ring) = ring(4, plain) else { return };
    let len = (3_u32 << 30) + 4096;
    // Nothing looks at what goes there: no page of it is ever made.
    let memory = Mapping::new(usize::try_from(len).unwrap());
    let null = OpenOptions::new().write(true).open("/dev/null").unwrap();
    push(&ring, &opcode::Write::new(fd(&null), memory.at, len).build());
    assert_eq!(completion(&mut ring).1, 0x7fff_f000);
}

/// Fact 6: a full completion queue loses nothing, says so, and is filled up by `GETEVENTS` (F20).
#[test]
fn kernel_overflown_completions_are_kept_and_flagged() {
    let small: Setup = |builder| {
        builder.setup_cqsize(8);
    };
    let Some(mut ring) = ring(8, small) else { return };
    for batch in 0..8 {
        for at in 0..8 {
            push(&ring, &opcode::Nop::new().build().user_data(batch * 8 + at));
        }
        assert_eq!(ring.submit().unwrap(), 8);
    }
    assert!(ring.submission().cq_overflow(), "56 of 64 have no room");
    let done = completions(&mut ring, 64);
    assert!(done.iter().map(|(tag, _)| *tag).eq(0..64));
    assert!(!ring.submission().cq_overflow());
    assert_eq!(ring.completion().overflow(), 0, "nothing was dropped");
}

/// Fact 6: a ring of one issuer answers `EEXIST` to the second (F24).
#[test]
fn kernel_second_thread_of_a_single_issuer_is_refused() {
    let single: Setup = |builder| {
        builder.setup_single_issuer();
    };
    let Some(mut ring) = ring(4, single) else { return };
    push(&ring, &opcode::Nop::new().build().user_data(5));
    let second = std::thread::scope(|scope| {
        scope.spawn(|| ring.submitter().submit().map_err(|error| error.raw_os_error())).join()
    });
    assert_eq!(second.unwrap(), Err(Some(Errno::EEXIST as i32)));
    assert_eq!(completion(&mut ring), (5, 0), "the first goes on");
}

/// Fact 6: a ring that polls for its completions takes no flush (F34).
#[test]
fn kernel_flush_on_a_polled_ring_is_invalid() {
    let polled: Setup = |builder| {
        builder.setup_iopoll();
    };
    let Some(mut ring) = ring(4, polled) else { return };
    let file = tempfile::tempfile().unwrap();
    push(&ring, &opcode::Fsync::new(fd(&file)).build());
    assert_eq!(completion(&mut ring).1, minus(Errno::EINVAL));
}

/// A filter that answers `EPERM` to `io_uring_setup(2)`, as containers do.
const FILTER: [libc::sock_filter; 4] = [
    // The number of the call is the first word of what a filter is shown.
    libc::sock_filter { code: 0x20, jt: 0, jf: 0, k: 0 },
    // That one, or the next instruction but one.
    libc::sock_filter { code: 0x15, jt: 0, jf: 1, k: IO_URING_SETUP },
    libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: libc::SECCOMP_RET_ERRNO | REFUSAL },
    libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW },
];

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small number")]
const IO_URING_SETUP: u32 = libc::SYS_io_uring_setup as u32;

#[allow(clippy::cast_sign_loss, reason = "an errno is positive")]
const REFUSAL: u32 = libc::EPERM as u32;

/// Forbids io_uring to this process and its children, for good. Allocates nothing. Returns 0,
/// or -1 and sets `errno`.
pub(super) fn forbid_io_uring() -> i32 {
    let filter = libc::sock_fprog { len: 4, filter: FILTER.as_ptr().cast_mut() };
    // SAFETY: no memory is passed.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return -1;
    }
    let mode = libc::SECCOMP_MODE_FILTER;
    // SAFETY: lifetime: the kernel copies program and filter before it returns. Aliasing: it
    // only reads them. Bounds: `len` is the length of the filter.
    unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const filter) }
}

/// Fact 6: a seccomp filter that forbids io_uring shows as `EPERM` (F31).
#[test]
fn kernel_seccomp_filter_shows_as_eperm() {
    let ended = in_child(|| {
        if forbid_io_uring() != 0 {
            return 100;
        }
        let mut params = [0_u8; 120];
        // SAFETY: lifetime: `params` outlives the call. Aliasing: it is this closure's. Bounds:
        // `struct io_uring_params` has 120 bytes.
        let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 4, params.as_mut_ptr()) };
        if fd >= 0 { 0 } else { Errno::last_raw() }
    });
    if ended == End::Exit(100) {
        return println!("SKIP: no seccomp here; `f31_…` pretends a refusal");
    }
    assert_eq!(ended, End::Exit(libc::EPERM));
}

/// Fact 7: a child of `fork(2)` submits on the ring it inherits, and its parent is told (F26).
#[test]
fn kernel_child_submits_on_an_inherited_ring() {
    let Some(mut ring) = ring(4, plain) else { return };
    let ended = in_child(|| {
        push(&ring, &opcode::Nop::new().build().user_data(77));
        i32::from(ring.submitter().submit().is_err())
    });
    assert_eq!(ended, End::Exit(0));
    assert_eq!(ring.completion().next().map(|done| done.user_data()), Some(77));
}

/// Fact 8: what a thread has submitted and left pending fails once the thread is gone, also
/// where it could have succeeded (F25).
#[test]
fn kernel_pending_ops_of_a_thread_that_exits_are_cancelled() {
    let Some(mut ring) = ring(4, plain) else { return };
    let (reader, mut writer) = std::io::pipe().unwrap();
    let memory = Mapping::new(4096);
    let read = opcode::Read::new(fd(&reader), memory.at, 512).build().user_data(1);
    let shared = &ring;
    std::thread::scope(|scope| {
        let submitting = scope.spawn(move || {
            push(shared, &read);
            assert_eq!(shared.submitter().submit().unwrap(), 1);
        });
        submitting.join().unwrap();
    });
    writer.write_all(&[1; 512]).unwrap();
    assert_eq!(completion(&mut ring), (1, minus(Errno::ECANCELED)));
}

/// Fact 9: a tmpfs takes direct transfers at any alignment and tells none; a device of 4096-byte
/// sectors refuses 512 bytes (F44).
#[test]
fn kernel_tmpfs_hides_the_alignment_that_devices_demand() {
    let Some(mut ring) = ring(4, plain) else { return };
    let memory = Mapping::new(MIB);
    let mut moved = |file: &File, at: u64, shift: usize, len: u32, writes: bool| {
        let from = memory.at.wrapping_add(shift);
        let entry = if writes {
            opcode::Write::new(fd(file), from, len).offset(at).build()
        } else {
            opcode::Read::new(fd(file), from, len).offset(at).build()
        };
        push(&ring, &entry);
        completion(&mut ring).1
    };
    if let Some(small) = Tmpfs::new(4) {
        let path = small.0.path().join("odd");
        std::fs::write(&path, [1; 8192]).unwrap();
        let file = direct(&path).unwrap();
        assert_eq!(moved(&file, 13, 1, 77, true), 77);
        assert_eq!(moved(&file, 13, 1, 77, false), 77);
        let facts = crate::target::Geometry::of(&file).unwrap().facts;
        assert_eq!(facts.direct_offset_bytes.filter(|&bytes| bytes > 1), None, "{facts:?}");
    }
    let directory = directory();
    let backing = directory.path().join("backing");
    File::create(&backing).unwrap().set_len(1 << 20).unwrap();
    let Some(device) = Loop::over(&backing, &["--sector-size=4096"]) else {
        return println!("SKIP: needs root and loop devices; `plan` is tested with any alignment");
    };
    let file = direct(device.path()).unwrap();
    assert_eq!(moved(&file, 0, 0, 512, true), minus(Errno::EINVAL));
    assert_eq!(moved(&file, 512, 0, 4096, false), minus(Errno::EINVAL));
    assert_eq!(moved(&file, 4096, 0, 4096, true), 4096);
    println!("memory at 512: {}", moved(&file, 4096, 512, 4096, true));
    assert_eq!(moved(&file, 4096, 1, 4096, true), minus(Errno::EINVAL));
}

/// What an offset means to each kind of file (F18): only a regular file or a device, opened
/// without `O_APPEND`, transfers where it was told to. So nothing else becomes a target.
#[test]
fn f18_kernel_heeds_offsets_of_positioned_files_alone() {
    let Some(mut ring) = ring(4, plain) else { return };
    let memory = Mapping::new(4096).filled(b'x');
    let mut moves = |file: &dyn AsRawFd, at: u64, len: u32, writes: bool| {
        let fd = Fd(file.as_raw_fd());
        let entry = if writes {
            opcode::Write::new(fd, memory.at, len).offset(at).build()
        } else {
            opcode::Read::new(fd, memory.at, len).offset(at).build()
        };
        push(&ring, &entry);
        completion(&mut ring).1
    };
    let place = directory();
    let path = place.path().join("positioned");
    std::fs::write(&path, "0123456789").unwrap();
    let open = |how: &mut OpenOptions| how.read(true).write(true).open(&path).unwrap();
    let contents = || std::fs::read_to_string(&path).unwrap();

    let file = open(&mut OpenOptions::new());
    assert_eq!(moves(&file, 2, 3, true), 3);
    assert_eq!(contents(), "01xxx56789");
    // -1 is the position of the descriptor, which moves: two such ops race.
    assert_eq!(moves(&file, u64::MAX, 4, true), 4);
    assert_eq!(moves(&file, u64::MAX, 4, true), 4);
    assert_eq!(contents(), "xxxxxxxx89");
    // Other negative offsets are none.
    assert!(moves(&file, u64::MAX - 1, 4, true) < 0);
    assert!(moves(&file, 1 << 63, 4, false) < 0);

    // O_APPEND writes at the end, whatever it is told, and says nothing.
    let appending = open(OpenOptions::new().append(true));
    assert_eq!(moves(&appending, 0, 2, true), 2);
    assert_eq!(contents(), "xxxxxxxx89xx");

    // A pipe and an eventfd have no positions: a read at 512 takes what comes next.
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(b"pipe").unwrap();
    let told = moves(&reader, 512, 4, false);
    assert!(told == 4 || told == minus(Errno::ESPIPE), "{told}");
    let event = nix::sys::eventfd::EventFd::from_value(5).unwrap();
    let told = moves(&event.as_fd(), 512, 8, false);
    assert!(told == 8 || told == minus(Errno::ESPIPE), "{told}");
    for stream in ["/proc/self/fd", "/dev/null", "/dev/zero"] {
        let refused = crate::target::open(Path::new(stream), &crate::OpenOptions::new());
        assert!(refused.is_err(), "{stream} is no target");
    }
    let by_name = |file: &dyn AsRawFd| format!("/proc/self/fd/{}", file.as_raw_fd());
    for stream in [by_name(&reader), by_name(&event.as_fd())] {
        let refused = crate::target::open(Path::new(&stream), &crate::OpenOptions::new());
        assert!(refused.is_err(), "{stream} is no target");
    }
}

/// No ring has a kernel thread that polls its queue (F35): that takes a processor of its own,
/// and `NEED_WAKEUP` before every sleep. What nobody can ask for is on for nobody.
#[test]
fn f35_no_ring_has_a_thread_that_polls_its_queue() {
    let rings: Vec<_> = [1, 8, 4096]
        .into_iter()
        .filter_map(|depth| KernelRing::new(&KernelConfig::new(depth)).ok())
        .collect();
    for ring in &rings {
        let params = ring.ring.get().params();
        assert!(!params.is_setup_sqpoll() && !params.is_setup_iopoll(), "{ring:?}");
        let told = &ring.features;
        assert!(!told.in_use.iter().any(|name| name.contains("SQPOLL")), "{told:?}");
    }
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().filter_map(Result::ok);
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    let polling: Vec<_> = names.filter(|name| name.starts_with("iou-sqp")).collect();
    assert!(polling.is_empty(), "{polling:?}");
}

/// This binary again, to run the test `name` as a child.
fn again(name: &str) -> Vec<std::ffi::OsString> {
    let binary = std::env::current_exe().unwrap().into_os_string();
    let path = format!("{}::{name}", module_path!().split_once("::").unwrap().1);
    vec![binary, "--exact".into(), path.into(), "--nocapture".into()]
}

const WRITES: usize = 200;

/// Locks `path`, keeps as many writes in flight, says so, and is killed.
fn write_until_killed(path: &Path) {
    let Some(file) = direct(path) else { return };
    file.try_lock().unwrap();
    let passes: Vec<Mapping> = (1..=16).map(|byte| Mapping::new(MIB).filled(byte)).collect();
    let Some(mut ring) = ring(256, plain) else { return };
    let write = |ring: &IoUring, number: usize| {
        let (from, at) = (&passes[number / WRITES % passes.len()], number % WRITES * MIB);
        let entry = opcode::Write::new(fd(&file), from.at, 1 << 20).offset(at as u64);
        push(ring, &entry.build());
    };
    (0..WRITES).for_each(|number| write(&ring, number));
    for number in WRITES.. {
        // Never ends: the parent kills. Its patience does, and closes the pipe.
        assert_eq!(completion(&mut ring).1, 1 << 20);
        write(&ring, number);
        if number % WRITES == 0 {
            println!("writing");
        }
    }
}

/// Kills and reaps a child, whatever happens.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _dead = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Which writes have arrived, as far as their last bytes tell.
fn landed(file: &File) -> Vec<u8> {
    let mut byte = [0];
    let ends = (1..=WRITES).map(|write| (write * MIB - 1) as u64);
    ends.map(|end| file.read_at(&mut byte, end).map_or(0, |_| byte[0])).collect()
}

/// Fact 10: a killed process's writes go on, and its lock is held until they have landed (F46).
#[test]
fn kernel_lock_of_the_dead_is_held_until_their_writes_have_landed() {
    if let Some(path) = std::env::var_os(CHILD) {
        return write_until_killed(Path::new(&path));
    }
    let directory = directory();
    let path: PathBuf = directory.path().join("locked");
    let (mut held, mut late) = (0, 0);
    for _ in 0..6 {
        std::fs::write(&path, vec![0; WRITES * MIB]).unwrap();
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        file.sync_all().unwrap();
        let words = again("kernel_lock_of_the_dead_is_held_until_their_writes_have_landed");
        let mut child = Command::new(&words[0]);
        let child = child.args(&words[1..]).env(CHILD, &path).stdout(Stdio::piped());
        let mut child = Killed(child.spawn().unwrap());
        let said = BufReader::new(child.0.stdout.take().unwrap()).lines().map_while(Result::ok);
        if !said.into_iter().any(|line| line.contains("writing")) {
            return println!("SKIP: the child has no ring or no O_DIRECT");
        }
        drop(child);
        held += u32::from(file.try_lock().is_err());
        let at_death = landed(&file);
        let started_ns = sys::now_ns();
        while file.try_lock().is_err() {
            assert!(sys::now_ns() - started_ns < 30_000_000_000, "the lock is held for ever");
            sys::pause(Duration::from_millis(1));
        }
        let locked = landed(&file);
        sys::pause(Duration::from_millis(200));
        assert_eq!(landed(&file), locked, "a write landed after the lock was given up");
        late += locked.iter().zip(&at_death).filter(|(now, then)| now != then).count();
        file.unlock().unwrap();
        if held > 0 && late > 0 {
            break;
        }
    }
    println!("the lock was held {held} times after death, {late} writes landed after it");
    assert!(held > 0 || late > 0, "the dead wait for their writes now");
}

/// Fact 11: memory that is gone before the submit is no error where something else has its
/// address: the kernel fills that (F01).
#[test]
fn kernel_fills_whatever_has_the_address() {
    let Some(mut ring) = ring(4, plain) else { return };
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[9; 4096]).unwrap();
    let meant = Mapping::new(4096);
    push(&ring, &opcode::Read::new(fd(&file), meant.at, 4096).build().user_data(1));
    let other = meant.replaced();
    assert_eq!(completion(&mut ring), (1, 4096));
    assert!(other.is_all(9), "somebody else's memory was filled");
}

/// Registers 16 MiB with a ring.
fn register() -> Option<Result<(), Option<i32>>> {
    let memory = Mapping::new(16 * MIB);
    let part = libc::iovec { iov_base: memory.at.cast(), iov_len: memory.len };
    let ring = ring(4, plain)?;
    // SAFETY: lifetime: the ring goes before the mapping. Aliasing: no op uses it. Bounds: all
    // of the mapping.
    let registered = unsafe { ring.submitter().register_buffers(&[part]) };
    drop(ring);
    Some(registered.map_err(|error| error.raw_os_error()))
}

/// Fact 12: registered memory counts against the limit of locked memory, unless the process has
/// `CAP_IPC_LOCK` (F32).
#[test]
fn kernel_registered_memory_counts_as_locked_without_the_capability() {
    if std::env::var_os(CHILD).is_some() {
        let refused = register();
        assert!(refused.is_none_or(|result| result == Err(Some(libc::ENOMEM))), "{refused:?}");
        return println!("refused");
    }
    let mut status = String::new();
    File::open("/proc/self/status").unwrap().read_to_string(&mut status).unwrap();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    let effective = u64::from_str_radix(effective.trim(), 16).unwrap();
    if effective & (1 << 14) != 0 && sys::memlock_bytes_max() < u64::MAX {
        let Some(registered) = register() else { return };
        assert_eq!(registered, Ok(()), "the capability lifts the limit");
    }
    let unprivileged = "setpriv --bounding-set -ipc_lock --inh-caps -ipc_lock --";
    let without = Command::new("sh").args(["-c", &format!("{unprivileged} true")]).output();
    let prefix = if without.is_ok_and(|done| done.status.success()) { unprivileged } else { "" };
    if prefix.is_empty() && effective & (1 << 14) != 0 {
        return println!("SKIP: needs setpriv to give CAP_IPC_LOCK away; `f32_…` reads the limits");
    }
    let words = again("kernel_registered_memory_counts_as_locked_without_the_capability");
    let script = format!("ulimit -l 64; exec {prefix} \"$0\" \"$@\"");
    let mut child = Command::new("sh");
    let child = child.arg("-c").arg(script).args(words).env(CHILD, "1").output().unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && said.contains("refused"), "{said}");
}
