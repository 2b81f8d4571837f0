//! The books without a device: heaps and buffers are numbers.

use std::collections::BTreeMap;

use bessemer_hal::DeviceError;
use proptest::prelude::*;

use super::ledger::{Decision, Grant, Lease, Ledger, Limits, Scrap, Why};

const UNIT: u64 = 256;

type Books = Ledger<u32, u32, u32>;

fn limits(units: u64, max_heaps: usize) -> Limits {
    Limits { heap_bytes: units * UNIT, largest_heap: units * UNIT, max_heaps, smallest: UNIT, track: true }
}

/// A device that numbers what it creates.
#[derive(Default)]
struct Device {
    created: u32,
    refuse_heaps: bool,
}

impl Device {
    fn create(&mut self) -> u32 {
        self.created += 1;
        self.created
    }
}

fn shortage() -> DeviceError {
    DeviceError::OutOfMemory { what: "a test".into(), requested: 1, available: 0 }
}

/// What the pool does with decisions, without threads.
fn acquire(books: &mut Books, device: &mut Device, bytes: u64, done: &BTreeMap<u32, bool>) -> Lease<u32> {
    let mut asked = false;
    loop {
        match books.decide("test", bytes, asked) {
            Decision::Hit(lease) => return lease,
            Decision::Place(grant) => {
                let buffer = device.create();
                return books.placed("test", grant, buffer);
            }
            Decision::Ask(waiting) => {
                asked = true;
                for (ticket, mark) in waiting {
                    if done.get(&mark).copied().unwrap_or(false) {
                        books.settle(ticket);
                    }
                }
            }
            Decision::Grow(bytes) => {
                let heap = if device.refuse_heaps { Err(shortage()) } else { Ok(device.create()) };
                books.install(bytes, heap);
            }
            Decision::Direct(why) => {
                books.missed(why);
                let buffer = device.create();
                return books.allocated("test", bytes, buffer, why);
            }
        }
    }
}

fn take(books: &mut Books, device: &mut Device, units: u64) -> Lease<u32> {
    acquire(books, device, units * UNIT, &BTreeMap::new())
}

