//! Options that nearly every job has, each seen to do what it says.
#![allow(clippy::unwrap_used, reason = "a test; clippy.toml covers only functions marked so")]

mod place;

use std::fs;

use place::{Place, bytes, ios, number};

#[test]
fn directory_is_shared_out_among_clones_and_numjobs_makes_them() {
    let place = Place::new("directory");
    for name in ["a", "b"] {
        fs::create_dir(place.0.join(name)).unwrap();
    }
    let document = place.json("--name=d --directory=a:b --rw=write --size=8k --bs=4k --numjobs=3");
    assert_eq!(document["jobs"].as_array().unwrap().len(), 3);
    assert!(place.0.join("a/d.0.0").exists() && place.0.join("b/d.1.0").exists());
    assert!(place.0.join("a/d.2.0").exists());
    assert!(place.refused("--name=d --directory=nosuch --size=8k").contains("nosuch"));
}

#[test]
fn ioengine_names_all_run_and_iodepth_reaches_the_report() {
    let place = Place::new("engines");
    fs::write(place.0.join("f"), vec![1; 256 << 10]).unwrap();
    for engine in
        "io_uring libaio posixaio raw_uring sync psync vsync pvsync pvsync2 null".split(' ')
    {
        let args = format!("--name=e --filename=f --size=256k --ioengine={engine} --iodepth=8");
        let job = place.job(&args);
        assert_eq!(bytes(&job, "read"), 256 << 10, "{engine}");
        let deep = job["iodepth_level"]["8"].as_f64().unwrap() > 0.0;
        let queues = ["io_uring", "libaio", "posixaio", "raw_uring", "null"].contains(&engine);
        assert_eq!(deep, queues, "{engine}: {}", job["iodepth_level"]);
    }
}

#[test]
fn iodepth_batch_and_its_relatives_change_the_batches() {
    let place = Place::new("batch");
    let common = "--name=b --ioengine=null --size=4m --iodepth=16";
    let submits = |args: &str, key: &str| {
        place.job(&format!("{common} {args}"))["iodepth_submit"][key].as_f64().unwrap()
    };
    assert!(submits("", "4") > 99.0);
    assert!(submits("--iodepth_batch=16 --iodepth_low=1", "16") > 90.0);
    assert!(submits("--iodepth_batch_submit=16 --iodepth_low=1", "16") > 90.0);
    let args = "--iodepth_batch_complete_min=8 --iodepth_batch_complete_max=16";
    let job = place.job(&format!("{common} {args}"));
    assert!(job["iodepth_complete"]["4"].as_f64().unwrap() < 5.0, "{}", job["iodepth_complete"]);
}

#[test]
fn fixedbufs_and_registerfiles_belong_to_the_rings() {
    let place = Place::new("fixed");
    fs::write(place.0.join("f"), vec![1; 64 << 10]).unwrap();
    let common = "--name=f --filename=f --size=64k --iodepth=4";
    for value in ["0", "1"] {
        for engine in ["io_uring", "raw_uring"] {
            let own = format!("--ioengine={engine} --fixedbufs={value} --registerfiles={value}");
            assert_eq!(ios(&place.job(&format!("{common} {own}")), "read"), 16);
        }
    }
    assert!(
        place.refused(&format!("{common} --ioengine=psync --fixedbufs")).contains("no `fixedbufs`")
    );
}

#[test]
fn invalidate_and_direct_and_buffered_read_the_same_bytes() {
    let place = Place::new("cache");
    for args in ["--invalidate=0", "--invalidate=1", "--direct=1", "--buffered=0", "--buffered=1"] {
        let job = place.job(&format!("--name=c --filename=f --size=64k --bs=4k {args}"));
        assert_eq!(ios(&job, "read"), 16, "{args}");
    }
    let refused = place.refused("--name=c --filename=f --size=64k --bs=1000 --direct=1");
    assert!(refused.contains("multiple of 512"), "{refused}");
}

#[test]
fn allow_file_create_forbids_new_files() {
    let place = Place::new("create");
    assert!(place.refused("--name=c --size=4k --allow_file_create=0").contains("forbids"));
    assert_eq!(fs::read_dir(&place.0).unwrap().count(), 0);
}

#[test]
fn new_group_and_stonewall_number_the_groups_and_thread_is_accepted() {
    let place = Place::new("groups");
    let jobs =
        "[global]\nioengine=null\nsize=4k\nthread\n[a]\n[b]\nnew_group\n[c]\nstonewall\n[d]\n";
    fs::write(place.0.join("g.fio"), jobs).unwrap();
    let document = place.json("g.fio");
    let groups = document["jobs"].as_array().unwrap().iter().map(|job| number(&job["groupid"]));
    assert_eq!(groups.collect::<Vec<_>>(), [0, 1, 2, 2]);
}

#[test]
fn showcmd_parse_only_and_effective_run_nothing() {
    let place = Place::new("dry");
    let args = "--name=d --size=64k --rw=write";
    let output = place.run(&format!("{args} --showcmd"));
    assert!(place::text(&output).starts_with("fio --name=d --size=64k --rw=write"));
    assert!(place.run(&format!("{args} --parse-only")).stdout.is_empty());
    let text = place::text(&place.run(&format!("{args} --effective --set=bs=8k")));
    assert!(text.contains("bs=8192,8192,8192 # --set"), "{text}");
    assert!(text.contains("\niodepth=1 # default\n"), "{text}");
    assert_eq!(fs::read_dir(&place.0).unwrap().count(), 0);
}

#[test]
fn strict_fio_runs_what_fio_would_and_warns() {
    let place = Place::new("strict");
    let args = "--name=s --filename=f --size=64kk --bs=4k --rw=write --ioengine=null";
    let told = place.refused(args);
    assert!(told.contains("unknown size suffix `kk`"), "{told}");
    let told = place::text(&place.run(&format!("{args} --strict=fio")));
    assert!(told.contains("`size=64kk` is read as fio reads it: `64kk` is `64k`"), "{told}");
    assert_eq!(ios(&place.job(&format!("{args} --strict=fio")), "write"), 16);
}

/// Bytes that are no text are refused in a line, wherever they stand.
#[test]
fn bytes_that_are_no_utf8_are_refused_in_one_line() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let place = Place::new("bytes");
    std::fs::write(place.0.join("job"), b"[a]\nsize=4k\nfilename=\xff\xfe\n").unwrap();
    let nul = b"[a]\nsize=4k\nioengine=null\nfile\0name=x\n";
    std::fs::write(place.0.join("nul"), nul).unwrap();
    for argument in [b"--filename=\xff".as_slice(), b"job", b"nul", b"\xff\xfe.fio"] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_mfio-bench"))
            .current_dir(&place.0)
            .arg(OsStr::from_bytes(argument))
            .output()
            .unwrap();
        let told = place::text(&output);
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert_eq!((told.lines().count(), told.contains("panicked")), (1, false), "{told}");
    }
}
