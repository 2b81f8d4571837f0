//! Pool, transfer queue and ring together, as a step uses them: memory, data up, a kernel, results down.

#[allow(dead_code, reason = "these tests need a part of it")]
#[path = "transfer_queue/support.rs"]
mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bessemer_hal::fault::{Fault, FaultDevice, FaultPlan};
use bessemer_hal::{Device, Event};
use bessemer_runtime::{
    CommandRing, CommandRingConfig, MemoryPool, MemoryPoolConfig, RingWork, TransferQueue, TransferResult,
};

use support::*;

/// Values of a step.
const COUNT: usize = 1000;
const BYTES: u64 = 4 * COUNT as u64;

struct Three {
    rig: Rig,
    pool: MemoryPool,
    queue: TransferQueue,
    ring: CommandRing,
}

impl Three {
    /// Two heaps of 64 MB, two transfers and two submissions under way.
    fn new(rig: Rig) -> Self {
        let heaps = MemoryPoolConfig {
            heap_size_mb: 64,
            max_heap_size_mb: 64,
            num_heaps: 2,
            warmup_buffer_sizes_mb: vec![],
            ..MemoryPoolConfig::default()
        };
        let slots = CommandRingConfig { ring_size: 2, max_wait_ms: 100, ..CommandRingConfig::default() };
        let pool = MemoryPool::new(rig.device.clone(), heaps, None).unwrap();
        let queue = queue(&rig.device, |config| config.max_pending_ops = 2);
        let ring = CommandRing::new(rig.device.clone(), slots, true).unwrap();
        Self { rig, pool, queue, ring }
    }

    fn all() -> impl Iterator<Item = Self> {
        Rig::all().into_iter().map(Self::new)
    }

    /// What the device makes of `seed` in buffers of at least `bytes`, once `after` is reached.
    fn step(&self, seed: u32, bytes: u64, after: Option<(Event, u64)>) -> TransferResult<Vec<u8>> {
        let mut input = self.pool.acquire("input", bytes)?;
        let mut out = self.pool.acquire("out", bytes)?;
        let (from, to) = (input.slice(0, BYTES)?, out.slice(0, BYTES)?);
        let up = self.queue.upload(&from, &words(&[seed; COUNT]), after)?;
        let (event, value) = up.event();
        input.keep_until((&event, value));
        let commands = self.rig.scaling(&from, &to, 3)?;
        let computed = [(self.rig.device.create_event(0)?, 1)];
        let wait = [(event, value)];
        let work = RingWork { commands: &commands, wait: &wait, signal: &computed, reused: false };
        let submission = self.ring.submit(work)?;
        input.keep_until(&submission);
        out.keep_until(&submission);
        let [done] = computed;
        let mut down = self.queue.download(&to, Some(done))?;
        let (event, value) = down.ticket().event();
        self.pool.release_after([input, out], (&event, value));
        self.queue.wait_for_bytes(&mut down, LONG)
    }

    fn check(&self, seed: u32, bytes: u64) {
        assert!(self.step(seed, bytes, None).unwrap() == expected(seed), "step {seed}");
    }

    /// Nothing is out, under way or unaccounted for.
    fn end(&self) {
        self.queue.wait_for_all(LONG).unwrap();
        self.ring.wait_for_all(LONG).unwrap();
        let report = self.pool.leak_report();
        assert!(report.is_clean() && report.live == 0, "{report:?}");
        assert_eq!(report.acquired, report.released);
        let (ring, queue) = (self.ring.get_statistics(), self.queue.get_metrics());
        assert_eq!((ring.in_flight, ring.available_count), (0, 2));
        assert_eq!(ring.total_submitted, ring.total_completed);
        assert_eq!(queue.queue_depth, 0);
    }
}

/// Waits until something holds that comes about by itself.
fn until(what: &str, holds: impl Fn() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < LONG, "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn expected(seed: u32) -> Vec<u8> {
    words(&[seed.wrapping_mul(3).wrapping_add(1); COUNT])
}

#[test]
fn steps_reuse_their_memory_and_everything_adds_up() {
    for three in Three::all() {
        for seed in 1..=20 {
            three.check(seed, BYTES);
        }
        three.end();
        let (pool, ring) = (three.pool.statistics(), three.ring.get_statistics());
        assert_eq!((pool.total_acquired, pool.device_allocations, pool.placed_buffers), (40, 1, 2));
        assert_eq!((pool.hit_rate, pool.fallback_allocations), (0.95, 0));
        assert_eq!((ring.total_acquired, ring.total_submitted, ring.exhaustion_events), (20, 20, 0));
        let queue = three.queue.get_metrics();
        assert_eq!((queue.total_uploads, queue.total_downloads, queue.failed_transfers), (20, 20, 0));
        assert_eq!((queue.bytes_up, queue.bytes_down), (20 * BYTES, 20 * BYTES));
    }
}

#[test]
fn all_eight_settings_compute_the_same() {
    for three in Three::all() {
        for setting in 0..8 {
            three.pool.set_enabled(setting & 1 != 0);
            three.queue.set_enabled(setting & 2 != 0);
            three.ring.set_enabled(setting & 4 != 0);
            for seed in 0..3 {
                three.check(100 * setting + seed, BYTES);
            }
        }
        three.end();
        // Half of the settings are without heaps, without the queue for copies, with a wait for each submission.
        let pool = three.pool.statistics();
        assert_eq!((pool.total_acquired, pool.fallback_allocations), (48, 0));
        assert_eq!(three.queue.get_metrics().plain_transfers, 24);
        assert!(three.ring.get_statistics().wait_events >= 12);
    }
}

