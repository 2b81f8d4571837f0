// The inputs of attention, and where the cache has the keys of a sequence.
// q: f32 [rows, heads, head_dim]; row_seq, positions: u32 [rows]; block_tables: u32 [seqs, blocks_per_seq].
// Sixteen positions of the cache are a strip: keys [cache_strips, kv_heads, head_dim, 16], values [cache_strips,
// kv_heads, 16, head_dim].

@group(0) @binding(0) var<storage, read> q: array<f32>;
@group(0) @binding(3) var<storage, read> row_seq: array<u32>;
@group(0) @binding(4) var<storage, read> positions: array<u32>;
@group(0) @binding(5) var<storage, read> block_tables: array<u32>;

// The strip of the cache that holds position `strip * 16` of sequence `seq`, or NOWHERE.
fn strip_of(seq: u32, strip: u32) -> u32 {
    let block = strip / p.block_strips;
    if (seq >= p.seqs || block >= p.blocks_per_seq) { return NOWHERE; }
    let id = block_tables[seq * p.blocks_per_seq + block];
    if (id > (p.cache_strips - 1u) / p.block_strips) { return NOWHERE; }
    let found = id * p.block_strips + strip % p.block_strips;
    return select(NOWHERE, found, found < p.cache_strips);
}
