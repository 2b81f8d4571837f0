// e^x for x ≤ 88, by the formula of the CPU kernels (the same bits where fma is fused); 0 below −87 and for NaN.

fn exponential(x: f32) -> f32 {
    let clamped = max(x, -87.0);
    let n = round(clamped * 1.442695);
    var r = fma(n, -0.6933594, clamped);
    r = fma(n, 0.00021219444, r) * 1.442695;
    var power = fma(0.001326473, r, 0.009671514);
    power = fma(power, r, 0.055507336);
    power = fma(power, r, 0.24022242);
    power = fma(power, r, 0.693147);
    power = fma(power, r, 1.0);
    let value = power * bitcast<f32>(u32(i32(n) + 127) << 23u);
    return select(0.0, value, x >= -87.0);
}
