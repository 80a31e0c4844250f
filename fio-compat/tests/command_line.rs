//! Arguments in every spelling getopt_long_only knows, and who wins over whom.
//!
//! Data flow: arguments and files in memory -> `Invocation` -> fields.
//!
//! Not here: complaints (`errors`), the syntax of job files (`job_file`).

mod machine;

use fio_compat::{Action, Eta, Extent, IoEngine, Job, Origin, OutputFormat, Place, Rw};
use machine::Machine;

fn jobs(args: &str) -> Vec<Job> {
    Machine::default().run(args).expect("arguments are valid").jobs
}

#[test]
fn every_spelling_of_an_option_is_understood() {
    for args in [
        "--name=a --rw=randread",
        "--name a --rw randread",
        "-name=a -rw=randread",
        "-name a -rw randread",
        "--name=a --readwrite=randread",
        "--name=a --readw randread",
    ] {
        let jobs = jobs(args);
        assert_eq!((jobs.len(), jobs[0].rw), (1, Rw::RandRead), "{args}");
    }
}

#[test]
fn unique_prefix_is_the_whole_option() {
    assert_eq!(jobs("--name=a --numj=2")[0].numjobs, 2);
    assert!(jobs("--name=a --group")[0].group_reporting);
}

#[test]
fn flag_takes_no_following_argument() {
    let machine = Machine::default().with_file("x.fio", "[x]\n");
    let jobs = machine.run("--name=a --runtime=1 --time_based x.fio").unwrap().jobs;
    assert_eq!((jobs[0].time_based, jobs[1].name.as_str()), (true, "x"));
    let jobs = machine.run("--name=a --runtime=1 --time_based=0").unwrap().jobs;
    assert!(!jobs[0].time_based);
}

#[test]
fn options_before_the_first_name_are_defaults() {
    let jobs = jobs("--bs=8k --name=a --bs=16k --name=b");
    assert_eq!(jobs[0].bs.read_bytes, 16 << 10);
    assert_eq!(jobs[1].bs.read_bytes, 8 << 10);
}

#[test]
fn name_global_adds_defaults_for_later_jobs() {
    let jobs = jobs("--name=a --name=global --bs=8k --name=b");
    assert_eq!((jobs[0].bs.read_bytes, jobs[1].bs.read_bytes), (4096, 8192));
    assert_eq!(jobs.len(), 2);
}

#[test]
fn job_file_wins_over_the_command_line_with_a_warning() {
    let machine = Machine::default().with_file("a.fio", "[global]\nbs=16k\n[a]\n");
    let invocation = machine.run("--bs=8k --iodepth=1 a.fio").unwrap();
    assert_eq!(invocation.jobs[0].bs.read_bytes, 16 << 10);
    assert!(invocation.warnings[0].to_string().starts_with("a.fio:2:1: this `bs` overrides"));
}

#[test]
fn command_line_reaches_only_the_first_file_and_a_wall_precedes_the_second() {
    let machine =
        Machine::default().with_file("a.fio", "[a]\n[a2]\n").with_file("b.fio", "[b]\n[b2]\n");
    let jobs = machine.run("a.fio --bs=8k b.fio").unwrap().jobs;
    let sizes: Vec<u64> = jobs.iter().map(|job| job.bs.read_bytes).collect();
    assert_eq!(sizes, [8192, 8192, 4096, 4096]);
    let groups: Vec<u32> = jobs.iter().map(|job| job.group_id).collect();
    assert_eq!(groups, [0, 0, 1, 1]);
    assert_eq!((jobs[2].stonewall, jobs[3].stonewall), (true, false));
}

#[test]
fn stonewall_of_the_first_job_starts_no_second_group() {
    let jobs = jobs("--stonewall --name=a --name=b --name=c --stonewall=0 --new_group");
    assert_eq!(jobs.iter().map(|job| job.group_id).collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn section_filter_keeps_only_named_jobs() {
    let machine = Machine::default().with_file("a.fio", "[global]\nbs=8k\n[x]\n[y]\n");
    let jobs = machine.run("--section=y a.fio").unwrap().jobs;
    assert_eq!((jobs.len(), jobs[0].name.as_str(), jobs[0].bs.read_bytes), (1, "y", 8192));
}

#[test]
fn program_options_are_collected() {
    let args = "--output-format=normal,json -o out.json --eta=never --eta-newline=5 \
                --eta-interval=500ms --parse-only --showcmd --max-jobs=16 --name=a";
    let invocation = Machine::default().run(args).unwrap();
    assert_eq!(invocation.formats, [OutputFormat::Json, OutputFormat::Normal]);
    assert_eq!(invocation.output.as_deref(), Some("out.json"));
    assert_eq!((invocation.eta, invocation.eta_interval_ns), (Eta::Never, 500_000_000));
    assert_eq!(invocation.eta_newline_ns, Some(5_000_000_000));
    assert!(invocation.parse_only && invocation.showcmd && !invocation.readonly);
    assert_eq!(Machine::default().run("-v").unwrap().action, Action::Version);
    assert_eq!(Machine::default().run("--help").unwrap().action, Action::Help);
}

#[test]
fn limits_of_fios_memory_are_ignored_and_each_says_so_once() {
    let args = "--max-jobs=16 --alloc-size=65536 --max-jobs 32 --name=a --size=1m";
    let warnings = Machine::default().run(args).unwrap().warnings;
    let told: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].contains("`max-jobs` is ignored"), "{told:?}");
    assert!(told[1].contains("`alloc-size` is ignored"), "{told:?}");
}

