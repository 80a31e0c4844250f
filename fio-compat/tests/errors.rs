//! Every complaint is one line that says where, what and how to mend it.
//!
//! Data flow: broken input -> the whole text of the error.
//!
//! Not here: warnings, which end no run (`command_line`).

mod machine;

use machine::Machine;

fn of_args(args: &str) -> String {
    Machine::default().run(args).expect_err("arguments are broken").to_string()
}

fn of_file(text: &str) -> String {
    Machine::file(text).expect_err("the text is broken").to_string()
}

#[test]
fn broken_command_line_is_refused_in_one_clear_line() {
    for (args, expected) in [
        (
            "--name=a --iodepht=4",
            "argument 2: unknown option `--iodepht`; did you mean `--iodepth`?",
        ),
        ("--name=a --zzzzzzzzzzzzz=4", "argument 2: unknown option `--zzzzzzzzzzzzz`"),
        (
            "--name=a --rwm=1",
            "argument 2: option `--rwm` is ambiguous; it could be --rwmixread, --rwmixwrite",
        ),
        ("--name=a --rw", "argument 2: `--rw` needs a value; write --rw=VALUE"),
        (
            "--name=a --direct --rw=read",
            "argument 2: `--direct` needs a value; write --direct=VALUE",
        ),
        (
            "--name=",
            "argument 1: failed parsing `name=`: a value is missing; name takes: string (opt=text)",
        ),
        ("--name=a --readonly=1", "argument 2: `--readonly` takes no value"),
        (
            "--idle-prof=system",
            "argument 1: option `--idle-prof` is known to fio but not supported yet",
        ),
        (
            "--name=a --rbdname=x",
            "argument 2: option `--rbdname` belongs to an engine of fio that is not here; \
             --enghelp lists the engines",
        ),
        ("--terse-version=6", "argument 1: there is no terse version `6`; use 2, 3, 4 or 5"),
        (
            "--output-format=xml",
            "argument 1: there is no output format `xml`; use normal, terse, json or json+",
        ),
        (
            "--eta=maybe",
            "argument 1: failed parsing `eta=maybe`: no such value; valid values are auto, \
             always, never",
        ),
        (
            "--status-interval=x",
            "argument 1: failed parsing `status-interval=x`: not a number; write a number with \
             us, ms, s, m, h or d",
        ),
        ("--eta-interval=1ms", "argument 1: eta-interval=1ms is below the minimum of 250ms"),
        ("--name=a --uid=1", "argument 2: option `uid` is known to fio but not supported yet"),
        (
            "--name=a --iodepth=0",
            "argument 2: failed parsing `iodepth=0`: the value must be from 1 to 65536; iodepth \
             takes: integer from 1 to 65536",
        ),
        (
            "--name=a --numjobs=99999999999999999999",
            "argument 2: failed parsing `numjobs=99999999999999999999`: the number is too large; \
             numjobs takes: integer from 1 to 65536",
        ),
        (
            "--name=a --cpus_allowed=9",
            "argument 2: there is no CPU 9: this machine has CPUs 0 to 3",
        ),
        (
            "--name=a --fixedbufs",
            "argument 2: engine psync of job `a` has no `fixedbufs`; use ioengine=io_uring or \
             remove fixedbufs",
        ),
        (
            "--name=a --size=1k",
            "argument 2: size of job `a` is 1024 bytes, less than one block of 4096; give size \
             at least the block size",
        ),
        (
            "--readonly --name=a --rw=write",
            "argument 3: trim and write operations are not allowed with the --readonly parameter.",
        ),
        (
            "missing.fio",
            "argument 1: cannot read job file `missing.fio`: No such file or directory",
        ),
    ] {
        assert_eq!(of_args(args), format!("command line, {expected}"), "{args}");
    }
    let error = Machine::default().with_file("a", "[x]\n").run("--section=y a").unwrap_err();
    assert_eq!(error.to_string(), "command line: there is no job section `y`");
}

