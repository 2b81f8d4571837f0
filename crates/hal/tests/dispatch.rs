//! What a dispatch computes, alone and in sequence, on teams of every size.

mod kernels;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bessemer_hal::*;
use kernels::*;

#[test]
fn every_element_belongs_to_the_workgroup_of_its_tile() {
    for threads in [1, 2, 5] {
        let device = cpu(threads);
        let stamps = pipeline(&*device, "stamp", stamp);
        for (rows, cols, tile_rows, tile_cols) in
            [(1, 1, 1, 1), (7, 13, 3, 5), (16, 16, 4, 4), (5, 300, 5, 7), (300, 3, 1, 2), (9, 9, 100, 2)]
        {
            let tiling = Tiling { rows, cols, tile_rows, tile_cols };
            let out = buffer(&*device, &vec![u32::MAX; rows * cols]);
            let dispatch = Dispatch {
                pipeline: stamps.clone(),
                bindings: vec![Binding::write(out.whole(), tiling)],
                params: vec![],
                groups: tiling.grid(),
            };
            let commands = record(&*device, "stamp", |e| e.dispatch(&dispatch).unwrap());
            run(&*device, &commands).unwrap();
            let across = cols.div_ceil(tile_cols);
            for (i, value) in get(&*device, &out).into_iter().enumerate() {
                let (row, col) = (i / cols, i % cols);
                let group = row / tile_rows * across + col / tile_cols;
                assert_eq!(value as usize, group * 1_000_000 + row * 1_000 + col, "{tiling:?}");
            }
        }
    }
}

#[test]
fn stages_see_what_earlier_stages_wrote() {
    const STEPS: u32 = repeat(300, 6) as u32;
    let long = repeat(1000, 30) as u32;
    // More threads than cores on purpose: a thread that loses its core must not let a stage start early.
    for threads in [1, 2, 8] {
        let device = cpu(threads);
        let scales = pipeline(&*device, "scale", scale);
        for (len, tile) in [(1, 1), (64, 1), (long, 7), (long, 1000)] {
            let start: Vec<u32> = (0..len).collect();
            let (a, b) = (buffer(&*device, &start), buffer(&*device, &start));
            let commands = record(&*device, "chain", |e| {
                for step in 0..STEPS {
                    let (from, to) = if step % 2 == 0 { (&a, &b) } else { (&b, &a) };
                    e.dispatch(&scaling(&scales, &from.whole(), &to.whole(), step + 2, tile)).unwrap();
                    e.barrier();
                }
            });
            let mut expected = start;
            for _ in 0..3 {
                run(&*device, &commands).unwrap();
                for step in 0..STEPS {
                    expected.iter_mut().for_each(|x| *x = x.wrapping_mul(step + 2).wrapping_add(1));
                }
                assert_eq!(get(&*device, &a), expected, "{threads} threads, {len} elements");
            }
        }
    }
}

#[test]
fn a_submission_ends_with_its_last_workgroup_on_whatever_thread() {
    static MET: AtomicU32 = AtomicU32::new(0);
    /// Two workgroups that wait for each other, so that two threads run them; the one off the queue is late.
    fn meet(inv: &mut cpu::Invocation<'_>) {
        let round: u32 = inv.params();
        MET.fetch_add(1, Ordering::AcqRel);
        while MET.load(Ordering::Acquire) < (round + 1) * 2 {
            std::thread::yield_now();
        }
        if std::thread::current().name() != Some("compute-0") {
            std::thread::sleep(Duration::from_millis(10));
        }
        increment(inv);
    }
    let device = cpu(2);
    let meets = pipeline(&*device, "meet", meet);
    let x = buffer(&*device, &[0; 2]);
    for round in 0..10_u32 {
        let dispatch = Dispatch { params: round.to_ne_bytes().to_vec(), ..over_row(&meets, &x, 1) };
        let commands = record(&*device, "meet", |e| e.dispatch(&dispatch).unwrap());
        run(&*device, &commands).unwrap();
        assert_eq!(get(&*device, &x), [round + 1; 2]);
    }
}

#[test]
fn commands_of_one_stage_all_run() {
    let device = cpu(3);
    let increments = pipeline(&*device, "increment", kernels::increment);
    let buffers: Vec<_> = (0..repeat(50, 10)).map(|i| buffer(&*device, &vec![i as u32; 1 + i * 3])).collect();
    let commands = record(&*device, "side by side", |e| {
        for b in &buffers {
            e.dispatch(&over_row(&increments, b, 4)).unwrap();
        }
        e.barrier();
        e.barrier();
        for b in &buffers {
            e.dispatch(&over_row(&increments, b, 1000)).unwrap();
        }
    });
    run(&*device, &commands).unwrap();
    for (i, b) in buffers.iter().enumerate() {
        assert_eq!(get(&*device, b), vec![i as u32 + 2; 1 + i * 3]);
    }
}

#[test]
#[cfg_attr(miri, ignore = "an interpreter does not know the physical memory")]
fn this_process_has_a_device() {
    let device = devices().swap_remove(0);
    assert!(device.info().limits.workers >= 1 && device.info().limits.memory_budget > 0);
    assert!(!device.info().name.is_empty());
    run(&*device, &record(&*device, "nothing", |_| {})).unwrap();
}

#[test]
fn empty_work_completes() {
    let device = cpu(2);
    let nothing = device.create_buffer(&BufferDesc::own("nothing", 0)).unwrap();
    let increments = pipeline(&*device, "increment", increment);
    run(&*device, &record(&*device, "no command", |_| {})).unwrap();
    let commands = record(&*device, "no workgroup", |e| {
        e.dispatch(&over_row(&increments, &nothing, 8)).unwrap();
        e.barrier();
        e.copy(&nothing.whole(), &nothing.whole()).unwrap();
    });
    run(&*device, &commands).unwrap();
}

#[test]
#[cfg_attr(miri, ignore = "megabytes take an interpreter minutes")]
fn copies_move_every_byte_on_both_queues() {
    let device = cpu(2);
    // Several pieces of a copy, the last one short.
    let count = 1_500_000;
    let values: Vec<u32> = (0..count).collect();
    let (a, b) = (buffer(&*device, &values), buffer(&*device, &vec![7; values.len()]));
    let offset = 4 * 3;
    let from = a.slice(0, a.size() - offset).unwrap();
    let to = b.slice(offset, b.size() - offset).unwrap();
    let commands = record(&*device, "copy", |e| e.copy(&from, &to).unwrap());
    let expected: Vec<u32> = [7, 7, 7].into_iter().chain(0..count - 3).collect();
    for queue in [QueueKind::Compute, QueueKind::Transfer] {
        put(&*device, &b, &vec![7; values.len()]);
        device.submit(queue, Submit::new(&commands)).unwrap().wait(LONG).unwrap();
        assert!(get(&*device, &b) == expected, "{queue:?}");
    }
}

#[test]
fn times_are_in_order_and_cover_the_work() {
    let device = cpu(1);
    let slows = pipeline(&*device, "slow", slow);
    let x = buffer(&*device, &[0]);
    let commands = record(&*device, "slow", |e| e.dispatch(&over_row(&slows, &x, 1)).unwrap());
    let first = device.submit(QueueKind::Compute, Submit::new(&commands)).unwrap();
    let second = device.submit(QueueKind::Compute, Submit::new(&commands)).unwrap();
    let (first, second) = (first.wait(LONG).unwrap(), second.wait(LONG).unwrap());
    assert!(first.end_ns - first.start_ns >= 50_000_000, "{first:?}");
    assert!(first.end_ns <= second.start_ns, "{first:?} {second:?}");
}
