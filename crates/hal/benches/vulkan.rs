//! What recording, launching, a barrier, a submission, and the host's reads and writes cost on a GPU through Vulkan.
//!
//! `cargo bench -p bessemer-hal --bench vulkan` prints medians of the best real GPU, or of the adapter whose index is
//! given as an argument, the software one included; with `validation` behind it the validation layer runs along, which shows
//! that the figures are of correct use and makes them worthless.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bessemer_hal::vulkan::{VulkanDevice, VulkanOptions, adapters};
use bessemer_hal::*;
use bessemer_wgsl::{Languages, compile};

const ROUNDS: usize = 100;
const LAUNCHES: usize = 300;
const LONG: Duration = Duration::from_secs(60);

/// Six bindings, and no work unless the first parameter is one.
const NOTHING: &str = "
struct Params { run: u32, pad: array<u32, 7> }
var<immediate> p: Params;
@group(0) @binding(0) var<storage, read_write> a: array<u32>;
@group(0) @binding(1) var<storage, read> b: array<u32>;
@group(0) @binding(2) var<storage, read> c: array<u32>;
@group(0) @binding(3) var<storage, read> d: array<u32>;
@group(0) @binding(4) var<storage, read> e: array<u32>;
@group(0) @binding(5) var<storage, read> f: array<u32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (p.run == 1u) { a[id.x] = b[id.x] + c[id.x] + d[id.x] + e[id.x] + f[id.x]; }
}";

fn median(mut round: impl FnMut() -> Result<f64>) -> Result<f64> {
    let mut times = (0..ROUNDS).map(|_| round()).collect::<Result<Vec<_>>>()?;
    times.sort_by(f64::total_cmp);
    Ok(times[ROUNDS / 2])
}

fn since(begin: Instant) -> f64 {
    begin.elapsed().as_secs_f64() * 1e6
}

fn nothing(device: &dyn Device) -> Result<Pipeline> {
    let compiled = compile("nothing", NOTHING, Languages::Spirv)
        .map_err(|error| DeviceError::Pipeline { label: "nothing".into(), reason: error.to_string() })?;
    let spirv: Vec<u8> = compiled.spirv.iter().flat_map(|w| w.to_le_bytes()).collect();
    let shader = Shader {
        name: "nothing",
        spirv: spirv.leak(),
        msl: "",
        msl_entry: "",
        workgroup: compiled.workgroup,
        bindings: compiled.bindings,
        written: compiled.written,
        params: compiled.params,
        threadgroup: &[],
        requires: Requires::default(),
    };
    device.create_pipeline(&PipelineDesc { label: "nothing", code: Code::Gpu(Box::leak(Box::new(shader))) })
}

fn dispatches(device: &dyn Device, groups: u32) -> Result<Vec<Dispatch>> {
    let pipeline = nothing(device)?;
    let heap = device.create_heap(&HeapDesc { label: "heap", size: 64 << 20 })?;
    let place = |i: usize| {
        let place = Place::Heap(&heap, (i * 4096) as u64);
        device.create_buffer(&BufferDesc { label: "buffer", size: 4096, place })
    };
    let buffers = (0..LAUNCHES * 6).map(place).collect::<Result<Vec<_>>>()?;
    let dispatch = |b: &[Buffer]| {
        let mut bindings: Vec<_> = b.iter().map(|b| Binding::read(b.whole())).collect();
        bindings[0] = Binding::write_any(b[0].whole());
        Dispatch { pipeline: pipeline.clone(), bindings, params: vec![0; 32], groups: [groups, 1, 1] }
    };
    Ok(buffers.chunks_exact(6).map(dispatch).collect())
}

fn chain(device: &dyn Device, dispatches: &[Dispatch], barriers: bool) -> Result<CommandBuffer> {
    let mut encoder = device.create_encoder("chain")?;
    for dispatch in dispatches {
        encoder.dispatch(dispatch)?;
        if barriers {
            encoder.barrier();
        }
    }
    encoder.finish()
}

fn launches(device: &dyn Device) -> Result<()> {
    let recorded = dispatches(device, 1)?;
    let time = median(|| {
        let begin = Instant::now();
        chain(device, &recorded, true)?;
        Ok(since(begin) / LAUNCHES as f64)
    })?;
    println!("  recording, us a launch of six bindings and a barrier: {time:.3}");
    for groups in [1, 132, 1056] {
        let dispatches = dispatches(device, groups)?;
        for (barriers, text) in [(true, "and a barrier"), (false, "alone")] {
            let commands = chain(device, &dispatches, barriers)?;
            let time = median(|| {
                let timing = device.submit(QueueKind::Compute, Submit::new(&commands))?.wait(LONG)?;
                Ok((timing.end_ns - timing.start_ns) as f64 / 1e3 / LAUNCHES as f64)
            })?;
            println!("  empty launch of {groups} workgroups {text}: {time:.3} us on the GPU");
        }
    }
    Ok(())
}

