//! What holds under every order of threads that is tried.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bessemer_hal::DeviceError;
use shuttle::thread;

use super::CommandRingConfig;
use super::model::{CommandRing, PATIENCE, Patience, Scene, body, limits};

/// Interleavings tried by each test.
const TRIES: usize = 1500;

#[test]
fn no_slot_is_given_out_while_it_is_in_flight_and_none_is_lost() {
    shuttle::check_random(
        || {
            let scene = Scene::new(Patience::Endless, limits(2, 0), 2, true);
            let mut threads: Vec<_> = (0..3).map(|_| body(|scene| scene.use_slots(3))).collect();
            threads.push(body(|scene| {
                (0..3).for_each(|_| {
                    scene.look();
                });
            }));
            let end = scene.run(threads);
            assert_eq!((end.total_acquired, end.timeout_events, end.exhaustion_events), (9, 0, 0));
        },
        TRIES,
    );
}

/// The same, by a search that finds what takes few but certain turns.
#[test]
fn few_turns_at_the_worst_moment() {
    shuttle::check_pct(
        || {
            let scene = Scene::new(Patience::Endless, limits(2, 0), 2, true);
            scene.run((0..4).map(|_| body(|scene| scene.use_slots(2))).collect());
        },
        TRIES,
        3,
    );
}

#[test]
fn who_waits_too_long_goes_ahead_beyond_the_ring() {
    shuttle::check_random(
        || {
            let scene = Scene::new(Patience::Limited, limits(2, 100), 8, true);
            let mut threads: Vec<_> = (0..4).map(|_| body(|scene| scene.use_slots(2))).collect();
            threads.push(body(|scene| {
                scene.look();
            }));
            let end = scene.run(threads);
            assert_eq!((end.total_acquired, end.exhaustion_events), (8, end.timeout_events), "{end:?}");
            assert!(end.max_wait_ms <= 8.0 * 100.0, "{end:?}");
        },
        TRIES,
    );
}

/// Nothing ends: two go into the ring, six beyond it, and all others are told.
#[test]
fn a_device_that_hangs_refuses_in_the_end() {
    shuttle::check_random(
        || {
            let scene = Scene::new(Patience::None, limits(2, 100), 8, false);
            let start = |_| {
                let scene = scene.clone();
                thread::spawn(move || {
                    let slot = scene.acquire();
                    slot.map(|slot| scene.submit(slot)).is_ok()
                })
            };
            let threads: Vec<_> = (0..10).map(start).collect();
            let fine = threads.into_iter().map(|thread| thread.join().unwrap());
            assert_eq!(fine.filter(|fine| *fine).count(), 8);
            let now = scene.look();
            assert_eq!((now.in_flight, now.available_count, now.exhaustion_events), (8, 0, 6));
            assert_eq!((now.wait_events, now.timeout_events), (8, 8));
            assert!(scene.ring.wait_for_all(Duration::from_secs(1)).is_err());
            PATIENCE.set(Patience::Endless);
            scene.run(vec![]);
        },
        TRIES / 3,
    );
}

/// Slots that are held are waited for as well: whoever waits goes on when one comes back or is used.
#[test]
fn held_slots_that_come_back_or_are_used_wake_who_waits() {
    shuttle::check_random(
        || {
            let scene = Scene::new(Patience::Endless, limits(2, 0), 2, false);
            let hold = |submits: bool| {
                body(move |scene| {
                    let slot = scene.acquire().unwrap();
                    (0..3).for_each(|_| thread::yield_now());
                    if submits {
                        scene.submit(slot);
                    } else {
                        scene.abandon(slot);
                    }
                })
            };
            let end = scene.run(vec![hold(true), hold(false), hold(true), hold(false), hold(true)]);
            assert_eq!((end.total_acquired, end.total_submitted), (5, 3));
        },
        TRIES,
    );
}

/// Both slots are held for good, and no wait runs out of time: only the change lets the third thread go on.
fn a_change_wakes_who_waits(change: fn(&CommandRing)) {
    shuttle::check_random(
        move || {
            let scene = Scene::new(Patience::Endless, limits(2, 0), 8, false);
            let held = [scene.acquire().unwrap(), scene.acquire().unwrap()];
            let third = scene.start(body(|scene| {
                let slot = scene.acquire().unwrap();
                scene.submit(slot);
            }));
            thread::yield_now();
            change(&scene.ring);
            third.join().unwrap();
            held.into_iter().for_each(|slot| scene.abandon(slot));
            scene.run(vec![]);
        },
        TRIES / 3,
    );
}

