//! What a child process can do to its parent's ring and arena: nothing (F26).
//!
//! Not here: descriptors across `exec`; all are close-on-exec.

use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Wake, Waker};

use mfio_core::{IoRead as _, Packet, PacketIo as _, Read, block_on};
use mfio_rt::portable::Portable;
use mfio_rt::{FileHandle as _, Fs as _, LockKind, OpenOptions as RtOptions, Whole};
use nix::errno::Errno;

use super::register::fill;
use super::{KernelConfig, KernelRing};
use crate::buffer::{Arena, ArenaConfig, HugePages, SizeClass};
use crate::engine::{Engine, Shards};
use crate::fs::ShardFs;
use crate::net::ShardNet;
use crate::process::Process;
use crate::ring::threads::ThreadRing;
use crate::ring::{FileRef, Op, OpKind, Ring, Tag, Wait};
use crate::shard::{Class, Shard};
use crate::target::OpenOptions;

/// How a child ended: its signal, or its exit code.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    Signal(i32),
    Exit(i32),
}

/// Runs `child` in a forked process, which has one thread. Exit code 101: it has panicked.
pub(super) fn in_child(child: impl FnOnce() -> i32) -> End {
    // SAFETY: lifetime, aliasing, bounds: no memory is passed. The child calls nothing that
    // another thread of the parent may have left locked: `child` touches memory and the ring.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork: {}", Errno::last());
    if pid == 0 {
        // The handler of the test harness would write a message, with locks.
        // SAFETY: no memory is passed; the default action has no requirements.
        unsafe { libc::signal(libc::SIGSEGV, libc::SIG_DFL) };
        // SAFETY: no memory is passed: what takes too long ends by a signal.
        unsafe { libc::alarm(20) };
        let code = catch_unwind(AssertUnwindSafe(child)).unwrap_or(101);
        // SAFETY: ends the child without running anything of the parent's.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: lifetime: `status` outlives the call. Aliasing: it is this function's. Bounds: it
    // is one int.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert_eq!(waited, pid);
    if libc::WIFSIGNALED(status) {
        End::Signal(libc::WTERMSIG(status))
    } else {
        End::Exit(libc::WEXITSTATUS(status))
    }
}

#[test]
fn f26_child_faults_on_arena_and_ring_and_the_parent_is_unharmed() {
    let Ok(mut ring) = KernelRing::new(&KernelConfig::new(8)) else { return };
    let mut classes = vec![SizeClass { bytes: 4096, count: 4 }];
    for huge_pages in [HugePages::Never, HugePages::Auto] {
        let arena =
            Arena::new(&ArenaConfig { huge_pages, ..ArenaConfig::new(classes.clone()) }).unwrap();
        let mut buf = arena.alloc(4096).unwrap();
        buf.fill(7);
        assert_eq!(in_child(|| i32::from(buf[0])), End::Signal(libc::SIGSEGV), "{huge_pages:?}");
        assert!(buf.iter().all(|&byte| byte == 7));
        // Large enough for huge pages the next time.
        classes[0].count = 1024;
    }

    let arena = Arena::new(&ArenaConfig::new(classes)).unwrap();
    ring.register_buffers(arena.region());
    let file = tempfile::tempfile().unwrap();
    let target = ring.register_file(file.as_raw_fd());
    let mut buf = arena.alloc(4096).unwrap();
    buf.fill(9);
    let tag = Tag { slot: 1, generation: 1 };
    ring.push(Op::transfer(OpKind::Write, target, 0, buf.mem_range()), tag);
    // The op is queued: a child that could submit it would write it a second time.
    let end = in_child(|| i32::from(ring.enter(Wait::NONE).is_ok()));
    assert_eq!(end, End::Signal(libc::SIGSEGV));
    assert_eq!(file.metadata().unwrap().len(), 0, "nothing was submitted");
    assert_eq!(ring.enter(Wait::at_least(1)), Ok(1));
    let mut done = Vec::with_capacity(8);
    ring.reap(&mut done);
    assert_eq!((done.len(), done[0].tag, done[0].result), (1, tag, 4096));
    assert_eq!(file.metadata().unwrap().len(), 4096);
}

/// As in a child that is the first process of a pid namespace, when its parent is that of another.
#[test]
fn f26_child_with_the_number_of_its_parent_is_told_from_it() {
    let parent = Process::current();
    assert!(parent.is_current() && parent.renumbered().is_current());
    let end = in_child(|| {
        let child = Process::current();
        let told = !parent.is_current() && !parent.renumbered().is_current();
        let its_own_child = in_child(|| i32::from(child.renumbered().is_current()));
        i32::from(!(told && child.is_current() && its_own_child == End::Exit(0)))
    });
    assert_eq!(end, End::Exit(0));
    assert!(parent.is_current());
}

/// What this process does not pass on to a child (`dc`), as far as it is not huge.
fn not_passed_on() -> Vec<(usize, usize)> {
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let (mut found, mut range) = (Vec::new(), (0, 0));
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap();
        if first == "VmFlags:" && words.any(|flag| flag == "dc") && range.1 <= 64 << 20 {
            found.push(range);
        } else if let Some((start, end)) = first.split_once('-')
            && let Ok(start) = usize::from_str_radix(start, 16)
            && let Ok(end) = usize::from_str_radix(end, 16)
        {
            range = (start, end - start);
        }
    }
    found
}

