//! Options about how files are made, opened and left behind, each by what it leaves on disk or
//! in the page cache.
#![allow(clippy::unwrap_used, reason = "a test; clippy.toml covers only functions marked so")]

mod place;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use place::{Place, bytes, ios, number, text};

/// Whether any of the file is not on disk yet; `None` where nobody can say.
fn has_unwritten(path: &Path) -> Option<bool> {
    let output = Command::new("filefrag").arg("-v").arg(path).output().ok()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then(|| said.contains("delalloc") || said.contains("unwritten"))
}

fn skipped(why: &str) {
    writeln!(std::io::stderr().lock(), "skipped: {why}").unwrap();
}

#[test]
fn fallocate_gives_space_and_length_as_it_says() {
    let place = Place::new("fallocate");
    let modes = [
        ("native", true, true),
        ("posix", true, true),
        ("1", true, true),
        ("keep", false, true),
        ("truncate", true, false),
        ("none", false, false),
        ("0", false, false),
    ];
    for (mode, length, space) in modes {
        place.json(&format!(
            "--name=f --filename=f --rw=write --size=1m --create_only=1 --fallocate={mode}"
        ));
        let facts = place.0.join("f").metadata().unwrap();
        assert_eq!(facts.len(), if length { 1 << 20 } else { 0 }, "{mode}");
        assert_eq!(facts.blocks() >= 2048, space, "{mode}: {} blocks", facts.blocks());
        fs::remove_file(place.0.join("f")).unwrap();
        let job =
            place.job(&format!("--name=f --filename=f --rw=write --size=1m --fallocate={mode}"));
        assert_eq!(bytes(&job, "write"), 1 << 20, "{mode}");
        fs::remove_file(place.0.join("f")).unwrap();
    }
    assert!(place.refused("--name=f --size=1m --fallocate=later").contains("keep, truncate"));
}

#[test]
fn create_only_lays_out_and_does_no_io() {
    let place = Place::new("only");
    let job = place.job("--name=c --filename=f --rw=randread --size=64k --create_only=1");
    assert_eq!((ios(&job, "read"), number(&job["error"])), (0, 0));
    let data = fs::read(place.0.join("f")).unwrap();
    assert_eq!(data.len(), 64 << 10);
    assert!(data.chunks(4096).all(|block| block.iter().any(|byte| *byte != 0)));
    // A job beside it runs.
    let document =
        place.json("--name=a --size=64k --create_only=1 --name=b --size=64k --filename=f");
    let done = document["jobs"].as_array().unwrap().iter().map(|job| ios(job, "read"));
    assert_eq!(done.collect::<Vec<_>>(), [0, 16]);
}

#[test]
fn create_on_open_makes_files_empty() {
    let place = Place::new("on-open");
    for engine in ["psync", "io_uring"] {
        let args = "--name=c --filename=f --rw=write --size=64k --bs=4k --number_ios=2";
        let output = place.run(&format!("{args} --ioengine={engine} --create_on_open=1"));
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        assert!(!text(&output).contains("Laying out"), "{}", text(&output));
        assert_eq!(place.0.join("f").metadata().unwrap().len(), 8192, "{engine}");
        fs::remove_file(place.0.join("f")).unwrap();
    }
    // There is nothing to be read, which fails as it does with fio.
    let output = place.run("--name=c --filename=f --size=64k --create_on_open=1");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
}

/// When the three files were made, and when each was written to last.
fn times(place: &Place, serialize: u8) -> [(SystemTime, SystemTime); 3] {
    place.json(&format!(
        "--name=c --numjobs=3 --size=32m --create_only=1 --create_serialize={serialize}"
    ));
    [0, 1, 2].map(|clone| {
        let path = place.0.join(format!("c.{clone}.0"));
        let facts = path.metadata().unwrap();
        assert_eq!(facts.len(), 32 << 20);
        fs::remove_file(path).unwrap();
        (facts.created().unwrap(), facts.modified().unwrap())
    })
}

