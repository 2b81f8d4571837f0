//! What compiles, and what a kernel is told that does not.

use bessemer_wgsl::{Languages, compile};

const SCALE: &str = "
enable f16;
struct Params { count: u32, factor: f32 }
var<immediate> p: Params;
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
var<workgroup> part: array<f32, 64>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    part[local] = subgroupAdd(f32(f16(x[id.x])));
    workgroupBarrier();
    if (id.x < p.count) { y[id.x] = part[local ^ 1u] * p.factor; }
}";

#[test]
fn a_kernel_comes_out_in_both_languages() {
    let scale = compile("scale", SCALE, Languages::All).unwrap();
    assert_eq!((scale.workgroup, scale.bindings, scale.written, scale.params), ([64, 1, 1], 2, 0b10, 8));
    assert_eq!(scale.threadgroup, [256]);
    assert_eq!(scale.spirv[0], 0x0723_0203, "SPIR-V's magic number");
    assert!(scale.msl.contains(&format!("kernel void {}", scale.msl_entry)), "{}", scale.msl);
    assert!(!scale.cooperative_matrix);
}

#[test]
fn a_cooperative_matrix_is_noticed() {
    let source = "
enable f16;
enable wgpu_cooperative_matrix;
@group(0) @binding(0) var<storage, read> a: array<f16>;
@group(0) @binding(1) var<storage, read_write> c: array<f32>;
@compute @workgroup_size(32)
fn main() {
    var sum = coopLoadT<coop_mat16x16<f32, C>>(&c[0], 16u);
    let left = coopLoadT<coop_mat16x16<f16, A>>(&a[0], 16u);
    let right = coopLoadT<coop_mat16x16<f16, B>>(&a[0], 16u);
    sum = coopMultiplyAdd(left, right, sum);
    coopStoreT(sum, &c[0], 16u);
}";
    assert!(compile("matrix", source, Languages::Spirv).unwrap().cooperative_matrix);
}

#[test]
fn a_bad_kernel_is_refused_with_its_line() {
    let broken = SCALE.replace("p.factor", "p.divisor");
    let error = compile("scale", &broken, Languages::All).unwrap_err().to_string();
    assert!(error.contains("scale") && error.contains("divisor"), "{error}");
    let gap = SCALE.replace("@binding(1)", "@binding(2)");
    assert!(compile("scale", &gap, Languages::All).unwrap_err().to_string().contains("gaps"));
    let long = SCALE.replace("count: u32", "count: array<vec4<u32>, 9>").replace("id.x < p.count", "true");
    assert!(compile("scale", &long, Languages::All).unwrap_err().to_string().contains("at most 128"));
}