/// Memory of the child's own, wherever the parent has what it does not pass on; one byte of each
/// page is a mark.
fn settle(ranges: &[(usize, usize)]) {
    for &(start, len) in ranges {
        let (access, flags) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE,
        );
        let at = std::ptr::without_provenance_mut(start);
        // SAFETY: lifetime, aliasing: fresh memory where there was none, or a refusal. Bounds: a
        // range of whole pages.
        let mapped = unsafe { libc::mmap(at, len, access, flags, -1, 0) };
        assert_eq!(mapped, at, "{}", Errno::last());
        for offset in (0..len).step_by(4096) {
            // SAFETY: lifetime, aliasing: mapped just now, for this. Bounds: in the range.
            unsafe { mapped.cast::<u8>().wrapping_add(offset).write_volatile(0x5a) };
        }
    }
}

/// Whether all of it is still there, unchanged; faults where it is not.
fn is_unharmed(ranges: &[(usize, usize)]) -> bool {
    ranges.iter().all(|&(start, len)| {
        (start..start + len).step_by(64).all(|at| {
            let expected = if at % 4096 == 0 { 0x5a } else { 0 };
            // SAFETY: it was mapped by `settle`; where it is no more, the fault is the result.
            unsafe { std::ptr::with_exposed_provenance::<u8>(at).read_volatile() == expected }
        })
    })
}

/// Runs `child`, which takes inherited things down, in a process that has put memory of its own
/// where the parent has what it does not pass on, and watches over it.
fn in_settled_child(child: impl FnOnce()) -> End {
    let ranges = not_passed_on();
    in_child(|| {
        settle(&ranges);
        child();
        if is_unharmed(&ranges) { 0 } else { 1 }
    })
}

/// What a child has of `value`: its own, to be taken down there.
fn inherited<T>(value: &T) -> T {
    // SAFETY: lifetime, aliasing: called in a forked child only, which ends without touching the
    // original; the parent's memory is another. Bounds: one value.
    unsafe { std::ptr::read(value) }
}

fn is_closed(fd: i32) -> bool {
    // SAFETY: no memory is passed.
    unsafe { libc::fcntl(fd, libc::F_GETFD) == -1 }
}

