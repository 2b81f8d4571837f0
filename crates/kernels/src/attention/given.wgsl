// Queries that are given as they are multiplied, and keys and values that the cache has: the plain form of what
// `turned.wgsl` does.

struct Ahead { nothing: u32 }
struct OwnKey { nothing: u32 }

fn queries_ahead(kv_head: u32, query_head: u32, head_count: u32, local: u32) -> Ahead { return Ahead(); }
fn queries_half_way(ahead: Ahead, local: u32) {}
fn own_key_of(ahead: Ahead, position: u32, begin: u32, end: u32, stores: bool) -> OwnKey { return OwnKey(); }
fn see_own_key(own: ptr<function, OwnKey>, kv_head: u32, local: u32) {}
fn own_score(score: vec4<f32>, own: OwnKey, head: u32, first: u32) -> vec4<f32> { return score; }
fn own_value(raw: Raw, ahead: Ahead, own: OwnKey, key: u32) -> Raw { return raw; }
fn store_own(ahead: Ahead, own: OwnKey, kv_head: u32, local: u32) {}

// Features from chunk on, of all heads, to `queries`.
fn put_queries(ahead: Ahead, row: u32, query_head: u32, head_count: u32, chunk: u32, local: u32) {
    for (var i = 0u; i < CHUNK * HEADS / WIDTH; i += THREADS) {
        let d = (i + local) % CHUNK;
        let wide = (i + local) / CHUNK;
        var x: Heads;
        for (var j = 0u; j < WIDTH; j++) {
            let head = wide * WIDTH + j;
            let wanted = head < head_count && (EXACT || chunk + d < head_dim());
            let at = (row * p.heads + query_head + head) * head_dim() + chunk + d;
            x[j] = select(0.0, q[select(0u, at, wanted)], wanted) * p.scale;
        }
        if (wide < HEADS / WIDTH) { queries[d * (HEADS / WIDTH) + wide] = x; }
    }
}
