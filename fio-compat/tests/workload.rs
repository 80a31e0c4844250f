//! Options of the workload as text: what is accepted, what it sets, what is refused and how.
//!
//! Data flow: job text -> `Job` -> fields and the effective configuration.
//!
//! Not here: what the bench does with them (its own tests).
#![allow(clippy::unwrap_used, reason = "a test; clippy.toml covers only functions marked so")]

mod machine;

use fio_compat::{Action, Distribution, Invocation, Job, Sequencer};
use machine::Machine;

fn job(lines: &str) -> Job {
    Machine::file(&format!("[a]\nsize=1m\n{lines}\n")).unwrap().jobs.remove(0)
}

fn refused(lines: &str) -> String {
    Machine::file(&format!("[a]\nsize=1m\n{lines}\n")).unwrap_err().to_string()
}

fn shown(job: &Job, option: &str) -> String {
    let all = job.effective();
    all.into_iter().find(|setting| setting.option == option).unwrap().value
}

#[test]
fn rw_takes_a_number_behind_every_direction() {
    for (text, number) in [("randread:8", 8), ("read:8k", 8192), ("write:-4k", -4096)] {
        let job = job(&format!("rw={text}"));
        assert_eq!(job.workload.rw_number, Some(number), "{text}");
    }
    let job = job("rw=randtrimwrite\nbs=4k,8k,16k\nrw_sequencer=identical");
    assert_eq!(job.workload.rw_sequencer, Sequencer::Identical);
    assert_eq!((job.bs.write_bytes, job.rw.trims(), job.rw.writes_data()), (16384, true, true));
    assert!(refused("rw=randread:-8").contains("must be positive"));
    assert!(refused("rw=randreed:8").contains("did you mean randread?"));
}

#[test]
fn rwmixread_and_rwmixwrite_are_each_others_rest() {
    assert_eq!(shown(&job("rwmixread=30"), "rwmixwrite"), "70");
    assert_eq!(shown(&job("rwmixread=30\nrwmixwrite=10"), "rwmixread"), "90");
    assert!(refused("rwmixread=101").contains("from 0 to 100"));
}

#[test]
fn bssplit_bsrange_and_blockalign_have_values_by_direction() {
    let split = job("bssplit=4k/50:8k/,16k/100");
    assert_eq!(split.block_range(0), (4096, 8192));
    assert_eq!(split.block_range(2), (16384, 16384));
    assert_eq!(job("bsrange=4k-16k,8k:32k").block_range(1), (8192, 32768));
    assert_eq!(job("bsrange=4k-16k\nbs=8k").block_range(0), (8192, 8192));
    assert_eq!(shown(&job("ba=512,1k"), "blockalign"), "512,1024,1024");
    assert!(refused("bssplit=4k/60:8k/60").contains("add up to 120"));
    assert!(refused("bsrange=0-4k").contains("0 bytes"));
}

/// fio's own job files hold such a line; it is honoured as fio does, and said.
#[test]
fn bsrange_written_like_a_bssplit_takes_two_sizes_and_warns() {
    let invocation = Machine::file("[a]\nsize=1m\nbsrange=512/30:2k/:8k/70,1k-2k\n").unwrap();
    assert_eq!(invocation.jobs[0].block_range(0), (512, 2048));
    assert_eq!(invocation.jobs[0].block_range(1), (1024, 2048));
    let [warning] = invocation.warnings.as_slice() else { panic!("{:?}", invocation.warnings) };
    assert!(warning.to_string().contains("looks like a bssplit"), "{warning}");
    assert!(refused("bsrange=512x-1k").contains("bsrange"));
}

#[test]
fn random_distribution_zoned_shares_the_lengths_left_out() {
    let lengths =
        |text: &str| match job(&format!("random_distribution={text}")).workload.distribution[0]
            .clone()
        {
            Distribution::Zoned(zones) => zones.iter().map(|zone| zone.length).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        };
    assert_eq!(lengths("zoned:70/10:20/25:10/"), [10, 25, 65]);
    assert_eq!(lengths("zoned:70/10:20:10/"), [10, 45, 45]);
    assert!(refused("random_distribution=zoned_abs:70/1m:30/").contains("access/length"));
    assert!(refused("random_distribution=zoned:50/10:50/20").contains("add up to 30"));
}

#[test]
fn random_distribution_takes_parameters_centers_and_zones() {
    let of =
        |text: &str| job(&format!("random_distribution={text}")).workload.distribution[0].clone();
    assert_eq!(of("zipf:1.2:0.25"), Distribution::Zipf { theta: 1.2, center: Some(0.25) });
    assert_eq!(of("pareto:0.9"), Distribution::Pareto { h: 0.9, center: None });
    assert!(matches!(of("zoned:50/5:30/15:20/80"), Distribution::Zoned(zones) if zones.len() == 3));
    assert!(matches!(of("zoned_abs:50/4k:50/1m"), Distribution::ZonedAbs(_)));
    for text in ["zipf:1", "pareto:1", "zoned:50/5:30/15", "zoned:50/5:50/5", "zipf:1.1:2", "gauss"]
    {
        assert!(!refused(&format!("random_distribution={text}")).is_empty());
    }
}