#[test]
fn f26_child_that_drops_arena_and_ring_harms_neither_itself_nor_its_parent() {
    let Ok(mut ring) = KernelRing::new(&KernelConfig::new(8)) else { return };
    let arena = Arena::new(&ArenaConfig::new(vec![SizeClass { bytes: 4096, count: 4 }])).unwrap();
    ring.register_buffers(arena.region());
    let file = tempfile::tempfile().unwrap();
    let target = ring.register_file(file.as_raw_fd());
    let mut buf = arena.alloc(4096).unwrap();
    buf.fill(9);
    let fd = ring.ring.get().as_raw_fd();
    let tag = Tag { slot: 1, generation: 1 };
    ring.push(Op::transfer(OpKind::Write, target, 0, buf.mem_range()), tag);
    let end = in_settled_child(|| {
        let own = KernelRing::new(&KernelConfig::new(4));
        drop((inherited(&buf), inherited(&arena), inherited(&ring)));
        assert!(is_closed(fd), "the copy of the descriptor");
        // Its ring has the place in the table of rings that the parent's has in the parent's.
        let mut own = own.unwrap();
        own.push(Op::on(OpKind::Nop, FileRef::Plain(-1)), tag);
        assert_eq!(own.enter(Wait::at_least(1)), Ok(1), "its own ring works");
    });
    assert_eq!(end, End::Exit(0));
    assert_eq!(file.metadata().unwrap().len(), 0, "nothing was submitted");
    assert_eq!(ring.enter(Wait::at_least(1)), Ok(1));
    let mut done = Vec::with_capacity(8);
    ring.reap(&mut done);
    assert_eq!((done.len(), done[0].tag, done[0].result), (1, tag, 4096));
}

#[test]
fn f26_child_that_drops_a_buffer_does_not_poison_what_lies_there() {
    let classes = vec![SizeClass { bytes: 4096, count: 4 }];
    let config = ArenaConfig { poison_released: true, ..ArenaConfig::new(classes) };
    let arena = Arena::new(&config).unwrap();
    let (buf, kept) = (arena.alloc(4096).unwrap(), arena.alloc(4096).unwrap());
    // Where nothing lies, it would fault.
    let end = in_child(|| {
        drop((inherited(&buf), inherited(&kept), inherited(&arena)));
        0
    });
    assert_eq!(end, End::Exit(0));
    drop(buf);
    let released = arena.verify_released();
    assert_eq!((released.ranges, released.changed_at_bytes.len()), (1, 0));
}

/// Counts how often somebody was told.
#[derive(Debug, Default)]
struct Told(AtomicU32);

impl Wake for Told {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// The wakers are the parent's: here, what they lock may be locked for ever.
#[test]
fn f26_child_that_drops_a_shard_tells_nobody_of_what_was_queued() {
    let Ok(shard) = Shard::new(8) else { return };
    let temp = tempfile::tempdir().unwrap();
    let options = OpenOptions::new().write(true).create(true);
    let file = shard.open(&temp.path().join("data"), &options).unwrap();
    let told = Arc::new(Told::default());
    let waker = Waker::from(Arc::clone(&told));
    let mut cx = Context::from_waker(&waker);
    let mut packets = Vec::new();
    for class in [Class::Background, Class::Log] {
        let file = file.with_class(class);
        for at in 0..16 {
            let (mut packet, view) = Packet::<Read, _>::new(vec![0; 4096]).send();
            assert!(packet.poll_done(&mut cx).is_pending());
            file.send_io(at * 4096, view).unwrap();
            packets.push(packet);
        }
    }
    let end = in_child(|| {
        drop((inherited(&file), inherited(&shard)));
        i32::from(told.0.load(Ordering::Relaxed) > 0)
    });
    assert_eq!(end, End::Exit(0));
    drop((file, shard));
    assert_eq!(told.0.load(Ordering::Relaxed), 32, "each by the parent");
}

/// A limit so low that no part of the arena is worth asking for: asked for all the same, all of
/// it would be made first.
#[test]
fn f32_memory_that_may_not_be_locked_at_all_gets_no_pages() {
    let end = in_child(|| {
        let Ok(ring) = KernelRing::new(&KernelConfig::new(8)) else { return 0 };
        let classes = vec![SizeClass { bytes: 4096, count: 256 }];
        let huge_pages = HugePages::Never;
        let arena = Arena::new(&ArenaConfig { huge_pages, ..ArenaConfig::new(classes) }).unwrap();
        let none = libc::rlimit { rlim_cur: 4096, rlim_max: 4096 };
        // SAFETY: lifetime: `none` outlives the call. Aliasing: it is only read. Bounds: it is
        // one rlimit.
        let set = unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const none) };
        assert_eq!(set, 0);
        if ring.submitter.register_buffers_sparse(4).is_err() {
            return 0;
        }
        let filled = fill(&ring.submitter, arena.region(), 0, true);
        let mut resident = [0_u8; 256];
        // SAFETY: lifetime, aliasing: the mapping is only asked about, `resident` is this
        // function's. Bounds: the region has 256 pages, and there is a byte for each.
        let asked = unsafe {
            libc::mincore(arena.region().base().cast(), arena.bytes(), resident.as_mut_ptr())
        };
        assert_eq!((asked, arena.bytes()), (0, 256 * 4096));
        let made = resident.iter().filter(|&&page| page & 1 == 1).count();
        i32::from(filled != (0, Errno::ENOMEM)) + i32::from(made > 0) * 2
    });
    assert_eq!(end, End::Exit(0));
}

