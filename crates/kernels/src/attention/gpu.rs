//! The GPU form: which kernels share the rows, and their launches.
//!
//! - *Split* kernels take one row and one stretch of positions at a time, so that a single row of a long context
//!   fills the device; a second launch merges what the stretches gave.
//! - The *tiled* kernel takes 64 queries at a time, so that keys are read once for many rows. Where the device has
//!   cooperative matrices, half floats and heads of 64 or 128 go through those (`tiled_matrix.wgsl`).
//! - In a launch of both (*mixed*), a row that is alone in its sequence is split and the others are tiled: each kernel
//!   finds its rows by itself, since only the device knows which there are.
//!
//! Rows that go out as int8 are quantised by the launch that finishes them, so that decoding has one less to wait for; where
//! some are tiled, by a launch of its own.
//!
//! Stretches and blocks of keys start at fixed positions, so a row's bits depend on the kernel and on nothing beside it. Which
//! kernel that is depends on the longest context that the launch has room for.

use bessemer_hal::{Binding, DeviceError, Dispatch, GpuLimits, Result, Slice};
use bytemuck::{Pod, Zeroable};

use super::Attention;
use crate::kv::{KvType, STRIP};
use crate::linear::{Int8Params, Quantise};
use crate::rope::{RopeKv, RopeLayout};
use crate::shaders::launch;
use crate::{Activations, Catalog, Op, bounds};

/// Positions of a split, as `sight.wgsl` has it.
const SPLIT: usize = 128;
/// Splits of a row up to which they take no matrix units: those begin later, and do more at once.
const FEW_SPLITS: usize = 16;
/// Query heads of a workgroup of the split kernel, at most.
const SPLIT_HEADS: usize = 8;
/// Query heads of a workgroup that turns them, at most.
const TURNED_HEADS: usize = 4;
/// Queries of a tile.
const TILE: usize = 64;
/// Columns of a head that the tiled kernel has room for.
const TILED_HEAD_DIM: usize = 256;
/// Bytes of workgroup memory that the kernels with cooperative matrices do not exceed.
const MATRIX_MEMORY: u32 = 47_696;
/// Up to so many rows are split whatever their sequences: re-reading keys for each costs less than an idle device.
const FEW_ROWS: usize = 16;
/// Workgroups of the split kernel that a large device has at work at once.
const AT_WORK: usize = 256;
/// What offsets into scratch memory are multiples of.
const ALIGNMENT: usize = 256;
/// Bytes of partial results at most, unless one row needs more; more rows take turns.
const MOST_SCRATCH: usize = 128 << 20;

/// Which kernels run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kernels {
    /// Every row is split.
    Split,
    /// Every row is tiled.
    Tiled,
    /// Rows alone in their sequence are split, the others tiled.
    Mixed,
}

/// How the rows are shared among kernels and launches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plan {
    kernels: Kernels,
    /// Rows that may be split; in a mixed launch sequences, each of which has one such row at most.
    slots: usize,
    /// Splits go through matrix units.
    matrix: bool,
    /// Splits of a row, at most.
    splits: usize,
    /// Slots of one pair of launches.
    slots_at_once: usize,
    /// Query heads that a workgroup of the split kernel takes.
    heads_taken: usize,
    finish: Finish,
}

/// How finished rows become what the operation gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finish {
    /// They are it: f32.
    F32,
    /// The kernel that finishes a row quantises it.
    Int8,
    /// They are f32 in scratch memory, and a launch of its own quantises them.
    Quantise,
}