#[test]
fn switching_off_wakes_who_waits() {
    a_change_wakes_who_waits(|ring| ring.set_enabled(false));
}

#[test]
fn a_larger_ring_wakes_who_waits() {
    a_change_wakes_who_waits(|ring| ring.reconfigure(limits(3, 0)).unwrap());
}

#[test]
fn a_ring_that_waits_no_more_wakes_who_waits() {
    a_change_wakes_who_waits(|ring| {
        ring.reconfigure(CommandRingConfig { wait_on_full_ring: false, ..limits(2, 0) }).unwrap();
    });
}

#[test]
fn switching_and_other_settings_lose_nothing() {
    shuttle::check_random(
        || {
            let scene = Scene::new(Patience::Limited, limits(2, 100), 12, false);
            let worker = || {
                body(|scene| {
                    for _ in 0..3 {
                        scene.ring.submit(scene.work()).unwrap();
                    }
                })
            };
            let switch = body(|scene| {
                scene.ring.set_enabled(false);
                scene.ring.reconfigure(limits(3, 0)).unwrap();
                scene.ring.set_enabled(true);
                scene.ring.wait_for_all(Duration::from_secs(3600)).unwrap();
                scene.ring.reconfigure(limits(2, 100)).unwrap();
            });
            let end = scene.run(vec![worker(), worker(), worker(), switch]);
            assert_eq!((end.total_submitted, end.total_failed), (9, 0));
        },
        TRIES,
    );
}

#[test]
fn off_a_submission_is_done_when_it_returns() {
    shuttle::check_random(
        || {
            let scene = Scene::new(Patience::Endless, limits(2, 0), 8, true);
            scene.ring.set_enabled(false);
            let worker = || {
                body(|scene| {
                    for _ in 0..2 {
                        let refused =
                            scene.ring.submit(scene.work()).map(|done| assert!(done.poll().is_some()));
                        let lost =
                            matches!(&refused, Err(DeviceError::Lost(why)) if why.starts_with("refused"));
                        scene.abandoned.fetch_add(u64::from(lost), Ordering::Relaxed);
                    }
                })
            };
            let end = scene.run(vec![worker(), worker(), worker()]);
            assert_eq!((end.wait_events, end.total_acquired), (end.total_submitted, 6));
        },
        TRIES,
    );
}

/// Off, and the device hangs: the submission is told so, and stays in flight.
#[test]
fn off_a_wait_runs_out_of_time_too() {
    shuttle::check_random(
        || {
            let scene = Scene::new(Patience::None, limits(2, 0), 8, false);
            scene.ring.set_enabled(false);
            assert!(matches!(scene.ring.submit(scene.work()), Err(DeviceError::Timeout { .. })));
            let now = scene.look();
            assert_eq!((now.in_flight, now.wait_events, now.timeout_events), (1, 1, 1));
            assert_eq!(now.max_wait_ms, 1_800_000.0);
            PATIENCE.set(Patience::Endless);
            scene.run(vec![]);
        },
        TRIES / 10,
    );
}

/// Counting anew at any moment keeps what is in flight.
#[test]
fn counting_anew_at_any_moment_adds_up() {
    shuttle::check_random(
        || {
            let scene = Scene::new(Patience::Endless, limits(2, 0), 2, false);
            let quiet = || CommandRingConfig { track_statistics: false, ..limits(2, 0) };
            let resets = body(move |scene| {
                scene.ring.reset_statistics();
                scene.look();
                scene.ring.reconfigure(quiet()).unwrap();
                thread::yield_now();
                scene.ring.reconfigure(limits(2, 0)).unwrap();
                scene.look();
            });
            let worker = || body(|scene| (0..3).for_each(|_| drop(scene.ring.submit(scene.work()))));
            let end = scene.play(vec![worker(), worker(), resets]);
            assert_eq!((end.total_submitted, end.total_acquired), (end.total_completed, end.total_submitted));
        },
        TRIES,
    );
}
