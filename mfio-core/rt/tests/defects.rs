//! Runtime defects of the system that came before, R1 to R20: none of them here.
//!
//! R7 (system calls per operation) and R18 (scans of all streams in each drive) are about rings
//! and drives, which the runtime on threads does not have; what takes their place is tested.
#![cfg(feature = "std")]
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::future::Future;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Waker};
use std::thread;

use mfio_core::conformance::{Shape, check_shaped};
use mfio_core::{
    BlockingRead, BlockingWrite, Generated, IoRead, IoWrite, Packet, PacketIo, PacketIoExt, Read,
    Source, Write, block_on, output_fn,
};
use mfio_rt::conformance::{bytes_of, defects, files, get, names, put};
use mfio_rt::portable::{Portable, PortableConfig};
use mfio_rt::virt::{VirtConfig, VirtFile, VirtFs};
use mfio_rt::{
    Allocate, DirHandle, DirHandleExt, Entries, ErrorKind, FileHandle, Follow, Fs, OpenOptions,
    StreamHandle, Tcp, Whole,
};

const BOTH: OpenOptions = OpenOptions::new().read(true).write(true).create(true);

fn portable() -> (Portable, tempfile::TempDir) {
    let temp = tempfile::tempdir().unwrap();
    (Portable::at(temp.path()).unwrap(), temp)
}

/// One thread and a queue for two.
fn narrow() -> (Portable, tempfile::TempDir) {
    let temp = tempfile::tempdir().unwrap();
    let mut config = PortableConfig::default();
    config.threads = NonZeroUsize::MIN;
    config.queued_max = NonZeroUsize::new(2).unwrap();
    (Portable::with_config(temp.path(), &config).unwrap(), temp)
}

fn here() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn now<T>(fs: &impl Fs, future: impl Future<Output = T>) -> T {
    block_on(fs, future).unwrap()
}