impl Plan {
    fn new(op: &Attention, seqs: usize, limits: &GpuLimits) -> Self {
        let (rows, group) = (op.rows, op.heads / op.kv_heads.max(1));
        let kernels = if op.head_dim > TILED_HEAD_DIM || rows <= FEW_ROWS || rows <= 2 * seqs {
            Kernels::Split
        } else if seqs == 1 {
            Kernels::Tiled
        } else {
            Kernels::Mixed
        };
        let capacity = op.blocks_per_seq.saturating_mul(op.block_size);
        let whole = capacity.div_ceil(SPLIT).max(1);
        let splits = op.window.map_or(whole, |window| whole.min((window - 1).div_ceil(SPLIT) + 1));
        let slots = match kernels {
            Kernels::Split => rows,
            Kernels::Tiled => 0,
            Kernels::Mixed => seqs,
        };
        let at_once = match splits {
            1 => slots,
            _ => MOST_SCRATCH / (partial_elements(op, splits).saturating_mul(4)).max(1),
        };
        let most = limits.max_groups[1].min(limits.max_groups[2]) as usize;
        let matrix = on_matrices(op, limits) && splits > FEW_SPLITS;
        let taken = if matrix { SPLIT_HEADS } else { heads_taken(group, splits * slots * op.kv_heads) };
        let shares = group.div_ceil(taken).max(1);
        Self {
            kernels,
            slots,
            matrix,
            splits,
            slots_at_once: at_once.min(most).clamp(1, slots.max(1)),
            heads_taken: group.div_ceil(shares),
            finish: match (&op.out, kernels) {
                (Activations::F32(_), _) => Finish::F32,
                (_, Kernels::Split) => Finish::Int8,
                _ => Finish::Quantise,
            },
        }
    }

    /// Bytes of scratch memory: f32 rows that are still to be quantised, and then partial results.
    fn scratch(&self, op: &Attention) -> usize {
        self.row_bytes(op).saturating_add(self.partial_bytes(op))
    }

    /// Bytes of f32 rows, a multiple of what offsets into buffers must be.
    fn row_bytes(&self, op: &Attention) -> usize {
        match self.finish {
            Finish::Quantise => {
                let elements = op.rows.saturating_mul(op.heads).saturating_mul(op.head_dim);
                elements.saturating_mul(4).div_ceil(ALIGNMENT).saturating_mul(ALIGNMENT)
            }
            Finish::F32 | Finish::Int8 => 0,
        }
    }

    fn partial_bytes(&self, op: &Attention) -> usize {
        if self.slots == 0 || self.splits == 1 {
            return 0;
        }
        self.slots_at_once
            .saturating_mul(partial_elements(op, self.splits))
            .saturating_mul(4)
            .saturating_add(16)
    }
}

/// f32 elements of the partial results of a slot: for every head and split its largest score, its sum of weights, and
/// the weighted values.
fn partial_elements(op: &Attention, splits: usize) -> usize {
    op.heads.saturating_mul(splits).saturating_mul(op.head_dim.next_multiple_of(4) + 2)
}

/// As `sight.wgsl` has it.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
struct GpuParams {
    rows: u32,
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
    seqs: u32,
    blocks_per_seq: u32,
    block_strips: u32,
    cache_strips: u32,
    window: u32,
    scale: f32,
    capacity: u32,
    mixed: u32,
    first: u32,
    splits: u32,
    heads_taken: u32,
    sums_at: u32,
    lanes: u32,
    terms: u32,
    q_at: u32,
    k_at: u32,
    v_at: u32,
    rot: u32,
    interleaved: u32,
    norms: u32,
    eps: f32,
}

/// Bytes that the launches pass among themselves.
pub(super) fn scratch(op: &Attention, limits: &GpuLimits) -> usize {
    if op.check().is_err() { 0 } else { Plan::new(op, seqs(op), limits).scratch(op) }
}

