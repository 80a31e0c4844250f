//! The companion for names by itself: ops that stay in the kernel until they are told to stop,
//! queues that are full, kernels that lack something.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use mfio_rt::{DirHandle, FileHandle, Fs, OpenOptions};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use proptest::prelude::*;

use super::*;
use crate::buffer::quarantined;
use crate::fs::ShardFs;
use crate::ring::kernel::KernelConfig;
use crate::ring::{FileRef, Op, OpKind, Ring, Wait};
use crate::{Config, Shard};

struct Dir(tempfile::TempDir, Arc<OwnedFd>);

fn dir() -> Dir {
    let temp = tempfile::tempdir().unwrap();
    let open = File::open(temp.path()).unwrap();
    mkfifo(&temp.path().join("pipe"), Mode::from_bits_truncate(0o600)).unwrap();
    std::fs::write(temp.path().join("file"), [7; 100]).unwrap();
    Dir(temp, Arc::new(open.into()))
}

impl Dir {
    fn place(&self, path: &str) -> Place {
        Place { dir: Arc::clone(&self.1), path: CString::new(path).unwrap() }
    }

    fn open(&self, path: &str, flags: i32) -> NameOp {
        NameOp::Open { place: self.place(path), flags, mode: 0, resolve: 0 }
    }

    /// Waits in the kernel until somebody writes: what may have to create is never tried without
    /// waiting.
    fn wait(&self) -> NameOp {
        let flags = libc::O_RDONLY | libc::O_CREAT;
        NameOp::Open { place: self.place("pipe"), flags, mode: 0o600, resolve: 0 }
    }

    fn look(&self, path: &str) -> NameOp {
        NameOp::Look { place: self.place(path), flags: 0 }
    }
}

fn ring(entries: u32) -> Option<KernelRing> {
    let mut ring = KernelRing::new(&KernelConfig::new(entries)).ok()?;
    ring.takes_names(NameKind::Look).then_some(ring)
}

fn tag(at: u32) -> Tag {
    Tag { slot: NAME_SLOTS_FROM + at, generation: at }
}

/// Waits for `count` completions; their tags and results.
fn ended(ring: &mut KernelRing, count: usize) -> Vec<(Tag, i32)> {
    let mut done = Vec::new();
    while done.len() < count {
        ring.enter(Wait::at_least(1)).unwrap();
        ring.reap(&mut done);
    }
    done.into_iter().map(|completion| (completion.tag, completion.result)).collect()
}

#[test]
fn completion_brings_the_answer_and_the_op_back_once() {
    let (Some(mut ring), dir) = (ring(2), dir()) else { return };
    ring.push_name(dir.look("file"), tag(5));
    ring.push_name(dir.open("file", libc::O_RDONLY), tag(6));
    ring.push_name(dir.look("missing"), tag(0));
    let mut seen = ended(&mut ring, 3);
    seen.sort_unstable();
    assert_eq!(seen[0], (tag(0), -libc::ENOENT));
    let facts = ring.end_of_name(tag(5)).unwrap().result.unwrap();
    let NameAnswer::Facts(facts) = facts else { panic!("{facts:?}") };
    assert_eq!((facts.len, facts.is_file()), (100, true));
    let NameEnd { op, result } = ring.end_of_name(tag(6)).unwrap();
    assert!(matches!(op, NameOp::Open { .. }));
    let Ok(NameAnswer::Opened(opened)) = result else { panic!("{result:?}") };
    assert_eq!(File::from(opened).metadata().unwrap().len(), 100);
    let missing = ring.end_of_name(tag(0)).unwrap();
    assert_eq!(missing.result.as_ref().err(), Some(&Errno::ENOENT));
    for at in [0, 5, 6, 7] {
        assert!(ring.end_of_name(tag(at)).is_none(), "once");
    }
    assert_eq!(Arc::strong_count(&dir.1), 3, "kept by the two ops that came back");
    drop((op, missing));
    assert_eq!(Arc::strong_count(&dir.1), 1);
    assert!(ring.beside.as_ref().unwrap().is_idle());
}

#[test]
fn f03_op_in_the_kernel_ends_by_a_cancel_and_not_before_its_own_completion() {
    let (Some(mut ring), dir) = (ring(2), dir()) else { return };
    ring.push_name(dir.wait(), tag(1));
    ring.enter(Wait::NONE).unwrap();
    assert_eq!(ring.names().unwrap().in_flight(), 1);
    assert!(ring.cancel_name(tag(1)));
    ended(&mut ring, 1);
    let result = ring.end_of_name(tag(1)).unwrap().result;
    assert!(matches!(result, Err(Errno::ECANCELED | Errno::EINTR)), "{result:?}");
    assert_eq!(Arc::strong_count(&dir.1), 1);
}

/// A wait for data ends by data, and one for names by names, whichever else is under way.
#[test]
fn names_and_data_share_a_sleep() {
    let (Some(mut ring), dir) = (ring(2), dir()) else { return };
    ring.push_name(dir.wait(), tag(0));
    let nop = Op::on(OpKind::Nop, FileRef::Plain(-1));
    for at in 0..20_u32 {
        let data = Tag { slot: at, generation: 1 };
        assert!(!ring.reserve(3));
        if ring.reserve(1) {
            ring.push(nop, data);
        } else {
            ring.enter(Wait::NONE).unwrap();
            assert!(ring.reserve(2), "an enter leaves nothing queued");
            ring.push(nop, data);
        }
        assert_eq!(ended(&mut ring, 1), [(data, 0)]);
        ring.push_name(dir.look("file"), tag(1));
        assert_eq!(ended(&mut ring, 1), [(tag(1), 0)]);
        assert!(ring.end_of_name(tag(1)).is_some());
    }
    // The other end of the pipe: the open that has waited all the time.
    let path = dir.0.path().join("pipe");
    let writer = std::thread::spawn(move || File::options().write(true).open(path));
    let (of, fd) = ended(&mut ring, 1)[0];
    assert!(of == tag(0) && fd >= 0);
    let end = ring.end_of_name(tag(0)).unwrap();
    assert!(matches!(end.result, Ok(NameAnswer::Opened(_))));
    writer.join().unwrap().unwrap();
}

