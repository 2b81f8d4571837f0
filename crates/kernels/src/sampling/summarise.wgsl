// First launch of the sampler: adjusts the logits of rows that ask for it, and summarises slices of 2048 tokens.
// logits: f32 [rows, vocab]; rows, history, bias_ids, bias_values, masks: see Sample; adjusted: f32 [rows, vocab],
// written only for rows that adjust; summary: u32 [rows, slices * 40], see row.wgsl.
// Launch: (slices, rows) workgroups of 256.
//
// Thread t has the tokens t, t + 256, … of the slice. It applies what concerns them in the order of the CPU form, so no
// two threads ever add to one logit.

struct Params { vocab: u32, slices: u32, mask_words: u32, history: u32, bias: u32, masks: u32 }
var<immediate> p: Params;
@group(0) @binding(0) var<storage, read> logits: array<u32>;
@group(0) @binding(1) var<storage, read> rows: array<Row>;
@group(0) @binding(2) var<storage, read> history: array<u32>;
@group(0) @binding(3) var<storage, read> bias_ids: array<u32>;
@group(0) @binding(4) var<storage, read> bias_values: array<f32>;
@group(0) @binding(5) var<storage, read> masks: array<u32>;
@group(0) @binding(6) var<storage, read_write> adjusted: array<u32>;
@group(0) @binding(7) var<storage, read_write> summary: array<u32>;

const THREADS = 256u;
const EACH = SLICE / THREADS;

// Marks a token of the history; the bits below count its occurrences in the output.
const SEEN = 0x80000000u;

// Counts of the tokens, then what is taken off their logits; then their logits; then their keys.
var<workgroup> tokens: array<atomic<u32>, SLICE>;
var<workgroup> partial_keys: array<u32, THREADS>;
var<workgroup> partial_sums: array<f32, THREADS>;
// The rounds of a chunk of biases; later the first token with the largest key.
var<workgroup> shared_word: atomic<u32>;

var<private> x: array<u32, EACH>;

fn penalise(row: Row, base: u32, local: u32) {
    for (var j = 0u; j < EACH; j++) { atomicStore(&tokens[j * THREADS + local], 0u); }
    workgroupBarrier();
    let start = min(row.history_start, p.history);
    let len = min(row.history_len, p.history - start);
    for (var chunk = 0u; chunk < len; chunk += THREADS * EACH) {
        // All loads are on their way before the first is needed.
        var ids: array<u32, EACH>;
        for (var j = 0u; j < EACH; j++) {
            let i = chunk + j * THREADS + local;
            ids[j] = NONE;
            if (i < len) { ids[j] = history[start + i]; }
        }
        for (var j = 0u; j < EACH; j++) {
            let i = chunk + j * THREADS + local;
            let at = ids[j] - base;
            if (ids[j] >= base && at < SLICE && ids[j] < p.vocab) {
                if (i < row.prompt_len) { atomicOr(&tokens[at], SEEN); } else { atomicAdd(&tokens[at], 1u); }
            }
        }
    }
    workgroupBarrier();
    // The product goes through workgroup memory, so that no compiler fuses it with the difference: the CPU form rounds
    // it.
    for (var j = 0u; j < EACH; j++) {
        let at = j * THREADS + local;
        let count = atomicLoad(&tokens[at]);
        if (count != 0u) {
            let penalty = row.repetition_penalty;
            let logit = bitcast<f32>(x[j]);
            if (!is_nan(x[j])) { x[j] = bitcast<u32>(select(logit * penalty, logit / penalty, logit > 0.0)); }
        }
        let times = count & ~SEEN;
        // NONE is no finite number.
        let product = bitcast<u32>(row.frequency_penalty * f32(times));
        atomicStore(&tokens[at], select(NONE, product, times > 0u));
    }
    workgroupBarrier();
    for (var j = 0u; j < EACH; j++) {
        let product = atomicLoad(&tokens[j * THREADS + local]);
        if (product != NONE && !is_nan(x[j])) {
            x[j] = bitcast<u32>((bitcast<f32>(x[j]) - bitcast<f32>(product)) - row.presence_penalty);
        }
    }
}

// An id that occurs twice is added twice, in the list's order. So the entries of a chunk add in rounds: first those whose
// id is new in the chunk, then those that meet it for the second time, and so on. Nearly always that is one round.
fn add_bias(row: Row, base: u32, local: u32) {
    let start = min(row.bias_start, p.bias);
    let len = min(row.bias_len, p.bias - start);
    workgroupBarrier();
    for (var j = 0u; j < EACH; j++) { atomicStore(&tokens[j * THREADS + local], x[j]); }
    for (var chunk = 0u; chunk < len; chunk += THREADS) {
        var id = NONE;
        if (chunk + local < len) { id = bias_ids[start + chunk + local]; }
        let mine = id >= base && id - base < SLICE && id < p.vocab;
        workgroupBarrier();
        partial_keys[local] = id;
        if (local == 0u) { atomicStore(&shared_word, 0u); }
        workgroupBarrier();
        var round = 0u;
        if (mine) {
            round = 1u;
            for (var i = 0u; i < local; i++) { round += select(0u, 1u, partial_keys[i] == id); }
            atomicMax(&shared_word, round);
        }
        workgroupBarrier();
        let rounds = atomicLoad(&shared_word);
        for (var i = 1u; i <= rounds; i++) {
            if (round == i) {
                let bits = atomicLoad(&tokens[id - base]);
                let sum = bitcast<f32>(bits) + bias_values[start + chunk + local];
                if (!is_nan(bits)) { atomicStore(&tokens[id - base], bitcast<u32>(sum)); }
            }
            workgroupBarrier();
        }
    }
    workgroupBarrier();
    for (var j = 0u; j < EACH; j++) { x[j] = atomicLoad(&tokens[j * THREADS + local]); }
}