/// With a read from a peer under way, which the child must not stop, and a file in the ring's
/// table, which it must not take out.
#[test]
fn f26_child_that_drops_a_shard_leaves_its_parents_ops_and_files_alone() {
    let Ok(shard) = Shard::new(8) else { return };
    let net = ShardNet::new(&shard).unwrap();
    if !net.is_on_ring() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let options = OpenOptions::new().write(true).create(true);
    let file = shard.open(&temp.path().join("data"), &options).unwrap();
    let fs = ShardFs::at(&shard, temp.path()).unwrap();
    let both = RtOptions::new().read(true).write(true).create(true);
    let locked = block_on(&fs, fs.open("locked", &both)).unwrap().unwrap();
    block_on(&fs, locked.lock(LockKind::Exclusive)).unwrap().unwrap();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let stream = net.adopt(ours).unwrap();
    let buf = shard.arena().alloc(4096).unwrap();
    let mut read = Box::pin(stream.read_exact(Whole, vec![0; 5]));
    assert!(read.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    shard.turn(Wait::NONE).unwrap();
    assert_eq!(shard.in_flight(), 1);

    let end = in_settled_child(|| {
        drop((inherited(&read), inherited(&stream), inherited(&net)));
        drop((inherited(&locked), inherited(&fs), inherited(&file)));
        drop((inherited(&buf), inherited(&shard)));
    });
    assert_eq!(end, End::Exit(0));

    let again = std::fs::File::open(temp.path().join("locked")).unwrap();
    assert!(again.try_lock_shared().is_err(), "the lock is held");
    assert_eq!(shard.in_flight(), 1, "the read is under way");
    theirs.write_all(b"hello").unwrap();
    let (done, bytes) = block_on(&shard, read).unwrap();
    assert_eq!((done, &bytes[..]), (Ok(()), &b"hello"[..]));
    let (done, _page) = block_on(&shard, file.write_all_at(0, vec![7; 4096])).unwrap();
    done.unwrap();
}

#[test]
fn f26_child_that_drops_what_has_threads_waits_for_none_of_them() {
    let ring = ThreadRing::new(2, 8).unwrap();
    assert_eq!(in_settled_child(|| drop(inherited(&ring))), End::Exit(0));

    let builder = Engine::builder().shards(Shards::Count(1)).queue_depth(8);
    let engine = builder.build().unwrap();
    let remote = engine.remote();
    let temp = tempfile::tempdir().unwrap();
    let options = OpenOptions::new().write(true).create(true);
    let file = block_on(&remote, remote.open(temp.path().join("data"), &options)).unwrap();
    let file = file.unwrap();
    let end = in_settled_child(|| {
        drop((inherited(&file), inherited(&remote), inherited(&engine)));
    });
    assert_eq!(end, End::Exit(0));
    block_on(&file, file.write_all_at(0, vec![7; 4096])).unwrap().0.unwrap();
    drop((file, remote));
    assert!(engine.shutdown().is_clean());
}

/// The poller is shared with the child, what it watches included.
#[test]
fn f26_child_that_drops_a_portable_connection_leaves_its_parents_poller_alone() {
    let fs = Portable::new().unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let stream = fs.adopt(listener.accept().unwrap().0).unwrap();
    let mut read = Box::pin(stream.read_exact(Whole, vec![0; 5]));
    assert!(read.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    let end = in_settled_child(|| drop((inherited(&read), inherited(&stream))));
    assert_eq!(end, End::Exit(0));
    theirs.write_all(b"hello").unwrap();
    let (done, bytes) = block_on(&fs, read).unwrap();
    assert_eq!((done, &bytes[..]), (Ok(()), &b"hello"[..]));
}
