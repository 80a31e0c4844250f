//! How numbers are read: exactly or not at all, unless `--strict=fio` asks for fio's way.
//!
//! Data flow: command line -> jobs, warnings or one line of complaint.
//!
//! Not here: what fio makes of a single number (`options::lenient`).

mod machine;

use fio_compat::Extent;
use machine::Machine;

/// What `--effective` says of an option.
fn shown(machine: &Machine, args: &str, option: &str) -> String {
    let invocation = machine.run(args).expect("the arguments are right");
    let settings = invocation.jobs[0].effective();
    settings.into_iter().find(|setting| setting.option == option).expect("the table has it").value
}

#[test]
fn strict_is_the_default_and_reads_exactly_or_refuses() {
    let machine = Machine::default();
    for strict in ["", "--strict ", "--strict=1 "] {
        let job = machine.run(&format!("{strict}--name=a --size=1.5g --runtime=10sec")).unwrap();
        assert_eq!(job.jobs[0].size, Some(Extent::Bytes(3 << 29)));
        assert_eq!(job.jobs[0].runtime_ns, Some(10_000_000_000));
        assert!(job.warnings.is_empty());
        let error = machine.run(&format!("{strict}--name=a --size=1q")).unwrap_err().to_string();
        assert!(error.contains("unknown size suffix `q`; write a number with k"), "{error}");
    }
    let error = machine.run("--strict=gnu --name=a --size=4k").unwrap_err().to_string();
    assert!(error.contains("write --strict=fio"), "{error}");
}

#[test]
fn strict_fio_reads_as_fio_and_says_what_it_made_of_it() {
    let machine = Machine::default();
    for (option, text, value) in [
        ("runtime", "10sec", "0.00001s"),
        ("runtime", "1.5", "1s"),
        ("loops", "2e3", "2"),
        ("bs", "4kx,8q", "4096,8,8"),
        ("bsrange", "4.5k-8kx", "4-8192,4-8192,4-8192"),
        ("iodepth", "4.9", "4"),
        ("rwmixread", "50x", "80"),
        ("rate", "1.5m", "1,1,1"),
        ("thinktime", "10msx", "10000"),
    ] {
        // The option may stand before or behind what it applies to.
        for args in [
            format!("--strict=fio --name=a --size=1m --{option}={text}"),
            format!("--name=a --size=1m --{option}={text} --strict=fio"),
        ] {
            assert_eq!(shown(&machine, &args, option), value, "{args}");
            let warnings = machine.run(&args).unwrap().warnings;
            let told = warnings.iter().any(|warning| {
                warning.message.starts_with(&format!("`{option}={text}` is read as fio reads it"))
            });
            assert!(told, "{args}: {warnings:?}");
        }
    }
    let invocation = machine.run("--strict=fio --name=a --bs=1 --size=1.5g").unwrap();
    assert_eq!(invocation.jobs[0].size, Some(Extent::Bytes(1)));
    assert!(invocation.warnings[0].message.contains("`1.5g` is `1`"), "{:?}", invocation.warnings);
}

#[test]
fn strict_fio_leaves_alone_what_both_read_alike() {
    let machine = Machine::default();
    let args = "--strict=fio --name=a --size=16m --bs=4k,8k --runtime=10 --ramp_time=5ms --rate=1m \
                --bssplit=4k/50:8k/50 --random_distribution=zipf:1.2 --size=10% --loops=2 \
                --thinktime=10 --startdelay=1-2 --filesize=4k-8k --iodepth=4";
    let invocation = machine.run(args).unwrap();
    let read = |warning: &&fio_compat::Warning| warning.message.contains("is read as fio");
    assert_eq!(invocation.warnings.iter().find(read), None);
    let strict = machine.run(&args.replace("--strict=fio ", "")).unwrap();
    assert_eq!(invocation.jobs[0].effective(), {
        // Only the numbers of the arguments differ.
        let mut settings = strict.jobs[0].effective();
        for setting in &mut settings {
            if let fio_compat::Origin::Set(fio_compat::Place::CommandLine { argument }) =
                &mut setting.origin
            {
                *argument += 1;
            }
        }
        settings
    });
}

/// Each complaint about a value says where it stands and what to write instead.
#[test]
fn strict_errors_name_file_line_column_and_remedy() {
    for line in [
        "size=1q",
        "size=1.0001k",
        "size=99999999999p",
        "size=-1",
        "size=",
        "bs=0",
        "bs=4k,,,4k",
        "runtime=10x",
        "runtime=1e3",
        "iodepth=0",
        "iodepth=99999999",
        "loops=0",
        "numjobs=x",
        "rwmixread=101",
        "direct=maybe",
        "rw=randreed",
        "verify=crc33",
        "percentile_list=101",
        "cpus_allowed=a",
        "bssplit=4k/60:8k/60",
        "verify_pattern=zz",
        "verify_pattern='nowhere'",
        "iomem=cudamalloc",
        "iomem_align=3",
        "hugepage-size=3m",
        "sizzle=4k",
    ] {
        let text = format!("# a comment\n[a]\n   {line}\n");
        let error = Machine::file(&text).unwrap_err();
        let told = error.to_string();
        assert!(told.starts_with("a.fio:3:4: "), "{told}");
        assert!(error.remedy.is_some() && told.contains("; "), "{told}");
        let name = line.split('=').next().unwrap();
        assert!(
            told.contains(name) || told.contains("alignment") || told.contains("page"),
            "{told}"
        );
    }
}

#[test]
fn verify_pattern_and_buffer_pattern_come_from_files() {
    let machine = Machine::default().with_file("p", "ab\n").with_file("empty", "");
    for option in ["verify_pattern", "buffer_pattern"] {
        let value =
            |text: &str| shown(&machine, &format!("--name=a --size=4k --{option}={text}"), option);
        assert_eq!(value("'p'"), "0x61620a");
        assert_eq!(value("0xff'p'\"'p'\""), "0xff61620a277027");
        for (text, told) in [
            ("'q'", "cannot read the pattern `q`: No such file or directory; name a file"),
            ("'empty'", "does not have 1 to 65536 bytes"),
            ("'p", "end the name of the file with a '"),
        ] {
            let args = format!("--name=a --size=4k --{option}={text}");
            let error = machine.run(&args).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }
    let long = Machine::default().with_file("p", &"x".repeat(70_000));
    let error = long.run("--name=a --size=4k --verify_pattern='p'").unwrap_err().to_string();
    assert!(error.contains("does not have 1 to 65536 bytes; use a shorter file"), "{error}");
}
