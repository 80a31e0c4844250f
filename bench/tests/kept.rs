//! Files that are there before a run, and must be there after it.
#![allow(clippy::unwrap_used, reason = "a test; clippy.toml covers only functions marked so")]

mod place;

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use place::{Place, text};

/// A place with a file F of 64 KiB.
fn with_file(name: &str) -> Place {
    let place = Place::new(name);
    fs::write(place.0.join("F"), vec![7; 64 << 10]).unwrap();
    place
}

#[test]
fn unlink_leaves_the_file_of_a_job_that_never_ran() {
    let place = with_file("kept-unlink");
    let told = place.refused("--name=x --filename=F --rw=read --unlink=1 --write_bw_log=/no/p");
    assert!(told.contains("cannot write log"), "{told}");
    assert_eq!(place.names(""), ["F"]);
    // What the run made itself is taken back.
    place.refused("--name=x --filename=N --size=4k --rw=read --unlink=1 --write_bw_log=/no/p");
    assert_eq!(place.names(""), ["F"]);
    place.json("--name=x --filename=F --rw=read --unlink=1");
    assert_eq!(place.names(""), [""; 0]);
}

#[test]
fn unlink_leaves_the_file_of_a_job_whose_turn_never_came() {
    let place = with_file("kept-turn");
    let jobs = "[a]\nioengine=null\nsize=1g\ntime_based\nruntime=60\nexec_prerun=touch begun\n\
                [b]\nstonewall\nfilename=F\nrw=read\nunlink=1\n";
    fs::write(place.0.join("j.fio"), jobs).unwrap();
    let mut child = place.command("j.fio").stdout(Stdio::null()).spawn().unwrap();
    while !place.0.join("begun").exists() {
        assert!(child.try_wait().unwrap().is_none(), "it ended early");
        std::thread::sleep(Duration::from_millis(1));
    }
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(128));
    assert!(place.0.join("F").exists());
}

#[test]
fn reports_and_logs_are_not_written_over_the_data_of_a_job() {
    let place = with_file("kept-output");
    fs::rename(place.0.join("F"), place.0.join("p-read_bw.log")).unwrap();
    std::os::unix::fs::symlink("p-read_bw.log", place.0.join("F")).unwrap();
    for args in ["--output=F", "--output=./F", "--bandwidth-log=p"] {
        let output = place.run(&format!("--name=x --filename=F --rw=read {args}"));
        assert_eq!(output.status.code(), Some(1), "{args}: {}", text(&output));
        assert!(text(&output).contains("would overwrite F, which a job uses"), "{}", text(&output));
    }
    assert_eq!(fs::read(place.0.join("F")).unwrap().len(), 64 << 10);
    fs::rename(place.0.join("p-read_bw.log"), place.0.join("p_bw.1.log")).unwrap();
    let told = place.refused("--name=x --filename=p_bw.1.log --rw=read --write_bw_log=p");
    assert!(told.contains("would overwrite p_bw.1.log"), "{told}");
    assert_eq!(fs::read(place.0.join("p_bw.1.log")).unwrap().len(), 64 << 10);
    // Nor where it is going to be.
    let told = place.refused("--name=x --filename=N --size=4k --rw=write --output=./N");
    assert!(told.contains("would overwrite N"), "{told}");
}
