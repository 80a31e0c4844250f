//! The effective configuration and the help: of every option, without exception.
//!
//! Data flow: every row of the table, set by any value that changes it -> its value and origin.
//!
//! Not here: what the options do.

mod machine;

use fio_compat::{Action, Job, Origin, Place, Setting};
use machine::Machine;

/// Texts of which one suits almost every option.
const CANDIDATES: [&str; 43] = [
    "1",
    "0",
    "2",
    "4096",
    "8k",
    "50",
    "90",
    "99:99.5",
    "2m",
    "1g",
    "randrw",
    "crc32c",
    "null",
    "some",
    "sync",
    "dsync",
    "linear",
    "poisson",
    "issue",
    "split",
    "all",
    "verify",
    "EIO",
    "0xfeed",
    "write:8",
    "4k-8k",
    "4k/50:8k/50",
    "zipf:1.2",
    "lfsr",
    "identical",
    "random:4",
    "strided",
    "1:2",
    "mixed",
    "max",
    "both",
    "shm",
    "none",
    "dsync",
    "posix",
    "1000",
    "iops:5%",
    "offload",
];

/// What some options need beside them.
const BESIDE: [&str; 13] = [
    "",
    "ioengine=io_uring\niodepth=8\n",
    "verify=md5\nrw=write\n",
    "runtime=5\nthinktime=10\n",
    "zonemode=strided\nzonesize=8k\n",
    "zonesize=8k\n",
    "zonemode=strided\n",
    "latency_window=5ms\n",
    "ss_dur=5\n",
    "verify=md5\nrw=read\n",
    "ioengine=pvsync2\ndirect=1\n",
    "ioengine=pvsync2\nrw=write\ndirect=1\n",
    "ioengine=io_uring_cmd\nfilename=/dev/ng0n1\n",
];

/// The text of a file whose third line is `line`.
fn file(line: &str, beside: &str) -> String {
    format!("[a]\nsize=64k\n {line}\n{beside}")
}

/// The job of that file, unless it is refused.
fn job(line: &str, beside: &str) -> Option<Job> {
    Machine::file(&file(line, beside)).ok().map(|mut invocation| invocation.jobs.remove(0))
}

fn setting(job: &Job, option: &str) -> Setting {
    job.effective().into_iter().find(|setting| setting.option == option).expect("the table has it")
}

/// An option, a line that sets it to what is not its default, and what it needs.
type Sample = (&'static str, String, &'static str);

/// Every option that can be set so, and those that cannot.
fn samples() -> (Vec<Sample>, Vec<&'static str>) {
    let (mut found, mut without) = (Vec::new(), Vec::new());
    for Setting { option, .. } in job("", "").expect("nothing is wrong with it").effective() {
        let sample = BESIDE.iter().find_map(|beside| {
            let value = setting(&job("", beside)?, option).value;
            let lines = CANDIDATES.iter().map(|text| format!("{option}={text}"));
            let mut lines = lines.filter(|line| {
                job(line, beside).is_some_and(|job| setting(&job, option).value != value)
            });
            lines.next().map(|line| (option, line, *beside))
        });
        match sample {
            Some(sample) => found.push(sample),
            None => without.push(option),
        }
    }
    (found, without)
}

#[test]
fn effective_names_value_and_origin_of_every_option() {
    let (samples, without) = samples();
    // The others need yet another option, or have one value only.
    assert!(without.len() * 16 < samples.len(), "no value is known here for {without:?}");
    for (option, line, beside) in &samples {
        let told = setting(&job(line, beside).unwrap(), option);
        let place = Place::File { label: "a.fio".to_owned(), line: 3, column: 2 };
        assert_eq!(told.origin, Origin::Set(place), "{line}");

        let machine = Machine::default().with_file("a.fio", &file("", beside));
        let by = |args: &str| setting(&machine.run(args).unwrap().jobs[0], option);
        // On the command line the name of a job begins one, and options of a file win.
        if !["name", "size"].contains(option) {
            let given = by(&format!("--{line} a.fio"));
            assert_eq!(given.origin, Origin::Set(Place::CommandLine { argument: 1 }), "{line}");
            assert_eq!(given.value, told.value, "{line}");
        }
        let set = by(&format!("a.fio --set {line}"));
        assert_eq!((set.origin, set.value), (Origin::Set(Place::Override), told.value), "{line}");
    }
}

#[test]
fn effective_lists_every_option_in_one_line_with_its_origin() {
    let invocation = Machine::file("[a]\nsize=64k\niodepth=4\n").unwrap();
    let text = invocation.show_effective();
    let settings = invocation.jobs[0].effective();
    assert_eq!(text.lines().count(), settings.len() + 1);
    for line in text.lines().skip(1) {
        let (_, origin) = line.rsplit_once(" # ").unwrap();
        let known = ["default", "follows from other options"].contains(&origin);
        assert!(known || origin.starts_with("a.fio:"), "{line}");
    }
    assert!(text.contains("\niodepth=4 # a.fio:3:1\n"), "{text}");
    // Nobody asked for this engine, and yet it is not fio's default.
    assert!(text.contains("\nioengine=io_uring # follows from other options\n"), "{text}");
    assert!(text.contains("\niodepth_low=4 # follows from other options\n"), "{text}");
    assert!(text.contains("\nbs=4096,4096,4096 # default\n"), "{text}");
}

/// What is shown can be given back, and is shown as the same again.
#[test]
fn effective_values_mean_what_they_say() {
    for (option, line, beside) in samples().0 {
        let value = setting(&job(&line, beside).unwrap(), option).value;
        let again = job(&format!("{option}={value}"), beside);
        let again = again.unwrap_or_else(|| panic!("{option}={value} is shown, and refused"));
        assert_eq!(setting(&again, option).value, value, "{option}");
    }
}

#[test]
fn cmdhelp_describes_every_option_and_every_other_name() {
    let help = |name: &str| {
        let invocation = Machine::default().run(&format!("--cmdhelp={name}")).unwrap();
        let Action::Print(text) = invocation.action else { panic!("{name} prints nothing") };
        text
    };
    for Setting { option, value, .. } in Job::new("").effective() {
        let text = help(option);
        assert!(text.trim_start().starts_with(&format!("{option}: ")), "{text}");
        let value = if value.bytes().all(|byte| byte == b',') { "no default" } else { &value };
        assert!(text.contains(&format!(" default: {value}\n")), "{text}");
        assert!(
            text.contains(" type: ") && help("all").contains(&format!("  {option} ")),
            "{text}"
        );
    }
    assert!(help("verify").contains("sha3-512"), "{}", help("verify"));
    assert!(help("mem").contains("iomem: where buffers come from"), "{}", help("mem"));
    assert!(help("clocksource").contains("accepted without effect"), "{}", help("clocksource"));
    assert!(help("cgroup").contains("known to fio but not supported yet"), "{}", help("cgroup"));
}
