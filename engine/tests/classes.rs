//! Classes of traffic: what they do to each other on a device with a service time, and who has
//! room where. Times are those of the simulation, so the bar holds on every machine.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test says what it saw")]

use mfio_core::{CompletionQueue, Packet, PacketIo, Read, Write};
use mfio_engine::buffer::{ArenaBuf, ArenaConfig, SizeClass};
use mfio_engine::ring::Wait;
use mfio_engine::ring::sim::SimRing;
use mfio_engine::ring::sim::{FaultRates, FileSpec, Random, Service, SimConfig, SimDevice};
use mfio_engine::{AsBackground, AsLog, Class, ClassLimits, Config, File, Shard};

const PAGE: usize = 4096;
const PAGES: u32 = 1024;

fn rig(sim: SimConfig, config: &Config) -> (Shard<SimRing>, File<SimRing>) {
    let device = SimDevice::new(&[FileSpec::direct(PAGES * 4096)]);
    let ring = SimRing::new(sim, &device);
    let shard = Shard::with_ring(ring, config).unwrap();
    let file = shard.adopt_simulated("sim", device.fd(0), device.geometry(0));
    (shard, file)
}

fn config(classes: ClassLimits) -> Config {
    let arena = ArenaConfig::new(vec![SizeClass { bytes: 4096, count: 2048 }]);
    Config { in_flight_max: 128, arena, classes, ..Config::new() }
}

/// What one run has shown.
#[derive(Clone, Copy, Debug)]
struct Run {
    foreground: usize,
    p99_ns: u64,
    /// Background ops per second.
    background_rate: f64,
}

/// Foreground reads one at a time, at random moments; background reads as many as go.
fn run(seed: u64, service: Service, ops: usize, background: bool, adaptive: bool) -> Run {
    let sim = SimConfig {
        service: Some(service),
        sq_entries: 128,
        cq_entries: 256,
        faults: FaultRates::NONE,
        ..SimConfig::calm(seed)
    };
    let most = if adaptive { 64 } else { 128 };
    let classes = ClassLimits { adaptive, background_in_flight_max: most, ..ClassLimits::new() };
    let (shard, file) = rig(sim, &config(classes));
    let scan = file.with_class(Class::Background);
    let mut random = Random::new(seed ^ 0xf0);
    let mut at = || u64::from(random.below(PAGES)) * 4096;
    let mut foreground = CompletionQueue::<Read, ArenaBuf>::new();
    let mut others = CompletionQueue::<Read, ArenaBuf>::new();
    if background {
        for tag in 0..512 {
            let packet = Packet::new(shard.arena().alloc(PAGE).unwrap());
            others.send(&scan, at(), packet, tag).unwrap();
        }
    }
    let mut gaps = Random::new(seed ^ 0xa5);
    let mut gap_ns = || u64::from(gaps.between(1_000, 600_000));
    let (mut spare, mut took_ns) = (Some(Packet::new(shard.arena().alloc(PAGE).unwrap())), vec![]);
    let start_ns = shard.now_ns();
    let (mut next_ns, mut sent_ns, mut scanned) = (start_ns + gap_ns(), 0, 0_u64);
    while took_ns.len() < ops {
        let now_ns = shard.now_ns();
        if now_ns >= next_ns
            && let Some(packet) = spare.take()
        {
            sent_ns = now_ns;
            foreground.send(&file, at(), packet, 0).unwrap();
        }
        let deadline_ns = spare.is_some().then_some(next_ns);
        let wait = if background || spare.is_none() {
            Wait { min: 1, deadline_ns }
        } else {
            // Nothing is in flight: the clock is moved by a timer.
            let mut pause = shard.sleep_until(next_ns);
            let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
            assert!(std::pin::Pin::new(&mut pause).poll(&mut cx).is_pending());
            shard.turn(Wait::at_least(1)).unwrap();
            continue;
        };
        shard.turn(wait).unwrap();
        if let Some((_, done)) = foreground.pop() {
            let now_ns = shard.now_ns();
            took_ns.push(now_ns - sent_ns);
            next_ns = now_ns + gap_ns();
            spare = Some(done.into_packet());
        }
        while let Some((tag, done)) = others.pop() {
            scanned += 1;
            others.send(&scan, at(), done.into_packet(), tag).unwrap();
        }
    }
    let seconds = (shard.now_ns() - start_ns) as f64 / 1e9;
    took_ns.sort_unstable();
    Run {
        foreground: took_ns.len(),
        p99_ns: took_ns[took_ns.len() * 99 / 100],
        background_rate: scanned as f64 / seconds,
    }
}

/// The rate of the device when it is kept busy: `channels` over the mean of the service time.
fn full_rate(service: Service) -> f64 {
    let span_ns = f64::from(service.most_ns - service.least_ns);
    f64::from(service.channels) * 1e9 / (f64::from(service.least_ns) + span_ns / 3.0)
}

fn compare(seed: u64, service: Service, adaptive: bool) -> (f64, f64) {
    let idle = run(seed, service, 6_000, false, adaptive);
    let busy = run(seed, service, 6_000, true, adaptive);
    let ratio = busy.p99_ns as f64 / idle.p99_ns as f64;
    // The foreground takes its part of the device.
    let fraction = busy.background_rate / full_rate(service);
    println!(
        "{service:?} adaptive {adaptive}: {idle:?} {busy:?} ratio {ratio:.2} of {fraction:.2}"
    );
    assert_eq!(idle.foreground, busy.foreground);
    (ratio, fraction)
}

