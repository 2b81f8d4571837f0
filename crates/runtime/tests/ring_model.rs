//! The slots of the transfer queue under every order of threads that a bounded search finds.
//!
//! The code is the library's own file, compiled once more over shuttle's locks. A wait there never times out, so a lost
//! wake-up is a deadlock, which fails the test.

mod sync {
    pub use shuttle::sync::{Condvar, Mutex, MutexGuard};
    pub use std::sync::PoisonError;
}

#[allow(dead_code)]
#[path = "../src/transfer_queue/slots.rs"]
mod slots;

use std::sync::Arc;
use std::time::{Duration, Instant};

use shuttle::sync::atomic::{AtomicUsize, Ordering};
use shuttle::sync::{Condvar, Mutex, mpsc};
use shuttle::thread;

use slots::{Flight, Look, Next, Slots};

/// A submission that another thread ends.
#[derive(Debug, Default)]
struct Work {
    id: usize,
    slot: usize,
    ended: Mutex<bool>,
    end: Condvar,
    /// Times that it was drained.
    drained: AtomicUsize,
}

impl Work {
    fn has_ended(&self) -> bool {
        *self.ended.lock().unwrap()
    }

    fn finish(&self) {
        *self.ended.lock().unwrap() = true;
        self.end.notify_all();
    }

    fn wait(&self) {
        let mut ended = self.ended.lock().unwrap();
        while !*ended {
            ended = self.end.wait(ended).unwrap();
        }
    }
}

/// The ring, and who is in each slot.
struct Model {
    slots: Slots<Work>,
    users: Vec<AtomicUsize>,
    most: AtomicUsize,
}

impl Model {
    fn new(slots: usize) -> Arc<Self> {
        let users = (0..slots).map(|_| AtomicUsize::new(0)).collect();
        Arc::new(Self { slots: Slots::new(slots), users, most: AtomicUsize::new(0) })
    }

    fn enter(&self, slot: usize) {
        assert_eq!(self.users[slot].fetch_add(1, Ordering::SeqCst), 0, "slot {slot} is used twice");
        let taken = self.slots.taken();
        assert!(taken <= self.users.len());
        self.most.fetch_max(taken, Ordering::SeqCst);
    }

    fn leave(&self, slot: usize) {
        assert_eq!(self.users[slot].fetch_sub(1, Ordering::SeqCst), 1, "slot {slot} is freed twice");
    }

    /// As the queue does it: claim, take out, free.
    fn settle(&self, flight: &Flight<Work>) {
        assert!(flight.work.has_ended());
        if let Some(draining) = self.slots.claim(flight) {
            assert_eq!((draining.slot, flight.slot), (flight.work.slot, flight.work.slot));
            assert_eq!(flight.work.drained.fetch_add(1, Ordering::SeqCst), 0, "drained twice");
            self.leave(draining.slot);
        }
    }

    fn send(&self, id: usize, device: &mpsc::Sender<Arc<Work>>) -> Arc<Work> {
        let filling = loop {
            match self.slots.next(deadline()) {
                Next::Slot(filling) => break filling,
                Next::Full(oldest) => {
                    oldest.work.wait();
                    self.settle(&oldest);
                }
                Next::TimedOut => panic!("nothing was freed"),
            }
        };
        self.enter(filling.slot);
        let work = Arc::new(Work { id, slot: filling.slot, ..Work::default() });
        device.send(work.clone()).unwrap();
        filling.launch(work.clone());
        work
    }

    fn wait(&self, work: &Work) {
        let done = || work.drained.load(Ordering::SeqCst) == 1;
        loop {
            match self.slots.look(deadline(), |w| w.id == work.id, done) {
                Look::Done => return,
                Look::TimedOut => panic!("work {} is lost", work.id),
                Look::Flight(flight) => {
                    flight.work.wait();
                    self.settle(&flight);
                    assert!(self.slots.drained(&flight, deadline()));
                }
            }
        }
    }
}

fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}