#[test]
fn r01_cancelled_write_never_reaches_a_file_opened_later() {
    let (fs, _temp) = narrow();
    let busy = now(&fs, fs.open("busy", &BOTH)).unwrap();
    let doomed = now(&fs, fs.open("doomed", &BOTH)).unwrap();
    let release = defects::occupy(&busy);
    {
        let mut write = pin!(doomed.io(0, Packet::<Write, _>::new(vec![0xdd; 512])));
        assert!(write.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert_eq!(fs.queued(), 1);
    }
    assert_eq!(fs.queued(), 0, "what nobody waits for and nobody has begun is taken back");
    drop(doomed);
    drop(release);
    now(&fs, async {
        put(fs.current_dir(), "next", vec![7; 10]).await;
        assert_eq!(get(fs.current_dir(), "next").await, [7; 10]);
        assert!(get(fs.current_dir(), "doomed").await.is_empty());
    });
}

#[test]
fn r02_more_files_are_open_than_any_table_has_slots() {
    let (fs, _temp) = portable();
    now(&fs, files::more_than_a_thousand_files_are_open(&fs));
}

#[test]
fn r03_runtime_works_on_after_everything_in_flight_was_cancelled() {
    let (fs, _temp) = portable();
    now(&fs, defects::work_goes_on_after_everything_was_cancelled(&fs));
}

#[test]
fn r04_runtime_dropped_in_flight_gives_every_packet_an_honest_result() {
    let (fs, temp) = portable();
    let file = now(&fs, fs.open("file", &BOTH)).unwrap();
    let mut sent = Vec::new();
    for at in 0..200 {
        let (waiting, view) = Packet::<Write, _>::new(vec![3; 4096]).send();
        if file.send_io(at * 4096, view).is_ok() {
            sent.push((usize::try_from(at).unwrap() * 4096, waiting));
        }
    }
    drop((file, fs));
    let found = |at: usize| {
        let bytes = std::fs::read(temp.path().join("file")).unwrap();
        bytes.get(at..at + 4096).is_some_and(|bytes| bytes.iter().all(|&byte| byte == 3))
    };
    for (at, waiting) in sent {
        let mut waiting = waiting;
        let done = std::future::poll_fn(|cx| waiting.poll_done(cx));
        async_io::block_on(done);
        let done = waiting.into_completed().unwrap();
        assert!(done.is_ok() && found(at), "what was accepted is done: {:?}", done.error());
    }
}

#[test]
fn r05_stream_dropped_in_flight_gives_nothing_to_the_next() {
    let (net, _temp) = portable();
    now(&net, mfio_rt::conformance::streams::a_dropped_stream_fails_what_waits(&net));
}

#[cfg(target_os = "linux")]
#[test]
fn r06_packet_of_exactly_4_gib_is_read_whole() {
    let (fs, _temp) = portable();
    let zeros = now(&fs, fs.open("/dev/zero", &OpenOptions::new().read(true))).unwrap();
    now(&fs, defects::four_gigabytes_are_read_whole(&zeros));
}

#[test]
fn r06_short_transfers_are_continued() {
    let (fs, _temp) = portable();
    now(&fs, defects::short_transfers_are_continued(&fs));
}

#[test]
fn r07_no_call_is_spent_on_waking_a_thread_that_has_not_slept() {
    // Ours has no ring: what must hold is that nobody polls while a packet is under way.
    let (fs, _temp) = portable();
    let file = now(&fs, fs.open("file", &BOTH)).unwrap();
    let polls = AtomicUsize::new(0);
    now(&fs, async {
        let mut write = pin!(file.write_exact(0, vec![1; 1 << 20]));
        std::future::poll_fn(|cx| {
            polls.fetch_add(1, Ordering::Relaxed);
            write.as_mut().poll(cx)
        })
        .await
        .0
        .unwrap();
    });
    assert!(polls.into_inner() <= 3, "polled only when it was woken");
}

#[test]
fn r08_empty_transfers_succeed_everywhere() {
    let (fs, _temp) = portable();
    now(&fs, files::empty_packets_succeed(&fs));
    now(&fs, mfio_rt::conformance::streams::empty_packets_keep_their_turn(&fs));
    let fs = VirtFs::new();
    now(&fs, files::empty_packets_succeed(&fs));
}

#[test]
fn r09_names_are_relative_to_the_handle_not_to_the_process() {
    let (fs, _temp) = portable();
    now(&fs, names::operations_are_relative_to_the_handle(&fs));
    let fs = VirtFs::new();
    now(&fs, names::operations_are_relative_to_the_handle(&fs));
}

#[test]
fn r10_operations_beyond_the_queue_wait_without_blocking_their_caller() {
    let (fs, _temp) = narrow();
    let file = now(&fs, fs.open("file", &BOTH)).unwrap();
    let release = defects::occupy(&file);
    let dir = fs.current_dir();
    let mut waiting: Vec<_> =
        (0..100).map(|number| Box::pin(dir.create_dir(format!("{number}"), 0o755))).collect();
    // Returns, though the only thread is stuck and the queue holds two.
    for future in &mut waiting {
        assert!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    assert_eq!(fs.queued(), 2);
    drop(release);
    for future in waiting {
        now(&fs, future).unwrap();
    }
}

#[test]
fn r11_stream_bytes_keep_their_order_through_short_writes() {
    let (net, _temp) = portable();
    now(&net, mfio_rt::conformance::streams::many_writes_keep_their_order(&net));
}

#[test]
fn r12_completions_may_call_back_into_the_runtime() {
    let (fs, _temp) = portable();
    let file = Arc::new(now(&fs, fs.open("file", &BOTH)).unwrap());
    let (told, heard) = mpsc::channel();
    let again = Arc::downgrade(&file);
    let runtime = fs.clone();
    let mut packet = Packet::<Write, _>::new(vec![1; 100]);
    packet.set_output(Some(output_fn(move |_| {
        let queued = runtime.queued();
        let (sent, view) = Packet::<Write, _>::new(vec![2; 10]).send();
        again.upgrade().unwrap().send_io(200, view).unwrap();
        told.send((queued, sent)).unwrap();
    })));
    now(&fs, file.io(0, packet)).result().unwrap();
    let (_, mut sent) = heard.recv().unwrap();
    now(&fs, std::future::poll_fn(|cx| sent.poll_done(cx)));
    assert!(sent.into_completed().unwrap().is_ok());

    let listener = TcpListener::bind(here()).unwrap();
    let stream = now(&fs, fs.connect(listener.local_addr().unwrap())).unwrap();
    let stream = Arc::new(stream);
    let (again, (told, heard)) = (Arc::downgrade(&stream), mpsc::channel());
    let mut packet = Packet::<Write, _>::new(vec![1; 100]);
    packet.set_output(Some(output_fn(move |_| {
        let stream = again.upgrade().unwrap();
        let (_sent, view) = Packet::<Write, _>::new(vec![2; 10]).send();
        stream.send_io((), view).unwrap();
        told.send(stream.local_addr().is_ok()).unwrap();
    })));
    now(&fs, stream.io((), packet)).result().unwrap();
    assert!(heard.recv().unwrap());
}

/// Sockets that this process has open, whose local port is one of `ports`.
#[cfg(target_os = "linux")]
fn sockets_of(ports: &[u16]) -> usize {
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let ours = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, remote, state) = (fields.next()?, fields.next()?, fields.next()?);
        let port = |field: &str| u16::from_str_radix(field.rsplit(':').next()?, 16).ok();
        // Not those that only wait for the last packet of the other side.
        let open = ["01", "02", "0A", "08"].contains(&state);
        let named = ports.contains(&port(local)?) || ports.contains(&port(remote)?);
        (open && named).then_some(())
    };
    table.lines().filter_map(ours).count()
}