const DEVICES: [Service; 4] = [
    Service { channels: 8, least_ns: 60_000, most_ns: 160_000 },
    Service { channels: 4, least_ns: 60_000, most_ns: 160_000 },
    Service { channels: 16, least_ns: 80_000, most_ns: 100_000 },
    Service { channels: 32, least_ns: 20_000, most_ns: 200_000 },
];

#[test]
fn background_scan_leaves_the_foreground_its_latency() {
    for service in DEVICES {
        for seed in 0..2 {
            let (ratio, fraction) = compare(seed, service, true);
            assert!(ratio <= 1.5, "{service:?}: p99 is {ratio:.2} times that of an idle device");
            assert!(fraction >= 0.85, "{service:?}: the scan gets {fraction:.2} of the device");
        }
    }
}

/// The bar is one that an engine can miss.
#[test]
fn background_scan_without_a_limit_takes_the_foreground_its_latency() {
    for service in DEVICES {
        let (ratio, _) = compare(1, service, false);
        assert!(ratio > 1.5, "{service:?}: {ratio:.2}");
    }
}

#[test]
fn background_without_foreground_has_the_device_to_itself() {
    let service = DEVICES[0];
    let sim = SimConfig { service: Some(service), ..SimConfig::calm(1) };
    let (shard, file) = rig(sim, &config(ClassLimits::new()));
    let mut scan = CompletionQueue::<Read, ArenaBuf>::new();
    for tag in 0..256 {
        let packet = Packet::new(shard.arena().alloc(PAGE).unwrap());
        scan.send(&file, AsBackground(tag * 4096), packet, tag).unwrap();
    }
    let start_ns = shard.now_ns();
    let mut scanned = 0_u64;
    while scanned < 20_000 {
        shard.turn(Wait::at_least(1)).unwrap();
        while let Some((tag, done)) = scan.pop() {
            scanned += 1;
            scan.send(&file, AsBackground(tag * 4096), done.into_packet(), tag).unwrap();
        }
    }
    let rate = scanned as f64 * 1e9 / (shard.now_ns() - start_ns) as f64;
    assert!(rate > 0.97 * full_rate(service), "{rate} of {}", full_rate(service));
}

#[test]
fn full_background_backlog_refuses_neither_foreground_nor_log() {
    let classes =
        ClassLimits { background_backlog_max: 4, log_backlog_max: 2, ..ClassLimits::new() };
    let config = Config { in_flight_max: 2, backlog_max: 3, ..config(classes) };
    // One op after the other: they complete in the order in which they are started.
    let service = Some(Service { channels: 1, least_ns: 100_000, most_ns: 100_000 });
    let (shard, file) = rig(SimConfig { service, ..SimConfig::calm(1) }, &config);
    let mut queue = CompletionQueue::<Write, ArenaBuf>::new();
    let page = || Packet::new(shard.arena().alloc(PAGE).unwrap());
    let scan = file.with_class(Class::Background);
    let log = file.with_class(Class::Log);
    let room = |file: &File<SimRing>| {
        let room = file.has_room();
        assert_eq!(room, PacketIo::<Write, u64>::reserve(file, 1));
        room
    };
    let mut sent = [0; 3];
    for at in 0..20 {
        sent[2] += u32::from(queue.send(&scan, at * 4096, page(), 2).is_ok());
    }
    assert!(!room(&scan) && room(&file) && room(&log));
    PacketIo::<Write, u64>::release(&file, 1);
    PacketIo::<Write, u64>::release(&log, 1);
    for at in 0..20 {
        sent[1] += u32::from(queue.send(&file, at * 4096, page(), 1).is_ok());
        sent[0] += u32::from(queue.send(&file, AsLog(at * 4096), page(), 0).is_ok());
    }
    // One background op is in flight and one foreground op; the rest waits in three queues.
    assert_eq!(sent, [2, 4, 5]);
    let mut order = Vec::new();
    while !shard.is_idle() {
        shard.turn(Wait::at_least(1)).unwrap();
        while let Some((tag, done)) = queue.pop() {
            assert!(done.is_ok());
            order.push(tag);
        }
    }
    assert_eq!(order.len(), 11);
    assert_eq!(order[..4], [2, 1, 0, 0], "log goes first: {order:?}");
}

/// Where both wait for slots, bytes go by shares.
#[test]
fn shares_divide_the_slots_where_both_classes_wait() {
    let classes = ClassLimits {
        adaptive: false,
        foreground_share: 3,
        background_share: 1,
        ..ClassLimits::new()
    };
    let config = Config { in_flight_max: 4, ..config(classes) };
    let (shard, file) = rig(SimConfig::calm(1), &config);
    let mut queue = CompletionQueue::<Read, ArenaBuf>::new();
    for at in 0..400 {
        let page = || Packet::new(shard.arena().alloc(PAGE).unwrap());
        queue.send(&file, at * 4096, page(), 0).unwrap();
        queue.send(&file, AsBackground(at * 4096), page(), 1).unwrap();
    }
    let mut counts = [0_u32; 2];
    while counts[0] < 300 {
        shard.turn(Wait::at_least(1)).unwrap();
        while let Some((tag, _done)) = queue.pop() {
            counts[usize::try_from(tag).unwrap()] += 1;
        }
    }
    assert!((80..130).contains(&counts[1]), "{counts:?}");
}
