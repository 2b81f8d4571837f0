//! What recording, launching, a barrier, and a submission cost on the CPU device.
//!
//! `cargo bench -p bessemer-hal` prints the median of many rounds, for teams of one, two, and four threads. Figures
//! of a team larger than the number of idle cores show how the device holds out there, not what it can do.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bessemer_hal::cpu::{CpuDevice, CpuKernel, CpuOptions, Invocation};
use bessemer_hal::noop::NoopDevice;
use bessemer_hal::*;

const ROUNDS: usize = 200;
const LAUNCHES: usize = 300;
const LONG: Duration = Duration::from_secs(60);

fn nothing(_: &mut Invocation<'_>) {}

/// Multiplications one after the other: some microseconds that no memory system disturbs.
fn busy(inv: &mut Invocation<'_>) {
    let turns: u32 = inv.params();
    let mut x = inv.group() as u32 | 1;
    for _ in 0..turns {
        x = black_box(x.wrapping_mul(0x9E37_79B1));
    }
    black_box(x);
}

fn median(mut round: impl FnMut() -> f64) -> f64 {
    let mut times: Vec<f64> = (0..ROUNDS).map(|_| round()).collect();
    times.sort_by(f64::total_cmp);
    times[ROUNDS / 2]
}

fn micros(timing: Timing) -> f64 {
    (timing.end_ns - timing.start_ns) as f64 / 1e3
}

/// `LAUNCHES` launches of `groups` workgroups, each behind a barrier.
fn chain(device: &dyn Device, cpu: CpuKernel, params: &[u8], groups: usize) -> Result<CommandBuffer> {
    let pipeline = device.create_pipeline(&PipelineDesc { label: "kernel", code: Code::Cpu(cpu) })?;
    let mut encoder = device.create_encoder("chain")?;
    let dispatch = Dispatch { pipeline, bindings: vec![], params: params.to_vec(), groups: line(groups) };
    for _ in 0..LAUNCHES {
        encoder.dispatch(&dispatch)?;
        encoder.barrier();
    }
    encoder.finish()
}

fn run(device: &dyn Device, commands: &CommandBuffer) -> Result<Timing> {
    device.submit(QueueKind::Compute, Submit::new(commands))?.wait(LONG)
}

/// Microseconds of one launch of six bindings, as a step of a network records them.
fn recording(device: &dyn Device) -> Result<f64> {
    let pipeline = device.create_pipeline(&PipelineDesc { label: "nothing", code: Code::Cpu(nothing) })?;
    let heap = device.create_heap(&HeapDesc { label: "heap", size: 64 << 20 })?;
    let place = |i: usize| {
        let place = Place::Heap(&heap, (i * 4096) as u64);
        device.create_buffer(&BufferDesc { label: "buffer", size: 4096, place })
    };
    let buffers = (0..LAUNCHES * 6).map(place).collect::<Result<Vec<_>>>()?;
    let tiling = Tiling::by_cols(1, 1024, 64);
    let dispatches: Vec<_> = buffers
        .chunks_exact(6)
        .map(|b| {
            let mut bindings: Vec<_> = b.iter().map(|b| Binding::read(b.whole())).collect();
            bindings[0] = Binding::write(b[0].whole(), tiling);
            Dispatch { pipeline: pipeline.clone(), bindings, params: vec![0; 32], groups: tiling.grid() }
        })
        .collect();
    Ok(median(|| {
        let begin = Instant::now();
        let recorded = device.create_encoder("step").and_then(|mut encoder| {
            for dispatch in &dispatches {
                encoder.dispatch(dispatch)?;
                encoder.barrier();
            }
            encoder.finish()
        });
        let time = begin.elapsed().as_secs_f64() * 1e6 / LAUNCHES as f64;
        assert!(recorded.is_ok());
        time
    }))
}

fn main() -> Result<()> {
    println!(
        "recording, us a launch of six bindings: no-op device {:.3}",
        recording(&*NoopDevice::new(None))?
    );
    for threads in [1, 2, 4] {
        let device: Arc<dyn Device> =
            CpuDevice::new(&CpuOptions { threads: Some(threads), ..CpuOptions::default() });
        println!("{threads} threads");
        println!("  recording, us a launch of six bindings: {:.3}", recording(&*device)?);
        for groups in [1, 2, 8, 64] {
            let commands = chain(&*device, nothing, &[], groups)?;
            let time = median(|| run(&*device, &commands).map_or(f64::NAN, micros) / LAUNCHES as f64);
            println!("  empty launch of {groups:2} workgroups and a barrier: {time:.3} us");
        }
        for (turns, groups) in [(1000_u32, 16), (4000, 16), (10_000, 1)] {
            let commands = chain(&*device, busy, &turns.to_ne_bytes(), groups)?;
            let time = median(|| run(&*device, &commands).map_or(f64::NAN, micros) / LAUNCHES as f64);
            println!("  {groups:2} workgroups of {turns:5} multiplications and a barrier: {time:.2} us");
        }
        let empty = device.create_encoder("empty")?.finish()?;
        let time = median(|| {
            let begin = Instant::now();
            let done = run(&*device, &empty);
            assert!(done.is_ok());
            begin.elapsed().as_secs_f64() * 1e6
        });
        println!("  empty submission, submit to wait: {time:.1} us");
        let parallel = chain(&*device, nothing, &[], 8)?;
        let time = median(|| {
            std::thread::sleep(Duration::from_micros(500));
            let begin = Instant::now();
            let done = run(&*device, &parallel);
            assert!(done.is_ok());
            begin.elapsed().as_secs_f64() * 1e6
        });
        println!(
            "  {LAUNCHES} empty launches of 8 workgroups on sleeping threads, submit to wait: {time:.1} us"
        );
    }
    Ok(())
}