#[cfg(target_os = "linux")]
#[test]
fn r13_dropped_connects_and_accepts_leave_nothing_open() {
    let (net, _temp) = portable();
    let options = mfio_rt::ListenOptions::new();
    let listener = now(&net, net.bind(here(), &options)).unwrap();
    let address = mfio_rt::ListenerHandle::local_addr(&listener).unwrap();
    for _ in 0..50 {
        let mut connect = pin!(net.connect(address));
        let _begun = connect.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    }
    for _ in 0..50 {
        let mut accept = pin!(mfio_rt::ListenerHandle::accept(&listener));
        let _begun = accept.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    }
    // Reads under way do not keep a dropped stream open either.
    let peer = TcpListener::bind(here()).unwrap();
    let peer_address = peer.local_addr().unwrap();
    for _ in 0..50 {
        let stream = now(&net, net.connect(peer_address)).unwrap();
        let (_sent, view) = Packet::<Read, _>::new(vec![0; 10]).send();
        stream.send_io(Whole, view).unwrap();
    }
    drop((listener, peer));
    let ports = [address.port(), peer_address.port()];
    for _ in 0..200 {
        if sockets_of(&ports) == 0 {
            return;
        }
        thread::park_timeout(std::time::Duration::from_millis(20));
    }
    panic!("{} sockets are left", sockets_of(&ports));
}

#[test]
fn r14_room_for_made_up_bytes_is_counted_in_bytes() {
    let (net, _temp) = portable();
    now(&net, mfio_rt::conformance::streams::made_up_bytes_go_through_whole(&net));
}

#[test]
fn r15_no_tail_of_an_earlier_packet_is_written() {
    let (fs, _temp) = portable();
    now(&fs, defects::nothing_of_an_earlier_packet_is_written(&fs));
}

#[test]
fn r16_sending_never_waits_for_the_disk() {
    let (fs, _temp) = narrow();
    let file = now(&fs, fs.open("file", &BOTH)).unwrap();
    let release = defects::occupy(&file);
    // The caller may copy a little that is in memory. Writes, and reads that would keep it long,
    // wait for a thread.
    let (sent, view) = Packet::<Write, _>::new(vec![0; 4096]).send();
    file.send_io(0, view).unwrap();
    assert!(!sent.is_done(), "queued, and not done by the caller");
    let (sent, view) = Packet::<Read, _>::new(vec![0; 1 << 20]).send();
    file.send_io(0, view).unwrap();
    assert!(!sent.is_done(), "queued, and not done by the caller");
    drop(release);
}