#[test]
fn no_arguments_mean_no_jobs() {
    let invocation = Machine::default().run("").unwrap();
    assert_eq!((invocation.jobs.len(), invocation.action), (0, Action::Run));
}

#[test]
fn double_dash_ends_the_options() {
    let machine = Machine::default().with_file("--rw", "[x]\n");
    assert_eq!(machine.run("-- --rw").unwrap().jobs[0].name, "x");
}

#[test]
fn job_options_keep_canonical_names_and_the_text_as_written() {
    let args = "--runtime=9 --name=a --blocksize=4K --time_based --bs=8k --group_reporting=1";
    let invocation = Machine::default().run(args).unwrap();
    let pairs = |list: &[(String, String)]| -> Vec<String> {
        list.iter().map(|(name, text)| format!("{name}={text}")).collect()
    };
    assert_eq!(pairs(&invocation.global_options), ["runtime=9"]);
    let own = pairs(&invocation.jobs[0].job_options);
    assert_eq!(own, ["name=a", "bs=8k", "time_based=", "group_reporting=1"]);
    assert_eq!(
        invocation.show_command(),
        "fio --runtime=9 --name=a --bs=8k --time_based --group_reporting=1"
    );
}

#[test]
fn depth_without_engine_means_io_uring_and_is_said_once() {
    let invocation = Machine::default().run("--iodepth=32 --name=a --name=b").unwrap();
    assert_eq!(invocation.warnings.len(), 1, "{:?}", invocation.warnings);
    for job in &invocation.jobs {
        assert_eq!(
            (job.ioengine, job.ioengine_requested.as_str()),
            (IoEngine::IoUring, "io_uring")
        );
        assert!(job.fixedbufs && job.registerfiles);
    }
    let job = &jobs("--name=a")[0];
    assert_eq!((job.ioengine, job.iodepth, job.fixedbufs), (IoEngine::Psync, 1, false));
}

#[test]
fn engine_names_map_to_ours_and_are_kept() {
    for (name, engine) in [
        ("libaio", IoEngine::IoUring),
        ("posixaio", IoEngine::IoUring),
        ("io_uring", IoEngine::IoUring),
        ("raw_uring", IoEngine::RawUring),
        ("sync", IoEngine::Psync),
        ("vsync", IoEngine::Psync),
        ("pvsync", IoEngine::Psync),
        ("pvsync2", IoEngine::Psync),
        ("null", IoEngine::Null),
        ("nop", IoEngine::Nop),
        ("raw_nop", IoEngine::RawNop),
    ] {
        let job = &jobs(&format!("--name=a --ioengine={name}"))[0];
        assert_eq!((job.ioengine, job.ioengine_requested.as_str()), (engine, name));
        assert_eq!(engine.moves_data(), !["null", "nop", "raw_nop"].contains(&name));
    }
}

#[test]
fn synchronous_engine_with_depth_warns() {
    let invocation = Machine::default().run("--name=a --ioengine=psync --iodepth=8").unwrap();
    assert!(invocation.warnings[0].message.contains("runs at depth 1"));
    assert_eq!(invocation.jobs[0].ioengine, IoEngine::Psync);
}

#[test]
fn batch_sizes_follow_the_depth() {
    let job = &jobs("--name=a --ioengine=io_uring --iodepth=8")[0];
    let batches = |job: &Job| {
        let (min, max) = (job.iodepth_batch_complete_min, job.iodepth_batch_complete_max);
        (job.iodepth_batch, min, max, job.iodepth_low)
    };
    assert_eq!(batches(job), (1, 1, 1, 8));
    let args = "--name=a --ioengine=io_uring --iodepth=8 --iodepth_batch=0 \
                --iodepth_batch_complete_min=4 --iodepth_low=2";
    assert_eq!(batches(&jobs(args)[0]), (8, 4, 4, 2));
    let args = "--name=a --ioengine=io_uring --iodepth=8 --iodepth_batch_complete=0 \
                --iodepth_batch_complete_max=16 --iodepth_low=99";
    assert_eq!(batches(&jobs(args)[0]), (1, 0, 8, 8));
}

#[test]
fn validated_job_stays_as_it_is_when_validated_again() {
    let mut job = jobs("--name=a --iodepth=8 --time_based --runtime=1").remove(0);
    let before = job.clone();
    job.validate(4).unwrap();
    assert_eq!(job, before);
}