/// The launches, in order.
///
/// With `turn` there is one row, whose heads the launches turn themselves; [`turns`] says whether they can.
pub(super) fn launches(
    op: &Attention,
    turn: Option<&RopeKv>,
    catalog: &Catalog,
    limits: &GpuLimits,
    scratch: Option<&Slice>,
) -> Result<Vec<Dispatch>> {
    op.check()?;
    let seqs = seqs(op);
    let plan = Plan::new(op, seqs, limits);
    // Offsets in a kernel have 32 bits.
    let elements =
        [op.cache_rows, op.kv_heads, op.head_dim].iter().try_fold(1_usize, |n, &x| n.checked_mul(x));
    bounds::rule("attention", elements.is_some_and(|n| u32::try_from(n).is_ok()), || {
        format!(
            "a cache of {} rows of {} heads of {} is too large for a GPU",
            op.cache_rows, op.kv_heads, op.head_dim
        )
    })?;
    let row_elements = op.rows.checked_mul(op.heads * op.head_dim);
    bounds::rule("attention", row_elements.is_some_and(|n| u32::try_from(n).is_ok()), || {
        format!("{} rows of {} heads of {} are too many for a launch", op.rows, op.heads, op.head_dim)
    })?;
    bounds::rule("attention", plan.splits <= limits.max_groups[0] as usize, || {
        format!("{} blocks of {} positions are too long a context", op.blocks_per_seq, op.block_size)
    })?;

    let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let mut params = GpuParams {
        rows: small(op.rows),
        heads: small(op.heads),
        kv_heads: small(op.kv_heads),
        head_dim: small(op.head_dim),
        seqs: small(seqs),
        blocks_per_seq: small(op.blocks_per_seq),
        block_strips: small(op.block_size / STRIP),
        cache_strips: small(op.cache_rows / STRIP),
        window: op.window.map_or(u32::MAX, small),
        scale: op.scale * std::f32::consts::LOG2_E,
        capacity: small(op.blocks_per_seq.saturating_mul(op.block_size)),
        mixed: u32::from(plan.kernels == Kernels::Mixed),
        splits: small(plan.splits),
        heads_taken: small(plan.heads_taken),
        ..GpuParams::default()
    };
    if let Some(turn) = turn {
        (params.q_at, params.k_at, params.v_at) =
            (small(turn.q.offset), small(turn.k.offset), small(turn.v.offset));
        params.rot = small(turn.rot);
        params.interleaved = u32::from(turn.layout == RopeLayout::Interleaved);
        (params.norms, params.eps) = (turn.norms(), turn.eps);
    }
    // Where rows go when they are finished, and where partial results lie.
    let room = |at: usize, bytes: usize| {
        let scratch = scratch.filter(|scratch| scratch.size() >= plan.scratch(op) as u64);
        let scratch = scratch.ok_or_else(|| {
            DeviceError::Usage("attention: the scratch memory is smaller than the operation asked for".into())
        })?;
        scratch.slice(at as u64, bytes as u64)
    };
    let finished: Vec<Slice> = match &op.out {
        Activations::F32(out) => vec![out.clone()],
        Activations::Int8(_) | Activations::Int8x2(_) if plan.finish == Finish::Quantise => {
            vec![room(0, plan.row_bytes(op))?]
        }
        Activations::Int8(out) | Activations::Int8x2(out) => {
            params.lanes = small(out.group / 4);
            params.terms = small(Int8Params::new(&op.out).terms());
            vec![out.codes.clone(), out.scales.clone(), out.sums.clone()]
        }
    };
    let inputs = inputs(op, turn);
    let bindings = |inputs: &[Binding], out: &[Slice]| -> Vec<Binding> {
        let out = out.iter().map(|slice| Binding::write_any(slice.clone()));
        inputs.iter().cloned().chain(out).collect()
    };
    let suffix = if plan.finish == Finish::Int8 { "_int8" } else { "" };

    let mut launches = Vec::new();
    if plan.kernels != Kernels::Split {
        let tiles = (op.rows * (op.heads / op.kv_heads)).div_ceil(TILE);
        let groups = [tiles, op.kv_heads, 1];
        let bindings = bindings(&inputs, &finished);
        launches.push(launch(catalog, &tiled_name(op, limits), bindings, &params, groups)?);
    }
    let shares = (op.heads / op.kv_heads).div_ceil(plan.heads_taken);
    for first in (0..plan.slots).step_by(plan.slots_at_once) {
        let slots = plan.slots_at_once.min(plan.slots - first);
        params.first = small(first);
        params.sums_at = small((2 * slots * op.heads * plan.splits).next_multiple_of(4));
        let groups = [plan.splits, op.kv_heads * shares, slots];
        let name = split_name(op, &plan, turn.is_some());
        if plan.splits == 1 {
            let (name, bindings) = (name + suffix, bindings(&inputs, &finished));
            launches.push(launch(catalog, &name, bindings, &params, groups)?);
            continue;
        }
        let partials = room(plan.row_bytes(op), plan.partial_bytes(op))?;
        let split = bindings(&inputs, std::slice::from_ref(&partials));
        launches.push(launch(catalog, &name, split, &params, groups)?);
        let partials = [&partials, &op.row_seq, &op.positions].map(|slice| Binding::read(slice.clone()));
        let (name, merged) = (format!("attention_merge{suffix}"), bindings(&partials, &finished));
        launches.push(launch(catalog, &name, merged, &params, [op.heads, slots, 1])?);
    }
    if let (Finish::Quantise, [x]) = (plan.finish, finished.as_slice()) {
        let quantise =
            Quantise { x: x.clone(), out: op.out.clone(), rows: op.rows, dim: op.heads * op.head_dim };
        launches.extend(quantise.gpu(catalog, limits, None)?);
    }
    Ok(launches)
}