/// A read at once is still one that sees what was written before, to the end and no further.
#[test]
fn r16_what_is_read_at_once_is_what_is_there() {
    let (fs, _temp) = portable();
    now(&fs, async {
        defects::what_is_read_at_once_is_what_is_there(&fs).await;
        let closed = fs.open("file", &OpenOptions::new().write(true)).await.unwrap();
        let (read, error, _) = closed.read_some(0, vec![0; 10]).await;
        assert_eq!((read, error.map(|error| error.errno())), (0, Some(Some(9))));
    });
}

#[cfg(target_os = "linux")]
#[test]
fn r17_idle_connections_take_little_memory() {
    fn resident() -> u64 {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
    }
    let (net, _temp) = portable();
    // Other tests of this process take memory too, but not always: the old design had 400 MiB
    // here.
    let rounds = (0..5).map(|_| {
        let listener = TcpListener::bind(here()).unwrap();
        let address = listener.local_addr().unwrap();
        let connect = |_| now(&net, net.connect(address)).unwrap();
        let _warm = connect(0);
        let before = resident();
        let streams: Vec<_> = (0..100).map(connect).collect();
        resident().saturating_sub(before) / streams.len() as u64
    });
    let each = rounds.min().unwrap();
    assert!(each < 1 << 20, "{each} bytes for a connection");
}

#[test]
fn r18_idle_connections_cost_nothing_while_another_works() {
    let (net, _temp) = portable();
    now(&net, mfio_rt::conformance::streams::a_stuck_peer_delays_nobody(&net));
}

#[test]
fn r19_virtual_files_keep_the_rules_of_names() {
    macro_rules! hold {
        ($($rule:ident)*) => {
            $({
                let fs = VirtFs::new();
                now(&fs, names::$rule(&fs));
            })*
        };
    }
    hold! { metadata_follows_what_happens renaming_replaces_like_by_like
    a_directory_does_not_move_into_itself names_of_one_file_share_it walk_dirs copies_are_equal }
}

#[test]
fn r20_queue_is_bounded_and_its_callers_are_woken() {
    let (fs, _temp) = narrow();
    let file = now(&fs, fs.open("file", &BOTH)).unwrap();
    let release = defects::occupy(&file);
    let mut sent = Vec::new();
    let refused = loop {
        let (waiting, view) = Packet::<Write, _>::new(vec![1; 10]).send();
        sent.push(waiting);
        if let Err(refused) = file.send_io(0, view) {
            break refused;
        }
    };
    assert_eq!(sent.len(), 3, "two wait, the third is refused");
    let mut ready = pin!(std::future::poll_fn(|cx| PacketIo::<Write, u64>::poll_ready(&file, cx)));
    assert!(ready.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(release);
    now(&fs, ready);
    file.send_io(0, refused.view).unwrap();
    for waiting in &mut sent {
        now(&fs, std::future::poll_fn(|cx| waiting.poll_done(cx)));
    }
}

#[test]
fn virtual_tree_deeper_than_the_stack_is_made_moved_and_dropped() {
    let fs = VirtFs::new();
    now(&fs, async {
        let top = fs.current_dir();
        let mut at = top.clone();
        for _ in 0..200_000 {
            at.create_dir("d", 0o755).await.unwrap();
            at = at.open_dir("d").await.unwrap();
        }
        top.rename("d", top, "moved").await.unwrap();
        assert!(top.rename("moved", &at, "x").await.is_err(), "into its own bottom");
    });
    drop(fs);
    // Removed from below, with only the lowest held.
    let fs = VirtFs::new();
    now(&fs, async {
        let mut chain = vec![fs.current_dir().clone()];
        for _ in 0..200_000 {
            let at = chain.last().unwrap();
            at.create_dir("d", 0o755).await.unwrap();
            let below = at.open_dir("d").await.unwrap();
            chain.push(below);
        }
        let lowest = chain.pop().unwrap();
        while let Some(at) = chain.pop() {
            at.remove_dir("d").await.unwrap();
        }
        assert_eq!(fs.nodes(), 200_001, "each keeps the one above");
        drop(lowest);
        assert_eq!(fs.nodes(), 1);
    });
}

#[test]
fn virtual_directory_of_100000_names_is_listed_whole() {
    let fs = VirtFs::new();
    now(&fs, async {
        for number in 0..100_000 {
            put(fs.current_dir(), format!("{number}"), Vec::new()).await;
        }
        let mut entries = fs.current_dir().read_dir().await.unwrap();
        assert_eq!(entries.collect().await.unwrap().len(), 100_000);
    });
}

#[test]
fn virtual_packet_of_exactly_4_gib_is_read_whole() {
    let fs = VirtFs::new();
    let file = now(&fs, fs.open("file", &BOTH)).unwrap();
    now(&fs, file.set_len((4 << 30) + 10)).unwrap();
    now(&fs, defects::four_gigabytes_are_read_whole(&file));
}

#[test]
fn virtual_space_is_limited_counted_and_given_back() {
    let mut config = VirtConfig::default();
    (config.capacity_bytes, config.nodes_max) = (64 << 10, 5);
    let fs = VirtFs::with_config(&config);
    now(&fs, async {
        let file = fs.open("file", &BOTH).await.unwrap();
        let done = file.io(0, Packet::<Write, _>::new(vec![1; 100_000])).await;
        assert_eq!(done.contiguous_bytes(), 64 << 10, "what fits is written");
        assert_eq!(done.error().unwrap().kind(), mfio_core::ErrorKind::NoSpace);
        let refused = file.allocate(1 << 20, 4096, Allocate::Extend).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::NoSpace);
        file.allocate(0, 8192, Allocate::PunchHole).await.unwrap();
        assert_eq!(fs.used_bytes(), 56 << 10);
        fs.current_dir().remove_file("file").await.unwrap();
        assert_eq!(fs.used_bytes(), 56 << 10, "it is open");
        drop(file);
        assert_eq!((fs.used_bytes(), fs.nodes()), (0, 1));
        for number in 0..4 {
            fs.current_dir().create_dir(format!("{number}"), 0o755).await.unwrap();
        }
        let full = fs.current_dir().create_dir("more", 0o755).await;
        assert_eq!(full.unwrap_err().kind(), ErrorKind::NoSpace);
    });
}

