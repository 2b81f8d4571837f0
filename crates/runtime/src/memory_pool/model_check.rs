//! The pool under a scheduler that tries the turns of threads.
//!
//! The pool's own source is compiled a second time here, with shuttle's lock instead of the standard library's: every
//! lock is a point where any other thread may go on, so that thousands of interleavings of decision, device call and
//! books are tried. The device is the no-op device; what is checked is the real code above it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use bessemer_hal::noop::NoopDevice;
use bessemer_hal::{Device, Event};
use shuttle::thread;

use super::{MemoryPoolConfig, completion, config, exhaustion_log, ledger, statistics};

mod sync {
    pub(super) use shuttle::sync::Mutex;
}

#[allow(dead_code, clippy::duplicate_mod, reason = "the pool again, with another lock")]
#[path = "pool.rs"]
mod pool;
#[allow(dead_code, clippy::duplicate_mod, reason = "the pool again, with another lock")]
#[path = "pool_buffer.rs"]
mod pool_buffer;

use pool::MemoryPool;
use pool_buffer::PoolBuffer;

/// Interleavings tried by each test.
const TRIES: usize = 1500;

/// The memory that is lent now. Not shuttle's lock: looking must not change the turns.
#[derive(Default)]
struct Lent(Mutex<BTreeSet<u64>>);

impl Lent {
    fn with<R>(&self, view: impl FnOnce(&mut BTreeSet<u64>) -> R) -> R {
        view(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn lend(&self, buffer: &PoolBuffer) {
        assert!(self.with(|lent| lent.insert(buffer.id())), "{buffer:?} was lent twice");
    }

    fn back(&self, buffer: &PoolBuffer) {
        self.with(|lent| lent.remove(&buffer.id()));
    }
}

fn small(num_heaps: usize) -> MemoryPoolConfig {
    MemoryPoolConfig { heap_size_mb: 64, num_heaps, warmup_buffer_sizes_mb: vec![], ..Default::default() }
}

struct Scene {
    pool: MemoryPool,
    device: Arc<NoopDevice>,
    event: Event,
    lent: Lent,
}

impl Scene {
    fn new(memory_mb: u64) -> Arc<Self> {
        let device = NoopDevice::new(Some(memory_mb << 20));
        let pool = MemoryPool::new(device.clone(), small(2), None).unwrap();
        let event = device.create_event(0).unwrap();
        Arc::new(Self { pool, device, event, lent: Lent::default() })
    }

    fn acquire(&self, mb: u64) -> PoolBuffer {
        let buffer = self.pool.acquire("test", mb << 20).unwrap();
        self.lent.lend(&buffer);
        buffer
    }

    fn release(&self, buffer: PoolBuffer) {
        self.lent.back(&buffer);
        drop(buffer);
    }

    /// Gives it back for the time when the event stands at `value`; lent again before that, it is lent twice.
    fn release_at(&self, buffer: PoolBuffer, value: u64) {
        self.pool.release_after([buffer], (&self.event, value));
    }

    /// The device reaches `value`, after which these may be lent again.
    fn reach(&self, value: u64, done: &[u64]) {
        self.lent.with(|lent| lent.retain(|id| !done.contains(id)));
        self.event.signal(value);
    }

    fn end(&self) {
        let report = self.pool.leak_report();
        assert!(report.is_clean(), "{report:?}");
        assert_eq!((report.live, report.acquired), (0, report.released));
        self.pool.set_enabled(false);
        assert_eq!(self.pool.statistics().bytes_reserved, 0);
        assert_eq!(self.device.allocated(), 0, "everything went back to the device");
    }
}

/// What one thread does.
type Body = Box<dyn FnOnce(&Scene) + Send>;

fn run(scene: &Arc<Scene>, threads: Vec<Body>) {
    let running: Vec<_> = threads
        .into_iter()
        .map(|body| {
            let scene = scene.clone();
            thread::spawn(move || body(&scene))
        })
        .collect();
    for thread in running {
        thread.join().unwrap();
    }
    scene.end();
}

#[test]
fn nothing_is_lent_twice() {
    shuttle::check_random(
        || {
            let worker = || -> Body {
                Box::new(|scene| {
                    for mb in [32, 16, 32] {
                        let first = scene.acquire(mb);
                        let second = scene.acquire(mb);
                        scene.release(first);
                        scene.release(second);
                    }
                })
            };
            run(&Scene::new(4096), vec![worker(), worker(), worker()]);
        },
        TRIES,
    );
}

#[test]
fn nothing_is_lent_before_the_device_is_done_with_it() {
    shuttle::check_random(
        || {
            let scene = Scene::new(4096);
            let mut threads: Vec<Body> = Vec::new();
            let first = scene.acquire(32);
            let second = scene.acquire(32);
            let ids = [first.id(), second.id()];
            threads.push(Box::new(move |scene| {
                scene.release_at(first, 1);
                scene.release_at(second, 2);
            }));
            threads.push(Box::new(move |scene| {
                scene.reach(1, &ids[..1]);
                thread::yield_now();
                scene.reach(2, &ids[1..]);
            }));
            threads.push(Box::new(|scene| {
                for _ in 0..3 {
                    let buffers = [scene.acquire(32), scene.acquire(32)];
                    scene.pool.poll();
                    for buffer in buffers {
                        scene.release(buffer);
                    }
                }
            }));
            run(&scene, threads);
        },
        TRIES,
    );
}

#[test]
fn switching_and_other_settings_lose_nothing() {
    shuttle::check_random(
        || {
            let worker = || -> Body {
                Box::new(|scene| {
                    for _ in 0..2 {
                        let first = scene.acquire(64);
                        let second = scene.acquire(1);
                        scene.release(first);
                        scene.release(second);
                    }
                })
            };
            let switch: Body = Box::new(|scene| {
                scene.pool.set_enabled(false);
                scene.pool.set_enabled(true);
                scene.pool.reconfigure(MemoryPoolConfig { heap_size_mb: 128, ..small(2) }).unwrap();
                scene.pool.trim();
                scene.pool.reconfigure(small(2)).unwrap();
            });
            run(&Scene::new(4096), vec![worker(), worker(), switch]);
        },
        TRIES,
    );
}

#[test]
fn a_device_without_memory_for_heaps_serves_directly() {
    shuttle::check_random(
        || {
            let worker = || -> Body {
                Box::new(|scene| {
                    for _ in 0..2 {
                        let buffer = scene.acquire(8);
                        scene.release(buffer);
                    }
                })
            };
            let scene = Scene::new(40);
            run(&scene, vec![worker(), worker(), worker()]);
            assert_eq!(scene.pool.statistics().fallback_allocations, 6);
        },
        TRIES / 3,
    );
}

/// Threads that need a heap at once share one.
#[test]
fn one_heap_is_reserved_for_all_who_need_one() {
    shuttle::check_random(
        || {
            let worker = || -> Body {
                Box::new(|scene| {
                    let buffer = scene.acquire(1);
                    thread::yield_now();
                    scene.release(buffer);
                })
            };
            let scene = Scene::new(4096);
            run(&scene, vec![worker(), worker(), worker(), worker()]);
            assert_eq!(scene.pool.statistics().device_allocations, 1);
        },
        TRIES,
    );
}