/// Whether the launches turn the heads of such rows themselves: of one row, with few heads in a workgroup.
pub(super) fn turns(op: &Attention, limits: &GpuLimits) -> bool {
    let plan = Plan::new(op, seqs(op), limits);
    op.rows == 1 && matches!(op.head_dim, 64 | 128) && !plan.matrix && plan.heads_taken <= TURNED_HEADS
}

/// What the kernels read, in the order of their bindings. Those that turn also write to the cache.
fn inputs(op: &Attention, turn: Option<&RopeKv>) -> Vec<Binding> {
    let read = |slice: &Slice| Binding::read(slice.clone());
    let tables = [&op.row_seq, &op.positions, &op.block_tables].map(read);
    let Some(turn) = turn else {
        return [&op.q, &op.key_cache, &op.value_cache].map(read).into_iter().chain(tables).collect();
    };
    let [q, rest @ ..] = turn.inputs();
    let caches = [&op.key_cache, &op.value_cache].map(|slice| Binding::write_any(slice.clone()));
    [q].into_iter().chain(caches).chain(tables).chain(rest).collect()
}

/// Query heads of a workgroup, of the `group` that share a key head: the fewer the quicker, while the workgroups of `heads`
/// key heads leave room on the device.
fn heads_taken(group: usize, heads: usize) -> usize {
    let fits = |taken: &usize| heads * group.div_ceil(*taken) <= AT_WORK;
    [2, 4].into_iter().find(fits).unwrap_or(SPLIT_HEADS)
}

/// Sequences that the block tables have room for.
fn seqs(op: &Attention) -> usize {
    (op.block_tables.size() as usize / 4).checked_div(op.blocks_per_seq).unwrap_or(0)
}

fn kv_name(op: &Attention) -> &'static str {
    match op.kv_type {
        KvType::F16 => "f16",
        KvType::F32 => "f32",
    }
}

/// The width of heads that a kernel is made for.
fn width(head_dim: usize) -> &'static str {
    match head_dim {
        64 => "64",
        128 => "128",
        n if n.is_multiple_of(4) => "any",
        _ => "odd",
    }
}

fn split_name(op: &Attention, plan: &Plan, turned: bool) -> String {
    if plan.matrix {
        return format!("attention_split_matrix_{}", width(op.head_dim));
    }
    let heads = plan.heads_taken.next_power_of_two().max(2);
    let form = if turned { "turned" } else { "split" };
    format!("attention_{form}_{}_{}_{heads}", kv_name(op), width(op.head_dim))
}

