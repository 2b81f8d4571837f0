//! Speed of the matrix products: GB/s of weights at decode, GOPS (2 · rows · outputs · inputs) at prefill.
//!
//! `cargo bench -p bessemer-kernels --bench linear [-- FILTER]`; every figure is the best of several runs.

use std::sync::Barrier;
use std::time::Instant;

use bessemer_hal::cpu::Tile;
use bessemer_kernels::Isa;
use bessemer_kernels::linear::*;

struct Case {
    name: &'static str,
    encoding: Encoding,
    group: usize,
    int8: bool,
}

const CASES: [Case; 8] = [
    Case { name: "4bit_g64_int8", encoding: Encoding::Affine { bits: 4 }, group: 64, int8: true },
    Case { name: "4bit_g32_int8", encoding: Encoding::Affine { bits: 4 }, group: 32, int8: true },
    Case { name: "3bit_g64_int8", encoding: Encoding::Affine { bits: 3 }, group: 64, int8: true },
    Case { name: "6bit_g64_int8", encoding: Encoding::Affine { bits: 6 }, group: 64, int8: true },
    Case { name: "8bit_g64_int8", encoding: Encoding::Affine { bits: 8 }, group: 64, int8: true },
    Case { name: "mxfp4_int8", encoding: Encoding::Mxfp4, group: 32, int8: true },
    Case { name: "4bit_g64_f32", encoding: Encoding::Affine { bits: 4 }, group: 64, int8: false },
    Case { name: "bf16_f32", encoding: Encoding::Bf16, group: 1, int8: false },
];

/// (what, rows, outputs, inputs)
const SHAPES: [(&str, usize, usize, usize); 7] = [
    ("decode, in cache", 1, 3072, 1024),
    ("decode, memory", 1, 98304, 4096),
    ("batch of 4, memory", 4, 98304, 4096),
    ("batch of 8", 8, 12288, 4096),
    ("batch of 32", 32, 12288, 4096),
    ("prefill", 512, 3072, 1024),
    ("prefill, wide", 512, 4096, 4096),
];

fn main() {
    let filter: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let wanted = |text: &str| filter.iter().all(|f| text.contains(f.as_str()));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    for case in &CASES {
        if wanted(&format!("pack {}", case.name)) {
            println!("pack {}: {:.2} GB/s of one thread", case.name, pack_speed(case) / 1e9);
        }
    }
    for isa in Isa::all_available() {
        for case in &CASES {
            for (what, rows, out, inp) in SHAPES {
                if isa == Isa::Portable && rows * out * inp > 1 << 24 {
                    continue;
                }
                for threads in [1, cores] {
                    let title =
                        format!("{isa:?} {} {what} {rows} × {out} × {inp}, {threads} threads", case.name);
                    if !wanted(&title) {
                        continue;
                    }
                    let layout = LinearLayout::new(
                        case.encoding,
                        LinearShape::new(out, inp),
                        case.group,
                        ScaleType::Bf16,
                    );
                    let layout = layout.expect("the cases are valid");
                    let seconds = best(isa, &layout, case.int8, rows, threads);
                    println!(
                        "{title}: {:.1} GB/s, {:.0} GOPS, {:.1} µs",
                        layout.bytes() as f64 / seconds / 1e9,
                        2.0 * (rows * out * inp) as f64 / seconds / 1e9,
                        seconds * 1e6,
                    );
                }
            }
        }
    }
}

fn best(isa: Isa, layout: &LinearLayout, int8: bool, rows: usize, threads: usize) -> f64 {
    let (inp, out, block) = (layout.inp(), layout.out(), layout.block());
    // At a page, as device memory is: a vector of the allocator's own starts 16 bytes beyond one.
    let mut memory = vec![0_u8; layout.bytes() + 4096];
    let offset = memory.as_ptr().align_offset(4096);
    let packed = &mut memory[offset..][..layout.bytes()];
    let mut state = 1_u64;
    for byte in packed.chunks_mut(8) {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        // No value of any float type here is subnormal, infinite or a NaN: those would cost time of their own.
        byte.copy_from_slice(
            &((state >> 7) & 0x3f7f_3f7f_3f7f_3f7f | 0x3000_3000_3000_3000).to_le_bytes()[..byte.len()],
        );
    }
    let x: Vec<f32> = (0..rows * inp).map(|i| ((i * 7919) % 1000) as f32 / 500.0 - 1.0).collect();
    let (mut codes, mut scales, mut sums) =
        (vec![0; x.len()], vec![0.0; x.len() / block], vec![0; x.len() / block]);
    if int8 {
        quantise_row(isa, &x, block, Int8RowMut { codes: &mut codes, scales: &mut scales, sums: &mut sums })
            .expect("rows are whole blocks");
    }
    let input = match int8 {
        true => Input::Int8(Int8Rows { codes: &codes, scales: &scales, sums: &sums }),
        false => Input::F32 { x: &x, stride: inp },
    };
    let matrix = Matrix::new(*layout, packed).expect("packed has the layout's bytes");
    let barrier = Barrier::new(threads);
    let share = layout.panels().div_ceil(threads);
    let work = |thread: usize| {
        let first = (thread * share).min(layout.panels());
        let panels = first..(first + share).min(layout.panels());
        let columns = (panels.end * LANES).min(out) - first * LANES;
        let mut y = vec![0.0; rows * columns];
        let mut once = || {
            let mut tile = Tile::from_slice(&mut y, columns, 0..columns);
            multiply(isa, matrix, input, 0..rows, panels.clone(), &mut tile, Epilogue::default())
                .expect("sizes fit");
        };
        once();
        // Every thread has to come to the barriers equally often.
        let work = rows as f64 * layout.bytes() as f64 / threads as f64;
        let repeats = (2e8 / work).clamp(1.0, 1000.0) as u32;
        let mut best = f64::MAX;
        for _ in 0..15 {
            barrier.wait();
            let start = Instant::now();
            (0..repeats).for_each(|_| once());
            barrier.wait();
            best = best.min(start.elapsed().as_secs_f64() / f64::from(repeats));
        }
        best
    };
    std::thread::scope(|scope| {
        let work = &work;
        let handles: Vec<_> = (0..threads).map(|thread| scope.spawn(move || work(thread))).collect();
        handles.into_iter().map(|h| h.join().expect("a worker ended")).fold(0.0, f64::max)
    })
}

/// Bytes of the source's weights that are packed in a second.
fn pack_speed(case: &Case) -> f64 {
    let (out, inp) = (4096, 4096);
    let layout = LinearLayout::new(case.encoding, LinearShape::new(out, inp), case.group, ScaleType::Bf16)
        .expect("the cases are valid");
    let weights = vec![0x5a; out * inp * layout.bits() / 8];
    let scales = vec![0; out * inp / layout.group() * layout.scale_type().size()];
    let source = Source {
        weights: &weights,
        scales: layout.is_quantised().then_some((layout.scale_type(), scales.as_slice())),
        biases: (case.encoding != Encoding::Mxfp4).then_some(scales.as_slice()),
    };
    let mut packed = vec![0; layout.bytes()];
    let mut best = f64::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        pack(&layout, &source, 0..layout.panels(), &mut packed).expect("the source has the layout's sizes");
        best = best.min(start.elapsed().as_secs_f64());
    }
    weights.len() as f64 / best
}