#[test]
fn virtual_hard_links_are_counted() {
    let mut config = VirtConfig::default();
    config.nodes_max = 4;
    let fs = VirtFs::with_config(&config);
    now(&fs, async {
        let dir = fs.current_dir();
        let file = fs.open("file", &BOTH).await.unwrap();
        dir.hard_link("file", dir, "second").await.unwrap();
        dir.hard_link("file", dir, "third").await.unwrap();
        assert_eq!(fs.nodes(), 4, "the root and three names");
        let full = dir.hard_link("file", dir, "fourth").await.unwrap_err();
        assert_eq!(full.kind(), ErrorKind::NoSpace);
        assert_eq!(dir.metadata("file", Follow::Yes).await.unwrap().links, Some(3));
        let full = dir.create_dir("dir", 0o755).await.unwrap_err();
        assert_eq!(full.kind(), ErrorKind::NoSpace);
        dir.rename("third", dir, "moved").await.unwrap();
        dir.rename("moved", dir, "file").await.unwrap();
        assert_eq!(fs.nodes(), 4, "two names of one file stay as they are");
        dir.remove_file("second").await.unwrap();
        dir.create_dir("dir", 0o755).await.unwrap();
        for name in ["file", "moved"] {
            dir.remove_file(name).await.unwrap();
        }
        dir.remove_dir("dir").await.unwrap();
        assert_eq!(fs.nodes(), 2, "the root and what is open");
        drop(file);
        assert_eq!(fs.nodes(), 1);
    });
}