fn tiled_name(op: &Attention, limits: &GpuLimits) -> String {
    let width = width(op.head_dim);
    if on_matrices(op, limits) {
        return format!("attention_tiled_matrix_{width}");
    }
    let blocks = op.head_dim.div_ceil(64).next_power_of_two();
    format!("attention_tiled_{}_{width}_{blocks}", kv_name(op))
}

/// Whether there are kernels with cooperative matrices for such heads that the device can run.
fn on_matrices(op: &Attention, limits: &GpuLimits) -> bool {
    op.kv_type == KvType::F16
        && matches!(op.head_dim, 64 | 128)
        && limits.cooperative_matrix
        && limits.workgroup_memory >= MATRIX_MEMORY
        && (limits.min_subgroup..=limits.max_subgroup).contains(&32)
}

#[cfg(test)]
mod tests {
    use bessemer_hal::cpu::{CpuDevice, CpuOptions};
    use bessemer_hal::{BufferDesc, Device};

    use crate::QuantisedRows;

    use super::*;

    const LIMITS: GpuLimits = GpuLimits {
        min_subgroup: 32,
        max_subgroup: 32,
        workgroup_memory: 49_152,
        workgroup_threads: 1024,
        max_groups: [65_535; 3],
        cooperative_matrix: true,
        int8_dot: true,
        software: false,
    };

    /// 28 heads of 128 over 4, blocks of 16, with a context of `capacity`.
    fn op(rows: usize, capacity: usize) -> Attention {
        let device = CpuDevice::new(&CpuOptions { threads: Some(1), memory_budget: None });
        let slice = device.create_buffer(&BufferDesc::own("any", 16)).unwrap().whole();
        Attention {
            q: slice.clone(),
            key_cache: slice.clone(),
            value_cache: slice.clone(),
            kv_type: KvType::F16,
            cache_rows: 16,
            block_size: 16,
            out: Activations::F32(slice.clone()),
            row_seq: slice.clone(),
            positions: slice.clone(),
            block_tables: slice,
            blocks_per_seq: capacity / 16,
            rows,
            heads: 28,
            kv_heads: 4,
            head_dim: 128,
            scale: 1.0,
            window: None,
        }
    }

    fn kernels(rows: usize, seqs: usize) -> Kernels {
        Plan::new(&op(rows, 4096), seqs, &LIMITS).kernels
    }

    #[test]
    fn rows_choose_the_kernels() {
        assert_eq!(kernels(1, 1), Kernels::Split);
        assert_eq!(kernels(FEW_ROWS, 1), Kernels::Split);
        assert_eq!(kernels(FEW_ROWS + 1, 1), Kernels::Tiled);
        assert_eq!(kernels(64, 64), Kernels::Split);
        assert_eq!(kernels(512 + 30, 31), Kernels::Mixed);
        let wide = Attention { head_dim: TILED_HEAD_DIM + 8, ..op(512, 4096) };
        assert_eq!(Plan::new(&wide, 1, &LIMITS).kernels, Kernels::Split);
    }

    #[test]
    fn splits_follow_the_capacity_and_the_window() {
        let splits = |capacity, window| {
            let op = Attention { window, ..op(1, capacity) };
            Plan::new(&op, 1, &LIMITS).splits
        };
        let capacities = [0, 16, SPLIT, SPLIT + 16, 16_384];
        assert_eq!(capacities.map(|n| splits(n, None)), [1, 1, 1, 2, 16_384 / SPLIT]);
        // A window of one key has no border in it; one of two may.
        assert_eq!([1, 2, SPLIT + 1, SPLIT + 2].map(|w| splits(16_384, Some(w))), [1, 2, 2, 3]);
        assert_eq!(splits(2 * SPLIT, Some(1_000_000)), 2);
    }

    #[test]
    fn many_splits_take_matrix_units() {
        let plain = GpuLimits { cooperative_matrix: false, ..LIMITS };
        let matrix = |capacity, limits| Plan::new(&op(1, capacity), 1, limits).matrix;
        assert_eq!([128, 2048, 2064, 16_384].map(|n| matrix(n, &LIMITS)), [false, false, true, true]);
        assert!(!matrix(16_384, &plain));
    }