/// Producers, each of which sends some and waits for the last; a device that ends work in order; a thread that looks
/// after what has ended, as metrics do.
fn producers(slots: usize, producers: usize, each: usize) {
    let model = Model::new(slots);
    let (device, queue) = mpsc::channel::<Arc<Work>>();
    let completion = thread::spawn(move || queue.iter().for_each(|work| work.finish()));
    let threads: Vec<_> = (0..producers)
        .map(|producer| {
            let (model, device) = (model.clone(), device.clone());
            thread::spawn(move || {
                let sent: Vec<_> = (0..each).map(|i| model.send(producer * each + i, &device)).collect();
                sent.last().inspect(|last| model.wait(last));
                sent
            })
        })
        .collect();
    drop(device);
    let looker = {
        let model = model.clone();
        thread::spawn(move || {
            for flight in model.slots.flights() {
                if flight.work.has_ended() {
                    model.settle(&flight);
                }
            }
        })
    };
    let sent: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    looker.join().unwrap();
    completion.join().unwrap();
    for flight in model.slots.flights() {
        model.settle(&flight);
    }
    assert_eq!(model.slots.taken(), 0, "every slot came back");
    assert!(sent.iter().all(|work| work.drained.load(Ordering::SeqCst) == 1), "everything was drained");
    assert!(model.most.load(Ordering::SeqCst) <= slots);
}

#[test]
fn no_slot_is_used_twice_and_none_is_lost() {
    shuttle::check_random(|| producers(2, 3, 2), 1500);
}

#[test]
fn one_slot_serves_everybody() {
    shuttle::check_pct(|| producers(1, 3, 2), 1000, 3);
}

/// A submission that fails gives its slot to whoever waits for one, though there is no flight to wait for.
#[test]
fn a_slot_that_was_not_launched_wakes_whoever_waits() {
    shuttle::check_random(
        || {
            let model = Model::new(1);
            let take = |model: Arc<Model>| {
                thread::spawn(move || match model.slots.next(deadline()) {
                    Next::Slot(filling) => {
                        model.enter(filling.slot);
                        thread::yield_now();
                        model.leave(filling.slot);
                    }
                    _ => panic!("nothing was launched"),
                })
            };
            let threads: Vec<_> = (0..3).map(|_| take(model.clone())).collect();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            assert_eq!(model.slots.taken(), 0);
        },
        500,
    );
}

/// Several threads wait for one piece of work; one drains it, all come back.
#[test]
fn all_who_wait_for_one_flight_are_told() {
    shuttle::check_random(
        || {
            let model = Model::new(2);
            let (device, queue) = mpsc::channel::<Arc<Work>>();
            let work = model.send(7, &device);
            drop(device);
            let wait = |_| {
                let (model, work) = (model.clone(), work.clone());
                thread::spawn(move || model.wait(&work))
            };
            let threads: Vec<_> = (0..3).map(wait).collect();
            queue.iter().for_each(|work| work.finish());
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            assert_eq!(work.drained.load(Ordering::SeqCst), 1);
        },
        1000,
    );
}

/// A thread that sends and goes away leaves its flight to whoever waits for a slot.
#[test]
fn a_launch_wakes_whoever_waits_for_a_slot() {
    shuttle::check_random(
        || {
            let model = Model::new(1);
            let (device, queue) = mpsc::channel::<Arc<Work>>();
            let completion = thread::spawn(move || queue.iter().for_each(|work| work.finish()));
            let send = |id| {
                let (model, device) = (model.clone(), device.clone());
                thread::spawn(move || model.send(id, &device))
            };
            let threads: Vec<_> = (0..2).map(send).collect();
            drop(device);
            let sent: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
            completion.join().unwrap();
            let drained: usize = sent.iter().map(|work| work.drained.load(Ordering::SeqCst)).sum();
            assert_eq!(
                (drained, model.slots.taken()),
                (1, 1),
                "the first made room, the second is in flight"
            );
        },
        500,
    );
}

/// Whoever waits for a flight that another thread drains comes back when that has let go, not before.
#[test]
fn a_flight_is_drained_when_its_guard_is_gone() {
    shuttle::check_random(
        || {
            let model = Model::new(1);
            let (device, queue) = mpsc::channel::<Arc<Work>>();
            let work = model.send(7, &device);
            drop(device);
            queue.iter().for_each(|work| work.finish());
            let flight = model.slots.flights().remove(0);
            assert!(!model.slots.drained(&flight, Instant::now()), "it is in flight");
            let draining = model.slots.claim(&flight).unwrap();
            assert!(!model.slots.drained(&flight, Instant::now()), "it is being drained");
            let waiter = {
                let (model, work) = (model.clone(), work.clone());
                thread::spawn(move || {
                    assert!(model.slots.drained(&flight, deadline()));
                    assert_eq!(work.drained.load(Ordering::SeqCst), 1);
                })
            };
            thread::yield_now();
            work.drained.store(1, Ordering::SeqCst);
            drop(draining);
            waiter.join().unwrap();
        },
        500,
    );
}