#[test]
fn threads_share_all_three_while_another_one_switches_them() {
    for three in Three::all() {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for turn in 0_u32.. {
                    if done.load(Ordering::SeqCst) {
                        break;
                    }
                    three.pool.set_enabled(turn & 1 != 0);
                    three.queue.set_enabled(turn & 2 != 0);
                    three.ring.set_enabled(turn & 4 != 0);
                    three.pool.trim();
                    std::thread::yield_now();
                }
            });
            let three = &three;
            let work =
                |thread: u32| move || (0..25).for_each(|seed| three.check(1000 * thread + seed, BYTES));
            let threads: Vec<_> = (1..4).map(|thread| scope.spawn(work(thread))).collect();
            let outcomes: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
            done.store(true, Ordering::SeqCst);
            outcomes.into_iter().for_each(|outcome| outcome.unwrap());
        });
        three.end();
        assert_eq!(three.ring.get_statistics().total_submitted, 75);
        assert_eq!(three.pool.statistics().total_acquired, 150);
    }
}

/// A device that does nothing for a while: memory, transfers and submissions run short, and all of them come back.
#[test]
fn all_three_run_short_and_recover() {
    for three in Three::all() {
        let gate = three.rig.device.create_event(0).unwrap();
        let held: Vec<_> = (0..2).map(|_| three.pool.acquire("held", 64 << 20).unwrap()).collect();
        let (from, to) = (three.rig.buffer(BYTES), three.rig.buffer(BYTES));
        let commands = three.rig.scaling(&from, &to, 3).unwrap();
        let closed = [(gate.clone(), 1)];
        let work = RingWork { commands: &commands, wait: &closed, signal: &[], reused: false };
        // The third of them waits for 100 ms, and goes ahead.
        let submissions: Vec<_> = (0..3).map(|_| three.ring.submit(work).unwrap()).collect();
        std::thread::scope(|scope| {
            let step = scope.spawn(|| three.step(7, BYTES, Some((gate.clone(), 1))));
            std::thread::sleep(Duration::from_millis(50));
            assert!(!step.is_finished());
            gate.signal(1);
            assert!(step.join().unwrap().unwrap() == expected(7));
        });
        submissions.iter().for_each(|submission| assert!(submission.wait(LONG).is_ok()));
        let (pool, ring) = (three.pool.statistics(), three.ring.get_statistics());
        assert_eq!((pool.fallback_allocations, pool.exhaustion_events), (2, 2), "the heaps are held");
        assert!(ring.timeout_events >= 1 && ring.exhaustion_events >= 1, "{ring:?}");
        drop(held);
        three.check(8, BYTES);
        assert_eq!(three.pool.statistics().fallback_allocations, 2);
        three.end();
    }
}

#[test]
fn too_large_for_a_heap_is_no_obstacle_to_a_step() {
    for three in Three::all() {
        three.check(3, 65 << 20);
        three.check(4, BYTES);
        assert_eq!(three.pool.statistics().fallback_allocations, 2);
        three.end();
    }
}

/// Whatever fails: a step is right or tells its error, and nothing is lost by it.
#[test]
fn steps_among_faults_are_right_or_fail_and_leak_nothing() {
    let mut rig = Rig::cpu();
    let faulty = FaultDevice::new(rig.device.clone());
    rig.device = faulty.clone();
    let three = Three::new(rig);
    let mut fine = 0;
    for seed in 0..300 {
        let kind =
            [Fault::HeapMemory, Fault::BufferMemory, Fault::FailureBefore, Fault::FailureAfter][seed % 4];
        faulty.arm(FaultPlan::new(seed as u64).with(kind, 0.3));
        let outcome = three.step(seed as u32, BYTES, None);
        faulty.disarm();
        if let Ok(bytes) = outcome {
            assert!(bytes == expected(seed as u32), "step {seed}");
            fine += 1;
        }
        if seed % 10 == 0 {
            // Heaps that were refused are asked for again.
            three.pool.set_enabled(false);
            three.pool.set_enabled(true);
        }
    }
    assert!((60..290).contains(&fine), "{fine} of 300 were right");
    three.check(1, BYTES);
    three.end();
    assert!(three.queue.get_metrics().failed_transfers > 0 && three.ring.get_statistics().total_failed > 0);
}

/// Steps that wait, for the device or for each other, and steps that are anywhere on their way.
#[test]
fn a_lost_device_fails_every_step_and_all_memory_comes_back() {
    for round in 0..20 {
        let mut rig = Rig::cpu();
        let inner = rig.device.clone();
        let before = inner.allocated();
        let faulty = FaultDevice::new(inner.clone());
        rig.device = faulty.clone();
        let (three, gate) = (Three::new(rig), faulty.create_event(0).unwrap());
        std::thread::scope(|scope| {
            let (three, gate) = (&three, &gate);
            let step = |seed| scope.spawn(move || three.step(seed, BYTES, Some((gate.clone(), 1))));
            let steps = [step(0), step(1), step(2)];
            if round % 2 == 0 {
                until("transfers have all slots", || three.queue.get_metrics().queue_depth == 2);
            }
            std::thread::sleep(Duration::from_micros(50) * round);
            faulty.lose("as ordered by the test");
            assert!(steps.into_iter().all(|step| step.join().unwrap().is_err()), "each was told");
        });
        assert!(three.step(9, BYTES, None).is_err());
        three.end();
        drop((three, gate, faulty));
        // The device inside ends what it was given, a moment after it was told of as lost.
        until("all memory came back", || inner.allocated() == before);
    }
}