#[test]
fn f02_memory_of_ops_that_did_not_come_back_is_never_freed() {
    let (Some(mut ring), dir) = (ring(2), dir()) else { return };
    let before = quarantined();
    ring.push_name(dir.look("file"), tag(0));
    ring.push_name(dir.wait(), tag(1));
    drop(ring);
    assert!(quarantined() >= before + 2);
    assert_eq!(Arc::strong_count(&dir.1), 3, "the directory stays open with them");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Names beside data, cancels on the way, in queues of any size: each op ends once.
    #[test]
    fn f19_each_op_on_names_is_answered_once(
        entries in prop::sample::select(vec![1_u32, 2, 8]),
        hosted: bool,
        steps in prop::collection::vec((0..6_u8, 0..40_u32), 1..150),
    ) {
        let (Some(mut ring), dir) = (ring(entries), dir()) else { return Ok(()) };
        if hosted {
            ring.watch();
        }
        let nop = Op::on(OpKind::Nop, FileRef::Plain(-1));
        let (mut names, mut data, mut done) = (Vec::new(), 0, Vec::new());
        let sq_entries = ring.limits().sq_entries;
        for (step, at) in steps {
            match step {
                0..=2 if ring.has_room_for_name() && !names.contains(&tag(at)) => {
                    let op = match step {
                        0 => dir.look("file"),
                        1 => dir.open("file", libc::O_RDONLY),
                        _ => dir.wait(),
                    };
                    ring.push_name(op, tag(at));
                    names.push(tag(at));
                    prop_assert!(!ring.reserve(sq_entries), "an enter has something to do");
                }
                3 if names.contains(&tag(at)) => {
                    ring.cancel_name(tag(at));
                }
                4 if ring.reserve(1) && data < 8 => {
                    ring.push(nop, Tag { slot: 0, generation: 0 });
                    data += 1;
                }
                _ => {
                    ring.enter(Wait::NONE).unwrap();
                    prop_assert!(ring.reserve(sq_entries) && !ring.reserve(sq_entries + 1));
                    ring.reap(&mut done);
                }
            }
            for completion in done.drain(..) {
                settle(&mut ring, &mut names, &mut data, completion)?;
            }
        }
        for &tag in &names {
            if !ring.cancel_name(tag) {
                ring.enter(Wait::NONE).unwrap();
                prop_assert!(ring.cancel_name(tag));
            }
        }
        while !names.is_empty() || data > 0 {
            ring.enter(Wait::at_least(1)).unwrap();
            ring.reap(&mut done);
            for completion in done.drain(..) {
                settle(&mut ring, &mut names, &mut data, completion)?;
            }
        }
        prop_assert_eq!(ring.names().unwrap().in_flight(), 0);
        prop_assert_eq!(Arc::strong_count(&dir.1), 1);
    }
}

fn settle(
    ring: &mut KernelRing,
    names: &mut Vec<Tag>,
    data: &mut u32,
    Completion { tag, .. }: Completion,
) -> Result<(), TestCaseError> {
    if tag.slot < NAME_SLOTS_FROM {
        *data -= 1;
        return Ok(());
    }
    let at = names.iter().position(|other| *other == tag);
    prop_assert!(at.is_some(), "{:?} comes once", tag);
    names.swap_remove(at.unwrap());
    prop_assert!(ring.end_of_name(tag).is_some());
    Ok(())
}

/// Runs a few ops of every kind; how many of them went by the ring.
fn tour(ring: KernelRing) -> u64 {
    let shard = Shard::with_ring(ring, &Config::new()).unwrap();
    let temp = tempfile::tempdir().unwrap();
    let fs = ShardFs::at(&shard, temp.path()).unwrap();
    let options = OpenOptions::new().write(true).create(true);
    mfio_core::block_on(&fs, async {
        let dir = fs.current_dir();
        dir.create_dir("d", 0o755).await.unwrap();
        let file = dir.open_file("d/f", &options).await.unwrap();
        assert!(file.metadata().await.unwrap().is_file());
        dir.rename("d/f", dir, "f").await.unwrap();
        dir.confined().await.unwrap().remove_file("d/../f").await.unwrap();
        dir.remove_dir("d").await.unwrap();
    })
    .unwrap();
    assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0);
    assert_eq!(shard.shutdown(), 0);
    shard.with_ring_ref(|ring| ring.stats().names)
}

#[test]
fn what_the_kernel_lacks_is_done_by_threads() {
    let Some(whole) = ring(4) else { return };
    assert_eq!(tour(whole), 8);
    let mut old = ring(4).unwrap();
    old.names_mut().unwrap().known = vec![opcode::OpenAt2::CODE];
    assert_eq!(tour(old), 3, "two opens of what was asked for, and the way to a name");
    let mut none = KernelRing::new(&KernelConfig::new(4)).unwrap();
    none.beside.get_or_insert_default().names_asked = true;
    assert_eq!(tour(none), 0);
}
