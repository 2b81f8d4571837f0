// Plain weights to halves, 8 inputs of 4 outputs a thread; zeros beyond the last input. w: [inp][16] a panel.
// A part before it gives Four, the type of four weights in memory, and `narrow`, which makes halves of them.
@group(0) @binding(0) var<storage, read> w: array<Four>;

struct Raw { inputs: array<Four, 8> }

fn fetch(matrix: u32, step: u32, octet: u32, quad: u32) -> Raw {
    let k = step * 32u + octet * 8u;
    var raw: Raw;
    for (var j = 0u; j < 8u; j++) {
        if (k + j < p.inp) { raw.inputs[j] = w[matrix / WORDS + (k + j) * 4u + quad]; }
    }
    return raw;
}

fn unpack(raw: Raw, step: u32, octet: u32, quad: u32, at: u32) {
    let a = narrow(raw.inputs[0]);
    let b = narrow(raw.inputs[1]);
    let c = narrow(raw.inputs[2]);
    let d = narrow(raw.inputs[3]);
    let e = narrow(raw.inputs[4]);
    let f = narrow(raw.inputs[5]);
    let g = narrow(raw.inputs[6]);
    let h = narrow(raw.inputs[7]);
    for (var i = 0u; i < 4u; i++) {
        put_w(at + i * PITCH, Octet(vec4(a[i], b[i], c[i], d[i]), vec4(e[i], f[i], g[i], h[i])));
    }
}
