//! Makes the arena of every shard known to the rings of all others.
//!
//! Data flow: arenas of shards that run → a call on each shard → [`Shard::register`], which
//! clones what was pinned once, or pins it again where the kernel cannot.
//!
//! Not here: cloning itself (`ring::kernel`), finding a buffer's entry (`shard::regions`).

use super::Engine;
use crate::answer::ask;
use crate::buffer::Arena;
use crate::error::EngineError;
use crate::shard::Shard;

impl Engine {
    /// Registers each of `arenas` with every shard; its own is known to it. What a ring cannot
    /// register goes unregistered there, which its features tell.
    pub(super) fn share(&self, arenas: &[Arena]) -> Result<(), EngineError> {
        let start = |thread: &super::ShardThread| {
            let (teller, asked) = ask(|| Err(EngineError::Closed));
            let arenas = arenas.to_vec();
            let register = move |shard: &Shard| {
                for arena in &arenas {
                    shard.register(arena);
                }
                teller.tell(Ok(()));
            };
            thread.control.send(Box::new(register)).map(|()| asked)
        };
        // All at the same time, then all waited for.
        let started: Vec<_> = self.shards.iter().map(start).collect();
        started.into_iter().try_for_each(|asked| asked?.wait())
    }
}

#[cfg(test)]
#[allow(clippy::print_stdout, reason = "a test says what it saw")]
mod tests {
    use mfio_core::block_on;

    use super::super::Shards;
    use super::*;
    use crate::ring::RingKind;
    use crate::target::{DirectMode, OpenOptions};

    /// What an op over the first page of `buffer` would name on this shard.
    fn fixed_index(shard: &Shard, arena: &Arena) -> Option<u16> {
        let mut buffer = arena.alloc(4096).unwrap();
        let region = Some(arena.id());
        shard.fixed_index(buffer.as_mut_ptr(), 4096, region)
    }

    #[test]
    fn packet_over_the_arena_of_one_shard_is_fixed_on_another() {
        for shares in [false, true] {
            let builder = Engine::builder().shards(Shards::Count(2)).share_arenas(shares);
            let engine = builder.build().unwrap();
            let arenas = engine.run_on_each(|shard| async move { shard.arena().clone() }).unwrap();
            let there = arenas[0].clone();
            let found = engine.spawn_on(1, move |shard| async move {
                let cloned = shard.features().in_use.contains(&"cloned buffers");
                (shard.features().kind, fixed_index(&shard, &there), cloned, shard.features())
            });
            let (kind, index, cloned, features) = found.unwrap().join().unwrap();
            let whole = arenas[0].region().registered_bytes() == arenas[0].region().len_bytes();
            if kind == RingKind::Kernel && whole {
                assert_eq!(index.is_some(), shares, "{features:?}");
            }
            println!("shared: {shares}, cloned: {cloned}, entry {index:?}, {:?}", features.in_use);

            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("data");
            std::fs::write(&path, vec![9; 8192]).unwrap();
            let options = OpenOptions::new().lock(false).direct(DirectMode::PreferDirect);
            let remote = engine.remote();
            let file = block_on(&remote, remote.open_on(1, &path, &options)).unwrap().unwrap();
            let page = arenas[0].alloc(4096).unwrap();
            let (read, page) = block_on(&file, file.read_exact_at(4096, page)).unwrap();
            read.unwrap();
            assert!(page.iter().all(|&byte| byte == 9));
            drop((file, page, arenas));
            assert!(engine.shutdown().is_clean());
        }
    }
}
