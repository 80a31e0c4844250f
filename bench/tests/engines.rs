//! Options of single engines, and the calls that synchronous engines make.
#![allow(clippy::unwrap_used, reason = "a test; clippy.toml covers only functions marked so")]

mod place;

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use place::{Place, ios, number, text};

/// The program's calls on the file `f`, by name; `None` without strace.
fn calls(place: &Place, args: &str) -> Option<Vec<String>> {
    let traced = "trace=read,write,readv,writev,lseek,pread64,pwrite64,preadv,pwritev,preadv2,\
                  pwritev2";
    let output = Command::new("strace")
        .current_dir(&place.0)
        .args(["-f", "-y", "-e", traced, "-o", "trace", env!("CARGO_BIN_EXE_mfio-bench")])
        .args(args.split_whitespace())
        .output();
    if !output.is_ok_and(|output| output.status.success()) {
        writeln!(std::io::stderr().lock(), "skipped: strace cannot be used").unwrap();
        return None;
    }
    let trace = fs::read_to_string(place.0.join("trace")).unwrap();
    let on_file = trace.lines().filter(|line| line.contains("/f>"));
    Some(on_file.map(|line| line.split_once(' ').unwrap().1.trim().to_owned()).collect())
}

#[test]
fn ioengine_sync_vsync_pvsync_and_pvsync2_make_the_calls_of_their_names() {
    let place = Place::new("calls");
    let engines = [
        ("psync", "pread64", "pwrite64"),
        ("sync", "read", "write"),
        ("vsync", "readv", "writev"),
        ("pvsync", "preadv", "pwritev"),
        ("pvsync2", "preadv2", "pwritev2"),
    ];
    place.json("--name=s --filename=f --size=64k --create_only=1");
    for (engine, read, write) in engines {
        for (rw, call) in [("randread", read), ("randwrite", write)] {
            let args = format!("--name=s --filename=f --rw={rw} --size=64k --ioengine={engine}");
            let job = place.job(&format!("{args} --iodepth=4"));
            let direction = &rw[4..];
            assert_eq!(ios(&job, direction), 16, "{engine}");
            assert_eq!(number(&job[direction]["slat_ns"]["N"]), 0, "{engine}");
            let Some(made) = calls(&place, &args) else { continue };
            let of = |name: &str| {
                made.iter().filter(|line| line.starts_with(&format!("{name}("))).count()
            };
            assert_eq!(of(call), 16, "{engine} {rw}: {made:?}");
            // The position is moved only where it has to be.
            let seeks = of("lseek");
            let seeking = ["sync", "vsync"].contains(&engine);
            assert!(if seeking { (8..=16).contains(&seeks) } else { seeks == 0 }, "{made:?}");
        }
    }
}

#[test]
fn ioengine_that_is_not_there_is_named_in_fios_words() {
    let place = Place::new("unknown");
    let told = place.refused("--name=e --size=4k --ioengine=nosuch");
    assert!(told.contains("engine nosuch not loadable, failed to load engine"), "{told}");
    assert!(place.refused("--name=e --size=4k --ioengine=rbd").contains("known to fio"));
    let told = place.refused("--name=e --size=4k --ioengine=mmap");
    assert!(told.contains("engine mmap not loadable") && told.contains("psync"), "{told}");
    let listed = text(&place.run("--enghelp"));
    for engine in ["sync", "psync", "vsync", "pvsync", "pvsync2", "io_uring", "io_uring_cmd"] {
        assert!(listed.contains(&format!("\t{engine}\n")), "{listed}");
    }
    assert!(!listed.contains("mmap"), "{listed}");
}

/// Whether no-ops can be told what to answer: io_uring, and Linux 6.10.
fn has_no_ops(place: &Place) -> bool {
    let run = place.run("--name=p --ioengine=raw_nop --size=4k");
    if !run.status.success() {
        writeln!(std::io::stderr().lock(), "skipped: no no-ops here: {}", text(&run)).unwrap();
    }
    run.status.success()
}

