//! Options about files and engines as text: what is accepted, what it sets, what is refused.
//!
//! Data flow: job text -> `Job` -> fields and the effective configuration.
//!
//! Not here: what the bench does with them (its own tests).
#![allow(clippy::unwrap_used, reason = "a test; clippy.toml covers only functions marked so")]

mod machine;

use fio_compat::{Fallocate, FileAdvice, Job, Layout, WriteLife};
use machine::Machine;

fn job(lines: &str) -> Job {
    Machine::file(&format!("[a]\nsize=1m\n{lines}\n")).unwrap().jobs.remove(0)
}

fn refused(lines: &str) -> String {
    Machine::file(&format!("[a]\nsize=1m\n{lines}\n")).unwrap_err().to_string()
}

#[test]
fn layout_of_a_job_that_says_nothing_is_fios() {
    let layout = job("").layout;
    assert_eq!(layout, Layout::default());
    assert!(layout.create_serialize && layout.create_fsync && !layout.overwrite);
    assert_eq!((layout.fallocate, layout.advice), (Fallocate::Native, FileAdvice::Pattern));
}

#[test]
fn every_word_of_fallocate_fadvise_hint_and_write_hint_is_known() {
    for (word, value) in [
        ("none", Fallocate::None),
        ("0", Fallocate::None),
        ("native", Fallocate::Native),
        ("posix", Fallocate::Posix),
        ("1", Fallocate::Posix),
        ("keep", Fallocate::Keep),
        ("truncate", Fallocate::Truncate),
    ] {
        assert_eq!(job(&format!("fallocate={word}")).layout.fallocate, value, "{word}");
    }
    for word in ["0", "1", "random", "sequential"] {
        assert_eq!(job(&format!("fadvise_hint={word}")).layout.advice.as_str(), word);
    }
    for word in ["none", "short", "medium", "long", "extreme"] {
        let life = job(&format!("rw=write\nwrite_hint={word}")).layout.write_life;
        assert_eq!(life.map(WriteLife::as_str), Some(word));
    }
    assert!(refused("fallocate=kep").contains("did you mean keep?"));
}

#[test]
fn what_contradicts_itself_about_files_is_refused_by_name() {
    for (lines, name) in [
        ("pre_read=1\ndirect=1", "pre_read"),
        ("file_append=1\nsize=50%", "percentage"),
        ("file_append=1\nfilesize=1m", "filesize"),
        ("unlink_each_loop=1\nloops=2\nrw=randrw", "unlink_each_loop"),
        ("lockfile=exclusive", "lockfile=exclusive"),
        ("opendir=/tmp", "opendir"),
        ("filetype=file", "filetype"),
        ("ioscheduler=none", "ioscheduler"),
        ("prio=1", "prio"),
        ("prioclass=1", "prioclass"),
        ("cmdprio_percentage=5", "cmdprio_percentage"),
    ] {
        assert!(refused(lines).contains(name), "{lines}: {}", refused(lines));
    }
    job("lockfile=none\nunique_filename=0");
}

#[test]
fn enghelp_lists_the_options_that_only_an_engine_has() {
    use fio_compat::Action;
    let text = |args: &str| match Machine::default().run(args).unwrap().action {
        Action::Print(text) => text,
        other => panic!("{other:?}"),
    };
    assert!(text("--enghelp=pvsync2").contains("hipri_percentage"));
    assert!(!text("--enghelp=io_uring").contains("readfua"));
    assert!(text("--enghelp=io_uring_cmd").contains("readfua"));
    assert!(text("--enghelp=io_uring").contains("force_async"));
    assert!(text("--enghelp=sync").contains("no options of its own"));
}

#[test]
fn flags_of_transfers_are_kept_from_engines_without_them() {
    for (lines, remedy) in [
        ("ioengine=sync\nhipri", "use ioengine=io_uring or remove hipri"),
        ("ioengine=pvsync2\nforce_async=4", "use ioengine=io_uring or remove force_async"),
        ("ioengine=io_uring\nhipri_percentage=4", "use ioengine=pvsync2"),
        ("ioengine=io_uring\nreadfua=1", "use ioengine=io_uring_cmd"),
        ("ioengine=io_uring\nhipri\nnowait=1\ndirect=1", "use ioengine=pvsync2, or remove hipri"),
    ] {
        assert!(refused(lines).contains(remedy), "{lines}: {}", refused(lines));
    }
    let engine = job("ioengine=pvsync2\nhipri\nhipri_percentage=30\nnowait=1\ndirect=1").engine;
    assert_eq!((engine.hipri_percent, engine.nowait, engine.uncached), (30, true, false));
}
