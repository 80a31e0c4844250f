//! Options about starting, waiting, ending and errors.
#![allow(clippy::unwrap_used, reason = "a test; clippy.toml covers only functions marked so")]

mod place;

use std::fs;

use place::{Place, ios, number};

#[test]
fn startdelay_and_wait_for_order_the_starts() {
    let place = Place::new("start");
    let jobs = "[global]\nioengine=null\nsize=1g\ntime_based\nruntime=300ms\n[a]\n[b]\n\
                startdelay=200ms\n[c]\nwait_for=a\n[d]\nstartdelay=100ms-150ms\n";
    fs::write(place.0.join("s.fio"), jobs).unwrap();
    let document = place.json("s.fio");
    let jobs = document["jobs"].as_array().unwrap();
    // Milliseconds after the first, which a loaded machine may have started late by itself.
    let begins = |job: usize| number(&jobs[job]["job_start"]) - number(&jobs[0]["job_start"]);
    assert_eq!(jobs.len(), 4);
    assert!(begins(1) >= 100, "b: {}", begins(1));
    assert!(begins(2) >= 299, "c starts when a has ended: {}", begins(2));
    assert!(begins(3) >= 50 && begins(3) < begins(2), "d: {}", begins(3));
    fs::write(place.0.join("w.fio"), "[a]\nsize=4k\nwait_for=z\n").unwrap();
    assert!(place.refused("w.fio").contains("waitee job z unknown."));
}

#[test]
fn exitall_and_exit_what_end_the_others() {
    let place = Place::new("exitall");
    let run = |what: &str, after: &str, long: u32| {
        let jobs = format!(
            "[global]\nioengine=null\nsize=1g\ntime_based\n[a]\nexitall\n{what}\nruntime=200ms\n\
             [b]\n{after}\nruntime={long}\n[c]\nstonewall\nruntime=100ms\n"
        );
        fs::write(place.0.join("e.fio"), jobs).unwrap();
        let begun = std::time::Instant::now();
        let document = place.json("e.fio");
        let done = document["jobs"].as_array().unwrap().iter().map(|job| ios(job, "read"));
        // Jobs that never began are reported, too.
        let done: Vec<u64> = done.collect();
        assert_eq!(done.len(), 3, "{document}");
        (begun.elapsed().as_millis(), done.iter().filter(|done| **done > 0).count())
    };
    let (spent, count) = run("", "", 60);
    assert!(spent < 30_000 && count == 3, "{spent} {count}");
    let (spent, _) = run("", "new_group", 2);
    assert!(spent >= 2000, "another group goes on: {spent}");
    let (spent, _) = run("exit_what=stonewall", "new_group", 60);
    assert!(spent < 30_000, "{spent}");
    let (spent, count) = run("exit_what=all", "", 60);
    assert!(spent < 30_000 && count == 2, "{spent} {count}");
}

#[test]
fn cpus_allowed_policy_and_cpumask_and_nice_are_taken_and_checked() {
    let place = Place::new("cpus");
    let common = "--name=c --ioengine=null --size=64k --numjobs=2";
    place.json(&format!("{common} --cpus_allowed=0 --cpus_allowed_policy=split --nice=5"));
    place.json(&format!("{common} --cpumask=1"));
    assert!(place.refused(&format!("{common} --cpumask=0x8000000000000000")).contains("no CPU 63"));
    assert!(place.refused(&format!("{common} --nice=99")).contains("from -20 to 19"));
}

#[test]
fn continue_on_error_and_ignore_error_let_a_job_go_on() {
    let place = Place::new("errors");
    // Reads behind the end of a file that shrinks under the job are errors.
    fs::write(place.0.join("f"), vec![1; 64 << 10]).unwrap();
    let shrinking = |options: &str| {
        let file = fs::OpenOptions::new().write(true).open(place.0.join("f")).unwrap();
        file.set_len(64 << 10).unwrap();
        let job = "[e]\nfilename=f\nbs=4k\ninvalidate=0\nexec_prerun=truncate -s 4096 f\n";
        fs::write(place.0.join("e.fio"), format!("{job}{options}\n")).unwrap();
        let output = place.run("e.fio --output-format=json");
        let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code(), document)
    };
    assert_eq!(shrinking("").0, Some(1));
    let (code, document) = shrinking("continue_on_error=io");
    assert_eq!(code, Some(0));
    let own = &document["jobs"][0];
    let errors = number(&own["total_err"]);
    assert!(errors > 0 && errors + ios(own, "read") == 16, "{own}");
    assert_eq!(number(&own["first_error"]), 5);
    let (code, document) = shrinking("ignore_error=EIO");
    assert!(code == Some(0) && document["jobs"][0]["total_err"].is_null(), "{document}");
    let (code, document) = shrinking("ignore_error=5\nerror_dump=1");
    assert!(code == Some(0) && number(&document["jobs"][0]["total_err"]) > 0);
    assert_eq!(shrinking("ignore_error=ENOSPC").0, Some(1));
}

#[test]
fn unlink_removes_the_files() {
    let place = Place::new("unlink");
    place.json("--name=u --rw=write --size=16k --nrfiles=2 --bs=4k --unlink=1");
    assert_eq!(fs::read_dir(&place.0).unwrap().count(), 0);
}