#[test]
fn create_serialize_lays_out_one_after_the_other_or_all_at_once() {
    let place = Place::new("serialize");
    let [first, second, third] = times(&place, 1);
    assert!(first.1 <= second.0 && second.1 <= third.0, "{first:?} {second:?} {third:?}");
    let together = || {
        let all = times(&place, 0);
        let begun = all.iter().map(|(made, _)| *made).max().unwrap();
        all.iter().all(|(_, written)| begun < *written)
    };
    assert!((0..10).any(|_| together()), "no two layouts overlap");
}

#[test]
fn create_fsync_leaves_nothing_unwritten() {
    let place = Place::new("create-fsync");
    let unwritten = |fsync: u8| {
        let args = "--name=c --filename=f --size=4m --create_only=1 --fallocate=none";
        place.json(&format!("{args} --create_fsync={fsync}"));
        let found = has_unwritten(&place.0.join("f"));
        fs::remove_file(place.0.join("f")).unwrap();
        found
    };
    match unwritten(0) {
        Some(true) => assert_eq!(unwritten(1), Some(false)),
        found => skipped(&format!("delayed writes cannot be seen here: {found:?}")),
    }
}

#[test]
fn overwrite_fills_what_is_only_written() {
    let place = Place::new("overwrite");
    for overwrite in [false, true] {
        let args = "--name=o --filename=f --rw=write --size=256k --create_only=1";
        place.json(&format!("{args} --overwrite={}", u8::from(overwrite)));
        let data = fs::read(place.0.join("f")).unwrap();
        assert_eq!(data.len(), 256 << 10);
        assert_eq!(data.iter().any(|byte| *byte != 0), overwrite);
        fs::remove_file(place.0.join("f")).unwrap();
    }
}

#[test]
fn unlink_each_loop_gives_each_loop_a_new_file() {
    let place = Place::new("each-loop");
    for engine in ["psync", "io_uring", "raw_uring"] {
        let path = place.0.join("f");
        let mut child = Command::new(env!("CARGO_BIN_EXE_mfio-bench"))
            .current_dir(&place.0)
            .args("--name=u --filename=f --rw=write --size=16k --bs=4k --loops=3".split(' '))
            .args("--unlink_each_loop=1 --thinktime=40ms --output-format=json".split(' '))
            .args([&format!("--ioengine={engine}"), "--output=report"])
            .spawn()
            .unwrap();
        let mut inodes = Vec::new();
        let status = loop {
            if let Ok(facts) = path.metadata()
                && !inodes.contains(&facts.ino())
            {
                inodes.push(facts.ino());
            }
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        };
        let report = fs::read_to_string(place.0.join("report")).unwrap();
        assert!(status.success(), "{engine}: {report}");
        let document: serde_json::Value = serde_json::from_str(&report).unwrap();
        assert_eq!(ios(&document["jobs"][0], "write"), 12, "{engine}");
        assert!(inodes.len() >= 2, "{engine}: {inodes:?}");
        assert!(!path.exists(), "{engine}");
    }
    let told = place.refused("--name=u --size=4k --loops=2 --unlink_each_loop=1");
    assert!(told.contains("finds nothing after unlink_each_loop"), "{told}");
}

#[test]
fn pre_read_fills_the_page_cache_before_the_job() {
    let place = Place::new("pre-read");
    let args = "--name=p --filename=f --rw=randread --size=1m --ioengine=pvsync2 --nowait=1";
    place.json(&format!("{args} --create_only=1"));
    let output = place.made_to_wait(args);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert_eq!(ios(&place.job(&format!("{args} --pre_read=1")), "read"), 256);
    let told = place.refused("--name=p --size=4k --pre_read=1 --direct=1");
    assert!(told.contains("passes by"), "{told}");
}

