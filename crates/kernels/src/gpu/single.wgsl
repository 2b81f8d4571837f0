// f32 as an f32 KV cache stores it.

fn narrow(x: f32) -> f32 {
    return x;
}
