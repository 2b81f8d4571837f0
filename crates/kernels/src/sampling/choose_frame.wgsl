// Frame of the sampler's second launch: its operands, the workgroup's memory, and what a thread knows.

struct Params { vocab: u32, slices: u32 }
var<immediate> p: Params;
@group(0) @binding(0) var<storage, read> logits: array<u32>;
@group(0) @binding(1) var<storage, read> rows: array<Row>;
@group(0) @binding(2) var<storage, read> adjusted: array<u32>;
@group(0) @binding(3) var<storage, read> summary: array<u32>;
@group(0) @binding(4) var<storage, read_write> out: array<vec2<u32>>;
@group(0) @binding(5) var<storage, read_write> top_ids: array<u32>;
@group(0) @binding(6) var<storage, read_write> top_logprobs: array<f32>;

const MAX_LOGPROBS = 20u;
const EACH = SLICE / THREADS;
const BINS = 512u;
const LIST = 1024u;
const ACTIVE = 512u;
// Tokens that often hold top_p of the probability.
const FEW = 256u;
const BATCH = 16u;
const LAST = vec2<u32>(NONE, NONE);

// Tokens and their weight, by bin.
var<workgroup> counts: array<atomic<u32>, BINS>;
var<workgroup> low: array<atomic<u32>, BINS>;
var<workgroup> high: array<atomic<u32>, BINS>;
// Places of tokens.
var<workgroup> list: array<vec2<u32>, LIST>;
var<workgroup> listed: atomic<u32>;
// The blocks that passes go through, or the slices that the draw does.
var<workgroup> active_parts: array<u32, ACTIVE>;
var<workgroup> parts: atomic<u32>;
// Count and weight, by subgroup.
var<workgroup> sums: array<vec3<u32>, THREADS>;
// What a scan picked: index, sum before it, sum with it.
var<workgroup> picked_index: u32;
var<workgroup> picked_before: vec3<u32>;
var<workgroup> picked_with: vec3<u32>;
var<workgroup> best_key: atomic<u32>;
var<workgroup> best_id: atomic<u32>;

// The thread: lanes of one subgroup are neighbours.
var<private> local: u32;
var<private> lane: u32;
var<private> lanes: u32;
var<private> subgroup: u32;
var<private> row_index: u32;
// The tokens that a pass is about, from the first place to the last, and what it does with them.
var<private> range_first: vec2<u32>;
var<private> range_last: vec2<u32>;
var<private> listing: bool;
var<private> octaves: bool;
var<private> bin_step: u32;
// Histograms count, and weigh.
var<private> counting: bool;
var<private> weighing: bool;
// Which logits are looked at: adjusted or raw; where their blocks' keys begin.
var<private> from_adjusted: bool;
var<private> blocks_at: u32;
// Their largest key and logit, and the factor that distances from it are multiplied with.
var<private> best: u32;
var<private> top: f32;
var<private> factor: f32;
// Passes go through all blocks, not only through `active_parts`.
var<private> everything: bool;
// What `descend` looks for: the first token with which the sum reaches this.
var<private> by_weight: bool;
var<private> target_sum: vec3<u32>;
// Whether `list` holds every token from the best on, and how many tokens it holds.
var<private> whole: bool;
var<private> list_len: u32;
// A draw: `descend` looks for the token where the random number falls, among those that weigh at least this.
var<private> by_id: bool;
var<private> least: f32;
// The sum of all that was gone through.
var<private> all_sum: vec3<u32>;