fn apply_mask(row: Row, base: u32, local: u32) {
    let start = min(row.mask_start, p.masks);
    let words = min(p.mask_words, p.masks - start);
    for (var j = 0u; j < EACH; j++) {
        let token = base + j * THREADS + local;
        var word = 0u;
        if (token / 32u < words) { word = masks[start + token / 32u]; }
        if (((word >> (token % 32u)) & 1u) == 0u) { x[j] = MINUS_INFINITY; }
    }
}

// The largest key of the slice; the largest of its blocks go to `blocks` where `deep`.
fn largest(local: u32, deep: bool, blocks: u32) -> u32 {
    workgroupBarrier();
    for (var j = 0u; j < EACH; j++) { atomicStore(&tokens[j * THREADS + local], key(x[j])); }
    workgroupBarrier();
    var most = 0u;
    for (var i = 0u; i < BLOCK / SLICE_BLOCKS; i++) {
        most = max(most, atomicLoad(&tokens[local / SLICE_BLOCKS * BLOCK + i * SLICE_BLOCKS + local % SLICE_BLOCKS]));
    }
    partial_keys[local] = most;
    workgroupBarrier();
    most = 0u;
    if (local < SLICE_BLOCKS) {
        for (var i = 0u; i < SLICE_BLOCKS; i++) { most = max(most, partial_keys[local * SLICE_BLOCKS + i]); }
        if (deep) { summary[blocks + local] = most; }
    }
    workgroupBarrier();
    if (local < SLICE_BLOCKS) { partial_keys[local] = most; }
    workgroupBarrier();
    for (var i = 0u; i < SLICE_BLOCKS; i++) { most = max(most, partial_keys[i]); }
    return most;
}

// The sum of the weights by the largest key of the slice.
fn weigh(local: u32, most: u32, factor: f32) -> f32 {
    let top = value(most);
    var sum = 0.0;
    for (var j = 0u; j < EACH; j++) { sum += weight(key(x[j]), top, factor); }
    partial_sums[local] = sum;
    workgroupBarrier();
    sum = 0.0;
    if (local < 16u) {
        for (var i = 0u; i < 16u; i++) { sum += partial_sums[local * 16u + i]; }
    }
    workgroupBarrier();
    if (local < 16u) { partial_sums[local] = sum; }
    workgroupBarrier();
    sum = 0.0;
    for (var i = 0u; i < 16u; i++) { sum += partial_sums[i]; }
    workgroupBarrier();
    return sum;
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let base = group.x * SLICE;
    let row = rows[group.y];
    for (var j = 0u; j < EACH; j++) {
        let token = base + j * THREADS + local;
        x[j] = MINUS_INFINITY;
        if (token < p.vocab) { x[j] = logits[group.y * p.vocab + token]; }
    }
    let row_words = p.slices * ROW_WORDS_PER_SLICE;
    let mine = group.y * row_words + group.x * SLICE_WORDS;
    let blocks = group.y * row_words + p.slices * SLICE_WORDS + group.x * SLICE_BLOCKS;
    if (row.logprobs != NONE) {
        let most = largest(local, true, blocks + p.slices * SLICE_BLOCKS);
        let sum = weigh(local, most, 1.0);
        if (local == 0u) {
            summary[mine + 3u] = most;
            summary[mine + 4u] = bitcast<u32>(sum);
        }
    }
    if (adjusts(row)) {
        if (penalises(row)) { penalise(row, base, local); }
        if (row.bias_len > 0u) { add_bias(row, base, local); }
        if (row.mask_start != NONE) { apply_mask(row, base, local); }
        for (var j = 0u; j < EACH; j++) {
            let token = base + j * THREADS + local;
            if (token < p.vocab) { adjusted[group.y * p.vocab + token] = x[j]; }
        }
    }
    // A zero of either sign is the same logit to who looks for the largest.
    var most = largest(local, draws(row), blocks);
    most = select(most, 0x80000000u, most == 0x7fffffffu);
    if (local == 0u) { atomicStore(&shared_word, NONE); }
    workgroupBarrier();
    for (var j = EACH; j > 0u; j--) {
        let mine = key(x[j - 1u]);
        if (select(mine, 0x80000000u, mine == 0x7fffffffu) == most) {
            atomicMin(&shared_word, base + (j - 1u) * THREADS + local);
        }
    }
    workgroupBarrier();
    if (local == 0u) {
        summary[mine] = most;
        summary[mine + 1u] = atomicLoad(&shared_word);
    }
    if (draws(row)) {
        let sum = weigh(local, most, scale(row));
        if (local == 0u) { summary[mine + 2u] = bitcast<u32>(sum); }
    }
}
