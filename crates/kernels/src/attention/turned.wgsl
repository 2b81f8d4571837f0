// Queries, a key and a value as the projections give them, of the one row that there is: heads are normalised (perhaps) and
// turned on the way, as `rope_kv.wgsl` does it, and key and value go to the cache. Who sees the key takes it from here: the
// cache may not have it yet.
// q, k, v: f32, from p.q_at, p.k_at and p.v_at on [heads or kv_heads, head_dim]; q_norm, k_norm: f32 [head_dim]; table: f32
// [rot], cosines, then sines; slots: u32 [1], where the row is stored, or none: then it goes nowhere, and is not seen.
// A head is CHUNK wide; HEAD_THREADS have one, and a thread every HEAD_THREADS-th column of it.

@group(0) @binding(6) var<storage, read> k: array<f32>;
@group(0) @binding(7) var<storage, read> v: array<f32>;
@group(0) @binding(8) var<storage, read> q_norm: array<f32>;
@group(0) @binding(9) var<storage, read> k_norm: array<f32>;
@group(0) @binding(10) var<storage, read> table: array<f32>;
@group(0) @binding(11) var<storage, read> slots: array<u32>;

const HEAD_THREADS: u32 = select(32u, 64u, HEADS == 2u);
const COLUMNS: u32 = CHUNK / HEAD_THREADS;
// rope_kv.wgsl adds the squares of every 64th column first, and then 64 such sums. So many of them does a thread make.
const PARTS: u32 = 64u / HEAD_THREADS;
// Those of queries, and that of the key.
const TURNED: u32 = HEADS + 1u;

struct Ahead {
    x: array<f32, COLUMNS>,
    weight: array<f32, COLUMNS>,
    cosine: array<f32, COLUMNS>,
    sine: array<f32, COLUMNS>,
    // The four features of the value that the thread may see.
    value: vec4<f32>,
    slot: u32,
}

// Which key of the split is the row's own; NOWHERE if none is. Whether it is stored here, and where, beside what.
struct OwnKey { key: u32, stores: bool, at: u32, beside: Raw }

var<workgroup> sum_parts: array<vec4<f32>, TURNED * 16u>;
var<workgroup> columns: array<f32, TURNED * CHUNK>;
// The key, as the cache has it: as bits, since some compilers leave out what only rounds.
var<workgroup> own_key: array<u32, CHUNK>;
// Of the score of that key, [HEADS, SLICES].
var<workgroup> own_parts: array<f32, HEADS * SLICES>;

// The only row.
fn row_of(slot: u32, local: u32) -> u32 { return 0u; }

// All loads, so that they are on their way while the keys are looked for.
fn queries_ahead(kv_head: u32, query_head: u32, head_count: u32, local: u32) -> Ahead {
    var ahead: Ahead;
    ahead.slot = slots[0];
    let value_at = p.v_at + kv_head * CHUNK + local % (CHUNK / 4u) * 4u;
    ahead.value = vec4(v[value_at], v[value_at + 1u], v[value_at + 2u], v[value_at + 3u]);
    let turn = local / HEAD_THREADS;
    let lane = local % HEAD_THREADS;
    let normed = (p.norms & select(2u, 1u, turn < HEADS)) != 0u;
    if (turn < HEADS) {
        let first = p.q_at + (query_head + min(turn, head_count - 1u)) * CHUNK + lane;
        for (var i = 0u; i < COLUMNS; i++) {
            ahead.x[i] = q[first + i * HEAD_THREADS];
            ahead.weight[i] = q_norm[select(0u, i * HEAD_THREADS + lane, normed)];
        }
    } else {
        let first = p.k_at + kv_head * CHUNK + lane;
        for (var i = 0u; i < COLUMNS; i++) {
            ahead.x[i] = k[first + i * HEAD_THREADS];
            ahead.weight[i] = k_norm[select(0u, i * HEAD_THREADS + lane, normed)];
        }
    }
    for (var i = 0u; i < COLUMNS; i++) {
        let col = i * HEAD_THREADS + lane;
        let pair = select(0u, pair_of(col, p.rot, p.interleaved), col < p.rot);
        ahead.cosine[i] = table[pair];
        ahead.sine[i] = table[pair + p.rot / 2u];
        ahead.weight[i] = select(1.0, ahead.weight[i], normed);
    }
    return ahead;
}

