//! Options about directions, sizes, places and files, on real files and on the null engine.
#![allow(clippy::unwrap_used, reason = "a test; clippy.toml covers only functions marked so")]

mod place;

use std::fs;
use std::os::unix::fs::MetadataExt;

use place::{Place, bytes, ios};

#[test]
fn rw_trim_gives_blocks_back_and_trimwrite_writes_them_again() {
    let place = Place::new("trim");
    for engine in ["psync", "io_uring"] {
        let file = place.0.join(engine);
        fs::write(&file, vec![7; 1 << 20]).unwrap();
        let common =
            format!("--name=t --filename={engine} --ioengine={engine} --bs=64k --size=512k");
        let job = place.job(&format!("{common} --rw=trim"));
        assert_eq!((ios(&job, "trim"), bytes(&job, "trim"), ios(&job, "write")), (8, 512 << 10, 0));
        let data = fs::read(&file).unwrap();
        assert!(data[..512 << 10].iter().all(|byte| *byte == 0));
        assert!(data[512 << 10..].iter().all(|byte| *byte == 7));
        let job = place.job(&format!("{common} --rw=randtrimwrite"));
        assert_eq!((ios(&job, "trim"), ios(&job, "write")), (8, 8));
        let data = fs::read(&file).unwrap();
        assert!(data[..512 << 10].chunks(4096).all(|page| page.iter().any(|byte| *byte != 0)));
    }
    let job = place.job("--name=t --ioengine=null --size=1m --rw=randtrim");
    assert_eq!(ios(&job, "trim"), 256);
}

#[test]
fn readwrite_and_its_alias_rw_share_the_amount() {
    let place = Place::new("mix");
    for rw in ["rw", "readwrite", "randrw"] {
        let job =
            place.job(&format!("--name=m --ioengine=null --size=40m --rw={rw} --rwmixread=70"));
        let (reads, writes) = (ios(&job, "read"), ios(&job, "write"));
        assert_eq!(reads + writes, 10240);
        assert!((6900..7440).contains(&reads), "{reads}");
    }
    let job = place.job("--name=m --ioengine=null --size=40m --rw=rw --rwmixwrite=70");
    assert!((6900..7440).contains(&ios(&job, "write")));
}

#[test]
fn bs_gives_each_direction_its_size() {
    let place = Place::new("bs");
    let job = place.job("--name=b --ioengine=null --size=8m --rw=randrw --bs=4k,16k --norandommap");
    assert_eq!(bytes(&job, "read"), ios(&job, "read") * 4096);
    assert_eq!(bytes(&job, "write"), ios(&job, "write") * 16384);
    let job = place.job("--name=b --ioengine=null --size=8m --rw=read --blocksize=32k");
    assert_eq!(ios(&job, "read"), 256);
}

#[test]
fn bssplit_and_bsrange_run_on_every_engine() {
    let place = Place::new("split");
    for engine in ["psync", "io_uring", "null"] {
        for sizes in ["bssplit=4k/50:8k/30:16k/", "bsrange=4k-16k"] {
            for rw in ["write", "randrw", "randread --norandommap"] {
                let args = format!("--name=s --size=1m --{sizes} --rw={rw} --iodepth=4");
                let job = place.job(&format!("{args} --ioengine={engine}"));
                let (count, sum) = (ios(&job, "read") + ios(&job, "write"), bytes(&job, "read"));
                let sum = sum + bytes(&job, "write");
                assert!((1 << 20..(1 << 20) + 16384).contains(&sum), "{engine} {args}: {sum}");
                assert!((64..256).contains(&count), "{engine} {args}: {count}");
            }
        }
    }
    let refused = place.refused("--name=s --size=1m --bssplit=4k/60:8k/60");
    assert!(refused.contains("add up to 120"), "{refused}");
}

#[test]
fn nrfiles_and_filesize_and_filename_format_make_files_of_their_own() {
    let place = Place::new("nrfiles");
    let job = place.job("--name=n --rw=write --nrfiles=3 --size=28k --bs=4k --ioengine=psync");
    assert_eq!(bytes(&job, "write"), 28 << 10);
    // Seven blocks on three files: the first gets one more.
    let len = |name: &str| fs::metadata(place.0.join(name)).unwrap().len();
    assert_eq!([len("n.0.0"), len("n.0.1"), len("n.0.2")], [12288, 8192, 8192]);
    let job = place.job("--name=f --rw=write --nrfiles=2 --filesize=64k --bs=4k");
    assert_eq!((bytes(&job, "write"), len("f.0.1")), (128 << 10, 65536));
    place.job("--name=r --rw=write --nrfiles=4 --filesize=16k-64k --bs=4k");
    assert!((0..4).map(|n| len(&format!("r.0.{n}"))).all(|len| (16384..=65536).contains(&len)));
    place.job("--name=g --rw=write --size=4k --filename_format=$jobname-$jobnum-$filenum");
    assert_eq!(len("g-0-0"), 4096);
}

#[test]
fn filename_lists_are_separated_by_colons() {
    let place = Place::new("colons");
    let job = place.job("--name=c --rw=write --filename=a:b\\:c --size=16k --ioengine=psync");
    assert_eq!(bytes(&job, "write"), 16 << 10);
    for name in ["a", "b:c"] {
        assert_eq!(fs::metadata(place.0.join(name)).unwrap().len(), 8192);
    }
}

