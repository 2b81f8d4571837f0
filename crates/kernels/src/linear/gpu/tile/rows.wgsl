// Which rows a tile has, of a product or of an expert.
//
// The slots of an expert are cut into tiles of TM. Tile `y` of a launch belongs to expert e when
// offsets[e] / TM + e <= y < offsets[e + 1] / TM + e + 1: these ranges follow each other and hold at least
// ceil(slots / TM) tiles, so that no sum over the experts before e is needed; the tiles left over end at once.
// A prelude gives TM, rows of a tile, and THREADS.

const NONE: u32 = 0xffffffffu;

// Of each row of the tile: the row of x, and the row of out; NONE beyond the last.
var<workgroup> in_rows: array<u32, TM>;
var<workgroup> out_rows: array<u32, TM>;
// Expert, first and end of its slots that the tile starts with.
var<workgroup> found: vec3<u32>;

// Fills in_rows and out_rows; the expert, or NONE when there is nothing to do. Ends in a barrier.
fn find_rows(tile: u32, t: u32) -> u32 {
    if ((p.flags & EXPERTS) == 0u) {
        for (var i = t; i < TM; i += THREADS) {
            let row = select(NONE, tile * TM + i, tile * TM + i < p.rows);
            in_rows[i] = row;
            out_rows[i] = row;
        }
        workgroupBarrier();
        return 0u;
    }
    if (t == 0u) { found = vec3(NONE, 0u, 0u); }
    workgroupBarrier();
    for (var e = t; e < p.experts; e += THREADS) {
        let begin = min(offsets[e], p.rows);
        let end = min(offsets[e + 1u], p.rows);
        let start = begin / TM + e;
        if (tile >= start && tile < end / TM + e + 1u) {
            let first = begin + (tile - start) * TM;
            if (first < end) { found = vec3(e, first, end); }
        }
    }
    let mine = workgroupUniformLoad(&found);
    if (mine.x == NONE) { return NONE; }
    for (var i = t; i < TM; i += THREADS) {
        var slot = NONE;
        if (mine.y + i < mine.z) { slot = order[mine.y + i]; }
        var input = slot;
        if (p.top_k > 0u) { input = slot / p.top_k; }
        // Slots and rows that do not exist are skipped.
        let there = slot < p.rows && input < p.input_rows;
        in_rows[i] = select(NONE, input, there);
        out_rows[i] = select(NONE, slot, there);
    }
    workgroupBarrier();
    return mine.x;
}