#[test]
fn file_append_begins_at_the_end() {
    let place = Place::new("append");
    for engine in ["psync", "io_uring"] {
        fs::write(place.0.join("f"), [7; 16 << 10]).unwrap();
        let args = "--name=a --filename=f --rw=write --size=8k --file_append=1";
        let job = place.job(&format!("{args} --ioengine={engine}"));
        assert_eq!(bytes(&job, "write"), 8192);
        let data = fs::read(place.0.join("f")).unwrap();
        assert_eq!(data.len(), 24 << 10);
        assert!(data[..16 << 10].iter().all(|byte| *byte == 7), "{engine}");
        assert!(data[16 << 10..].iter().any(|byte| *byte != 7), "{engine}");
    }
    let told = place.refused("--name=a --filename=f --rw=write --file_append=1");
    assert!(told.contains("give size=BYTES"), "{told}");
}

#[test]
fn end_syncfs_writes_the_file_system_out() {
    let place = Place::new("syncfs");
    let other = place.0.join("other");
    for engine in ["psync", "io_uring", "null"] {
        let common = format!("--name=s --filename=f --rw=write --size=64k --ioengine={engine}");
        let syncs =
            |args: &str| number(&place.job(&format!("{common} {args}"))["sync"]["total_ios"]);
        let real = u64::from(engine != "null");
        assert_eq!(syncs(""), 0);
        File::create(&other).unwrap().write_all(&[1; 1 << 20]).unwrap();
        let before = has_unwritten(&other);
        assert_eq!(syncs("--end_syncfs=1"), real, "{engine}");
        match before {
            Some(true) if real == 1 => assert_eq!(has_unwritten(&other), Some(false), "{engine}"),
            _ => skipped(&format!("{engine}: nothing was seen to be unwritten: {before:?}")),
        }
        assert_eq!(syncs("--end_syncfs=1 --end_fsync=1"), real + 1, "{engine}");
        fs::remove_file(&other).unwrap();
    }
}

#[test]
fn write_barrier_is_said_to_do_nothing_as_it_does_with_fio() {
    let place = Place::new("barrier");
    let args = "--name=b --filename=f --rw=write --size=64k --write_barrier=4";
    let output = place.run(args);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output).contains("`write_barrier` is ignored"), "{}", text(&output));
    let job = place.job(args);
    assert_eq!((ios(&job, "write"), number(&job["sync"]["total_ios"])), (16, 0));
}

/// How many pages of the file are in the page cache; `None`, and a word on why, where nobody
/// can say.
fn cached_pages(path: &Path) -> Option<usize> {
    let output = Command::new("fincore").args(["-n", "-o", "PAGES"]).arg(path).output();
    let said = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let pages = said.ok()?.parse().ok();
    if pages.is_none() {
        skipped("fincore cannot be used");
    }
    pages
}

#[test]
fn fadvise_hint_decides_what_is_read_ahead() {
    let place = Place::new("fadvise");
    let path = place.0.join("f");
    place.json("--name=a --filename=f --size=4m --create_only=1");
    for engine in ["psync", "io_uring", "raw_uring"] {
        let cached = |args: &str| {
            let args = format!("--name=a --filename=f --size=4m --number_ios=4 --bs=4k {args}");
            place.json(&format!("{args} --ioengine={engine}"));
            cached_pages(&path)
        };
        if cached("--rw=read").is_none() {
            return;
        }
        let cached = |args: &str| cached(args).unwrap();
        let few = cached("--rw=read --fadvise_hint=random");
        assert_eq!(few, 4, "{engine}");
        assert!(cached("--rw=read --fadvise_hint=sequential") > 4, "{engine}");
        assert!(cached("--rw=read") > 4, "{engine}");
        // The engine may look at the first block itself.
        assert!((4..=5).contains(&cached("--rw=randread")), "{engine}");
    }
    assert!(place.refused("--name=a --size=4k --fadvise_hint=maybe").contains("sequential"));
}