#[test]
fn nop_and_raw_nop_go_through_the_ring_to_no_file() {
    let place = Place::new("nop");
    if !has_no_ops(&place) {
        return;
    }
    for engine in ["nop", "raw_nop"] {
        for rw in ["read", "randwrite"] {
            let common = format!("--name=n --size=4m --rw={rw} --iodepth=16 --ioengine={engine}");
            let job = place.job(&common);
            let direction = rw.strip_prefix("rand").unwrap_or(rw);
            assert_eq!(ios(&job, direction), 1024, "{common}");
            assert!(job["iodepth_level"]["16"].as_f64().unwrap() > 50.0, "{job}");
        }
        assert!(!place.0.join("n.0.0").exists(), "{engine} makes no file");
        let told = place.refused(&format!("--name=n --size=4k --ioengine={engine} --verify=md5"));
        assert!(told.contains("stores data"), "{told}");
    }
}

#[test]
fn hipri_and_hipri_percentage_poll_for_so_many_calls_of_pvsync2() {
    let place = Place::new("hipri");
    place.json("--name=h --filename=f --size=1m --create_only=1");
    let common = "--name=h --filename=f --size=1m --bs=4k --direct=1 --ioengine=pvsync2";
    for (args, few, many) in [
        ("", 0, 0),
        ("--hipri", 256, 256),
        ("--hipri --hipri_percentage=0", 0, 0),
        ("--hipri --hipri_percentage=50", 64, 192),
    ] {
        let args = format!("{common} {args}");
        assert_eq!(ios(&place.job(&args), "read"), 256, "{args}");
        let Some(made) = calls(&place, &args) else { continue };
        let polled = made.iter().filter(|line| line.contains("RWF_HIPRI")).count();
        assert!((few..=many).contains(&polled), "{args}: {polled}");
    }
    let told = place.refused("--name=h --size=4k --ioengine=psync --hipri_percentage=5");
    assert!(told.contains("no `hipri_percentage`") && told.contains("pvsync2"), "{told}");
}

#[test]
fn nowait_ends_with_eagain_what_would_have_to_wait() {
    let place = Place::new("nowait");
    place.json("--name=n --filename=f --size=1m --create_only=1");
    for engine in ["pvsync2", "io_uring", "raw_uring"] {
        let args = format!("--name=n --filename=f --rw=randread --size=1m --ioengine={engine}");
        let output = place.made_to_wait(&format!("{args} --nowait=1 --output-format=json"));
        assert_eq!(output.status.code(), Some(1), "{engine}: {}", text(&output));
        let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(number(&document["jobs"][0]["error"]), 11, "{engine}");
        // As with fio, errors that are no errors let it go on.
        let ignored = format!("{args} --nowait=1 --ignore_error=EAGAIN");
        let passed_over = |_| ios(&place.job(&ignored), "read") < 256;
        assert!((0..50).any(passed_over), "{engine}: nothing had to be waited for");
        let cached = format!("{args} --nowait=1 --pre_read=1");
        assert_eq!(ios(&place.job(&cached), "read"), 256, "{engine}");
    }
    assert!(place.refused("--name=n --size=4k --nowait=1").contains("no `nowait`"));
}