    #[test]
    fn one_split_needs_no_scratch_and_many_rows_take_turns() {
        let plan = |rows, capacity| Plan::new(&op(rows, capacity), rows, &LIMITS);
        assert_eq!(plan(64, 128).scratch(&op(64, 128)), 0);
        assert_eq!(Plan::new(&op(512, 4096), 1, &LIMITS).scratch(&op(512, 4096)), 0);
        assert_eq!(plan(1, 4096).scratch(&op(1, 4096)), 28 * 32 * 130 * 4 + 16);
        let many = plan(256, 131_072);
        assert!(many.slots_at_once < 256 && many.scratch(&op(256, 131_072)) <= MOST_SCRATCH + 16);
        // Even when one row takes more than that.
        assert_eq!(plan(2, 16 << 20).slots_at_once, 1);
    }

    #[test]
    fn int8_rows_wait_in_scratch_where_some_are_tiled() {
        let f32 = op(1, 4096);
        let Activations::F32(slice) = &f32.out else { unreachable!() };
        let (codes, scales, sums) = (slice.clone(), slice.clone(), slice.clone());
        let out = Activations::Int8(QuantisedRows { codes, scales, sums, group: 64 });
        let plan = |rows, seqs| Plan::new(&Attention { out: out.clone(), ..op(rows, 4096) }, seqs, &LIMITS);
        assert_eq!((plan(1, 1).finish, plan(64, 1).finish), (Finish::Int8, Finish::Quantise));
        assert_eq!(plan(1, 1).scratch(&f32), Plan::new(&f32, 1, &LIMITS).scratch(&f32));
        assert_eq!(plan(64, 1).scratch(&op(64, 4096)), 64 * 28 * 128 * 4);
        let mixed = plan(512 + 30, 31);
        assert_eq!(mixed.row_bytes(&op(542, 4096)) % ALIGNMENT, 0);
        assert!(mixed.scratch(&op(542, 4096)) > 542 * 28 * 128 * 4);
    }

    #[test]
    fn heads_that_share_a_key_head_are_shared_evenly() {
        let taken = |heads| Plan::new(&Attention { heads, ..op(1, 4096) }, 1, &LIMITS).heads_taken;
        assert_eq!([4, 28, 32, 36, 48, 256].map(taken), [1, 7, 8, 5, 6, 8]);
    }

    #[test]
    fn there_is_a_kernel_for_every_choice() {
        let plain = GpuLimits { cooperative_matrix: false, ..LIMITS };
        for kv_type in [KvType::F16, KvType::F32] {
            for head_dim in (1..=TILED_HEAD_DIM).chain([320, 513]) {
                let op = Attention { head_dim, kv_type, ..op(1, 4096) };
                for limits in [&LIMITS, &plain] {
                    // Kernels of SPIR-V devices alone are not compiled for Apple's.
                    if limits.cooperative_matrix && cfg!(target_vendor = "apple") {
                        continue;
                    }
                    let some = Plan::new(&op, 1, limits);
                    let few = |heads_taken| Plan { matrix: false, heads_taken, ..some };
                    let mut names: Vec<_> =
                        (1..=SPLIT_HEADS).map(|taken| split_name(&op, &few(taken), false)).collect();
                    if matches!(head_dim, 64 | 128) {
                        names.extend((1..=TURNED_HEADS).map(|taken| split_name(&op, &few(taken), true)));
                    }
                    if Attention::quantises(head_dim, 32) {
                        names.extend(names.clone().into_iter().map(|name| name + "_int8"));
                    }
                    names.push(split_name(&op, &some, false));
                    if head_dim <= TILED_HEAD_DIM {
                        names.push(tiled_name(&op, limits));
                    }
                    for name in names {
                        assert!(crate::shaders::find(&name).is_some(), "{name}");
                    }
                }
            }
        }
    }
}
