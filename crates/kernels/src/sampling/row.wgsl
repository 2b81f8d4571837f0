// What both launches of the sampler share: a row's settings, logits as ordered keys, and the layout of the summary.
//
// Logits are read as bits, so that what is not a number is told apart whatever a compiler assumes of floats.

// RowParams; floats that may be anything are bits.
struct Row {
    seed_low: u32,
    seed_high: u32,
    step: u32,
    temperature: u32,
    top_k: u32,
    top_p: u32,
    min_p: u32,
    repetition_penalty: f32,
    presence_penalty: f32,
    frequency_penalty: f32,
    history_start: u32,
    history_len: u32,
    prompt_len: u32,
    bias_start: u32,
    bias_len: u32,
    mask_start: u32,
    logprobs: u32,
    padding: u32,
}

const NONE = 0xffffffffu;
const INFINITY = 0x7f800000u;
const MINUS_INFINITY = 0xff800000u;
const LARGEST = 3.4028235e38;

// A slice of a row is what a workgroup of the first launch summarises; its blocks are as in the CPU form.
const SLICE = 2048u;
const BLOCK = 128u;
const SLICE_BLOCKS = 16u;

// Words of the summary of a slice: largest key, its first token, sum of the weights, for the logits as adjusted; then
// largest key and sum for the raw logits. In a row of the summary all slices come first, then the largest keys of all
// blocks as adjusted, then those of the raw logits.
const SLICE_WORDS = 8u;
const ROW_WORDS_PER_SLICE = 40u;

fn is_nan(bits: u32) -> bool { return (bits & 0x7fffffffu) > INFINITY; }

// Keys order as the logits do, −0 before 0; what is not a number is −∞.
const KEY_MINUS_INFINITY = 0x007fffffu;

fn key(bits: u32) -> u32 {
    let ordered = select(bits | 0x80000000u, ~bits, (bits & 0x80000000u) != 0u);
    return select(ordered, KEY_MINUS_INFINITY, is_nan(bits));
}

// The bits of the logit of a key.
fn bits_of(key: u32) -> u32 { return select(~key, key & 0x7fffffffu, (key & 0x80000000u) != 0u); }

// The logit of a key as a finite number.
fn value(key: u32) -> f32 {
    let bits = bits_of(key);
    let sign = bits & 0x80000000u;
    return bitcast<f32>(select(bits, sign | 0x7f7fffffu, (bits & 0x7fffffffu) == INFINITY));
}

// e^((logit − top) · factor); 0 for −∞.
fn weight(key: u32, top: f32, factor: f32) -> f32 {
    let w = exponential((value(key) - top) * factor);
    return select(0.0, w, key > KEY_MINUS_INFINITY);
}

fn draws(row: Row) -> bool {
    // A positive number, as bits.
    return row.temperature != 0u && row.temperature <= INFINITY;
}

fn scale(row: Row) -> f32 { return min(1.0 / bitcast<f32>(row.temperature), 1e30); }

fn penalises(row: Row) -> bool {
    return row.history_len > 0u
        && (row.repetition_penalty != 1.0 || row.presence_penalty != 0.0 || row.frequency_penalty != 0.0);
}

fn adjusts(row: Row) -> bool { return penalises(row) || row.bias_len > 0u || row.mask_start != NONE; }
