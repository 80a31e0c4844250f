//! F32: memory that may not be locked. The stage is `RLIMIT_MEMLOCK`, as `MFIO_FAULT_LIMIT`
//! says in bytes, without `CAP_IPC_LOCK`.

use mfio_engine::buffer::HugePages;
use mfio_engine::ring::RingKind;
use mfio_engine::ring::auto::Backend;
use mfio_engine::{Config, DirectMode, Shard};

use crate::stage::{Skip, file_options, path, ring, told, verified_work};

/// Not even the queues of a ring may be had (`ENOMEM`): threads stand in, and one line says why.
fn without_a_ring(shard: &Shard, limit_bytes: usize) -> Result<(), Skip> {
    let features = shard.features();
    let [text] = &features.degraded[..] else { panic!("said once: {features:?}") };
    if !text.contains("ENOMEM from io_uring_setup") {
        return Err(Skip(format!("no io_uring, so nothing is registered: {text}")));
    }
    assert!(limit_bytes < 64 << 10, "{text}");
    let limit = format!("RLIMIT_MEMLOCK (ulimit -l, LimitMEMLOCK=), now {limit_bytes} bytes");
    assert!(text.contains(&limit) && text.contains("blocking threads"), "{text}");
    println!("limit {limit_bytes}: {text}");
    work(shard);
    Ok(())
}

fn work(shard: &Shard) {
    let file = shard.open(&path().join("file"), &file_options(DirectMode::PreferDirect)).unwrap();
    shard.block_on(verified_work(&file, 32)).unwrap();
    assert_eq!(shard.shutdown(), 0);
}

fn limited(limit_bytes: usize, huge_pages: HugePages) -> Result<(), Skip> {
    let mut config = Config::new();
    config.arena.huge_pages = huge_pages;
    let shard = Shard::with_ring(ring(Backend::Auto), &config).unwrap();
    let features = shard.features();
    if features.kind != RingKind::Kernel {
        return without_a_ring(&shard, limit_bytes);
    }
    let (registered, all) = (shard.arena().region().registered_bytes(), shard.arena().bytes());
    let said = features.degraded.iter().filter(|text| text.contains("RLIMIT_MEMLOCK"));
    let said: Vec<_> = said.collect();
    println!("{huge_pages:?}, limit {limit_bytes}: {registered} of {all} bytes registered");
    assert!(registered <= limit_bytes.min(all));
    if registered < all {
        let [text] = said[..] else { panic!("said once: {features:?}") };
        let (need, limit) = (all.to_string(), limit_bytes.to_string());
        assert!(text.contains(&need) && text.contains(&limit), "it gives both: {text}");
    } else {
        assert!(said.is_empty(), "{features:?}");
    }
    if huge_pages == HugePages::Never {
        // A fair part of what is allowed: registration is halved until it fits.
        assert!(registered >= limit_bytes.min(all) / 2, "{registered} of {limit_bytes}");
    }
    work(&shard);
    Ok(())
}

pub(crate) fn check() -> Result<(), Skip> {
    let limit_bytes = told("MFIO_FAULT_LIMIT").parse().unwrap();
    limited(limit_bytes, HugePages::Never)?;
    limited(limit_bytes, Config::new().arena.huge_pages)
}