#[test]
fn time_based_without_runtime_is_cleared_with_a_warning() {
    let invocation = Machine::default().run("--name=a --time_based").unwrap();
    assert!(!invocation.jobs[0].time_based);
    assert!(invocation.warnings[0].message.contains("without runtime"));
}

#[test]
fn typed_fields_carry_what_was_written() {
    let args = "--name=a --size=50% --io_limit=1g --offset=4k --bs=4k,8k --rw=randrw \
                --rwmixwrite=30 --filename=/dev/a\\:1:/dev/b --ramp_time=1.5 --timeout=10min \
                --cpus_allowed=0-1,3 --verify=crc32c --fdatasync=1 --buffered=0 --number_ios=7 \
                --percentile_list=99.9:50 --gtod_reduce=1 --disable_clat=0";
    let job = &jobs(args)[0];
    assert_eq!((job.size, job.io_size), (Some(Extent::Percent(50)), Some(Extent::Bytes(1 << 30))));
    assert_eq!(job.offset, Extent::Bytes(4096));
    let job = &jobs("--io_size=1g --name=a --size=1m --io_size=0")[0];
    assert_eq!(job.io_size, None, "0 is as if it were not given");
    let job = &jobs(args)[0];
    assert_eq!((job.bs.read_bytes, job.bs.write_bytes, job.bs.trim_bytes), (4096, 8192, 8192));
    assert_eq!((job.rwmixread_percent, job.direct, job.fdatasync), (70, true, 1));
    assert_eq!(job.filenames, ["/dev/a:1", "/dev/b"]);
    assert_eq!((job.ramp_time_ns, job.runtime_ns), (1_500_000_000, Some(600_000_000_000)));
    assert_eq!((job.cpus_allowed.as_slice(), job.number_ios), ([0, 1, 3].as_slice(), Some(7)));
    assert_eq!(job.percentile_list, [50.0, 99.9]);
    assert!(job.disable_lat && job.disable_slat && job.disable_bw_measurement);
    assert!(!job.disable_clat);
}

#[test]
fn effective_configuration_tells_set_from_default() {
    let machine = Machine::default().with_file("a.fio", "[a]\n  runtime=90m\n");
    let settings = machine.run("--bs=4k a.fio").unwrap().jobs[0].effective();
    let find = |name| settings.iter().find(|setting| setting.option == name).unwrap();
    assert_eq!(find("bs").value, "4096,4096,4096");
    assert_eq!(find("bs").origin, Origin::Set(Place::CommandLine { argument: 1 }));
    assert_eq!(find("runtime").value, "5400s");
    let place = Place::File { label: "a.fio".to_owned(), line: 2, column: 3 };
    assert_eq!(find("runtime").origin, Origin::Set(place));
    assert_eq!(find("direct").origin, Origin::Default);
}

#[test]
fn option_set_through_another_one_names_its_place() {
    let settings = jobs("--name=a --buffered=0 --gtod_reduce=1")[0].effective();
    let origin = |name| &settings.iter().find(|setting| setting.option == name).unwrap().origin;
    assert_eq!(*origin("direct"), Origin::Set(Place::CommandLine { argument: 2 }));
    assert_eq!(*origin("disable_clat"), Origin::Set(Place::CommandLine { argument: 3 }));
    assert_eq!(*origin("rw"), Origin::Default);
}

#[test]
fn size_with_iec_suffix_is_decimal_and_warned_about() {
    let invocation = Machine::default().run("--name=a --bs=4KiB").unwrap();
    assert_eq!(invocation.jobs[0].bs.read_bytes, 4000);
    assert!(invocation.warnings[0].message.starts_with("`bs=4KiB` means 4000 bytes"));
}

#[test]
fn option_without_effect_is_accepted_with_a_warning() {
    let invocation = Machine::default().run("--name=a --threads=4 --userspace_reap").unwrap();
    let messages: Vec<&str> = invocation.warnings.iter().map(|w| w.message.as_str()).collect();
    assert!(messages[0].starts_with("`threads` is ignored"), "{messages:?}");
    assert!(messages[1].starts_with("`userspace_reap` is ignored"), "{messages:?}");
}

#[test]
fn help_lists_every_option_on_one_line() {
    let help = fio_compat::option_help();
    assert!(help.lines().any(|line| line.trim_start().starts_with("iodepth ")));
    assert!(help.lines().all(|line| line.len() <= 100));
    // Under headings: an option is indented, and each heading has some.
    let blocks: Vec<&str> = help.split("\n\n").collect();
    assert!(blocks.len() > 10, "{help}");
    for block in blocks {
        let mut lines = block.trim().lines();
        assert!(lines.next().is_some_and(|line| line.ends_with(':')), "{block}");
        assert!(lines.clone().count() > 0 && lines.all(|line| line.starts_with("  ")), "{block}");
    }
}
