//! What names cost: opens of a path that is cached, facts, and renames there and back, by the ring
//! and by threads, in turns.
//!
//! `cargo run --release -p mfio-engine --example names [DIRECTORY]`, under `taskset -c 0`.
//! Time of the wall and of all threads of the process and the kernel's workers for it, per op, as
//! medians of 9 rounds. With more than one at a time, that many are under way at once.
#![allow(clippy::print_stdout, reason = "an example says what it measured")]
#![allow(clippy::disallowed_methods, reason = "a measurement reads the clock")]

mod outcome;

use std::error::Error;
use std::future::{Future as _, poll_fn};
use std::path::PathBuf;
use std::process::ExitCode;
use std::task::Poll;
use std::time::Instant;

use mfio_engine::fs::{ShardDir, ShardFs};
use mfio_engine::ring::AutoRing;
use mfio_engine::ring::auto::{AutoConfig, Backend};
use mfio_engine::{Config, Shard};
use mfio_rt::{DirHandle, Follow, Fs, OpenOptions};
use nix::sys::resource::{UsageWho, getrusage};

const OPS: usize = 2048;
const ROUNDS: usize = 9;
const DEPTHS: [usize; 2] = [1, 16];

type Failure = Box<dyn Error>;

#[derive(Clone, Copy, Debug)]
enum What {
    Open,
    Look,
    Rename,
}

async fn once(dir: &ShardDir, what: What, name: &str) -> Result<(), mfio_rt::Error> {
    match what {
        What::Open => drop(dir.open_file("file", &OpenOptions::new().read(true)).await?),
        What::Look => drop(dir.metadata("file", Follow::Yes).await?),
        What::Rename => {
            let moved = format!("{name}-moved");
            dir.rename(name, dir, &moved).await?;
            dir.rename(&moved, dir, name).await?;
        }
    }
    Ok(())
}

/// Runs [`OPS`] of them, `depth` at a time.
async fn many(dir: &ShardDir, what: What, depth: usize) -> Result<(), mfio_rt::Error> {
    let lane = async |lane: usize| {
        let name = format!("name{lane}");
        for _ in 0..OPS / depth {
            once(dir, what, &name).await?;
        }
        Ok::<_, mfio_rt::Error>(())
    };
    let mut lanes: Vec<_> = (0..depth).map(|at| Some(Box::pin(lane(at)))).collect();
    poll_fn(|cx| {
        for at in &mut lanes {
            let Some(lane) = at else { continue };
            if let Poll::Ready(ended) = lane.as_mut().poll(cx) {
                ended?;
                *at = None;
            }
        }
        if lanes.iter().all(Option::is_none) { Poll::Ready(Ok(())) } else { Poll::Pending }
    })
    .await
}

/// Microseconds of processor time, of this process with all its threads.
fn processor_us() -> Result<f64, Failure> {
    let used = getrusage(UsageWho::RUSAGE_SELF)?;
    let (user, system) = (used.user_time(), used.system_time());
    let us = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 * 1e6 + time.tv_usec() as f64;
    Ok(us(user) + us(system))
}

/// Microseconds per op: of the wall, of processors.
fn measure(fs: &ShardFs, what: What, depth: usize) -> Result<(f64, f64), Failure> {
    let (started, before) = (Instant::now(), processor_us()?);
    mfio_core::block_on(fs, many(fs.current_dir(), what, depth))??;
    let wall_us = started.elapsed().as_nanos() as f64 / 1e3;
    Ok((wall_us / OPS as f64, (processor_us()? - before) / OPS as f64))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() -> ExitCode {
    outcome::told(try_main())
}

fn try_main() -> Result<(), Failure> {
    let root = std::env::args().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let root = root.join(format!("mfio-names-{}", std::process::id()));
    std::fs::create_dir(&root)?;
    std::fs::write(root.join("file"), "text")?;
    for lane in 0..DEPTHS[1] {
        std::fs::write(root.join(format!("name{lane}")), "")?;
    }
    let on = |backend| -> Result<ShardFs, Failure> {
        let ring = AutoRing::new(backend, &AutoConfig::new(64))?;
        let shard = Shard::with_ring(ring, &Config::new())?;
        Ok(ShardFs::at(&shard, &root)?)
    };
    let (ring, threads) = (on(Backend::RequireRing)?, on(Backend::Threads)?);
    println!("{:<14} {:>5}  wall us: ring threads ratio  cpu us: ring threads ratio", "", "depth");
    for what in [What::Open, What::Look, What::Rename] {
        for depth in DEPTHS {
            let mut seen: [Vec<f64>; 4] = Default::default();
            for _ in 0..ROUNDS {
                for (at, fs) in [&ring, &threads].into_iter().enumerate() {
                    let (wall, processor) = measure(fs, what, depth)?;
                    seen[at].push(wall);
                    seen[2 + at].push(processor);
                }
            }
            let [wall, wall_threads, cpu, cpu_threads] = seen.map(median);
            println!(
                "{:<14} {depth:>5}  {wall:>13.2} {wall_threads:>7.2} {:>5.2}  \
                 {cpu:>12.2} {cpu_threads:>7.2} {:>5.2}",
                format!("{what:?}"),
                wall_threads / wall,
                cpu_threads / cpu
            );
        }
    }
    drop((ring, threads));
    std::fs::remove_dir_all(&root)?;
    Ok(())
}