#[test]
fn uncached_leaves_nothing_in_the_page_cache() {
    let place = Place::new("uncached");
    let path = place.0.join("f");
    place.json("--name=u --filename=f --size=1m --create_only=1");
    for engine in ["pvsync2", "io_uring", "raw_uring"] {
        let args = format!("--name=u --filename=f --size=1m --bs=64k --ioengine={engine}");
        let kept = || {
            place.json(&args);
            cached_pages(&path)
        };
        if kept().is_none() {
            return;
        }
        // Who reclaims memory meanwhile may take some of it.
        assert!((0..50).any(|_| kept() == Some(256)), "{engine}");
        let output = place.run(&format!("{args} --uncached=1"));
        if output.status.code() == Some(1) && text(&output).contains("not supported") {
            skipped(&format!("{engine}: no RWF_DONTCACHE here: {}", text(&output)));
            continue;
        }
        assert_eq!(output.status.code(), Some(0), "{engine}: {}", text(&output));
        let left = cached_pages(&path).unwrap();
        assert!(left < 64, "{engine}: {left} pages");
    }
    let told = place.refused("--name=u --size=4k --ioengine=io_uring --uncached=1 --direct=1");
    assert!(told.contains("passes by"), "{told}");
}

#[test]
fn filename_format_makes_the_directories_in_it() {
    let place = Place::new("format");
    let args = "--name=f --rw=write --size=8k --nrfiles=2 --bs=4k";
    place.json(&format!("{args} --filename_format=a/$jobnum/f.$filenum"));
    assert!(place.0.join("a/0/f.0").exists() && place.0.join("a/0/f.1").exists());
    place.json(&format!("{args} --create_on_open=1 --filename_format=b/$jobname.$filenum"));
    assert!(place.0.join("b/f.0").exists());
}

#[test]
fn exec_prerun_and_exec_postrun_stand_around_the_job() {
    let place = Place::new("exec");
    let output = Command::new(env!("CARGO_BIN_EXE_mfio-bench"))
        .current_dir(&place.0)
        .args(["--name=e", "--filename=f", "--rw=write", "--size=4k", "--fallocate=none"])
        .args(["--exec_prerun=wc -c f", "--exec_postrun=wc -c f; echo err >&2"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let said = |name: &str| fs::read_to_string(place.0.join(name)).unwrap();
    assert_eq!(said("e.prerun.txt"), "0 f\n");
    assert_eq!(said("e.postrun.txt"), "4096 f\nerr\n");
    let output = place.run("--name=e --filename=f --size=4k --exec_prerun=false");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("exec_prerun=`false` ended with"), "{}", text(&output));
}

/// The figures are those of fio 3.33.
#[test]
fn filesize_size_and_io_size_together_give_fios_amounts() {
    let place = Place::new("amounts");
    let count = |args: &str, direction: &str| {
        let job = place.job(&format!("--name=a --bs=4k {args}"));
        for entry in fs::read_dir(&place.0).unwrap().flatten() {
            if entry.file_name() != "g" {
                fs::remove_file(entry.path()).unwrap();
            }
        }
        ios(&job, direction)
    };
    fs::write(place.0.join("g"), vec![1; 100 << 10]).unwrap();
    assert_eq!(count("--filename=g --size=30%", "read"), 7);
    assert_eq!(count("--filename=g --size=50% --io_size=50%", "read"), 6);
    assert_eq!(count("--filename=g --io_size=50%", "read"), 13);
    assert_eq!(count("--filename=g --size=40k --io_size=50%", "read"), 5);
    assert_eq!(count("--rw=write --filesize=16k --nrfiles=2 --size=8k", "write"), 2);
    assert_eq!(count("--rw=write --filesize=16k --filename=x --size=64k", "write"), 4);
    assert_eq!(count("--rw=write --filesize=8k-64k --nrfiles=4 --size=32k", "write"), 8);
    let drawn = count("--rw=write --filesize=8k-64k --nrfiles=4", "write");
    assert!((8..=64).contains(&drawn), "{drawn}");
}
