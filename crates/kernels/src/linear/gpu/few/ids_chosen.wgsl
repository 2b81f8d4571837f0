// The expert of each slot: every workgroup chooses those of its row for itself. The first of a slot writes down what was
// chosen.
// ids: u32 and shares: f32 [rows, top_k].

@group(0) @binding(2) var<storage, read_write> ids: array<u32>;
@group(0) @binding(9) var<storage, read_write> shares: array<f32>;

fn experts() -> u32 { return p.experts; }
fn top_k() -> u32 { return p.top_k; }
fn sums_to_one() -> bool { return (p.flags & 32u) != 0u; }

fn expert_of(slot: u32) -> u32 { return chosen_ids[slot % p.top_k]; }
