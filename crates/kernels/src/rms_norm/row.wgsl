// What the norms of whole rows share: a workgroup of 256 has a row.

const THREADS: u32 = 256u;
struct Params {
    rows: u32,
    cells: u32, // dim / 4
    eps: f32,
    // Int8: vectors that share a scale, group / 4.
    lanes: u32,
    // Experts whose results join a row.
    top_k: u32,
}
var<immediate> p: Params;

fn cells() -> u32 { return p.cells; }
fn lanes() -> u32 { return p.lanes; }
fn eps() -> f32 { return p.eps; }