// What threads of a head tell each other, before a barrier.
fn queries_half_way(ahead: Ahead, local: u32) {
    let turn = local / HEAD_THREADS;
    if (turn >= TURNED) { return; }
    for (var i = 0u; i < PARTS; i++) {
        var squares = 0.0;
        for (var col = i; col < COLUMNS; col += PARTS) { squares = fma(ahead.x[col], ahead.x[col], squares); }
        let part = i * HEAD_THREADS + local % HEAD_THREADS;
        sum_parts[turn * 16u + part / 4u][part % 4u] = squares;
    }
    for (var i = 0u; i < COLUMNS; i++) {
        columns[turn * CHUNK + i * HEAD_THREADS + local % HEAD_THREADS] = ahead.x[i] * ahead.weight[i];
    }
}

// All features of all heads to `queries`, and the key.
fn put_queries(ahead: Ahead, row: u32, query_head: u32, head_count: u32, chunk: u32, local: u32) {
    let turn = local / HEAD_THREADS;
    if (turn >= TURNED) { return; }
    var scale = 1.0;
    if ((p.norms & select(2u, 1u, turn < HEADS)) != 0u) {
        scale = inverseSqrt(tree_of(turn * 16u) / f32(CHUNK) + p.eps);
    }
    for (var i = 0u; i < COLUMNS; i++) {
        let col = i * HEAD_THREADS + local % HEAD_THREADS;
        var y = ahead.x[i] * ahead.weight[i] * scale;
        if (col < p.rot) {
            let other = columns[turn * CHUNK + other_of(col, p.rot, p.interleaved)] * scale;
            y = turned(y, other, is_first(col, p.rot, p.interleaved), ahead.cosine[i], ahead.sine[i]);
        }
        if (turn == HEADS) {
            own_key[col] = bits_of(y);
        } else {
            queries[col * (HEADS / WIDTH) + turn / WIDTH][turn % WIDTH] = select(0.0, y * p.scale, turn < head_count);
        }
    }
}

// Where the row stands among the keys of a split.
fn own_key_of(ahead: Ahead, position: u32, begin: u32, end: u32, stores: bool) -> OwnKey {
    let there = ahead.slot < p.cache_strips * STRIP && position >= begin && position < end && position - begin < SPLIT;
    return OwnKey(select(NOWHERE, position - begin, there), stores, 0u, Raw());
}

// Each slice's part of the scores of the row's own key; and of the keys beside it the thread that stores it asks what they are.
fn see_own_key(own: ptr<function, OwnKey>, kv_head: u32, local: u32) {
    if ((*own).key == NOWHERE) { return; }
    let strip = strips[(*own).key / STRIP];
    if (strip == NOWHERE) {
        (*own).key = NOWHERE;
        return;
    }
    if (local < CHUNK && (*own).stores) {
        (*own).at = ((strip * p.kv_heads + kv_head) * CHUNK + local) * 4u + (*own).key % STRIP / 4u;
        (*own).beside = keys[(*own).at];
    }
    if (local / SLICES < HEADS) {
        var part = 0.0;
        for (var i = 0u; i < KEY_LOADS; i++) {
            let d = i * SLICES + local % SLICES;
            part = fma(queries[d][local / SLICES], of_bits(own_key[d]), part);
        }
        own_parts[local] = part;
    }
}

// Scores of four keys of a split, from the `first` on: the row's own in place of what the cache had there.
fn own_score(score: vec4<f32>, own: OwnKey, head: u32, first: u32) -> vec4<f32> {
    if (own.key / 4u != first / 4u || head >= HEADS) { return score; }
    var sum = 0.0;
    for (var i = 0u; i < SLICES; i++) { sum += own_parts[head * SLICES + i]; }
    return select(score, vec4(sum), vec4(own.key % 4u) == vec4(0u, 1u, 2u, 3u));
}

// The value at key `key` of the split: the row's own in place of what the cache had there.
fn own_value(raw: Raw, ahead: Ahead, own: OwnKey, key: u32) -> Raw {
    return select(raw, raw_of(ahead.value), key == own.key);
}

// Key and value to the cache.
fn store_own(ahead: Ahead, own: OwnKey, kv_head: u32, local: u32) {
    if (own.key == NOWHERE || !own.stores || local >= CHUNK) { return; }
    keys[own.at] = replaced(own.beside, own_key[local], own.key % 4u);
    if (local < FOURS) {
        let strip = strips[own.key / STRIP];
        values[((strip * p.kv_heads + kv_head) * STRIP + own.key % STRIP) * FOURS + local] = raw_of(ahead.value);
    }
}