#[test]
fn broken_job_file_is_refused_with_line_and_column() {
    for (text, expected) in [
        (
            "rw=read\n",
            "1:1: option `rw=read` is outside of a [job] section; start with [global] or [name]",
        ),
        ("include x\n", "1:1: `include` is outside of a [job] section"),
        ("[a]\n  include x\n", "2:3: cannot read included file `x`: No such file or directory"),
        ("[a\n", "1:1: `[a` does not end with `]`; write the section name alone, as in [name]"),
        ("[ ]\n", "1:1: the section has no name"),
        (
            "[a]\nqqqqqqqq=1\n",
            "2:1: unknown option `qqqqqqqq`; --cmdhelp=all lists the options there are",
        ),
        ("[a]\niodepht=1\n", "2:1: unknown option `iodepht`; did you mean `iodepth`?"),
        (
            "[a]\nrw=randreed\n",
            "2:1: failed parsing `rw=randreed`: no such value; did you mean randread? valid \
             values are read, write, trim, rw, readwrite, randread, randwrite, randtrim, \
             randrw, trimwrite, randtrimwrite",
        ),
        (
            "[a]\nbs=4q\n",
            "2:1: failed parsing `bs=4q`: unknown size suffix `q`; write a number with k, m, g, \
             t or p (powers of 1024)",
        ),
        (
            "[a]\nbs=0\n",
            "2:1: failed parsing `bs=0`: a block cannot have 0 bytes; bs takes: integers for \
             read,write,trim",
        ),
        (
            "[a]\nbs=\n",
            "2:1: failed parsing `bs=`: a value is missing; bs takes: integers for \
             read,write,trim",
        ),
        (
            "[a]\nbs\n",
            "2:1: failed parsing `bs`: a value is missing; bs takes: integers for read,write,trim",
        ),
        ("[a]\ndirect=2\n", "2:1: failed parsing `direct=2`: not a yes or no; write 0 or 1"),
        (
            "[a]\nruntime=10x\n",
            "2:1: failed parsing `runtime=10x`: unknown time suffix `x`; write a number with us, \
             ms, s, m, h or d",
        ),
        (
            "[a]\nsize=0%\n",
            "2:1: failed parsing `size=0%`: a percentage is a whole number from 1 to 100; size \
             takes: integer with k, m, g, t or p, or a percentage",
        ),
        (
            "[a]\nrwmixread=101\n",
            "2:1: failed parsing `rwmixread=101`: the value must be a whole number from 0 to 100; \
             rwmixread takes: percentage from 0 to 100",
        ),
        (
            "[a]\nfilename=a::b\n",
            "2:1: failed parsing `filename=a::b`: a name is empty; separate names by one `:` and \
             write `\\:` for a colon inside a name",
        ),
        (
            "[a]\npercentile_list=0\n",
            "2:1: failed parsing `percentile_list=0`: `0` is no number above 0 and up to 100; \
             write a list such as 50:99:99.9",
        ),
        (
            "[a]\ncpus_allowed=x\n",
            "2:1: failed parsing `cpus_allowed=x`: `x` is no CPU number up to 8191 or range of \
             them; write a list such as 0,2-3",
        ),
        ("[a]\nbs=${X\n", "2:1: `${X` has a `${` without its `}`; write ${NAME}"),
        (
            "[a]\nsize=(1/0)\n",
            "2:1: failed parsing `size=(1/0)`: division by zero; size takes: integer with k, m, \
             g, t or p, or a percentage",
        ),
        (
            "[a]\nioengine=rbd\n",
            "2:1: failed parsing `ioengine=rbd`: engine rbd not loadable (it is known to fio), \
             failed to load engine; valid values are io_uring, raw_uring, psync, null, libaio, \
             posixaio, sync, vsync, pvsync, pvsync2, io_uring_cmd, nop, raw_nop",
        ),
    ] {
        assert_eq!(of_file(text), format!("a.fio:{expected}"), "{text}");
    }
}

#[test]
fn file_that_includes_itself_is_refused() {
    let error = Machine::file("[a]\ninclude a.inc\n").unwrap_err();
    assert!(error.to_string().contains("cannot read included file `a.inc`"));
    let machine = Machine::default()
        .with_file("a.fio", "[a]\ninclude a.inc\n")
        .with_file("a.inc", "include a.inc\n");
    let error = machine.run("a.fio").unwrap_err().to_string();
    assert_eq!(error, "a.inc:1:1: files include one another more than 16 deep");
}

#[test]
fn section_in_an_included_file_is_refused() {
    let machine =
        Machine::default().with_file("a.fio", "[a]\ninclude b\n").with_file("b", "\n[c]\n");
    let error = machine.run("a.fio").unwrap_err().to_string();
    assert_eq!(error, "b:2:1: an included file cannot start a section");
}

#[test]
fn lat_percentiles_that_differ_within_a_reported_group_are_refused() {
    let text = "[global]\ngroup_reporting\n[a]\n[b]\nlat_percentiles=1\n";
    assert!(of_file(text).starts_with("a.fio:5:1: lat_percentiles differs within a group"));
}