#[test]
fn virtual_targets_of_links_take_space() {
    let mut config = VirtConfig::default();
    config.capacity_bytes = 16 << 10;
    let fs = VirtFs::with_config(&config);
    now(&fs, async {
        let dir = fs.current_dir();
        for number in 0..100 {
            dir.symlink("short", format!("{number}")).await.unwrap();
        }
        assert_eq!(fs.used_bytes(), 0, "short ones are part of their nodes");
        let long = [b'x'; 4000];
        for name in ["a", "b", "c", "d"] {
            dir.symlink(long, name).await.unwrap();
        }
        assert_eq!(fs.used_bytes(), 16 << 10);
        let full = dir.symlink(long, "e").await.unwrap_err();
        assert_eq!(full.kind(), ErrorKind::NoSpace);
        assert_eq!(fs.nodes(), 105, "what was refused is not there");
        dir.remove_file("a").await.unwrap();
        assert_eq!(fs.used_bytes(), 12 << 10);
        dir.symlink(long, "e").await.unwrap();
        assert_eq!(dir.read_link("e").await.unwrap(), long);
    });
}

/// Nothing has to be opened for it: a socket cannot be, nor can a file of mode 0 by its owner.
#[cfg(target_os = "linux")]
#[test]
fn permissions_are_set_in_confined_directories_whatever_they_are_of() {
    let temp = tempfile::tempdir().unwrap();
    let fs = Portable::at(temp.path()).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(temp.path().join("socket")).unwrap();
    std::fs::write(temp.path().join("file"), b"bytes").unwrap();
    std::os::unix::fs::symlink("file", temp.path().join("link")).unwrap();
    std::os::unix::fs::symlink("/dev/null", temp.path().join("out")).unwrap();
    std::fs::create_dir(temp.path().join("dir")).unwrap();
    now(&fs, async {
        let dir = fs.current_dir().confined().await.unwrap();
        for (path, of) in [("file", "file"), ("link", "file"), ("dir", "dir"), (".", ".")] {
            for mode in [0, 0o640, 0o750] {
                dir.set_permissions(path, mode).await.unwrap();
                let found = dir.metadata(of, Follow::No).await.unwrap();
                assert_eq!(found.mode, mode, "{path}");
            }
        }
        dir.set_permissions("socket", 0o600).await.unwrap();
        assert_eq!(dir.metadata("socket", Follow::No).await.unwrap().mode, 0o600);
        let refused = dir.set_permissions("out", 0o600).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Escapes);
        let refused = dir.set_permissions("none", 0o600).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NotFound);
    });
}

#[test]
fn f49_confined_directory_lets_no_path_out() {
    fn check<F: Fs>(fs: &F) {
        now(fs, async {
            let top = fs.current_dir();
            top.create_dir_all("jail/inside", 0o755).await.unwrap();
            put(top, "secret", vec![1]).await;
            let jail = top.open_dir("jail").await.unwrap();
            jail.symlink("../secret", "up").await.unwrap();
            jail.symlink("/etc/passwd", "absolute").await.unwrap();
            jail.symlink("inside/../..", "out").await.unwrap();
            put(&jail, "inside/mine", vec![2]).await;
            let jail = jail.confined().await.unwrap();
            let read = OpenOptions::new().read(true);
            for path in ["../secret", "up", "absolute", "/etc/passwd", "out/secret", "out/x/y"] {
                let escape = |kind| assert_eq!(kind, ErrorKind::Escapes, "{path}");
                escape(jail.open_file(path, &read).await.err().unwrap().kind());
                escape(jail.open_file(path, &BOTH).await.err().unwrap().kind());
                escape(jail.metadata(path, Follow::Yes).await.unwrap_err().kind());
                escape(jail.open_dir(path).await.err().unwrap().kind());
            }
            for path in ["../new", "/new", "out/new"] {
                let escape = |kind| assert_eq!(kind, ErrorKind::Escapes, "{path}");
                escape(jail.create_dir(path, 0o755).await.unwrap_err().kind());
                escape(jail.remove_file(path).await.unwrap_err().kind());
                escape(jail.remove_dir(path).await.unwrap_err().kind());
                escape(jail.symlink("x", path).await.unwrap_err().kind());
                escape(jail.rename("inside", &jail, path).await.unwrap_err().kind());
                escape(jail.hard_link("inside/mine", &jail, path).await.unwrap_err().kind());
            }
            assert_eq!(get(&jail, "inside/../inside/mine").await, [2], "inside it may go up");
            let inside = jail.open_dir("inside").await.unwrap();
            assert!(inside.open_dir("..").await.is_err(), "confined to itself");
        });
    }
    check(&VirtFs::new());
    if cfg!(target_os = "linux") {
        let (fs, _temp) = portable();
        check(&fs);
    }
}