/// The grant that a request leads to, heaps reserved on the way.
fn grant(books: &mut Books, units: u64) -> Grant<u32> {
    loop {
        match books.decide("test", units * UNIT, false) {
            Decision::Place(grant) => return grant,
            Decision::Grow(bytes) => books.install(bytes, Ok(0)),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn heaps_grow_one_by_one_and_only_then_is_something_evicted() {
    let (mut books, mut device) = (Books::new(limits(4, 2), true), Device::default());
    let large = take(&mut books, &mut device, 4);
    books.give_back(large);
    assert_eq!(books.statistics().total_heaps, 1);
    // The first heap is idle, not free: a second one is reserved before the idle buffer is given up.
    let small = take(&mut books, &mut device, 1);
    assert_eq!(books.statistics().total_heaps, 2);
    assert!(books.scrap().is_empty());
    let other = take(&mut books, &mut device, 4);
    assert_eq!(books.statistics().hit_rate, 1.0 / 3.0);
    books.give_back(other);
    // Three blocks of the second heap are free, but not together.
    let pair = take(&mut books, &mut device, 4);
    let pressed = take(&mut books, &mut device, 2);
    let last = take(&mut books, &mut device, 2);
    assert_eq!(books.statistics().fallback_allocations, 1, "two units beside one that is out");
    books.check([&small, &pair, &pressed, &last]);
    for lease in [small, pair, pressed, last] {
        books.give_back(lease);
    }
    assert_eq!(books.scrap().len(), 1, "the direct one");
    // Now idle buffers stand in the way and go: those of the window that was unused longest.
    let whole = take(&mut books, &mut device, 4);
    let second = take(&mut books, &mut device, 4);
    let scrap = books.scrap();
    assert_eq!(scrap.len(), 2, "{scrap:?}");
    assert_eq!(books.statistics().fallback_allocations, 1);
    books.check([&whole, &second]);
}

#[test]
fn nothing_is_evicted_in_vain() {
    let (mut books, mut device) = (Books::new(limits(4, 1), true), Device::default());
    let leases: Vec<_> = (0..4).map(|_| take(&mut books, &mut device, 1)).collect();
    let mut held = Vec::new();
    for (i, lease) in leases.into_iter().enumerate() {
        if i % 2 == 0 { held.push(lease) } else { books.give_back(lease) }
    }
    assert!(matches!(books.decide("test", 2 * UNIT, false), Decision::Direct(Why::Exhausted)));
    assert!(books.scrap().is_empty());
    assert!(matches!(books.decide("test", UNIT, false), Decision::Hit(_)), "the idle ones are still there");
}

#[test]
fn a_refused_heap_is_not_asked_for_again() {
    let (mut books, mut device) = (Books::new(limits(4, 2), true), Device::default());
    device.refuse_heaps = true;
    let first = take(&mut books, &mut device, 1);
    assert_eq!(books.refusal(), Some(&shortage()));
    device.refuse_heaps = false;
    let second = take(&mut books, &mut device, 1);
    let now = books.statistics();
    assert_eq!((now.total_heaps, now.fallback_allocations, now.exhaustion_events), (0, 2, 2));
    books.set_enabled(true);
    assert_eq!(books.refusal(), None);
    let third = take(&mut books, &mut device, 1);
    assert_eq!(books.statistics().total_heaps, 1, "switching on asks again");
    books.check([&first, &second, &third]);
}

#[test]
fn a_grant_without_a_buffer_leaves_no_trace() {
    let mut books = Books::new(limits(4, 1), true);
    let lost = grant(&mut books, 4);
    assert_eq!(books.statistics().utilization, 1.0);
    books.not_placed(lost);
    let now = books.statistics();
    assert_eq!((now.utilization, now.live, now.placed_buffers, now.total_acquired), (0.0, 0, 0, 0));
    books.check([]);
    // With the pool off meanwhile, its heap goes with it.
    let lost = grant(&mut books, 1);
    books.set_enabled(false);
    assert_eq!(books.statistics().total_heaps, 1);
    books.not_placed(lost);
    assert_eq!(books.statistics().total_heaps, 0);
}

#[test]
fn a_heap_that_comes_too_late_goes_at_once() {
    let mut books = Books::new(limits(4, 1), true);
    assert!(matches!(books.decide("test", UNIT, false), Decision::Grow(bytes) if bytes == 4 * UNIT));
    books.set_limits(limits(8, 1));
    books.install(4 * UNIT, Ok(7));
    assert_eq!(books.statistics().total_heaps, 0);
    assert!(matches!(books.scrap().as_slice(), [Scrap::Heap(7)]));
    // Nor is there a heap more than the settings allow.
    books.install(8 * UNIT, Ok(8));
    books.install(8 * UNIT, Ok(9));
    assert_eq!(books.statistics().total_heaps, 1);
    assert!(matches!(books.scrap().as_slice(), [Scrap::Heap(9)]));
}

#[test]
fn a_return_waits_for_its_completion() {
    let (mut books, mut device) = (Books::new(limits(1, 1), true), Device::default());
    let lease = take(&mut books, &mut device, 1);
    let buffer = lease.buffer;
    books.defer(vec![lease], 5);
    let now = books.statistics();
    assert_eq!((now.live, now.pending, now.total_released, now.bytes_in_use), (1, 1, 0, UNIT));
    assert!(books.leak_report().held.is_empty());
    let early = acquire(&mut books, &mut device, UNIT, &BTreeMap::from([(5, false)]));
    assert_eq!(books.statistics().fallback_allocations, 1, "the device still has it");
    let then = acquire(&mut books, &mut device, UNIT, &BTreeMap::from([(5, true)]));
    assert_eq!(then.buffer, buffer);
    assert_eq!(books.statistics().pending, 0);
    books.settle(1000);
    books.check([&early, &then]);
}

#[test]
fn counters_say_what_they_are_called() {
    let (mut books, mut device) = (Books::new(limits(4, 2), true), Device::default());
    assert_eq!(books.statistics().hit_rate, 1.0, "nothing was missed yet");
    let first = take(&mut books, &mut device, 2);
    books.give_back(first);
    let again = take(&mut books, &mut device, 2);
    let large = take(&mut books, &mut device, 64);
    let now = books.statistics();
    assert_eq!((now.total_acquired, now.total_released, now.total_allocations), (3, 1, 3));
    assert_eq!((now.fallback_allocations, now.exhaustion_events), (1, 1));
    assert_eq!((now.device_allocations, now.placed_buffers), (2, 1));
    assert_eq!(now.hit_rate, 1.0 / 3.0);
    assert_eq!(now.utilization, 0.5);
    assert_eq!((now.active_heaps, now.total_heaps, now.available), (1, 1, 1));
    assert_eq!(now.largest_allocation_mb, 64.0 * 256.0 / 1_048_576.0);
    assert_eq!((now.live, now.bytes_in_use), (2, 66 * UNIT));
    assert_eq!(now.bytes_reserved, 4 * UNIT + 64 * UNIT);
    books.reset();
    let now = books.statistics();
    assert_eq!((now.total_acquired, now.total_released, now.live), (2, 0, 2));
    assert_eq!((now.total_allocations, now.fallback_allocations, now.placed_buffers), (0, 0, 0));
    books.give_back(again);
    books.give_back(large);
    let now = books.statistics();
    assert_eq!((now.total_acquired, now.total_released, now.live, now.bytes_in_use), (2, 2, 0, 0));
    assert_eq!(now.bytes_reserved, 4 * UNIT);
    assert_eq!((now.active_heaps, now.available), (0, 2));
}

#[test]
fn counters_stand_still_without_tracking_and_start_anew_with_it() {
    let (mut books, mut device) = (Books::new(limits(4, 2), true), Device::default());
    books.set_limits(Limits { track: false, ..limits(4, 2) });
    let first = take(&mut books, &mut device, 1);
    let second = take(&mut books, &mut device, 64);
    let now = books.statistics();
    assert_eq!((now.total_acquired, now.exhaustion_events, now.device_allocations), (0, 0, 0));
    assert_eq!((now.live, now.active_heaps), (2, 1), "gauges are true");
    assert_eq!(books.leak_report().unaccounted, 0);
    books.set_limits(limits(4, 2));
    assert_eq!(books.statistics().total_acquired, 2);
    books.give_back(first);
    books.give_back(second);
    assert_eq!(books.statistics().total_released, 2);
    books.check([]);
}

#[test]
fn other_settings_keep_the_heaps_that_fit_them() {
    let (mut books, mut device) = (Books::new(limits(4, 3), true), Device::default());
    let leases: Vec<_> = (0..3).map(|_| take(&mut books, &mut device, 4)).collect();
    books.set_limits(limits(4, 2));
    assert_eq!(books.statistics().total_heaps, 3, "buffers are out in all of them");
    assert_eq!(books.statistics().available, 0);
    for lease in leases {
        books.give_back(lease);
    }
    assert_eq!(books.statistics().total_heaps, 2);
    let hit = take(&mut books, &mut device, 4);
    books.set_limits(limits(8, 2));
    let larger = take(&mut books, &mut device, 8);
    assert_eq!((books.statistics().total_heaps, books.statistics().available), (2, 1));
    books.check([&hit, &larger]);
    books.give_back(hit);
    assert_eq!(books.statistics().total_heaps, 1);
    // Back before the larger one has gone: both sizes are there, and each gets what is its own.
    books.set_limits(limits(4, 2));
    let small = take(&mut books, &mut device, 4);
    books.give_back(larger);
    books.check([&small]);
    assert_eq!(books.statistics().bytes_reserved, 4 * UNIT);
}

#[test]
fn trimming_gives_back_what_nobody_uses() {
    let (mut books, mut device) = (Books::new(limits(4, 3), true), Device::default());
    let kept = take(&mut books, &mut device, 4);
    let other = take(&mut books, &mut device, 4);
    books.give_back(other);
    assert_eq!(books.trim(None), 1);
    assert_eq!((books.trim(None), books.refusal()), (0, None));
    assert_eq!(books.scrap().len(), 2, "a heap and its buffer");
    assert_eq!(books.trim(Some(shortage())), 0);
    let direct = take(&mut books, &mut device, 4);
    assert_eq!(books.statistics().fallback_allocations, 1, "no heap is asked for in a shortage");
    books.check([&kept, &direct]);
}

#[derive(Clone, Debug)]
enum Act {
    Acquire(u32),
    Release(prop::sample::Index),
    Defer(prop::sample::Index, u32),
    Complete(u32),
    Enable(bool),
    Limit(u64, usize),
    RefuseHeaps(bool),
    Trim,
    Reset,
}

fn act() -> impl Strategy<Value = Act> {
    let index = any::<prop::sample::Index>();
    prop_oneof![
        8 => (0_u32..8).prop_map(Act::Acquire),
        5 => index.prop_map(Act::Release),
        4 => (any::<prop::sample::Index>(), 0_u32..6).prop_map(|(i, mark)| Act::Defer(i, mark)),
        3 => (0_u32..6).prop_map(Act::Complete),
        1 => any::<bool>().prop_map(Act::Enable),
        1 => (8_u64..70, 1_usize..4).prop_map(|(units, heaps)| Act::Limit(units, heaps)),
        1 => any::<bool>().prop_map(Act::RefuseHeaps),
        1 => Just(Act::Trim),
        1 => Just(Act::Reset),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever happens in whatever order: no memory is lent twice, the counters add up, and at the end everything is
    /// back.
    #[test]
    fn any_order_of_events_keeps_the_books_right(script in proptest::collection::vec(act(), 1..120)) {
        let (mut books, mut device) = (Books::new(limits(32, 2), true), Device::default());
        let mut held: Vec<Lease<u32>> = Vec::new();
        // What waits, by the mark that completes it, and the buffers in it.
        let mut waiting: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        let mut done: BTreeMap<u32, bool> = BTreeMap::new();
        let (mut acquired, mut mark) = (0_u64, 0_u32);
        for act in script {
            match act {
                Act::Acquire(order) => {
                    let bytes = UNIT << order;
                    let lease = acquire(&mut books, &mut device, bytes, &done);
                    acquired += 1;
                    prop_assert_eq!(lease.bytes, bytes);
                    prop_assert!(held.iter().all(|other| other.buffer != lease.buffer));
                    let busy = waiting.iter().filter(|(mark, _)| !done[*mark]);
                    prop_assert!(busy.flat_map(|(_, b)| b).all(|buffer| *buffer != lease.buffer));
                    held.push(lease);
                }
                Act::Release(which) if !held.is_empty() => {
                    books.give_back(held.swap_remove(which.index(held.len())));
                }
                Act::Defer(which, count) if !held.is_empty() => {
                    let at = which.index(held.len());
                    let count = (count as usize).min(held.len() - at);
                    let leases: Vec<_> = held.drain(at..at + count).collect();
                    mark += 1;
                    waiting.insert(mark, leases.iter().map(|lease| lease.buffer).collect());
                    done.insert(mark, false);
                    books.defer(leases, mark);
                }
                Act::Complete(back) => {
                    if let Some(flag) = done.get_mut(&mark.saturating_sub(back)) {
                        *flag = true;
                    }
                }
                Act::Enable(enabled) => books.set_enabled(enabled),
                Act::Limit(units, heaps) => books.set_limits(limits(units, heaps)),
                Act::RefuseHeaps(refuse) => device.refuse_heaps = refuse,
                Act::Trim => {
                    books.trim(None);
                }
                Act::Reset => {
                    books.reset();
                    acquired = books.statistics().live;
                }
                Act::Release(_) | Act::Defer(..) => {}
            }
            books.check(&held);
            let now = books.statistics();
            prop_assert_eq!(now.total_acquired, acquired);
            prop_assert_eq!(now.total_acquired - now.total_released, now.live);
            prop_assert!(now.pending <= now.live && now.active_heaps <= now.total_heaps);
            prop_assert!((0.0..=1.0).contains(&now.hit_rate) && (0.0..=1.0).contains(&now.utilization));
            prop_assert!(now.fallback_allocations <= now.exhaustion_events);
        }
        for lease in held.drain(..) {
            books.give_back(lease);
        }
        for (ticket, _) in books.waiting() {
            books.settle(ticket);
        }
        books.check([]);
        let now = books.statistics();
        prop_assert_eq!((now.live, now.pending, now.bytes_in_use, now.active_heaps), (0, 0, 0, 0));
        books.set_enabled(false);
        prop_assert_eq!((books.statistics().total_heaps, books.statistics().bytes_reserved), (0, 0));
    }
}