#[test]
fn force_async_sends_transfers_to_workers_of_the_kernel() {
    let place = Place::new("force");
    place.json("--name=a --filename=f --size=64k --create_only=1");
    // Reads of the page cache, which nothing else would send there.
    let workers = |engine: &str, every: u32| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_mfio-bench"))
            .current_dir(&place.0)
            .args("--name=a --filename=f --size=64k --time_based --runtime=700ms".split(' '))
            .args(["--pre_read=1", "--fadvise_hint=0", &format!("--ioengine={engine}")])
            .args(if every > 0 { vec![format!("--force_async={every}")] } else { Vec::new() })
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let tasks = format!("/proc/{}/task", child.id());
        let mut busy_ns = 0;
        let status = loop {
            let found = fs::read_dir(&tasks).into_iter().flatten().flatten();
            let spent_ns = |task: fs::DirEntry| {
                let read = |name: &str| fs::read_to_string(task.path().join(name)).ok();
                let worker = read("comm").is_some_and(|name| name.starts_with("iou-wrk"));
                let spent = read("schedstat").filter(|_| worker)?;
                spent.split(' ').next()?.parse::<u64>().ok()
            };
            busy_ns = busy_ns.max(found.filter_map(spent_ns).sum());
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        };
        assert!(status.success(), "{engine}");
        busy_ns > 5_000_000
    };
    for engine in ["io_uring", "raw_uring"] {
        assert!(!workers(engine, 0), "{engine}");
        assert!(workers(engine, 1), "{engine}");
        assert!(workers(engine, 7), "{engine}");
    }
    let told = place.refused("--name=a --size=4k --ioengine=pvsync2 --force_async=1");
    assert!(told.contains("no `force_async`"), "{told}");
}

/// Whether atomic writes work is for the device to say; all engines must say the same.
#[test]
fn atomic_reaches_the_kernel_by_every_engine_that_has_it() {
    let place = Place::new("atomic");
    place.json("--name=a --filename=f --rw=write --overwrite=1 --size=64k --create_only=1");
    let outcome = |engine: &str| {
        let args = "--name=a --filename=f --rw=randwrite --size=64k --bs=4k --direct=1 --atomic=1";
        let output = place.run(&format!("{args} --ioengine={engine} --output-format=json"));
        let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        number(&document["jobs"][0]["error"])
    };
    let said = ["pvsync2", "io_uring", "raw_uring"].map(outcome);
    assert!([0, 22, 95].contains(&said[0]) && said.iter().all(|one| *one == said[0]), "{said:?}");
    let told = place.refused("--name=a --size=4k --rw=write --ioengine=io_uring --atomic=1");
    assert!(told.contains("only direct I/O can be atomic"), "{told}");
    assert!(place.refused("--name=a --size=4k --rw=write --atomic=1").contains("no `atomic`"));
}

#[test]
fn nonvectored_is_what_reads_and_writes_are_and_0_is_refused() {
    let place = Place::new("nonvectored");
    for value in ["-1", "1"] {
        let args = "--name=v --filename=f --size=64k --ioengine=io_uring";
        assert_eq!(ios(&place.job(&format!("{args} --nonvectored={value}")), "read"), 16);
    }
    let told = place.refused("--name=v --size=64k --ioengine=io_uring --nonvectored=0");
    assert!(told.contains("nonvectored=0"), "{told}");
    assert!(place.refused("--name=v --size=64k --nonvectored=1").contains("no `nonvectored`"));
}

/// What they do is seen where there is a namespace: in the guest.
#[test]
fn cmd_type_readfua_and_writefua_belong_to_io_uring_cmd() {
    let place = Place::new("commands");
    fs::write(place.0.join("f"), [1; 4096]).unwrap();
    let common = "--name=c --filename=f --size=4k";
    let told = place.refused(&format!("{common} --ioengine=io_uring_cmd --cmd_type=scsi"));
    assert!(told.contains("cmd_type=scsi") && told.contains("nvme"), "{told}");
    assert!(place.refused(&format!("{common} --cmd_type=nvme")).contains("no `cmd_type`"));
    for option in ["readfua", "writefua"] {
        let told = place.refused(&format!("{common} --ioengine=io_uring --{option}=1"));
        assert!(
            told.contains(&format!("no `{option}`")) && told.contains("io_uring_cmd"),
            "{told}"
        );
        let told = place.refused(&format!("{common} --ioengine=io_uring_cmd --{option}=1"));
        assert!(told.contains("sends NVMe commands"), "{told}");
    }
    let told = place.refused(&format!("{common} --ioengine=io_uring_cmd --nowait=1"));
    assert!(told.contains("a command has no such flag"), "{told}");
}
