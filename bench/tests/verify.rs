//! Options about content and its verification, on real files.
#![allow(clippy::unwrap_used, reason = "a test; clippy.toml covers only functions marked so")]

mod place;

use std::fs;
use std::os::unix::fs::FileExt;

use place::{Place, ios, text};

const METHODS: &str = "crc32c crc32c-intel md5 crc64 crc32 crc16 crc7 sha1 sha256 sha512 sha3-224 \
                       sha3-256 sha3-384 sha3-512 xxhash meta pattern_hdr null";

fn damage(place: &Place, file: &str, at: u64, bytes: &[u8]) {
    let file = fs::OpenOptions::new().write(true).open(place.0.join(file)).unwrap();
    file.write_all_at(bytes, at).unwrap();
}

#[test]
fn verify_writes_reads_back_and_finds_damage_by_every_method() {
    let place = Place::new("methods");
    for method in METHODS.split_whitespace() {
        for engine in ["psync", "io_uring"] {
            let common = format!(
                "--name=v --filename=f --size=128k --bs=4k --verify={method} \
                                  --verify_pattern=0xab%o --ioengine={engine} --iodepth=4"
            );
            let job = place.job(&format!("{common} --rw=randwrite"));
            assert_eq!((ios(&job, "write"), ios(&job, "read")), (32, 32), "{method}");
            let read = format!("{common} --rw=read");
            assert_eq!(place.run(&read).status.code(), Some(0), "{method}");
            damage(&place, "f", 8192, &[0; 4096]);
            let output = place.run(&read);
            let told = text(&output);
            assert_eq!(output.status.code(), Some(i32::from(method != "null")), "{method} {told}");
            if method != "null" {
                assert!(told.contains("a zeroed block"), "{method}: {told}");
                let name = if method == "crc32c-intel" { "crc32c" } else { method };
                assert!(told.contains(&format!("{name}: verify failed at file")), "{told}");
            }
        }
    }
}

#[test]
fn what_was_verified_is_said_to_people_and_not_to_readers_of_documents() {
    let place = Place::new("verified");
    let common = "--name=v --filename=f --size=128k --bs=4k --verify=crc32c --fsync=32";
    let run = |args: &str| place.run(&format!("{common} {args}"));
    let told = String::from_utf8(run("--rw=write").stderr).unwrap();
    assert_eq!(told, "mfio-bench: verify: job `v`: 32 blocks read back, 0 wrong\n");
    assert!(run("--rw=write --do_verify=0").stderr.is_empty(), "that is another job's to do");
    place.quiet_json(&format!("{common} --rw=write"));
    assert!(run("--rw=write --output-format=terse").stderr.is_empty());
    damage(&place, "f", 8192, &[0; 4096]);
    let told = text(&run("--rw=read --direct=1 --verify_fatal=0"));
    assert!(told.contains("verify: job `v`: 32 blocks read back, 1 wrong"), "{told}");
}

#[test]
fn verify_pattern_alone_fills_and_checks_without_a_header() {
    let place = Place::new("pattern");
    let common = "--name=v --filename=f --size=64k --bs=4k --verify=pattern \
                  --verify_pattern=0xdeadbeef%o --ioengine=psync";
    place.job(&format!("{common} --rw=write"));
    let data = fs::read(place.0.join("f")).unwrap();
    assert_eq!(data[4096..4100], [0xde, 0xad, 0xbe, 0xef]);
    assert_eq!(data[4100..4108], 4096_u64.to_le_bytes());
    damage(&place, "f", 4096, &[0xdf]);
    let told = place.refused(&format!("{common} --rw=read"));
    assert!(told.contains("a flipped bit: byte 0 is df, wanted de"), "{told}");
    assert!(
        place.refused("--name=v --size=4k --verify=pattern").contains("needs a verify_pattern")
    );
}

#[test]
fn verify_interval_and_verify_offset_place_the_headers() {
    let place = Place::new("interval");
    let common = "--name=v --filename=f --size=64k --bs=16k --verify=sha256 --verify_interval=4k \
                  --verify_offset=512 --ioengine=psync";
    place.job(&format!("{common} --rw=write"));
    let data = fs::read(place.0.join("f")).unwrap();
    assert!((0..16).all(|unit| data[unit * 4096 + 512..][..4] == data[512..516]));
    let refused =
        place.refused("--name=v --size=64k --bs=4k --rw=write --verify=md5 --verify_interval=3k");
    assert!(refused.contains("multiples of 3072"), "{refused}");
}

