// What every kernel of paged attention shares: its parameters, and which keys a row sees.

struct Params {
    rows: u32,
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
    seqs: u32,
    blocks_per_seq: u32,
    // Strips of a block.
    block_strips: u32,
    cache_strips: u32,
    // 2^32 - 1: none.
    window: u32,
    // The scale of scores times log2(e): weights are powers of two.
    scale: f32,
    // Positions that a block table has room for.
    capacity: u32,
    // 1: rows that are alone in their sequence are for the split kernels, the others for the tiled one.
    mixed: u32,
    // Split kernels: the first row of this launch; if mixed, the first sequence.
    first: u32,
    // Split kernels: splits of a row at most.
    splits: u32,
    // Split kernels: query heads that a workgroup takes.
    heads_taken: u32,
    // Split kernels: where the weighted values begin in the partial results.
    sums_at: u32,
    // Int8 rows: fours that share a scale, and rows of codes that make a row.
    lanes: u32,
    terms: u32,
    // Turned heads: where q, k and v begin; columns that turn; 1: neighbours turn together; bit 0: there is a q_norm,
    // bit 1: a k_norm; what is added to a norm's mean.
    q_at: u32,
    k_at: u32,
    v_at: u32,
    rot: u32,
    interleaved: u32,
    norms: u32,
    eps: f32,
}
var<immediate> p: Params;

const STRIP: u32 = 16u;
// Positions of a split.
const SPLIT: u32 = 128u;
const NOWHERE: u32 = 0xffffffffu;
// Below every score, and finite, so that differences are numbers before the first key has been seen.
const NO_KEY_YET: f32 = -1e30;
// The score of a key that a row does not see: its weight is exactly 0.
const UNSEEN: f32 = -3e38;

// What the weighted values of all keys are for a sum of weights. Adding 0 makes -0 the same as 0.
fn averaged(sum: vec4<f32>, total: f32) -> vec4<f32> {
    return sum * select(0.0, 1.0 / total, total > 0.0) + 0.0;
}

// Weighted values of a split are this far apart in the partial results.
fn partial_pitch() -> u32 { return (p.head_dim + 3u) & ~3u; }

// One after the last key that a row at `position` sees.
fn sight_end(position: u32) -> u32 {
    return select(position + 1u, p.capacity, position >= p.capacity);
}

// The first key that a row at `position` sees.
fn sight_start(position: u32) -> u32 {
    return select(0u, min(position - p.window + 1u, sight_end(position)), position >= p.window);
}