#[test]
fn offset_increment_and_offset_align_place_the_clones() {
    let place = Place::new("increment");
    let args = "--name=o --filename=f --rw=write --size=8k --bs=4k --numjobs=3 --ioengine=psync \
                --offset=4k --offset_increment=16k";
    place.json(args);
    let data = fs::read(place.0.join("f")).unwrap();
    assert_eq!(data.len(), 4096 + 2 * 16384 + 8192);
    let written = |block: usize| data[block * 4096..][..4096].iter().any(|byte| *byte != 0);
    let blocks: Vec<usize> = (0..data.len() / 4096).filter(|block| written(*block)).collect();
    assert_eq!(blocks, [1, 2, 5, 6, 9, 10]);
    // A third of 100 KiB is 33.3 KiB, rounded up to the block or to what was asked for.
    fs::write(place.0.join("g"), vec![1; 100 << 10]).unwrap();
    for (align, expected) in [("", 100 - 36), ("--offset_align=16k", 100 - 48)] {
        let job = place.job(&format!("--name=p --filename=g --offset=33% {align}"));
        assert_eq!(bytes(&job, "read"), expected << 10, "{align}");
    }
}

#[test]
fn size_in_percent_and_io_size_and_number_ios_and_loops_set_the_amount() {
    let place = Place::new("amount");
    fs::write(place.0.join("f"), vec![1; 1 << 20]).unwrap();
    let amount = |args: &str| bytes(&place.job(&format!("--name=a --filename=f {args}")), "read");
    assert_eq!(amount("--size=50%"), 512 << 10);
    assert_eq!(amount("--size=100% --io_size=25%"), 256 << 10);
    assert_eq!(amount("--io_limit=2m"), 2 << 20);
    assert_eq!(amount("--number_ios=7"), 7 * 4096);
    assert_eq!(amount("--loops=3 --size=64k --rw=randread"), 192 << 10);
}

#[test]
fn zonemode_strided_reads_only_its_zones() {
    let place = Place::new("zones");
    let args = "--name=z --filename=f --size=256k --bs=4k --zonemode=strided --zonesize=8k \
                --zonerange=8k --zoneskip=24k --ioengine=psync --io_size=64k";
    place.job(&format!("{args} --rw=write"));
    let data = fs::read(place.0.join("f")).unwrap();
    let written = |block: &usize| data[block * 4096..][..4096].iter().any(|byte| *byte != 0);
    let blocks: Vec<usize> = (0..64).filter(written).collect();
    assert!(blocks.iter().all(|block| block % 8 < 2) && blocks.len() == 16, "{blocks:?}");
    let refused = place.refused("--name=z --size=1m --zoneskip=4k");
    assert!(refused.contains("add zonemode=strided"), "{refused}");
}

#[test]
fn randrepeat_and_randseed_fix_the_sequence() {
    let place = Place::new("seed");
    let touched = |args: &str| {
        fs::remove_file(place.0.join("f")).ok();
        let common =
            "--name=s --filename=f --rw=randwrite --size=4m --io_size=64k --ioengine=psync";
        place.job(&format!("{common} {args}"));
        let data = fs::read(place.0.join("f")).unwrap();
        let blocks = data.chunks(4096).map(|block| block.iter().any(|byte| *byte != 0));
        blocks.collect::<Vec<bool>>()
    };
    let usual = touched("");
    assert_eq!(usual.iter().filter(|block| **block).count(), 16);
    assert_eq!(touched(""), usual);
    assert_ne!(touched("--randseed=7"), usual);
    assert_eq!(touched("--randseed=7"), touched("--randseed=7 --randrepeat=0"));
    assert_ne!(touched("--randrepeat=0"), usual);
    assert_ne!(touched("--allrandrepeat=0"), usual);
}

#[test]
fn norandommap_repeats_blocks_and_softrandommap_keeps_the_map() {
    let place = Place::new("map");
    let holes = |args: &str| {
        fs::remove_file(place.0.join("f")).ok();
        place.job(&format!(
            "--name=m --filename=f --rw=randwrite --size=1m --fallocate=truncate {args}"
        ));
        256 - fs::metadata(place.0.join("f")).unwrap().blocks() / 8
    };
    assert_eq!(holes(""), 0);
    assert_eq!(holes("--softrandommap=1"), 0);
    assert_eq!(holes("--random_generator=lfsr --norandommap"), 0);
    // A random draw leaves out about one block in e.
    let left = holes("--norandommap");
    assert!((60..130).contains(&left), "{left}");
    let left = holes("--random_generator=tausworthe64 --norandommap");
    assert!((60..130).contains(&left), "{left}");
}

#[test]
fn fill_device_is_refused_where_nothing_is_written() {
    let place = Place::new("fill");
    assert!(place.refused("--name=f --size=1m --fill_device=1").contains("use rw=write"));
    let job = place.job("--name=f --size=64k --rw=write --fill_device=1 --ioengine=psync");
    assert_eq!(bytes(&job, "write"), 64 << 10);
}

/// The figures are those of fio 3.33.
#[test]
fn rw_with_a_gap_ends_where_no_whole_block_is_left() {
    let place = Place::new("gap");
    let done = |args: &str| {
        let job = place.job(&format!("--name=g --ioengine=null {args}"));
        bytes(&job, "read")
    };
    // The 86th block would begin half a block before the end.
    assert_eq!(done("--size=128m --rw=read:512k --bs=1m --norandommap"), 85 << 20);
    // Here the last gap ends where the file does, and it starts over.
    assert_eq!(done("--size=1m --rw=read:4k --bs=4k"), 1 << 20);
    assert_eq!(done("--size=128m --rw=read:512k --bs=1m --io_size=128m"), 128 << 20);
}