fn files_of<F: Fs>(fs: F) -> impl Fn(Vec<u8>) -> F::File {
    let number = AtomicUsize::new(0);
    move |contents| {
        let name = format!("file{}", number.fetch_add(1, Ordering::Relaxed));
        now(&fs, async {
            put(fs.current_dir(), &name, contents).await;
            fs.open(&name, &BOTH).await.unwrap()
        })
    }
}

#[test]
fn files_are_what_every_target_of_packets_is() {
    let shape = Shape { grows: true, ..Shape::default() };
    let make: Box<dyn Fn(Vec<u8>) -> VirtFile> = Box::new(files_of(VirtFs::new()));
    check_shaped(make, shape);
    let (fs, _temp) = portable();
    check_shaped(files_of(fs), shape);
}

#[test]
fn code_without_futures_uses_the_same_files() {
    let (fs, _temp) = portable();
    let file = now(&fs, fs.open("file", &BOTH)).unwrap();
    file.blocking_write_exact(5, b"blocking").unwrap();
    let mut bytes = [0; 4];
    file.blocking_read_exact(9, &mut bytes).unwrap();
    assert_eq!(&bytes, b"king");
}

#[test]
fn tasks_on_many_threads_share_one_runtime() {
    async fn work<F: Fs>(fs: &F, number: u64) {
        let name = format!("task{number}");
        put(fs.current_dir(), &name, bytes_of(number, 10_000)).await;
        assert!(get(fs.current_dir(), &name).await == bytes_of(number, 10_000));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(3).build().unwrap();
    let ((fs, _temp), virt) = (portable(), VirtFs::new());
    runtime.block_on(async {
        let mut tasks = Vec::new();
        for number in 0..40 {
            let (fs, virt) = (fs.clone(), virt.clone());
            // Needs no host: completions come from elsewhere and wake.
            tasks.push(tokio::spawn(async move {
                work::<Portable>(&fs, number).await;
                work::<VirtFs>(&virt, number).await;
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
    });
}

struct Trouble;

impl Source for Trouble {
    fn len(&self) -> u64 {
        10
    }

    fn read_at(&self, _at: u64, _to: &mut [u8]) {
        panic!("the caller's own trouble");
    }
}

#[test]
fn panic_in_the_code_of_a_caller_costs_no_thread() {
    let (fs, _temp) = narrow();
    let file = now(&fs, fs.open("file", &BOTH)).unwrap();
    for _ in 0..3 {
        let done = now(&fs, file.io(0, Packet::<Write, _>::new(Generated(Trouble))));
        assert_eq!(done.error().unwrap().kind(), mfio_core::ErrorKind::Aborted);
    }
    assert_eq!(now(&fs, file.write_exact(0, vec![2; 10])).0, Ok(()), "the only thread works on");
}

#[test]
fn adopted_connection_and_resolved_name_are_usable() {
    let (net, _temp) = portable();
    let found = now(&net, net.resolve("localhost", 80)).unwrap();
    assert!(found.iter().all(|address| address.ip().is_loopback() && address.port() == 80));
    let listener = TcpListener::bind(here()).unwrap();
    let mut theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let ours = net.adopt(listener.accept().unwrap().0).unwrap();
    assert_eq!(now(&net, ours.write_exact((), b"hello".to_vec())).0, Ok(()));
    let mut bytes = [0; 5];
    theirs.read_exact(&mut bytes).unwrap();
    theirs.write_all(&bytes).unwrap();
    assert_eq!(now(&net, ours.read_exact(Whole, vec![0; 5])).1, b"hello");
}

#[test]
fn ready_is_ready_where_there_is_room() {
    let fs = VirtFs::new();
    let file = now(&fs, fs.open("file", &BOTH)).unwrap();
    let mut cx = Context::from_waker(Waker::noop());
    assert_eq!(PacketIo::<Read, u64>::poll_ready(&file, &mut cx), Poll::Ready(()));
}