fn submissions(device: &dyn Device) -> Result<()> {
    let empty = device.create_encoder("empty")?.finish()?;
    for queue in [QueueKind::Compute, QueueKind::Transfer] {
        let time = median(|| {
            let begin = Instant::now();
            device.submit(queue, Submit::new(&empty))?.wait(LONG)?;
            Ok(since(begin))
        })?;
        println!("  empty submission to {queue:?}, submit to wait: {time:.1} us");
    }
    let time = median(|| {
        let begin = Instant::now();
        let mut last = None;
        for _ in 0..100 {
            last = Some(device.submit(QueueKind::Compute, Submit::new(&empty))?);
        }
        let time = since(begin) / 100.0;
        last.map(|s| s.wait(LONG)).transpose()?;
        Ok(time)
    })?;
    println!("  one of 100 submissions in a row, the call alone: {time:.1} us");
    let (go, done) = (device.create_event(0)?, device.create_event(0)?);
    let mut step = 0;
    let time = median(|| {
        step += 1;
        let submit =
            Submit { wait: &[(go.clone(), step)], signal: &[(done.clone(), step)], ..Submit::new(&empty) };
        device.submit(QueueKind::Compute, submit)?;
        let begin = Instant::now();
        go.signal(step);
        done.wait(step, LONG)?;
        Ok(since(begin))
    })?;
    println!("  host signal to event waited for: {time:.1} us");
    Ok(())
}

fn host_access(device: &dyn Device) -> Result<()> {
    let size = device.info().limits.max_buffer_size.min(256 << 20) as usize;
    let large = device.create_buffer(&BufferDesc::own("large", size as u64))?;
    let mut data = vec![1_u8; size];
    for (bytes, unit) in
        [(16, "16 B"), (256, "256 B"), (4 << 10, "4 KiB"), (1 << 20, "1 MiB"), (size, "a large buffer")]
    {
        let slice = large.slice(0, bytes as u64)?;
        let rounds = if bytes == size { 5 } else { 10 * ROUNDS };
        let best = |mut access: Box<dyn FnMut() -> Result<()> + '_>| -> Result<f64> {
            let mut best = f64::INFINITY;
            for _ in 0..rounds {
                let begin = Instant::now();
                access()?;
                best = best.min(since(begin));
            }
            Ok(best)
        };
        let write = best(Box::new(|| device.write(&slice, &data[..bytes])))?;
        let read = best(Box::new(|| device.read(&slice, &mut data[..bytes])))?;
        let rate = |time: f64| bytes as f64 / time / 1e3;
        println!(
            "  {unit}: write {write:.1} us ({:.2} GB/s), read {read:.1} us ({:.2} GB/s)",
            rate(write),
            rate(read)
        );
    }
    Ok(())
}

/// Gigabytes a second that threads bring to the GPU together, each its own buffer.
fn threads(device: &dyn Device) -> Result<()> {
    const BYTES: usize = 128 << 20;
    for threads in [1, 2, 4, 8] {
        if device.info().limits.memory_budget / 4 < (threads * BYTES) as u64 {
            break;
        }
        let parts = (0..threads)
            .map(|_| Ok((device.create_buffer(&BufferDesc::own("part", BYTES as u64))?, vec![1_u8; BYTES])))
            .collect::<Result<Vec<_>>>()?;
        let once = || {
            let begin = Instant::now();
            let written: Result<()> = std::thread::scope(|scope| {
                let each = |(buffer, data): &(Buffer, Vec<u8>)| device.write(&buffer.whole(), data);
                let handles: Vec<_> = parts.iter().map(|part| scope.spawn(move || each(part))).collect();
                handles.into_iter().filter_map(|handle| handle.join().ok()).collect()
            });
            written.map(|()| since(begin))
        };
        once()?;
        let best =
            (0..3).map(|_| once()).collect::<Result<Vec<_>>>()?.into_iter().fold(f64::INFINITY, f64::min);
        println!("  {threads} threads write {:.1} GB/s", (threads * BYTES) as f64 / best / 1e3);
    }
    Ok(())
}

/// How large a heap the driver gives, which need not be what it says of its limits.
fn heaps(device: &dyn Device) -> Result<()> {
    let mut size = 1_u64 << 30;
    while size <= device.info().limits.memory_budget / 2 {
        let begin = Instant::now();
        match device.create_heap(&HeapDesc { label: "large", size }) {
            Ok(heap) => {
                let time = since(begin);
                let place = Place::Heap(&heap, size - (1 << 20));
                let last = device.create_buffer(&BufferDesc { label: "last", size: 1 << 20, place })?;
                device.write(&last.whole(), &vec![1; 1 << 20])?;
                println!("  heap of {} GiB: {time:.0} us", size >> 30);
            }
            Err(error) => println!("  heap of {} GiB: {error}", size >> 30),
        }
        size *= 2;
    }
    Ok(())
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    for adapter in adapters()? {
        println!("{adapter}");
    }
    let adapter = arguments.iter().find_map(|a| a.parse().ok());
    let validation = arguments.iter().any(|a| a == "validation");
    for prefer_staging in [false, true] {
        let options = VulkanOptions { adapter, validation, prefer_staging, ..VulkanOptions::default() };
        let device: Arc<VulkanDevice> = VulkanDevice::new(&options)?;
        println!("{:#?}", device.info());
        if !prefer_staging {
            launches(&*device)?;
            submissions(&*device)?;
        }
        heaps(&*device)?;
        host_access(&*device)?;
        threads(&*device)?;
        for message in device.validation_messages() {
            println!("{message}");
        }
    }
    Ok(())
}