#[test]
fn verify_backlog_and_verify_backlog_batch_read_back_on_the_way() {
    let place = Place::new("backlog");
    for batch in ["", "--verify_backlog_batch=3"] {
        let args = "--name=v --filename=f --size=256k --bs=4k --rw=randwrite --verify=crc32c \
                    --verify_backlog=8 --ioengine=io_uring --iodepth=4";
        let job = place.job(&format!("{args} {batch}"));
        assert_eq!((ios(&job, "write"), ios(&job, "read")), (64, 64), "{batch}");
    }
    let args = "--name=v --filename=f --size=4m --bs=4k --rw=randwrite --verify=crc32c \
                --verify_backlog=8 --ioengine=psync --direct=1";
    let read = &place.job(args)["read"];
    // One at a time: together they took as long as each of them did.
    let each_ns = read["clat_ns"]["mean"].as_f64().unwrap() * 1024.0;
    assert!(read["runtime"].as_f64().unwrap() * 1e6 >= each_ns, "{read}");
}

#[test]
fn do_verify_and_verify_only_split_writing_from_checking() {
    let place = Place::new("only");
    let common = "--name=v --filename=f --size=64k --bs=4k --rw=randwrite --verify=xxhash";
    let job = place.job(&format!("{common} --do_verify=0"));
    assert_eq!((ios(&job, "write"), ios(&job, "read")), (16, 0));
    let job = place.job(&format!("{common} --verify_only"));
    assert_eq!((ios(&job, "write"), ios(&job, "read")), (0, 16));
    damage(&place, "f", 5000, &[1, 2, 3]);
    assert!(place.refused(&format!("{common} --verify_only")).contains("data changed"));
}

#[test]
fn verify_fatal_stops_at_the_first_and_verify_dump_keeps_the_blocks() {
    let place = Place::new("dump");
    let common = "--name=v --filename=f --size=64k --bs=4k --verify=crc32c --ioengine=psync";
    place.job(&format!("{common} --rw=write"));
    let good = fs::read(place.0.join("f")).unwrap();
    damage(&place, "f", 4200, &[good[4200] ^ 8]);
    damage(&place, "f", 9000, &[good[9000] ^ 8]);
    let told = place.refused(&format!("{common} --rw=read"));
    assert_eq!(told.matches("verify failed at").count(), 2, "{told}");
    let told = place.refused(&format!("{common} --rw=read --verify_fatal=1 --verify_dump=1"));
    assert_eq!(told.matches("verify failed at").count(), 1, "{told}");
    assert_eq!(fs::read(place.0.join("f.4096.expected")).unwrap(), good[4096..8192]);
    assert_eq!(fs::read(place.0.join("f.4096.received")).unwrap()[104], good[4200] ^ 8);
    let output = place.run(&format!("{common} --rw=read --continue_on_error=verify"));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
}

#[test]
fn buffer_pattern_and_zero_buffers_reach_the_file_and_refill_buffers_differs() {
    let place = Place::new("buffers");
    let write = |args: &str| {
        fs::remove_file(place.0.join("f")).ok();
        place.job(&format!("--name=b --filename=f --size=64k --bs=4k --rw=write {args}"));
        fs::read(place.0.join("f")).unwrap()
    };
    for engine in ["psync", "io_uring"] {
        let engine = format!("--ioengine={engine}");
        let data = write(&format!("{engine} --buffer_pattern=0xcafe"));
        assert!(data.chunks(2).all(|pair| pair == [0xca, 0xfe]));
        assert!(write(&format!("{engine} --zero_buffers")).iter().all(|byte| *byte == 0));
        let data = write(&format!("{engine} --buffer_compress_percentage=50"));
        let zeros = data.iter().filter(|byte| **byte == 0).count();
        assert!((32768..33500).contains(&zeros), "{zeros}");
        let data = write(&format!("{engine} --dedupe_percentage=100"));
        assert!(data.chunks(4096).all(|block| block == &data[..4096]));
        let data = write(&format!("{engine} --refill_buffers --scramble_buffers=0"));
        assert_ne!(data[..4096], data[4096..8192]);
    }
}