#[test]
fn zonemode_zonesize_zonerange_and_zoneskip_belong_together() {
    let zones = job("zonemode=strided\nzonesize=8k\nzoneskip=24k").workload.strided.unwrap();
    assert_eq!((zones.size_bytes, zones.range_bytes, zones.skip_bytes), (8192, 8192, 24576));
    assert!(refused("zonemode=strided").contains("needs a zonesize"));
    assert!(refused("zonemode=zbd").contains("not supported"));
}

#[test]
fn allrandrepeat_openfiles_and_buffered_set_what_they_say() {
    assert!(!job("allrandrepeat=0").randrepeat);
    assert!(refused("nrfiles=4\nopenfiles=2").contains("all files of a job are kept open"));
    assert!(job("buffered=0").direct && !job("direct=1\nbuffered=1").direct);
}

#[test]
fn rate_and_thinktime_have_their_units() {
    let pace =
        job("rate=1m,500k\nthinktime=20\nthinktime_iotime=2\nthinktime_blocks_type=issue").pace;
    assert_eq!((pace.rate, pace.thinktime_ns), ([1 << 20, 512_000, 512_000], 20_000));
    assert_eq!(pace.thinktime_iotime_ns, 2_000_000_000);
    assert!(refused("rate=1m\nrate_iops=5").contains("exclude each other"));
    assert!(refused("rate=1m\nrate_min=2m").contains("above rate"));
    assert!(refused("rate=1m\nrw=write\nverify=md5\nverify_backlog=4").contains("do not go with"));
    assert!(refused("fsync=1\nfdatasync=1").contains("exclude one another"));
    assert!(refused("rate_process=later").contains("linear, poisson"));
}

#[test]
fn buffer_compress_chunk_and_error_dump_and_exitall_on_error_are_shown() {
    let job =
        job("buffer_compress_chunk=4k\nerror_dump=1\nexitall_on_error\nignore_error=EIO,,EILSEQ");
    assert_eq!(shown(&job, "buffer_compress_chunk"), "4096");
    assert_eq!(
        (shown(&job, "error_dump"), shown(&job, "ignore_error")),
        ("1".into(), "5,,84".into())
    );
    assert!(job.control.exitall_on_error);
    assert!(refused("ignore_error=EWHAT").contains("no errno known"));
}

#[test]
fn set_wins_over_the_job_file() {
    let machine = || Machine::default().with_file("a.fio", "[a]\nsize=1m\nbs=8k\n[b]\nsize=2m\n");
    let invocation = machine().run("--set bs=16k --bs=4k a.fio --set=iodepth=1").unwrap();
    assert!(invocation.jobs.iter().all(|job| job.bs.read_bytes == 16384));
    assert_eq!(invocation.jobs[1].job_options.last().unwrap(), &("iodepth".into(), "1".into()));
    let told = machine().run("--set nosuch=1 a.fio").unwrap_err().to_string();
    assert!(told.contains("unknown option `nosuch`"), "{told}");
    assert!(machine().run("--set bs a.fio").unwrap_err().to_string().contains("OPTION=VALUE"));
}

#[test]
fn cmdhelp_and_enghelp_print_and_run_nothing() {
    let text = |args: &str| match Machine::default().run(args).unwrap() {
        Invocation { action: Action::Print(text), .. } => text,
        other => panic!("{other:?}"),
    };
    assert!(text("--cmdhelp=blocksize").contains("bs: block size for read,write,trim"));
    assert!(text("--cmdhelp").lines().count() > 100);
    assert!(text("--cmdhelp=bssplit").contains("type: SIZE/PERCENT:"));
    assert!(text("--cmdhelp=bssplit").contains("default: no default"));
    assert!(text("--cmdhelp=bssplit").contains("such as: 4k/60:64k/40"));
    assert!(text("--enghelp").contains("\tio_uring\n"));
    assert!(text("--enghelp=libaio").contains("fixedbufs"));
    assert!(
        Machine::default().run("--cmdhelp=bz").unwrap_err().to_string().contains("did you mean")
    );
}

#[test]
fn readonly_refuses_trims_and_section_picks_jobs() {
    let machine = || Machine::default().with_file("a.fio", "[a]\nsize=1m\nrw=trim\n[b]\nsize=1m\n");
    let told = machine().run("--readonly a.fio").unwrap_err().to_string();
    assert!(told.contains("not allowed with the --readonly"), "{told}");
    let invocation = machine().run("--readonly --section=b a.fio").unwrap();
    assert_eq!(invocation.jobs.len(), 1);
    assert!(invocation.show_effective().contains("\nrw=read # default\n"));
}
